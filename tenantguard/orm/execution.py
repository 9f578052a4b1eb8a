"""Wall two: nothing reaches the cursor that wall one has not vouched for, and nothing without a tenant.

The checks stand in the execution context, which every path to the database makes: Core, ORM, DDL, driver SQL,
column defaults. They run in ``pre_exec``, the last step before the cursor, outside of the code that wraps
exceptions together with the statement's values.
"""

import re
from collections.abc import Callable
from sqlite3 import Connection as SQLiteConnection
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from sqlalchemy import Connection
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql.elements import RollbackToSavepointClause, TextClause

from tenantguard.binding import Binding, bound_id, current_binding, raw_binding
from tenantguard.errors import (
    ForeignTenantWrite,
    NotBound,
    StatementRefused,
    TenantMismatch,
    UnprotectedEngine,
)
from tenantguard.identity import validate_tenant_id
from tenantguard.orm.classify import Key
from tenantguard.orm.compiler import SAVEPOINTS, ScopedCompiler
from tenantguard.orm.connections import (
    SQLITE_CURSOR,
    GuardedConnection,
    driver_connection_of,
    guard_cursor,
    refuse_driver,
)
from tenantguard.orm.last_steps import vouch
from tenantguard.orm.links import Link, LinkCheck, foreign_link, missing_rows
from tenantguard.orm.marks import TENANT
from tenantguard.orm.pins import pin_of
from tenantguard.orm.predicates import read_values
from tenantguard.orm.results import with_scoped_results

if TYPE_CHECKING:
    _Context = DefaultExecutionContext
else:
    _Context = object

__all__ = ["ScopedExecution", "scoped_execution"]

_RAW = (
    'Write it with SQLAlchemy constructs, or run it in a block of allow_raw("why") and filter by tenant yourself, '
    'or of system("why").'
)
_SYSTEM_ONLY = 'Run it in a block of system("why").'
_DDL: Final = frozenset(
    """
    alter attach cluster comment create detach drop grant import reassign reindex rename revoke security truncate
    """.split()
)
_WORD: Final = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_MOST_KNOWN = 10_000


@final
class Pinned:
    """What a transaction belongs to.

    Args:
        transaction: which one.
        pin: the tenant's id, or what else `pin_of` says.
        plain: the binding, where it is of one tenant and nothing else.
    """

    __slots__ = ("known", "pin", "plain", "told", "transaction")

    def __init__(self, transaction: Any, pin: object, plain: object) -> None:
        self.transaction = transaction
        self.pin = pin
        self.plain = plain
        self.known: dict[Link, set[Any]] = {}
        """The rows that foreign keys were found to point to."""
        self.told = False
        """Whether PostgreSQL knows whose it is (`tenantguard.orm.rls.setting`)."""


_NOBODY: Final = object()
Connection.tenantguard_pin = None  # type: ignore[attr-defined]
"""A default of the class: the connection's own dict, once it is asked for, makes each attribute of it slower."""


