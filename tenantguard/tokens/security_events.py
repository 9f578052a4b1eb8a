"""Security events: the identity provider says that a session or an account has ended, and its tokens end here.

The receiver is a small ASGI app for push delivery (RFC 8935) of signed security event tokens (RFC 8417), as OpenID's
Shared Signals Framework sends them. Of the events, CAEP's session-revoked and RISC's account-disabled and
account-purged become revocations; others are acknowledged and logged. A transmitter speaks for its own subjects and
sessions only, so that the identity provider of one tenant can't log out the users of another.
"""

import hmac
import logging
from collections.abc import Iterable, Mapping
from time import time
from typing import Any, Final, final

import msgspec
from starlette.types import Receive, Scope, Send

from tenantguard.errors import ConfigurationError, InvalidToken, Unavailable
from tenantguard.tokens.issuers import Issuer
from tenantguard.tokens.jwt import LATEST_TIME, MAX_TOKEN_LENGTH, audience_of, decode_claims
from tenantguard.tokens.revocation import Revocations
from tenantguard.tokens.signatures import SignatureVerifier
from tenantguard.tokens.subject_identifiers import Revoked, UnusableSubject, revoked_by

__all__ = ["SecurityEventReceiver"]

logger = logging.getLogger("tenantguard.tokens")

SET_TYPE: Final = "secevent+jwt"
_REVOKING: Final = frozenset(
    (
        "https://schemas.openid.net/secevent/caep/event-type/session-revoked",
        "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
        "https://schemas.openid.net/secevent/risc/event-type/account-purged",
        "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
    )
)
_MILLISECONDS_FROM: Final = 10**11


