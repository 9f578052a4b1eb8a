"""The signature algorithms that an issuer may be declared to use, and what a key must be to fit each.

The names are those of RFC 7518 section 3.1, RFC 8037 section 3.1 and RFC 9864. The signing itself is PyJWT's, over
cryptography's keys. ``none`` is not in the table, so it can't be allowed by mistake (RFC 8725, section 3.2), and each
name fits one type of key and one curve, so that a key can't be used under another algorithm (section 3.1).
"""

from dataclasses import dataclass
from typing import Any, Final

from jwt.algorithms import Algorithm, get_default_algorithms

__all__ = ["ALGORITHMS", "DEFAULT_ALGORITHMS", "SignatureAlgorithm"]


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """One algorithm.

    Args:
        name: the ``alg`` value.
        key_type: the ``kty`` that fits.
        curves: the ``crv`` values that fit; empty for key types without curves.
        minimum_secret: for HMAC, the least length of the secret in bytes (RFC 7518, section 3.2).
        implementation: PyJWT's algorithm.
    """

    name: str
    key_type: str
    curves: frozenset[str]
    minimum_secret: int
    implementation: Algorithm

    def verify(self, signing_input: bytes, key: Any, signature: bytes) -> bool:
        """True if the signature is good. A signature of the wrong length is merely wrong."""
        try:
            return self.implementation.verify(signing_input, key, signature)
        except ValueError:
            return False


def _table() -> dict[str, SignatureAlgorithm]:
    known = get_default_algorithms()
    rows: list[tuple[str, str, str, tuple[str, ...], int]] = [
        *((f"{family}{bits}", f"{family}{bits}", "RSA", (), 0) for family in ("RS", "PS") for bits in (256, 384, 512)),
        ("ES256", "ES256", "EC", ("P-256",), 0),
        ("ES384", "ES384", "EC", ("P-384",), 0),
        ("ES512", "ES512", "EC", ("P-521",), 0),
        ("EdDSA", "EdDSA", "OKP", ("Ed25519", "Ed448"), 0),
        ("Ed25519", "EdDSA", "OKP", ("Ed25519",), 0),
        ("Ed448", "EdDSA", "OKP", ("Ed448",), 0),
        *((f"HS{bits}", f"HS{bits}", "oct", (), bits // 8) for bits in (256, 384, 512)),
    ]
    return {
        name: SignatureAlgorithm(name, key_type, frozenset(curves), minimum, known[implementation])
        for name, implementation, key_type, curves, minimum in rows
    }


ALGORITHMS: Final = _table()
"""Every algorithm that can be allowed, by its ``alg`` value."""

DEFAULT_ALGORITHMS: Final = tuple(name for name, algorithm in ALGORITHMS.items() if algorithm.key_type != "oct")
"""What an issuer may use unless declared: the asymmetric algorithms."""
