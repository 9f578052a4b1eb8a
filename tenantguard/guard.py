"""The one object that an app configures. It wires the parts; each of them can be made by hand as well.

All settings are checked when it is made, so that a mistake stops the start and not the first request.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

import httpx2
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from tenantguard import orm, outbound
from tenantguard.admission import Verifier
from tenantguard.errors import ConfigurationError
from tenantguard.forged_headers import IDENTITY_HEADERS
from tenantguard.outbound import Destination, TokenExchange
from tenantguard.paths import PublicPaths
from tenantguard.resource_metadata import ProtectedResource
from tenantguard.rules import RequestRules
from tenantguard.tenancy import TenantDirectory, TenantFromHeader, TenantResolver
from tenantguard.tokens import Issuer, TokenVerifier
from tenantguard.tokens.client_certificates import ClientCertificates
from tenantguard.tokens.credentials import CredentialVerifier
from tenantguard.tokens.dpop import DPoP
from tenantguard.tokens.revocation import Revocations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import sessionmaker

__all__ = ["TenantGuard"]

_E = TypeVar("_E", Engine, AsyncEngine)


@final
class TenantGuard:
    """What an app trusts, what it lets through, whom it calls.

    Args:
        issuers: the issuers whose tokens are good. Give these, or a ``verifier``.
        credentials: further kinds of credential, for example `ApiKeys` and `Introspection`.
        revocations: what was revoked, shared with other workers through a feed. Without it `guard.revocations` holds
            for this process.
        verifier: who verifies tokens, where the settings of `TokenVerifier` are needed or an app has its own. The
            guard closes a verifier that it made itself, not this one.
        public: paths that need no credential; see `PublicPaths`. Everything else does.
        tenantless: paths that an identity without a tenant may use. Everywhere else it is refused.
        tenant_from: where a caller may repeat the token's tenant, or choose one of several: `TenantFromHeader`,
            `TenantFromHost`, `TenantFromPath`.
        identity_headers: headers that are taken away from requests; see `IDENTITY_HEADERS`.
        websocket_subprotocol: the prefix of a WebSocket subprotocol that carries the token, for example ``"bearer."``.
        directory: the tenants that the app knows; unknown and suspended ones are refused.
        realm: named in every challenge.
        resource: the app's own description, served at its well-known path and named in every challenge (RFC 9728).
        dpop: how proofs of possession are checked (RFC 9449). Without it, tokens bound to a key are refused.
        certificates: where client certificates are (RFC 8705). Without it, tokens bound to one are refused.
        exchange: the token service through which calls to other services carry the caller on. The guard closes it.

    Raises:
        ConfigurationError: a setting is missing or not usable; the text names it.
    """

    __slots__ = ("_own_verifier", "exchange", "rules", "verifier")

    def __init__(
        self,
        *,
        issuers: Iterable[Issuer] = (),
        credentials: Iterable[CredentialVerifier] = (),
        revocations: Revocations | None = None,
        verifier: Verifier | None = None,
        public: Iterable[str] = (),
        tenantless: Iterable[str] = (),
        tenant_from: Iterable[TenantResolver] = (TenantFromHeader(),),
        identity_headers: Iterable[str] = IDENTITY_HEADERS,
        websocket_subprotocol: str | None = None,
        directory: TenantDirectory | None = None,
        realm: str | None = None,
        resource: ProtectedResource | None = None,
        dpop: DPoP | None = None,
        certificates: ClientCertificates | None = None,
        exchange: TokenExchange | None = None,
    ) -> None:
        declared, kinds = tuple(issuers), tuple(credentials)
        for issuer in declared:
            if not isinstance(issuer, Issuer):
                raise ConfigurationError(
                    f"issuers has a {type(issuer).__name__} in it.",
                    mend='For example issuers=[Issuer("https://login.example.com/", audience="https://api.example.com")].',
                )
        if verifier is not None and (declared or kinds or revocations is not None):
            raise ConfigurationError(
                "A verifier is given, and issuers, credentials or revocations as well.",
                mend="Give them to the TokenVerifier.",
            )
        if exchange is not None and not isinstance(exchange, TokenExchange):
            raise ConfigurationError(
                f"exchange is a {type(exchange).__name__}.", mend="For example exchange=TokenExchange(...)."
            )
        if directory is not None and not callable(getattr(directory, "get", None)):
            raise ConfigurationError("directory has no method get.", mend="See TenantDirectory.")
        self.rules = RequestRules(
            public=PublicPaths(public),
            tenantless=PublicPaths(tenantless),
            tenant_from=tuple(tenant_from),
            identity_headers=tuple(identity_headers) if not isinstance(identity_headers, str) else identity_headers,
            websocket_subprotocol=websocket_subprotocol,
            directory=directory,
            realm=realm,
            resource=resource,
            dpop=dpop,
            certificates=certificates,
        )
        self._own_verifier = None
        if verifier is None:
            self._own_verifier = TokenVerifier(declared, credentials=kinds, revocations=revocations)
        self.verifier: Verifier = verifier if verifier is not None else self._own_verifier  # type: ignore[assignment]
        self.exchange = exchange

    @property
    def revocations(self) -> Revocations:
        """What was revoked; ``guard.revocations.revoke(...)`` adds to it."""
        return self.verifier.revocations

    # --- the database --------------------------------------------------------------------------------------

    def protect(self, engine: _E, **options: Any) -> _E:
        """Protect an engine, and return it: every statement through it is scoped to the bound tenant or refused.

        Args:
            engine: an `sqlalchemy.Engine` or `AsyncEngine`.
            options: ``metadata`` and ``functions``, see `tenantguard.orm.protect`.
        """
        return orm.protect(engine, **options)

    def sessionmaker(self, engine: Engine, **options: Any) -> "sessionmaker[Session]":
        """Protect an engine and return SQLAlchemy's ``sessionmaker`` for it, which takes the same options."""
        return orm.sessionmaker(engine, **options)

    def async_sessionmaker(self, engine: AsyncEngine, **options: Any) -> "async_sessionmaker[AsyncSession]":
        """Protect an engine and return SQLAlchemy's ``async_sessionmaker`` for it, which takes the same options."""
        return orm.async_sessionmaker(engine, **options)

    # --- other services ------------------------------------------------------------------------------------

    def http_client(
        self, base_url: str, *, audience: str, scopes: str | Iterable[str] = (), **options: Any
    ) -> httpx2.AsyncClient:
        """Return a client that carries the bound caller to one service, by token exchange (RFC 8693).

        Args:
            base_url: the service's origin, for example ``"https://billing.internal"``. Other origins get nothing.
            audience: the audience to ask tokens for.
            scopes: the scopes to ask for, as a set or separated by spaces.
            options: of `tenantguard.outbound.http_client`.

        Raises:
            ConfigurationError: the guard has no ``exchange``, or the URL, audience or a scope is not usable.
        """
        if self.exchange is None:
            raise ConfigurationError(
                "The guard has no token exchange.", mend="Give TenantGuard(exchange=TokenExchange(...))."
            )
        destination = Destination(base_url, audience=audience, scopes=scopes)
        return outbound.http_client(destination, self.exchange, **options)

    # --- the end -------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close what the guard holds open: its verifier, stores and token exchange. May be called again."""
        if self._own_verifier is not None:
            await self._own_verifier.aclose()
        if self.rules.dpop is not None:
            await self.rules.dpop.aclose()
        if self.exchange is not None:
            await self.exchange.aclose()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - frameworks give their app
        """Close the guard with the app: ``Starlette(lifespan=guard.lifespan)``, and FastAPI alike."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"TenantGuard({self.verifier!r}, {self.rules.public!r})"
