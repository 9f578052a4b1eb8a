"""The door of an app: pure ASGI for http and websocket.

A request of a protected path must show one bearer token (RFC 6750, section 2.1). The identity that it stands for is
bound while the app answers, streaming bodies and background tasks included, and unbound afterwards whatever happens.
What the outside says of identity by headers is taken away before the app sees it; what it says of the tenant must
agree with the token. An error of this package becomes a challenge and a problem document, as long as no response has
started.

A warm request (its token was verified before) awaits nothing here but the app itself.

CORS: a preflight request carries no credential, so put `CORSMiddleware` outside of this one (with
``app.add_middleware``: add it after).
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final, runtime_checkable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tenantguard.bearer import read_authorization, read_subprotocol
from tenantguard.context import Credential, bind
from tenantguard.errors import (
    ConfigurationError,
    InvalidRequest,
    InvalidToken,
    MissingCredential,
    TenantGuardError,
    TenantRefused,
)
from tenantguard.forged_headers import IDENTITY_HEADERS, spellings
from tenantguard.identity import Identity, TenantStatus
from tenantguard.paths import PublicPaths
from tenantguard.problems import problem
from tenantguard.scopes import refuse_unguarded_routes
from tenantguard.tenancy import TenantDirectory, agree_on_tenant, check_standing
from tenantguard.tokens.claims import Verified
from tenantguard.tokens.jwt import MAX_TOKEN_LENGTH

__all__ = ["Guard", "RequestRules", "TenantGuardMiddleware", "Verifier"]

logger = logging.getLogger("tenantguard.middleware")

_NAME: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_QUOTABLE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
_AUTHORIZATION: Final = b"authorization"
_ACTIVE: Final = TenantStatus.ACTIVE
_POLICY_VIOLATION: Final = 1008
_BEARER_PREFIX_LENGTH: Final = len("Bearer ")


class Verifier(Protocol):
    """What turns a presented token into an identity: `TokenVerifier`, or an app's own."""

    def cached(self, token: str, /) -> Identity | None:
        """Return the identity of a token that was verified before and is good still. Never raises, never waits."""
        ...

    async def verify(self, token: str, /) -> Identity:
        """Return the identity of a token.

        Raises:
            AuthenticationError: the token is not good.
            IssuerUnavailable: that can't be known now.
        """
        ...


@runtime_checkable
class _ChoosingVerifier(Protocol):
    async def verify_all(self, token: str, /) -> Verified: ...


