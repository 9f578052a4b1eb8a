"""A client that holds a key, and its proofs of that (RFC 9449)."""

import base64
import hashlib
import json
import time
import uuid
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

__all__ = ["Holder"]


class Holder:
    """A client's key, and the proofs that it holds it (RFC 9449)."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.jwk = json.loads(ECAlgorithm.to_jwk(self.private.public_key()))
        self.jwk.pop("key_ops", None)
        members = json.dumps({name: self.jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        self.jkt = _b64(hashlib.sha256(members.encode()).digest())

    def proof(self, method: str, url: str, token: str | None = None, **changes: Any) -> str:
        """Return a proof for one request; a change to ``None`` takes a claim out."""
        claims = {"jti": uuid.uuid4().hex, "htm": method, "htu": url, "iat": int(time.time())}
        claims |= {} if token is None else {"ath": _b64(hashlib.sha256(token.encode()).digest())}
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(claims, self.private, "ES256", headers={"typ": "dpop+jwt", "jwk": self.jwk})

    def headers(self, method: str, url: str, token: str, **changes: Any) -> dict[str, str]:
        """Return the headers of a request with a bound token."""
        return {"authorization": f"DPoP {token}", "dpop": self.proof(method, url, token, **changes)}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
