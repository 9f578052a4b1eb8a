"""Setting up, erasing and removing a tenant, each as one operation that goes on where it was interrupted."""

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import select

from tenantguard.errors import PlacementError, UnknownTenant
from tenantguard.identity import TenantStatus, validate_tenant_id
from tenantguard.orm.placement.databases import Databases
from tenantguard.orm.placement.ddl import (
    PlaceStep,
    create_database,
    create_schema,
    create_tables,
    drop_place,
    place_is_there,
    run_steps,
    seed_shared,
)
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.operations import Operation, Tell, open_operation, pending_operation
from tenantguard.orm.placement.records import SHARED, Placement, TenantRecord
from tenantguard.orm.placement.rows import Erased, TablePlan, as_tenant, count_rows, erase_rows
from tenantguard.orm.placement.tables import TENANTS

__all__ = [
    "Erasure",
    "cancel_create",
    "check_alone",
    "create_tenant",
    "erase_tenant",
    "make_place",
    "remove_tenant",
    "settle",
]

GRACE: Final = 1.0
"""Seconds that a move waits beyond the records' time, for commits that are under way."""


class Erasure(NamedTuple):
    """The proof that a tenant's rows are gone.

    Args:
        tenant: its id.
        placement: where its rows were.
        tables: what was removed from each table; ``after`` is 0 in all.
        dropped: True if the whole place was dropped.
    """

    tenant: str
    placement: Placement
    tables: tuple[Erased, ...]
    dropped: bool

    @property
    def rows(self) -> int:
        """How many rows were removed."""
        return sum(table.deleted for table in self.tables)


def create_tenant(
    directory: SqlTenants,
    databases: Databases,
    tenant_id: str,
    *,
    name: str | None = None,
    plan: str | None = None,
    placement: Placement = SHARED,
    steps: Mapping[str, PlaceStep] | None = None,
    tell: Tell | None = None,
    take_over: bool = False,
) -> TenantRecord:
    """Set a tenant up: enter it, make its database, schema and tables, and let it in. Call it again after a crash.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        tenant_id: the tenant.
        name: a display name.
        plan: its plan, in the app's own words.
        placement: where its rows are to be: `SHARED`, `own_schema`, `own_database`.
        steps: what the app does to a new place besides, by name and in order; see `PlaceStep`.
        tell: told how far it is.
        take_over: see `open_operation`: go on although the process that died still holds its claim.

    Returns:
        The tenant's record; it is active.

    Raises:
        PlacementError: the id or the place is taken; another operation on the tenant is open, or worked on elsewhere.
        ConfigurationError: the place can't be made on this kind of database, or tables of tenants name a schema and
            would not stand in the tenant's own.
    """
    validate_tenant_id(tenant_id)
    databases.check_schema(placement)
    own = dict(steps or {})
    tables = TablePlan(databases.tables)
    detail = {"placement": msgspec.structs.asdict(placement), "name": name, "plan": plan}
    if pending_operation(directory, tenant_id) != "create":
        _refuse_existing(directory, tenant_id)
    with open_operation(
        directory, "create", tenant_id, detail, makes=placement, tell=tell, take_over=take_over
    ) as operation:
        operation.steps = 6 + len(own)

        def register() -> None:
            try:
                known = directory.read(tenant_id)
            except UnknownTenant:
                check_alone(directory, tenant_id, placement)
                directory.add(tenant_id, name=name, plan=plan, placement=placement, status=TenantStatus.PROVISIONING)
                return
            if known.status is not TenantStatus.PROVISIONING or known.placement != placement:
                operation.finish("cancelled")
                raise PlacementError("There is a tenant of that id.", mend="Choose another id.")

        operation.step("register", register)
        make_place(operation, databases, tables, placement, own)
        operation.step("activate", lambda: _activate(directory, tenant_id))
        operation.finish()
    return directory.read(tenant_id)


