"""Databases that SQLAlchemy's suite can run on: one for each process, with the schemas and extensions that it expects."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pymysql

from tests.support.debian_postgres import DebianPostgres
from tests.support.mariadb_server import MariaDBServer

__all__ = ["database_urls"]


@contextmanager
def database_urls(database: str, number: int) -> Iterator[list[str]]:
    """Make a number of databases, and give their URLs with a driver in them.

    Args:
        database: one of `tests.sqlalchemy_suite.modules.DATABASES`.
        number: how many.
    """
    if database in {"sqlite", "aiosqlite"}:
        yield ["sqlite://" if database == "sqlite" else "sqlite+aiosqlite://"] * number
    elif database == "mariadb":
        yield from _mariadb(number)
    else:
        yield from _postgresql("psycopg" if database == "postgresql" else "asyncpg", number)


def _postgresql(driver: str, number: int) -> Iterator[list[str]]:
    # Debian's, since the suite needs the extensions hstore and citext.
    with DebianPostgres() as server:
        urls = []
        for index in range(number):
            name = f"suite{index}"
            url = server.url.replace("/postgres?", f"/{name}?")
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {name}")
                admin.execute(f"ALTER DATABASE {name} SET default_text_search_config = 'pg_catalog.english'")
            with psycopg.connect(url, autocommit=True) as own:
                for command in ("SCHEMA test_schema", "SCHEMA test_schema_2", "EXTENSION hstore", "EXTENSION citext"):
                    own.execute(f"CREATE {command}")
            urls.append(url.replace("postgresql:", f"postgresql+{driver}:"))
        yield urls


def _mariadb(number: int) -> Iterator[list[str]]:
    # The suite's second schema is a second database of a fixed name, so there is one server for each process.
    if number > 1:
        with MariaDBServer() as server:
            for more in _mariadb(number - 1):
                yield [*_prepared(server), *more]
    else:
        with MariaDBServer() as server:
            yield _prepared(server)


def _prepared(server: MariaDBServer) -> list[str]:
    with pymysql.connect(unix_socket=server.socket, user="root") as admin, admin.cursor() as cursor:
        for name in ("suite", "test_schema"):
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return [server.url("suite").replace("mysql:", "mysql+pymysql:")]
