"""What every test may use: a real PostgreSQL and a real Redis, each started once for the run.

Whoever asks for PostgreSQL gets a database of its own; those who use Redis share it, and choose keys of their own.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.support.postgres_server import postgres_server as server_of_postgres
from tests.support.redis_server import RedisServer


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
def redis_url() -> Iterator[str]:
    """The URL of a Redis server on loopback that keeps nothing on disk."""
    with RedisServer() as server:
        yield server.url
