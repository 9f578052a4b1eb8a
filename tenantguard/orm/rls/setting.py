"""The tenant travels with the transaction: ``SET LOCAL`` is sent in the same message as ``BEGIN``.

The barrier calls `TransactionSetting` when the first statement of a transaction is about to run, which pins the
transaction to its tenant. The driver has not begun then, so the setting costs no round trip with psycopg and asyncpg;
where it has begun, and with other drivers, it is a statement of its own. For a seal of one transaction PostgreSQL is
first asked which transaction that is. PostgreSQL takes the setting back when the transaction ends, however it ends, and
when it is rolled back to a savepoint that is older than the setting; so a savepoint comes after the setting, or the
setting is sent again.

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

_E = TypeVar("_E", Engine, AsyncEngine)
_WHICH: Final = f"SELECT {TRANSACTION}"


def guard_transactions(engine: _E, *, seal: Seal | None = None) -> _E:
    """Have every transaction of a protected engine tell PostgreSQL whose it is, for row-level security.

    Args:
        engine: a protected `sqlalchemy.Engine` or `AsyncEngine` of PostgreSQL.
        seal: seals the setting, so that SQL injection can't become another tenant. Without it the setting is plain.

    Returns:
        The same engine.

    Raises:
        ConfigurationError: the engine is not protected, of another database, or has another setting already.
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
            if body and self._seal is not None:
                ask = self._seal.bound_to == "transaction"
                bound = self._send(connection, driver, _WHICH) if ask else str(self._backend_pid(driver))
                body = self._seal.value(body, bound)
            self._send(connection, driver, f"SET LOCAL {SETTING} = '{body}'")
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises it again, and drops a broken connection
            connection._handle_dbapi_exception(error, None, None, None, None)

    def _send(self, connection: Any, driver: Any, command: str) -> str:
        """Send a command, after BEGIN where the transaction has not begun, and return the one value of its answer."""
        if self._driver == "psycopg":
            return _psycopg(driver, command, is_async=connection.dialect.is_async)
        if self._driver == "asyncpg":
            return str(await_(_asyncpg(driver, command)))
        cursor = driver.cursor()
        cursor.execute(command)
        answer = cursor.fetchone()[0] if cursor.description else ""
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


def _psycopg(driver: Any, command: str, *, is_async: bool) -> str:
    connection = driver._connection if is_async else driver
    if is_async:
        return str(await_(_psycopg_async(connection, command)))
    with connection.lock:
        return str(connection.wait(_sent(connection, command)))


async def _psycopg_async(connection: Any, command: str) -> str:
    async with connection.lock:
        return str(await connection.wait(_sent(connection, command)))


def _sent(connection: Any, command: str) -> Generator[Any, Any, str]:
    """Send a command, and BEGIN before it in the same message where the transaction has not begun."""
    from psycopg import errors, generators, pq

    connection._check_connection_ok()
    encoding = connection.pgconn._encoding
    text = command.encode(encoding)
    if connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
        text = connection._get_tx_start_command() + b"; " + text
    connection.pgconn.send_query(text)
    answer = ""
    for result in (yield from generators.execute(connection.pgconn)):
        if result.status == pq.ExecStatus.TUPLES_OK:
            answer = result.get_value(0, 0).decode(encoding)
        elif result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result, encoding=encoding)
    return answer


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


async def _asyncpg(driver: Any, command: str) -> str:
    connection = driver._connection
    asks = command is _WHICH
    async with driver._execute_mutex:
        try:
            if driver._transaction is None:
                transaction = connection.transaction(
                    isolation=driver.isolation_level, readonly=driver.readonly, deferrable=driver.deferrable
                )
                if asks:
                    await transaction.start()
                else:
                    own, transaction._connection = transaction._connection, _Beginning(connection, command)
                    try:
                        await transaction.start()
                    finally:
                        transaction._connection = own
                driver._transaction = transaction
                if not asks:
                    return ""
            return str(await (connection.fetchval(command) if asks else connection.execute(command)))
        except Exception as error:
            driver._handle_exception(error)  # which raises it again, as an error of the DBAPI
            raise
