"""Each check of one token, with a token that fails this check and no other."""

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tenantguard.errors import ExpiredToken, InvalidToken, TenantGuardError
from tenantguard.identity import Identity
from tenantguard.tokens import Issuer, TokenVerifier, oidc
from tenantguard.tokens.jwt import split_compact

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def verifier_of(lab: Any, *keys: Any, **options: Any) -> TokenVerifier:
    keys = keys or (lab.rsa, lab.ec, lab.ed)
    options = {"audience": lab.audience, "jwks": lab.jwks(*keys)} | options
    return TokenVerifier([Issuer(lab.issuer, **options)])


async def reason_of(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verifier.verify(token)
    assert caught.value.__cause__ is None
    for part in token.split("."):
        assert len(part) < 4 or part not in str(caught.value)
    return caught.value.reason


async def test_a_good_token_becomes_the_identity_it_describes(lab: Any) -> None:
    claims = lab.claims(
        auth_time=5, acr="mfa", amr=["pwd", "otp"], cnf={"jkt": "thumb"}, name="Ada", grant_id="g", task="t"
    )
    identity = await verifier_of(lab).verify(lab.rsa.token(claims))
    assert isinstance(identity, Identity)
    assert identity.subject.id == identity.actor.id == "user-1"
    assert identity.subject.issuer == identity.issuer == lab.issuer
    assert identity.tenant is not None
    assert identity.tenant.id == "acme"
    assert identity.scopes == {"documents:read", "documents:write"}
    assert identity.audience == (lab.audience,)
    assert (identity.token_id, identity.session_id, identity.client_id) == ("token-1", "session-1", "web")
    assert (identity.issued_at, identity.expires_at) == (claims["iat"], claims["exp"])
    assert (identity.auth_time, identity.acr, identity.amr) == (5, "mfa", ("pwd", "otp"))
    assert identity.confirmation is not None
    assert identity.confirmation.jkt == "thumb"
    assert (identity.subject.name, identity.grant_id, identity.task) == ("Ada", "g", "t")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *(("rsa", name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("ec", "ES256"), ("ec384", "ES384"), ("ec521", "ES512"), ("ed", "EdDSA"), ("ed448", "EdDSA"),
    ],
)  # fmt: skip
async def test_each_asymmetric_algorithm_is_verified(lab: Any, key: str, algorithm: str) -> None:
    signer = lab.SigningKey(getattr(lab, key).private, algorithm, "k")
    verifier = verifier_of(lab, signer)
    token = signer.token(lab.claims())
    assert await verifier.verify(token)
    head, payload, signature = token.split(".")
    # The first character holds significant bits only, so another one is another signature.
    forged = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert await reason_of(verifier, f"{head}.{payload}.{forged}") == "signature"


@pytest.mark.parametrize(("curve", "name"), [("ed", "Ed25519"), ("ed448", "Ed448")])
async def test_the_fully_specified_names_of_eddsa_fit_their_curve_alone(lab: Any, curve: str, name: str) -> None:
    class Renamed(lab.SigningKey):
        def sign(self, signing_input: bytes, algorithm: str | None = None) -> bytes:
            return super().sign(signing_input, "EdDSA")

    signer = Renamed(getattr(lab, curve).private, name, "k")
    assert await verifier_of(lab, signer, algorithms=[name]).verify(signer.token(lab.claims()))
    wrong = Renamed(signer.private, {"Ed25519": "Ed448", "Ed448": "Ed25519"}[name], "k")
    assert await reason_of(verifier_of(lab, signer), wrong.token(lab.claims())) == "key"


# --- form ------------------------------------------------------------------------------------------------


async def test_a_token_over_eight_thousand_characters_is_refused_before_it_is_parsed(lab: Any) -> None:
    token = lab.rsa.token(lab.claims(padding="x" * 8192))
    assert await reason_of(verifier_of(lab), token) == "size"
    assert verifier_of(lab).cached(token) is None


@pytest.mark.parametrize(
    "respell",
    [
        lambda t: t + "=",
        lambda t: t + "==",
        lambda t: t.replace(".", "=.", 1),
        lambda t: " " + t,
        lambda t: t + "\n",
        lambda t: t + ".",
        lambda t: "." + t,
        lambda t: t + ".x",
        lambda t: t.replace(".", "..", 1),
        lambda t: t.replace("-", "+").replace("_", "/") + "+",
        lambda t: t[:-1] + "\u00e9",
        lambda t: t[:-1] + "\ud800",
        lambda t: t[:-1] + "\x00",
        lambda t: t.split(".")[1],
        lambda t: "",
        lambda t: ".",
        lambda t: "..",
        lambda t: "...",
        lambda t: t.split(".")[0] + ".." + t.split(".")[2],
        lambda t: ".".join(t.split(".")[:2]) + ".",
        lambda t: "." + ".".join(t.split(".")[1:]),
        lambda t: "Bearer " + t,
    ],
    ids=[f"respelling-{number}" for number in range(22)],
)
async def test_a_token_that_is_not_three_parts_of_base64url_is_refused(lab: Any, respell: Any) -> None:
    respelled = respell(lab.rsa.token(lab.claims()))
    assert await reason_of(verifier_of(lab), respelled) == "malformed"
    assert verifier_of(lab).cached(respelled) is None


@pytest.mark.parametrize("key", ["rsa", "ed"])
async def test_a_token_has_one_spelling_only(lab: Any, key: str) -> None:
    signer = getattr(lab, key)
    verifier = verifier_of(lab, signer)
    token = signer.token(lab.claims())
    assert await verifier.verify(token)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(token.split(".")[2]) % 4, "the last character has bits to spare"
    for last in alphabet.replace(token[-1], ""):
        assert await reason_of(verifier, token[:-1] + last) in ("malformed", "signature")
    respelled = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    assert await reason_of(verifier, respelled) == "malformed"
    for part in ("AAB", "AAD", "AB", "AP", "A"):
        with pytest.raises(InvalidToken):
            split_compact(f"AAA.AAA.{part}")
    assert split_compact("AAE.AAA.AQ")[3] == b"\x01"


# --- header ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc"])
@pytest.mark.parametrize("value", [None, True, "x", ["b64"]])
async def test_a_header_that_would_choose_key_or_rules_is_refused(lab: Any, name: str, value: Any) -> None:
    header = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1", name: value}
    token = lab.rsa.raw_token(lab.compact(header), lab.compact(lab.claims()))
    assert await reason_of(verifier_of(lab), token) == "header"


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{}", b'"x"', b"null", b'{"alg":null}', b'{"alg":["RS256"]}', b'{"alg":"RS256","kid":7}', b"{", b"\xff",
     b'{"alg":"RS256","typ":7}', b'{"alg":"RS256"} x', b"\xef\xbb\xbf{}", b"[" * 4000],
)  # fmt: skip
async def test_a_header_of_another_form_is_refused(lab: Any, header: bytes) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.raw_token(header, lab.compact(lab.claims()))) == "header"


