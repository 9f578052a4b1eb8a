"""Properties of DPoP: whatever is changed in a good proof, it is refused as such, and nothing else is ever raised."""

import asyncio
import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tenantguard.errors import InvalidProof
from tenantguard.tokens.dpop import DPoP
from tenantguard.tokens.dpop_nonces import DPoPNonces
from tenantguard.tokens.dpop_targets import normalize_target, target_at
from tenantguard.tokens.replays import InMemoryReplays
from tests.support.proofs import Prover, bound_identity

TOKEN = "opaque-token"
URL = "https://api.example.com/documents"
ALPHABET = string.ascii_letters + string.digits + "-_"
PROVERS = {"ES256": Prover(), "EdDSA": Prover("EdDSA")}
quick = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def accepted(loop: Any, dpop: DPoP, prover: Prover, *proofs: bytes, **request: Any) -> bool:
    """True if the proof is accepted; False if it is refused as it should be."""
    asked = {"token": TOKEN, "method": "GET", "url": URL, "identity": bound_identity(prover.jkt)} | request
    try:
        possession = loop.run_until_complete(dpop.check(proofs=proofs, **asked))
    except InvalidProof as error:
        shown = f"{error!r} {error} {error.detail}"
        if any(len(part) > 12 and part in shown for one in proofs for part in one.decode("latin-1").split(".")):
            raise AssertionError("the refusal shows a part of the proof") from None
        return False
    assert possession is not None
    assert possession.jkt == prover.jkt
    return True


@quick
@given(data=st.data())
@pytest.mark.parametrize("name", PROVERS)
def test_a_proof_with_changed_characters_is_refused(loop: Any, name: str, data: Any) -> None:
    prover = PROVERS[name]
    good = prover.proof(TOKEN, "GET", URL)
    changed = list(good)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["replace", "delete", "insert"]))
        if how == "delete":
            del changed[where]
        else:
            byte = data.draw(st.one_of(st.sampled_from((ALPHABET + ".=+/ ").encode()), st.integers(0, 255)))
            changed[where : where + (how == "replace")] = [byte]
    assume(bytes(changed) != good)
    dpop = DPoP()
    assert not accepted(loop, dpop, prover, bytes(changed))
    assert len(dpop.replays) == 0  # type: ignore[arg-type]
    assert accepted(loop, dpop, prover, good), "the refused ones use nothing up"
    assert not accepted(loop, dpop, prover, bytes(changed)), "nor does a key that is known now help them"


@quick
@given(sent=st.one_of(st.binary(), st.from_regex(rb"\A[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}\Z")))
def test_any_bytes_are_refused(loop: Any, sent: bytes) -> None:
    assert not accepted(loop, DPoP(), PROVERS["EdDSA"], sent)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
HEADERS = "typ alg jwk kid crit b64 jku x5u x5c zip enc x".split()
CLAIMS = "jti htm htu iat ath nonce exp nbf iss x".split()
MEMBERS = "kty crv x y n e d p q k oth use alg key_ops kid ext z".split()


