"""The door of an app: pure ASGI for http and websocket.

A request of a protected path must show one token in its Authorization header (RFC 6750, section 2.1; RFC 9449, section
7.1). The identity that it stands for is bound while the app answers, streaming bodies and background tasks included,
and unbound afterwards whatever happens. What the outside says of identity by headers is taken away before the app sees
it. An error of this package becomes a challenge and a problem document, as long as no response has started.

A request whose token was verified before, and which needs nothing more, awaits nothing here but the app itself.

CORS: a preflight request carries no credential, so put `CORSMiddleware` outside of this one (with
``app.add_middleware``: add it after).
"""

import logging
from functools import partial
from typing import Any, Final, Protocol, final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenantguard.admission import Admission, Verifier
from tenantguard.bearer import PresentedToken, read_authorization, read_subprotocol
from tenantguard.binding import Binding, Credential, enter_binding, leave_binding
from tenantguard.context import bind
from tenantguard.errors import (
    ConfigurationError,
    InvalidRequest,
    InvalidToken,
    MissingCredential,
    TenantGuardError,
)
from tenantguard.identity import Identity
from tenantguard.lifetimes import POLICY_VIOLATION, EventStream, WatchedSocket
from tenantguard.problems import Refusals
from tenantguard.resource_metadata import ResourceMetadata
from tenantguard.rules import AUTHORIZATION, TXN_TOKEN, RequestRules
from tenantguard.scopes import refuse_unguarded_routes
from tenantguard.tokens.jwt import MAX_TOKEN_LENGTH
from tenantguard.tokens.transactions import TXN_TOKEN_TYPE

__all__ = ["Guard", "TenantGuardMiddleware"]

logger = logging.getLogger("tenantguard.middleware")

ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"
_BEARER_LENGTH: Final = len("Bearer ")
_LONGEST_WARM: Final = MAX_TOKEN_LENGTH + _BEARER_LENGTH


class Guard(Protocol):
    """What the middleware needs of a `TenantGuard`."""

    @property
    def verifier(self) -> Verifier:
        """Who verifies tokens."""
        ...

    @property
    def rules(self) -> RequestRules:
        """What holds for requests."""
        ...


