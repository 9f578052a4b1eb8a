"""What a pooled connection may keep from one tenant to the next: nothing.

PostgreSQL ends a tenant's setting with its transaction, but a *session* keeps settings, temporary tables, cursors
``WITH HOLD``, ``LISTEN``, advisory locks and prepared statements. SQL injected in the name of one tenant can put a
statement of its own under the name of one of the driver's, which the next tenant of the connection would run. So a
session is reset when its next transaction is another tenant's. The driver's own prepared statements stay, since SQL
can't make them: where SQL prepared any, everything is discarded. What the app set when it connected is set again.
"""

from typing import Any, Final, Literal, final

from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.connections import RAN_RAW
from tenantguard.orm.rls.lines import Line

__all__ = ["CLEAN", "MARKED", "SessionReset", "Sessions"]

SessionReset = Literal["engine", "pooler", "off"]
"""Who resets a session between two tenants: the engine; the pooler before PostgreSQL; nobody."""

CLEAN: Final = "*"
"""Stands for a tenant (a setting begins otherwise) where none ran anything since the session was reset."""

_KEY: Final = "tenantguard_session"
_FIRST: Final = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' "
    "UNION ALL SELECT 'role', pg_catalog.current_setting('role') "
    "UNION ALL SELECT '', CAST(pg_catalog.pg_backend_pid() AS text)"
)
_RESET: Final = (
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "CLOSE ALL",
    "UNLISTEN *",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
)
_LAST: Final = (
    "SELECT pg_catalog.pg_advisory_unlock_all(), CAST(CASE WHEN EXISTS "
    "(SELECT FROM pg_catalog.pg_prepared_statement() WHERE from_sql) "
    "THEN 'SQL prepared statements in this session' ELSE '0' END AS pg_catalog.int4)"
)
"""Fails, without an answer to be read, where SQL prepared statements: `DISCARD ALL` comes next then."""
MARKED: Final = (
    ", CAST(CASE pg_catalog.current_setting('tenantguard.session', true) WHEN 'used' "
    "THEN 'The pooler did not reset the session: set server_reset_query_always = 1' ELSE '0' END AS pg_catalog.int4)"
    ", pg_catalog.set_config('tenantguard.session', 'used', false)"
)
"""Fails on a session that was used before and not reset since, as the pooler was said to do."""


def _literal(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


@final
class _Session:
    """One connection to PostgreSQL.

    Args:
        kept: what the app set when it connected.
    """

    __slots__ = ("commands", "inside", "of")

    def __init__(self, kept: dict[str, str]) -> None:
        again = [f"pg_catalog.set_config({_literal(name)}, {_literal(value)}, false)" for name, value in kept.items()]
        self.commands = (*_RESET, ", ".join((_LAST, *again)))
        self.of: str | None = None
        self.inside = False


@final
class Sessions:
    """Knows whose session each pooled connection is, and what resets it.

    Args:
        line: how the driver sends.
    """

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def due(self, pooled: Any, driver: Any, body: str) -> tuple[str, ...]:
        """Return what is to run before a transaction of a tenant; nothing where the session is its own already.

        The session counts as nobody's until `done`. Where the driver is in a transaction, it is reset here, in that.

        Args:
            pooled: SQLAlchemy's pooled connection.
            driver: the driver's.
            body: the tenant and its dimensions, as the setting has them.

        Raises:
            StatementRefused: raw SQL began a transaction in a session that nothing is known of.
            ConfigurationError: a pooler stands between, whose sessions can't be reset from here.
        """
        info = pooled.info
        session: _Session | None = info.get(_KEY)
        raw = info.pop(RAN_RAW, False)
        if session is not None and session.of in (body, CLEAN) and not raw:
            return ()
        idle = self._line.is_idle(driver)
        if session is None:
            if not idle:
                raise StatementRefused(
                    "Raw SQL began this transaction before PostgreSQL knew whose it is.",
                    mend="Commit or roll back, or execute a statement of the session or connection first.",
                )
            session = info[_KEY] = _Session({} if raw else self._kept(driver))
            if not raw:
                return ()
        if not idle:
            info[RAN_RAW] = True  # what is reset in a transaction comes back with a rollback: it is not settled
            if session.of in (body, CLEAN):
                return ()
            session.inside, session.of = True, None
            self._line.send(driver, "; ".join(session.commands))
            return ()
        session.inside = False
        session.of = None
        return session.commands

    def done(self, pooled: Any, body: str) -> None:
        """The session is that tenant's now, unless its reset may be rolled back."""
        session = pooled.info[_KEY]
        if not session.inside:
            session.of = body

    def _kept(self, driver: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in self._line.rows(driver, _FIRST):
            found[name] = value  # noqa: PERF403 - rows are of any length to mypy
        if int(found.pop("")) != self._line.backend_pid(driver):
            raise ConfigurationError(
                "A pooler stands between the engine and PostgreSQL, so the engine can't reset what a session keeps "
                "from one tenant to the next.",
                mend="Let the pooler reset it (PgBouncer: server_reset_query_always = 1), and say so: "
                'guard_transactions(..., session_reset="pooler").',
            )
        return found
