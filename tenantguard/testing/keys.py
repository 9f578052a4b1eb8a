"""Signing keys of the development issuer: made afresh, held in memory, published as JSON Web Keys.

A key's id is its RFC 7638 thumbprint, so that two keys never share one. Real issuers keep such keys in hardware or in a
key service; these live as long as the process, which is what development and tests want.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from tenantguard.errors import ConfigurationError

__all__ = ["SigningAlgorithm", "SigningKey", "jwk_thumbprint"]

SigningAlgorithm = Literal["ES256", "RS256", "EdDSA"]
"""The algorithms that the development issuer signs with (RFC 7518, section 3.1; RFC 8037, section 3.1)."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}


def jwk_thumbprint(jwk: dict[str, str]) -> str:
    """Return the SHA-256 thumbprint of a public JWK, base64url without padding.

    Args:
        jwk: a key of type EC, RSA or OKP; members beyond the required ones do not count.

    Source: RFC 7638, section 3; RFC 8037, section 2.
    """
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return _base64url(hashlib.sha256(canonical).digest())


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, the algorithm that it signs with, and its public half as a JWK.

    Make one with `SigningKey.generate`.

    Args:
        algorithm: the ``alg`` value.
        private_key: cryptography's key.
        public_jwk: the public key as published, with ``kid``, ``use`` and ``alg``.
    """

    algorithm: SigningAlgorithm
    private_key: PrivateKey = field(repr=False)
    public_jwk: dict[str, str] = field(repr=False, compare=False)

    @classmethod
    def generate(cls, algorithm: SigningAlgorithm = "ES256") -> "SigningKey":
        """Return a new random key.

        Args:
            algorithm: ES256 (P-256), RS256 (2048 bits) or EdDSA (Ed25519).

        Raises:
            ConfigurationError: the algorithm is another.
        """
        private_key: PrivateKey
        if algorithm == "ES256":
            private_key = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "RS256":
            private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif algorithm == "EdDSA":
            private_key = ed25519.Ed25519PrivateKey.generate()
        else:
            raise ConfigurationError(
                "The development issuer can't sign with this algorithm.", mend="Use ES256, RS256 or EdDSA."
            )
        published: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private_key.public_key(), as_dict=True)
        jwk = {name: published[name] for name in _THUMBPRINT_MEMBERS[published["kty"]]}
        jwk |= {"kid": jwk_thumbprint(jwk), "use": "sig", "alg": algorithm}
        return cls(algorithm, private_key, jwk)

    @property
    def kid(self) -> str:
        """The key's id: its RFC 7638 thumbprint."""
        return self.public_jwk["kid"]

    def sign(self, claims: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
        """Return ``claims`` as a compact signed JWT.

        Args:
            claims: the payload, as it is: nothing is added or checked, so that tests can sign nonsense.
            headers: header parameters beside ``alg`` and ``kid``, or instead of them; ``...`` leaves one out.

        Source: RFC 7515, section 7.1.
        """
        header = {"alg": self.algorithm, "kid": self.kid} | (headers or {})
        parts = ({name: value for name, value in header.items() if value is not ...}, claims)
        signing_input = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        # PyJWT's algorithms sign bytes with cryptography's keys; its `encode` would refuse odd headers and claims.
        signature = get_default_algorithms()[self.algorithm].sign(signing_input.encode(), self.private_key)
        return f"{signing_input}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