@final
class TenantGuardMiddleware:
    """Binds the identity of each request's token, and refuses requests without one.

    The identity stands in ``scope["tenantguard"]`` too, for frameworks that read the scope.

    Args:
        app: the ASGI app to guard.
        guard: a `TenantGuard`, or anything with its ``verifier`` and ``rules``.
    """

    __slots__ = (
        "_admission",
        "_always_asked",
        "_cached",
        "_public",
        "_refusals",
        "_resource",
        "_revocations",
        "_routes_checked",
        "_rules",
        "_watched",
        "app",
    )

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app = app
        rules = self._rules = guard.rules
        self._admission = Admission(guard.verifier, rules, getattr(guard, "transactions", None))
        self._cached = guard.verifier.cached
        self._revocations = guard.verifier.revocations
        self._public = rules.public.cover
        self._watched = rules.watched
        self._always_asked = rules.always_asked
        algorithms = None if rules.dpop is None else rules.dpop.algorithms
        self._resource: ResourceMetadata | None = None
        if rules.resource is not None:
            issuers = [issuer.url for issuer in getattr(guard.verifier, "issuers", ())]
            self._resource = ResourceMetadata(rules.resource, issuers=issuers, dpop_algorithms=algorithms)
        self._refusals = Refusals(
            realm=rules.realm,
            resource_metadata=None if rules.resource is None else rules.resource.url,
            dpop_algorithms=algorithms,
        )
        self._routes_checked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        started = False
        identity: Identity | None = None
        stream: EventStream | None = None
        nonce: str | None = None
        scheme = "Bearer"
        token: str | None = None

        def tracked_send(message: Message) -> Any:
            nonlocal started, stream
            if stream is not None:
                return stream.send(message)
            if message["type"] == "http.response.start":
                started = True
                if nonce is not None:
                    message = {**message, "headers": [*message.get("headers", ()), (b"dpop-nonce", nonce.encode())]}
                for name, value in message.get("headers", ()):
                    if (
                        value[:17].lower() == b"text/event-stream"
                        and name.lower() == b"content-type"
                        and identity
                        and token
                    ):
                        recheck = partial(self._admission.recheck, identity, token)
                        stream = EventStream(identity, self._revocations, recheck, send)
                        return stream.start(message)
            return send(message)

        try:
            if not self._routes_checked:
                self._check_routes(scope)
            authorization, others = self._read_headers(scope)
            if self._public(scope):
                await self._serve_public(scope, receive, tracked_send, others)
                return
            transaction = None if others is None else self._transaction_token(others)
            if transaction is not None:
                token, token_type = transaction, TXN_TOKEN_TYPE
                identity = await self._admit_transaction(transaction, authorization, others, scope)
            elif authorization is None:
                raise MissingCredential
            else:
                token, token_type = _warm_token(authorization), ACCESS_TOKEN_TYPE
                if token is not None and others is None and not self._always_asked:
                    identity = self._cached(token)
                if identity is None or token is None:
                    presented = read_authorization(authorization, dpop=self._rules.dpop is not None)
                    token, scheme = presented
                    self._take_away(scope, others)
                    identity, nonce = await self._admission.admit(presented, scope)
            scope["tenantguard"] = identity
            credential = Credential(token, token_type, inbound=scope["headers"], scopes=identity.scopes)
            bound = enter_binding(Binding(identity, credential))
            try:
                await self.app(scope, receive, tracked_send)
            finally:
                leave_binding(bound)
        except Exception as error:
            if stream is not None and stream.ended:
                logger.debug("The app's stream stopped after it was ended.", exc_info=True)
                return
            refusal = _refusal_in(error)
            if refusal is None or started:
                raise
            _log(refusal)
            await self._refuse(refusal, send, "http.response", scheme)
        finally:
            if stream is not None:
                stream.stop()

    async def _serve_public(
        self, scope: Scope, receive: Receive, send: Send, others: list[tuple[bytes, bytes]] | None
    ) -> None:
        if self._resource is not None and self._resource.covers(scope):
            await self._resource(scope, receive, send)
            return
        # No token vouches for a tenant header here, so the app does not see it.
        self._take_away(scope, others, tenant_headers=True)
        await self.app(scope, receive, send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
            await self._serve_websocket(scope, receive, send)
        elif kind == "lifespan":
            self._check_routes(scope)
            await self.app(scope, receive, send)
        else:
            raise ConfigurationError(f"tenantguard does not guard ASGI connections of type {kind!r}.")

    # --- websocket -----------------------------------------------------------------------------------------

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheme = "Bearer"
        identity: Identity | None = None
        token_type = ACCESS_TOKEN_TYPE
        socket = WatchedSocket(self._revocations, receive, send)
        try:
            if not self._routes_checked:
                self._check_routes(scope)
            # uvicorn's older WebSocket implementation hands names over as the client wrote them.
            scope["headers"] = [(name.lower(), value) for name, value in scope["headers"]]
            authorization, others = self._read_headers(scope)
            carried = self._take_subprotocol(scope)
            if self._public(scope):
                self._take_away(scope, others, tenant_headers=True)
                await self.app(scope, receive, socket.send)
                return
            transaction = None if others is None else self._transaction_token(others)
            if carried is not None and (authorization is not None or transaction is not None):
                raise InvalidRequest("The request carries a token twice.", mend="Send it in one place.")
            if transaction is not None:
                identity = await self._admit_transaction(transaction, authorization, others, scope)
                presented, token_type = PresentedToken(transaction), TXN_TOKEN_TYPE
            elif authorization is not None:
                _warm_token(authorization)
                presented = read_authorization(authorization, dpop=self._rules.dpop is not None)
            elif carried is not None:
                presented = PresentedToken(carried)
            else:
                raise MissingCredential
            scheme = presented.scheme
            if identity is None:
                self._take_away(scope, others)
                identity, _ = await self._admission.admit(presented, scope)
            scope["tenantguard"] = identity
            socket.watch(identity, partial(self._admission.recheck, identity, presented.token))
            credential = Credential(presented.token, token_type, inbound=scope["headers"], scopes=identity.scopes)
            with bind(identity, credential):
                await self.app(scope, socket.receive, socket.send)
        except Exception as error:
            if socket.ended:
                logger.debug("The app stopped after its WebSocket was closed.", exc_info=True)
                return
            refusal = _refusal_in(error)
            if refusal is None or socket.closed:
                raise
            if socket.accepted and refusal.status >= 500:
                raise
            _log(refusal)
            if not socket.accepted and "websocket.http.response" in (scope.get("extensions") or {}):
                await self._refuse(refusal, send, "websocket.http.response", scheme)
                return
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.title})
        finally:
            socket.stop()

    def _take_subprotocol(self, scope: Scope) -> str | None:
        """Return the token that a subprotocol carries, and hide it, lest the app names it as the one agreed on."""
        prefix = self._rules.websocket_subprotocol
        if prefix is None:
            return None
        token, others = read_subprotocol(scope.get("subprotocols", ()), prefix)
        if token is not None:
            scope["subprotocols"] = others
            name = b"sec-websocket-protocol"
            headers = [header for header in scope["headers"] if header[0] != name]
            if others:
                headers.append((name, ", ".join(others).encode("latin-1")))
            scope["headers"] = headers
        return token

    # --- both ----------------------------------------------------------------------------------------------

    def _check_routes(self, scope: Scope) -> None:
        """Refuse to serve an app with routes that run unchecked: at its start, or where the server tells of none,
        on the first request."""
        refuse_unguarded_routes(scope.get("app"))
        self._routes_checked = True

    def _read_headers(self, scope: Scope) -> tuple[bytes | None, list[tuple[bytes, bytes]] | None]:
        """Return the Authorization header, and the other headers that matter here.

        Names are in lower case, as ASGI demands of servers (and as `_serve_websocket` sees to).
        """
        authorization: bytes | None = None
        others: list[tuple[bytes, bytes]] | None = None
        watched = self._watched
        for header in scope["headers"]:
            if header[0] in watched:
                if header[0] == AUTHORIZATION:
                    if authorization is not None:
                        raise InvalidRequest("The request has several Authorization headers.", mend="Send exactly one.")
                    authorization = header[1]
                elif others is None:
                    others = [header]
                else:
                    others.append(header)
        return authorization, others

    def _transaction_token(self, others: list[tuple[bytes, bytes]]) -> str | None:
        """Return the token of the ``Txn-Token`` header, where the app accepts such.

        Raises:
            InvalidRequest: there are several.
            InvalidToken: it is too long to be looked at.
        """
        if not self._rules.transactions:
            return None
        values = [value for name, value in others if name == TXN_TOKEN]
        if len(values) > 1:
            raise InvalidRequest("The request has several Txn-Token headers.", mend="Send exactly one.")
        if values and len(values[0]) > MAX_TOKEN_LENGTH:
            raise InvalidToken(f"The token is longer than {MAX_TOKEN_LENGTH} characters.", reason="size")
        return values[0].strip(b" \t").decode("latin-1") if values else None

    async def _admit_transaction(
        self, token: str, authorization: bytes | None, others: list[tuple[bytes, bytes]] | None, scope: Scope
    ) -> Identity:
        caller = None
        if authorization is not None:
            _warm_token(authorization)
            caller = read_authorization(authorization, dpop=self._rules.dpop is not None)
        self._take_away(scope, others)
        return await self._admission.admit_transaction(token, caller, scope)

    def _take_away(
        self, scope: Scope, others: list[tuple[bytes, bytes]] | None, *, tenant_headers: bool = False
    ) -> None:
        """Take away the headers that the app must not see, because nobody vouches for what they say."""
        if others is None:
            return
        rules = self._rules
        away = rules.forged
        if tenant_headers:
            away = away | rules.tenant_headers | {TXN_TOKEN}
        certificates = rules.certificates
        if certificates is not None and certificates.header is not None and not certificates.trusts(scope):
            away = away | {certificates.header}
        if any(name in away for name, _ in others):
            scope["headers"] = [header for header in scope["headers"] if header[0] not in away]

    async def _refuse(self, error: TenantGuardError, send: Send, kind: str, scheme: str) -> None:
        """Send the response that refuses a request, or denies a WebSocket."""
        status, headers, body = self._refusals.answer(error, scheme=scheme)
        await send({"type": f"{kind}.start", "status": status, "headers": headers})
        await send({"type": f"{kind}.body", "body": body})


def _log(error: TenantGuardError) -> None:
    if error.status >= 500:
        logger.error("request failed: %s", error, exc_info=error)
    else:
        logger.info("request refused: %s: %s", type(error).__name__, error)


def _warm_token(authorization: bytes) -> str | None:
    """Return what stands after ``Bearer``, good for looking up a token that was verified before; ``None`` for others.

    Raises:
        InvalidToken: it is too long to be looked at.
    """
    if len(authorization) > _LONGEST_WARM:
        raise InvalidToken(
            f"The token is longer than {MAX_TOKEN_LENGTH} characters.", reason="size", mend="Ask for a smaller one."
        )
    if authorization[:_BEARER_LENGTH].lower() != b"bearer ":
        return None
    return authorization[_BEARER_LENGTH:].decode("latin-1")


def _refusal_in(error: Exception) -> TenantGuardError | None:
    """Return the error of this package that an exception is, or that a group of one holds."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, TenantGuardError) else None
