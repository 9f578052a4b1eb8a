"""Malformed and malicious credentials, made of real keys, each with the verdict that it must get.

A case is what a client writes on the wire: its header lines. ``status`` 200 marks the controls, which are valid; where
several verdicts stand, the server in front of the app may answer before the app does.
"""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from tests.support.lab import AUDIENCE, ISSUER, Lab, SigningKey, b64, compact

__all__ = ["Case", "corpus"]

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Case:
    """One credential.

    Args:
        name: what it tries.
        lines: the header lines.
        status: the verdict: 200, or the statuses that refuse it.
        error: the ``error`` of the challenge; ``None`` where there is none to be.
        by_server: the server may refuse the request before the app sees it, in its own form.
    """

    name: str
    lines: tuple[bytes, ...]
    status: tuple[int, ...]
    error: str | None = None
    by_server: bool = False


def bearer(
    name: str, token: str | bytes, *, good: bool = False, status: int = 401, error: str = "invalid_token"
) -> Case:
    raw = token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass")
    if good:
        return Case(name, (b"Authorization: Bearer " + raw,), (200,))
    return Case(name, (b"Authorization: Bearer " + raw,), (status,), error)


def malformed(name: str, token: str | bytes) -> Case:
    """A token that is none by its characters: RFC 6750 has ``invalid_request`` for that."""
    return bearer(name, token, status=400, error="invalid_request")


def corpus(lab: Lab) -> Iterator[Case]:
    """Return all cases."""
    yield from controls(lab)
    yield from algorithms(lab)
    yield from signatures(lab)
    yield from forms(lab)
    yield from headers(lab)
    yield from claims(lab)
    yield from tenants(lab)
    yield from chains(lab)
    yield from authorization_headers(lab)


def controls(lab: Lab) -> Iterator[Case]:
    for key in (lab.rsa, lab.ec, lab.ec384, lab.ec521, lab.ed):
        yield bearer(f"control: {key.algorithm} {key.kid}", key.token(lab.claims()), good=True)
    for algorithm in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        anything = SigningKey(lab.other_rsa.private, algorithm, "rsa-any")
        yield bearer(f"control: {algorithm}", anything.token(lab.claims()), good=True)
    token = lab.ec.token
    now = int(time.time())
    yield bearer("control: typ application/at+jwt", token(lab.claims(), typ="application/at+jwt"), good=True)
    yield bearer("control: typ in capitals", token(lab.claims(), typ="AT+JWT"), good=True)
    yield bearer("control: unknown header member", token(lab.claims(), x="y"), good=True)
    yield bearer("control: unknown claims", token(lab.claims(x={"y": [1, None]})), good=True)
    yield bearer("control: one of several audiences", token(lab.claims(aud=["other", AUDIENCE])), good=True)
    yield bearer("control: exp just passed, within the leeway", token(lab.claims(exp=now - 2)), good=True)
    yield bearer("control: nbf just ahead, within the leeway", token(lab.claims(nbf=now + 5)), good=True)
    yield bearer("control: times with fractions", token(lab.claims(exp=now + 60.5, iat=now - 0.5)), good=True)
    yield bearer(
        "control: spaces in the JSON",
        lab.ec.raw_token(
            json.dumps({"alg": "ES256", "kid": "ec-1", "typ": "at+jwt"}).encode(), json.dumps(lab.claims()).encode()
        ),
        good=True,
    )
    yield bearer("control: a tenant id of other letters", token(lab.claims(tenant_id="société")), good=True)
    yield bearer(
        "control: a chain of two actors",
        token(lab.claims(act={"sub": "copilot", "actor_type": "agent", "act": {"sub": "gateway"}})),
        good=True,
    )


