"""Stores of API keys: in memory, in a real SQLite file and in a real PostgreSQL, on asyncio and trio."""

import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import msgspec
import pytest
from sqlalchemy import create_engine

from tenantguard.errors import InvalidTenantId
from tenantguard.identity import ActorType
from tenantguard.tokens.api_key_records import KeyHash
from tenantguard.tokens.api_keys import ApiKey, ApiKeyState, ApiKeyStore, InMemoryApiKeyStore, SqlApiKeyStore
from tests.support.api_keys import HASH, key, key_id

pytestmark = pytest.mark.anyio


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