async def test_a_key_id_of_absurd_length_is_refused(lab: Any) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(), kid="k" * 513)) == "header"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "rs256", "RS256 ", "HS256", "ES256K", "RS1", ""])
async def test_an_algorithm_outside_the_list_is_refused(lab: Any, algorithm: str) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(), alg=algorithm)) == "algorithm"


async def test_an_algorithm_that_the_issuer_does_not_allow_is_refused_though_its_key_is_published(lab: Any) -> None:
    verifier = verifier_of(lab, algorithms=["RS256"])
    assert await verifier.verify(lab.rsa.token(lab.claims()))
    assert await reason_of(verifier, lab.ec.token(lab.claims())) == "algorithm"


async def test_a_public_key_is_never_an_hmac_secret(lab: Any) -> None:
    import hashlib
    import hmac

    public = lab.rsa.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = lab.b64(lab.compact({"alg": "HS256", "typ": "at+jwt", "kid": "rsa-1"}))
    signing_input = f"{header}.{lab.b64(lab.compact(lab.claims()))}"
    mac = hmac.digest(public, signing_input.encode(), hashlib.sha256)
    assert await reason_of(verifier_of(lab), f"{signing_input}.{lab.b64(mac)}") == "algorithm"


async def test_a_key_is_not_used_under_another_algorithm_than_its_own(lab: Any) -> None:
    as_pss = lab.SigningKey(lab.rsa.private, "PS256", "rsa-1")
    assert await reason_of(verifier_of(lab), as_pss.token(lab.claims())) == "key"
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(), kid="ec-1")) == "key"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
async def test_access_token_types_are_accepted_in_any_case(lab: Any, typ: str) -> None:
    assert await verifier_of(lab).verify(lab.rsa.token(lab.claims(), typ=typ))


