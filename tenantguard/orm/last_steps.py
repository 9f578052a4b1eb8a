"""What is executed is what was vouched for.

Between the moment in which a statement is vouched for and the driver, event listeners may put another text or other
parameters in its place, or change parameters where they stand. So the dialect's last steps compare. What a listener
does with the cursor that it is handed, no Python code can see: that is for the database's row-level security.
"""

import functools
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from tenantguard.errors import StatementRefused
from tenantguard.orm.connections import (
    GuardedCursor,
    driver_cursor,
    driver_execute,
    executing,
    may_run_anything,
    refuse_driver,
)

__all__ = ["guard_last_steps", "vouch"]


def guard_last_steps(dialect: Any) -> None:
    """Compare what is executed with what was vouched for."""
    dialect.do_execute = _compared_one(dialect.do_execute)
    dialect.do_executemany = _compared_many(dialect.do_executemany)
    dialect.do_execute_no_params = _compared_text(dialect.do_execute_no_params)
    dialect._deliver_insertmanyvalues_batches = _noted(dialect._deliver_insertmanyvalues_batches)
    for name in ("do_recover_twophase", "do_commit_twophase", "do_rollback_twophase"):
        setattr(dialect, name, _not_recovering(getattr(dialect, name), always="recover" in name))


def vouch(context: Any, statement: Any, rows: Any) -> None:
    """Note what a context may execute. Where listeners could change parameters where they stand, a copy is kept.

    Args:
        context: the execution context.
        statement: the text.
        rows: the rows of parameters.
    """
    connection = context.root_connection
    listened = connection._has_events or connection.engine._has_events or context.dialect._has_events
    context.vouched = (statement, rows, _copy(rows) if listened else None)


def _copy(parameters: Any) -> Any:
    if isinstance(parameters, list):
        return [_copy(row) for row in parameters]
    return dict(parameters) if isinstance(parameters, dict) else parameters


def _replaced() -> StatementRefused:
    return StatementRefused(
        "An event listener put another statement or other parameters in the place of those vouched for.",
        mend="Change statements in before_execute, or with execution options; comments go into the driver's settings.",
    )


def _check_unvouched(cursor: Any, context: Any) -> None:
    guarded = isinstance(cursor, GuardedCursor) or type(cursor) in driver_execute
    if context is None and guarded and not may_run_anything():
        raise refuse_driver("A cursor")


def _changed(vouched: Any) -> bool:
    return vouched[2] is not None and bool(vouched[1] != vouched[2])


def _executed(original: Callable[..., Any], *args: Any) -> Any:
    token = executing.set(True)
    try:
        return original(*args)
    finally:
        executing.reset(token)


def _compared_one(original: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(original, "__func__", None) is DefaultDialect.do_execute

    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> Any:
        vouched = context.vouched if context is not None else None
        if vouched is None:
            _check_unvouched(cursor, context)
        elif (
            statement is not vouched[0]
            or parameters is not vouched[1][0]
            or (vouched[2] is not None and _changed(vouched))
        ):
            raise _replaced()
        if plain:
            if cursor.__class__ is GuardedCursor:
                return cursor._driver_cursor.execute(statement, parameters)
            execute_of_driver = driver_execute.get(cursor.__class__)
            if execute_of_driver is not None:  # else a context of the app's own wraps it
                return execute_of_driver(cursor, statement, parameters)
        return _executed(original, driver_cursor(cursor), statement, parameters, context)

    del execute.__wrapped__  # which anybody could call
    return execute


def _compared_many(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, parameters: Any, context: Any = None) -> Any:
        vouched = context.vouched if context is not None else None
        if vouched is None:
            _check_unvouched(cursor, context)
        elif statement is not vouched[0] or parameters is not vouched[1] or _changed(vouched):
            raise _replaced()
        return _executed(original, driver_cursor(cursor), statement, parameters, context)

    del execute.__wrapped__  # which anybody could call
    return execute


def _compared_text(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(cursor: Any, statement: Any, context: Any = None) -> Any:
        vouched = context.vouched if context is not None else None
        if vouched is None:
            _check_unvouched(cursor, context)
        elif statement is not vouched[0]:
            raise _replaced()
        return _executed(original, driver_cursor(cursor), statement, context)

    del execute.__wrapped__  # which anybody could call
    return execute


def _noted(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def deliver(connection: Any, cursor: Any, statement: Any, parameters: Any, sizes: Any, context: Any) -> Any:
        kept = context.vouched
        given = kept[2] if kept is not None and kept[2] is not None else parameters
        for batch in original(connection, cursor, statement, given, sizes, context):
            if kept is not None:
                vouch(context, batch.replaced_statement, [batch.replaced_parameters])
            yield batch

    return deliver


def _not_recovering(original: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
    """Prepared transactions that others left behind are those of any tenant."""

    @functools.wraps(original)
    def recover(connection: Any, *args: Any, **kwargs: Any) -> Any:
        if (always or kwargs.get("recover") or args[2:3] == (True,)) and not may_run_anything():
            raise StatementRefused(
                "Prepared transactions that were left behind may be of any tenant.",
                mend='Recover them in a block of system("why").',
            )
        return original(connection, *args, **kwargs)

    return recover
