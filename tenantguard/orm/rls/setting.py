"""The tenant travels with the transaction: it is set with ``BEGIN``, and gone with its end.

The barrier calls `TransactionSetting` when the first statement of a transaction is about to run, which pins the
transaction to its tenant. The driver has not begun then, so BEGIN and the setting go to PostgreSQL together. PostgreSQL
takes the setting back when the transaction ends, however it ends, and when it is rolled back to a savepoint that is
older than the setting; so a savepoint comes after the setting, or the setting is sent again.

A system context gets an empty setting, with which the database refuses every row of tenants: working across tenants is
for an engine of another role, one that may bypass row-level security. AUTOCOMMIT has no transaction, so no tenant
works in it.
"""

from typing import Any, Final, TypeVar, final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import in_greenlet

from tenantguard.binding import Binding, current_binding
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.connections import driver_connection_of
from tenantguard.orm.protect import is_protected
from tenantguard.orm.rls.lines import line_of
from tenantguard.orm.rls.seal import Seal
from tenantguard.orm.rls.sessions import SessionReset
from tenantguard.orm.rls.tenant_setting import TenantSetting, body_of

__all__ = ["TransactionSetting", "guard_transactions"]

_RESETS: Final = frozenset({"asyncpg", "psycopg", "psycopg2"})
_E = TypeVar("_E", Engine, AsyncEngine)


def guard_transactions(engine: _E, *, seal: Seal | None = None, session_reset: SessionReset = "engine") -> _E:
    """Have every transaction of a protected engine tell PostgreSQL whose it is, for row-level security.

    Args:
        engine: a protected `sqlalchemy.Engine` or `AsyncEngine` of PostgreSQL.
        seal: seals the setting, so that SQL injection can't become another tenant. Without it the setting is plain.
        session_reset: who resets what a session of PostgreSQL keeps when a pooled connection goes on to another
            tenant: settings, temporary tables, cursors, prepared statements of SQL. ``"engine"``: this engine, before
            that tenant's transaction; what ``connect`` events set is set again, other than settings of one's own
            (``app.x``), which belong in ``options`` of the URL or ``ALTER ROLE``. ``"pooler"``: the one between
            (PgBouncer in transaction mode, with ``server_reset_query_always = 1``); a session that it did not reset
            is refused. ``"off"``: nobody, which is logged: SQL injected in one tenant's name can act in the next's.

    Returns:
        The same engine.

    Raises:
        ConfigurationError: the engine is not protected, of another database, has another setting already, its driver
            would show the seal, or its sessions can't be reset by it.
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
    line = line_of(dialect.driver, is_async=dialect.is_async)
    if seal is not None and seal.bound_to != "transaction" and line.shows_parameters:
        raise ConfigurationError(
            f"With {dialect.driver} the seal stands in the text of a statement, which PostgreSQL shows to others.",
            mend='Use psycopg or asyncpg, or Seal(key, bound_to="transaction"), which is of no use to them.',
        )
    setting = TenantSetting(line, seal, session_reset)
    if session_reset == "engine" and dialect.driver not in _RESETS:
        raise ConfigurationError(
            f"How sessions of {dialect.driver} are reset is not known.",
            mend='Use psycopg, asyncpg or psycopg2, or poolclass=NullPool with session_reset="off".',
        )
    dialect.tenantguard_setting = TransactionSetting(setting)
    return engine


@final
class TransactionSetting:
    """Sets the tenant at the begin of SQLAlchemy's transactions.

    Args:
        setting: tells PostgreSQL.
    """

    __slots__ = ("_setting",)

    def __init__(self, setting: TenantSetting) -> None:
        self._setting = setting

    def place(self, connection: Any, binding: Binding) -> None:
        """Tell PostgreSQL whose transaction it is, after a reset of what another tenant's may have left.

        Args:
            connection: SQLAlchemy's, whose transaction has not run a statement, or was rolled back to a savepoint.
            binding: what is bound.

        Raises:
            StatementRefused: the database could not hold the tenant: in AUTOCOMMIT, or while further tenants are read.
            ConfigurationError: the session can't be reset from here.
            DBAPIError: PostgreSQL refused it, or is gone.
        """
        pooled = connection.connection
        driver: Any = driver_connection_of(pooled)
        autocommit = connection.dialect.detect_autocommit_setting(driver)
        if autocommit and binding.system is None:
            raise StatementRefused(
                "AUTOCOMMIT has no transaction that the tenant could be tied to.",
                mend='Use a transaction. For what runs in none, work in a block of system("why").',
            )
        body = body_of(binding, "Use an engine of a role that may bypass row-level security.")
        try:
            (self._setting.reset if autocommit else self._setting.begin)(pooled, driver, body)
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises it again, and drops a broken connection
            connection._handle_dbapi_exception(error, None, None, None, None)

    def before_savepoint(self, connection: Any) -> None:
        """Reset the session before a savepoint of nobody's begins a transaction that may become a tenant's.

        Args:
            connection: SQLAlchemy's.
        """
        pooled = connection.connection
        driver: Any = driver_connection_of(pooled)
        if self._setting.line.is_idle(driver):
            try:
                self._setting.reset(pooled, driver)
            except BaseException as error:  # noqa: BLE001 - as in `place`
                connection._handle_dbapi_exception(error, None, None, None, None)

    def before_raw(self, pooled: Any) -> None:
        """Reset the session before raw SQL runs on a pooled connection, and again before another tenant's transaction.

        Args:
            pooled: SQLAlchemy's pooled connection, whose driver is about to be handed out.
        """
        binding = current_binding()
        if binding is not None:
            driver: Any = driver_connection_of(pooled)
            # An asynchronous driver is also handed out where nothing can be awaited.
            can_send = in_greenlet() or not hasattr(driver, "run_async")
            self._setting.before_raw(pooled, driver, binding, can_send=can_send)