@pytest.mark.parametrize("typ", [None, "JWT", "", "id+jwt", "secevent+jwt", "dpop+jwt", "text/at+jwt", "at+jwt "])
async def test_other_types_are_refused_unless_declared(lab: Any, typ: str | None) -> None:
    token = lab.rsa.token(lab.claims(), typ=typ)
    assert await reason_of(verifier_of(lab), token) == "type"
    assert await verifier_of(lab, token_types=[typ or ""]).verify(token)


@pytest.mark.parametrize("claim", ["nonce", "at_hash", "c_hash", "s_hash"])
async def test_an_id_token_is_refused_even_where_its_type_is_accepted(lab: Any, claim: str) -> None:
    token = lab.rsa.token(lab.claims(**{claim: "x"}), typ="JWT")
    verifier = verifier_of(lab, token_types=["jwt"])
    assert await reason_of(verifier, token) == "id_token"
    own = oidc()
    assert await reason_of(verifier_of(lab, token_types=["jwt"], claims=lambda c: own(c)), token) == "id_token"


# --- issuer, key, signature ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "issuer", ["https://idp.example.com/", "https://IDP.example.com", "https://evil.example", "", "x"]
)
async def test_the_issuer_is_compared_character_for_character(lab: Any, issuer: str) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims() | {"iss": issuer})) == "issuer"


@pytest.mark.parametrize("issuer", [None, 7, ["https://idp.example.com"]])
async def test_a_token_without_a_usable_issuer_is_refused(lab: Any, issuer: Any) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims() | {"iss": issuer})) == "claims"


async def test_a_key_of_one_issuer_signs_nothing_for_another(lab: Any) -> None:
    second = "https://second.example.com"
    verifier = TokenVerifier(
        [
            Issuer(lab.issuer, audience=lab.audience, jwks=lab.jwks(lab.rsa)),
            Issuer(second, audience=lab.audience, jwks=lab.jwks(lab.other_rsa)),
        ]
    )
    assert await verifier.verify(lab.rsa.token(lab.claims()))
    assert await verifier.verify(lab.other_rsa.token(lab.claims(second)))
    assert await reason_of(verifier, lab.rsa.token(lab.claims(second))) == "key"
    assert await reason_of(verifier, lab.rsa.token(lab.claims(second), kid="rsa-2")) == "signature"


async def test_a_token_without_key_id_needs_a_set_in_which_one_key_fits(lab: Any) -> None:
    token = lab.rsa.token(lab.claims(), kid=None)
    assert await verifier_of(lab, lab.rsa, lab.ec).verify(token)
    assert await reason_of(verifier_of(lab, lab.rsa, lab.other_rsa), token) == "key"
    nameless = lab.SigningKey(lab.rsa.private, "RS256", None)
    assert await verifier_of(lab, nameless).verify(lab.rsa.token(lab.claims()))
    assert await reason_of(verifier_of(lab, nameless, lab.other_rsa), lab.rsa.token(lab.claims())) == "key"


async def test_a_signature_over_other_bytes_is_refused(lab: Any) -> None:
    head, _, signature = lab.rsa.token(lab.claims()).split(".")
    payload = lab.b64(lab.compact(lab.claims(tenant_id="globex")))
    assert await reason_of(verifier_of(lab), f"{head}.{payload}.{signature}") == "signature"


