"""The tenant travels with the transaction: it is set with ``BEGIN``, and gone with its end.

The barrier calls `TransactionSetting` when the first statement of a transaction is about to run, which pins the
transaction to its tenant. The driver has not begun then, so BEGIN and the setting go to PostgreSQL together
(`tenantguard.orm.rls.lines`), after a reset where the session was another tenant's before
(`tenantguard.orm.rls.sessions`). PostgreSQL takes the setting back when the transaction ends, however it ends, and when
it is rolled back to a savepoint that is older than the setting; so a savepoint comes after the setting, or the setting
is sent again.

A system context gets an empty setting, with which the database refuses every row of tenants: working across tenants is
for an engine of another role, one that may bypass row-level security. AUTOCOMMIT has no transaction, so no tenant
works in it.
"""

import logging
from typing import Any, Final, TypeVar, final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import in_greenlet

from tenantguard.binding import Binding, current_binding
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.connections import RAN_RAW, driver_connection_of
from tenantguard.orm.protect import is_protected
from tenantguard.orm.rls.functions import SETTING, TRANSACTION
from tenantguard.orm.rls.lines import Line, line_of
from tenantguard.orm.rls.seal import Seal, plain_value
from tenantguard.orm.rls.sessions import CLEAN, MARKED, SessionReset, Sessions

__all__ = ["SET", "WHICH", "TransactionSetting", "check_reset", "guard_transactions"]

logger: Final = logging.getLogger("tenantguard.orm")
_WHO_RESETS: Final = ("engine", "pooler", "off")
_RESETS: Final = frozenset({"asyncpg", "psycopg", "psycopg2"})
_E = TypeVar("_E", Engine, AsyncEngine)
WHICH: Final = f"SELECT {TRANSACTION}"
SET: Final = f"SELECT pg_catalog.set_config('{SETTING}', {{}}, true)"
"""As a query and not as SET LOCAL, which takes no parameter, and of which ``pg_stat_statements`` keeps each value."""


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
    check_reset(session_reset)
    if session_reset == "engine" and dialect.driver not in _RESETS:
        raise ConfigurationError(
            f"How sessions of {dialect.driver} are reset is not known.",
            mend='Use psycopg, asyncpg or psycopg2, or poolclass=NullPool with session_reset="off".',
        )
    dialect.tenantguard_setting = TransactionSetting(line, seal, session_reset)
    return engine


def check_reset(session_reset: SessionReset) -> None:
    """Refuse what is no way to reset sessions, and log where none is chosen.

    Raises:
        ConfigurationError: it is none.
    """
    if session_reset not in _WHO_RESETS:
        raise ConfigurationError(
            f"session_reset={session_reset!r} is none of {', '.join(map(repr, _WHO_RESETS))}.",
            mend="Choose one of them.",
        )
    if session_reset == "off":
        logger.warning("Sessions of PostgreSQL are not reset between tenants (session_reset='off').")


@final
class TransactionSetting:
    """Sets the tenant at the begin of a transaction.

    Args:
        line: how the driver sends.
        seal: seals it, or ``None``.
        session_reset: as for `guard_transactions`.
    """

    __slots__ = ("_line", "_pooler", "_seal", "_sessions")

    def __init__(self, line: Line, seal: Seal | None, session_reset: SessionReset) -> None:
        self._line = line
        self._seal = seal
        self._sessions = Sessions(line) if session_reset == "engine" else None
        self._pooler = session_reset == "pooler"

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
        driver: Any = driver_connection_of(connection.connection)
        autocommit = connection.dialect.detect_autocommit_setting(driver)
        if autocommit and binding.system is None:
            raise StatementRefused(
                "AUTOCOMMIT has no transaction that the tenant could be tied to.",
                mend='Use a transaction. For what runs in none, work in a block of system("why").',
            )
        body = self._body(binding)
        try:
            if not autocommit:
                self._tell(driver, body, self._due(connection.connection, driver, body))
            elif due := self._due(connection.connection, driver, body):
                self._line.reset(driver, due)
        except BaseException as error:  # noqa: BLE001 - SQLAlchemy raises it again, and drops a broken connection
            connection._handle_dbapi_exception(error, None, None, None, None)
        if self._sessions is not None:
            self._sessions.done(connection.connection, body)

    def before_savepoint(self, connection: Any) -> None:
        """Reset the session before a savepoint of nobody's begins a transaction that may become a tenant's.

        Args:
            connection: SQLAlchemy's.
        """
        pooled = connection.connection
        driver: Any = driver_connection_of(pooled)
        if self._sessions is None or not self._line.is_idle(driver):
            return
        try:
            if due := self._sessions.due(pooled, driver, CLEAN):
                self._line.reset(driver, due)
        except BaseException as error:  # noqa: BLE001 - as in `place`
            connection._handle_dbapi_exception(error, None, None, None, None)
        self._sessions.done(pooled, CLEAN)

    def before_raw(self, pooled: Any) -> None:
        """Reset the session before raw SQL runs on a pooled connection, and again before another tenant's transaction.

        Args:
            pooled: SQLAlchemy's pooled connection, whose driver is about to be handed out.
        """
        binding = current_binding()
        if self._sessions is None or binding is None:
            return
        driver: Any = driver_connection_of(pooled)
        if self._can_send(driver) and not binding.reads and self._line.is_idle(driver):
            body = self._body(binding)
            if due := self._due(pooled, driver, body):
                self._line.reset(driver, due)
            self._sessions.done(pooled, body)
        pooled.info[RAN_RAW] = True

    def _can_send(self, driver: Any) -> bool:
        """An asynchronous driver is also handed out where nothing can be awaited."""
        return in_greenlet() or not hasattr(driver, "run_async")

    def _due(self, pooled: Any, driver: Any, body: str) -> tuple[str, ...]:
        return () if self._sessions is None else self._sessions.due(pooled, driver, body)

    def _tell(self, driver: Any, body: str, reset: tuple[str, ...]) -> None:
        seal, line = self._seal, self._line
        command = SET + MARKED if self._pooler and line.is_idle(driver) else SET
        if not body or seal is None:
            line.send(driver, command.format(f"'{body}'"), reset=reset)
        elif seal.bound_to == "transaction":  # of no use to those who see it
            line.send(driver, command.format(f"'{seal.value(body, line.ask(driver, WHICH, reset))}'"))
        else:
            line.send(driver, command, seal.value(body, str(line.backend_pid(driver))), reset)

    def _body(self, binding: Binding) -> str:
        if binding.system is not None or binding.identity is None or binding.identity.tenant is None:
            return ""
        if binding.reads:
            raise StatementRefused(
                "Row-level security shows the rows of one tenant, and further tenants were to be read.",
                mend="Use an engine of a role that may bypass row-level security.",
            )
        return plain_value(binding.identity)
