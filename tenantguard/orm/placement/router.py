"""Sessions and connections that lead to the place of the bound tenant: the same models, the same code, wherever it is.

Nobody names a place. A session asks who is bound when its transaction begins, asks the tenant directory where that
tenant is, and gets the engine of that database with that schema; there is no argument by which a caller could choose
another. What the engine then runs is compared once more with the bound tenant (`tenantguard.orm.placement.places`).
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar, final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.asyncio import async_sessionmaker as sqlalchemy_async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.orm import sessionmaker as sqlalchemy_sessionmaker
from sqlalchemy.util import await_

from tenantguard.binding import bound_id, current_binding
from tenantguard.errors import ConfigurationError, NotBound, StatementRefused, TenantMismatch
from tenantguard.orm.classify import Shared, classify_alone
from tenantguard.orm.marks import TENANT
from tenantguard.orm.placement.databases import Databases, options_of, url_options
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.engines import BoundedEngines, Lease
from tenantguard.orm.placement.places import PlaceCheck, usable
from tenantguard.orm.placement.records import TenantRecord
from tenantguard.orm.protect import protect

__all__ = ["AsyncPlacements", "PlacedSession", "Placements", "check_tables"]

_E = TypeVar("_E", Engine, AsyncEngine)
_ROUTER: Final = "tenantguard placements"


def check_tables(databases: Databases) -> None:
    """Check that tables can stand in schemas of tenants: shared ones must say in which schema they are.

    Without one, each tenant's schema would have its own table of what is meant for all.

    Raises:
        ConfigurationError: some do not; the message names them.
    """
    names = sorted(
        table.name for table in databases.tables if table.schema is None and isinstance(classify_alone(table), Shared)
    )
    if names:
        raise ConfigurationError(
            f"Shared tables have no schema, so each tenant's schema would have its own: {', '.join(names)}.",
            mend='Name their schema: __table_args__ = {"schema": "public", "info": shared("...")}. '
            "Or give Placements(schemas=False) if no tenant has a schema of its own.",
        )


def bound_tenant() -> str:
    """Return the bound tenant's id.

    Raises:
        NotBound: none is bound, or a system context is, which has no place.
    """
    binding = current_binding()
    tenant_id = bound_id(binding, TENANT)
    if tenant_id is not None:
        return tenant_id
    if binding is not None and binding.system is not None:
        raise NotBound(
            "A system context has no tenant, and so no place.",
            mend="Bind each tenant inside it, or use an engine of one database.",
        )
    raise NotBound("No tenant is bound, so there is no place to go to.", mend="Enter `with bind(identity):` first.")


class _Router:
    """What both kinds of router share: who is bound, where that is, and the engines."""

    def __init__(
        self,
        directory: SqlTenants,
        databases: Databases,
        *,
        shared: Any,
        schemas: bool,
        max_engines: int,
        max_connections: int,
        idle_seconds: float,
        timeout: float,
        engine_options: dict[str, Any] | None,
    ) -> None:
        if schemas:
            check_tables(databases)
        self.directory = directory
        self._databases = databases
        self._schemas = schemas
        self._options = {"pool_timeout": timeout, **(engine_options or {})}
        for name in ("pool_size", "max_overflow", "poolclass", "creator", "pool"):
            if name in self._options:
                raise ConfigurationError(
                    f"engine_options has {name}, which would get round the bound on connections.",
                    mend="Set max_engines and max_connections.",
                )
        self.engines = BoundedEngines(
            self._make,
            max_engines=max_engines,
            max_connections=max_connections,
            idle_seconds=idle_seconds,
            timeout=timeout,
        )
        self._shared = self._prepared(
            self._engine(databases.url(None), dict(engine_options or {})) if shared is None else shared, None
        )
        self._views: dict[str | None, Any] = {None: self._shared}

    def _engine(self, url: Any, options: dict[str, Any]) -> Any:
        raise NotImplementedError  # pragma: no cover

    def _make(self, database: str, pool_size: int) -> Any:
        url = self._databases.url(database)
        return self._prepared(self._engine(url, {**self._options, **url_options(url, pool_size)}), database)

    def _prepared(self, engine: _E, database: str | None) -> _E:
        protect(engine, metadata=self._databases.metadata, functions=self._databases.functions)
        PlaceCheck(self.directory, database).install(engine)
        if self._databases.configure is not None:
            self._databases.configure(engine)
        return engine

    def _view(self, record: TenantRecord) -> Callable[[Any], Any]:
        if record.placement.schema is not None and not self._schemas:
            raise ConfigurationError(
                "The bound tenant has a schema of its own, and these Placements were made with schemas=False.",
                mend="Leave schemas out.",
            )
        options = options_of(record.placement)
        return (lambda engine: engine.execution_options(**options)) if options else (lambda engine: engine)

    def _in_shared(self, record: TenantRecord) -> Lease:
        schema = record.placement.schema
        view = self._views.get(schema)
        if view is None:
            if len(self._views) > 1000:
                self._views = {None: self._shared}
            view = self._views[schema] = self._view(record)(self._shared)
        return Lease(view, None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._databases!r}, {self.engines!r})"


class PlacedSession(Session):
    """A session whose connection leads to the place of the bound tenant. Made by `Placements.sessionmaker`."""

    _tenantguard_lease: tuple[str, Lease] | None = None

    def __init__(self, *, _tenantguard_placements: Any = None, **options: Any) -> None:
        if options.pop("bind", None) is not None or options.pop("binds", None):
            raise ConfigurationError(
                "A session was given an engine, and its place is the bound tenant's.", mend="Leave bind and binds out."
            )
        self._tenantguard_placements = _tenantguard_placements
        super().__init__(**options)

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **kw: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the engine of the bound tenant's place, for the transaction that is open or begins now.

        Raises:
            StatementRefused: the caller names an engine.
            NotBound: no tenant is bound.
            TenantMismatch: the transaction was begun for another tenant.
            TenantGuardError: the tenant is unknown, suspended or being moved.
        """
        if bind is not None:
            raise StatementRefused(
                "A statement names an engine, and its place is the bound tenant's.",
                mend="Leave bind out of bind_arguments.",
            )
        tenant_id = bound_tenant()
        placed = self._tenantguard_lease
        if placed is not None:
            if placed[0] != tenant_id:
                raise TenantMismatch(
                    "The transaction was begun for another tenant than the bound one.",
                    mend="Commit or roll back, and use a session of its own for each tenant.",
                )
            return placed[1].engine
        if self._transaction is None:
            self._autobegin_t()
        lease = self._tenantguard_placements.lease(tenant_id)
        self._tenantguard_lease = (tenant_id, lease)
        return lease.engine

    def bind_mapper(self, *_args: Any, **_kw: Any) -> None:
        """Refused: the place is the bound tenant's."""
        raise StatementRefused("A session can't be bound to an engine: its place is the bound tenant's.")

    def bind_table(self, *_args: Any, **_kw: Any) -> None:
        """Refused: the place is the bound tenant's."""
        raise StatementRefused("A session can't be bound to an engine: its place is the bound tenant's.")


