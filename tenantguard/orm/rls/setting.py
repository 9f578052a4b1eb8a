"""The tenant travels with the transaction: it is set with ``BEGIN``, and gone with its end.

The barrier calls `TransactionSetting` when the first statement of a transaction is about to run, which pins the
transaction to its tenant. The driver has not begun then, so BEGIN and the setting go to PostgreSQL together: as one
message, or, where the value is a secret, in one pipeline of psycopg's with the value as a parameter, since PostgreSQL
shows the text of statements to all sessions of a role (``pg_stat_activity``). asyncpg has no pipelines, and other
drivers no parameters of the server: they need a round trip more. PostgreSQL takes the setting back when the transaction
ends, however it ends, and when it is rolled back to a savepoint that is older than the setting; so a savepoint comes
after the setting, or the setting is sent again.

A system context gets an empty setting, with which the database refuses every row of tenants: working across tenants is
for an engine of another role, one that may bypass row-level security. AUTOCOMMIT has no transaction, so no tenant
works in it.
"""

from collections.abc import Generator
from typing import Any, Final, TypeVar, final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.connections import driver_connection_of
from tenantguard.orm.protect import is_protected
from tenantguard.orm.rls.functions import SETTING, TRANSACTION
from tenantguard.orm.rls.seal import Seal, plain_value

__all__ = ["TransactionSetting", "guard_transactions"]

_WITH_PARAMETERS: Final = frozenset({"asyncpg", "psycopg"})
_E = TypeVar("_E", Engine, AsyncEngine)
_WHICH: Final = f"SELECT {TRANSACTION}"
_SET: Final = f"SELECT pg_catalog.set_config('{SETTING}', {{}}, true)"
"""As a query and not as SET LOCAL, which takes no parameter, and of which ``pg_stat_statements`` keeps each value."""


def guard_transactions(engine: _E, *, seal: Seal | None = None) -> _E:
    """Have every transaction of a protected engine tell PostgreSQL whose it is, for row-level security.

    Args:
        engine: a protected `sqlalchemy.Engine` or `AsyncEngine` of PostgreSQL.
        seal: seals the setting, so that SQL injection can't become another tenant. Without it the setting is plain.

    Returns:
        The same engine.

    Raises:
        ConfigurationError: the engine is not protected, of another database, has another setting already, or its
            driver would show the seal.
    """
    dialect: Any = engine.dialect
    if not is_protected(engine) or dialect.name != "postgresql":
        raise ConfigurationError(
            "guard_transactions() takes a protected engine of PostgreSQL.", mend="Call protect(engine) before it."
        )
    if dialect.tenantguard_setting is not None:
        raise ConfigurationError(
            "The transactions of this engine are guarded already.", mend="Call guard_transactions() once for an engine."
        )
    if seal is not None and seal.bound_to != "transaction" and dialect.driver not in _WITH_PARAMETERS:
        raise ConfigurationError(
            f"With {dialect.driver} the seal stands in the text of a statement, which PostgreSQL shows to others.",
            mend='Use psycopg or asyncpg, or Seal(key, bound_to="transaction"), which is of no use to them.',
        )
    dialect.tenantguard_setting = TransactionSetting(dialect.driver, seal)
    return engine


