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
from tenantguard.jobs import JobKeys, Jobs
from tenantguard.outbound import Carrier, Destination, Destinations, TokenExchange
from tenantguard.paths import PublicPaths
from tenantguard.resource_metadata import ProtectedResource
from tenantguard.rules import RequestRules
from tenantguard.tenancy import TenantDirectory, TenantFromHeader, TenantResolver
from tenantguard.tokens import Issuer, TokenVerifier
from tenantguard.tokens.chains import DEFAULT_MAX_ACTORS, ChainRules
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
        destinations: the services that the app calls, for `http_client` and `outbound_headers`.
        strict_outbound: refuse outbound requests that hold what came in from the caller (its token, cookie, proof or
            name) and go to somebody who may not have it; without, that is taken off and logged.
        max_actors: most actors that a token's delegation chain may name, 1 to 8; 5 by default. Longer chains are
            refused.
        trusted_actors: the ids of all services and agents that may act for somebody here; by default all whom the
            issuers let act.
        transaction_issuers: whose transaction tokens are accepted in the ``Txn-Token`` header; see
            `transaction_issuer`. Without any, that header is taken away.

    Raises:
        ConfigurationError: a setting is missing or not usable; the text names it.
    """

    __slots__ = ("_own_verifier", "_strict_outbound", "carrier", "exchange", "rules", "transactions", "verifier")

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
        destinations: Iterable[Destination] = (),
        strict_outbound: bool = False,
        max_actors: int | None = None,
        trusted_actors: Iterable[str] | None = None,
        transaction_issuers: Iterable[Issuer] = (),
    ) -> None:
        declared, kinds = tuple(issuers), tuple(credentials)
        for issuer in declared:
            if not isinstance(issuer, Issuer):
                raise ConfigurationError(
                    f"issuers has a {type(issuer).__name__} in it.",
                    mend='For example issuers=[Issuer("https://login.example.com/", audience="https://api.example.com")].',
                )
        limits = max_actors is not None or trusted_actors is not None
        if verifier is not None and (declared or kinds or revocations is not None or limits):
            raise ConfigurationError(
                "A verifier is given, and issuers, credentials, revocations or limits of chains as well.",
                mend="Give them to the TokenVerifier.",
            )
        if exchange is not None and not isinstance(exchange, TokenExchange):
            raise ConfigurationError(
                f"exchange is a {type(exchange).__name__}.", mend="For example exchange=TokenExchange(...)."
            )
        if directory is not None and not callable(getattr(directory, "get", None)):
            raise ConfigurationError("directory has no method get.", mend="See TenantDirectory.")
        chains = ChainRules(DEFAULT_MAX_ACTORS if max_actors is None else max_actors, trusted_actors)
        transactions = tuple(transaction_issuers)
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
            transactions=bool(transactions),
            trusted_actors=chains.trusted_actors,
        )
        self._own_verifier = None
        if verifier is None:
            self._own_verifier = TokenVerifier(declared, credentials=kinds, revocations=revocations, chains=chains)
        self.verifier: Verifier = verifier if verifier is not None else self._own_verifier  # type: ignore[assignment]
        self.transactions: TokenVerifier | None = None
        if transactions:
            self.transactions = TokenVerifier(transactions, revocations=self.verifier.revocations, chains=chains)
        self.exchange = exchange
        self.carrier = Carrier(destinations, exchange, strict=strict_outbound)
        self._strict_outbound = strict_outbound

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
        self,
        destination: str | Destination | None = None,
        *,
        audience: str | None = None,
        scopes: str | Iterable[str] = (),
        **options: Any,
    ) -> httpx2.AsyncClient:
        """Return a client that carries the bound caller to declared destinations, and nothing to anybody else.

        Args:
            destination: the service's origin, for example ``"https://billing.internal"``, or a `Destination`. Without
                one, the client serves all ``destinations`` of the guard.
            audience: the audience to ask tokens for; left out for an origin that is among the ``destinations``.
            scopes: the scopes to ask for, as a set or separated by spaces.
            options: of `tenantguard.outbound.http_client`.

        Raises:
            ConfigurationError: the guard has no ``exchange``, or the URL, audience or a scope is not usable.
        """
        options.setdefault("strict", self._strict_outbound)
        return outbound.http_client(self.destination(destination, audience, scopes), self.exchange, **options)

    def sync_http_client(
        self,
        destination: str | Destination | None = None,
        *,
        audience: str | None = None,
        scopes: str | Iterable[str] = (),
        **options: Any,
    ) -> httpx2.Client:
        """Return a blocking client, for threads and scripts. Otherwise as `http_client`."""
        options.setdefault("strict", self._strict_outbound)
        return outbound.sync_http_client(self.destination(destination, audience, scopes), self.exchange, **options)

    async def outbound_headers(self, url: str) -> dict[str, str]:
        """Return the headers that a call to ``url`` must carry for the bound caller: the hook for any other client.

        Ask for each request anew, as whom it is sent, and put the headers on that request alone: never on a client or
        a session, which others share. Let the client follow no redirects, or ask again for each.

        Args:
            url: the whole URL of the request.

        Returns:
            One header for a declared destination; nothing for anybody else.

        Raises:
            NotBound: a caller must be carried on, and none is bound.
            OutboundError: no token can be had. Nothing may be sent then.
        """
        return await self.carrier.headers(url)

    def sync_outbound_headers(self, url: str) -> dict[str, str]:
        """Do as `outbound_headers`, for threads: it blocks, so never call it on an event loop."""
        return self.carrier.headers_blocking(url)

    def destination(
        self,
        destination: str | Destination | None = None,
        audience: str | None = None,
        scopes: str | Iterable[str] = (),
    ) -> Destination | Destinations:
        """Return what a client is for: a declared destination, a new one, or all that are declared.

        Raises:
            ConfigurationError: it is not usable.
        """
        declared = self.carrier.destinations
        if isinstance(destination, Destination):
            return destination
        if destination is None:
            if not len(declared):
                raise ConfigurationError(
                    "The guard has no destinations.",
                    mend="Give TenantGuard(destinations=[Destination(...)]), or name one here.",
                )
            return declared
        found = declared.find(destination)
        if audience is None and found is not None:
            return found
        if self.exchange is None:
            raise ConfigurationError(
                "The guard has no token exchange.", mend="Give TenantGuard(exchange=TokenExchange(...))."
            )
        return Destination(destination, audience=audience, scopes=scopes)

    # --- background work -----------------------------------------------------------------------------------

    def jobs(self, keys: JobKeys, *, service: str, **options: Any) -> Jobs:
        """Return what seals and opens background work, with the guard's revocations and tenants.

        Args:
            keys: sign and verify.
            service: the name of the service whose workers run the jobs.
            options: of `tenantguard.jobs.Jobs`.

        Raises:
            ConfigurationError: an argument is not usable.
        """
        options.setdefault("revocations", self.revocations)
        options.setdefault("directory", self.rules.directory)
        return Jobs(keys, service=service, **options)

    # --- the end -------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close what the guard holds open: its verifier, stores and token exchange. May be called again."""
        if self._own_verifier is not None:
            await self._own_verifier.aclose()
        if self.transactions is not None:
            await self.transactions.aclose()
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
