"""API keys: their form, what a good and a bad one becomes, and who may mint, list, rotate and revoke them."""

import hmac
import logging
import re
import string
import traceback
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantguard import bind, service_identity, system
from tenantguard.errors import (
    ConfigurationError,
    ExpiredToken,
    InvalidTenantId,
    InvalidToken,
    RevokedToken,
    StoreUnavailable,
    TenantRefused,
)
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.tokens.api_keys import (
    ApiKey,
    ApiKeys,
    EndedApiKey,
    InMemoryApiKeyStore,
    MintedKey,
    SqlApiKeyStore,
    UnknownApiKey,
)
from tenantguard.tokens.credentials import CredentialVerifier

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Watched:
    """A store that counts what it is asked, and fails where a test wants it to."""

    def __init__(self) -> None:
        self.inner = InMemoryApiKeyStore()
        self.asked: list[str] = []
        self.failing: dict[str, BaseException] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def watched(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            if name in self.failing:
                raise self.failing[name]
            return await method(*args, **kwargs)

        return watched


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
def keys(store: Watched, clock: Clock) -> ApiKeys:
    return ApiKeys(store, clock=clock)


async def mint(keys: ApiKeys, **changes: Any) -> MintedKey:
    return await keys.mint(**{"service": "invoice-sync", "tenant": "acme", "scopes": "documents:read", **changes})


def checksum(body: str) -> str:
    number, digits = crc32(body.encode()), ""
    while len(digits) < 6:
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


def parts(key: str) -> tuple[str, str, str]:
    _, key_id, rest = key.split("_")
    return key_id, rest[:43], rest[43:]


# --- the form ------------------------------------------------------------------------------------------------


async def test_a_key_has_the_documented_form(keys: ApiKeys) -> None:
    minted = await mint(keys)
    assert re.fullmatch(r"tgk_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}", minted.key)
    key_id, _, check = parts(minted.key)
    assert key_id == minted.record.id
    assert check == checksum(minted.key[:-6])


def test_the_form_does_not_change_from_release_to_release(keys: ApiKeys) -> None:
    known = f"tgk_{'A' * 16}_{'b' * 43}3ELWaI"
    assert keys._format.id_of(known) == "A" * 16
    assert keys._format.id_of(known[:-1] + "0") is None


async def test_two_keys_have_nothing_in_common(keys: ApiKeys) -> None:
    minted = [await mint(keys) for _ in range(200)]
    assert len({key.record.id for key in minted}) == 200
    assert len({parts(key.key)[1] for key in minted}) == 200
    used = set("".join(parts(key.key)[1] for key in minted))
    assert used == set(BASE62)
    assert 62**43 > 2**256


@pytest.mark.parametrize("prefix", ["ab", "acme", "a234567890123456"])
async def test_an_app_may_choose_the_prefix(store: Watched, prefix: str) -> None:
    own = ApiKeys(store, prefix=prefix)
    minted = await mint(own)
    assert minted.key.startswith(f"{prefix}_")
    assert own.accepts(minted.key)
    assert (await own.verify(minted.key)).token_id == minted.record.id


@pytest.mark.parametrize(
    "prefix", ["", "a", "A", "Tgk", "1ab", "a_b", "a-b", "a2345678901234567", "tgk\n", "tgké", None, 5]
)
def test_an_unusable_prefix_is_refused_at_the_start(store: Watched, prefix: Any) -> None:
    with pytest.raises(ConfigurationError, match='prefix="acme"'):
        ApiKeys(store, prefix=prefix)


def test_only_tokens_with_the_prefix_are_accepted(keys: ApiKeys) -> None:
    assert keys.accepts("tgk_anything")
    for other in ("", "tgk", "TGK_x", "eyJhbGciOiJFUzI1NiJ9.e30.x", " tgk_x", "tgkx_y", "xtgk_y"):
        assert not keys.accepts(other)


# --- verification --------------------------------------------------------------------------------------------


async def test_a_good_key_becomes_the_identity_of_its_service_account(keys: ApiKeys) -> None:
    verifier: CredentialVerifier = keys
    minted = await mint(keys, scopes={"documents:read", "documents:write"}, expires_in=3600, name="nightly")
    service = Actor("invoice-sync", ActorType.SERVICE, "urn:tenantguard:api-keys", name="nightly")
    assert await verifier.verify(minted.key) == Identity(
        subject=service,
        actor=service,
        tenant=Tenant("acme"),
        scopes=frozenset({"documents:read", "documents:write"}),
        issuer="urn:tenantguard:api-keys",
        token_id=minted.record.id,
        issued_at=NOW,
        expires_at=NOW + 3600,
    )


async def test_an_agent_may_have_a_key_and_a_key_may_have_no_tenant_and_no_end(store: Watched) -> None:
    keys = ApiKeys(store, issuer="urn:acme:keys")
    minted = await mint(keys, actor_type=ActorType.AGENT, tenant=None, scopes=())
    identity = await keys.verify(minted.key)
    assert identity.actor == Actor("invoice-sync", ActorType.AGENT, "urn:acme:keys")
    assert identity.tenant is None
    assert identity.expires_at is None
    assert identity.scopes == frozenset()


MALFORMED = [
    "",
    "tgk_",
    "tgk__",
    "tgk_" + "0" * 16,
    "tgk_" + "0" * 16 + "_" + "0" * 49,
    "tgk_" + "é" * 16 + "_" + "0" * 49,
    "tgk_" + "٣" * 16 + "_" + "0" * 49,
    "\ud800",
    "tgk_" + "0" * 100_000,
    None,
    b"tgk_",
]


@pytest.mark.parametrize("token", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_key_is_refused_without_asking_the_store(keys: ApiKeys, store: Watched, token: Any) -> None:
    with pytest.raises(InvalidToken, match="copied whole") as caught:
        await keys.verify(token)
    assert caught.value.reason == "malformed"
    assert store.asked == []


async def test_white_space_around_a_key_is_malformed(keys: ApiKeys) -> None:
    minted = await mint(keys)
    for changed in (minted.key + "\n", " " + minted.key, minted.key + " "):
        with pytest.raises(InvalidToken) as caught:
            await keys.verify(changed)
        assert caught.value.reason == "malformed"


async def test_an_unknown_id_and_a_wrong_secret_are_the_same_refusal(keys: ApiKeys, monkeypatch: Any) -> None:
    minted, other = await mint(keys), await mint(keys)
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(
        "tenantguard.tokens.api_keys.hmac.compare_digest", lambda a, b: compared.append((a, b)) or real(a, b)
    )
    key_id, _, _ = parts(minted.key)
    _, foreign, _ = parts(other.key)
    wrong = f"tgk_{key_id}_{foreign}"
    unknown = f"tgk_{'0' * 16}_{foreign}"
    refusals = []
    for body in (wrong, unknown):
        with pytest.raises(InvalidToken) as caught:
            await keys.verify(body + checksum(body))
        refusals.append((type(caught.value), str(caught.value), caught.value.reason, caught.value.status))
    assert refusals[0] == refusals[1]
    assert refusals[0][2] == "unknown"
    assert [(len(a), len(b)) for a, b in compared] == [(32, 32), (32, 32)], "both compare a digest"


async def test_a_key_with_another_prefix_is_another_key(store: Watched) -> None:
    live, test = ApiKeys(store, prefix="live"), ApiKeys(store, prefix="test")
    minted = await mint(test)
    body = "live" + minted.key[4:-6]
    with pytest.raises(InvalidToken) as caught:
        await live.verify(body + checksum(body))
    assert caught.value.reason == "unknown"


async def test_a_store_that_finds_ids_without_regard_to_case_does_not_make_two_ids_of_one(
    keys: ApiKeys, store: Watched
) -> None:
    async def careless(key_id: str) -> ApiKey | None:
        return next((key for key in await store.inner.list() if key.id.lower() == key_id.lower()), None)

    store.get = careless
    await store.inner.add(ApiKey(id="a" * 16, secret_hash=bytes(32), service="s", tenant="acme", created_at=NOW))
    with pytest.raises(UnknownApiKey):
        await keys.revoke("A" * 16)
    await keys.revoke("a" * 16)


async def test_a_key_ends_at_the_second_it_was_minted_for(keys: ApiKeys, clock: Clock) -> None:
    minted = await mint(keys, expires_in=100)
    clock.now = NOW + 99.9
    assert await keys.verify(minted.key)
    for later in (100, 101, 10**9):
        clock.now = NOW + later
        with pytest.raises(ExpiredToken, match="API key has expired"):
            await keys.verify(minted.key)


async def test_a_revoked_key_is_refused_at_once_and_for_good(keys: ApiKeys, clock: Clock) -> None:
    minted = await mint(keys, expires_in=100)
    await keys.revoke(minted.record.id)
    await keys.revoke(minted.record.id)
    for later in (-1000, 0, 1000):
        clock.now = NOW + later
        with pytest.raises(RevokedToken, match="API key has been revoked"):
            await keys.verify(minted.key)


async def test_only_who_holds_the_key_learns_that_it_ended(keys: ApiKeys) -> None:
    minted, other = await mint(keys), await mint(keys)
    await keys.revoke(minted.record.id)
    body = f"tgk_{minted.record.id}_{parts(other.key)[1]}"
    with pytest.raises(InvalidToken) as caught:
        await keys.verify(body + checksum(body))
    assert caught.value.reason == "unknown"


async def test_the_longest_lifetime_holds_for_keys_that_were_minted_before_it_was_set(
    store: Watched, clock: Clock
) -> None:
    endless = await mint(ApiKeys(store, clock=clock))
    longer = await mint(ApiKeys(store, clock=clock), expires_in=5000)
    shorter = await mint(ApiKeys(store, clock=clock), expires_in=50)
    keys = ApiKeys(store, clock=clock, max_lifetime=1000)
    assert (await keys.verify(endless.key)).expires_at == NOW + 1000
    assert (await keys.verify(longer.key)).expires_at == NOW + 1000
    assert (await keys.verify(shorter.key)).expires_at == NOW + 50
    clock.now += 1000
    for minted in (endless, longer, shorter):
        with pytest.raises(ExpiredToken):
            await keys.verify(minted.key)


# --- the store fails -----------------------------------------------------------------------------------------


async def test_a_store_that_is_down_lets_nobody_in(keys: ApiKeys, store: Watched) -> None:
    minted = await mint(keys)
    for fault in (StoreUnavailable("down"), OSError("host secret-host"), ValueError("secret-value"), TimeoutError()):
        store.failing["get"] = fault
        with pytest.raises(StoreUnavailable) as caught:
            await keys.verify(minted.key)
        assert caught.value.status == 503
        assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_store_that_answers_with_something_else_lets_nobody_in(clock: Clock) -> None:
    class Odd(Watched):
        answer: Any = {"id": "x"}

        async def get(self, key_id: str) -> Any:
            return self.answer

    odd = Odd()
    keys = ApiKeys(odd, clock=clock)
    minted = await mint(keys)
    with pytest.raises(StoreUnavailable, match="answered with a dict"):
        await keys.verify(minted.key)
    odd.answer = msgspec.structs.replace(minted.record, id="0" * 16)
    with pytest.raises(InvalidToken):
        await keys.verify(minted.key)


async def test_the_last_use_is_written_at_most_once_a_minute(keys: ApiKeys, store: Watched, clock: Clock) -> None:
    minted = await mint(keys)
    for second in range(0, 180, 5):
        clock.now = NOW + second
        await keys.verify(minted.key)
    assert store.asked.count("touch") == 3
    (record,) = await keys.list()
    assert record.last_used_at == NOW + 120


async def test_the_last_use_is_written_no_more_often_than_a_key_is_looked_up(store: Watched, clock: Clock) -> None:
    keys = ApiKeys(store, clock=clock, max_age=600)
    minted = await mint(keys)
    for second in range(0, 1800, 60):
        clock.now = NOW + second
        await keys.verify(minted.key)
    assert store.asked.count("touch") == 3


async def test_two_processes_write_the_last_use_once(store: Watched, clock: Clock) -> None:
    one, two = ApiKeys(store, clock=clock), ApiKeys(store, clock=clock)
    minted = await mint(one)
    await one.verify(minted.key)
    await two.verify(minted.key)
    assert store.asked.count("touch") == 1


async def test_a_last_use_that_can_not_be_written_is_logged_and_lets_the_request_pass(
    keys: ApiKeys, store: Watched, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    minted = await mint(keys)
    store.failing["touch"] = OSError("secret-host")
    for second in range(3):
        clock.now = NOW + second
        assert await keys.verify(minted.key)
    assert len(caplog.records) == 1, "and it is not tried again at once"
    assert minted.record.id in caplog.text
    assert "OSError" in caplog.text
    assert "secret-host" not in caplog.text


async def test_a_last_use_that_takes_long_is_given_up(
    keys: ApiKeys, store: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(key_id: str, at: int) -> None:
        await anyio.sleep(10)

    monkeypatch.setattr("tenantguard.tokens.api_keys.TOUCH_SECONDS", 0.05)
    minted = await mint(keys)
    store.touch = slow
    with anyio.fail_after(2):
        assert await keys.verify(minted.key)
    assert "TimeoutError" in caplog.text


async def test_what_is_remembered_of_last_uses_is_bounded(
    keys: ApiKeys, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantguard.tokens.api_keys.TOUCHES_KEPT", 3)
    for _ in range(5):
        await keys.verify((await mint(keys)).key)
    assert len(keys._touched) == 3


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
        ({"max_age": 86401}, "Leave max_age out"),
        ({"max_lifetime": 0}, "max_lifetime=86400"),
        ({"max_lifetime": "90d"}, "max_lifetime=86400"),
    ],
    ids=str,
)
def test_an_unusable_setting_is_refused_at_the_start(store: Watched, setting: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigurationError, match=mend):
        ApiKeys(store, **setting)


@pytest.mark.parametrize("odd", [None, "sqlite:///keys.db", object()], ids=repr)
def test_what_is_no_store_is_refused_at_the_start(odd: Any) -> None:
    with pytest.raises(ConfigurationError, match="SqlApiKeyStore"):
        ApiKeys(odd)


def test_the_maximum_age_is_that_of_the_settings(store: Watched) -> None:
    assert ApiKeys(store).max_age == 30
    assert ApiKeys(store, max_age=0).max_age == 0


# --- what nobody sees ----------------------------------------------------------------------------------------


async def test_no_log_repr_or_error_shows_a_secret_or_a_digest(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqlApiKeyStore(f"sqlite:///{tmp_path}/keys.db")
    keys = ApiKeys(store, clock=clock, max_lifetime=1000)
    seen: list[str] = []
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(StoreUnavailable) as caught:
            await mint(keys)  # there is no table
        texts = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
        assert not re.search(r"tgk_[0-9A-Za-z]{16}_", "".join(texts)), "no frame of the error holds the key"
        await store.create_table()
        minted = await mint(keys)
        seen += [repr(minted), str(minted), f"{minted}", repr(keys), repr(store), repr(await keys.list())]
        other = await mint(keys)
        body = f"tgk_{minted.record.id}_{parts(other.key)[1]}"
        revoked = await keys.rotate(minted.record.id)
        await keys.revoke(revoked.record.id)
        for token in (minted.key[:-1], body + checksum(body), revoked.key):
            with pytest.raises(InvalidToken) as refused:
                await keys.verify(token)
            seen += [str(refused.value), repr(refused.value), str(refused.value.detail)]
        seen.append(repr(await keys.verify(minted.key)))
        clock.now += 2000
        with pytest.raises(ExpiredToken) as ended:
            await keys.verify(minted.key)
        seen.append(str(ended.value))
    await store.aclose()
    everything = "\n".join([*seen, caplog.text])
    for key in (minted, other, revoked):
        digest = bytes(key.record.secret_hash)
        for shown in (key.key, parts(key.key)[1], digest.hex(), repr(digest)[2:-1]):
            assert shown not in everything


# --- properties ----------------------------------------------------------------------------------------------

STORE = InMemoryApiKeyStore()
KEYS = ApiKeys(STORE, clock=lambda: NOW)
GOOD = anyio.run(mint, KEYS).key
OTHER = anyio.run(mint, KEYS).key
character = st.sampled_from(BASE62 + "_-./ \n\x00é")


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """The good key with a few characters changed, put in, left out, repeated or exchanged with another key's."""
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, len(text)))
        text = draw(
            st.sampled_from(
                [
                    text[:at] + draw(character) + text[at + 1 :],
                    text[:at] + draw(character) + text[at:],
                    text[:at] + text[end:],
                    text[:at] + text[at:end] * 2 + text[end:],
                    text[:at] + OTHER[at:end] + text[end:],
                    text[:at] + text[at:end].swapcase() + text[end:],
                    text[:at] + text[at:end][::-1] + text[end:],
                ]
            )
        )
    return text


def refused(token: str) -> None:
    if token in (GOOD, OTHER):
        return
    with pytest.raises(InvalidToken):
        anyio.run(KEYS.verify, token)


@given(mutations())
def test_a_mutated_key_is_never_accepted(token: str) -> None:
    refused(token)


@given(mutations())
def test_a_mutated_key_with_a_right_checksum_is_never_accepted(token: str) -> None:
    body = token[:-6]
    refused(body + checksum(body))


@given(st.text() | st.text(BASE62, min_size=49, max_size=49).map(lambda rest: f"{GOOD[:21]}{rest}"))
def test_no_other_text_is_a_key(token: str) -> None:
    assert KEYS.accepts(token) is token.startswith("tgk_")
    refused(token)


def test_each_single_wrong_character_is_found_without_a_store() -> None:
    for at in range(len(GOOD)):
        for wrong in BASE62 + "_":
            token = GOOD[:at] + wrong + GOOD[at + 1 :]
            if token != GOOD:
                assert KEYS._format.id_of(token) is None