@final
class TransactionSetting:
    """Sets the tenant at the begin of a transaction.

    Args:
        driver: SQLAlchemy's name of the driver.
        seal: seals it, or ``None``.
    """

    __slots__ = ("_driver", "_seal")

    def __init__(self, driver: str, seal: Seal | None) -> None:
        self._driver = driver
        self._seal = seal

    def place(self, connection: Any, binding: Binding) -> None:
        """Tell PostgreSQL whose transaction it is.

        Args:
            connection: SQLAlchemy's, whose transaction has not run a statement, or was rolled back to a savepoint.
            binding: what is bound.

        Raises:
            StatementRefused: the database could not hold the tenant: in AUTOCOMMIT, or while further tenants are read.
            DBAPIError: PostgreSQL refused it, or is gone.
        """
        driver: Any = driver_connection_of(connection.connection)
        if connection.dialect.detect_autocommit_setting(driver):
            if binding.system is not None:
                return
            raise StatementRefused(
                "AUTOCOMMIT has no transaction that the tenant could be tied to.",
                mend='Use a transaction. For what runs in none, work in a block of system("why").',
            )
        body = self._body(binding)
        try:
            if not body or self._seal is None:
                self._send(connection, driver, _SET.format(f"'{body}'"))
            elif self._seal.bound_to == "transaction":  # of no use to those who see it
                value = self._seal.value(body, self._send(connection, driver, _WHICH))
                self._send(connection, driver, _SET.format(f"'{value}'"))
            else:
                self._send(connection, driver, _SET, self._seal.value(body, str(self._backend_pid(driver))))
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises it again, and drops a broken connection
            connection._handle_dbapi_exception(error, None, None, None, None)

    def _send(self, connection: Any, driver: Any, command: str, secret: str | None = None) -> str:
        """Send a command, after BEGIN where the transaction has not begun.

        Args:
            connection: SQLAlchemy's.
            driver: the driver's.
            command: an SQL command.
            secret: what stands for ``{}`` in it, as a parameter.

        Returns:
            The one value of its answer.
        """
        if self._driver == "psycopg":
            return _psycopg(driver, command, secret, is_async=connection.dialect.is_async)
        if self._driver == "asyncpg":
            return str(await_(_asyncpg(driver, command, secret)))
        cursor = driver.cursor()
        cursor.execute(command)
        answer = cursor.fetchone()[0]
        cursor.close()
        return str(answer)

    def _body(self, binding: Binding) -> str:
        if binding.system is not None or binding.identity is None or binding.identity.tenant is None:
            return ""
        if binding.reads:
            raise StatementRefused(
                "Row-level security shows the rows of one tenant, and further tenants were to be read.",
                mend="Use an engine of a role that may bypass row-level security.",
            )
        return plain_value(binding.identity)

    def _backend_pid(self, driver: Any) -> int:
        connection = getattr(driver, "_connection", driver)
        if self._driver == "psycopg":
            pid: int = connection.pgconn.backend_pid
        elif self._driver == "asyncpg":
            pid = connection.get_server_pid()
        else:
            pid = connection.get_backend_pid()
        return pid


def _psycopg(driver: Any, command: str, secret: str | None, *, is_async: bool) -> str:
    connection = driver._connection if is_async else driver
    if is_async:
        return str(await_(_psycopg_async(connection, command, secret)))
    with connection.lock:
        return str(connection.wait(_sent(connection, command, secret)))


async def _psycopg_async(connection: Any, command: str, secret: str | None) -> str:
    async with connection.lock:
        return str(await connection.wait(_sent(connection, command, secret)))


def _sent(connection: Any, command: str, secret: str | None) -> Generator[Any, Any, str]:
    """Send a command, and BEGIN before it in the same message or pipeline where the transaction has not begun."""
    from psycopg import errors, generators, pq

    connection._check_connection_ok()
    pgconn = connection.pgconn
    encoding = pgconn._encoding
    idle = pgconn.transaction_status == pq.TransactionStatus.IDLE
    begin = connection._get_tx_start_command() if idle else b""
    if secret is None:
        pgconn.send_query(begin + b"; " * idle + command.encode(encoding))
        results = yield from generators.execute(pgconn)
    else:
        results = yield from _piped(pgconn, begin, command.format("$1").encode(encoding), secret.encode(encoding))
    answer = ""
    for result in results:
        if result.status == pq.ExecStatus.TUPLES_OK:
            answer = result.get_value(0, 0).decode(encoding)
        elif result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result, encoding=encoding)
    return answer


def _piped(pgconn: Any, begin: bytes, command: bytes, secret: bytes) -> Generator[Any, Any, list[Any]]:
    """Send a command with a parameter in a pipeline, and return the results before the pipeline's end."""
    from psycopg import generators, pq

    found: list[Any] = []
    pgconn.enter_pipeline_mode()
    try:
        if begin:
            pgconn.send_query_params(begin, None)
        pgconn.send_query_params(command, [secret])
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        while not found or found[-1].status != pq.ExecStatus.PIPELINE_SYNC:
            found += yield from generators.fetch_many(pgconn)
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()  # what is left unread in it would be the answer to the next one's statement
        raise
    return found[:-1]


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


async def _asyncpg(driver: Any, command: str, secret: str | None) -> str:
    connection = driver._connection
    alone = secret is None and command is not _WHICH
    async with driver._execute_mutex:
        try:
            if driver._transaction is None:
                transaction = connection.transaction(
                    isolation=driver.isolation_level, readonly=driver.readonly, deferrable=driver.deferrable
                )
                if alone:
                    own, transaction._connection = transaction._connection, _Beginning(connection, command)
                    try:
                        await transaction.start()
                    finally:
                        transaction._connection = own
                else:
                    await transaction.start()
                driver._transaction = transaction
                if alone:
                    return ""
            if alone:
                return str(await connection.execute(command))
            values = [] if secret is None else [secret]
            return str(await connection.fetchval(command.format("$1"), *values))
        except Exception as error:
            driver._handle_exception(error)  # which raises it again, as an error of the DBAPI
            raise
