"""The checks of one signed token: JWS compact form (RFC 7515), JWT claims (RFC 7519, 8725), access tokens (RFC 9068).

The order is part of the design. Size and alphabet come before any parsing; then only the header and the issuer's name
are read, with typed decoders that skip everything else; then the signature; and only of a token whose signature is good
are all claims decoded, duplicate JSON members looked for, and the claims checked. So a forged token costs little more
than one signature verification, whatever it holds, and `ExpiredToken` is said of genuine tokens alone.
No error text ever holds a part of the token.
"""

import json
from binascii import a2b_base64
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NoReturn, cast

import msgspec

from tenantguard.errors import ExpiredToken, InvalidToken
from tenantguard.tokens.jwks import MAX_KEY_ID_LENGTH

__all__ = [
    "MAX_NESTING",
    "MAX_TOKEN_LENGTH",
    "ClaimRules",
    "CompactToken",
    "check_claims",
    "decode_claims",
    "parse_compact",
    "split_compact",
]

MAX_TOKEN_LENGTH: Final = 8192
"""Longest token in characters."""
MAX_NESTING: Final = 20
"""Deepest nesting of objects and arrays in header and claims."""
MAX_SUBJECT_LENGTH: Final = 255
"""Longest ``sub`` (OpenID Connect Core 1.0, section 2)."""
LATEST_TIME: Final = 253_402_300_799
"""31 December 9999: no time of a token is later."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_URL_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_PADDING: Final = (b"", b"", b"==", b"=")
# The last character of a segment holds 4 or 2 bits that mean nothing; they must be zero, so that each token has
# one spelling only (RFC 4648, section 3.5) and can't be respelled past a cache or a revocation list.
_LAST: Final[tuple[frozenset[int], ...]] = (
    frozenset(_ALPHABET),
    frozenset(),
    frozenset(_ALPHABET[i] for i in range(0, 64, 16)),
    frozenset(_ALPHABET[i] for i in range(0, 64, 4)),
)
_FORBIDDEN_HEADERS: Final = ("crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc")
_UNSET: Final = msgspec.UNSET


class Header(msgspec.Struct, frozen=True, gc=False):
    """The JOSE header's members that matter. Those that would let the token choose its key or its rules are refused."""

    alg: str
    kid: str | msgspec.UnsetType = _UNSET
    typ: str | msgspec.UnsetType = _UNSET
    crit: msgspec.Raw | msgspec.UnsetType = _UNSET
    b64: msgspec.Raw | msgspec.UnsetType = _UNSET
    jwk: msgspec.Raw | msgspec.UnsetType = _UNSET
    jku: msgspec.Raw | msgspec.UnsetType = _UNSET
    x5u: msgspec.Raw | msgspec.UnsetType = _UNSET
    x5c: msgspec.Raw | msgspec.UnsetType = _UNSET
    zip: msgspec.Raw | msgspec.UnsetType = _UNSET
    enc: msgspec.Raw | msgspec.UnsetType = _UNSET


class _IssuerName(msgspec.Struct, frozen=True, gc=False):
    iss: str


_header_decoder: Final = msgspec.json.Decoder(Header)
_issuer_decoder: Final = msgspec.json.Decoder(_IssuerName)
_claims_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_encode: Final = msgspec.json.Encoder().encode
_DECODE_FAULTS: Final = (msgspec.DecodeError, ValueError, RecursionError)


class CompactToken(msgspec.Struct, frozen=True, gc=False):
    """A token whose form is sound and of which nothing is verified yet.

    Args:
        header: the parsed header.
        issuer: the ``iss`` that the token claims, for choosing the issuer; checked again after the signature.
        header_json: the header's JSON text.
        payload: the claims' JSON text.
        signing_input: what the signature is over.
        signature: the signature.
    """

    header: Header
    issuer: str
    header_json: bytes
    payload: bytes
    signing_input: bytes
    signature: bytes


