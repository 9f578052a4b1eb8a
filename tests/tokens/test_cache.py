"""The verified-token cache: bounds, expiry, dropping, threads."""

import gc
import threading
import time
import tracemalloc
from typing import Any

import pytest

from tenantguard.errors import ExpiredToken
from tenantguard.identity import Actor, ActorType, Identity
from tenantguard.tokens import Issuer, TokenVerifier, Verified
from tenantguard.tokens.cache import VerifiedTokenCache
from tenantguard.tokens.presets import oidc
from tests.support.waiting import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def entry(issuer: str = "https://a", subject: str = "s", **changes: Any) -> Verified:
    who = Actor(subject, ActorType.HUMAN, issuer)
    return Verified(Identity(subject=who, actor=who, issuer=issuer, **changes))


def put(cache: VerifiedTokenCache, token: str, verified: Verified, *, ttl: float = 60, key: str = "k") -> None:
    cache.put(cache.key_of(token), verified, until=time.time() + ttl, signed_by=key, generation=cache.generation)


def holds(cache: VerifiedTokenCache, token: str) -> bool:
    return cache.get(cache.key_of(token)) is not None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the verifier and its cache: it stands still until a test moves it."""
    clock = Clock()
    for module in ("verifier", "cache"):
        monkeypatch.setattr(f"tenantguard.tokens.{module}.time", clock)
    return clock


async def test_a_token_is_answered_from_the_cache_until_it_expires_without_leeway(lab: Any, clock: Clock) -> None:
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed), leeway=0)])
    token = lab.ed.token(lab.claims(exp=clock.now + 60))
    identity = await verifier.verify(token)
    assert verifier.cached(token) is identity
    assert await verifier.verify(token) is identity
    clock.now += 59
    assert verifier.cached(token) is identity
    clock.now += 1
    assert verifier.cached(token) is None
    with pytest.raises(ExpiredToken):
        await verifier.verify(token)


async def test_a_token_within_the_leeway_is_not_cached(lab: Any) -> None:
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed), leeway=60)])
    token = lab.ed.token(lab.claims(exp=time.time() - 5))
    assert await verifier.verify(token)
    assert verifier.cached(token) is None


@pytest.mark.parametrize("odd", ["", "x", "a.b.c", "\ud800", "\u00e9", "x" * 10_000, "\x00"], ids=range(7))
async def test_a_lookup_never_raises(lab: Any, odd: str) -> None:
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed))])
    assert verifier.cached(odd) is None


async def test_an_entry_is_used_no_longer_than_the_maximum_age(lab: Any, clock: Clock) -> None:
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed))], cache_max_age=10)
    token = lab.ed.token(lab.claims())
    await verifier.verify(token)
    clock.now += 9
    assert verifier.cached(token)
    clock.now += 1
    assert verifier.cached(token) is None
    assert await verifier.verify(token)


async def test_a_cache_of_size_zero_keeps_nothing(lab: Any) -> None:
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed))], cache_size=0)
    token = lab.ed.token(lab.claims())
    assert await verifier.verify(token)
    assert verifier.cached(token) is None


async def test_tokens_are_forgotten_by_token_predicate_and_issuer(lab: Any) -> None:
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.ed))])
    tokens = [lab.ed.token(lab.claims(sub=f"user-{n}", sid=f"s-{n % 2}")) for n in range(4)]
    for token in tokens:
        await verifier.verify(token)
    assert verifier.forget_token(tokens[0])
    assert not verifier.forget_token(tokens[0])
    assert verifier.forget(lambda verified: verified.identity.session_id == "s-1") == 2
    assert [verifier.cached(token) is not None for token in tokens] == [False, False, True, False]
    assert verifier.forget_issuer(lab.issuer) == 1
    assert verifier.cached(tokens[2]) is None
    await verifier.verify(tokens[2])
    await verifier.aclose()
    assert verifier.cached(tokens[2]) is None


def test_the_oldest_entry_goes_first_when_the_cache_is_full() -> None:
    cache = VerifiedTokenCache(3, per_issuer=3, max_age=60)
    for name in "abcd":
        put(cache, name, entry())
    assert [holds(cache, name) for name in "abcd"] == [False, True, True, True]
    assert len(cache) == 3


def test_one_issuer_can_not_flush_the_others() -> None:
    cache = VerifiedTokenCache(100, per_issuer=25, max_age=60)
    for number in range(50):
        put(cache, f"good-{number}", entry(f"https://good-{number}"))
    for number in range(5000):
        put(cache, f"evil-{number}", entry("https://evil"))
    assert sum(holds(cache, f"good-{number}") for number in range(50)) == 50
    assert sum(holds(cache, f"evil-{number}") for number in range(5000)) == 25


def test_an_entry_that_was_on_its_way_when_something_was_dropped_is_not_kept() -> None:
    cache = VerifiedTokenCache(10, per_issuer=10, max_age=60)
    drops = [
        lambda: cache.drop(lambda _: False),
        lambda: cache.drop_issuer("https://b"),
        lambda: cache.drop_keys("https://a", frozenset({"k"})),
        lambda: cache.drop_token("other"),
        cache.clear,
    ]
    for drop in drops:
        before = cache.generation
        drop()
        cache.put(cache.key_of("a"), entry(), until=time.time() + 60, signed_by="k", generation=before)
        assert not holds(cache, "a")


def test_entries_of_withdrawn_keys_are_dropped_for_their_issuer_alone() -> None:
    cache = VerifiedTokenCache(10, per_issuer=10, max_age=60)
    put(cache, "a1", entry("https://a"), key="k1")
    put(cache, "a2", entry("https://a"), key="k2")
    put(cache, "b1", entry("https://b"), key="k1")
    assert cache.drop_keys("https://a", frozenset({"k1"})) == 1
    assert [holds(cache, name) for name in ("a1", "a2", "b1")] == [False, True, True]


def test_threads_can_read_write_and_drop_at_once() -> None:
    cache = VerifiedTokenCache(200, per_issuer=50, max_age=60)
    faults: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(1500):
                name = f"{(seed * 7 + number) % 400}"
                put(cache, name, entry(f"https://{number % 8}"))
                cache.get(cache.key_of(name))
                if number % 100 == 0:
                    cache.drop(lambda verified: verified.identity.issuer == "https://3")
                    cache.drop_issuer("https://5")
        except BaseException as fault:  # noqa: BLE001
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(cache) <= 200
    assert len(cache) == sum(len(own) for own in cache._by_issuer.values())
    assert all(len(own) <= 50 for own in cache._by_issuer.values())


def test_an_entry_takes_less_than_a_kilobyte_and_is_no_work_for_the_garbage_collector(lab: Any) -> None:
    profile = oidc()
    cache = VerifiedTokenCache(20_000, per_issuer=20_000, max_age=60)
    gc.collect()
    tracemalloc.start()
    for number in range(10_000):
        claims = lab.claims(sub=f"user-{number:08}", jti=f"jti-{number:032}", sid=f"session-{number:032}")
        put(cache, str(number), profile(claims))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] / 10_000
    tracemalloc.stop()
    tracked = len(gc.get_objects())
    assert taken < 1024, f"{taken:.0f} bytes an entry"
    cache.clear()
    gc.collect()
    assert tracked - len(gc.get_objects()) < 2000, "entries are outside the garbage collector"
