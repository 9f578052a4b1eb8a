"""Who may mint, list, rotate and revoke API keys, and with what; never across tenants."""

from typing import Any

import msgspec
import pytest

from tenantguard import bind, service_identity, system
from tenantguard.errors import (
    ConfigurationError,
    ExpiredToken,
    InvalidTenantId,
    TenantRefused,
)
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.tokens.api_keys import (
    ApiKey,
    ApiKeys,
    EndedApiKey,
    UnknownApiKey,
)
from tests.support.api_keys import NOW, Clock, Watched, mint

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
def keys(store: Watched, clock: Clock) -> ApiKeys:
    return ApiKeys(store, clock=clock)


# --- management ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        ({"service": ""}, "invoice-sync"),
        ({"service": "  "}, "invoice-sync"),
        ({"service": "a\nb"}, "invoice-sync"),
        ({"service": "\ud800"}, "invoice-sync"),
        ({"service": "\x00"}, "invoice-sync"),
        ({"service": "x" * 256}, "invoice-sync"),
        ({"service": None}, "invoice-sync"),
        ({"name": ""}, "name="),
        ({"name": "\x1b[31m"}, "name="),
        ({"scopes": ["documents:read", "a b"]}, "documents:write"),
        ({"scopes": ['a"b']}, "documents:write"),
        ({"scopes": ["a\\b"]}, "documents:write"),
        ({"scopes": [""]}, "documents:write"),
        ({"scopes": [None]}, "documents:write"),
        ({"scopes": "dokümente"}, "documents:write"),
        ({"expires_in": 0}, "expires_in=86400"),
        ({"expires_in": -1}, "expires_in=86400"),
        ({"expires_in": True}, "expires_in=86400"),
        ({"expires_in": float("nan")}, "expires_in=86400"),
        ({"expires_in": float("inf")}, "expires_in=86400"),
        ({"expires_in": "90d"}, "expires_in=86400"),
        ({"actor_type": ActorType.HUMAN}, "identity provider"),
        ({"actor_type": "service"}, "identity provider"),
    ],
    ids=str,
)
async def test_a_key_with_an_unusable_part_is_not_minted(
    keys: ApiKeys, store: Watched, wrong: dict[str, Any], mend: str
) -> None:
    with pytest.raises(ConfigurationError, match=mend):
        await mint(keys, **wrong)
    assert store.asked == []


@pytest.mark.parametrize("tenant", ["", " ", 0, [], "a b", "x" * 129])
async def test_a_key_of_an_unusable_tenant_is_not_minted(keys: ApiKeys, store: Watched, tenant: Any) -> None:
    with pytest.raises(InvalidTenantId):
        await mint(keys, tenant=tenant)
    assert store.asked == []


async def test_one_text_with_several_scopes_is_several_scopes(keys: ApiKeys) -> None:
    minted = await mint(keys, scopes="documents:read documents:write")
    assert minted.record.scopes == {"documents:read", "documents:write"}


async def test_keys_last_as_long_as_the_app_allows(store: Watched, clock: Clock) -> None:
    keys = ApiKeys(store, clock=clock, max_lifetime=1000)
    assert (await mint(keys)).record.expires_at == NOW + 1000
    assert (await mint(keys, expires_in=10)).record.expires_at == NOW + 10
    with pytest.raises(ConfigurationError, match="shorter"):
        await mint(keys, expires_in=1001)


async def test_a_rotated_key_goes_on_for_the_overlap_and_its_successor_is_of_the_same_account(
    keys: ApiKeys, clock: Clock
) -> None:
    old = await mint(keys, name="nightly", actor_type=ActorType.AGENT, expires_in=5000)
    clock.now = NOW + 1000.5
    new = await keys.rotate(old.record.id, overlap=600)
    first, second = await keys.verify(old.key), await keys.verify(new.key)
    assert first.expires_at == NOW + 1000 + 600
    assert second.expires_at == NOW + 1000 + 5000
    assert new.record.replaces == old.record.id
    same = {"expires_at": None, "issued_at": None, "token_id": None}
    assert msgspec.structs.replace(first, **same) == msgspec.structs.replace(second, **same)
    clock.now = NOW + 1000 + 600
    with pytest.raises(ExpiredToken):
        await keys.verify(old.key)
    assert await keys.verify(new.key)


async def test_an_overlap_does_not_lengthen_a_key(keys: ApiKeys, clock: Clock) -> None:
    old = await mint(keys, expires_in=100)
    await keys.rotate(old.record.id, overlap=600)
    assert (await keys.verify(old.key)).expires_at == NOW + 100


async def test_without_overlap_the_old_key_ends_at_once(keys: ApiKeys) -> None:
    old = await mint(keys)
    new = await keys.rotate(old.record.id, overlap=0, expires_in=60)
    with pytest.raises(ExpiredToken):
        await keys.verify(old.key)
    assert new.record.expires_at == NOW + 60


async def test_a_key_without_an_end_has_a_successor_without_an_end(keys: ApiKeys) -> None:
    old = await mint(keys)
    assert (await keys.rotate(old.record.id)).record.expires_at is None
    assert (await keys.verify(old.key)).expires_at == NOW + 3600


async def test_a_key_that_ended_is_not_rotated(keys: ApiKeys, clock: Clock) -> None:
    revoked, expired = await mint(keys), await mint(keys, expires_in=10)
    await keys.revoke(revoked.record.id)
    clock.now += 10
    for minted, state in ((revoked, "revoked"), (expired, "expired")):
        with pytest.raises(EndedApiKey, match=f"is {state}.*Mint a new one") as caught:
            await keys.rotate(minted.record.id)
        assert caught.value.status == 409
    assert len(await keys.list()) == 2