async def test_an_ecdsa_signature_in_der_form_or_of_odd_length_is_refused(lab: Any) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    head, payload, signature = lab.ec.token(lab.claims()).split(".")
    der = lab.ec.private.sign(f"{head}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))
    raw = base64.urlsafe_b64decode(signature + "==")
    for wrong in map(lab.b64, (der, raw[:-1], raw + b"\0", b"\0" + raw, raw * 2, bytes(64), b"\xff" * 64)):
        assert await reason_of(verifier_of(lab), f"{head}.{payload}.{wrong}") == "signature"


# --- JSON ------------------------------------------------------------------------------------------------


def doubled(text: bytes, member: bytes) -> bytes:
    return text[:-1] + b"," + member + b"}"


@pytest.mark.parametrize(
    "member",
    [b'"tenant_id":"globex"', b'"tenant\\u005fid":"globex"', b'"exp":1', b'"x":{"a":1,"a":2}', b'"x":[{"a":1,"a":1}]'],
)
async def test_a_member_that_is_there_twice_is_refused_at_any_depth(lab: Any, member: bytes) -> None:
    header = lab.compact({"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"})
    token = lab.rsa.raw_token(header, doubled(lab.compact(lab.claims()), member))
    assert await reason_of(verifier_of(lab), token) == "duplicate"


async def test_a_header_member_that_is_there_twice_is_refused(lab: Any) -> None:
    header = lab.compact({"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"})
    for member in (b'"alg":"RS256"', b'"kid":"rsa-1"', b'"x":1,"x":1'):
        token = lab.rsa.raw_token(doubled(header, member), lab.compact(lab.claims()))
        assert await reason_of(verifier_of(lab), token) == "duplicate"


async def test_spaces_escapes_and_odd_numbers_are_no_duplicates(lab: Any) -> None:
    header = b'{ "alg" : "RS256", "typ":"at+jwt", "kid":"rsa\\u002d1" }'
    claims = lab.claims(name="Zo\u00eb", big=10**30, ratio=1.50, exp=None) | {"exp": time.time() + 60.5}
    for payload in (json.dumps(claims, indent=2).encode(), json.dumps(claims, ensure_ascii=False).encode()):
        identity = await verifier_of(lab).verify(lab.rsa.raw_token(header, payload))
        assert identity.subject.name == "Zo\u00eb"
        assert identity.expires_at == int(claims["exp"])


@pytest.mark.parametrize(
    "member",
    [b'"x":NaN', b'"x":Infinity', b'"x":-Infinity', b'"x":1e999', b'"x":"\xff"', b'"x":"\\ud800"', b'"x":01', b'"x":\'a\'',
     b'"x":undefined', b'"x":1,', b'"x":"\n"', b'"x":' + b"9" * 5000],
)  # fmt: skip
async def test_what_is_no_json_is_refused(lab: Any, member: bytes) -> None:
    header = lab.compact({"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"})
    token = lab.rsa.raw_token(header, doubled(lab.compact(lab.claims()), member))
    assert await reason_of(verifier_of(lab), token) == "claims"


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"1", b"{}", b"\xef\xbb\xbf{}", b'{"iss":"a"}{"iss":"b"}'])
async def test_claims_that_are_no_object_are_refused(lab: Any, payload: bytes) -> None:
    header = lab.compact({"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"})
    assert await reason_of(verifier_of(lab), lab.rsa.raw_token(header, payload)) == "claims"


async def test_deep_nesting_is_refused_and_wide_nesting_is_not(lab: Any) -> None:
    deep: Any = "x"
    for _ in range(25):
        deep = [deep]
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(x=deep))) == "nesting"
    mixed: Any = "x"
    for _ in range(12):
        mixed = {"a": [mixed]}
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(x=mixed))) == "nesting"
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(), x=deep)) == "nesting"
    assert await verifier_of(lab).verify(lab.rsa.token(lab.claims(x=[{"a": []} for _ in range(40)])))
    header = lab.compact({"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"})
    abyss = doubled(lab.compact(lab.claims()), b'"x":' + b"[" * 2500 + b"]" * 2500)
    assert await reason_of(verifier_of(lab), lab.rsa.raw_token(header, abyss)) == "claims"


# --- claims ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "audience", ["https://other.example.com", ["a", "b"], "https://api.example.com/", "https://api"]
)
async def test_a_token_for_somebody_else_is_refused(lab: Any, audience: Any) -> None:
    verifier = verifier_of(lab)
    with pytest.raises(InvalidToken, match=r"Issuer\(audience=...\)") as caught:
        await verifier.verify(lab.rsa.token(lab.claims(aud=audience)))
    assert caught.value.reason == "audience"


