"""How each driver sends what PostgreSQL is told at the begin of a transaction.

BEGIN and the setting go together, before any statement: as one message, or, where a value is a secret or the session
is reset first, in one pipeline of psycopg's with the value as a parameter, since PostgreSQL shows the text of
statements to all sessions of a role (``pg_stat_activity``). asyncpg has no pipelines, and other drivers no parameters
of the server: they need a round trip more. Nothing here uses a prepared statement by its name before the session was
reset, since SQL can replace those.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol, final

from sqlalchemy.util import await_

__all__ = ["AsyncpgLine", "CursorLine", "Line", "PsycopgLine", "line_of"]

_DISCARD: Final = "DISCARD ALL"


class Line(Protocol):
    """What `tenantguard.orm.rls.setting` asks of a driver. Every ``driver`` is a connection of the driver's own."""

    shows_parameters: bool
    """True if a parameter stands in the text of the statement, where others can read it."""

    def is_idle(self, driver: Any) -> bool:
        """True outside of a transaction."""

    def backend_pid(self, driver: Any) -> int:
        """The process that the driver believes to talk to."""

    def rows(self, driver: Any, query: str) -> list[tuple[str, ...]]:
        """The rows of a query outside of a transaction, as text."""

    def reset(self, driver: Any, commands: Sequence[str]) -> None:
        """Run commands in one transaction of their own; where PostgreSQL refuses one, discard all before."""

    def send(self, driver: Any, command: str, secret: str | None = None, reset: Sequence[str] = ()) -> None:
        """Send a command, after a reset and after BEGIN where the transaction has not begun.

        Args:
            driver: the connection.
            command: an SQL command, whose ``{}`` stands for the secret.
            secret: sent as a parameter.
            reset: as for `reset`, in the same round trip where the driver can; empty for none.
        """

    def ask(self, driver: Any, query: str, reset: Sequence[str] = ()) -> str:
        """As `send`, and return the one value of the answer."""


def line_of(driver: str, *, is_async: bool = False) -> Line:
    """Return how a driver sends, by SQLAlchemy's name of it."""
    if driver == "psycopg":
        return PsycopgLine(is_async=is_async)
    return AsyncpgLine() if driver == "asyncpg" else CursorLine()


# --- psycopg -------------------------------------------------------------------------------------------------


@final
class PsycopgLine:
    """psycopg 3, sync and async.

    Args:
        is_async: the connection is SQLAlchemy's adaptation of an asynchronous one.
    """

    shows_parameters = False

    def __init__(self, *, is_async: bool) -> None:
        self._is_async = is_async

    def is_idle(self, driver: Any) -> bool:
        from psycopg import pq

        return bool(self._own(driver).pgconn.transaction_status == pq.TransactionStatus.IDLE)

    def backend_pid(self, driver: Any) -> int:
        return int(self._own(driver).pgconn.backend_pid)

    def rows(self, driver: Any, query: str) -> list[tuple[str, ...]]:
        (result,) = self._run(driver, _simple(self._own(driver), query))
        return [
            tuple((result.get_value(row, column) or b"").decode() for column in range(result.nfields))
            for row in range(result.ntuples)
        ]

    def reset(self, driver: Any, commands: Sequence[str]) -> None:
        self._run(driver, _reset_alone(self._own(driver), commands))

    def send(self, driver: Any, command: str, secret: str | None = None, reset: Sequence[str] = ()) -> None:
        self._run(driver, _sent(self._own(driver), command, secret, reset))

    def ask(self, driver: Any, query: str, reset: Sequence[str] = ()) -> str:
        answer = self._run(driver, _sent(self._own(driver), query, None, reset))[-1]
        return str(answer.get_value(0, 0).decode())

    def _own(self, driver: Any) -> Any:
        return driver._connection if self._is_async else driver

    def _run(self, driver: Any, sending: Generator[Any, Any, Any]) -> Any:
        connection = self._own(driver)
        if self._is_async:
            return await_(_psycopg_async(connection, sending))
        with connection.lock:
            return connection.wait(sending)


async def _psycopg_async(connection: Any, sending: Generator[Any, Any, Any]) -> Any:
    async with connection.lock:
        return await connection.wait(sending)


