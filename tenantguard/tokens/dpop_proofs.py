"""The form of a DPoP proof (RFC 9449, section 4.2): a signed token whose header brings its own key.

That a token may choose its key is what `jwt.py` never allows, so a proof has a header of its own here, which wants the
key in ``jwk`` and takes it from nowhere else. Such a key proves nothing by itself: it counts only because the access
token names its thumbprint. Sizes come before parsing; a member that stands twice, or anything nested, is refused.
No error text ever holds a part of the proof.
"""

import json
import threading
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections import OrderedDict
from math import isfinite
from typing import Any, Final, NoReturn, final

import msgspec

from tenantguard.errors import ConfigurationError, InvalidProof, InvalidToken
from tenantguard.tokens.algorithms import ALGORITHMS
from tenantguard.tokens.jwks import StaticKeys, VerificationKey
from tenantguard.tokens.jwt import LATEST_TIME, split_compact

__all__ = ["MAX_PROOF_LENGTH", "Proof", "ProofClaims", "ProofKeys", "parse_proof"]

MAX_PROOF_LENGTH: Final = 8192
"""Longest proof in bytes."""
MAX_JTI_LENGTH: Final = 256
"""Longest ``jti`` in characters: a UUID has 36."""
MAX_STRUCTURES: Final = 20
"""Most objects and arrays in header or claims: a header has two objects and, with ``key_ops``, an array."""
MAX_CACHED_HEADER: Final = 2048
"""Longest header in bytes that is remembered: that of an RSA key of 8192 bits has 1500."""

_TYPE: Final = "dpop+jwt"
_PUBLIC_MEMBERS: Final = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("e", "n")}
_PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_FORBIDDEN_HEADERS: Final = ("crit", "b64", "jku", "x5u", "x5c", "x5t", "x5t#S256", "zip", "enc")
_LONGEST_EXPONENT: Final = 6
"""Longest ``e`` in base64url, for 32 bits: a long exponent makes a verification cost as much as signing."""
_TO_STANDARD: Final = bytes.maketrans(b"-_+/", b"+/**")
_TO_URL: Final = str.maketrans("+/", "-_", "=")
_FAULTS: Final = (msgspec.DecodeError, ValueError, RecursionError)
_MEND: Final = "Make a new proof for each request (RFC 9449, section 4.2)."


class ProofClaims(msgspec.Struct, frozen=True, gc=False):
    """The claims of a proof.

    Args:
        jti: its unique id.
        htm: the method of the request.
        htu: the URI of the request.
        iat: when it was made, in seconds since the epoch.
        ath: the digest of the access token.
        nonce: the server's nonce, where it asked for one.
    """

    jti: str
    htm: str
    htu: str
    iat: float
    ath: str
    nonce: str | None = None


@final
class ProofKey(msgspec.Struct, frozen=True, gc=False):
    """What a proof's header comes to.

    Args:
        algorithm: its ``alg``.
        key: the key, which fits the algorithm.
        thumbprint: the key's RFC 7638 thumbprint, as ``cnf.jkt`` has it.
    """

    algorithm: str
    key: VerificationKey
    thumbprint: str


class Proof(msgspec.Struct, frozen=True, gc=False):
    """A proof whose form is sound and of which nothing is verified yet.

    Args:
        key: what its header comes to.
        claims: its claims.
        header_json: the header's JSON text.
        signing_input: what the signature is over.
        signature: the signature.
    """

    key: ProofKey
    claims: ProofClaims
    header_json: bytes
    signing_input: bytes
    signature: bytes

    def is_signed(self) -> bool:
        """True if the signature is good under the proof's own key."""
        return self.key.key.verify(self.key.algorithm, self.signing_input, self.signature)


_object_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_encode: Final = msgspec.json.Encoder().encode


def _refuse(message: str, reason: str) -> NoReturn:
    raise InvalidProof(message, reason=reason, mend=_MEND) from None


def parse_proof(proof: bytes, keys: "ProofKeys") -> Proof:
    """Parse a proof.

    Args:
        proof: the value of the DPoP header.
        keys: knows the keys that were seen before, and the algorithms that are allowed.

    Raises:
        InvalidProof: it is too long, malformed, or of another type or algorithm; its key is missing, private, weak or
            does not fit; a claim is missing or of another kind.

    Source: RFC 9449, sections 4.2 and 4.3, checks 2 to 5 and 7.
    """
    if len(proof) > MAX_PROOF_LENGTH:
        _refuse(f"The DPoP proof is longer than {MAX_PROOF_LENGTH} bytes.", "size")
    try:
        header_json, payload, signing_input, signature = split_compact(proof.decode("ascii"))
    except (UnicodeDecodeError, InvalidToken):
        _refuse("The DPoP proof is not three parts of canonical base64url with dots between.", "malformed")
    key = keys.get(header_json) or _parse_header(header_json, keys.algorithms)
    return Proof(key, _parse_claims(payload), header_json, signing_input, signature)


