"""Clients that hold a DPoP key: real keys, and proofs of any shape made from them."""

import base64
import hashlib
import json
import time
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from tenantguard.errors import InvalidProof
from tenantguard.identity import Actor, ActorType, Confirmation, Identity, Tenant
from tenantguard.tokens.dpop import DPoP, Possession

__all__ = ["TOKEN", "URL", "Clock", "Prover", "bound_identity", "check", "proof", "refused"]

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c2VyLTEifQ.c2lnbmF0dXJl"
URL = "https://api.example.com/documents"
_ALGORITHMS = get_default_algorithms()
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class Prover:
    """A client with a key of its own.

    Args:
        algorithm: the ``alg`` of its proofs.
        private: its key; by default one that fits the algorithm.
    """

    def __init__(self, algorithm: str = "ES256", private: Any = None) -> None:
        self.algorithm = algorithm
        self.private = private or _new_key(algorithm)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, with the members that RFC 7638 wants and no others."""
        public = self.private.public_key()
        for loader, kinds in (
            (RSAAlgorithm, rsa.RSAPublicKey),
            (ECAlgorithm, ec.EllipticCurvePublicKey),
            (OKPAlgorithm, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)),
        ):
            if isinstance(public, kinds):
                whole = loader.to_jwk(public, as_dict=True)
                return {name: whole[name] for name in _MEMBERS[whole["kty"]]}
        raise AssertionError

    @property
    def jkt(self) -> str:
        """The key's thumbprint."""
        return _b64(hashlib.sha256(json.dumps(self.jwk, sort_keys=True, separators=(",", ":")).encode()).digest())

    def sign(self, header: bytes, payload: bytes) -> bytes:
        """Return a proof of any header and payload, well signed."""
        signing_input = f"{_b64(header)}.{_b64(payload)}"
        name = {"Ed25519": "EdDSA", "Ed448": "EdDSA"}.get(self.algorithm, self.algorithm)
        signature = _ALGORITHMS[name].sign(signing_input.encode(), self.private)
        return f"{signing_input}.{_b64(signature)}".encode()

    def header(self, **changes: Any) -> dict[str, Any]:
        """A good header; a change to ``None`` takes a member out."""
        return _changed({"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk}, changes)

    def claims(self, token: str, method: str, url: str, **changes: Any) -> dict[str, Any]:
        """Good claims; a change to ``None`` takes one out."""
        claims = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "ath": _b64(hashlib.sha256(token.encode()).digest()),
        }
        return _changed(claims, changes)

    def proof(
        self, token: str, method: str, url: str, *, header: dict[str, Any] | None = None, **changes: Any
    ) -> bytes:
        """Return a proof for one request, the value of its DPoP header.

        Args:
            token: the access token.
            method: the request's method.
            url: its URI.
            header: changes to the header.
            changes: changes to the claims.
        """
        claims = self.claims(token, method, url, **changes)
        return self.sign(_compact(self.header(**(header or {}))), _compact(claims))


def _changed(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (whole | changes).items() if value is not None}


def _new_key(algorithm: str) -> Any:
    curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm]())
    if algorithm in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def bound_identity(jkt: str | None, **confirmation: Any) -> Identity:
    """Return a person's identity whose token is bound to a key, or to none."""
    person = Actor("user-1", ActorType.HUMAN, issuer="https://idp.example.com")
    bound = Confirmation(jkt=jkt, **confirmation) if jkt or confirmation else None
    return Identity(subject=person, actor=person, tenant=Tenant("acme"), confirmation=bound)


PROVER = Prover()
"""The client of `proof` and `check`."""


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


def proof(**changes: Any) -> bytes:
    """Return a good proof of `PROVER` for GET `URL`, or one with changes."""
    return PROVER.proof(TOKEN, "GET", URL, **changes)


async def check(dpop: DPoP, *proofs: bytes, identity: Identity | None = None, **request: Any) -> Possession | None:
    """Check a request for GET `URL` with a token that is bound to the key of `PROVER`, or another one."""
    asked = {"token": TOKEN, "method": "GET", "url": URL} | request
    return await dpop.check(proofs=proofs, identity=identity or bound_identity(PROVER.jkt), **asked)


async def refused(dpop: DPoP, *proofs: bytes, **request: Any) -> str:
    """Return the reason for which a request is refused, by an error that shows nothing of its proofs."""
    with pytest.raises(InvalidProof) as caught:
        await check(dpop, *proofs, **request)
    error = caught.value
    shown = f"{error!r} {error} {error.detail}"
    assert not any(len(part) > 12 and part in shown for one in proofs for part in one.decode("latin-1").split("."))
    assert error.status == 401
    return error.reason