class _Refused(Exception):
    """What is wrong with a delivery, in the words of RFC 8935, section 2.4."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status


@final
class SecurityEventReceiver:
    """An ASGI app that takes pushed security events and revokes what they name. Mount it at a public path.

    Args:
        transmitters: who may send: an `Issuer` each, with ``token_types=["secevent+jwt"]`` and the audience that the
            stream was set up with.
        revocations: where revocations go.
        speaks_for: by transmitter, the issuers whose tokens it may revoke; its own name alone where it is not there.
        authorization: the exact ``Authorization`` header that the transmitter was set up to send, if any.

    Raises:
        ConfigurationError: a transmitter is missing or accepts other tokens too.

    Source: RFC 8417, RFC 8935, RFC 9493; OpenID Shared Signals Framework 1.0, CAEP 1.0, RISC 1.0.
    """

    __slots__ = ("_authorization", "_revocations", "_signatures", "_speaks_for")

    def __init__(
        self,
        transmitters: Iterable[Issuer],
        *,
        revocations: Revocations,
        speaks_for: Mapping[str, Iterable[str]] | None = None,
        authorization: str | None = None,
    ) -> None:
        declared = tuple(transmitters)
        if not declared or any(issuer.types != {SET_TYPE} for issuer in declared):
            raise ConfigurationError(
                "Each transmitter of security events must be an Issuer of security event tokens alone.",
                mend=f'For example Issuer("https://idp.example.com", audience="...", token_types=["{SET_TYPE}"]).',
            )
        allowed = {issuer.url: frozenset({issuer.url}) for issuer in declared}
        for name, issuers in (speaks_for or {}).items():
            if name not in allowed or isinstance(issuers, str):
                raise ConfigurationError(
                    "speaks_for names somebody who is no transmitter, or a single text instead of a list.",
                    mend='For example speaks_for={"https://events.example.com": ["https://login.example.com"]}.',
                )
            allowed[name] = frozenset(issuers)
        self._signatures = SignatureVerifier(declared)
        self._revocations = revocations
        self._speaks_for = allowed
        self._authorization = None if authorization is None else authorization.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one delivery (ASGI)."""
        if scope["type"] != "http":
            raise ConfigurationError("Security events come by HTTP.", mend="Mount the receiver at an HTTP route.")
        try:
            token = await self._read(scope, receive)
            await self._take(token)
        except _Refused as fault:
            logger.warning("A security event was refused: %s", fault.description)
            await _answer(send, fault.status, {"err": fault.code, "description": fault.description})
        except Unavailable as fault:
            logger.error("A security event can't be taken now: %s", fault)
            await _answer(send, 503, {"err": "unavailable", "description": "Try again later."})
        else:
            await _answer(send, 202, None)

    async def _read(self, scope: Scope, receive: Receive) -> str:
        """Return the security event token that a request carries (RFC 8935, section 2.1)."""
        if scope["method"] != "POST":
            raise _Refused("invalid_request", "Security events are sent by POST.", 405)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._authorization is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._authorization
        ):
            raise _Refused("authentication_failed", "The Authorization header is not the one agreed on.", 401)
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/secevent+jwt":
            raise _Refused("invalid_request", "The Content-Type must be application/secevent+jwt.")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _Refused("invalid_request", "The request ended early.")
            body += message.get("body", b"")
            if len(body) > MAX_TOKEN_LENGTH:
                raise _Refused("invalid_request", f"The token is longer than {MAX_TOKEN_LENGTH} characters.")
            if not message.get("more_body", False):
                break
        try:
            return body.decode("ascii")
        except UnicodeDecodeError:
            raise _Refused("invalid_request", "The body is no security event token.") from None

    async def _take(self, token: str) -> None:
        """Verify a security event token and do what its events say (RFC 8417, section 2.2)."""
        try:
            signed = await self._signatures.verify(token)
            claims = decode_claims(signed.compact)
            issuer = signed.issuer
            if issuer.rules.audiences.isdisjoint(audience_of(claims)):
                raise _Refused("invalid_audience", "The token is for another audience.")
        except InvalidToken as fault:
            code = {"issuer": "invalid_issuer", "audience": "invalid_audience", "key": "invalid_key"}
            code["signature"] = code["algorithm"] = "invalid_key"
            raise _Refused(code.get(fault.reason, "invalid_request"), fault.message) from None
        now = time()
        issued_at = _seconds(claims.get("iat"))
        expires_at = claims.get("exp")
        if claims.get("iss") != issuer.url or issued_at is None or issued_at > now + issuer.leeway:
            raise _Refused("invalid_request", "The token has no usable iat, or repeats another iss.")
        if expires_at is not None and (_seconds(expires_at) or 0) + issuer.leeway <= now:
            raise _Refused("invalid_request", "The token has expired.")
        events = claims.get("events")
        if not isinstance(claims.get("jti"), str) or not isinstance(events, dict) or not events:
            raise _Refused("invalid_request", "The token has no jti or no events.")
        # All subjects are read before anything is revoked: a delivery is taken whole or refused whole.
        revoked: list[tuple[Revoked, float]] = []
        for name, event in events.items():
            if not isinstance(event, dict):
                raise _Refused("invalid_request", "An event is no JSON object.")
            if name not in _REVOKING:
                logger.info("A security event of %s asks for nothing.", issuer.url)
                continue
            happened = _seconds(event.get("event_timestamp")) or issued_at
            subject = claims.get("sub_id", event.get("subject"))
            try:
                named = revoked_by(subject, transmitter=issuer.url, speaks_for=self._speaks_for[issuer.url])
            except UnusableSubject as fault:
                raise _Refused("invalid_request", str(fault)) from None
            revoked += [(one, happened) for one in named]
        for one, happened in revoked:
            await self._revocations.revoke_async(one.kind, one.id, issuer=one.issuer, at=happened)
        if revoked:
            logger.info("A security event of %s revoked %d.", issuer.url, len(revoked))

    async def aclose(self) -> None:
        """Stop fetching the transmitters' keys."""
        self._signatures.close()


def _seconds(value: Any) -> float | None:
    """A NumericDate; earlier drafts of CAEP wrote milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LATEST_TIME * 1000:
        return None
    return value / 1000 if value >= _MILLISECONDS_FROM else float(value)


async def _answer(send: Send, status: int, document: dict[str, str] | None) -> None:
    body = b"" if document is None else msgspec.json.encode(document)
    headers = [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    if document is not None:
        headers += [(b"content-type", b"application/json"), (b"content-language", b"en")]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
