"""What every test may use: a real PostgreSQL, a real MariaDB and a real Redis, each started once for the run.

Whoever asks for PostgreSQL or MariaDB gets a database of its own; those who use Redis share it, and choose keys of
their own.
"""

import gc
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pymysql
import pytest
from hypothesis import HealthCheck, settings

from tests.support.debian_postgres import DebianPostgres
from tests.support.mariadb_server import MariaDBServer
from tests.support.memory import keep_temporary_files_in_memory
from tests.support.postgres_server import postgres_server as server_of_postgres
from tests.support.redis_server import RedisServer

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

keep_temporary_files_in_memory()


def pytest_collection_finish() -> None:
    """Leave what was collected to itself: garbage is looked for among what the tests make, not in all the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that listens on a Unix socket alone."""
    with server_of_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database, without a driver in it."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture(scope="module")
def postgres_module_url(postgres_server: str) -> Iterator[str]:
    """The same for all tests of a module."""
    with _database(postgres_server) as url:
        yield url


@contextmanager
def _database(postgres_server: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        yield postgres_server.replace("/postgres?", f"/{name}?")
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def debian_postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL with ICU and citext, whose one database is shared."""
    with DebianPostgres() as server:
        yield server.url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB server that listens on a Unix socket alone."""
    with MariaDBServer() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """The URL of an empty database, without a driver in it."""
    with _mariadb_database(mariadb_server) as url:
        yield url


@pytest.fixture(scope="module")
def mariadb_module_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """The same for all tests of a module."""
    with _mariadb_database(mariadb_server) as url:
        yield url


@contextmanager
def _mariadb_database(server: MariaDBServer) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with pymysql.connect(unix_socket=server.socket, user="root") as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield server.url(name)
        cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis server on loopback that keeps nothing on disk."""
    with RedisServer() as server:
        yield server.url
