"""DPoP: the examples of RFC 9449, every check of its section 4.3 with a proof that fails it alone, settings."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tenantguard.errors import ConfigurationError
from tenantguard.identity import Identity
from tenantguard.tokens.dpop import DPoP, Possession
from tenantguard.tokens.dpop_nonces import DPoPNonces
from tenantguard.tokens.dpop_targets import normalize_origin, normalize_target
from tenantguard.tokens.replays import InMemoryReplays
from tests.support.proofs import PROVER, TOKEN, URL, Clock, Prover, bound_identity, check, proof, refused

pytestmark = pytest.mark.anyio

RFC = json.loads((Path(__file__).parent.parent / "vectors" / "rfc9449" / "proofs.json").read_text())
RSA_KEY = rsa.generate_private_key(65537, 2048)
WEAK_RSA_KEY = rsa.generate_private_key(65537, 1024)


# --- the RFC's own examples ------------------------------------------------------------------------------


async def test_the_resource_request_of_the_rfc_is_accepted_at_its_time() -> None:
    example = RFC["resource_request"]
    dpop = DPoP(clock=lambda: example["iat"])
    asked = {name: example[name] for name in ("token", "method", "url")}
    possession = await dpop.check(
        proofs=[example["proof"].encode()], identity=bound_identity(RFC["thumbprint"]), **asked
    )
    assert possession == Possession(RFC["thumbprint"])


async def test_the_resource_request_of_the_rfc_is_refused_at_any_other_time_and_for_anything_else() -> None:
    example = RFC["resource_request"]
    sent = example["proof"].encode()
    asked = {name: example[name] for name in ("token", "method", "url")} | {
        "identity": bound_identity(RFC["thumbprint"])
    }
    assert await refused(DPoP(), sent, **asked) == "too_old"
    at_its_time = DPoP(clock=lambda: example["iat"])
    assert await refused(at_its_time, sent, **asked | {"method": "POST"}) == "htm"
    assert await refused(at_its_time, sent, **asked | {"url": "https://resource.example.org/other"}) == "htu"
    assert await refused(at_its_time, sent, **asked | {"token": "another"}) == "ath"
    assert await refused(at_its_time, sent, **asked | {"identity": bound_identity(PROVER.jkt)}) == "binding"


async def test_the_token_request_of_the_rfc_is_no_proof_for_a_resource_because_it_names_no_token() -> None:
    example = RFC["token_request"]
    dpop = DPoP(clock=lambda: example["iat"])
    asked = {"method": "POST", "url": example["url"], "identity": bound_identity(RFC["thumbprint"])}
    assert await refused(dpop, example["proof"].encode(), **asked) == "claims"


# --- what is accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", DPoP().algorithms)
async def test_a_proof_by_each_algorithm_is_accepted(algorithm: str) -> None:
    prover = Prover(algorithm, RSA_KEY if algorithm[0] in "RP" else None)
    possession = await check(DPoP(), prover.proof(TOKEN, "GET", URL), identity=bound_identity(prover.jkt))
    assert possession == Possession(prover.jkt)


async def test_the_jwk_of_a_browsers_key_is_accepted_with_its_further_members() -> None:
    exported = PROVER.jwk | {"key_ops": ["verify"], "ext": True}
    assert await check(DPoP(), proof(header={"jwk": exported, "kid": "any"}))


async def test_json_with_spaces_and_escapes_is_accepted() -> None:
    header = json.dumps(PROVER.header(), indent=1).encode()
    payload = json.dumps(PROVER.claims(TOKEN, "GET", URL)).replace("https:", "\\u0068ttps:").encode()
    assert await check(DPoP(), PROVER.sign(header, payload))


async def test_a_key_is_loaded_once_and_each_of_its_proofs_is_verified() -> None:
    dpop = DPoP()
    assert await refused(dpop, proof()[:-8] + b"AAAAAAAA") == "signature"
    assert len(dpop._keys) == 0, "an unsigned proof's key is not kept"
    for _ in range(3):
        await check(dpop, proof())
    assert len(dpop._keys) == 1
    assert await refused(dpop, proof()[:-8] + b"AAAAAAAA") == "signature"


async def test_kept_keys_are_bounded_and_the_least_used_goes_first() -> None:
    dpop = DPoP()
    dpop._keys.size = 2
    for kid in ("a", "b", "a", "c"):
        await check(dpop, proof(header={"kid": kid}))
    assert [json.loads(header)["kid"] for header in dpop._keys._keys] == ["a", "c"]
    await check(dpop, proof(header={"kid": "a" * 120 + "long" * 450}))
    assert [json.loads(header)["kid"] for header in dpop._keys._keys] == ["a", "c"], "nor are long ones kept"


# --- the twelve checks of section 4.3, and what comes before ---------------------------------------------


async def test_check_1_there_must_be_one_proof() -> None:
    assert await refused(DPoP()) == "missing"
    assert await refused(DPoP(), proof(), proof()) == "several"
    assert await refused(DPoP(), proof() + b", " + proof()) == "malformed"


MALFORMED = [b"", b".", b"..", b"a.b.c", b"x" * 8192, b"\xff", b"\x00", b"e30.e30.", "é.é.é".encode()]


@pytest.mark.parametrize("sent", MALFORMED, ids=range(len(MALFORMED)))
async def test_check_2_the_proof_must_be_a_well_formed_jwt(sent: bytes) -> None:
    assert await refused(DPoP(), sent) == "malformed"


async def test_check_2_respelled_extended_and_nested_proofs_are_malformed() -> None:
    good = proof()
    for changed in (good + b"=", good + b".", good + b" ", b" " + good, good.replace(b".", b"..", 1), b"." + good):
        assert await refused(DPoP(), changed) == "malformed"
    assert await refused(DPoP(), good + b"A" * 8192) == "size"
    header, claims = PROVER.header(), PROVER.claims(TOKEN, "GET", URL)
    deep: Any = []
    for _ in range(25):
        deep = [deep]
    for odd in (b"[]", b"null", b"{}}", b"\xff{}", b'{"a":', b'"x"', b"7"):
        assert await refused(DPoP(), PROVER.sign(odd, json.dumps(claims).encode())) == "malformed"
        assert await refused(DPoP(), PROVER.sign(json.dumps(header).encode(), odd)) == "malformed"
    assert await refused(DPoP(), proof(header={"x": deep})) == "nesting"
    assert await refused(DPoP(), proof(x=deep)) == "nesting"


@pytest.mark.parametrize("name", ["typ", "alg", "jwk", "htm", "htu", "iat", "ath", "jti"])
@pytest.mark.parametrize("spaced", [False, True])
async def test_check_2_a_member_that_stands_twice_is_refused(name: str, spaced: bool) -> None:
    parts = [PROVER.header(), PROVER.claims(TOKEN, "GET", URL)]
    texts = [json.dumps(part, separators=None if spaced else (",", ":")) for part in parts]
    which = 0 if name in parts[0] else 1
    texts[which] = f'{{"{name}":{json.dumps(parts[which][name])},{texts[which][1:]}'
    assert await refused(DPoP(), PROVER.sign(texts[0].encode(), texts[1].encode())) == "duplicate"


async def test_check_2_a_member_that_stands_twice_in_the_jwk_is_refused() -> None:
    text = json.dumps(PROVER.header()).replace('"kty": "EC"', '"kty": "EC", "x": "AAAA"')
    sent = PROVER.sign(text.encode(), json.dumps(PROVER.claims(TOKEN, "GET", URL)).encode())
    assert await refused(DPoP(), sent) == "duplicate"


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat", "ath"])
async def test_check_3_every_claim_must_be_there_and_of_its_kind(name: str) -> None:
    claims = PROVER.claims(TOKEN, "GET", URL)
    for wrong in (None, True, [], {}, "" if name == "iat" else 7, [claims[name]]):
        assert await refused(DPoP(), proof(**{name: wrong})) == "claims"
    null = json.dumps(claims | {name: None}).encode()
    assert await refused(DPoP(), PROVER.sign(json.dumps(PROVER.header()).encode(), null)) == "claims"


async def test_check_3_the_jti_has_1_to_256_characters() -> None:
    assert await check(DPoP(), proof(jti="x" * 256))
    assert await refused(DPoP(), proof(jti="")) == "claims"
    assert await refused(DPoP(), proof(jti="x" * 257)) == "claims"


@pytest.mark.parametrize(
    "typ", [None, "", "JWT", "at+jwt", "DPoP+JWT", "application/dpop+jwt", "dpop+jwt ", 7, []], ids=range(9)
)
async def test_check_4_the_typ_is_exactly_dpop_jwt(typ: Any) -> None:
    assert await refused(DPoP(), proof(header={"typ": typ})) == "type"


@pytest.mark.parametrize(
    "alg", [None, "none", "None", "", "HS256", "HS512", "ES256K", "RS1", "es256", 7, ["ES256"]], ids=range(11)
)
async def test_check_5_the_algorithm_is_asymmetric_and_known(alg: Any) -> None:
    assert await refused(DPoP(), proof(header={"alg": alg})) == "algorithm"


async def test_check_5_the_algorithm_is_allowed() -> None:
    assert await refused(DPoP(algorithms=["EdDSA"]), proof()) == "algorithm"
    with_secret = Prover("HS256", None)
    with_secret.private = b"k" * 64
    sent = with_secret.sign(
        json.dumps({"typ": "dpop+jwt", "alg": "HS256", "jwk": {"kty": "oct", "k": "a2tra2tra2s"}}).encode(),
        json.dumps(PROVER.claims(TOKEN, "GET", URL)).encode(),
    )
    assert await refused(DPoP(), sent) == "algorithm"


async def test_check_6_the_signature_is_by_the_key_of_the_proof() -> None:
    good = proof()
    head, _, signature = good.rpartition(b".")
    for wrong in (signature[:-8] + b"AAAAAAAA", b"AAAA", signature + b"AAAA", b"AAAAAAAA" * 10 + b"AAAAAA"):
        assert await refused(DPoP(), head + b"." + wrong) == "signature"
    stranger = Prover()
    assert await refused(DPoP(), stranger.proof(TOKEN, "GET", URL, header={"jwk": PROVER.jwk})) == "signature"


@pytest.mark.parametrize("name", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
async def test_check_7_a_key_with_private_parts_is_refused(name: str) -> None:
    assert await refused(DPoP(), proof(header={"jwk": PROVER.jwk | {name: "AQAB"}})) == "key"


RSA_JWK = Prover("RS256", RSA_KEY).jwk
BAD_KEYS = [
    None, {}, [], "x", 7, {"kty": "oct", "k": "AQAB"}, {"kty": ["EC"]}, {"kty": "EC"}, PROVER.jwk | {"kty": "RSA"},
    PROVER.jwk | {"crv": "P-384"}, PROVER.jwk | {"crv": "secp256k1"}, PROVER.jwk | {"crv": ["P-256"]},
    PROVER.jwk | {"x": PROVER.jwk["y"]}, PROVER.jwk | {"x": PROVER.jwk["x"] + "="}, PROVER.jwk | {"x": "AQAB"},
    PROVER.jwk | {"x": PROVER.jwk["x"][:20] + "!" + PROVER.jwk["x"][20:]}, PROVER.jwk | {"x": 7},
    PROVER.jwk | {"x": "AAAA" + PROVER.jwk["x"]}, PROVER.jwk | {"use": "enc"}, PROVER.jwk | {"key_ops": ["sign"]},
    PROVER.jwk | {"alg": "ES384"}, PROVER.jwk | {"alg": "RS256"}, Prover("ES384").jwk, Prover("EdDSA").jwk, RSA_JWK,
    {"kty": "OKP", "crv": "X25519", "x": Prover("EdDSA").jwk["x"]},
]  # fmt: skip


@pytest.mark.parametrize("jwk", BAD_KEYS, ids=range(len(BAD_KEYS)))
async def test_check_7_the_key_is_in_the_jwk_and_fits_the_algorithm(jwk: Any) -> None:
    assert await refused(DPoP(), proof(header={"jwk": jwk})) == "key"


async def test_check_7_the_key_is_taken_from_nowhere_else() -> None:
    for name in ("crit", "b64", "jku", "x5u", "x5c", "x5t", "x5t#S256", "zip", "enc"):
        assert await refused(DPoP(), proof(header={name: ["exp"]})) == "header"
    assert await refused(DPoP(), proof(header={"jwk": None, "kid": PROVER.jkt})) == "key"


async def test_check_7_weak_and_costly_rsa_keys_are_refused() -> None:
    weak = Prover("RS256", WEAK_RSA_KEY)
    assert await refused(DPoP(), weak.proof(TOKEN, "GET", URL), identity=bound_identity(weak.jkt)) == "key"
    strong = Prover("RS256", RSA_KEY)
    for change in ({"e": "AQAAAAAB"}, {"e": "AAEAAQ"}, {"e": "AQ"}, {"n": "AA" + strong.jwk["n"]}, {"n": "AQAB"}):
        sent = strong.proof(TOKEN, "GET", URL, header={"jwk": strong.jwk | change})
        assert await refused(DPoP(), sent, identity=bound_identity(strong.jkt)) == "key"


@pytest.mark.parametrize("htm", ["POST", "get", "GET ", "", "HEAD"])
async def test_check_8_the_method_is_that_of_the_request(htm: str) -> None:
    assert await refused(DPoP(), proof(htm=htm)) == "htm"


SAME = [
    ("https://api.example.com/documents", "https://api.example.com/documents?page=2"),
    ("https://api.example.com/documents?page=2#top", "https://api.example.com/documents"),
    ("HTTPS://API.Example.COM:443/documents", "https://api.example.com/documents"),
    ("https://api.example.com:/documents", "https://api.example.com:0443/documents"),
    ("https://api.example.com", "https://api.example.com/"),
    ("https://api.example.com?x", "https://api.example.com"),
    ("http://api.example.com:80/a", "http://api.example.com/a"),
    ("https://api.example.com/%7euser/%61", "https://api.example.com/~user/a"),
    ("https://api.example.com/a%2fb", "https://api.example.com/a%2Fb"),
    ("https://api.example.com/a/./b/../c", "https://api.example.com/a/c"),
    ("https://api.example.com/a/%2E%2e/c", "https://api.example.com/c"),
    ("https://api.example.com/../../a/..", "https://api.example.com/"),
    ("https://api.example.com/a/b/..", "https://api.example.com/a/"),
    ("https://api.example.com/a/.", "https://api.example.com/a/"),
    ("https://[2001:DB8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
    ("wss://api.example.com/feed", "https://api.example.com:443/feed"),
    ("ws://api.example.com/feed", "http://api.example.com/feed"),
]
OTHER = [
    "http://api.example.com/documents", "https://api.example.com:8443/documents", "https://evil.example/documents",
    "https://api.example.com/Documents", "https://api.example.com/documents/", "https://api.example.com/documents//",
    "https://api.example.com//documents", "https://api.example.com/documents%2F", "https://api.example.com/",
    "https://user@api.example.com/documents", "https://api.example.com./documents", "/documents", "", "*", "documents",
    "https://api.example.com/documents%", "https://api.example.com/documents%zz", "https:/api.example.com/documents",
    "https://api.example.com\\documents", "https://api.example.com/documents ", " https://api.example.com/documents",
    "https://api.example.com:99999/documents", "https://api.example.com:0/documents", "https://api.example.com/d\u00f6c",
    "https://api.example.com/documents\n", "https://api.example.com\n/documents", "https:///documents",
    "ftp://api.example.com/documents", "https://api.example.com@evil.example/documents", "https://api.example.com/documents;x",
    "http\u017f://api.example.com/documents", "https://api.example.com/\u212aey", "https://api.e\u017fample.com/documents",
    "https://api.example.com/%64ocuments/..", "https://api.example.com/documents%00",
]  # fmt: skip


@pytest.mark.parametrize(("htu", "url"), SAME)
async def test_check_9_two_spellings_of_one_uri_are_equal(htu: str, url: str) -> None:
    assert await check(DPoP(), proof(htu=htu), url=url)
    assert await check(DPoP(), proof(htu=url), url=htu)


@pytest.mark.parametrize("htu", OTHER)
async def test_check_9_another_uri_is_refused(htu: str) -> None:
    assert await refused(DPoP(), proof(htu=htu)) == "htu"
    assert await refused(DPoP(), proof(), url=htu) == "htu"


async def test_check_9_a_uri_that_is_none_equals_nothing_not_even_itself() -> None:
    for odd in ("", "*", "/documents", "https://api.example.com/%", "https://api.example.com/%1",
                "https://api.example.com/%+1", "https://api.example.com:0/", "https://api.example.com:65536/",
                "https://b\u00fccher.example/", "http\u017f://api.example.com/", "https://\u212aelvin.example/"):  # fmt: skip
        assert await refused(DPoP(), proof(htu=odd), url=odd) == "htu"


async def test_check_9_behind_a_proxy_the_public_origin_counts_and_not_the_host_header() -> None:
    dpop = DPoP(origin="https://API.example.com:443/")
    assert await check(dpop, proof(), url="http://10.0.0.7:8000/documents?page=2")
    assert await check(dpop, proof(), url="http://evil.example/documents")
    stolen = proof(htu="http://evil.example/documents")
    assert await refused(dpop, stolen, url="http://evil.example/documents") == "htu"
    assert await refused(dpop, proof(), url="http://10.0.0.7:8000/other") == "htu"
    assert await refused(dpop, proof(), url="no uri") == "htu"


async def test_check_11_the_time_is_within_the_window() -> None:
    clock = Clock()
    dpop = DPoP(max_age=60, leeway=10, clock=clock)
    for good in (0, -60, 10, -59.5, 9.5):
        assert await check(dpop, proof(iat=clock.now + good))
    assert await refused(dpop, proof(iat=clock.now - 60.5)) == "too_old"
    assert await refused(dpop, proof(iat=clock.now + 10.5)) == "not_yet_valid"
    assert await refused(dpop, proof(iat=-1)) == "claims"
    for never in ("9" * 400, "1e999", "NaN", "Infinity", "-Infinity", "253402300800"):
        payload = json.dumps(PROVER.claims(TOKEN, "GET", URL, iat=123456789)).replace("123456789", never)
        sent = PROVER.sign(json.dumps(PROVER.header()).encode(), payload.encode())
        assert await refused(dpop, sent) in ("claims", "malformed")


async def test_check_12_the_proof_names_the_token() -> None:
    good = PROVER.claims(TOKEN, "GET", URL)["ath"]
    for wrong in ("", good + "=", good[:-1], good.upper(), PROVER.claims("other", "GET", URL)["ath"], "\u00e9"):
        assert await refused(DPoP(), proof(ath=wrong)) == "ath"
    assert await refused(DPoP(), proof(), token="other") == "ath"
    assert await refused(DPoP(), PROVER.proof("t\u00f6ken", "GET", URL), token="t\u00f6ken") == "ath"


async def test_check_12_the_token_is_bound_to_the_proofs_key() -> None:
    assert await refused(DPoP(), proof(), identity=bound_identity(Prover().jkt)) == "binding"
    for odd in (PROVER.jkt + "=", PROVER.jkt[:-1], PROVER.jkt.swapcase(), "x"):
        assert await refused(DPoP(), proof(), identity=bound_identity(odd)) == "binding"


# --- bound and unbound tokens, schemes -------------------------------------------------------------------


@pytest.mark.parametrize("identity", [bound_identity(None), bound_identity(None, x5t_s256="x"), bound_identity("")])
async def test_a_token_that_is_bound_to_no_key_is_only_good_as_a_bearer_token_without_a_proof(
    identity: Identity,
) -> None:
    assert await check(DPoP(), identity=identity, scheme="Bearer") is None
    assert await refused(DPoP(required=True), identity=identity, scheme="Bearer") == "unbound"
    assert await refused(DPoP(), proof(), identity=identity, scheme="Bearer") == "unbound"
    assert await refused(DPoP(), identity=identity) == "unbound"
    assert await refused(DPoP(), proof(), identity=identity) == "unbound"


async def test_a_bound_token_is_never_good_as_a_bearer_token() -> None:
    assert await refused(DPoP(), scheme="Bearer") == "scheme"
    assert await refused(DPoP(), proof(), scheme="bearer") == "scheme"
    assert await refused(DPoP(), proof(), scheme="") == "scheme"
    assert await check(DPoP(), proof(), scheme="dpop")


# --- settings --------------------------------------------------------------------------------------------

WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    *(({"algorithms": wrong}, "Supported are RS256") for wrong in ([], "HS256", ["none"], ["ES256", "HS512"], "ES1", None, [[]])),
    *(({"max_age": wrong}, "max_age=10") for wrong in (0, -1, 601, float("nan"), float("inf"), True, "60", None)),
    *(({"leeway": wrong}, "leeway=10") for wrong in (-1, 121, float("nan"), "10", None)),
    ({"nonces": b"secret"}, "DPoPNonces"),
    ({"replays": object()}, "InMemoryReplays"),
    *(({"origin": wrong}, "https://api.example.com")
      for wrong in ("", "api.example.com", "https://a/b", "https://a?b", "https://u@a", "ftp://a", "https://", 7, b"https://a")),
    ({"required": 1}, "required=True"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "mend"), WRONG_SETTINGS, ids=range(len(WRONG_SETTINGS)))
async def test_wrong_settings_are_refused_with_how_to_mend_them(settings: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DPoP(**settings)
    assert mend in str(caught.value)


async def test_a_single_name_of_an_algorithm_will_do() -> None:
    assert DPoP(algorithms="ES256").algorithms == ("ES256",)


async def test_nothing_that_is_shown_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    secret = b"a secret that nobody may ever see"
    nonces = DPoPNonces(secret)
    with caplog.at_level(logging.DEBUG):
        shown = repr([nonces, DPoP(nonces=nonces), InMemoryReplays()])
        await check(DPoP(nonces=nonces), proof(nonce=nonces.issue()))
        for bad_key in BAD_KEYS:
            await refused(DPoP(), proof(header={"jwk": bad_key}))
    assert secret.decode() not in shown + caplog.text
    assert not caplog.records, "a client can't fill the log"


async def test_normal_forms_are_fixed_points() -> None:
    for htu, url in SAME:
        normal = normalize_target(url)
        assert normalize_target(htu) == normal == normalize_target(normal)
    assert normalize_origin("HTTP://A:80") == "http://a"