def cancel_create(directory: SqlTenants, databases: Databases, tenant_id: str, *, take_over: bool = False) -> None:
    """Take back a tenant that could not be set up: its place is dropped as far as it was made, and its id is free.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        tenant_id: the tenant.
        take_over: see `open_operation`.

    Raises:
        PlacementError: there is no open operation that sets it up, or the tenant is in use.
    """
    with open_operation(directory, "create", tenant_id, None, take_over=take_over) as operation:
        placement = operation.placement("placement")
        if "activate" in operation.done:
            raise PlacementError("The tenant is set up.", mend="Call create_tenant() again, which finishes it.")
        made = "database" in operation.done and "schema" in operation.done  # each refused what was there
        if made and not placement.is_shared:
            check_alone(directory, tenant_id, placement)
            drop_place(databases, placement)
        directory.discard(tenant_id)
        operation.finish("cancelled")


def _refuse_existing(directory: SqlTenants, tenant_id: str) -> None:
    try:
        known = directory.read(tenant_id)
    except UnknownTenant:
        return
    if known.status is not TenantStatus.PROVISIONING:
        raise PlacementError(
            "There is a tenant of that id.", mend="Choose another id; that of a removed tenant is not given again."
        )


def _activate(directory: SqlTenants, tenant_id: str) -> None:
    known = directory.read(tenant_id)
    if known.status is TenantStatus.PROVISIONING:
        directory.change(known, status=TenantStatus.ACTIVE)


def check_alone(directory: SqlTenants, tenant_id: str, placement: Placement) -> None:
    """Raise if a place is another tenant's, or a database would be one tenant's own and hold the schema of another.

    Raises:
        PlacementError: it is.
    """
    if placement.is_shared:
        return
    taken = select(TENANTS.c.id).where(TENANTS.c.place == placement.key, TENANTS.c.id != tenant_id)
    if directory.run(lambda c: c.scalars(taken).all()):
        raise PlacementError("The place is another tenant's.", mend="Choose another one.")
    if placement.database is None:
        return
    others = select(TENANTS.c.schema).where(TENANTS.c.database == placement.database, TENANTS.c.id != tenant_id)
    schemas = directory.run(lambda c: c.scalars(others).all())
    if (placement.schema is None and schemas) or None in schemas:
        raise PlacementError(
            "The database is another tenant's own, or holds schemas of others.", mend="Choose another database."
        )


def make_place(
    operation: Operation,
    databases: Databases,
    tables: TablePlan,
    placement: Placement,
    own: Mapping[str, PlaceStep],
) -> None:
    """Do the steps that make a place, as far as they are not done."""
    operation.step("database", lambda: create_database(databases, placement))
    operation.step("schema", lambda: create_schema(databases, placement))
    operation.step("tables", lambda: create_tables(databases, placement))
    operation.step("shared rows", lambda: seed_shared(databases, tables, placement))
    for name in own if not placement.is_shared else ():
        operation.step(f"own: {name}"[:32], lambda name=name: run_steps(databases, placement, own, name))  # type: ignore[misc]


def settle(operation: Operation, directory: SqlTenants, status: TenantStatus, *, grace: float = GRACE) -> None:
    """Shut the door on a tenant, and wait until every process has noticed.

    Raises:
        PlacementError: the tenant's status does not allow it.
    """

    def announce() -> None:
        known = directory.read(operation.tenant)
        if known.status is status:
            return
        if known.status not in (TenantStatus.ACTIVE, TenantStatus.SUSPENDED):
            raise PlacementError(f"The tenant is {known.status.value}.", mend="Finish what was begun with it first.")
        directory.change(known, status=status)

    operation.step("shut the door", announce)

    def wait() -> None:
        end = time.monotonic() + directory.read(operation.tenant).cache_seconds + grace
        while (left := end - time.monotonic()) > 0:
            operation.tell("wait until every process has noticed")
            time.sleep(min(left, 0.5))

    operation.step("wait", wait)


