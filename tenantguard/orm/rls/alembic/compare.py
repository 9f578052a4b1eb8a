"""Autogenerate: what of row-level security differs between the models and the database, as operations of a migration.

It runs after Alembic's own comparisons, so that tables and columns are there before the policies that name them. Where
a column that live policies name is dropped or changes its type, which PostgreSQL refuses, the policies go first and
come back last, and the table stays closed between. What can't be mended by a migration (a role that is a superuser, a
policy of somebody else's) is for ``tenantguard rls check``.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from alembic.autogenerate import comparators
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import AlterColumnOp, CreateTableOp, DropColumnOp, DropTableOp, ModifyTableOps, UpgradeOps
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import MetaData, Table

from tenantguard.errors import ConfigurationError
from tenantguard.orm.marks import INFO, WIDE
from tenantguard.orm.rls.alembic.found import Found, FoundTable
from tenantguard.orm.rls.alembic.operations import (
    DisableTenantRlsOp,
    EnableTenantRlsOp,
    LeaveTenantRlsOp,
    OpenSharedTableOp,
    RemoveTenantRlsOp,
    SecureTenantViewsOp,
    SetUpTenantRlsOp,
    SuspendTenantRlsOp,
)
from tenantguard.orm.rls.check_rights import owners_views
from tenantguard.orm.rls.check_tables import check_tables
from tenantguard.orm.rls.expressions import quoted
from tenantguard.orm.rls.functions import KEYS_TABLE, bodies
from tenantguard.orm.rls.live import Live
from tenantguard.orm.rls.plan import RlsPlan

__all__ = ["RlsOptions", "rls_options"]

OPTION: Final = "tenantguard_rls"
_SCHEMA: Final = KEYS_TABLE.partition(".")[0]
_FORBIDDEN: Final = frozenset({"TRUNCATE", "REFERENCES", "TRIGGER"})
_OF_TABLE: Final = frozenset(
    """
    rls-off force-off missing-policy outdated-policy changed-policy
    missing-link-check outdated-link-check changed-link-check
    """.split()
)
"""What `check_tables` finds that making a table's policies and link checks anew mends."""

log = logging.getLogger("alembic.autogenerate.compare.tenantguard")


@dataclass(frozen=True, slots=True)
class RlsOptions:
    """What autogenerate compares with. `rls_options` makes it.

    Args:
        role: the role that the app logs in as, or that its login is a member of.
        schema: the schema of tables that name none.
        sealed: whether the setting must be sealed.
    """

    role: str
    schema: str = "public"
    sealed: bool = True


def rls_options(*, role: str, schema: str = "public", sealed: bool = True) -> dict[str, Any]:
    """Return the options with which ``context.configure()`` in ``env.py`` has autogenerate look at row-level security.

    Args:
        role: the role that the app logs in as, or that its login is a member of.
        schema: the schema of tables that name none.
        sealed: whether the setting must be sealed.

    Raises:
        ConfigurationError: the role is empty.
    """
    if not role:
        raise ConfigurationError("rls_options() needs the app's role.", mend='For example role="shop_app".')
    return {OPTION: RlsOptions(role, schema, sealed)}


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def _strip(context: AutogenContext, upgrade: UpgradeOps, schemas: object) -> PriorityDispatchResult:  # noqa: ARG001
    """Leave our marks out of ``create_table(info=...)``: Alembic would write what no script can evaluate.

    Where it looks at all schemas, it would also drop the table of the seal's keys, which is in no MetaData.
    """
    for operation in _flat(upgrade, CreateTableOp):
        operation.info = {key: mark for key, mark in operation.info.items() if key not in (INFO, WIDE)}
    upgrade.ops[:] = [operation for operation in upgrade.ops if getattr(operation, "schema", None) != _SCHEMA]
    return PriorityDispatchResult.CONTINUE


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST, qualifier="postgresql")
def _compare(context: AutogenContext, upgrade: UpgradeOps, schemas: object) -> PriorityDispatchResult:  # noqa: ARG001
    options = context.opts.get(OPTION)
    if isinstance(options, RlsOptions) and context.connection is not None:
        named = context.metadata
        metadata = [named] if isinstance(named, MetaData) else list(named or ())
        plan = RlsPlan(*metadata, role=options.role, schema=options.schema, sealed=options.sealed)
        before, after = _Differences(context, plan, upgrade).operations()
        for operation in (*before, *after):
            log.info("Detected that row-level security needs %s", " ".join(map(str, operation.to_diff_tuple())))
        upgrade.ops[:] = [*before, *upgrade.ops, *after]
    return PriorityDispatchResult.CONTINUE