def _ended(session: PlacedSession, transaction: Any) -> None:
    placed = session._tenantguard_lease
    if placed is not None and transaction.parent is None:
        session._tenantguard_lease = None
        placed[1].release()


event.listen(PlacedSession, "after_transaction_end", _ended, propagate=True)


@final
class Placements(_Router):
    """Leads sessions and connections to the place of the bound tenant, for synchronous apps. Thread-safe.

    Args:
        directory: where each tenant is.
        databases: where the databases are, with the app's role in the URLs.
        shared: an engine for the shared tables, where the app has one; its pool is not within the bounds below.
        schemas: False where no tenant has a schema of its own; then shared tables need not name theirs.
        max_engines: most databases of tenants that are open at once. One that is not in use makes room for the next.
        max_connections: most connections to them in all; each has an equal part.
        idle_seconds: a database that was not used for so long is closed.
        timeout: most seconds that a session waits for its turn.
        engine_options: of `create_engine`, for every engine, for example ``{"pool_pre_ping": True}``.

    Raises:
        ConfigurationError: the bounds are not usable; a shared table names no schema (see `check_tables`).
    """

    def __init__(
        self,
        directory: SqlTenants,
        databases: Databases,
        *,
        shared: Engine | None = None,
        schemas: bool = True,
        max_engines: int = 16,
        max_connections: int = 64,
        idle_seconds: float = 300.0,
        timeout: float = 30.0,
        engine_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            directory,
            databases,
            shared=shared,
            schemas=schemas,
            max_engines=max_engines,
            max_connections=max_connections,
            idle_seconds=idle_seconds,
            timeout=timeout,
            engine_options=engine_options,
        )

    def _engine(self, url: Any, options: dict[str, Any]) -> Engine:
        return create_engine(url, **options)

    def lease(self, tenant_id: str) -> Lease:
        """Return the right to use the engine of a tenant's place. For sessions, which end it with their transaction."""
        record = usable(self.directory.find_blocking(tenant_id))
        if record.placement.database is None:
            return self._in_shared(record)
        return self.engines.acquire(record.placement.database, self._view(record), record.placement.schema)

    def sessionmaker(self, **options: Any) -> "sqlalchemy_sessionmaker[PlacedSession]":
        """Return SQLAlchemy's ``sessionmaker`` of sessions in the place of the bound tenant.

        Args:
            options: of `sqlalchemy.orm.sessionmaker`, without ``bind`` and ``binds``.
        """
        return sqlalchemy_sessionmaker(class_=PlacedSession, _tenantguard_placements=self, **options)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Give a connection to the place of the bound tenant in a block. Its transaction is the caller's to commit.

        Raises:
            TenantGuardError: see `PlacedSession.get_bind`.
        """
        lease = self.lease(bound_tenant())
        try:
            with lease.engine.connect() as connection:
                yield connection
        finally:
            lease.release()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Give a connection in a transaction that is committed at the block's end."""
        with self.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all engines that were made here."""
        self.engines.close()
        self._shared.dispose()


@final
class AsyncPlacements(_Router):
    """Does the same as `Placements` for asyncio, in one event loop. It takes the same arguments.

    The URLs of the databases have an asynchronous driver. The directory may be one with an `AsyncEngine` or with a URL.
    """

    def __init__(
        self,
        directory: SqlTenants,
        databases: Databases,
        *,
        shared: AsyncEngine | None = None,
        schemas: bool = True,
        max_engines: int = 16,
        max_connections: int = 64,
        idle_seconds: float = 300.0,
        timeout: float = 30.0,
        engine_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            directory,
            databases,
            shared=shared,
            schemas=schemas,
            max_engines=max_engines,
            max_connections=max_connections,
            idle_seconds=idle_seconds,
            timeout=timeout,
            engine_options=engine_options,
        )

    def _engine(self, url: Any, options: dict[str, Any]) -> AsyncEngine:
        return create_async_engine(url, **options)

    async def lease_async(self, tenant_id: str) -> Lease:
        """Return the right to use the engine of a tenant's place, an `AsyncEngine`."""
        record = usable(await self.directory.find(tenant_id))
        if record.placement.database is None:
            return self._in_shared(record)
        return await self.engines.acquire_async(record.placement.database, self._view(record), record.placement.schema)

    def lease(self, tenant_id: str) -> Lease:
        """Do the same inside of SQLAlchemy, for a session: with the synchronous face of the engine."""
        lease = await_(self.lease_async(tenant_id))
        lease.engine = lease.engine.sync_engine
        return lease

    def sessionmaker(self, **options: Any) -> "sqlalchemy_async_sessionmaker[AsyncSession]":
        """Return SQLAlchemy's ``async_sessionmaker`` of sessions in the place of the bound tenant.

        ``expire_on_commit`` is off unless said otherwise, as SQLAlchemy advises for async sessions.

        Args:
            options: of `sqlalchemy.ext.asyncio.async_sessionmaker`, without ``bind`` and ``binds``.
        """
        options.setdefault("expire_on_commit", False)
        return sqlalchemy_async_sessionmaker(sync_session_class=PlacedSession, _tenantguard_placements=self, **options)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection to the place of the bound tenant in a block. Its transaction is the caller's to commit.

        Raises:
            TenantGuardError: see `PlacedSession.get_bind`.
        """
        lease = await self.lease_async(bound_tenant())
        try:
            async with lease.engine.connect() as connection:
                yield connection
        finally:
            lease.release()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that is committed at the block's end."""
        async with self.connect() as connection, connection.begin():
            yield connection

    async def aclose(self) -> None:
        """Close all engines that were made here."""
        await self.engines.aclose()
        await self._shared.dispose()