@quick
@given(
    header=st.dictionaries(st.sampled_from(HEADERS), values, max_size=3),
    claims=st.dictionaries(st.sampled_from(CLAIMS), values, max_size=3),
)
def test_an_odd_proof_under_a_good_signature_is_refused_if_what_is_odd_has_a_meaning(
    loop: Any, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    prover = PROVERS["EdDSA"]
    sent = prover.sign(
        msgspec.json.encode(prover.header() | header), msgspec.json.encode(prover.claims(TOKEN, "GET", URL) | claims)
    )
    if accepted(loop, DPoP(), prover, sent):
        assert header.keys() <= {"kid", "x"}
        assert claims.keys() <= {"exp", "nbf", "iss", "x", "nonce", "jti"}


@quick
@given(
    changes=st.dictionaries(st.sampled_from(MEMBERS), values, min_size=1, max_size=3),
    name=st.sampled_from(["ES256", "EdDSA"]),
)
def test_an_odd_key_is_refused_if_what_is_odd_has_a_meaning(loop: Any, changes: dict[str, Any], name: str) -> None:
    prover = PROVERS[name]
    sent = prover.proof(TOKEN, "GET", URL, header={"jwk": prover.jwk | changes})
    if accepted(loop, DPoP(), prover, sent):
        unused = {"n", "e", "kid", "ext", "z", "use", "alg", "key_ops"} | ({"y"} if name == "EdDSA" else set())
        assert changes.keys() <= unused


@quick
@given(jti=st.text(min_size=1, max_size=256), other=st.text(min_size=1, max_size=256))
def test_of_two_proofs_the_second_is_accepted_if_and_only_if_its_jti_is_another(
    loop: Any, jti: str, other: str
) -> None:
    prover = PROVERS["EdDSA"]
    dpop = DPoP()
    proofs = [prover.proof(TOKEN, "GET", URL, jti=one) for one in (jti, other)]
    assert accepted(loop, dpop, prover, proofs[0])
    assert accepted(loop, dpop, prover, proofs[1]) is (jti != other)
    assert not accepted(loop, dpop, prover, proofs[0])


@quick
@given(text=st.text(max_size=300))
def test_a_payload_with_escapes_in_it_is_read_as_any_json_is(loop: Any, text: str) -> None:
    """Lone surrogates among the escapes, too: nothing but a refusal may come of them."""
    prover = PROVERS["EdDSA"]
    for lone in ("", "\ud800", "\udc00a"):
        payload = json.dumps(prover.claims(TOKEN, "GET", URL, jti=(text + lone) or "x")).encode()
        sent = prover.sign(msgspec.json.encode(prover.header()), payload)
        assert accepted(loop, DPoP(), prover, sent) is (not lone and len(text) <= 256)


@quick
@given(method=st.text(max_size=8), url=st.text(max_size=60), token=st.text(max_size=40), scheme=st.text(max_size=8))
def test_any_request_is_refused_with_a_proof_for_another(
    loop: Any, method: str, url: str, token: str, scheme: str
) -> None:
    prover = PROVERS["EdDSA"]
    good = {"method": "GET", "url": URL, "token": TOKEN, "scheme": "DPoP"}
    for name, value in {"method": method, "url": url, "token": token, "scheme": scheme}.items():
        assume(value.lower() != good[name].lower())
        assert not accepted(loop, DPoP(), prover, prover.proof(TOKEN, "GET", URL), **{name: value})


paths = st.lists(
    st.one_of(st.sampled_from(["", ".", "..", "%2e", "%2E%2e", "%2F", "%61", "%C3%b6", "a|b", "~", "%7e", "x" * 9]),
              st.text(alphabet=ALPHABET + ".~!$&'()*+,;=:@", max_size=6)), max_size=6,
)  # fmt: skip


@quick
@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "Https", "ws", "WSS"]),
    host=st.sampled_from(["api.example.com", "API.Example.com", "127.0.0.1", "[::1]", "[2001:DB8::A]"]),
    port=st.sampled_from(["", ":", ":80", ":443", ":0443", ":8443"]),
    segments=paths,
    tail=st.sampled_from(["", "?", "?a=/../b", "#", "#/x", "?a#b?c"]),
)
def test_a_normal_form_is_a_fixed_point_without_query_and_dot_segments(
    scheme: str, host: str, port: str, segments: list[str], tail: str
) -> None:
    uri = f"{scheme}://{host}{port}" + "".join(f"/{segment}" for segment in segments) + tail
    normal = normalize_target(uri)
    assert normalize_target(normal) == normal
    assert normalize_target(uri + ("" if "#" in tail else "#more")) == normal
    origin, path = normal.split("/", 3)[2], "/" + normal.split("/", 3)[3]
    assert origin == origin.lower()
    assert not {".", ".."} & set(path.split("/"))
    assert target_at("https://public.example", uri) == "https://public.example" + path


@quick
@given(text=st.text(max_size=80))
def test_any_text_is_a_uri_or_a_value_error(text: str) -> None:
    for prefix in ("", "https://", "https://a/"):
        try:
            normal = normalize_target(prefix + text)
        except ValueError:
            continue
        assert normal.isascii()
        assert normal.startswith(("http://", "https://"))


@quick
@given(text=st.text(max_size=40))
def test_any_text_is_a_good_nonce_or_not_and_never_an_error(text: str) -> None:
    assert not DPoPNonces(b"s" * 32).check(text)


@quick
@given(steps=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0.1, 30), st.floats(0, 12)), max_size=40))
def test_the_store_in_memory_agrees_with_a_plain_model(loop: Any, steps: list[tuple[str, float, float]]) -> None:
    """A key that must still be remembered is never new; one that ended a quarter of a second ago always is."""
    now = 0.0
    store = InMemoryReplays(8, clock=lambda: now)
    until: dict[str, float] = {}
    for key, ttl, pause in steps:
        now += pause
        fresh = loop.run_until_complete(store.add(key, ttl))
        if key in until and now < until[key]:
            assert not fresh
        if key not in until or now > until[key] + 0.25:
            assert fresh
        if fresh:
            until[key] = now + ttl