class _Differences:
    """What is to be done before the changes of the tables, and after them."""

    def __init__(self, context: AutogenContext, plan: RlsPlan, upgrade: UpgradeOps) -> None:
        assert context.connection is not None
        self._context = context
        self._plan = plan
        self._connection = context.connection
        self._found = Found(context.connection, plan)
        self._dropped = {(op.schema or plan.schema, op.table_name) for op in _flat(upgrade, DropTableOp)}
        self._modified = {
            (op.schema or plan.schema, op.table_name) for op in upgrade.ops if isinstance(op, ModifyTableOps)
        }
        self._upgrade = upgrade

    def operations(self) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
        """Return both."""
        live = self._checked()
        wrong = {one.table for one in live.findings if one.id in _OF_TABLE}
        suspended = self._suspended()
        before: list[MigrateOperation] = list(self._closing())
        after: list[MigrateOperation] = list(self._setting_up())
        for table in self._tables():
            name = self._plan.name(table)
            right = self._made(table)
            found = self._found.table(name, right.policies, right.link_checks)
            if found is None:
                right.before = self._disabled(table)
            elif found.oid in suspended:
                suspend = SuspendTenantRlsOp(table.name, schema=right.schema)
                suspend.before = self._as_found(table.name, right.schema, found)
                before.append(suspend)
                right.before = SuspendTenantRlsOp(table.name, schema=right.schema)
            elif table.fullname in wrong or not self._has_rights(table, found):
                right.before = self._way_back(right, found)
            else:
                continue
            after.append(right)
        views = owners_views(live)
        if views:
            after.append(SecureTenantViewsOp(views))
        return before, after

    def _checked(self) -> Live:
        """Look at the live tables; what that takes is rolled back."""
        live = Live(self._connection, self._plan)
        if self._found.role:
            savepoint = self._connection.begin_nested()
            try:
                check_tables(live)
            finally:
                savepoint.rollback()
        return live

    def _tables(self) -> Iterator[Table]:
        for table in self._plan.tables:
            if self._context.run_object_filters(table, table.name, "table", False, None):
                yield table

    def _made(self, table: Table) -> EnableTenantRlsOp | OpenSharedTableOp:
        schema, guards = str(table.schema or self._plan.schema), self._plan.link_guards(table)
        if table in self._plan.protected:
            return EnableTenantRlsOp(
                str(table.name),
                role=self._plan.role,
                policies=self._plan.policies(table),
                link_checks=guards,
                schema=schema,
            )
        rights = self._plan.rights(table)
        return OpenSharedTableOp(
            str(table.name), role=self._plan.role, link_checks=guards, rights=rights, schema=schema
        )

    def _disabled(self, table: Table) -> DisableTenantRlsOp:
        return DisableTenantRlsOp(str(table.name), role=self._plan.role, schema=str(table.schema or self._plan.schema))

    def _as_found(self, name: str, schema: str, found: FoundTable) -> MigrateOperation:
        """Return what leads back to what was there."""
        if found.untouched:
            return DisableTenantRlsOp(name, role=self._plan.role, schema=schema)
        if found.on or found.policies:
            return EnableTenantRlsOp(
                name, role=self._plan.role, policies=found.policies, link_checks=found.guards, schema=schema
            )
        return OpenSharedTableOp(
            name, role=self._plan.role, link_checks=found.guards, rights=found.grants, schema=schema
        )

    def _way_back(self, right: EnableTenantRlsOp | OpenSharedTableOp, found: FoundTable) -> MigrateOperation:
        """Return what leads back to the models of before. What was only mended stays mended."""
        names = {one.name for one in right.policies} | {one.function for one in right.link_checks}
        had = {one.name for one in found.policies} | {one.function for one in found.guards}
        protected = found.on or bool(found.policies)
        if found.on and not had and not self._found.has_functions():
            # It had row-level security of somebody else's making, which stays on.
            return SuspendTenantRlsOp(right.table_name, schema=right.schema)
        if protected and had <= names and (right.schema, right.table_name) not in self._modified:
            return LeaveTenantRlsOp()
        return self._as_found(right.table_name, right.schema, found)

    def _has_rights(self, table: Table, found: FoundTable) -> bool:
        right = self._plan.rights(table)
        return found.grants == right and not found.rights & _FORBIDDEN and not found.everybodys and found.sequences

    def _setting_up(self) -> Iterator[MigrateOperation]:
        if self._found.is_set_up():
            return
        plan, functions = self._plan, bodies(sealed=self._plan.sealed)
        made = SetUpTenantRlsOp(role=plan.role, schemas=plan.schemas, sealed=plan.sealed, functions=functions)
        if not self._found.has_functions():
            made.before = RemoveTenantRlsOp(
                role=plan.role,
                schemas=plan.schemas,
                functions=list(functions),
                public_temporary=self._found.public_temporary(),
                public_create=self._found.public_create(),
            )
        yield made

    def _closing(self) -> Iterator[MigrateOperation]:
        """Close the tables that are dropped, while they are there: their functions go with it."""
        for schema, name in sorted(self._dropped):
            found = self._found.table(f"{quoted(schema)}.{quoted(name)}")
            if found is not None and not found.untouched:
                made = DisableTenantRlsOp(name, role=self._plan.role, schema=schema)
                made.before = self._as_found(name, schema, found)
                yield made

    def _suspended(self) -> set[int]:
        """Return the tables whose policies name what is dropped or changes its type."""
        found: set[int] = set()
        for schema, name, column in self._disturbed():
            oid = self._found.oid(f"{quoted(schema)}.{quoted(name)}")
            if oid is not None:
                found.update(self._found.dependents(oid, column))
        return found

    def _disturbed(self) -> Iterator[tuple[str, str, str | None]]:
        for schema, name in self._dropped:
            yield schema, name, None
        for op in _flat(self._upgrade, DropColumnOp):
            yield op.schema or self._plan.schema, op.table_name, op.column_name
        for op in _flat(self._upgrade, AlterColumnOp):
            if op.modify_type is not None:
                yield op.schema or self._plan.schema, op.table_name, op.column_name


def _flat(operations: UpgradeOps, kind: type[Any]) -> Iterable[Any]:
    for operation in operations.ops:
        for one in operation.ops if isinstance(operation, ModifyTableOps) else (operation,):
            if isinstance(one, kind):
                yield one
