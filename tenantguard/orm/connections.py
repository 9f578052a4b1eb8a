"""Ways to the driver that go round SQLAlchemy's statements, and statements that change on their last steps.

A pooled connection hands out cursors and the driver's own connection; both take any SQL. On a protected engine they are
for SQLAlchemy alone. Between the moment in which a statement is vouched for and the driver, event listeners may put
another text or other parameters in its place; so what is executed is compared with what was vouched for. Cursors of
statements that ran (``result.cursor``, or in an event) are guarded as well. What someone does who takes the driver's
module itself, or private attributes, no Python code can see: that is for the database's row-level security.
"""

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.pool.base import _ConnectionFairy

from tenantguard.context import current_system
from tenantguard.errors import StatementRefused

__all__ = ["GuardedConnection", "GuardedCursor", "driver_of", "guard_last_steps", "guard_pool", "starting_up"]

starting_up: Final[ContextVar[bool]] = ContextVar("tenantguard.orm.starting_up", default=False)
"""True while a dialect finds out on its first connection what the server can do."""

_OF_CONNECTIONS: Final = frozenset("autocommit closed commit in_transaction info isolation_level rollback".split())
"""What may be asked of a pooled connection: nothing that takes SQL."""
_OF_CURSORS: Final = frozenset(
    """
    connection copy copy_expert copy_from copy_to callproc execute execute_async executemany executescript fetch
    mogrify nextset prepare query scroll stream
    """.split()
)
"""What a cursor takes SQL by, or leads to what does."""


def _refuse(what: str) -> StatementRefused:
    return StatementRefused(
        f"{what} of a protected engine takes any SQL, which the barrier can't vouch for.",
        mend='Execute statements through the session or connection, or work in a block of system("why").',
    )


def _called_by_sqlalchemy() -> bool:
    name = sys._getframe(2).f_globals.get("__name__", "")
    return str(name).startswith(("sqlalchemy.", "tenantguard.orm."))


def _may_pass() -> bool:
    return current_system() is not None or starting_up.get()


_slot: Final[Any] = _ConnectionFairy.__dict__["dbapi_connection"]
_driver_connection: Final = _slot.__get__


class GuardedCursor:
    """A driver's cursor, from which rows can be read, and to which SQL is given by SQLAlchemy alone."""

    __slots__ = ("__weakref__", "_driver_cursor")

    def __init__(self, driver_cursor: Any) -> None:
        object.__setattr__(self, "_driver_cursor", driver_cursor)

    # What every statement asks for goes the short way.

    @property
    def description(self) -> Any:
        return self._driver_cursor.description

    def fetchall(self) -> Any:
        return self._driver_cursor.fetchall()

    def close(self) -> Any:
        return self._driver_cursor.close()

    def __getattr__(self, key: str) -> Any:
        if key in _OF_CURSORS and not _may_pass() and not _called_by_sqlalchemy():
            raise _refuse("A cursor")
        return getattr(self._driver_cursor, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self._driver_cursor, key, value)

    def __iter__(self) -> Any:
        return iter(self._driver_cursor)


def driver_of(fairy: Any) -> Any:
    """Return the driver's connection of a pooled one, for the execution context."""
    return _driver_connection(fairy) if fairy.__class__ is GuardedConnection else fairy.dbapi_connection


class GuardedConnection(_ConnectionFairy):
    """A pooled connection whose cursors and driver connection are for SQLAlchemy, except in a system context."""

    __slots__ = ()

    @property
    def dbapi_connection(self) -> Any:
        if not _may_pass() and not _called_by_sqlalchemy():
            raise _refuse("The driver's connection")
        return _driver_connection(self, type(self))

    @dbapi_connection.setter
    def dbapi_connection(self, value: Any) -> None:
        _slot.__set__(self, value)

    @property
    def connection(self) -> Any:
        return self.driver_connection

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        if not _may_pass():
            raise _refuse("A cursor")
        return super().cursor(*args, **kwargs)

    @property
    def driver_connection(self) -> Any:
        if not _may_pass():
            raise _refuse("The driver's connection")
        return super().driver_connection

    def __getattr__(self, key: str) -> Any:
        if key not in _OF_CONNECTIONS and not _may_pass() and not _called_by_sqlalchemy():
            raise _refuse(f"The driver's {key}()")
        return super().__getattr__(key)