class ScopedExecution(_Context):
    """Mixin that decides on one execution. `scoped_execution` joins it with a dialect's context class."""

    compiler: ClassVar[type[Any]]
    """The engine's scoped compiler."""
    plain_cursor: ClassVar[bool]
    """True where the driver has one kind of cursor."""
    plain_pre_exec: ClassVar[bool]
    """True where the dialect has no step of its own before the cursor."""
    starting: ClassVar[set[int]]
    """Connections on which the dialect is finding out what the server can do."""
    vouched: tuple[Any, Any, Any] | None = None
    """The text and the rows of parameters that may be executed, with a copy of these; ``None`` where any may."""
    binding: Binding | None = None
    """What was bound when it ran."""

    def create_cursor(self) -> Any:
        # The pooled connection's own cursors are for system contexts.
        pooled: Any = self._dbapi_connection
        if pooled.__class__ is GuardedConnection:
            connection = driver_connection_of(pooled)
        elif (connection := getattr(pooled, "dbapi_connection", None)) is None:  # else the dialect is starting
            raise refuse_driver("A second cursor")
        self._dbapi_connection = connection
        if self.plain_cursor and connection.__class__ is SQLiteConnection:
            self._is_server_side = False
            return connection.cursor(SQLITE_CURSOR)
        return guard_cursor(super().create_cursor())

    def pre_exec(self) -> None:
        compiled: Any = self.compiled
        connection: Any = self.root_connection
        binding = self.binding = raw_binding()
        pinned = connection.tenantguard_pin
        if (
            pinned is not None
            and pinned.plain is binding
            and pinned.transaction is connection._transaction
            and compiled.__class__ is self.compiler
            and compiled.string is compiled.sound_text
        ):
            # As the statement before it in this transaction: all that is left to look at are the values.
            tenant_id = pinned.pin
            for row in self.compiled_parameters:
                for name in compiled.plain_names:
                    if row[name] != tenant_id:
                        self._or_close(self._decide)
            if compiled.more_checks:
                self._or_close(self._check_values, compiled, binding)
        elif not self._or_close(self._decide_where_it_runs):
            super().pre_exec()
            return
        if not self.plain_pre_exec:
            super().pre_exec()  # which may replace parameters
        if connection._has_events or connection.engine._has_events or self.dialect._has_events:
            vouch(self, self.statement, self.parameters)
        else:
            self.vouched = (self.statement, self.parameters, None)

    def _or_close(self, check: Callable[..., Any], *args: Any) -> Any:
        try:
            return check(*args)
        except BaseException:
            self.cursor.close()
            raise

    _setup_result_proxy = with_scoped_results(DefaultExecutionContext._setup_result_proxy)
    _setup_dml_or_text_result = with_scoped_results(DefaultExecutionContext._setup_dml_or_text_result)

    def _exec_default(self, column: Any, default: Any, type_: Any) -> Any:
        if column is None and self.compiled is None:
            binding = current_binding()
            if binding is None or (binding.system is None and binding.raw is None):
                self.cursor.close()
                raise StatementRefused("A column default or sequence is executed by itself.", mend=_RAW)
        return super()._exec_default(column, default, type_)

    def _decide_where_it_runs(self) -> bool:
        dialect: Any = self.dialect
        place = dialect.tenantguard_placement
        if place is not None and id(self.root_connection) not in self.starting:
            place.check(self)
        return self._decide()

    def _decide(self) -> bool:
        """Refuse the statement, or return whether it is a scoped one.

        Raises:
            TenantGuardError: it may not run.
        """
        binding = current_binding()
        compiled: Any = self.compiled
        if compiled is not None and isinstance(getattr(compiled, "statement", None), SAVEPOINTS):
            _forget_known_rows(self.root_connection)
            _set_before_savepoint(self.root_connection, binding, compiled.statement)
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
        if self.isddl or _is_ddl(self):
            raise StatementRefused("DDL changes the tables of all tenants.", mend=_SYSTEM_ONLY)
        if compiled is None and binding.raw is not None:
            _forget_known_rows(self.root_connection)
            return True
        if not isinstance(compiled, ScopedCompiler) or type(compiled) is not self.compiler:
            raise StatementRefused(f"{self._describe()} is sent past the barrier.", mend=_RAW)
        if compiled.unscoped or compiled.mode != binding.mode or compiled.string is not compiled.vouched_text:
            raise StatementRefused(
                "A statement runs with other rights than it was compiled with.",
                mend="Execute the statement itself, with the engine's own compiled cache.",
            )
        if compiled.baked:
            raise StatementRefused(
                "The statement was compiled with the tenant written into its text.",
                mend="Execute the statement itself, not a compiled object with literal values.",
            )
        self._check_values(compiled, binding)
        compiled.lifts.log()
        return True

    def _check_link(self, check: LinkCheck, binding: Binding) -> None:
        """Look up what a foreign key is about to point to. What was found is remembered for the transaction."""
        connection: Any = self.root_connection
        seen: dict[Link, set[Any]] = connection.tenantguard_pin.known
        known = seen.setdefault(check.link, set())
        if len(known) > _MOST_KNOWN:
            known.clear()

        def values(row: Any, names: tuple[str | Key, ...]) -> tuple[Any, ...]:
            return tuple(row.get(name) if isinstance(name, str) else _expected(name, binding) for name in names)

        own = {values(row, check.own) for row in self.compiled_parameters} if check.own else ()
        wanted = dict.fromkeys(
            key
            for row in self.compiled_parameters
            if None not in (key := values(row, check.names)) and key not in known and key not in own
        )
        if wanted:
            if missing_rows(self.root_connection, check.link, list(wanted), binding):
                raise foreign_link(check.link)
            known.update(wanted)

    def _check_values(self, compiled: ScopedCompiler, binding: Binding) -> None:
        """Compare the values with what is bound.

        Raises:
            StatementRefused: the tenant's parameter holds something else.
            ForeignTenantWrite: a row would be written for another tenant, or point to a row of another.
        """
        rows = self.compiled_parameters
        for name, key, reads in compiled.scope_checks:
            expected = read_values(key.convert) if reads else _expected(key, binding)
            for row in rows:
                if (_expanded(row, name) if reads else row.get(name)) != expected:
                    raise StatementRefused(
                        "The parameter that holds the tenant was given another value.",
                        mend="Do not name parameters of your own like the barrier's.",
                    )
        if compiled.used_raw:
            _forget_known_rows(self.root_connection)
        if not compiled.writes:
            return
        for name, key in compiled.write_checks:
            expected = _expected(key, binding)
            for row in rows:
                if row.get(name) != expected:
                    raise ForeignTenantWrite(
                        f"A row of {key.column.table.name!r} was about to be written for another {key.dimension} than "
                        "the bound one.",
                        mend=f"Leave the {key.dimension} key out: it is filled with what is bound. Rows are moved "
                        'between tenants by move_rows(), or in a block of system("why").',
                    )
        for null in compiled.null_checks:
            if any(row.get(null) is not None for row in rows):
                raise ForeignTenantWrite(
                    "A foreign key was about to be set in rows of another tenant.",
                    mend="Set it to NULL, or write each tenant's rows as that tenant.",
                )
        for moved, kind in compiled.move_checks:
            if any(row.get(moved) is None or row.get(moved) == kind.everyone for row in rows):
                raise ForeignTenantWrite(
                    f"Rows of {kind.column.table.name!r} were about to be moved to everybody, or to nobody.",
                    mend='Give the id of one tenant. Rows for everybody are written in a block of system("why").',
                )
            for row in rows:
                validate_tenant_id(str(row.get(moved)))
        for check in compiled.link_checks:
            self._check_link(check, binding)
        if compiled.isdelete or compiled.move_checks:
            _forget_known_rows(self.root_connection)

    def _describe(self) -> str:
        if self.isddl:
            return "DDL"
        return "Raw SQL" if self.compiled is None else "A statement compiled elsewhere"


