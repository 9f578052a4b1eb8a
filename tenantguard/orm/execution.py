"""Wall two: nothing reaches the cursor that wall one has not vouched for, and nothing without a tenant.

The checks stand in the execution context, which every path to the database makes: Core, ORM, DDL, driver SQL,
column defaults. They run in ``pre_exec``, the last step before the cursor, outside of the code that wraps
exceptions together with the statement's values.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.engine.cursor import CursorResult
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql.elements import ReleaseSavepointClause, RollbackToSavepointClause, SavepointClause

from tenantguard.context import current_binding
from tenantguard.errors import (
    ForeignTenantWrite,
    NotBound,
    StatementRefused,
    TenantGuardError,
    TenantMismatch,
    UnprotectedEngine,
)
from tenantguard.orm.compiler import ScopedCompiler
from tenantguard.orm.pins import pin_of
from tenantguard.orm.results import ScopedResult

if TYPE_CHECKING:
    _Context = DefaultExecutionContext
else:
    _Context = object

__all__ = ["ScopedExecution", "scoped_execution"]

_SAVEPOINTS = (SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause)
_RAW = 'Write it with SQLAlchemy constructs, or run it in a block of system("why").'
_PIN = "tenantguard pin"


class ScopedExecution(_Context):
    """Mixin that decides on one execution. `scoped_execution` joins it with a dialect's context class."""

    starting: ClassVar[set[int]]
    """Connections on which the dialect is finding out what the server can do."""
    refusal: TenantGuardError | None = None
    vouched: tuple[Any, Any] | None = None
    """The text and the parameters that may be executed; ``None`` where any may."""
    pin: object = None
    """Who may read the result."""

    @classmethod
    def _init_compiled(
        cls,
        dialect: Any,
        connection: Any,
        dbapi_connection: Any,
        execution_options: Any,
        compiled: Any,
        parameters: Any,
        invoked_statement: Any,
        extracted_parameters: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        refusal: TenantGuardError | None = None
        binding = current_binding()
        in_system = binding is not None and binding.system is not None
        if isinstance(compiled, ScopedCompiler) and compiled.in_system is not in_system:
            # A cache that is not the engine's own (the unit of work has one per mapper) may hold the other mode.
            try:
                compiled, extracted_parameters = _compile_anew(
                    dialect, compiled, invoked_statement, extracted_parameters
                )
            except TenantGuardError as error:
                refusal = error
        context = super()._init_compiled(
            dialect,
            connection,
            dbapi_connection,
            execution_options,
            compiled,
            parameters,
            invoked_statement,
            extracted_parameters,
            *args,
            **kwargs,
        )
        if refusal is not None:
            context.refusal = refusal  # type: ignore[attr-defined]
        return context

    def create_cursor(self) -> Any:
        pooled: Any = self._dbapi_connection
        self._dbapi_connection = pooled.dbapi_connection  # the pooled one's cursors are for system contexts
        try:
            return super().create_cursor()
        finally:
            self._dbapi_connection = pooled

    def pre_exec(self) -> None:
        try:
            scoped = self._decide()
        except BaseException:
            self.cursor.close()
            raise
        super().pre_exec()
        if scoped:
            # Parameters may be replaced by the dialect's own pre_exec, so they are noted after it.
            self.vouched = (self.statement, self.parameters if self.executemany else self.parameters[0])

    def _setup_result_proxy(self) -> Any:
        result = super()._setup_result_proxy()
        if type(result) is CursorResult:
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
        if self.refusal is not None:
            raise self.refusal
        binding = current_binding()
        compiled: Any = self.compiled
        self.pin = pin_of(binding)
        if compiled is not None and isinstance(getattr(compiled, "statement", None), _SAVEPOINTS):
            return False
        if self.starting and id(self.root_connection) in self.starting:
            return False
        if binding is None:
            raise NotBound(
                "A statement was about to run with no tenant bound.",
                mend='Enter `with bind(identity):` first, or `with system("why"):` for work across tenants.',
            )
        _pin_transaction(self.root_connection, self.pin)
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

    def _check_values(self, compiled: ScopedCompiler, tenant_id: str) -> None:
        for name, convert in compiled.scope_checks:
            expected = _converted(convert, tenant_id)
            for row in self.compiled_parameters:
                if row.get(name) != expected:
                    raise StatementRefused(
                        "The parameter that holds the tenant was given another value.",
                        mend="Do not name parameters of your own like the barrier's.",
                    )
        for name, convert in compiled.write_checks:
            expected = _converted(convert, tenant_id)
            for row in self.compiled_parameters:
                if row.get(name) != expected:
                    raise ForeignTenantWrite(
                        "A row was about to be written for another tenant than the bound one.",
                        mend="Leave the tenant key out: it is filled with the bound tenant. To move rows between "
                        'tenants, use a block of system("why").',
                    )

    def _describe(self) -> str:
        if self.isddl:
            return "DDL"
        return "Raw SQL" if self.compiled is None else "A statement compiled elsewhere"


def _converted(convert: Callable[[str], object], tenant_id: str) -> object:
    try:
        return convert(tenant_id)
    except ValueError:
        raise StatementRefused(
            "The bound tenant's id does not fit the type of the table's tenant key.",
            mend="Give the key a string column, or tenants ids of the key's type.",
        ) from None


def _compile_anew(dialect: Any, compiled: Any, statement: Any, extracted: Any) -> tuple[Any, Any]:
    if statement is None:
        raise StatementRefused(
            "A compiled object made inside a system context, or outside of it, runs on the other side.",
            mend="Execute the statement itself.",
        )
    key = statement._generate_cache_key() if extracted is not None else None
    fresh = statement._compiler(
        dialect,
        cache_key=key,
        column_keys=compiled.column_keys,
        for_executemany=compiled.for_executemany,
        schema_translate_map=compiled.schema_translate_map,
        linting=compiled.linting,
    )
    return fresh, key[1] if key is not None else None


def _pin_transaction(connection: Any, now: object) -> None:
    """Stamp the transaction with the first tenant that uses it, and refuse the second.

    Raises:
        TenantMismatch: the transaction belongs to another tenant, or to a system context.
    """
    transaction = connection._transaction
    pinned = connection.__dict__.get(_PIN)
    if pinned is None or pinned[0] is not transaction:
        connection.__dict__[_PIN] = (transaction, now)
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
