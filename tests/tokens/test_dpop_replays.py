"""Proofs are good once: the keys that are remembered, for how long, and what a store that can not tell means."""

import base64
import json
import secrets
import threading
import time
from typing import Any

import anyio
import pytest

from tenantguard.errors import ConfigurationError, InvalidProof, NonceRequired, StoreUnavailable
from tenantguard.tokens.dpop import DPoP
from tenantguard.tokens.dpop_nonces import DPoPNonces
from tenantguard.tokens.replays import InMemoryReplays
from tests.support.proofs import PROVER, TOKEN, URL, Clock, Prover, bound_identity, check, proof, refused

pytestmark = pytest.mark.anyio


async def test_a_proof_is_good_once() -> None:
    dpop = DPoP()
    sent = proof()
    assert await check(dpop, sent)
    assert await refused(dpop, sent) == "replay"
    assert await refused(dpop, proof(jti=json.loads(_payload(sent))["jti"], iat=int(time.time()) - 5)) == "replay"
    assert await check(dpop, proof())


def _payload(sent: bytes) -> bytes:
    return base64.urlsafe_b64decode(sent.split(b".")[1] + b"==")


async def test_a_signature_in_its_other_form_does_not_make_a_proof_new() -> None:
    # Of an ECDSA signature (r, s), (r, n - s) is as good.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    dpop = DPoP()
    sent = proof()
    head, _, signature = sent.rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    other = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    respelled = head + b"." + base64.urlsafe_b64encode(other).rstrip(b"=")
    assert await check(dpop, respelled)
    assert await refused(dpop, sent) == "replay"


async def test_two_clients_may_use_the_same_jti() -> None:
    dpop = DPoP()
    other = Prover()
    assert await check(dpop, proof(jti="1"))
    assert await check(dpop, other.proof(TOKEN, "GET", URL, jti="1"), identity=bound_identity(other.jkt))


async def test_of_many_at_once_one_is_accepted() -> None:
    dpop = DPoP()
    sent = proof()
    outcomes: list[str] = []

    async def one() -> None:
        try:
            await check(dpop, sent)
        except InvalidProof as error:
            outcomes.append(error.reason)
        else:
            outcomes.append("accepted")

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
    assert sorted(outcomes) == ["accepted"] + ["replay"] * 19


async def test_what_is_refused_never_reaches_the_store() -> None:
    store = InMemoryReplays(1)
    dpop = DPoP(replays=store, nonces=DPoPNonces(secrets.token_bytes(32)))
    nonce = dpop.nonces.issue() if dpop.nonces else ""
    stranger = Prover().proof(TOKEN, "GET", URL, header={"jwk": PROVER.jwk}, nonce=nonce)
    for bad in (stranger, proof(nonce=nonce, htm="POST"), proof(nonce=nonce, iat=1), proof(nonce=nonce, ath="x"), b"x"):
        await refused(dpop, bad)
    with pytest.raises(NonceRequired):
        await check(dpop, proof())
    assert len(store) == 0
    assert await check(dpop, proof(nonce=nonce))
    assert len(store) == 1


async def test_a_proof_is_remembered_until_its_window_ends_however_early_it_was_made() -> None:
    clock = Clock()
    dpop = DPoP(max_age=60, leeway=10, clock=clock, replays=InMemoryReplays(clock=clock))
    begin = clock.now
    for made in (-60, -30, 0, 10):
        sent = proof(iat=begin + made)
        clock.now = begin
        assert await check(dpop, sent)
        while clock.now <= begin + made + 60:
            assert await refused(dpop, sent) == "replay"
            clock.now += 7.5
        assert await refused(dpop, sent) == "too_old"


async def test_a_store_that_is_down_or_says_nothing_clear_refuses() -> None:
    class Broken:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        async def add(self, key: str, ttl: float) -> bool:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    with pytest.raises(StoreUnavailable):
        await check(DPoP(replays=Broken(StoreUnavailable("down"))), proof())
    for answer in (None, False, 0, 1, "yes"):
        assert await refused(DPoP(replays=Broken(answer)), proof()) == "replay"


async def test_the_store_in_memory_forgets_what_has_ended_and_refuses_when_it_is_full() -> None:
    clock = Clock()
    store = InMemoryReplays(3, clock=clock)
    assert [await store.add(key, ttl) for key, ttl in (("a", 10), ("b", 20), ("a", 10), ("c", 0.1))] == [
        True, True, False, True]  # fmt: skip
    with pytest.raises(StoreUnavailable, match=r"Raise InMemoryReplays\(size=\.\.\.\)"):
        await store.add("d", 10)
    assert not await store.add("a", 10), "what it knows it knows when it is full, too"
    clock.now += 0.5
    assert await store.add("d", 10)
    clock.now += 9
    assert not await store.add("a", 10)
    clock.now += 1
    assert await store.add("a", 10)
    assert len(store) <= 3
    clock.now += 1000
    assert await store.add("e", 10)
    assert len(store) == 1
    assert len(store._slices) == len(store._due) == 1
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(StoreUnavailable):
            await store.add("f", ttl)


async def test_the_store_in_memory_says_once_to_threads_that_a_key_is_new() -> None:
    store = InMemoryReplays(100_000)
    fresh: list[str] = []

    async def add_all() -> None:
        for number in range(2000):
            if await store.add(str(number), 60):
                fresh.append(str(number))

    threads = [threading.Thread(target=anyio.run, args=(add_all,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fresh) == sorted(str(number) for number in range(2000))


async def test_a_size_that_is_none_is_refused() -> None:
    for size in (0, -1, 1.5, True, None):
        with pytest.raises(ConfigurationError, match="size=200_000"):
            InMemoryReplays(size)  # type: ignore[arg-type]
