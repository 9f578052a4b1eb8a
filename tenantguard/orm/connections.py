"""Ways to the driver that go round SQLAlchemy's statements, and statements that change on their last steps.

A pooled connection hands out cursors and the driver's own connection; both take any SQL. On a protected engine they are
for SQLAlchemy alone. Between the moment in which a statement is vouched for and the driver, event listeners may put
another text or other parameters in its place; so what is executed is compared with what was vouched for. What a
listener does with the cursor that it is handed, no Python code can see: that is for the database's row-level security.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool.base import _ConnectionFairy

from tenantguard.binding import current_binding
from tenantguard.errors import StatementRefused

__all__ = ["GuardedConnection", "guard_last_steps", "guard_pool", "starting_up"]

starting_up: Final[ContextVar[bool]] = ContextVar("tenantguard.orm.starting_up", default=False)
"""True while a dialect finds out on its first connection what the server can do."""

_EXECUTES: Final = frozenset(
    """
    backup blobopen copy copy_expert copy_from copy_from_query copy_from_table copy_records_to_table copy_to cursor
    execute execute_batch executemany executescript fetch fetchall fetchmany fetchone fetchrow fetchval iterdump
    load_extension nextset pipeline prepare query run_async serialize
    """.split()
)


def _may_run_anything() -> bool:
    binding = current_binding()
    return starting_up.get() or (binding is not None and (binding.system is not None or binding.raw is not None))


def _refuse(what: str) -> StatementRefused:
    return StatementRefused(
        f"{what} of a protected engine takes any SQL, which the barrier can't vouch for.",
        mend='Execute statements through the session or connection, or work in a block of allow_raw("why") or '
        'system("why").',
    )


class GuardedConnection(_ConnectionFairy):
    """A pooled connection whose cursors and driver connection are for SQLAlchemy, except where raw SQL may run."""

    __slots__ = ()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        if not _may_run_anything():
            raise _refuse("A cursor")
        return super().cursor(*args, **kwargs)

    @property
    def driver_connection(self) -> Any:
        if not _may_run_anything():
            raise _refuse("The driver's connection")
        return super().driver_connection

    def __getattr__(self, key: str) -> Any:
        if key in _EXECUTES and not _may_run_anything():
            raise _refuse(f"The driver's {key}()")
        return super().__getattr__(key)


def guard_pool(pool: Any) -> None:
    """Have every connection of a pool be a guarded one."""

    def checkout(_dbapi_connection: Any, _record: Any, fairy: Any) -> None:
        fairy.__class__ = GuardedConnection

    event.listen(pool, "checkout", checkout)


def guard_last_steps(dialect: Any) -> None:
    """Compare what is executed with what was vouched for."""
    dialect.do_execute = _compared_one(dialect.do_execute)
    dialect.do_executemany = _compared_many(dialect.do_executemany)
    dialect.do_execute_no_params = _compared_text(dialect.do_execute_no_params)
    dialect._deliver_insertmanyvalues_batches = _noted(dialect._deliver_insertmanyvalues_batches)


def _replaced() -> StatementRefused:
    return StatementRefused(
        "An event listener put another statement or other parameters in the place of those vouched for.",
        mend="Change statements in before_execute, or with execution options; comments go into the driver's settings.",
    )


def _compared_one(original: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(original, "__func__", None) is DefaultDialect.do_execute

    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> Any:
        vouched = context.vouched if context is not None else None
        if vouched is not None and (statement is not vouched[0] or parameters is not vouched[1][0]):
            raise _replaced()
        return cursor.execute(statement, parameters) if plain else original(cursor, statement, parameters, context)

    return execute


def _compared_many(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> Any:
        vouched = context.vouched if context is not None else None
        if vouched is not None and (statement is not vouched[0] or parameters is not vouched[1]):
            raise _replaced()
        return original(cursor, statement, parameters, context)

    return execute


def _compared_text(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, context: Any = None) -> Any:
        vouched = context.vouched if context is not None else None
        if vouched is not None and statement is not vouched[0]:
            raise _replaced()
        return original(cursor, statement, context)

    return execute


def _noted(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def deliver(connection: Any, cursor: Any, statement: Any, parameters: Any, sizes: Any, context: Any) -> Any:
        for batch in original(connection, cursor, statement, parameters, sizes, context):
            if context.vouched is not None:
                context.vouched = (batch.replaced_statement, [batch.replaced_parameters])
            yield batch

    return deliver