def _forget_known_rows(connection: Any) -> None:
    """Look foreign keys up again: rows that were there may be gone, or another tenant's."""
    pinned = connection.tenantguard_pin
    if pinned is not None:
        pinned.known.clear()


def _expected(key: Key, binding: Binding) -> object:
    """Return the value that a key must have."""
    identity = binding.identity
    assert identity is not None
    assert identity.tenant is not None
    value = identity.tenant.id if key.dimension == TENANT else identity.narrowed_to(key.dimension)
    if key.convert is str and value is not None:
        return value
    try:
        return key.convert(value or "")
    except ValueError:
        raise StatementRefused(
            f"The bound {key.dimension} does not fit the {key.dimension} key of {key.column.table.name!r}.",
            mend="Give the key a string column, or ids of the key's type; the value that marks rows for everybody is "
            "nobody's id.",
        ) from None


def _expanded(row: Any, name: str) -> list[object]:
    """Return the values of a parameter that was expanded into several, as IN is."""
    values: list[object] = []
    while (single := f"{name}_{len(values) + 1}") in row:
        values.append(row[single])
    return values


def _is_ddl(context: Any) -> bool:
    """True for text that begins with a word that changes tables or rights."""
    if context.compiled is not None and not isinstance(context.compiled.statement, TextClause):
        return False
    found = _WORD.match(str(context.unicode_statement))
    return found is not None and found.group(1).lower() in _DDL


def _pin_transaction(connection: Any, binding: Binding) -> None:
    """Stamp the transaction with the first tenant that uses it, and refuse the second.

    Raises:
        TenantMismatch: the transaction belongs to another tenant, or to a system context.
    """
    transaction = connection._transaction
    now = pin_of(binding)
    pinned = connection.tenantguard_pin
    if pinned is None or pinned.transaction is not transaction:
        untold = connection.dialect.tenantguard_setting is not None
        pinned = Pinned(transaction, now, _NOBODY if untold else _plain(binding, connection))
        connection.tenantguard_pin = pinned
    elif pinned.pin != now:
        raise TenantMismatch(
            "The transaction was begun for another tenant than the bound one.",
            mend="Commit or roll back, and use a session of its own for each tenant.",
        )
    setting = connection.dialect.tenantguard_setting
    if setting is not None and not pinned.told:
        setting.place(connection, binding)
        pinned.told, pinned.plain = True, _plain(binding, connection)


def _plain(binding: Binding, connection: Any) -> object:
    """Return what the fast way is for: a binding of one tenant and nothing else, by a block that holds no permit, on an
    engine for whose tenants it is not asked where they are now."""
    return binding if binding.mode is None and connection.dialect.tenantguard_placement is None else _NOBODY


def _set_before_savepoint(connection: Any, binding: Binding | None, statement: Any) -> None:
    """Have the setting of row-level security older than a savepoint, and sent again after one took it back."""
    if connection.dialect.tenantguard_setting is None:
        return
    pinned = connection.tenantguard_pin
    if isinstance(statement, RollbackToSavepointClause):
        if pinned is not None:
            pinned.told, pinned.plain = False, _NOBODY
    elif binding is not None and (binding.system is not None or bound_id(binding, TENANT) is not None):
        _pin_transaction(connection, binding)


def scoped_execution(dialect: Any, starting: set[int]) -> type[Any]:
    """Return the execution context class of a protected engine for its dialect.

    Raises:
        UnprotectedEngine: the class is no context class that the barrier can stand in.
    """
    base: type[Any] = dialect.execution_ctx_cls
    if not issubclass(base, DefaultExecutionContext):
        raise UnprotectedEngine(
            f"The dialect's execution context {base.__name__} is none of SQLAlchemy's.",
            mend="Use SQLAlchemy's dialects for SQLite, PostgreSQL or MySQL.",
        )
    members = {
        "compiler": dialect.statement_compiler,
        "plain_cursor": base.create_cursor is DefaultExecutionContext.create_cursor
        and base.create_default_cursor is DefaultExecutionContext.create_default_cursor
        and not dialect.supports_server_side_cursors,
        "plain_pre_exec": base.pre_exec is DefaultExecutionContext.pre_exec,
        "starting": starting,
        "__module__": __name__,
    }
    return type(f"Scoped{base.__name__}", (ScopedExecution, base), members)