async def test_a_key_that_is_revoked_while_it_is_rotated_leaves_no_successor(keys: ApiKeys, store: Watched) -> None:
    old = await mint(keys)

    async def add(record: ApiKey) -> None:
        await store.inner.add(record)
        await store.inner.revoke(old.record.id, NOW)

    store.add = add
    with pytest.raises(EndedApiKey):
        await keys.rotate(old.record.id)
    assert all(record.revoked_at is not None for record in await keys.list())


@pytest.mark.parametrize("overlap", [-1, True, None, float("nan"), "1h"])
async def test_an_unusable_overlap_changes_nothing(keys: ApiKeys, overlap: Any) -> None:
    old = await mint(keys)
    with pytest.raises(ConfigurationError, match="overlap"):
        await keys.rotate(old.record.id, overlap=overlap)
    assert await keys.list() == (old.record,)


@pytest.mark.parametrize("key_id", ["0" * 16, "", "\x00" * 16, "x" * 10_000, None, "tgk_0000000000000000"], ids=repr)
async def test_a_key_that_is_not_there_can_not_be_revoked_or_rotated(keys: ApiKeys, key_id: Any) -> None:
    for change in (keys.revoke, keys.rotate):
        with pytest.raises(UnknownApiKey, match="16 characters") as caught:
            await change(key_id)
        assert caught.value.status == 404


async def test_keys_are_listed_by_tenant_and_service(keys: ApiKeys) -> None:
    ours, theirs = await mint(keys), await mint(keys, tenant="globex", service="export")
    nobodys = await mint(keys, tenant=None)
    assert set(await keys.list()) == {ours.record, theirs.record, nobodys.record}
    assert await keys.list(tenant="globex") == (theirs.record,)
    assert await keys.list(tenant=None) == (nobodys.record,)
    assert await keys.list(service="export") == (theirs.record,)
    with pytest.raises(InvalidTenantId):
        await keys.list(tenant="")
    with pytest.raises(ConfigurationError):
        await keys.list(service="")


# --- never across tenants ------------------------------------------------------------------------------------


async def test_a_bound_tenant_reaches_its_own_keys_alone(keys: ApiKeys) -> None:
    ours, theirs = await mint(keys), await mint(keys, tenant="globex")
    nobodys = await mint(keys, tenant=None)
    with bind(service_identity("admin", tenant="acme")):
        own = await mint(keys)
        assert set(await keys.list()) == {ours.record, own.record}
        assert set(await keys.list(tenant="acme")) == {ours.record, own.record}
        for foreign in ("globex", None):
            with pytest.raises(TenantRefused, match="Name the bound tenant"):
                await mint(keys, tenant=foreign)
            with pytest.raises(TenantRefused):
                await keys.list(tenant=foreign)
        for foreign_key in (theirs, nobodys):
            for change in (keys.revoke, keys.rotate):
                with pytest.raises(UnknownApiKey):
                    await change(foreign_key.record.id)
        await keys.revoke(ours.record.id)
        assert (await keys.rotate(own.record.id)).record.tenant == "acme"
    for untouched in (theirs, nobodys):
        assert await keys.verify(untouched.key)


async def test_an_identity_of_no_tenant_reaches_keys_of_no_tenant_alone(keys: ApiKeys) -> None:
    theirs, nobodys = await mint(keys), await mint(keys, tenant=None)
    operator = Actor("operator", ActorType.HUMAN)
    with bind(Identity(subject=operator, actor=operator)):
        assert await keys.list() == (nobodys.record,)
        with pytest.raises(TenantRefused):
            await mint(keys)
        with pytest.raises(UnknownApiKey):
            await keys.revoke(theirs.record.id)


async def test_a_system_block_reaches_all_and_a_bound_tenant_in_it_its_own_again(keys: ApiKeys) -> None:
    theirs = await mint(keys, tenant="globex")
    with bind(service_identity("admin", tenant="acme")), system("yearly review of keys"):
        assert await keys.list() == (theirs.record,)
        with bind(service_identity("admin", tenant="acme")):
            assert await keys.list() == ()
        await keys.revoke(theirs.record.id)


async def test_a_key_is_verified_whoever_is_bound(keys: ApiKeys) -> None:
    theirs = await mint(keys, tenant="globex")
    with bind(service_identity("admin", tenant="acme")):
        identity = await keys.verify(theirs.key)
    assert identity.tenant == Tenant("globex")


# --- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ({"issuer": ""}, "Leave issuer out"),
        ({"issuer": None}, "Leave issuer out"),
        ({"max_age": -1}, "Leave max_age out"),
        ({"max_age": True}, "Leave max_age out"),
        ({"max_age": float("nan")}, "Leave max_age out"),
        ({"max_age": 3601}, "Leave max_age out"),
        ({"max_lifetime": 0}, "max_lifetime=86400"),
        ({"max_lifetime": "90d"}, "max_lifetime=86400"),
    ],
    ids=str,
)
def test_an_unusable_setting_is_refused_at_the_start(store: Watched, setting: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigurationError, match=mend):
        ApiKeys(store, **setting)


@pytest.mark.parametrize("odd", [None, "sqlite:///keys.db", object()], ids=["none", "text", "object"])
def test_what_is_no_store_is_refused_at_the_start(odd: Any) -> None:
    with pytest.raises(ConfigurationError, match="SqlApiKeyStore"):
        ApiKeys(odd)


def test_the_maximum_age_is_that_of_the_settings(store: Watched) -> None:
    assert ApiKeys(store).max_age == 30
    assert ApiKeys(store, max_age=0).max_age == 0
