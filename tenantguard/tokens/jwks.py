"""JSON Web Key Sets (RFC 7517) as immutable sets of keys that may verify signatures.

A key that must not verify is left out when the set is parsed, with a warning that never holds key material: too short
RSA moduli, keys for encryption, keys whose ``alg``, curve and type disagree, symmetric and private keys in a published
set, moduli with the ROCA weakness (CVE-2017-15361). What is left needs no further checks when a token comes in.
"""

import hashlib
import logging
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from tenantguard.errors import ConfigurationError
from tenantguard.tokens.algorithms import ALGORITHMS

__all__ = ["MAX_KEYS", "KeySet", "StaticKeys", "VerificationKey", "parse_key_set", "secret_key_set"]

logger = logging.getLogger("tenantguard.tokens")

MAX_KEYS: Final = 256
"""Most keys of one set that are looked at. Real sets have two to ten."""
MINIMUM_RSA_BITS: Final = 2048
"""Shortest RSA modulus (RFC 7518, section 3.3)."""
MAXIMUM_RSA_BITS: Final = 8192
"""Longest RSA modulus: an issuer must not be able to make each verification cost milliseconds."""
MAX_KEY_ID_LENGTH: Final = 512
_PEM_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "RSA": (rsa.RSAPublicKey,),
    "EC": (ec.EllipticCurvePublicKey,),
    "OKP": (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
}

_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_ROCA_RESIDUES: Final = tuple((p, frozenset(pow(65537, k, p) for k in range(p - 1))) for p in _ROCA_PRIMES)


@final
class VerificationKey:
    """One key that may verify.

    Args:
        thumbprint: RFC 7638 thumbprint for public keys; names the key in the verified-token cache.
        kid: the key's id, where it has one.
        algorithms: the ``alg`` values that it may verify.
        key: cryptography's key, or the bytes of a secret.
    """

    __slots__ = ("_key", "algorithms", "kid", "thumbprint")

    def __init__(self, *, thumbprint: str, kid: str | None, algorithms: frozenset[str], key: Any) -> None:
        self.thumbprint = thumbprint
        self.kid = kid
        self.algorithms = algorithms
        self._key = key

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """True if this key may verify ``algorithm`` and the signature is good."""
        return algorithm in self.algorithms and ALGORITHMS[algorithm].verify(signing_input, self._key, signature)

    def __repr__(self) -> str:
        return f"VerificationKey({'/'.join(sorted(self.algorithms))})"


