"""Is the answer of the token endpoint what was asked for? Pure: bytes in, a usable token or a fault out.

An answer that names another type, wider scopes, another audience, another tenant or another subject is refused: the
token service is trusted to narrow, not to swap. Where the token is a JWT, its claims are compared too; they are not
verified, since only the destination is its audience, but what they say may not contradict what was asked.
Source: RFC 8693, section 2.2; RFC 6749, sections 5.1 and 5.2; RFC 6750, section 2.1.
"""

import binascii
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tenantguard.identity import Identity
from tenantguard.outbound.circuit import Blame
from tenantguard.outbound.token_requests import TokenRequest

__all__ = [
    "Answer",
    "ClaimNames",
    "Fault",
    "Unusable",
    "UsableToken",
    "check_party",
    "check_scope",
    "read_answer",
    "read_json_answer",
    "unverified_claims",
    "unverified_header",
]

MAX_TOKEN: Final = 16 * 1024
"""Longest token in characters."""
MAX_LIFETIME: Final = 24 * 3600
"""Longest time in seconds that an answer is believed to be good for."""
_MAX_ACTORS: Final = 32
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_ERROR_CODE: Final = re.compile(r"[a-z][a-z_]{0,63}", re.ASCII)
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True, slots=True)
class ClaimNames:
    """Under which claims the token service writes what is compared; ``None`` leaves a comparison out.

    Args:
        tenant: the tenant's id.
        subject: the subject's id.
    """

    tenant: str | None = "tenant_id"
    subject: str | None = "sub"


@dataclass(frozen=True, slots=True)
class UsableToken:
    """A token that answers the request.

    Args:
        value: the token.
        expires_at: seconds since the epoch.
        obtained_at: seconds since the epoch.
    """

    value: str = field(repr=False)
    expires_at: float
    obtained_at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no usable token.

    Args:
        message: completes the sentence "No token for ...: "; holds no token.
        mend: how to put it right.
        blame: where it can be laid, and so whose further requests are held back for a moment.
    """

    message: str
    mend: str | None = None
    blame: Blame = Blame.ANSWER


class Answer(msgspec.Struct, frozen=True):
    """The members of a token endpoint's answer that matter (RFC 8693, section 2.2.1)."""

    access_token: str
    token_type: str
    issued_token_type: str | None = None
    expires_in: int | None = None
    scope: str | None = None

    def __repr__(self) -> str:
        return "Answer(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Tell no token to tracebacks that are printed with their variables."""
        return []


class _Refusal(msgspec.Struct, frozen=True):
    error: str


_answer_decoder: Final = msgspec.json.Decoder(Answer)
_refusal_decoder: Final = msgspec.json.Decoder(_Refusal)
_claims_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Unusable(Exception):
    """Carries the fault of an answer out of the checks."""

    def __init__(self, message: str, mend: str | None = None) -> None:
        self.fault = Fault(message, mend)


def read_answer(
    status: int, body: bytes, request: TokenRequest, names: ClaimNames, *, actor_token: str | None = None
) -> UsableToken | Fault:
    """Return the token of a token endpoint's answer, or why it can't be used.

    Args:
        status: HTTP status.
        body: the body.
        request: what was asked for.
        names: the claims to compare.
        actor_token: this service's own token, where it was shown: the new token must then name the service.
    """
    return read_json_answer(status, body, lambda answer: _check(answer, request, names, actor_token))


def read_json_answer(status: int, body: bytes, check: Callable[[Answer], UsableToken]) -> UsableToken | Fault:
    """Return what ``check`` makes of a token endpoint's answer, or why there is none.

    Args:
        status: HTTP status.
        body: the body.
        check: raises `Unusable` for an answer that was not asked for.
    """
    if status != 200:
        return _refusal(status, body)
    try:
        answer = _answer_decoder.decode(body)
    except _UNREADABLE:
        return Fault("the token service's answer is no token response", "Check the URL of the token endpoint.")
    try:
        return check(answer)
    except Unusable as unusable:
        return unusable.fault


def _refusal(status: int, body: bytes) -> Fault:
    if 300 <= status < 400:
        return Fault("the token endpoint redirects, which is not followed", "Declare the URL that it redirects to.")
    if status in (400, 401, 403):
        try:
            code = _refusal_decoder.decode(body).error
        except _UNREADABLE:
            code = ""
        if _ERROR_CODE.fullmatch(code):
            blame = Blame.ANSWER if code in _OUR_OWN_FAULT else Blame.REQUEST
            return Fault(f"the token service refused with {code}", _MENDS.get(code), blame)
    return Fault(
        f"the token service answered with status {status}", blame=Blame.SERVICE if status >= 500 else Blame.ANSWER
    )


_OUR_OWN_FAULT: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type"})
"""Refusals that every attempt meets alike; further ones only burden the token service."""

_MENDS: Final = {
    "invalid_client": "Check client_id and client_secret.",
    "invalid_scope": "Declare scopes that the caller holds and the client may ask for.",
    "invalid_target": "Let the client ask for this audience in the token service's registration.",
    "invalid_request": "The caller's token may have expired, or the client may not exchange it.",
    "invalid_grant": "The caller's token may have expired or been revoked.",
    "unauthorized_client": "Allow the client to use this grant in the token service's registration.",
    "unsupported_grant_type": "Use a token service that supports RFC 8693.",
}