class ClaimRules(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the claims of one issuer's tokens must be.

    Args:
        issuer: the exact ``iss``.
        audiences: at least one must be in the token's audience.
        audience_claims: ``aud``; more for providers whose access tokens may have none. The first that is there counts.
        leeway: seconds by which clocks may differ.
        max_token_age: seconds since ``iat`` after which a token is refused; ``None`` for no limit but ``exp``.
        required: further claims that must be there and not be null.
    """

    issuer: str
    audiences: frozenset[str]
    audience_claims: tuple[str, ...] = ("aud",)
    leeway: float = 10.0
    max_token_age: float | None = None
    required: tuple[str, ...] = ()


def _malformed(message: str, reason: str = "malformed") -> NoReturn:
    raise InvalidToken(message, reason=reason, mend="Send the token exactly as the issuer made it.") from None


def _decode_segment(segment: bytes) -> bytes:
    """Decode base64url without padding; the alphabet has been checked."""
    rest = len(segment) & 3
    if not segment:
        _malformed("A part of the token is empty.")
    if segment[-1] not in _LAST[rest]:
        _malformed("The token is not in canonical base64url form.")
    return a2b_base64(segment.translate(_URL_TO_STANDARD) + _PADDING[rest])


def split_compact(token: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Return header text, payload text, signing input and signature of a JWS in compact form.

    Raises:
        InvalidToken: too long (more than 8192 characters), not three parts, not canonical base64url.

    Source: RFC 7515, section 7.1; RFC 4648, sections 3.5 and 5.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidToken(
            f"The token is longer than {MAX_TOKEN_LENGTH} characters.",
            reason="size",
            mend="Put fewer claims into it at the issuer.",
        )
    try:
        raw = token.encode("ascii")
    except UnicodeEncodeError:
        _malformed("The token has characters that no token has.")
    if raw.translate(None, _ALPHABET) != b"..":
        _malformed("The token is not three parts of base64url with dots between.")
    header, payload, signature = raw.split(b".")
    return (
        _decode_segment(header),
        _decode_segment(payload),
        raw[: len(header) + 1 + len(payload)],
        _decode_segment(signature),
    )


def parse_header(text: bytes) -> Header:
    """Parse a JOSE header.

    Raises:
        InvalidToken: it is no JSON object, lacks ``alg``, or has a member that is never accepted.

    Source: RFC 7515, sections 4.1 and 4.1.11; RFC 8725, section 3.
    """
    try:
        header = _header_decoder.decode(text)
    except _DECODE_FAULTS:
        _malformed("The token's header is no JSON object with an alg.", "header")
    for name in _FORBIDDEN_HEADERS:
        if getattr(header, name) is not _UNSET:
            _malformed(f"The token's header has {name}, which is never accepted.", "header")
    if header.kid is not _UNSET and len(header.kid) > MAX_KEY_ID_LENGTH:
        _malformed("The token's key id is too long.", "header")
    return header


def parse_compact(token: str) -> CompactToken:
    """Parse as much of a token as is needed to choose its issuer and key.

    Raises:
        InvalidToken: the form is not sound, or the claims name no issuer.
    """
    header_json, payload, signing_input, signature = split_compact(token)
    header = parse_header(header_json)
    try:
        issuer = _issuer_decoder.decode(payload).iss
    except _DECODE_FAULTS:
        _malformed("The token's claims are no JSON object with an iss.", "claims")
    return CompactToken(header, issuer, header_json, payload, signing_input, signature)


# --- after the signature ---------------------------------------------------------------------------------


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _nesting(value: Any) -> int:
    depth = 0
    level = [value]
    while level:
        depth += 1
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += [member for member in item.values() if isinstance(member, dict | list)]
            else:
                deeper += [member for member in item if isinstance(member, dict | list)]
        level = deeper
    return depth


def _decode_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        decoded = _claims_decoder.decode(text)
    except _DECODE_FAULTS:
        _malformed(f"The token's {what} is no JSON object.", "claims")
    # Issuers write compact JSON, so writing it again gives the same bytes unless members repeat. Where it does not
    # (spaces, escapes), the slow and sure way looks at each member.
    if _encode(decoded) != text:
        try:
            json.loads(text, object_pairs_hook=_refuse_duplicates)
        except (ValueError, RecursionError):
            _malformed(f"The token's {what} has a JSON member twice.", "duplicate")
    if text.count(b"{") + text.count(b"[") > MAX_NESTING and _nesting(decoded) > MAX_NESTING:
        _malformed(f"The token's {what} is nested deeper than {MAX_NESTING} levels.", "nesting")
    return decoded


def decode_claims(token: CompactToken) -> dict[str, Any]:
    """Return all claims of a token whose signature is good.

    Raises:
        InvalidToken: header or claims are no JSON object, have a member twice, or are nested too deep.

    Source: RFC 7519, section 4 (unique names); RFC 7515, section 4.
    """
    _decode_object(token.header_json, "header")
    return _decode_object(token.payload, "payload")


def _time(claims: dict[str, Any], name: str, *, needed: bool) -> float | None:
    """A NumericDate (RFC 7519, section 2): a finite number of seconds; never a bool or text."""
    value: Any = claims.get(name)
    kind = value.__class__
    if (kind is int or (kind is float and isfinite(value))) and 0 <= value <= LATEST_TIME:
        return cast(float, value)
    if value is None and name not in claims:
        if needed:
            raise InvalidToken(f"The token has no {name}.", reason="claims", mend="The issuer must put it in.")
        return None
    raise InvalidToken(f"The token's {name} is no time in seconds.", reason="claims")


def audience_of(claims: Mapping[str, Any], names: tuple[str, ...] = ("aud",)) -> tuple[str, ...]:
    """Return the audience of a token: text or a list of texts (RFC 7519, section 4.1.3).

    Raises:
        InvalidToken: it is missing or something else.
    """
    name = names[0]
    value: Any = None
    for candidate in names:
        if candidate in claims:
            name, value = candidate, claims[candidate]
            break
    if isinstance(value, str) and value:
        return (value,)
    if isinstance(value, list) and value and all(isinstance(one, str) and one for one in value):
        return tuple(value)
    raise InvalidToken(
        f"The token has no usable {name}.", reason="audience", mend="The issuer must say whom the token is for."
    )


def check_claims(claims: dict[str, Any], rules: ClaimRules, now: float) -> float:
    """Check the registered claims and return ``exp``.

    Args:
        claims: all claims.
        rules: what they must be.
        now: seconds since the epoch.

    Raises:
        ExpiredToken: ``exp`` has passed.
        InvalidToken: any other check failed; its ``reason`` tells which.

    Source: RFC 7519, section 4.1; RFC 9068, sections 2.2 and 4.
    """
    if claims.get("iss") != rules.issuer:
        raise InvalidToken("The token is of another issuer.", reason="issuer")
    if rules.audiences.isdisjoint(audience_of(claims, rules.audience_claims)):
        raise InvalidToken(
            "The token is for another audience.",
            reason="audience",
            mend="Ask the issuer for a token for this app, or add the audience to Issuer(audience=...).",
        )
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > MAX_SUBJECT_LENGTH:
        raise InvalidToken("The token has no usable sub.", reason="claims")
    expires_at = _time(claims, "exp", needed=True)
    issued_at = _time(claims, "iat", needed=True)
    not_before = _time(claims, "nbf", needed=False)
    assert expires_at is not None
    assert issued_at is not None
    leeway = rules.leeway
    if expires_at + leeway <= now:
        raise ExpiredToken
    if issued_at > now + leeway or (not_before is not None and not_before > now + leeway):
        raise InvalidToken(
            "The token is not valid yet.", reason="not_yet_valid", mend="Set the clocks of issuer and app by NTP."
        )
    if rules.max_token_age is not None and issued_at + rules.max_token_age + leeway <= now:
        raise InvalidToken(
            "The token was issued too long ago.", reason="too_old", mend="Ask the issuer for a new token."
        )
    for name in rules.required:
        if claims.get(name) is None:
            raise InvalidToken(f"The token has no {name}.", reason="claims", mend="The issuer must put it in.")
    return expires_at