class Guard(Protocol):
    """What the middleware needs of a `TenantGuard`."""

    @property
    def verifier(self) -> Verifier:
        """Who verifies tokens."""
        ...

    @property
    def rules(self) -> "RequestRules":
        """What holds for requests."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """What holds for the requests of an app, checked once at the start.

    Args:
        public: the paths that need no credential.
        tenant_header: the header in which a caller may repeat the token's tenant, or choose one of several that the
            token names. ``None`` for none.
        identity_headers: the headers that are taken away, with all their spellings with underscores.
        websocket_subprotocol: what a WebSocket subprotocol begins with that carries the token, for example
            ``"bearer."``, for browsers. ``None``: tokens come in the Authorization header alone.
        directory: the tenants that the app knows. Without it, every tenant of a good token is let in.
        realm: the protection space that every challenge names (RFC 9110, section 11.5).
        resource_metadata: the URL of the app's metadata that every challenge names (RFC 9728, section 5.1).

    Raises:
        ConfigurationError: a value is not usable; the text names it.
    """

    public: PublicPaths = field(default_factory=PublicPaths)
    tenant_header: str | None = "x-tenant-id"
    identity_headers: Iterable[str] = IDENTITY_HEADERS
    websocket_subprotocol: str | None = None
    directory: TenantDirectory | None = None
    realm: str | None = None
    resource_metadata: str | None = None
    forged: frozenset[bytes] = field(init=False, repr=False)
    tenant_header_name: bytes | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tenant_name = None if self.tenant_header is None else _header_name(self.tenant_header, "tenant_header")
        if isinstance(self.identity_headers, str):
            raise ConfigurationError("identity_headers is a single text.", mend='Give a list: ["x-user-id"].')
        names = {_header_name(name, "identity_headers") for name in self.identity_headers}
        if tenant_name is not None:
            names.add(tenant_name)
        forged = {spelling for name in names for spelling in spellings(name)} - {tenant_name}
        if _AUTHORIZATION in (tenant_name, *forged):
            raise ConfigurationError("The Authorization header carries the token.", mend="Name another header.")
        prefix = self.websocket_subprotocol
        if prefix is not None and not (isinstance(prefix, str) and prefix and _is_token(prefix)):
            raise ConfigurationError(
                "websocket_subprotocol is no prefix of a subprotocol.", mend='For example "bearer.".'
            )
        for setting, value in (("realm", self.realm), ("resource_metadata", self.resource_metadata)):
            if value is not None and not (isinstance(value, str) and _QUOTABLE.fullmatch(value)):
                raise ConfigurationError(
                    f"{setting} must be text of printable ASCII characters without quotes and backslashes.",
                    mend=f'For example {setting}="https://api.example.com".',
                )
        object.__setattr__(self, "tenant_header_name", tenant_name)
        object.__setattr__(self, "forged", frozenset(forged))


def _is_token(text: str) -> bool:
    return text.isascii() and _NAME.issuperset(text.lower().encode())


def _header_name(name: object, setting: str) -> bytes:
    if not isinstance(name, str) or not name or not _is_token(name):
        raise ConfigurationError(f"{setting} names a header that can't exist.", mend='For example "x-tenant-id".')
    return name.lower().encode()


@final
class TenantGuardMiddleware:
    """Binds the identity of each request's token, and refuses requests without one.

    The identity stands in ``scope["tenantguard"]`` too, for frameworks that read the scope.

    Args:
        app: the ASGI app to guard.
        guard: a `TenantGuard`, or anything with its ``verifier`` and ``rules``.
    """

    __slots__ = (
        "_cached",
        "_directory",
        "_forged",
        "_public",
        "_routes_checked",
        "_rules",
        "_tenant_header",
        "_verifier",
        "_watched",
        "app",
    )

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        rules = guard.rules
        self.app = app
        self._rules = rules
        self._verifier = guard.verifier
        self._cached = guard.verifier.cached
        self._directory = rules.directory
        self._public = rules.public.cover
        self._tenant_header = rules.tenant_header_name
        self._forged = rules.forged
        self._watched = rules.forged | {_AUTHORIZATION} | ({rules.tenant_header_name} - {None})
        self._routes_checked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        started = False

        def tracked_send(message: Message) -> Any:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
            return send(message)

        try:
            if not self._routes_checked:
                self._check_routes(scope)
            authorization, said = self._read_headers(scope)
            if self._public(scope):
                if said is not None:
                    self._forget_tenant_header(scope)
                await self.app(scope, receive, tracked_send)
                return
            if authorization is None:
                raise MissingCredential
            token = _warm_token(authorization)
            identity = self._cached(token)
            if identity is None:
                # Not seen before, so its form is not known to be right either.
                token = read_authorization(authorization)
            if identity is None or said is not None or not self._stands(identity):
                identity = await self._let_in(identity, token, said)
            scope["tenantguard"] = identity
            with bind(identity, Credential(token)):
                await self.app(scope, receive, tracked_send)
        except Exception as error:
            refusal = _refusal_in(error)
            if refusal is None or started:
                raise
            _log(refusal)
            await self._refuse(refusal, send, "http.response")

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
        # The end of a connection whose token expires or is revoked while it lives belongs here, around `receive`.
        accepted = closed = False

        def tracked_send(message: Message) -> Any:
            nonlocal accepted, closed
            kind = message["type"]
            if kind == "websocket.accept":
                accepted = True
            elif kind in ("websocket.close", "websocket.http.response.start"):
                closed = True
            return send(message)

        try:
            if not self._routes_checked:
                self._check_routes(scope)
            # uvicorn's older WebSocket implementation hands names over as the client wrote them.
            scope["headers"] = [(name.lower(), value) for name, value in scope["headers"]]
            authorization, said = self._read_headers(scope)
            carried = self._take_subprotocol(scope)
            if self._public(scope):
                if said is not None:
                    self._forget_tenant_header(scope)
                await self.app(scope, receive, tracked_send)
                return
            if authorization is not None and carried is not None:
                raise InvalidRequest("The request carries a token twice.", mend="Send it in one place.")
            if authorization is not None:
                _warm_token(authorization)
                token = read_authorization(authorization)
            elif carried is not None:
                token = carried
            else:
                raise MissingCredential
            identity = await self._let_in(self._cached(token), token, said)
            scope["tenantguard"] = identity
            with bind(identity, Credential(token)):
                await self.app(scope, receive, tracked_send)
        except Exception as error:
            refusal = _refusal_in(error)
            if refusal is None or closed:
                raise
            if accepted and refusal.status >= 500:
                raise
            _log(refusal)
            if not accepted and "websocket.http.response" in (scope.get("extensions") or {}):
                await self._refuse(refusal, send, "websocket.http.response")
                return
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.title})

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

    def _read_headers(self, scope: Scope) -> tuple[bytes | None, bytes | None]:
        """Return the Authorization and the tenant header, and take the forged ones away.

        Names are in lower case, as ASGI demands of servers (and as `_serve_websocket` sees to).
        """
        authorization: bytes | None = None
        said: bytes | None = None
        forged = False
        watched = self._watched
        for name, value in scope["headers"]:
            if name in watched:
                if name == _AUTHORIZATION:
                    if authorization is not None:
                        raise InvalidRequest("The request has several Authorization headers.", mend="Send exactly one.")
                    authorization = value
                elif name == self._tenant_header:
                    if said is not None:
                        raise InvalidRequest("The request has several tenant headers.", mend="Send one or none.")
                    said = value
                else:
                    forged = True
        if forged:
            scope["headers"] = [header for header in scope["headers"] if header[0] not in self._forged]
        return authorization, said

    def _forget_tenant_header(self, scope: Scope) -> None:
        """On a public path no token vouches for the tenant header, so the app does not see it."""
        scope["headers"] = [header for header in scope["headers"] if header[0] != self._tenant_header]

    def _stands(self, identity: Identity) -> bool:
        """True if the tenant of a verified token is known to be usable without asking anybody."""
        tenant = identity.tenant
        return self._directory is None and (tenant is None or tenant.status is _ACTIVE)

    async def _let_in(self, identity: Identity | None, token: str, said: bytes | None) -> Identity:
        """Return the identity that the request runs as: verified, of the tenant that it says, in good standing.

        Args:
            identity: the token's, if it was verified before.
            token: the token.
            said: the tenant header's value.
        """
        tenant = None if identity is None else identity.tenant
        if identity is None or (said is not None and (tenant is None or tenant.id.encode() != said)):
            identity = await self._verify(token, said)
        return await check_standing(identity, self._directory)

    async def _verify(self, token: str, said: bytes | None) -> Identity:
        verifier = self._verifier
        if said is None or not isinstance(verifier, _ChoosingVerifier):
            identity = await verifier.verify(token)
        else:
            verified = await verifier.verify_all(token)
            try:
                identity = verified.choose(said.decode())
            except UnicodeDecodeError:
                raise TenantRefused("The tenant header is not UTF-8.") from None
        agree_on_tenant(identity, said)
        return identity

    async def _refuse(self, error: TenantGuardError, send: Send, kind: str) -> None:
        """Send the response that refuses a request, or denies a WebSocket."""
        extra = (("resource_metadata", self._rules.resource_metadata),) if self._rules.resource_metadata else ()
        status, headers, body = problem(error, realm=self._rules.realm, extra=extra)
        await send({"type": f"{kind}.start", "status": status, "headers": headers})
        await send({"type": f"{kind}.body", "body": body})


def _log(error: TenantGuardError) -> None:
    if error.status >= 500:
        logger.error("request failed: %s", error, exc_info=error)
    else:
        logger.info("request refused: %s: %s", type(error).__name__, error)


def _warm_token(authorization: bytes) -> str:
    """Return what stands after ``Bearer`` as it is: good for looking up a token that was verified before."""
    if len(authorization) > MAX_TOKEN_LENGTH + _BEARER_PREFIX_LENGTH:
        raise InvalidToken(
            f"The token is longer than {MAX_TOKEN_LENGTH} characters.", reason="size", mend="Ask for a smaller one."
        )
    if authorization[:_BEARER_PREFIX_LENGTH].lower() != b"bearer ":
        return read_authorization(authorization)
    return authorization[_BEARER_PREFIX_LENGTH:].decode("latin-1")


def _refusal_in(error: Exception) -> TenantGuardError | None:
    """Return the error of this package that an exception is, or that a group of one holds."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, TenantGuardError) else None
