"""Databases that fail, hang, or are not what a store may use, in a real SQLite file and a real PostgreSQL."""

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from tenantguard.errors import ConfigurationError, StoreUnavailable
from tenantguard.orm import protect
from tenantguard.tokens.api_keys import SqlApiKeyStore
from tests.support.api_keys import key, key_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db"


@pytest.fixture
async def postgres_store(postgres_url: str, anyio_backend: str) -> AsyncIterator[SqlApiKeyStore]:
    patient = SqlApiKeyStore(postgres_url)
    await patient.create_table()
    await patient.add(key(1))
    await patient.aclose()
    made = SqlApiKeyStore(postgres_url, timeout=0.5)
    yield made
    await made.aclose()


# --- when the database fails ---------------------------------------------------------------------------------


async def test_a_missing_table_is_an_unavailable_store_that_says_how_to_make_it(
    sqlite_url: str, postgres_url: str
) -> None:
    for url, kind in ((sqlite_url, "OperationalError"), (postgres_url, "UndefinedTable, SQLSTATE 42P01")):
        store = SqlApiKeyStore(url)
        with pytest.raises(StoreUnavailable, match=r"create_table\(\)") as caught:
            await store.get(key_id(1))
        assert kind in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None, "the driver's error holds the statement's values"
        await store.aclose()


async def test_a_database_that_is_not_there_is_an_unavailable_store(free_port: int) -> None:
    store = SqlApiKeyStore(f"postgresql://app:pass-word@127.0.0.1:{free_port}/app")
    with pytest.raises(StoreUnavailable) as caught:
        await store.get(key_id(1))
    assert "pass-word" not in f"{caught.value!r}{store!r}"
    await store.aclose()


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        yield taken.getsockname()[1]


async def test_a_database_that_hangs_is_given_up_without_holding_the_loop(
    postgres_store: SqlApiKeyStore, postgres_url: str
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    with psycopg.connect(postgres_url) as locking:
        locking.execute("LOCK TABLE tenantguard_api_keys IN ACCESS EXCLUSIVE MODE")
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="in time"):
                await postgres_store.get(key_id(1))
            assert time.monotonic() - began < 10
            group.cancel_scope.cancel()
    assert ticks >= 5
    for _ in range(100):
        try:
            assert await postgres_store.get(key_id(1)) == key(1)
        except StoreUnavailable:
            await anyio.sleep(0.02)
        else:
            break
    else:
        pytest.fail("the store does not recover")


async def test_work_that_nobody_waits_for_any_more_is_not_begun(
    postgres_store: SqlApiKeyStore, postgres_url: str
) -> None:
    refused = 0

    async def touch() -> None:
        nonlocal refused
        try:
            await postgres_store.touch(key_id(1), 500)
        except StoreUnavailable:
            refused += 1

    with psycopg.connect(postgres_url) as locking:
        locking.execute("LOCK TABLE tenantguard_api_keys IN ACCESS EXCLUSIVE MODE")
        async with anyio.create_task_group() as group:
            for _ in range(10):  # as many as there are threads
                group.start_soon(touch)
            await anyio.sleep(0.1)
            with pytest.raises(StoreUnavailable):
                await postgres_store.add(key(2))
    assert refused == 10
    await anyio.sleep(0.3)
    patient = SqlApiKeyStore(postgres_url)
    assert [found.id for found in await patient.list()] == [key_id(1)]
    await patient.aclose()


async def test_a_closed_store_lets_nobody_in(sqlite_url: str) -> None:
    store = SqlApiKeyStore(sqlite_url)
    await store.create_table()
    await store.aclose()
    with pytest.raises(StoreUnavailable, match="is closed"):
        await store.get(key_id(1))


