"""The databases of the barrier's tests: SQLite, and PostgreSQL with psycopg."""

from collections.abc import Iterator
from pathlib import Path

import psycopg.conninfo
import pytest
from django.db import connections

from tests.django.orm.world import database, use_alias


def postgres_settings(url: str) -> dict[str, object]:
    """Return Django's settings for a URL."""
    given = psycopg.conninfo.conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": given["dbname"],
        "USER": given.get("user", ""),
        "HOST": given["host"],
        "PORT": given.get("port", ""),
        # Small tables, read as large ones are: row by row, and joined by hashes.
        "OPTIONS": {"options": "-c enable_nestloop=off -c enable_indexscan=off -c enable_bitmapscan=off"},
    }


@pytest.fixture(scope="module")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path: Path = tmp_path_factory.mktemp("django") / "world.db"
    with database("sqlite_world", {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}) as alias:
        yield alias


@pytest.fixture(scope="module")
def postgres_world(postgres_module_url: str) -> Iterator[str]:
    with database("postgres_world", postgres_settings(postgres_module_url)) as alias:
        yield alias


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> Iterator[str]:
    """The alias of a seeded database, to which everything without ``using()`` goes."""
    name: str = request.getfixturevalue("sqlite_world" if request.param == "sqlite" else "postgres_world")
    with use_alias(name):  # the other one may have been set up since
        yield name


@pytest.fixture(scope="session", autouse=True)
def close_connections() -> Iterator[None]:
    yield
    connections.close_all()
