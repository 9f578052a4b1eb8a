"""The tenant travels with the transaction: ``SET LOCAL`` is sent in the same message as ``BEGIN``.

The barrier calls `TransactionSetting` when the first statement of a transaction is about to run, which pins the
transaction to its tenant. The driver has not begun then, so the setting costs no round trip with psycopg and asyncpg;
where it has begun, and with other drivers, it is a statement of its own. PostgreSQL takes the setting back when the
transaction ends, however it ends, and when it is rolled back to a savepoint that is older than the setting; so a
savepoint comes after the setting, or the setting is sent again.

A system context gets an empty setting, with which the database refuses every row of tenants: working across tenants is
for an engine of another role, one that may bypass row-level security. AUTOCOMMIT has no transaction, so no tenant
works in it.
"""

from collections.abc import Generator
from typing import Any, TypeVar, final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.connections import driver_connection_of
from tenantguard.orm.protect import is_protected
from tenantguard.orm.rls.functions import SETTING
from tenantguard.orm.rls.seal import Seal, plain_value

__all__ = ["TransactionSetting", "guard_transactions"]

_E = TypeVar("_E", Engine, AsyncEngine)


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
        command = f"SET LOCAL {SETTING} = '{self._value(driver, binding)}'"
        try:
            if self._driver == "psycopg":
                _psycopg(driver, command, is_async=connection.dialect.is_async)
            elif self._driver == "asyncpg":
                await_(_asyncpg(driver, command))
            else:
                cursor = driver.cursor()
                cursor.execute(command)
                cursor.close()
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises it again, and drops a broken connection
            connection._handle_dbapi_exception(error, None, None, None, None)

    def _value(self, driver: Any, binding: Binding) -> str:
        if binding.system is not None or binding.identity is None or binding.identity.tenant is None:
            return ""
        if binding.reads:
            raise StatementRefused(
                "Row-level security shows the rows of one tenant, and further tenants were to be read.",
                mend="Use an engine of a role that may bypass row-level security.",
            )
        body = plain_value(binding.identity)
        return body if self._seal is None else self._seal.value(body, self._backend_pid(driver))

    def _backend_pid(self, driver: Any) -> int:
        connection = getattr(driver, "_connection", driver)
        if self._driver == "psycopg":
            pid: int = connection.pgconn.backend_pid
        elif self._driver == "asyncpg":
            pid = connection.get_server_pid()
        else:
            pid = connection.get_backend_pid()
        return pid


def _psycopg(driver: Any, command: str, *, is_async: bool) -> None:
    connection = driver._connection if is_async else driver
    if is_async:
        await_(_psycopg_async(connection, command))
        return
    with connection.lock:
        connection.wait(_sent(connection, command))


async def _psycopg_async(connection: Any, command: str) -> None:
    async with connection.lock:
        await connection.wait(_sent(connection, command))


def _sent(connection: Any, command: str) -> Generator[Any, Any, None]:
    """Send a command, and BEGIN before it in the same message where the transaction has not begun."""
    from psycopg import errors, generators, pq

    connection._check_connection_ok()
    text = command.encode(connection.pgconn._encoding)
    if connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
        text = connection._get_tx_start_command() + b"; " + text
    connection.pgconn.send_query(text)
    for result in (yield from generators.execute(connection.pgconn)):
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result, encoding=connection.pgconn._encoding)


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


async def _asyncpg(driver: Any, command: str) -> None:
    async with driver._execute_mutex:
        try:
            if driver._transaction is not None:
                await driver._connection.execute(command)
                return
            transaction = driver._connection.transaction(
                isolation=driver.isolation_level, readonly=driver.readonly, deferrable=driver.deferrable
            )
            own, transaction._connection = transaction._connection, _Beginning(driver._connection, command)
            try:
                await transaction.start()
            finally:
                transaction._connection = own
        except Exception as error:  # noqa: BLE001 - the dialect raises it again, as an error of the DBAPI
            driver._handle_exception(error)
        else:
            driver._transaction = transaction