@pytest.mark.parametrize("audience", [None, "", [], 7, {"a": 1}, [7], [[]], ["https://api.example.com", 7], [""], True])
async def test_an_audience_of_another_form_is_refused(lab: Any, audience: Any) -> None:
    token = lab.rsa.token(lab.claims(aud=None) | ({} if audience is None else {"aud": audience}))
    assert await reason_of(verifier_of(lab), token) == "audience"


async def test_one_of_several_audiences_is_enough(lab: Any) -> None:
    identity = await verifier_of(lab, audience=["x", lab.audience]).verify(
        lab.rsa.token(lab.claims(aud=["y", lab.audience]))
    )
    assert identity.audience == ("y", lab.audience)


@pytest.mark.parametrize("name", ["sub", "exp", "iat"])
async def test_a_token_without_a_required_claim_is_refused(lab: Any, name: str) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(**{name: None}))) == "claims"


@pytest.mark.parametrize("subject", ["", 7, True, ["user-1"], {"id": 1}, "x" * 256])
async def test_a_subject_of_another_form_is_refused(lab: Any, subject: Any) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims(sub=subject))) == "claims"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [True, False, "9999999999", [], {}, -1, 1e300, 253402300800, 10**40])
async def test_a_time_of_another_form_is_refused(lab: Any, name: str, value: Any) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims() | {name: value})) == "claims"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "sub"])
async def test_null_is_no_value(lab: Any, name: str) -> None:
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims() | {name: None})) == "claims"


async def test_an_expired_token_is_refused_after_the_leeway(lab: Any) -> None:
    now = time.time()
    assert await verifier_of(lab, leeway=10).verify(lab.rsa.token(lab.claims(exp=now - 5, iat=now - 60)))
    for leeway, past in ((10, 11), (0, 1)):
        with pytest.raises(ExpiredToken):
            await verifier_of(lab, leeway=leeway).verify(lab.rsa.token(lab.claims(exp=now - past, iat=now - 60)))


async def test_a_forged_token_is_never_said_to_be_expired(lab: Any) -> None:
    token = lab.other_rsa.token(lab.claims(exp=1), kid="rsa-1")
    assert await reason_of(verifier_of(lab), token) == "signature"


@pytest.mark.parametrize("name", ["iat", "nbf"])
async def test_a_token_of_the_future_is_refused_beyond_the_leeway(lab: Any, name: str) -> None:
    now = time.time()
    assert await verifier_of(lab).verify(lab.rsa.token(lab.claims() | {name: now + 5}))
    assert await reason_of(verifier_of(lab), lab.rsa.token(lab.claims() | {name: now + 30})) == "not_yet_valid"


async def test_a_token_older_than_the_maximum_age_is_refused(lab: Any) -> None:
    token = lab.rsa.token(lab.claims(iat=time.time() - 100))
    assert await verifier_of(lab, max_token_age=200).verify(token)
    assert await reason_of(verifier_of(lab, max_token_age=60), token) == "too_old"


async def test_further_claims_can_be_required(lab: Any) -> None:
    verifier = verifier_of(lab, required_claims=["jti", "auth_time"])
    assert await verifier.verify(lab.rsa.token(lab.claims(auth_time=1)))
    assert await reason_of(verifier, lab.rsa.token(lab.claims())) == "claims"


async def test_hmac_works_for_an_issuer_that_is_declared_with_a_secret(lab: Any) -> None:
    secret = bytes(range(32))

    class Shared(lab.SigningKey):
        def sign(self, signing_input: bytes, algorithm: str | None = None) -> bytes:
            import hashlib
            import hmac

            return hmac.digest(secret, signing_input, hashlib.sha256)

    signer = Shared(None, "HS256", None)
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, algorithms=["HS256"], secret=secret)])
    token = signer.token(lab.claims())
    assert await verifier.verify(token)
    assert await reason_of(verifier, token[:-43] + "A" * 43) == "signature"
    assert await reason_of(verifier, lab.rsa.token(lab.claims())) == "algorithm"


async def test_a_token_that_is_no_text_is_refused(lab: Any) -> None:
    for odd in (None, b"a.b.c", 7):
        with pytest.raises(TenantGuardError):
            await verifier_of(lab).verify(odd)  # type: ignore[arg-type]