@pytest.mark.parametrize(
    "spoiled",
    ["actor_type = 'human'", "actor_type = 'robot'", "tenant = ''", "service = ''", "secret_hash = 'short'"],
)
async def test_a_row_that_makes_no_sense_lets_nobody_in(sqlite_url: str, spoiled: str) -> None:
    store = SqlApiKeyStore(sqlite_url)
    await store.create_table()
    await store.add(key(1))
    engine = create_engine(sqlite_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE tenantguard_api_keys SET {spoiled}"))
    with pytest.raises(StoreUnavailable):
        await store.get(key_id(1))
    await store.aclose()


FORKED = """
import os, sys, anyio
from tenantguard.tokens.api_keys import ApiKey, SqlApiKeyStore

store = SqlApiKeyStore(sys.argv[1])

async def prepare():
    await store.create_table()
    for number in range(2):
        await store.add(ApiKey(id=f"{number:016}", secret_hash=bytes(32), service="s", tenant="acme", created_at=1))

async def read(number):
    for _ in range(200):
        found = await store.get(f"{number:016}")
        assert found is not None and found.id == f"{number:016}"

anyio.run(prepare)
child = os.fork()
anyio.run(read, 1 if child else 0)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_does_not_share_the_connections_of_its_parent(postgres_url: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKED, postgres_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr


# --- what a store refuses at the start -----------------------------------------------------------------------


def test_an_engine_that_tenantguard_protects_is_refused_with_a_mend(sqlite_url: str) -> None:
    engine = protect(create_engine(sqlite_url))
    with pytest.raises(ConfigurationError, match="Give the database URL instead"):
        SqlApiKeyStore(engine)


async def test_an_engine_that_is_protected_afterwards_is_refused_then(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    store = SqlApiKeyStore(engine)
    await store.create_table()
    await store.add(key(1))
    protect(engine)
    with pytest.raises(ConfigurationError, match="Give the database URL instead"):
        await store.get(key_id(1))
    engine.dispose()


async def test_an_engine_that_was_given_stays_open(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    store = SqlApiKeyStore(engine, table_name="keys_of_services")
    await store.create_table()
    await store.add(key(1))
    await store.aclose()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM keys_of_services")).scalar_one() == 1
    engine.dispose()


def test_an_asynchronous_engine_is_refused_with_a_mend(sqlite_url: str, postgres_url: str) -> None:
    asynchronous = sqlite_url.replace("sqlite:", "sqlite+aiosqlite:")
    for engine in (
        create_async_engine(asynchronous),
        create_engine(asynchronous),
        asynchronous,
        postgres_url.replace("postgresql:", "postgresql+asyncpg:"),
    ):
        with pytest.raises(ConfigurationError, match="synchronous driver"):
            SqlApiKeyStore(engine)


def test_a_database_in_memory_is_refused_with_a_mend() -> None:
    for engine in (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&cache=shared&uri=true",
        create_engine("sqlite://"),
        create_engine("sqlite://", poolclass=StaticPool),
    ):
        with pytest.raises(ConfigurationError, match="Use a file"):
            SqlApiKeyStore(engine)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "postgresql://app:pass-word@db:port/app",
        "nodb://app:pass-word@db/app",
        "oracle://app:pass-word@db",
    ],
)
def test_an_unusable_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="For example") as caught:
        SqlApiKeyStore(url)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("engine", [None, 5, b"sqlite:///x", object()], ids=["none", "number", "bytes", "object"])
def test_what_is_no_engine_is_refused(engine: object) -> None:
    with pytest.raises(ConfigurationError, match="URL or an Engine"):
        SqlApiKeyStore(engine)


def test_other_settings_are_checked(sqlite_url: str) -> None:
    for setting in ({"timeout": 0}, {"timeout": True}, {"timeout": float("nan")}, {"table_name": "a b"}):
        with pytest.raises(ConfigurationError, match="Leave"):
            SqlApiKeyStore(sqlite_url, **setting)


async def test_the_old_name_of_a_postgresql_url_is_understood(postgres_url: str) -> None:
    store = SqlApiKeyStore(postgres_url.replace("postgresql:", "postgres:"))
    await store.create_table()
    assert await store.get(key_id(1)) is None
    await store.aclose()