def algorithms(lab: Lab) -> Iterator[Case]:
    payload = b64(compact(lab.claims()))
    for name in ("none", "None", "NONE", "nOnE", ""):
        for signature in ("", "AA"):
            header = b64(compact({"alg": name, "typ": "at+jwt", "kid": "rsa-1"}))
            yield bearer(f"alg {name!r} with signature {signature!r}", f"{header}.{payload}.{signature}")
    public = lab.rsa.private.public_key()
    secrets = {
        "PEM": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "PKCS1 PEM": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        "DER": public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        "JWK": compact(lab.rsa.jwk),
        "empty": b"",
    }
    hmac = jwt.algorithms.HMACAlgorithm
    for kind, secret in secrets.items():
        for name, digest in (("HS256", hmac.SHA256), ("HS512", hmac.SHA512)):
            header = b64(compact({"alg": name, "typ": "at+jwt", "kid": "rsa-1"}))
            signature = hmac(digest).sign(f"{header}.{payload}".encode(), secret)
            yield bearer(f"{name} with the public key as {kind}", f"{header}.{payload}.{b64(signature)}")
    for key, algorithm in (
        (lab.ec, "RS256"), (lab.ec, "ES384"), (lab.ec, "EdDSA"), (lab.rsa, "ES256"), (lab.rsa, "PS256"),
        (lab.rsa, "RS512"), (lab.ed, "ES256"), (lab.ec384, "ES256"), (lab.ec521, "ES384"),
    ):  # fmt: skip
        yield bearer(f"{key.kid} named as {algorithm}", key.token(lab.claims(), alg=algorithm))
    for algorithm in ("RS1", "ES256K", "A128KW", "dir", "RSA-OAEP", "HS1", "MD5", "PBES2-HS256+A128KW"):
        yield bearer(f"alg {algorithm}", lab.rsa.token(lab.claims(), alg=algorithm))
    for value in (None, 1, True, ["RS256"], {"x": 1}):
        header = compact({"alg": value, "typ": "at+jwt", "kid": "rsa-1"})
        yield bearer(f"alg is {value!r}", lab.rsa.raw_token(header, compact(lab.claims())))


