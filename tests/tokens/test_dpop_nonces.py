"""Nonces of DPoP: shared by workers, renewed, rotated, and asked for (RFC 9449, section 4.3, check 10)."""

import secrets

import pytest

from tenantguard.errors import ConfigurationError, NonceRequired
from tenantguard.tokens.dpop import DPoP, Possession
from tenantguard.tokens.dpop_nonces import DPoPNonces
from tests.support.proofs import PROVER, Clock, check, proof, refused

pytestmark = pytest.mark.anyio


async def test_check_10_the_nonce_is_the_servers() -> None:
    clock = Clock()
    nonces = DPoPNonces(secrets.token_bytes(32), clock=clock)
    dpop = DPoP(nonces=nonces, clock=clock)
    foreign = DPoPNonces(secrets.token_bytes(32), clock=clock).issue()
    for wrong in ({}, {"nonce": ""}, {"nonce": "x"}, {"nonce": foreign}, {"nonce": "\u00e9" * 32}):
        with pytest.raises(NonceRequired) as caught:
            await check(dpop, proof(**wrong))
        assert caught.value.code == "use_dpop_nonce"
        assert await check(dpop, proof(nonce=caught.value.nonce)) == Possession(PROVER.jkt)
    assert await refused(dpop, proof(nonce=7)) == "claims"


async def test_check_10_a_nonce_ages_is_renewed_on_a_good_answer_and_ends() -> None:
    clock = Clock()
    nonces = DPoPNonces(secrets.token_bytes(32), lifetime=100, clock=clock)
    dpop = DPoP(nonces=nonces, clock=clock)
    nonce = nonces.issue()
    clock.now += 49
    assert await check(dpop, proof(nonce=nonce, iat=clock.now)) == Possession(PROVER.jkt)
    clock.now += 50
    possession = await check(dpop, proof(nonce=nonce, iat=clock.now))
    assert possession is not None
    assert possession.next_nonce
    clock.now += 2
    with pytest.raises(NonceRequired):
        await check(dpop, proof(nonce=nonce, iat=clock.now))
    assert await check(dpop, proof(nonce=possession.next_nonce, iat=clock.now)) == Possession(PROVER.jkt)


async def test_workers_with_one_secret_accept_each_others_nonces_and_no_others() -> None:
    clock = Clock()
    secret = secrets.token_bytes(32)
    nonce = DPoPNonces(secret, clock=clock).issue()
    assert DPoPNonces(secret, clock=clock).check(nonce)
    assert not DPoPNonces(secrets.token_bytes(32), clock=clock).check(nonce)
    assert len(nonce) == 32
    assert nonce.replace("-", "").replace("_", "").isalnum()


async def test_a_nonce_is_renewed_after_half_its_life_and_ends_with_it() -> None:
    clock = Clock()
    nonces = DPoPNonces(secrets.token_bytes(32), lifetime=100, clock=clock)
    nonce = nonces.issue()
    for age, good, renew in (
        (0, True, False),
        (50, True, False),
        (51, True, True),
        (100, True, True),
        (101, False, True),
    ):
        clock.now += age
        assert (nonces.check(nonce), nonces.should_renew(nonce)) == (good, renew)
        clock.now -= age
    clock.now -= 10
    assert nonces.check(nonce), "the clock of the worker that made it may be a little ahead"
    clock.now -= 1
    assert not nonces.check(nonce)


async def test_secrets_are_rotated_without_refusing_anybody() -> None:
    clock = Clock()
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    before = DPoPNonces([old, new], clock=clock)
    after = DPoPNonces([new, old], clock=clock)
    done = DPoPNonces([new], clock=clock)
    nonce = before.issue()
    assert after.check(nonce)
    assert after.should_renew(nonce)
    assert not before.should_renew(nonce)
    assert before.check(after.issue())
    assert done.check(after.issue())
    assert not done.check(nonce)


async def test_a_changed_nonce_is_refused() -> None:
    nonces = DPoPNonces(secrets.token_bytes(32))
    nonce = nonces.issue()
    for place in range(len(nonce)):
        for character in "A_-+/=b \u00e9":
            changed = nonce[:place] + character + nonce[place + 1 :]
            assert nonces.check(changed) is (changed == nonce)
    for odd in ("", "=", nonce + "=", nonce[:-1], nonce + "AAAA", "\ud800" * 32, "\x00" * 32):
        assert not nonces.check(odd)
        assert nonces.should_renew(odd)


async def test_weak_secrets_and_odd_lifetimes_are_refused() -> None:
    for secret in (b"", b"short", [], [b"short"], [secrets.token_bytes(32), b"x"], ["x" * 32], "x" * 32, None):
        with pytest.raises(ConfigurationError, match=r"secrets\.token_bytes\(32\)"):
            DPoPNonces(secret)  # type: ignore[arg-type]
    for lifetime in (0, 3601, float("nan"), True, "120"):
        with pytest.raises(ConfigurationError, match="lifetime=120"):
            DPoPNonces(secrets.token_bytes(32), lifetime)  # type: ignore[arg-type]
