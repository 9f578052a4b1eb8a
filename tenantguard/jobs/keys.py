"""The keys that job capsules are signed with: one signs, several are accepted, so that they can be changed.

Capsules are signed with Ed25519 (RFC 8037). A key can be given as a secret of at least 32 bytes, from which the key
pair is derived (RFC 5869), as is simple where producers and workers share their settings; or as key objects, so that
workers that only run jobs hold no key that signs.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Any, Final, final

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tenantguard.errors import ConfigurationError

__all__ = ["JobKeys"]

LEAST_SECRET: Final = 32
_CONTEXT: Final = b"tenantguard job capsule v1"


@final
class JobKeys:
    """The keys of job capsules. Thread-safe.

    To change a key: put the new one first and keep the old one in ``accepted`` until the last job that it signed has
    run or expired.

    Args:
        signing: what signs: a secret of at least 32 random bytes, or a private key. ``None`` for workers that only run
            jobs and start none.
        accepted: further keys whose capsules are accepted: secrets or public keys.

    Raises:
        ConfigurationError: a secret is too short, or a key is none; or there is no key at all.
    """

    __slots__ = ("_public", "_signing", "_signing_id")

    def __init__(
        self,
        signing: bytes | Ed25519PrivateKey | None = None,
        *,
        accepted: Iterable[bytes | Ed25519PublicKey] = (),
    ) -> None:
        self._signing = None if signing is None else _private(signing)
        publics = [] if self._signing is None else [self._signing.public_key()]
        publics += [one if isinstance(one, Ed25519PublicKey) else _private(one).public_key() for one in accepted]
        if not publics:
            raise ConfigurationError("JobKeys has no key.", mend='For example JobKeys(os.environb[b"JOB_SECRET"]).')
        self._public = {_key_id(one): one for one in publics}
        self._signing_id = None if self._signing is None else _key_id(self._signing.public_key())

    @property
    def public_jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JSON Web Key Set, for a token service that accepts assertions of jobs (RFC 7517)."""
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": _b64(_raw(key)), "kid": key_id, "alg": "EdDSA", "use": "sig"}
                for key_id, key in self._public.items()
            ]
        }

    def sign(self, claims: dict[str, Any], typ: str) -> str:
        """Return ``claims`` as a signed JWT.

        Args:
            claims: the payload.
            typ: the ``typ`` of its header.

        Raises:
            ConfigurationError: there is no key that signs.
        """
        if self._signing is None:
            raise ConfigurationError(
                "JobKeys has no key that signs, so no job can be started here.", mend="Give JobKeys(signing=...)."
            )
        return jwt.encode(claims, self._signing, "EdDSA", headers={"typ": typ, "kid": self._signing_id})

    def verify(self, key_id: str, signing_input: bytes, signature: bytes) -> bool:
        """Return True if one of the accepted keys made the signature."""
        key = self._public.get(key_id)
        if key is None:
            return False
        try:
            key.verify(signature, signing_input)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"JobKeys(signs={self._signing is not None}, accepts={len(self._public)})"


def _private(key: object) -> Ed25519PrivateKey:
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, bytes) or len(key) < LEAST_SECRET:
        raise ConfigurationError(
            f"A job key is neither an Ed25519 key nor a secret of at least {LEAST_SECRET} bytes.",
            mend='Make one with python -c "import secrets; print(secrets.token_hex(32))".',
        )
    seed = HKDF(SHA256(), 32, salt=None, info=_CONTEXT).derive(key)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _key_id(key: Ed25519PublicKey) -> str:
    """The RFC 7638 thumbprint, so that two keys never share an id (RFC 8037, section 2)."""
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{_b64(_raw(key))}"}}'
    return _b64(hashlib.sha256(canonical.encode()).digest())


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