def signatures(lab: Lab) -> Iterator[Case]:
    good = lab.ec.token(lab.claims())
    signing_input, _, written = good.rpartition(".")
    raw = base64.urlsafe_b64decode(written + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")

    def with_signature(value: bytes) -> str:
        return f"{signing_input}.{b64(value)}"

    def pair(r_: int, s_: int, size: int = 32) -> str:
        return with_signature(r_.to_bytes(size, "big") + s_.to_bytes(size, "big"))

    yield bearer("ECDSA r and s zero", pair(0, 0))
    yield bearer("ECDSA r zero", pair(0, s))
    yield bearer("ECDSA s zero", pair(r, 0))
    yield bearer("ECDSA r and s one", pair(1, 1))
    yield bearer("ECDSA r and s the order", pair(P256_ORDER, P256_ORDER))
    yield bearer("ECDSA r and s swapped", pair(s, r))
    yield bearer("ECDSA in DER", with_signature(encode_dss_signature(r, s)))
    yield bearer("ECDSA too long", pair(r, s, 33))
    yield bearer("ECDSA too short", with_signature(raw[:-1]))
    yield bearer("ECDSA half", with_signature(raw[:32]))
    yield bearer("ECDSA with zeros behind", with_signature(raw + b"\0\0"))
    # Both s and n - s verify, by the mathematics; RFC 7518, section 3.4 asks for no more. It is the same token for
    # revocation, which goes by jti, and a second entry in the cache.
    yield bearer("control: ECDSA with the other s", pair(r, P256_ORDER - s), good=True)
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    for key in (lab.rsa, lab.ed, lab.ec521):
        token = key.token(lab.claims())
        head, _, tail = token.rpartition(".")
        flipped = bytearray(base64.urlsafe_b64decode(tail + "=="))
        flipped[0] ^= 1
        yield bearer(f"{key.algorithm}: one bit of the signature", f"{head}.{b64(bytes(flipped))}")
        yield bearer(f"{key.algorithm}: signature of zeros", f"{head}.{b64(bytes(len(flipped)))}")
        yield bearer(
            f"{key.algorithm}: signature of another token",
            f"{head}.{key.token(lab.claims(sub='x')).rpartition('.')[2]}",
        )
        yield bearer(
            f"{key.algorithm}: another's key under the same id",
            SigningKey(
                lab.other_rsa.private if key is lab.rsa else lab.new_key().private if key is lab.ed else lab.ec.private,
                key.algorithm if key is not lab.ec521 else "ES256",
                key.kid,
            ).token(lab.claims()),
        )
    yield bearer(
        "claims changed after signing",
        ".".join([good.split(".")[0], b64(compact(lab.claims(tenant_id="globex"))), written]),
    )
    yield bearer(
        "header changed after signing",
        ".".join([b64(compact({"alg": "ES256", "kid": "ec-1", "typ": "at+jwt", "x": 1})), good.split(".")[1], written]),
    )


def forms(lab: Lab) -> Iterator[Case]:
    good = lab.ec.token(lab.claims())
    header, payload, signature = good.split(".")
    for name, token in {
        "one part": header,
        "two parts": f"{header}.{payload}",
        "four parts": f"{good}.{signature}",
        "five parts, as an encrypted token": f"{good}.{header}.{payload}",
        "only dots": "..",
        "no header": f".{payload}.{signature}",
        "no claims": f"{header}..{signature}",
        "no signature": f"{header}.{payload}.",
        "a dot before": f".{good}",
        "a dot behind": f"{good}.",
        "standard alphabet": f"{header}.{payload}.{signature[:-2]}+/",
        "unused bits set": good[:-1] + chr(ord(good[-1]) + 1),
        "a length that no base64 has": f"{header}.{payload}.{signature}A",
        "header cut": f"{header[:-3]}.{payload}.{signature}",
        "claims cut": f"{header}.{payload[:-7]}.{signature}",
        "header is no JSON": f"{b64(b'x' * 9)}.{payload}.{signature}",
        "header is a list": f"{b64(b'[]')}.{payload}.{signature}",
        "header is empty": f"{b64(b'{}')}.{payload}.{signature}",
        "claims are a text": lab.ec.raw_token(compact({"alg": "ES256", "kid": "ec-1", "typ": "at+jwt"}), b'"x"'),
        "claims are no UTF-8": lab.ec.raw_token(
            compact({"alg": "ES256", "kid": "ec-1", "typ": "at+jwt"}), b'{"iss":"\xff"}'
        ),
        "8192 characters of one letter": "A" * 8192,
        "8193 characters": "A" * 8193,
        "a token of 8193 characters": good + "A" * (8193 - len(good)),
        "claims of 8 kB": lab.ec.token(lab.claims(x="y" * 8000)),
        "another language's text": "not-a-token",
    }.items():
        yield bearer(name, token)
    for name, token in {
        "padding inside": f"{header}=.{payload}.{signature}",
        "a blank inside": f"{header}. {payload}.{signature}",
        "a tab inside": f"{header}.\t{payload}.{signature}",
        "letters of another alphabet": f"{header}.{payload}.é{signature}",
        "quotes around": f'"{good}"',
        "a comma behind": f"{good},",
        "percent-encoded": good.replace(".", "%2E"),
        "JSON serialisation": json.dumps({"payload": payload, "protected": header, "signature": signature}),
    }.items():
        yield malformed(name, token)
    yield bearer("padding behind", f"{good}=")


def headers(lab: Lab) -> Iterator[Case]:
    token = lab.ec.token
    jwk = lab.new_key().jwk
    for name, value in {
        "crit": ["exp"], "b64": False, "jwk": jwk, "jku": "https://evil.example.com/jwks", "x5u": "https://evil.example.com",
        "x5c": ["AAAA"], "zip": "DEF", "enc": "A128GCM",
    }.items():  # fmt: skip
        yield bearer(f"header {name}", token(lab.claims(), **{name: value}))
    forger = lab.new_key()
    yield bearer("its own key in jwk", forger.token(lab.claims(), jwk=forger.jwk))
    for kid in (
        "../../../../dev/null",
        "' OR 1=1 --",
        "unknown",
        "",
        "x" * 2000,
        "\u0000",
        "http://evil.example.com/k",
    ):
        yield bearer(f"kid {kid[:20]!r}", forger.token(lab.claims(), kid=kid, alg="EdDSA"))
    for kid in (1, True, ["ec-1"], {"kid": "ec-1"}):
        yield bearer(f"kid is {kid!r}", token(lab.claims(), kid=kid))
    yield bearer("no kid, and several keys fit", forger.token(lab.claims(), kid=None))
    for typ in (
        "JWT",
        "jwt",
        "",
        "id_token",
        "dpop+jwt",
        "secevent+jwt",
        "logout+jwt",
        "at+jwt ",
        "xat+jwt",
        "application/jwt",
    ):
        yield bearer(f"typ {typ!r}", token(lab.claims(), typ=typ))
    yield bearer("no typ", token(lab.claims(), typ=None))
    for typ in (1, ["at+jwt"], {"at+jwt": 1}):
        yield bearer(f"typ is {typ!r}", token(lab.claims(), typ=typ))
    twice = b'{"alg":"ES256","kid":"ec-1","typ":"at+jwt","typ":"at+jwt"}'
    yield bearer("a header member twice", lab.ec.raw_token(twice, compact(lab.claims())))
    yield bearer(
        "alg twice",
        lab.ec.raw_token(b'{"alg":"none","alg":"ES256","kid":"ec-1","typ":"at+jwt"}', compact(lab.claims())),
    )
    deep = b'{"alg":"ES256","kid":"ec-1","typ":"at+jwt","x":' + b"[" * 100 + b"]" * 100 + b"}"
    yield bearer("a header nested deep", lab.ec.raw_token(deep, compact(lab.claims())))


def claims(lab: Lab) -> Iterator[Case]:
    token = lab.ec.token
    now = int(time.time())

    def raw(payload: bytes) -> str:
        return lab.ec.raw_token(compact({"alg": "ES256", "kid": "ec-1", "typ": "at+jwt"}), payload)

    for iss in (
        f"{ISSUER}/",
        ISSUER.upper(),
        f"{ISSUER}.evil.example",
        f"https://x@{ISSUER[8:]}",
        f"{ISSUER}#",
        f" {ISSUER}",
        ISSUER.replace("https", "http"),
        ISSUER.replace("i", "\u0456"),
        f"{ISSUER}\u0000",
        "",
    ):
        yield bearer(f"iss {iss!r}", token(lab.claims(iss=iss)))
    for value in ([ISSUER], {"iss": ISSUER}, 1, True):
        yield bearer(f"iss is {value!r}", token(lab.claims(iss=value)))
    yield bearer("no iss", token({k: v for k, v in lab.claims().items() if k != "iss"}))
    for aud in (
        "",
        "api",
        AUDIENCE + "/",
        AUDIENCE[:-1],
        AUDIENCE.upper(),
        f"{AUDIENCE} other",
        [],
        [""],
        ["other"],
        [[AUDIENCE]],
        {AUDIENCE: 1},
        1,
        True,
        [AUDIENCE, 1],
    ):
        yield bearer(f"aud is {aud!r}", token(lab.claims(aud=aud)))
    yield bearer("no aud", token({k: v for k, v in lab.claims().items() if k != "aud"}))
    base = lab.claims()
    for name in ("exp", "iat", "nbf"):
        for value in (
            b'"1e99"',
            b"true",
            b"null",
            b"-1",
            b"[]",
            b"{}",
            b"1e400",
            b"1e300",
            b"99999999999999999999",
            b'"x"',
        ):
            payload = compact({k: v for k, v in base.items() if k != name})
            yield bearer(
                f"{name} is {value.decode()}", raw(payload[:-1] + b',"' + name.encode() + b'":' + value + b"}")
            )
        for word in (b"NaN", b"Infinity", b"-Infinity"):
            payload = compact({k: v for k, v in base.items() if k != name})
            yield bearer(f"{name} is {word.decode()}", raw(payload[:-1] + b',"' + name.encode() + b'":' + word + b"}"))
    for name in ("exp", "iat", "sub"):
        yield bearer(f"no {name}", token({k: v for k, v in base.items() if k != name}))
    yield bearer("expired", token(lab.claims(exp=now - 60)))
    yield bearer("expired long ago", token(lab.claims(exp=1)))
    yield bearer("issued in the future", token(lab.claims(iat=now + 600)))
    yield bearer("not valid yet", token(lab.claims(nbf=now + 600)))
    yield bearer("lives for years", token(lab.claims(exp=now + 10 * 365 * 86400)))
    for sub in ("", 1, True, ["alice"], {"a": 1}, "x" * 256):
        yield bearer(f"sub is {str(sub)[:12]!r}", token(lab.claims(sub=sub)))
    for scope in (1, True, {"a": 1}, [1], [""], ["a b"], [["a"]]):
        yield bearer(f"scope is {scope!r}", token(lab.claims(scope=scope)))
    for name in ("jti", "client_id", "sid", "acr", "task", "grant_id", "model", "actor_type"):
        yield bearer(f"{name} is a number", token(lab.claims(**{name: 7})))
    for name in ("nonce", "at_hash", "c_hash"):
        yield bearer(f"an ID token by its {name}", token(lab.claims(**{name: "x"})))
    for amr in ("pwd", [1], {"pwd": 1}):
        yield bearer(f"amr is {amr!r}", token(lab.claims(amr=amr)))
    for cnf in (
        {"jwk": {}},
        {"kid": "x"},
        {"jkt": 1},
        {"jkt": ""},
        {},
        "x",
        ["jkt"],
        {"x5t#S256": None},
        {"jkt": "x" * 43},
    ):
        yield bearer(f"cnf is {str(cnf)[:16]}", token(lab.claims(cnf=cnf)))
    for details in ("x", [1], [{}], [{"type": 1}], {"type": "x"}):
        yield bearer(f"authorization_details is {details!r}", token(lab.claims(authorization_details=details)))
    yield bearer("a claim twice", raw(compact(base)[:-1] + b',"sub":"mallory"}'))
    yield bearer("a claim twice, deep inside", raw(compact(base)[:-1] + b',"x":{"y":[{"z":1,"z":2}]}}'))
    yield bearer("a claim twice by an escape", raw(compact(base)[:-1] + b',"\\u0073ub":"mallory"}'))
    yield bearer("nested too deep", raw(compact(base)[:-1] + b',"x":' + b"[" * 40 + b"]" * 40 + b"}"))
    yield bearer("a bomb of brackets", raw(compact(base)[:-1] + b',"x":' + b"[" * 2900))
    yield bearer("claims with something behind", raw(compact(base) + b"{}"))
    yield bearer("a comment in the claims", raw(compact(base)[:-1] + b"/*x*/}"))
    yield bearer("a trailing comma", raw(compact(base)[:-1] + b",}"))


def tenants(lab: Lab) -> Iterator[Case]:
    token = lab.ec.token
    for tenant in (
        "",
        " ",
        "a b",
        "../acme",
        "acme/../globex",
        "acme\u0000",
        "acme\n",
        "-acme",
        "a" * 129,
        "\uff41cme",
        "*",
        "%",
        "acme'--",
        0,
        1,
        True,
        [],
        ["acme"],
        {"id": "acme"},
        "acme,globex",
    ):
        yield Case(
            f"tenant_id is {str(tenant)[:16]!r}",
            (b"Authorization: Bearer " + token(lab.claims(tenant_id=tenant)).encode(),),
            (403,),
        )
    for name in ("no tenant_id", "tenant_id is null"):
        payload = {k: v for k, v in lab.claims().items() if k != "tenant_id"} | (
            {"tenant_id": None} if "null" in name else {}
        )
        yield Case(name, (b"Authorization: Bearer " + token(payload).encode(),), (403,))
    good = b"Authorization: Bearer " + token(lab.claims()).encode()
    yield Case("control: the tenant repeated", (good, b"X-Tenant-Id: acme"), (200,))
    for value in (b"globex", b"ACME", b"acme,globex", b"\xff", b"*", b"acme globex", b"a" * 200):
        yield Case(f"tenant header {value[:12]!r}", (good, b"X-Tenant-Id: " + value), (403,))
    yield Case("two tenant headers", (good, b"X-Tenant-Id: acme", b"X-Tenant-Id: acme"), (400,), "invalid_request")
    yield Case(
        "control: forged identity headers are hidden", (good, b"X-Tenant_Id: globex", b"X-User-Id: root"), (200,)
    )


def chains(lab: Lab) -> Iterator[Case]:
    def nested(depth: int) -> dict[str, Any]:
        act: dict[str, Any] = {"sub": "actor-0"}
        for number in range(1, depth):
            act = {"sub": f"actor-{number}", "act": act}
        return act

    yield bearer("control: a chain of five", lab.ec.token(lab.claims(act=nested(5))), good=True)
    for name, act in {
        "a chain of six": nested(6),
        "a chain of nine": nested(9),
        "a chain of hundred": nested(15),
        "the subject acts for itself": {"sub": "user-1"},
        "an actor twice": {"sub": "a", "act": {"sub": "b", "act": {"sub": "a"}}},
        "act is a text": "copilot",
        "act is a list": [{"sub": "copilot"}],
        "act has no sub": {"actor_type": "agent"},
        "act has an empty sub": {"sub": ""},
        "act of an unknown type": {"sub": "copilot", "actor_type": "god"},
        "an inner act is a number": {"sub": "copilot", "act": 1},
    }.items():
        yield bearer(name, lab.ec.token(lab.claims(act=act)))


def authorization_headers(lab: Lab) -> Iterator[Case]:
    good = lab.ec.token(lab.claims()).encode()
    other = lab.ec.token(lab.claims(tenant_id="globex", sub="user-2")).encode()
    for name, line in {
        "control: scheme in small letters": b"Authorization: bearer " + good,
        "control: scheme in capitals": b"Authorization: BEARER " + good,
        "control: name in capitals": b"AUTHORIZATION: Bearer " + good,
        "control: several blanks": b"Authorization: Bearer   " + good,
        "control: white space around the value": b"Authorization:  \tBearer " + good + b" \t",
    }.items():
        yield Case(name, (line,), (200,))
    for name, value in {
        "a tab for the blank": b"Bearer\t" + good,
        "two tokens": b"Bearer " + good + b" " + other,
        "two tokens with a comma": b"Bearer " + good + b", Bearer " + other,
        "the scheme alone": b"Bearer",
        "a parameter": b'Bearer token="' + good + b'"',
        "an empty value": b"",
        "a line folded inside": b"Bearer " + good[:20] + b"\x0b" + good[20:],
    }.items():
        yield Case(f"Authorization: {name}", (b"Authorization: " + value,), (400,), "invalid_request", by_server=True)
    for name, value in {
        "no blank": b"Bearer" + good,
        "Basic": b"Basic dXNlcjpwYXNz",
        "the token alone": good,
        "Token": b"Token " + good,
        "MAC": b'MAC id="x"',
        "DPoP where it is not served": b"DPoP " + good,
        "Digest": b'Digest username="x", realm="y"',
    }.items():
        yield Case(f"Authorization: {name}", (b"Authorization: " + value,), (401,), None)
    line = b"Authorization: Bearer "
    yield Case("no credential", (), (401,))
    yield Case("the same token twice", (line + good, line + good), (400,), "invalid_request")
    yield Case("two tokens in two headers", (line + good, line + other), (400,), "invalid_request")
    yield Case("a good and a broken header", (line + good, b"Authorization: Basic x"), (400,), "invalid_request")
    yield Case("an underscore for the name", (b"Authorization_: Bearer " + good,), (401,))
    yield Case("another header's name", (b"X-Authorization: Bearer " + good,), (401,))
    yield Case("a proxy's header", (b"Proxy-Authorization: Bearer " + good,), (401,))
    yield Case("a cookie", (b"Cookie: access_token=" + good,), (401,))
    for size in (9_000, 60_000, 1_000_000):
        yield Case(f"{size:,} characters", (line + b"A" * size,), (400, 401, 431), "invalid_token", by_server=True)
        yield Case(f"{size:,} blanks", (line + b" " * size + good,), (400, 401, 431), "invalid_token", by_server=True)
    yield Case(
        "1 MB of another header", (line + good, b"X-Large: " + b"A" * 1_000_000), (200, 400, 431), None, by_server=True
    )
    yield Case(
        "many headers", (line + good, *(b"X-%d: y" % n for n in range(500))), (200, 400, 431), None, by_server=True
    )