def _simple(connection: Any, command: str) -> Generator[Any, Any, list[Any]]:
    """Send commands as one message."""
    from psycopg import generators

    connection._check_connection_ok()
    connection.pgconn.send_query(command.encode(connection.pgconn._encoding))
    return _checked(connection.pgconn, (yield from generators.execute(connection.pgconn)))


def _reset_alone(connection: Any, commands: Sequence[str]) -> Generator[Any, Any, None]:
    from psycopg import errors

    try:
        yield from _simple(connection, "; ".join(commands))
    except errors.DatabaseError:
        yield from _discarded(connection)
        yield from _simple(connection, "; ".join(commands))


def _discarded(connection: Any) -> Generator[Any, Any, None]:
    """Discard the session, and what psycopg remembers to have prepared in it."""
    yield from _simple(connection, _DISCARD)
    connection._prepared.clear()
    connection._prepared._to_flush.clear()


def _sent(connection: Any, command: str, secret: str | None, reset: Sequence[str]) -> Generator[Any, Any, list[Any]]:
    from psycopg import pq

    connection._check_connection_ok()
    pgconn = connection.pgconn
    encoding = pgconn._encoding
    idle = pgconn.transaction_status == pq.TransactionStatus.IDLE
    begin = connection._get_tx_start_command() if idle else b""
    if secret is None and not reset:
        return (yield from _simple(connection, (begin + b"; " * idle).decode() + command))
    told: list[tuple[bytes, Any]] = [(begin, None)] * idle
    if secret is None:
        told.append((command.encode(encoding), None))
    else:
        told.append((command.format("$1").encode(encoding), [secret.encode(encoding)]))
    groups = [told]
    if reset:
        groups.insert(0, [(each.encode(encoding), None) for each in reset])
    results = yield from _piped(pgconn, groups)
    if reset and any(result.status == pq.ExecStatus.FATAL_ERROR for result in results[0]):
        # What a session should not keep is in it. The tenant's transaction began beside it, and ran nothing yet.
        yield from _simple(connection, "ROLLBACK")
        yield from _discarded(connection)
        results = yield from _piped(pgconn, groups)
    for group in results:
        _checked(pgconn, group)
    return results[-1]


def _checked(pgconn: Any, results: list[Any]) -> list[Any]:
    from psycopg import errors, pq

    for result in results:
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise errors.error_from_result(result, encoding=pgconn._encoding)
    return results


def _piped(pgconn: Any, groups: list[list[tuple[bytes, Any]]]) -> Generator[Any, Any, list[list[Any]]]:
    """Send groups of commands in a pipeline, each a transaction unless it begins one, and return their results."""
    from psycopg import generators, pq

    found: list[list[Any]] = []
    pgconn.enter_pipeline_mode()
    try:
        for group in groups:
            for command, parameters in group:
                pgconn.send_query_params(command, parameters)
            pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        for _ in groups:
            results: list[Any] = []
            while not results or results[-1].status != pq.ExecStatus.PIPELINE_SYNC:
                results += yield from generators.fetch_many(pgconn)
            found.append(results[:-1])
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()  # what is left unread in it would be the answer to the next one's statement
        raise
    return found


# --- asyncpg -------------------------------------------------------------------------------------------------


class _Beginning:
    """Stands before asyncpg's connection while a transaction starts: what BEGIN is sent with."""

    def __init__(self, connection: Any, command: str) -> None:
        object.__setattr__(self, "_own", (connection, command))

    def __getattr__(self, key: str) -> Any:
        return getattr(self._own[0], key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self._own[0], key, value)

    async def execute(self, begin: str) -> Any:
        connection, command = self._own
        return await connection.execute(f"{begin} {command}")


