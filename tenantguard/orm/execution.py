"""Wall two: nothing reaches the cursor that wall one has not vouched for, and nothing without a tenant.

The checks stand in the execution context, which every path to the database makes: Core, ORM, DDL, driver SQL,
column defaults. They run in ``pre_exec``, the last step before the cursor, outside of the code that wraps
exceptions together with the statement's values.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.engine.cursor import CursorResult
from sqlalchemy.engine.default import DefaultExecutionContext

from tenantguard.context import Binding, current_binding, raw_binding
from tenantguard.errors import (
    ForeignTenantWrite,
    NotBound,
    StatementRefused,
    TenantMismatch,
    UnprotectedEngine,
)
from tenantguard.orm.compiler import SAVEPOINTS, ScopedCompiler
from tenantguard.orm.connections import GuardedCursor, driver_of, vouch
from tenantguard.orm.links import Link, LinkCheck, foreign_link, missing_rows
from tenantguard.orm.pins import pin_of
from tenantguard.orm.results import ScopedResult

if TYPE_CHECKING:
    _Context = DefaultExecutionContext
else:
    _Context = object

__all__ = ["ScopedExecution", "scoped_execution"]

_RAW = 'Write it with SQLAlchemy constructs, or run it in a block of system("why").'
_PIN = "tenantguard pin"
_MOST_KNOWN = 10_000


class ScopedExecution(_Context):
    """Mixin that decides on one execution. `scoped_execution` joins it with a dialect's context class."""

    starting: ClassVar[set[int]]
    """Connections on which the dialect is finding out what the server can do."""
    vouched: tuple[Any, Any, Any] | None = None
    """The text and the parameters that may be executed, with a copy of these; ``None`` where any may."""
    binding: Binding | None = None
    """What was bound when it ran."""

    def create_cursor(self) -> Any:
        self._dbapi_connection = driver_of(self._dbapi_connection)
        return GuardedCursor(super().create_cursor())  # the pooled connection's own cursors are for system contexts

    def pre_exec(self) -> None:
        try:
            binding = self.binding = raw_binding()
            compiled: Any = self.compiled
            connection: Any = self.root_connection
            scoped_compiler: Any = self.dialect.statement_compiler
            pinned = connection.__dict__.get(_PIN)
            if (
                pinned is not None
                and pinned[3] is binding
                and pinned[0] is connection._transaction
                and pinned[1].__class__ is str
                and compiled.__class__ is scoped_compiler
                and compiled.sound
                and compiled.string is compiled.vouched_text
            ):
                # As the statement before it in this transaction: all that is left to look at are the values.
                self._check_values(compiled, pinned[1])
                scoped = True
            else:
                scoped = self._decide()
        except BaseException:
            self.cursor.close()
            raise
        super().pre_exec()
        if scoped:
            # Parameters may be replaced by the dialect's own pre_exec, so they are noted after it.
            vouch(self, self.statement, self.parameters if self.executemany else self.parameters[0])

    def _setup_result_proxy(self) -> Any:
        result = super()._setup_result_proxy()
        if result.__class__ is CursorResult:
            result.__class__ = ScopedResult
        return result

    def _exec_default(self, column: Any, default: Any, type_: Any) -> Any:
        if column is None and self.compiled is None:
            binding = current_binding()
            if binding is None or binding.system is None:
                self.cursor.close()
                raise StatementRefused("A column default or sequence is executed by itself.", mend=_RAW)
        return super()._exec_default(column, default, type_)

    def _decide(self) -> bool:
        """Refuse the statement, or return whether it is a scoped one.

        Raises:
            TenantGuardError: it may not run.
        """
        binding = current_binding()
        compiled: Any = self.compiled
        if compiled is not None and isinstance(getattr(compiled, "statement", None), SAVEPOINTS):
            _forget_known_rows(self.root_connection)
            return True
        if self.starting and id(self.root_connection) in self.starting:
            return False
        if binding is None:
            raise NotBound(
                "A statement was about to run with no tenant bound.",
                mend='Enter `with bind(identity):` first, or `with system("why"):` for work across tenants.',
            )
        _pin_transaction(self.root_connection, binding)
        if binding.system is not None:
            if isinstance(compiled, ScopedCompiler) and not compiled.in_system:
                raise StatementRefused("A statement compiled for one tenant runs in a system context.", mend=_RAW)
            return False
        identity = binding.identity
        if identity is None or identity.tenant is None:
            raise NotBound("The bound identity belongs to no tenant.", mend="Use a token that names a tenant.")
        if not isinstance(compiled, ScopedCompiler) or type(compiled) is not self.dialect.statement_compiler:
            raise StatementRefused(f"{self._describe()} is sent past the barrier.", mend=_RAW)
        if compiled.in_system or compiled.unscoped or compiled.string is not compiled.vouched_text:
            raise StatementRefused("A statement compiled in a system context runs outside of it.", mend=_RAW)
        if compiled.baked:
            raise StatementRefused(
                "The statement was compiled with the tenant written into its text.",
                mend="Execute the statement itself, not a compiled object with literal values.",
            )
        self._check_values(compiled, identity.tenant.id)
        return True

    def _check_link(self, check: LinkCheck) -> None:
        """Look up what a foreign key is about to point to. What was found is remembered for the transaction."""
        seen: dict[Link, set[Any]] = self.root_connection.__dict__[_PIN][2]
        known = seen.setdefault(check.link, set())
        if len(known) > _MOST_KNOWN:
            known.clear()
        own = {tuple(row.get(name) for name in check.own) for row in self.compiled_parameters} if check.own else ()
        wanted = dict.fromkeys(
            key
            for row in self.compiled_parameters
            if None not in (key := tuple(row.get(name) for name in check.names)) and key not in known and key not in own
        )
        if wanted:
            if missing_rows(self.root_connection, check.link, list(wanted)):
                raise foreign_link(check.link)
            known.update(wanted)

    def _check_values(self, compiled: ScopedCompiler, tenant_id: str) -> None:
        """Compare the values with the bound tenant.

        Raises:
            StatementRefused: the tenant's parameter holds something else.
            ForeignTenantWrite: a row would be written for another tenant, or point to a row of another.
        """
        rows = self.compiled_parameters
        for name, convert in compiled.scope_checks:
            expected = tenant_id if convert is str else _converted(convert, tenant_id)
            for row in rows:
                if row.get(name) != expected:
                    raise StatementRefused(
                        "The parameter that holds the tenant was given another value.",
                        mend="Do not name parameters of your own like the barrier's.",
                    )
        if not compiled.writes:
            return
        for name, convert in compiled.write_checks:
            expected = _converted(convert, tenant_id)
            for row in rows:
                if row.get(name) != expected:
                    raise ForeignTenantWrite(
                        "A row was about to be written for another tenant than the bound one.",
                        mend="Leave the tenant key out: it is filled with the bound tenant. To move rows between "
                        'tenants, use a block of system("why").',
                    )
        for check in compiled.link_checks:
            self._check_link(check)
        if compiled.isdelete:
            _forget_known_rows(self.root_connection)

    def _describe(self) -> str:
        if self.isddl:
            return "DDL"
        return "Raw SQL" if self.compiled is None else "A statement compiled elsewhere"


