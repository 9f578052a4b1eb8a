"""The barrier of placement: on an engine of `Placements` a statement runs in the bound tenant's place, or not at all.

The schema travels in SQLAlchemy's ``schema_translate_map``, an execution option, which is rendered into the statement;
nothing is left behind on a pooled connection. Options are the caller's to set, so they decide nothing: before each
statement the map in effect is compared with what the tenant directory says of the bound tenant, and so is the database.

The comparison also keeps a transaction from outliving its tenant's stay. The directory's record is good for some
seconds; then it is read again, before the next statement or before the commit. So whoever moves a tenant needs to wait
just as long, and knows that nothing is committed in the old place any more.
"""

import functools
from collections.abc import Callable
from typing import Any, Final, final

from sqlalchemy.pool.base import _ConnectionFairy
from sqlalchemy.util import await_

from tenantguard.binding import current_binding
from tenantguard.errors import ConfigurationError, StatementRefused, TenantMismatch, UnknownTenant
from tenantguard.identity import TenantStatus
from tenantguard.orm.compiler import SAVEPOINTS
from tenantguard.orm.identifiers import LateRefusal
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.records import TenantRecord
from tenantguard.tenancy.agreement import refusal_of

__all__ = ["PlaceCheck", "PlaceMap", "usable"]

_COMMITTED_FOR: Final = "tenantguard placed"


@final
class PlaceMap(dict[str | None, str]):
    """The ``schema_translate_map`` of a place: tables without a schema stand in this one. It never changes."""

    __slots__ = ("schema",)

    def __init__(self, schema: str) -> None:
        super().__init__({None: schema, "_none": schema})  # SQLAlchemy sets the second where it is missing
        self.schema: Final = schema

    def __setitem__(self, key: Any, value: str) -> None:
        if self.get(key) != value:
            self._refuse()

    def _refuse(self, *_args: Any, **_kw: Any) -> Any:
        raise LateRefusal(
            "The map that leads to a tenant's schema can't be changed.",
            mend="The bound tenant decides: bind another one.",
        )

    __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def holds(self, schema: str) -> bool:
        """True if it leads to that schema, and to no other."""
        return self.schema == schema and len(self) == 2 and self.get(None) == schema and self.get("_none") == schema


def usable(record: TenantRecord | None) -> TenantRecord:
    """Return a tenant's record if the tenant may be used now.

    Raises:
        UnknownTenant: there is none, or the tenant is removed.
        SuspendedTenant: it is suspended.
        TenantUnavailable: it is being set up or moved.
    """
    if record is None:
        raise UnknownTenant("The tenant directory does not know the bound tenant.")
    if record.status is not TenantStatus.ACTIVE:
        raise refusal_of(record.status)
    return record


@final
class PlaceCheck:
    """Compares where a statement would run with where the bound tenant is.

    Args:
        directory: knows where tenants are.
        database: the name of the engine's database; ``None`` for the one with the shared tables.
    """

    __slots__ = ("_database", "_directory", "_is_async")

    def __init__(self, directory: SqlTenants, database: str | None) -> None:
        self._directory = directory
        self._database = database
        self._is_async = False

    def install(self, engine: Any) -> None:
        """Put the check into a protected engine, for good.

        Raises:
            ConfigurationError: the engine has one.
        """
        dialect = engine.dialect
        if dialect.tenantguard_placement is not None:
            raise ConfigurationError(
                "The engine belongs to other Placements already.", mend="Use one Placements for an engine."
            )
        self._is_async = bool(dialect.is_async)
        dialect.tenantguard_placement = self
        dialect.do_commit = self._checked(dialect.do_commit)
        dialect.do_rollback = _forgetting(dialect.do_rollback)
        dialect.do_prepare_twophase = _refused_twophase

    def check(self, context: Any) -> None:
        """Raise unless an execution is in the place of the bound tenant. System contexts pass.

        Raises:
            TenantGuardError: it is not, or the tenant may not be used now.
        """
        binding = current_binding()
        if binding is None or binding.system is not None:
            return  # the barrier refuses the one and lets the other through
        if binding.identity is None or binding.identity.tenant is None:
            return  # refused by the barrier
        tenant_id = binding.identity.tenant.id
        record = self._right_database(tenant_id)
        given = context.execution_options.get("schema_translate_map")
        schema = record.placement.schema
        if schema is None:
            if given:
                raise _elsewhere()
        elif type(given) is not PlaceMap or not given.holds(schema):
            raise _elsewhere()
        else:
            self._check_text(context)
        for other in binding.reads:
            if not record.placement.is_shared or self._right_database(other).placement.schema is not None:
                raise StatementRefused(
                    "Rows of further tenants were to be read, and not all of them are in the shared tables.",
                    mend="Bind each tenant for itself.",
                )
        context.root_connection.connection.info[_COMMITTED_FOR] = tenant_id

    def _check_text(self, context: Any) -> None:
        """Refuse statements whose text was fixed before the schema was known.

        Raises:
            StatementRefused: it is one.
        """
        compiled = context.compiled
        if context.isddl:
            return  # refused by the barrier
        if isinstance(getattr(compiled, "statement", None), SAVEPOINTS):
            return
        if not getattr(compiled, "leaves_place_open", False) or compiled.used_raw:
            raise StatementRefused(
                "A statement whose text is fixed does not know the schema of the bound tenant.",
                mend="Execute SQLAlchemy constructs made of the app's tables, not text and not a compiled object.",
            )

    def _right_database(self, tenant_id: str) -> TenantRecord:
        known = self._directory.cached(tenant_id)
        if known is not None:
            found = known[1]
        elif self._is_async:
            found = await_(self._directory.find(tenant_id))
        else:
            found = self._directory.find_blocking(tenant_id)
        record = usable(found)
        if record.placement.database != self._database:
            raise TenantMismatch(
                "The bound tenant's rows are in another database than the engine's.",
                mend="Get sessions and connections from Placements while the tenant is bound.",
            )
        return record

    def _checked(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(original)
        def do_commit(connection: Any) -> None:
            tenant_id = connection.info.pop(_COMMITTED_FOR, None)
            if tenant_id is not None:
                self._right_database(tenant_id)
            original(connection)

        return do_commit


def _forgetting(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(original)
    def do_rollback(connection: Any) -> None:
        if isinstance(connection, _ConnectionFairy):  # the pool also rolls back the driver's own connection
            connection.info.pop(_COMMITTED_FOR, None)
        original(connection)

    return do_rollback


def _refused_twophase(*_args: Any) -> None:
    raise StatementRefused(
        "A prepared transaction could be committed when its tenant is elsewhere.", mend="Commit in one phase."
    )


def _elsewhere() -> StatementRefused:
    return StatementRefused(
        "The schema_translate_map in effect does not lead to the place of the bound tenant.",
        mend="Leave schema_translate_map out: Placements sets it.",
    )
