"""The tenant directory in a SQL database: status, plan and placement of each tenant, behind a short cache.

A record says itself how long it may be gone on with (``cache_seconds``), like a DNS record, so that whoever changes a
tenant knows when the last process has noticed. It is counted from before the question, by a clock that nobody sets. If
the database does not answer, whoever needs a record that is not in the cache is refused; what was true once is never
taken for true any longer.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, final

import anyio
from sqlalchemy import URL, Connection, Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard.errors import ConfigurationError, PlacementError, StoreUnavailable, UnknownTenant
from tenantguard.identity import Tenant, TenantStatus, validate_tenant_id
from tenantguard.orm.placement.records import SHARED, Placement, TenantRecord
from tenantguard.orm.placement.tables import CONTROL_PLANE, TENANTS
from tenantguard.orm.protect import is_protected
from tenantguard.tokens.background import wait_for
from tenantguard.tokens.blocking_database import BlockingDatabase

__all__ = ["SqlTenants"]

_NAME: Final = "tenant directory"
_MEND: Final = (
    "Check that the database is up and that the tables were made: directory.create_tables(), or "
    "tenantguard tenants create-tables."
)
_MOST_SECONDS: Final = 300.0


@final
class SqlTenants:
    """A tenant directory in a SQL database, cached. Thread-safe. It is a `TenantDirectory`.

    Args:
        engine: the control plane's database: a URL with a synchronous driver, or an engine that tenantguard does not
            protect. With an `AsyncEngine` the directory answers async callers alone, in that engine's event loop, and
            changes are made through another one with a URL.
        ttl: most seconds that a record is gone on with, from 0 to 300. It is written into the records that this
            directory adds; a record is never kept longer than it says.
        max_tenants: most records that are kept, unknown ids included.
        timeout: most seconds that a caller waits for the database.

    Raises:
        ConfigurationError: it is no such engine or URL, or a number is not usable.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine | URL | str,
        *,
        ttl: float = 5.0,
        max_tenants: int = 10_000,
        timeout: float = 5.0,
    ) -> None:
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 <= ttl <= _MOST_SECONDS:
            raise ConfigurationError("ttl is not a number of seconds from 0 to 300.", mend="Leave ttl out.")
        if isinstance(max_tenants, bool) or not isinstance(max_tenants, int) or max_tenants < 1:
            raise ConfigurationError("max_tenants is no number from 1 on.", mend="Leave max_tenants out.")
        self.ttl = float(ttl)
        self._max = max_tenants
        self._timeout = timeout
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, tuple[float, TenantRecord | None]] = OrderedDict()
        self._asking: dict[tuple[str, bool], Future[None]] = {}
        self._async: AsyncEngine | None = None
        self._database: BlockingDatabase | None = None
        if isinstance(engine, AsyncEngine):
            if is_protected(engine):
                raise ConfigurationError(
                    "The engine of the tenant directory is protected, and is asked before a tenant is bound.",
                    mend="Give the database's URL, or an engine of its own.",
                )
            self._async = engine
        else:
            self._database = BlockingDatabase(engine, name=_NAME, mend=_MEND, timeout=timeout)

    # --- reading ---------------------------------------------------------------------------------------------

    async def get(self, tenant_id: str, /) -> Tenant | None:
        """Return the tenant with its status, or ``None`` if there is none of that id, or it is removed.

        Raises:
            StoreUnavailable: it is not in the cache, and the database does not answer.
        """
        record = await self.find(tenant_id)
        return None if record is None or record.status is TenantStatus.REMOVED else record.tenant

    async def find(self, tenant_id: str, /) -> TenantRecord | None:
        """Return all that is known of a tenant, removed ones included; ``None`` if there never was one of that id.

        Raises:
            StoreUnavailable: it is not in the cache, and the database does not answer.
        """
        while True:
            known = self.cached(tenant_id)
            if known is not None:
                return known[1]
            leads, answer = self._lead(tenant_id, blocking=False)
            if not leads:
                await self._followed(answer)
                continue
            try:
                asked = time.monotonic()
                return self._keep(tenant_id, asked, await self._fetch(tenant_id))
            finally:
                self._answered(tenant_id, answer, blocking=False)

    def find_blocking(self, tenant_id: str, /) -> TenantRecord | None:
        """Do the same for a caller that is not async, whose thread waits.

        Raises:
            StoreUnavailable: it is not in the cache, and the database does not answer.
            ConfigurationError: the directory has an `AsyncEngine`.
        """
        database = self._blocking()
        while True:
            known = self.cached(tenant_id)
            if known is not None:
                return known[1]
            leads, answer = self._lead(tenant_id, blocking=True)
            if not leads:
                try:
                    answer.result(self._timeout)
                except TimeoutError:
                    raise self._late() from None
                continue
            try:
                asked = time.monotonic()
                return self._keep(tenant_id, asked, database.run_blocking(lambda c: _read(c, tenant_id)))
            finally:
                self._answered(tenant_id, answer, blocking=True)

    def cached(self, tenant_id: str, /) -> tuple[float, TenantRecord | None] | None:
        """Return what the cache has of a tenant and until when it counts; ``None`` where it has to be asked."""
        known = self._cache.get(tenant_id)
        return known if known is not None and time.monotonic() < known[0] else None

    def forget(self, tenant_id: str, /) -> None:
        """Read a tenant anew the next time: after a change that was made elsewhere."""
        with self._lock:
            self._cache.pop(tenant_id, None)

    def _lead(self, tenant_id: str, *, blocking: bool) -> tuple[bool, Future[None]]:
        """Return whether the caller is the one who asks the database, and what the others wait for.

        Who blocks does not wait for who does not: they could share a thread.
        """
        with self._lock:
            asking = self._asking.get((tenant_id, blocking))
            if asking is not None:
                return False, asking
            mine = self._asking[tenant_id, blocking] = Future()
            return True, mine

    def _answered(self, tenant_id: str, answer: "Future[None]", *, blocking: bool) -> None:
        with self._lock:
            if self._asking.get((tenant_id, blocking)) is answer:
                del self._asking[tenant_id, blocking]
        answer.set_result(None)

    async def _followed(self, answer: "Future[None]") -> None:
        try:
            await wait_for(answer, self._timeout)
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> StoreUnavailable:
        return StoreUnavailable(f"The {_NAME} did not answer in time.", mend=_MEND)

    def _keep(self, tenant_id: str, asked: float, record: TenantRecord | None) -> TenantRecord | None:
        seconds = self.ttl if record is None else min(self.ttl, record.cache_seconds)
        with self._lock:
            self._cache[tenant_id] = (asked + seconds, record)
            self._cache.move_to_end(tenant_id)
            while len(self._cache) > self._max:
                self._cache.popitem(last=False)
        return record

    async def _fetch(self, tenant_id: str) -> TenantRecord | None:
        if self._database is not None:
            return await self._database.run(lambda connection: _read(connection, tenant_id))
        assert self._async is not None
        try:
            with anyio.fail_after(self._timeout):
                async with self._async.connect() as connection:
                    return await connection.run_sync(_read, tenant_id)
        except TimeoutError:
            raise self._late() from None
        except Exception as fault:  # noqa: BLE001 - fails closed, without the statement's values
            kind = type(getattr(fault, "orig", None) or fault).__name__
            raise StoreUnavailable(f"The {_NAME} failed ({kind}).", mend=_MEND) from None

    def _blocking(self) -> BlockingDatabase:
        if self._database is None:
            raise ConfigurationError(
                "This tenant directory has an AsyncEngine, which only async callers can use.",
                mend="Give SqlTenants the database's URL with a synchronous driver.",
            )
        return self._database

    # --- changes ---------------------------------------------------------------------------------------------

    def create_tables(self) -> None:
        """Make the tables of the control plane, where they are not there."""
        self.run(CONTROL_PLANE.create_all)

    def run(self, work: Callable[[Connection], Any]) -> Any:
        """Do work in a transaction of the control plane, which is committed if the work returns.

        Raises:
            StoreUnavailable: the database failed, or did not answer in time.
            ConfigurationError: the directory has an `AsyncEngine`.
        """
        return self._blocking().run_blocking(work)

    def add(
        self,
        tenant_id: str,
        *,
        name: str | None = None,
        plan: str | None = None,
        placement: Placement = SHARED,
        status: TenantStatus = TenantStatus.ACTIVE,
    ) -> TenantRecord:
        """Add a tenant whose place is there already. `create_tenant` makes the place as well.

        Raises:
            PlacementError: the id or the place is taken.
            InvalidTenantId: the id is not usable.
        """
        record = TenantRecord(Tenant(validate_tenant_id(tenant_id), status, name), placement, plan, self.ttl)

        def work(connection: Connection) -> bool:
            try:
                connection.execute(TENANTS.insert(), _row(record) | {"created_at": int(time.time())})
            except IntegrityError:
                return False
            return True

        if not self.run(work):
            raise PlacementError(
                "There is a tenant of that id, or one that has that place.",
                mend="The id of a removed tenant is not given again. Choose another id, or another place.",
            )
        self.forget(tenant_id)
        return record

    def change(self, record: TenantRecord, **changes: Any) -> TenantRecord:
        """Change a tenant, if it is as the record says.

        Args:
            record: as it was read.
            changes: ``status``, ``name``, ``plan``, ``placement``, ``cache_seconds``.

        Raises:
            PlacementError: somebody else has changed it since, or the place is taken.
        """
        tenant = Tenant(record.id, changes.get("status", record.status), changes.get("name", record.tenant.name))
        new = TenantRecord(
            tenant,
            changes.get("placement", record.placement),
            changes.get("plan", record.plan),
            changes.get("cache_seconds", record.cache_seconds),
            record.revision + 1,
        )

        def work(connection: Connection) -> bool:
            try:
                done = connection.execute(
                    TENANTS.update()
                    .where(TENANTS.c.id == record.id, TENANTS.c.revision == record.revision)
                    .values(_row(new))
                )
            except IntegrityError:
                return False
            return done.rowcount == 1

        if not self.run(work):
            raise PlacementError(
                "The tenant was changed by somebody else meanwhile, or the place is another tenant's.",
                mend="Read it again, and try again.",
            )
        self.forget(record.id)
        return new

    def discard(self, tenant_id: str) -> None:
        """Strike out a tenant that was never let in. One that was stays known as removed."""
        never = (TENANTS.c.id == tenant_id, TENANTS.c.status == TenantStatus.PROVISIONING)
        self.run(lambda connection: connection.execute(TENANTS.delete().where(*never)))
        self.forget(tenant_id)

    def read(self, tenant_id: str) -> TenantRecord:
        """Return a tenant as the database has it now, past the cache.

        Raises:
            UnknownTenant: there is none.
        """
        found: TenantRecord | None = self.run(lambda connection: _read(connection, tenant_id))
        if found is None:
            raise UnknownTenant("There is no tenant of that id.")
        return found

    def list(self, *, status: TenantStatus | None = None, plan: str | None = None) -> tuple[TenantRecord, ...]:
        """Return the tenants, by id: of one status (left out: all but removed ones), of one plan."""
        statement = select(TENANTS).order_by(TENANTS.c.id)
        statement = statement.where(
            TENANTS.c.status == status if status is not None else TENANTS.c.status != TenantStatus.REMOVED
        )
        if plan is not None:
            statement = statement.where(TENANTS.c.plan == plan)
        found: tuple[TenantRecord, ...] = self.run(lambda c: tuple(_record(row) for row in c.execute(statement)))
        return found

    async def aclose(self) -> None:
        """Close the directory, and the engine if it is its own. Nobody is let in by it afterwards."""
        if self._database is not None:
            await self._database.aclose()

    def close(self) -> None:
        """Do the same for a caller that is not async."""
        if self._database is not None:
            self._database.close()

    def __repr__(self) -> str:
        return f"SqlTenants({len(self._cache)} cached, ttl={self.ttl})"


def _read(connection: Connection, tenant_id: str) -> TenantRecord | None:
    row = connection.execute(select(TENANTS).where(TENANTS.c.id == tenant_id)).one_or_none()
    # MySQL's and other collations may take another id for it.
    return _record(row) if row is not None and row.id == tenant_id else None


def _record(row: Any) -> TenantRecord:
    return TenantRecord(
        Tenant(row.id, TenantStatus(row.status), row.name),
        Placement(row.database, row.schema),
        row.plan,
        row.cache_seconds,
        row.revision,
    )


def _row(record: TenantRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "status": record.status.value,
        "name": record.tenant.name,
        "plan": record.plan,
        "database": record.placement.database,
        "schema": record.placement.schema,
        "place": record.placement.key,
        "cache_seconds": record.cache_seconds,
        "revision": record.revision,
        "changed_at": int(time.time()),
    }