def _forget_known_rows(connection: Any) -> None:
    """Look foreign keys up again: rows that were there may be gone."""
    pinned = connection.__dict__.get(_PIN)
    if pinned is not None:
        pinned[2].clear()


def _converted(convert: Callable[[str], object], tenant_id: str) -> object:
    try:
        return convert(tenant_id)
    except ValueError:
        raise StatementRefused(
            "The bound tenant's id does not fit the type of the table's tenant key.",
            mend="Give the key a string column, or tenants ids of the key's type.",
        ) from None


def _pin_transaction(connection: Any, binding: Binding) -> None:
    """Stamp the transaction with the first tenant that uses it, and refuse the second.

    Raises:
        TenantMismatch: the transaction belongs to another tenant, or to a system context.
    """
    transaction = connection._transaction
    now = pin_of(binding)
    pinned = connection.__dict__.get(_PIN)
    if pinned is None or pinned[0] is not transaction:
        connection.__dict__[_PIN] = (transaction, now, {}, binding)
    elif pinned[1] != now:
        raise TenantMismatch(
            "The transaction was begun for another tenant than the bound one.",
            mend="Commit or roll back, and use a session of its own for each tenant.",
        )


def scoped_execution(base: type[Any], starting: set[int]) -> type[Any]:
    """Return the execution context class of a protected engine for a dialect's context class.

    Raises:
        UnprotectedEngine: the class is no context class that the barrier can stand in.
    """
    if not issubclass(base, DefaultExecutionContext):
        raise UnprotectedEngine(
            f"The dialect's execution context {base.__name__} is none of SQLAlchemy's.",
            mend="Use SQLAlchemy's dialects for SQLite, PostgreSQL or MySQL.",
        )
    return type(f"Scoped{base.__name__}", (ScopedExecution, base), {"starting": starting, "__module__": __name__})