def _parse_object(text: bytes, what: str) -> dict[str, Any]:
    if text.count(b"{") + text.count(b"[") > MAX_STRUCTURES:
        _refuse(f"The DPoP proof's {what} has more than {MAX_STRUCTURES} objects and arrays.", "nesting")
    try:
        decoded = _object_decoder.decode(text)
    except _FAULTS:
        _refuse(f"The DPoP proof's {what} is no JSON object.", "malformed")
    # Compact JSON comes out as it went in unless a member repeats; for any other, the slow way looks at each member.
    if _encode(decoded) != text:
        try:
            json.loads(text, object_pairs_hook=_refuse_duplicates)
        except _FAULTS:
            _refuse(f"The DPoP proof's {what} has a JSON member twice.", "duplicate")
    return decoded


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _parse_claims(payload: bytes) -> ProofClaims:
    try:
        claims = msgspec.convert(_parse_object(payload, "payload"), ProofClaims)
    except msgspec.ValidationError:
        _refuse("The DPoP proof lacks jti, htm, htu, iat or ath, or has one of another kind.", "claims")
    if not 0 < len(claims.jti) <= MAX_JTI_LENGTH:
        _refuse(f"The DPoP proof's jti does not have 1 to {MAX_JTI_LENGTH} characters.", "claims")
    if not (isfinite(claims.iat) and 0 <= claims.iat <= LATEST_TIME):
        _refuse("The DPoP proof's iat is no time in seconds.", "claims")
    return claims


# --- the header and its key ------------------------------------------------------------------------------


def _parse_header(text: bytes, algorithms: frozenset[str]) -> ProofKey:
    header = _parse_object(text, "header")
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            _refuse(f"The DPoP proof's header has {name}, which is never accepted.", "header")
    if header.get("typ") != _TYPE:
        _refuse(f"The DPoP proof's typ is not {_TYPE}.", "type")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        _refuse("The DPoP proof's algorithm is not allowed.", "algorithm")
    jwk = header.get("jwk")
    if not isinstance(jwk, dict):
        _refuse("The DPoP proof's header has no jwk with its public key.", "key")
    key = _load_key(jwk)
    if algorithm not in key.algorithms:
        _refuse("The DPoP proof's key does not fit its algorithm.", "key")
    return ProofKey(algorithm, key, key.thumbprint.translate(_TO_URL))


def _load_key(jwk: dict[str, Any]) -> VerificationKey:
    if any(name in jwk for name in _PRIVATE_MEMBERS):
        _refuse("The DPoP proof's jwk holds a private key, which must be thrown away now.", "key")
    kind = jwk.get("kty")
    names = _PUBLIC_MEMBERS.get(kind) if isinstance(kind, str) else None
    if names is None:
        _refuse("The DPoP proof's jwk is no EC, OKP or RSA key.", "key")
    numbers = [_decode_number(jwk.get(name)) for name in names if name != "crv"]
    if not all(numbers) or (kind == "RSA" and any(number[0] == 0 for number in numbers)):
        _refuse("The DPoP proof's jwk lacks a number, or writes one in another way than RFC 7518 does.", "key")
    if kind == "RSA" and len(jwk["e"]) > _LONGEST_EXPONENT:
        _refuse("The DPoP proof's RSA key has an exponent of more than 32 bits.", "key")
    try:
        return StaticKeys({"keys": [jwk]}).key_set.keys[0]
    except ConfigurationError:
        _refuse("The DPoP proof's jwk is no key that may verify signatures: its numbers, length or use.", "key")


def _decode_number(text: object) -> bytes:
    """Return the bytes of base64url in its one spelling, so that a key has one thumbprint; none for anything else."""
    if not isinstance(text, str):
        return b""
    try:
        raw = a2b_base64(text.encode("ascii").translate(_TO_STANDARD) + b"=" * (-len(text) % 4), strict_mode=True)
    except (UnicodeEncodeError, Base64Error):
        return b""
    return raw if b2a_base64(raw, newline=False).decode().translate(_TO_URL) == text else b""


@final
class ProofKeys:
    """The keys of the proofs that were good, by their header's bytes: a client repeats them with every request.

    Thread-safe. The one that was not used for longest goes first.

    Args:
        algorithms: the ``alg`` values that are allowed.
        size: most keys.
    """

    __slots__ = ("_keys", "_lock", "algorithms", "size")

    def __init__(self, algorithms: frozenset[str], size: int = 1024) -> None:
        self.algorithms: Final = frozenset(name for name in algorithms if ALGORITHMS[name].key_type != "oct")
        self.size: Final = size
        self._lock = threading.Lock()
        self._keys: OrderedDict[bytes, ProofKey] = OrderedDict()

    def get(self, header_json: bytes) -> ProofKey | None:
        """Return what a header comes to, if it was seen before."""
        with self._lock:
            found = self._keys.get(header_json)
            if found is not None:
                self._keys.move_to_end(header_json)
            return found

    def put(self, proof: Proof) -> None:
        """Keep the key of a proof whose signature is good; others would push the good ones out."""
        if len(proof.header_json) > MAX_CACHED_HEADER:
            return
        with self._lock:
            self._keys[proof.header_json] = proof.key
            if len(self._keys) > self.size:
                self._keys.popitem(last=False)

    def __len__(self) -> int:
        return len(self._keys)