def guard_pool(pool: Any) -> None:
    """Have every connection of a pool be a guarded one."""

    def checkout(_dbapi_connection: Any, _record: Any, fairy: Any) -> None:
        fairy.__class__ = GuardedConnection

    event.listen(pool, "checkout", checkout)


def guard_last_steps(dialect: Any) -> None:
    """Compare what is executed with what was vouched for."""
    dialect.do_execute = _compared(dialect.do_execute)
    dialect.do_executemany = _compared(dialect.do_executemany)
    dialect.do_execute_no_params = _compared_text(dialect.do_execute_no_params)
    dialect._deliver_insertmanyvalues_batches = _noted(dialect._deliver_insertmanyvalues_batches)
    for name in ("do_recover_twophase", "do_commit_twophase", "do_rollback_twophase"):
        setattr(dialect, name, _not_recovering(getattr(dialect, name), always="recover" in name))


def _replaced() -> StatementRefused:
    return StatementRefused(
        "An event listener put another statement or other parameters in the place of those vouched for.",
        mend="Change statements in before_execute, or with execution options; comments go into the driver's settings.",
    )


def vouch(context: Any, statement: Any, parameters: Any) -> None:
    """Note what a context may execute. Where listeners could change parameters where they stand, a copy is kept."""
    connection = context.root_connection
    if connection._has_events or connection.engine._has_events or context.dialect._has_events:
        context.vouched = (statement, parameters, _copy(parameters))
    else:
        context.vouched = (statement, parameters, None)


def _copy(parameters: Any) -> Any:
    if isinstance(parameters, list):
        return [_copy(row) for row in parameters]
    return dict(parameters) if isinstance(parameters, dict) else parameters


def _check_vouched(cursor: Any, statement: Any, parameters: Any, context: Any) -> None:
    vouched = getattr(context, "vouched", None)
    if vouched is None:
        if cursor.__class__ is GuardedCursor and context is None and not _may_pass():
            raise _refuse("A cursor")
    elif (
        statement is not vouched[0]
        or (parameters is not vouched[1] and parameters is not None)
        or (vouched[2] is not None and vouched[1] != vouched[2])
    ):
        raise _replaced()


def _compared(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> Any:
        vouched = getattr(context, "vouched", None)
        if vouched is None or statement is not vouched[0] or parameters is not vouched[1] or vouched[2] is not None:
            _check_vouched(cursor, statement, parameters, context)
        return original(
            cursor._driver_cursor if cursor.__class__ is GuardedCursor else cursor, statement, parameters, context
        )

    return execute


def _compared_text(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, context: Any = None) -> Any:
        _check_vouched(cursor, statement, None, context)
        return original(cursor._driver_cursor if cursor.__class__ is GuardedCursor else cursor, statement, context)

    return execute


def _noted(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def deliver(connection: Any, cursor: Any, statement: Any, parameters: Any, sizes: Any, context: Any) -> Any:
        kept = context.vouched
        given = kept[2] if kept is not None and kept[2] is not None else parameters
        for batch in original(connection, cursor, statement, given, sizes, context):
            if kept is not None:
                vouch(context, batch.replaced_statement, batch.replaced_parameters)
            yield batch

    return deliver


def _not_recovering(original: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
    """Prepared transactions that others left behind are those of any tenant."""

    @functools.wraps(original)
    def recover(connection: Any, *args: Any, **kwargs: Any) -> Any:
        if (always or kwargs.get("recover") or args[2:3] == (True,)) and not _may_pass():
            raise StatementRefused(
                "Prepared transactions that were left behind may be of any tenant.",
                mend='Recover them in a block of system("why").',
            )
        return original(connection, *args, **kwargs)

    return recover
