"""Moving a tenant to another place: from the shared tables to a schema or database of its own, back, or between two.

While it is moved the tenant is refused, so there is nothing to catch up with. Its rows are copied in one transaction,
compared row by row in both places, and deleted in the old place only if that still has exactly what was copied. Until
then the move can be taken back with `cancel_move`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import msgspec
from sqlalchemy import Connection

from tenantguard.errors import ConfigurationError, PlacementError
from tenantguard.identity import TenantStatus
from tenantguard.orm.placement.databases import Databases
from tenantguard.orm.placement.ddl import PlaceStep, advance_sequences, drop_place, held_schema, place_is_there
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.operations import Operation, Tell, open_operation, pending_operation
from tenantguard.orm.placement.provision import GRACE, check_alone, make_place, settle
from tenantguard.orm.placement.records import Placement, TenantRecord
from tenantguard.orm.placement.rows import (
    TablePlan,
    as_tenant,
    count_rows,
    digests_of,
    erase_rows,
    highest_numbers,
    read_rows,
    write_rows,
)

__all__ = ["Moved", "cancel_move", "move_tenant"]


@final
class Moved(NamedTuple):
    """A move that is done.

    Args:
        record: the tenant, in its new place.
        source: where it was.
        tables: the number of rows and their digest, by table; both places had the same.
    """

    record: TenantRecord
    source: Placement
    tables: dict[str, tuple[int, str]]

    @property
    def rows(self) -> int:
        """How many rows were moved."""
        return sum(rows for rows, _ in self.tables.values())


@contextmanager
def _looking(databases: Databases, placement: Placement, tenant_id: str, *, isolated: bool) -> Iterator[Connection]:
    """Give a connection in a transaction, as the tenant, that sees one moment of the database."""
    with databases.engine(placement) as engine, as_tenant(tenant_id, "move"):
        level = {"isolation_level": "REPEATABLE READ"} if isolated and engine.dialect.name == "postgresql" else {}
        with engine.connect().execution_options(**level) as connection, connection.begin():
            yield connection


def move_tenant(
    directory: SqlTenants,
    databases: Databases,
    tenant_id: str,
    target: Placement,
    *,
    steps: Mapping[str, PlaceStep] | None = None,
    tell: Tell | None = None,
    take_over: bool = False,
    grace: float = GRACE,
) -> Moved:
    """Move a tenant to another place, and compare every row. Call it again, with the same target, after a crash.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        tenant_id: the tenant. It is refused while it is moved.
        target: its new place; a place of its own is made, and the old one dropped.
        steps: see `create_tenant`.
        tell: told how far it is.
        take_over: see `open_operation`.
        grace: seconds to wait beyond the time that records may be cached.

    Raises:
        PlacementError: the places differ, a row is in the way, or another operation is open. The tenant stays refused:
            call it again when the cause is mended, or `cancel_move`.
        ConfigurationError: it is there already, the place can't be made on this kind of database, or tables of tenants
            name a schema and would not stand in the tenant's own.
    """
    own = dict(steps or {})
    plan = TablePlan(databases.tables)
    detail: dict[str, Any] | None = None
    if pending_operation(directory, tenant_id) is None:
        record = directory.read(tenant_id)
        if record.placement == target:
            raise ConfigurationError("The tenant is in that place already.", mend="Name another one.")
        databases.check_schema(record.placement)
        databases.check_schema(target)
        check_alone(directory, tenant_id, target)
        detail = {
            "source": msgspec.structs.asdict(record.placement),
            "target": msgspec.structs.asdict(target),
            "was": record.status.value,
        }
    with open_operation(
        directory, "move", tenant_id, detail, makes=target, tell=tell, take_over=take_over
    ) as operation:
        operation.steps = 11 + len(own)
        if operation.placement("target") != target:
            raise PlacementError(
                "A move of the tenant to another place is open.", mend="Finish it, or take it back with cancel_move()."
            )
        source = operation.placement("source")
        settle(operation, directory, TenantStatus.MOVING, grace=grace)
        make_place(operation, databases, plan, target, own)
        highest = operation.step("copy", lambda: _copy(operation, databases, plan, source, target))
        operation.step("sequences", lambda: advance_sequences(databases, target, plan, highest))
        digests = operation.step("compare", lambda: _compare(operation, databases, plan, source, target))
        operation.step("switch", lambda: _switch(directory, tenant_id, target))
        operation.step("clear", lambda: _clear(operation, directory, databases, plan, source, digests))
        operation.step("let in", lambda: _let_in(operation, directory))
        operation.finish()
    return Moved(directory.read(tenant_id), source, {table: (rows, hex_) for table, (rows, hex_) in digests.items()})


def _copy(
    operation: Operation, databases: Databases, plan: TablePlan, source: Placement, target: Placement
) -> dict[str, dict[str, int]]:
    tenant = operation.tenant
    with (
        _looking(databases, source, tenant, isolated=True) as old,
        _looking(databases, target, tenant, isolated=False) as new,
    ):
        if any(count_rows(new, plan, tenant).values()):
            # Copied and not written down, or somebody else's work; if it is the same, it does not matter.
            if digests_of(new, plan, tenant) != digests_of(old, plan, tenant):
                raise PlacementError(
                    "The new place has rows of the tenant already, and they are others than in the old one.",
                    mend="Erase them there, or choose another place.",
                )
        else:
            write_rows(new, plan, lambda table: read_rows(old, plan, table, tenant), operation.tell)
        return highest_numbers(new, plan, tenant)


def _compare(
    operation: Operation, databases: Databases, plan: TablePlan, source: Placement, target: Placement
) -> dict[str, Any]:
    tenant = operation.tenant
    with _looking(databases, source, tenant, isolated=True) as old:
        before = digests_of(old, plan, tenant, operation.tell)
    with _looking(databases, target, tenant, isolated=True) as new:
        after = digests_of(new, plan, tenant, operation.tell)
    unequal = [table for table in before if before[table] != after.get(table)]
    if unequal:
        raise PlacementError(
            f"The places have different rows in {', '.join(unequal)}.",
            mend="Look for what writes there, or for a column whose values the new place keeps differently. Then take "
            "the move back with cancel_move(), and begin again.",
        )
    return {table: list(one) for table, one in before.items()}


def _switch(directory: SqlTenants, tenant_id: str, placement: Placement) -> None:
    known = directory.read(tenant_id)
    if known.placement != placement:
        directory.change(known, placement=placement)


def _clear(
    operation: Operation,
    directory: SqlTenants,
    databases: Databases,
    plan: TablePlan,
    source: Placement,
    digests: Mapping[str, Any],
) -> None:
    """Delete what was moved from the old place, if it is still what was moved."""
    tenant = operation.tenant
    if not source.is_shared and not place_is_there(databases, source):
        return  # dropped, and not written down
    if source.schema is not None:
        check_alone(directory, tenant, source)
        with held_schema(databases, source, plan) as drop:
            _erase_unchanged(operation, databases, plan, source, digests)
            drop()
        return
    _erase_unchanged(operation, databases, plan, source, digests)
    if not source.is_shared:
        check_alone(directory, tenant, source)
        drop_place(databases, source)
        return
    with _looking(databases, source, tenant, isolated=False) as old:
        late = [table for table, rows in count_rows(old, plan, tenant).items() if rows]
    if late:
        raise PlacementError(
            f"Rows came into the old place while it was cleared: {', '.join(late)}.",
            mend="Something writes there that does not ask the tenant directory: stop it, and carry the rows over.",
        )


def _erase_unchanged(
    operation: Operation, databases: Databases, plan: TablePlan, source: Placement, digests: Mapping[str, Any]
) -> None:
    """Raise if the old place is not what was moved any more, and erase the rows where it is the shared one."""
    tenant = operation.tenant
    with _looking(databases, source, tenant, isolated=True) as old:
        now = digests_of(old, plan, tenant, operation.tell)
        if not any(rows for rows, _ in now.values()) and source.is_shared:
            return  # erased, and not written down
        changed = [table for table, one in now.items() if list(one) != list(digests[table])]
        if changed:
            raise PlacementError(
                f"The old place has changed since it was copied: {', '.join(changed)}. Nothing was deleted.",
                mend="Something writes there that does not ask the tenant directory: stop it. Then take the move back "
                "with cancel_move(), and begin again.",
            )
        if source.is_shared:
            erase_rows(old, plan, tenant, operation.tell)


def _let_in(operation: Operation, directory: SqlTenants) -> None:
    known = directory.read(operation.tenant)
    if known.status is TenantStatus.MOVING:
        directory.change(known, status=TenantStatus(operation.detail["was"]))


def cancel_move(
    directory: SqlTenants,
    databases: Databases,
    tenant_id: str,
    *,
    tell: Tell | None = None,
    take_over: bool = False,
) -> TenantRecord:
    """Take back a move that is open: the tenant is used in its old place again, and the copy is dropped.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        tenant_id: the tenant.
        tell: told how far it is.
        take_over: see `open_operation`.

    Raises:
        PlacementError: there is no open move, or the old place is cleared: then `move_tenant` finishes it.
    """
    plan = TablePlan(databases.tables)
    with open_operation(directory, "move", tenant_id, None, tell=tell, take_over=take_over) as operation:
        source, target = operation.placement("source"), operation.placement("target")
        if "clear" in operation.done:
            raise PlacementError("The old place is cleared already.", mend="Finish the move: move_tenant().")
        if "switch" in operation.done:
            with _looking(databases, source, tenant_id, isolated=True) as old:
                now = {table: list(one) for table, one in digests_of(old, plan, tenant_id).items()}
            digests = operation.done["compare"]
            if any(now[table][0] < rows for table, (rows, _) in digests.items()):
                raise PlacementError("The old place has been cleared in part.", mend="Finish the move: move_tenant().")
        _switch(directory, tenant_id, source)
        made = "database" in operation.done and "schema" in operation.done  # each refused what was there
        if made and not target.is_shared and place_is_there(databases, target):
            operation.tell("drop the copy")
            check_alone(directory, tenant_id, target)
            drop_place(databases, target)
        elif target.is_shared and "copy" in operation.done:
            with _looking(databases, target, tenant_id, isolated=False) as new:
                erase_rows(new, plan, tenant_id, operation.tell)
        _let_in(operation, directory)
        operation.finish("cancelled")
    return directory.read(tenant_id)
