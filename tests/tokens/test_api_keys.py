"""API keys: their form, what a good and a bad one becomes, and who may mint, list, rotate and revoke them."""

import hmac
import logging
import re
import traceback
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from tenantguard.errors import (
    ConfigurationError,
    ExpiredToken,
    InvalidToken,
    RevokedToken,
    StoreUnavailable,
)
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.tokens.api_keys import (
    ApiKey,
    ApiKeys,
    SqlApiKeyStore,
    UnknownApiKey,
)
from tenantguard.tokens.credentials import CredentialVerifier
from tests.support.api_keys import BASE62, NOW, Clock, Watched, checksum, mint, parts

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
        await anyio.sleep(600)

    monkeypatch.setattr("tenantguard.tokens.api_key_usage.SECONDS", 0.05)
    minted = await mint(keys)
    store.touch = slow
    with anyio.fail_after(20):
        assert await keys.verify(minted.key)
    assert "TimeoutError" in caplog.text


async def test_what_is_remembered_of_last_uses_is_bounded(
    keys: ApiKeys, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantguard.tokens.api_key_usage.KEPT", 3)
    for _ in range(5):
        await keys.verify((await mint(keys)).key)
    assert len(keys._uses) == 3


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
