"""Stores of API keys: in memory, in a real SQLite file and in a real PostgreSQL, on asyncio and trio."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import msgspec
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from tenantguard.errors import ConfigurationError, InvalidTenantId, StoreUnavailable
from tenantguard.identity import ActorType
from tenantguard.orm import protect
from tenantguard.tokens.api_key_records import KeyHash
from tenantguard.tokens.api_keys import ApiKey, ApiKeyState, ApiKeyStore, InMemoryApiKeyStore, SqlApiKeyStore

pytestmark = pytest.mark.anyio

HASH = bytes(range(200, 232))


def key_id(number: int) -> str:
    return f"{number:016}"


def key(number: int = 1, **changes: object) -> ApiKey:
    fields: dict[str, object] = {
        "id": key_id(number),
        "secret_hash": HASH,
        "service": "invoice-sync",
        "tenant": "acme",
        "scopes": frozenset({"documents:read", "documents:write"}),
        "name": "the nightly job ü",
        "created_at": 1_700_000_000 + number,
    }
    return ApiKey(**{**fields, **changes})


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[ApiKeyStore]:
    if request.param == "memory":
        yield InMemoryApiKeyStore()
        return
    made = SqlApiKeyStore(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))
    await made.create_table()
    yield made
    await made.aclose()


@pytest.fixture
async def postgres_store(postgres_url: str, anyio_backend: str) -> AsyncIterator[SqlApiKeyStore]:
    made = SqlApiKeyStore(postgres_url, timeout=0.3)
    await made.create_table()
    yield made
    await made.aclose()


# --- what a store does ---------------------------------------------------------------------------------------


async def test_a_key_comes_back_as_it_was_added(store: ApiKeyStore) -> None:
    plain = key(1, name=None, tenant=None, scopes=frozenset())
    full = key(2, actor_type=ActorType.AGENT, expires_at=1, revoked_at=2, last_used_at=3, replaces=key_id(1))
    await store.add(plain)
    await store.add(full)
    assert await store.get(key_id(1)) == plain
    assert await store.get(key_id(2)) == full
    assert await store.get(key_id(3)) is None


async def test_a_key_with_the_id_of_another_is_not_added(store: ApiKeyStore) -> None:
    await store.add(key(1))
    with pytest.raises(ValueError, match="Mint another"):
        await store.add(key(1, tenant="globex"))
    found = await store.get(key_id(1))
    assert found is not None
    assert found.tenant == "acme"


async def test_keys_are_listed_by_tenant_and_service_the_oldest_first(store: ApiKeyStore) -> None:
    await store.add(key(4))
    await store.add(key(1, service="export"))
    await store.add(key(3, tenant="globex"))
    await store.add(key(2, tenant=None))

    async def ids(**chosen: object) -> list[int]:
        return [int(found.id) for found in await store.list(**chosen)]

    assert await ids() == [1, 2, 3, 4]
    assert await ids(tenant="acme") == [1, 4]
    assert await ids(tenant=None) == [2], "None names the keys of no tenant, never those of all"
    assert await ids(service="invoice-sync") == [2, 3, 4]
    assert await ids(tenant="acme", service="export") == [1]
    assert await ids(tenant="nobody") == []


async def test_a_revoked_key_keeps_the_time_of_its_first_revocation(store: ApiKeyStore) -> None:
    await store.add(key(1))
    await store.add(key(2))
    assert await store.revoke(key_id(1), 500)
    assert await store.revoke(key_id(1), 900)
    assert [found.revoked_at for found in await store.list()] == [500, None]
    assert not await store.revoke(key_id(3), 500)


async def test_a_key_is_shortened_and_never_lengthened(store: ApiKeyStore) -> None:
    await store.add(key(1))
    for wanted, held in ((900, 900), (950, 900), (800, 800)):
        assert await store.shorten(key_id(1), wanted)
        found = await store.get(key_id(1))
        assert found is not None
        assert found.expires_at == held
    assert not await store.shorten(key_id(2), 900)


async def test_a_revoked_key_is_not_shortened_and_that_is_said(store: ApiKeyStore) -> None:
    await store.add(key(1, revoked_at=5))
    assert not await store.shorten(key_id(1), 900)
    found = await store.get(key_id(1))
    assert found is not None
    assert found.expires_at is None


async def test_the_last_use_only_moves_on(store: ApiKeyStore) -> None:
    await store.add(key(1))
    for at in (500, 700, 600):
        await store.touch(key_id(1), at)
    await store.touch(key_id(2), 500)
    assert [found.last_used_at for found in await store.list()] == [700]


async def test_keys_that_are_added_at_once_are_all_kept(store: ApiKeyStore) -> None:
    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(store.add, key(number))
    assert len(await store.list()) == 30


def test_one_store_serves_many_event_loops(postgres_url: str) -> None:
    store = SqlApiKeyStore(postgres_url)
    anyio.run(store.create_table)
    anyio.run(store.add, key(1))
    found: list[ApiKey | None] = []

    async def read() -> None:
        found.extend([await store.get(key_id(1)) for _ in range(20)])

    threads = [threading.Thread(target=anyio.run, args=(read,), kwargs={"backend": b}) for b in ("asyncio", "trio") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [key(1)] * 80
    anyio.run(store.aclose)


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
    await postgres_store.add(key(1))
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
            assert time.monotonic() - began < 2
            group.cancel_scope.cancel()
    assert ticks >= 10
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
    await postgres_store.add(key(1))
    refused = 0

    async def revoke() -> None:
        nonlocal refused
        try:
            await postgres_store.touch(key_id(1), 500)
        except StoreUnavailable:
            refused += 1

    with psycopg.connect(postgres_url) as locking:
        locking.execute("LOCK TABLE tenantguard_api_keys IN ACCESS EXCLUSIVE MODE")
        async with anyio.create_task_group() as group:
            for _ in range(10):  # as many as there are threads
                group.start_soon(revoke)
            await anyio.sleep(0.1)
            with pytest.raises(StoreUnavailable):
                await postgres_store.add(key(2))
    assert refused == 10
    await anyio.sleep(0.2)
    assert [found.id for found in await postgres_store.list()] == [key_id(1)]


async def test_a_closed_store_lets_nobody_in(store: ApiKeyStore) -> None:
    if isinstance(store, InMemoryApiKeyStore):
        return
    assert isinstance(store, SqlApiKeyStore)
    await store.add(key(1))
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


@pytest.mark.parametrize("engine", [None, 5, b"sqlite:///x", object()], ids=repr)
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


# --- what nobody sees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite_url", "postgres_url"])
async def test_an_engine_that_logs_everything_logs_no_digest(
    database: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    url: str = request.getfixturevalue(database)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), echo="debug")
    store = SqlApiKeyStore(engine)
    with caplog.at_level(logging.DEBUG):
        await store.create_table()
        await store.add(key(1))
        with pytest.raises(ValueError, match="Mint another"):
            await store.add(key(1))
        assert await store.get(key_id(1)) == key(1)
        await store.list()
    engine.dispose()
    assert "invoice-sync" in caplog.text, "the statements were logged"
    for shown in (HASH.hex(), HASH.hex().upper(), repr(HASH), repr(HASH)[2:20]):
        assert shown not in caplog.text


def test_a_record_shows_no_digest() -> None:
    record = key(1)
    shown = f"{record} {record!r} {record.secret_hash} {record.secret_hash!r} {record.secret_hash!s:>50}"
    assert repr(HASH)[2:20] not in shown
    assert HASH.hex() not in shown
    assert record.secret_hash == HASH
    assert isinstance(record.secret_hash, KeyHash)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "short"},
        {"secret_hash": "x" * 32},
        {"secret_hash": b"short"},
        {"service": ""},
        {"scopes": {"documents:read"}},
        {"scopes": "documents:read"},
        {"actor_type": ActorType.HUMAN},
        {"actor_type": "service"},
        {"created_at": None},
        {"created_at": 1.5},
        {"expires_at": True},
        {"revoked_at": "never"},
    ],
    ids=str,
)
def test_a_record_with_a_part_of_the_wrong_kind_is_not_made(changes: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=next(iter(changes))):
        key(1, **changes)


def test_a_record_with_an_unusable_tenant_is_not_made() -> None:
    with pytest.raises(InvalidTenantId):
        key(1, tenant="")


def test_a_record_is_active_until_the_second_it_ends_and_revoked_before_all() -> None:
    ends = key(1, expires_at=100)
    assert [ends.state_at(now) for now in (99.9, 100, 101)] == [
        ApiKeyState.ACTIVE,
        ApiKeyState.EXPIRED,
        ApiKeyState.EXPIRED,
    ]
    assert key(1).state_at(10**12) is ApiKeyState.ACTIVE
    assert msgspec.structs.replace(ends, revoked_at=10**12).state_at(1) is ApiKeyState.REVOKED
