"""What a token costs that was not seen before: raw signature verification, PyJWT with claims by hand, and the verifier.

PyJWT's side is what its users write: ``jwt.decode`` with the key, and an identity made of the claims by hand.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_decode, raw_to_der_signature

from benchmarks.harness import compare
from tenantguard import Actor, ActorType, Identity, Issuer, Tenant, TokenVerifier
from tenantguard.tokens import StaticKeys

AUDIENCE = "https://api.example.com"
TOKENS = 200


def claims(issuer: str, number: int) -> dict[str, object]:
    now = int(time.time())
    return {
        "iss": issuer,
        "sub": f"user-{number}",
        "aud": AUDIENCE,
        "exp": now + 3600,
        "iat": now,
        "jti": f"token-{number}",
        "client_id": "web",
        "scope": "documents:read documents:write",
        "tenant_id": "acme",
        "sid": f"session-{number}",
    }


def run_now(verify: Callable[[str], object], tokens: Iterator[str]) -> Callable[[], None]:
    """Return a function that verifies one token, which must not wait for anything."""

    def run() -> None:
        try:
            verify(next(tokens)).send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        raise RuntimeError("the verification waited for something")

    return run


def by_pyjwt(token: str, key: object, algorithm: str, issuer: str) -> Identity:
    decoded = jwt.decode(
        token,
        key,  # type: ignore[arg-type]
        algorithms=[algorithm],
        audience=AUDIENCE,
        issuer=issuer,
        options={"require": ["exp", "iat", "sub", "aud", "iss"]},
    )
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise ValueError
    person = Actor(decoded["sub"], ActorType.HUMAN, decoded["iss"], decoded["client_id"])
    return Identity(
        subject=person,
        actor=person,
        tenant=Tenant(decoded["tenant_id"]),
        scopes=frozenset(decoded["scope"].split()),
        issuer=decoded["iss"],
        token_id=decoded["jti"],
        session_id=decoded["sid"],
        expires_at=decoded["exp"],
    )


def raw(key: object, algorithm: str, token: str) -> Callable[[], object]:
    signing_input, _, signature = token.encode().rpartition(b".")
    decoded = base64url_decode(signature)
    if algorithm == "RS256":
        return lambda: key.verify(decoded, signing_input, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[attr-defined]
    if algorithm == "ES256":
        der = raw_to_der_signature(decoded, ec.SECP256R1())
        return lambda: key.verify(der, signing_input, ec.ECDSA(hashes.SHA256()))  # type: ignore[attr-defined]
    return lambda: key.verify(decoded, signing_input)  # type: ignore[attr-defined]


def cold_costs() -> dict[str, dict[str, float]]:
    """Microseconds by algorithm: raw verification, the verifier without its cache, PyJWT with claims by hand."""
    issuer = "https://idp.example.com"
    keys = {
        "RS256": (rsa.generate_private_key(65537, 2048), RSAAlgorithm),
        "ES256": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
        "EdDSA": (ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
    }
    costs = {}
    for algorithm, (private, kind) in keys.items():
        public = private.public_key()
        jwk = json.loads(kind.to_jwk(public)) | {"kid": "one", "alg": algorithm, "use": "sig"}
        jwk.pop("key_ops", None)
        header = {"kid": "one", "typ": "at+jwt"}
        tokens = [jwt.encode(claims(issuer, n), private, algorithm=algorithm, headers=header) for n in range(TOKENS)]
        pinned = Issuer(issuer, audience=AUDIENCE, algorithms=[algorithm], jwks=StaticKeys({"keys": [jwk]}))
        verifier = TokenVerifier([pinned], cache_size=0)
        again = cycle(tokens)
        costs[algorithm] = compare(
            {
                "raw signature verification": raw(public, algorithm, tokens[0]),
                "tenantguard": run_now(verifier.verify, cycle(tokens)),
                "PyJWT and claims by hand": lambda p=public, a=algorithm, t=again: by_pyjwt(next(t), p, a, issuer),
            }
        )
    return costs


def issuer_costs(counts: tuple[int, ...] = (1, 100, 10_000)) -> dict[str, float]:
    """Microseconds of a token that was not seen before, by the number of declared issuers."""
    private = ed25519.Ed25519PrivateKey.generate()
    jwk = json.loads(OKPAlgorithm.to_jwk(private.public_key())) | {"kid": "one", "alg": "EdDSA", "use": "sig"}
    jwk.pop("key_ops", None)
    pinned = StaticKeys({"keys": [jwk]})
    runs = {}
    for count in counts:
        names = [f"https://idp-{number}.example.com" for number in range(count)]
        verifier = TokenVerifier(
            [Issuer(name, audience=AUDIENCE, algorithms=["EdDSA"], jwks=pinned) for name in names], cache_size=0
        )
        header = {"kid": "one", "typ": "at+jwt"}
        spread = [names[number * count // TOKENS] for number in range(TOKENS)]
        tokens = [
            jwt.encode(claims(name, number), private, algorithm="EdDSA", headers=header)
            for number, name in enumerate(spread)
        ]
        runs[f"{count:,} issuers"] = run_now(verifier.verify, cycle(tokens))
    return compare(runs)


def hostile_costs() -> dict[str, float]:
    """Microseconds until a token is refused that is too long, or that nobody signed."""
    private = ed25519.Ed25519PrivateKey.generate()
    jwk = json.loads(OKPAlgorithm.to_jwk(private.public_key())) | {"kid": "one", "alg": "EdDSA", "use": "sig"}
    jwk.pop("key_ops", None)
    issuer = "https://idp.example.com"
    verifier = TokenVerifier(
        [Issuer(issuer, audience=AUDIENCE, algorithms=["EdDSA"], jwks=StaticKeys({"keys": [jwk]}))], cache_size=0
    )
    header = {"kid": "one", "typ": "at+jwt"}
    good = jwt.encode(claims(issuer, 1), private, algorithm="EdDSA", headers=header)
    forger = ed25519.Ed25519PrivateKey.generate()
    forged = [jwt.encode(claims(issuer, n), forger, algorithm="EdDSA", headers=header) for n in range(TOKENS)]
    padded = {**claims(issuer, 1), "pad": "x" * 5500}
    long = jwt.encode(padded, forger, algorithm="EdDSA", headers=header)

    def refused(token: Iterator[str]) -> Callable[[], None]:
        def run() -> None:
            try:
                verifier.verify(next(token)).send(None)
            except Exception:  # noqa: BLE001 - the refusal itself
                return
            raise RuntimeError("a forged token was accepted")

        return run

    return compare(
        {
            "raw signature verification": raw(private.public_key(), "EdDSA", good),
            "forged signature": refused(cycle(forged)),
            "forged, 8 kB of claims": refused(cycle([long])),
            "60 kB": refused(cycle(["x" * 60_000])),
        }
    )