@final
class KeySet:
    """An immutable set of keys, found by key id and algorithm.

    Two keys with one id that fit the same algorithm make that id ambiguous; neither is used then
    (RFC 7517, section 4.5 wants distinct ids).
    """

    __slots__ = ("_by_kid", "keys", "thumbprints")

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self.thumbprints = frozenset(key.thumbprint for key in self.keys)
        by_kid: dict[tuple[str, str], VerificationKey | None] = {}
        for key in self.keys:
            if key.kid is None:
                continue
            for algorithm in key.algorithms:
                slot = (key.kid, algorithm)
                if slot in by_kid:
                    logger.warning("A key set has two %s keys with the same key id; neither is used.", algorithm)
                    by_kid[slot] = None
                else:
                    by_kid[slot] = key
        self._by_kid = by_kid

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key for a token's ``kid`` and ``alg``, or ``None``.

        A token without ``kid``, or a set without any, is matched only where one key alone fits the algorithm:
        trying every key would let a forged token cost many verifications.
        """
        if kid is not None and self._by_kid:
            return self._by_kid.get((kid, algorithm))
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    def has_kid(self, kid: str) -> bool:
        """True if some key has this id, whatever its algorithm."""
        return any(key.kid == kid for key in self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"KeySet({len(self.keys)} keys)"


class _Jwk(msgspec.Struct, frozen=True):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    key_ops: list[str] | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None
    d: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    k: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Jwks(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


_LOADERS: Final[dict[str, Any]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
_set_decoder: Final = msgspec.json.Decoder(_Jwks)
_key_decoder: Final = msgspec.json.Decoder(_Jwk)


class _Unusable(Exception):
    """Why a key is left out; the text holds no key material."""


def parse_key_set(document: bytes, *, issuer: str) -> KeySet:
    """Return the keys of a JWKS document that may verify signatures.

    Args:
        document: the JSON text.
        issuer: whose keys they are, for the warnings about keys that are left out.

    Raises:
        ValueError: the document is no JWKS or has more than 256 keys.

    Source: RFC 7517, section 5.
    """
    try:
        raw_keys = _set_decoder.decode(document).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("The document is no JSON Web Key Set.") from None
    if len(raw_keys) > MAX_KEYS:
        raise ValueError(f"The key set has {len(raw_keys)} keys, at most {MAX_KEYS} are allowed.")
    keys = []
    for index, raw in enumerate(raw_keys):
        try:
            keys.append(_parse_key(bytes(raw)))
        except _Unusable as fault:
            logger.warning("Key %d of issuer %s is ignored: %s", index, issuer, fault)
    return KeySet(keys)


def _parse_key(document: bytes) -> VerificationKey:
    try:
        jwk = _key_decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Unusable("it is no JSON Web Key") from None
    if jwk.kty == "oct" or jwk.k is not msgspec.UNSET:
        raise _Unusable("it is a symmetric key, which a published set must not hold")
    if jwk.d is not msgspec.UNSET:
        raise _Unusable("it is a private key, which the issuer must withdraw")
    if jwk.use is not None and jwk.use != "sig":
        raise _Unusable("its use is not sig")
    if jwk.key_ops is not None and "verify" not in jwk.key_ops:
        raise _Unusable("its key_ops lack verify")
    if jwk.kid is not None and len(jwk.kid) > MAX_KEY_ID_LENGTH:
        raise _Unusable(f"its key id is longer than {MAX_KEY_ID_LENGTH} characters")
    fitting = frozenset(
        name
        for name, algorithm in ALGORITHMS.items()
        if algorithm.key_type == jwk.kty and (not algorithm.curves or jwk.crv in algorithm.curves)
    )
    if jwk.alg is not None:
        # RFC 9864 renamed EdDSA per curve; a key published under either name fits both.
        names = {jwk.alg, "EdDSA"} if jwk.alg in ("Ed25519", "Ed448") else {jwk.alg}
        if jwk.alg == "EdDSA":
            names |= {"Ed25519", "Ed448"}
        fitting &= names
    if not fitting:
        raise _Unusable("its type, curve and algorithm fit no supported signature algorithm")
    members = {name: getattr(jwk, name) for name in ("kty", "crv", "n", "e", "x", "y")}
    key = _public_key({name: value for name, value in members.items() if value is not None})
    return VerificationKey(thumbprint=_thumbprint(jwk), kid=jwk.kid, algorithms=fitting, key=key)


def _public_key(jwk: dict[str, Any]) -> Any:
    loader = _LOADERS[jwk["kty"]]
    try:
        key = loader.from_jwk(jwk)
    except (InvalidKeyError, ValueError, TypeError):
        raise _Unusable("its numbers are missing or not valid for its type and curve") from None
    if isinstance(key, rsa.RSAPublicKey):
        _check_rsa(key)
    return key


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    if not MINIMUM_RSA_BITS <= key.key_size <= MAXIMUM_RSA_BITS:
        raise _Unusable(f"its modulus has {key.key_size} bits, not {MINIMUM_RSA_BITS} to {MAXIMUM_RSA_BITS}")
    modulus = key.public_numbers().n
    if all(modulus % prime in residues for prime, residues in _ROCA_RESIDUES):
        raise _Unusable("its modulus has the ROCA weakness (CVE-2017-15361)")


def _thumbprint(jwk: _Jwk) -> str:
    required = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}[jwk.kty]
    canonical = msgspec.json.encode({name: getattr(jwk, name) for name in required})
    return b2a_base64(hashlib.sha256(canonical).digest(), newline=False).decode()


def secret_key_set(secret: bytes, algorithms: Iterable[str]) -> KeySet:
    """Return the set of the one secret that an issuer is declared with, for the HMAC algorithms among ``algorithms``.

    Raises:
        ConfigurationError: the secret is shorter than an algorithm's hash (RFC 7518, section 3.2).
    """
    names = frozenset(name for name in algorithms if ALGORITHMS[name].key_type == "oct")
    needed = max((ALGORITHMS[name].minimum_secret for name in names), default=0)
    if len(secret) < needed:
        raise ConfigurationError(
            f"The secret has {len(secret)} bytes, {'/'.join(sorted(names))} needs at least {needed}.",
            mend="Make one with secrets.token_bytes(64).",
        )
    # The name is a digest of a digest: it tells nothing that helps to guess the secret offline any faster.
    name = hashlib.sha256(b"tenantguard secret key name" + hashlib.sha256(secret).digest()).hexdigest()
    return KeySet([VerificationKey(thumbprint=f"secret:{name}", kid=None, algorithms=names, key=secret)])


@final
class StaticKeys:
    """Public keys that are pinned in the configuration: no network is ever used for their issuer.

    Args:
        jwks: a JSON Web Key Set: a mapping ``{"keys": [...]}`` or its JSON text.

    Raises:
        ConfigurationError: it is no key set, or a key of it may not verify. Pinned keys are all meant,
            so one that would be ignored is a mistake.
    """

    __slots__ = ("key_set",)

    def __init__(self, jwks: Mapping[str, Any] | str | bytes) -> None:
        mend = 'Pass the public keys as {"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", ...}]}.'
        try:
            text = msgspec.json.encode(jwks) if isinstance(jwks, Mapping) else jwks
            raw_keys = _set_decoder.decode(text).keys
            self.key_set = KeySet([_parse_key(bytes(raw)) for raw in raw_keys])
        except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError):
            raise ConfigurationError("The pinned keys are no JSON Web Key Set.", mend=mend) from None
        except _Unusable as fault:
            raise ConfigurationError(f"A pinned key can't be used: {fault}.", mend=mend) from None
        if not self.key_set.keys:
            raise ConfigurationError("The pinned key set is empty.", mend=mend)

    @classmethod
    def from_pem(cls, pem: str | bytes, *, kid: str | None = None) -> "StaticKeys":
        """Return the set of one public key in PEM form (RFC 7468, section 13).

        Raises:
            ConfigurationError: it is no public key, or one that may not verify.
        """
        try:
            key: PublicKeyTypes = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
        except ValueError:
            raise ConfigurationError(
                "The PEM text is no public key.", mend="It starts with -----BEGIN PUBLIC KEY-----."
            ) from None
        kind = next((name for name, kinds in _PEM_TYPES.items() if isinstance(key, kinds)), None)
        if kind is None:
            raise ConfigurationError("The PEM key is neither RSA, EC nor EdDSA.", mend="Use an RSA, EC or EdDSA key.")
        jwk = dict(_LOADERS[kind].to_jwk(key, as_dict=True))
        if kid is not None:
            jwk["kid"] = kid
        return cls({"keys": [jwk]})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticKeys) and self._names() == other._names()

    def __hash__(self) -> int:
        return hash(self._names())

    def _names(self) -> frozenset[tuple[str | None, str, frozenset[str]]]:
        return frozenset((key.kid, key.thumbprint, key.algorithms) for key in self.key_set.keys)

    def __repr__(self) -> str:
        return f"StaticKeys({len(self.key_set)} keys)"