def _check(answer: Answer, request: TokenRequest, names: ClaimNames, actor_token: str | None) -> UsableToken:
    destination, identity = request.destination, request.identity
    if answer.token_type.lower() != "bearer":
        raise Unusable("the token service issued a token that is no bearer token")
    if identity is not None and answer.issued_token_type not in (_ACCESS_TOKEN, _JWT):
        raise Unusable("the token service issued a token of another type than an access token")
    token = answer.access_token
    if len(token) > MAX_TOKEN or not _BEARER.fullmatch(token):
        raise Unusable("the token service issued a token that can't be sent in a header")
    if token == request.reveal_subject_token():
        raise Unusable("the token service gave back the caller's own token instead of a narrower one")
    allowed = request.scopes | destination.extra_scopes
    if answer.scope is not None:
        check_scope(answer.scope, allowed, asked=bool(request.scopes), identity=identity)
    now = time.time()
    expires_at = None if answer.expires_in is None else now + min(answer.expires_in, MAX_LIFETIME)
    claims = unverified_claims(token)
    if claims is None and answer.issued_token_type == _JWT:
        raise Unusable("the token service issued a token that is no JWT though it says so")
    if claims is not None:
        if isinstance(claims.get("scope"), str):
            check_scope(claims["scope"], allowed, asked=bool(request.scopes), identity=identity)
        _check_audience(claims, destination.audience)
        if identity is not None:
            check_party(claims, identity, names)
            _check_actor(claims, identity, actor_token)
        if type(claims.get("exp")) in (int, float):
            expires_at = min(claims["exp"], expires_at if expires_at is not None else now + MAX_LIFETIME)
    if expires_at is None:
        raise Unusable("the token service does not say how long its token is good")
    if identity is not None and identity.expires_at is not None:
        # Not used longer than the token that it was made from, whatever the token service says.
        expires_at = min(expires_at, identity.expires_at)
    if expires_at <= now:
        raise Unusable("the token service issued a token that has expired")
    return UsableToken(token, expires_at, now)


def check_scope(granted: str, allowed: frozenset[str], *, asked: bool, identity: Identity | None) -> None:
    """Refuse scopes wider than asked; where nothing was asked, wider than what the caller holds."""
    wider = frozenset(granted.split()) - allowed
    if not asked:
        wider = wider - identity.scopes if identity is not None else frozenset()
    if wider:
        raise Unusable(
            "the token service issued a token with wider scopes than asked for",
            "Let it issue what is asked, or declare Destination(extra_scopes=...) for scopes that it always adds.",
        )


def _check_audience(claims: Mapping[str, Any], audience: str | None) -> None:
    """A token that is good elsewhere too would let the destination act there as the caller."""
    if "aud" in claims and claims["aud"] not in (audience, [audience]):
        raise Unusable(
            "the token service issued a token for another audience than asked for, or for further ones",
            "Let it issue tokens for the destination's audience alone.",
        )


def check_party(claims: Mapping[str, Any], identity: Identity, names: ClaimNames) -> None:
    """Refuse claims of another tenant or subject, and those that hide who acts."""
    tenant = identity.tenant.id if identity.tenant is not None else None
    if names.tenant is not None and names.tenant in claims and claims[names.tenant] != tenant:
        raise Unusable("the token service issued a token of another tenant")
    if names.subject is not None and names.subject in claims and claims[names.subject] != identity.subject.id:
        raise Unusable("the token service issued a token of another subject")
    if identity.is_delegated and identity.actor.id not in _actors(claims):
        raise Unusable(
            "the token service issued a token that hides who acts for the subject",
            "Let it nest the actors of the token that it exchanges (RFC 8693, section 4.1).",
        )


def _check_actor(claims: Mapping[str, Any], identity: Identity, actor_token: str | None) -> None:
    """The service that showed its own token is the one that acts now (RFC 8693, section 4.1)."""
    own = unverified_claims(actor_token) if actor_token is not None else None
    if own is None or own.get("sub") == identity.actor.id:
        return
    act = claims.get("act")
    if not isinstance(act, dict) or act.get("sub") != own.get("sub"):
        raise Unusable(
            "the token service issued a token that does not name this service as its actor",
            "Let it put the subject of the actor_token on top of the act chain (RFC 8693, section 4.1).",
        )


def _actors(claims: Mapping[str, Any]) -> set[object]:
    found: set[object] = set()
    link = claims.get("act")
    while isinstance(link, dict) and len(found) < _MAX_ACTORS:
        if isinstance(link.get("sub"), str):
            found.add(link["sub"])
        link = link.get("act")
    return found


def unverified_header(token: str) -> dict[str, Any] | None:
    """Return the header of a JWT, for comparison only; ``None`` for tokens of other forms."""
    return _unverified_part(token, 0)


def unverified_claims(token: str) -> dict[str, Any] | None:
    """Return the claims of a JWT, for comparison only; ``None`` for tokens of other forms."""
    return _unverified_part(token, 1)


def _unverified_part(token: str, number: int) -> dict[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return _claims_decoder.decode(urlsafe_b64decode(parts[number] + "=" * (-len(parts[number]) % 4)))
    except (*_UNREADABLE, binascii.Error, ValueError):
        return None