def erase_tenant(
    directory: SqlTenants,
    databases: Databases,
    tenant_id: str,
    *,
    tell: Tell | None = None,
    take_over: bool = False,
    grace: float = GRACE,
) -> Erasure:
    """Delete all rows of a tenant wherever they are, and count before and after. The tenant is suspended then.

    Nobody uses the tenant meanwhile: its door is shut first, and every process has noticed before a row is touched. All
    rows are deleted in one transaction. Rows of other tenants are not reached: the barrier is in between.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        tenant_id: the tenant.
        tell: told how far it is.
        take_over: see `open_operation`.
        grace: seconds to wait beyond the time that records may be cached.

    Raises:
        PlacementError: rows are left, other rows point to them, or another operation is open.
        UnknownTenant: there is no such tenant.
    """
    return _gone(directory, databases, tenant_id, "erase", tell=tell, take_over=take_over, grace=grace)


def remove_tenant(
    directory: SqlTenants,
    databases: Databases,
    tenant_id: str,
    *,
    tell: Tell | None = None,
    take_over: bool = False,
    grace: float = GRACE,
) -> Erasure:
    """Remove a tenant for good: its rows, or the whole of its own schema or database. Its id is not given again.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        tenant_id: the tenant.
        tell: told how far it is.
        take_over: see `open_operation`.
        grace: seconds to wait beyond the time that records may be cached.

    Raises:
        PlacementError: rows are left, other rows point to them, or another operation is open.
        UnknownTenant: there is no such tenant.
    """
    return _gone(directory, databases, tenant_id, "remove", tell=tell, take_over=take_over, grace=grace)


def _gone(
    directory: SqlTenants,
    databases: Databases,
    tenant_id: str,
    kind: str,
    *,
    tell: Tell | None,
    take_over: bool,
    grace: float,
) -> Erasure:
    plan = TablePlan(databases.tables)
    detail = None
    if pending_operation(directory, tenant_id) is None:
        known = directory.read(tenant_id)
        if known.status is TenantStatus.REMOVED:
            raise UnknownTenant("The tenant is removed.")
        databases.check_schema(known.placement)
        detail = {"placement": msgspec.structs.asdict(known.placement)}
    with open_operation(directory, kind, tenant_id, detail, tell=tell, take_over=take_over) as operation:
        operation.steps = 5
        placement = operation.placement("placement")
        drops = kind == "remove" and not placement.is_shared
        settle(operation, directory, TenantStatus.REMOVING, grace=grace)

        def count() -> dict[str, int]:
            if not place_is_there(databases, placement):
                return {}
            with databases.engine(placement) as engine, as_tenant(tenant_id, kind), engine.connect() as connection:
                return count_rows(connection, plan, tenant_id)

        def erase() -> list[list[Any]]:
            if drops:
                before = operation.step("count", count)
                check_alone(directory, tenant_id, placement)
                drop_place(databases, placement)
                if place_is_there(databases, placement):
                    raise PlacementError("The place is still there.", mend="Somebody made it again: look who.")
                return [[table, rows, rows, 0] for table, rows in before.items()]
            with databases.engine(placement) as engine, as_tenant(tenant_id, kind), engine.begin() as connection:
                return [list(one) for one in erase_rows(connection, plan, tenant_id, operation.tell)]

        erased = operation.step("erase", erase)
        after = TenantStatus.REMOVED if kind == "remove" else TenantStatus.SUSPENDED
        operation.step("close", lambda: _close(directory, tenant_id, after))
        operation.finish()
    return Erasure(tenant_id, placement, tuple(Erased(*one) for one in erased), drops)


def _close(directory: SqlTenants, tenant_id: str, status: TenantStatus) -> None:
    known = directory.read(tenant_id)
    if known.status is status:
        return
    if status is TenantStatus.REMOVED:
        directory.change(known, status=status, placement=SHARED, name=None, plan=None)
    else:
        directory.change(known, status=status)