@final
class AsyncpgLine:
    """asyncpg, by SQLAlchemy's adaptation."""

    shows_parameters = False

    def is_idle(self, driver: Any) -> bool:
        return not driver._connection.is_in_transaction()

    def backend_pid(self, driver: Any) -> int:
        return int(driver._connection.get_server_pid())

    def rows(self, driver: Any, query: str) -> list[tuple[str, ...]]:
        return [tuple(map(str, row)) for row in await_(_asyncpg(driver, lambda: driver._connection.fetch(query)))]

    def reset(self, driver: Any, commands: Sequence[str]) -> None:
        await_(_asyncpg(driver, lambda: _asyncpg_reset(driver, commands)))

    def send(self, driver: Any, command: str, secret: str | None = None, reset: Sequence[str] = ()) -> None:
        await_(_asyncpg(driver, lambda: _asyncpg_sent(driver, command, secret, reset)))

    def ask(self, driver: Any, query: str, reset: Sequence[str] = ()) -> str:
        async def asked() -> Any:
            await _asyncpg_begun(driver, reset)
            return await driver._connection.fetchval(query)

        return str(await_(_asyncpg(driver, asked)))


async def _asyncpg(driver: Any, work: Any) -> Any:
    async with driver._execute_mutex:
        try:
            return await work()
        except Exception as error:
            driver._handle_exception(error)  # which raises it again, as an error of the DBAPI
            raise


async def _asyncpg_reset(driver: Any, commands: Sequence[str]) -> None:
    connection = driver._connection
    try:
        await connection.execute("; ".join(commands))
    except Exception as error:
        if getattr(error, "sqlstate", None) is None:
            raise
        await connection.execute(_DISCARD)
        connection._drop_local_statement_cache()
        if driver._prepared_statement_cache is not None:
            driver._prepared_statement_cache.clear()
        await connection.execute("; ".join(commands))


async def _asyncpg_begun(driver: Any, reset: Sequence[str], command: str | None = None) -> bool:
    """Begin, with a command in the same message, and return True if the command was sent."""
    if reset:
        await _asyncpg_reset(driver, reset)
    if driver._transaction is not None:
        return False
    transaction = driver._connection.transaction(
        isolation=driver.isolation_level, readonly=driver.readonly, deferrable=driver.deferrable
    )
    if command is not None:
        own, transaction._connection = transaction._connection, _Beginning(transaction._connection, command)
        try:
            await transaction.start()
        finally:
            transaction._connection = own
    else:
        await transaction.start()
    driver._transaction = transaction
    return command is not None


async def _asyncpg_sent(driver: Any, command: str, secret: str | None, reset: Sequence[str]) -> None:
    if await _asyncpg_begun(driver, reset, command if secret is None else None):
        return
    if secret is None:
        await driver._connection.execute(command)
    else:
        await driver._connection.fetchval(command.format("$1"), secret)


# --- psycopg2 ------------------------------------------------------------------------------------------------


@final
class CursorLine:
    """psycopg2, and others by the DBAPI alone: those can't reset a session."""

    shows_parameters = True

    def is_idle(self, driver: Any) -> bool:
        return bool(driver.get_transaction_status() == 0)

    def backend_pid(self, driver: Any) -> int:
        return int(driver.get_backend_pid())

    def rows(self, driver: Any, query: str) -> list[tuple[str, ...]]:
        return self._outside(driver, query, lambda cursor: [tuple(map(str, row)) for row in cursor.fetchall()])

    def reset(self, driver: Any, commands: Sequence[str]) -> None:
        together = "; ".join(commands)
        try:
            self._outside(driver, together)
        except Exception as error:
            if getattr(error, "pgcode", None) is None:
                raise
            self._outside(driver, _DISCARD)
            self._outside(driver, together)

    def send(self, driver: Any, command: str, secret: str | None = None, reset: Sequence[str] = ()) -> None:
        if reset:
            self.reset(driver, reset)
        with contextlib.closing(driver.cursor()) as cursor:
            cursor.execute(command if secret is None else command.format("%s"), None if secret is None else (secret,))

    def ask(self, driver: Any, query: str, reset: Sequence[str] = ()) -> str:
        if reset:
            self.reset(driver, reset)
        with contextlib.closing(driver.cursor()) as cursor:
            cursor.execute(query)
            return str(cursor.fetchone()[0])

    def _outside(self, driver: Any, command: str, answer: Callable[[Any], Any] | None = None) -> Any:
        """Run commands in no transaction of the driver's."""
        was, driver.autocommit = driver.autocommit, True
        try:
            with contextlib.closing(driver.cursor()) as cursor:
                cursor.execute(command)
                return None if answer is None else answer(cursor)
        finally:
            if not driver.closed:
                driver.autocommit = was
