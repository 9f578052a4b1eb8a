"""Tells PostgreSQL, by the connection of a driver, whose transaction begins: for SQLAlchemy's side and for Django's.

A session that was another tenant's before is reset first (`tenantguard.orm.rls.sessions`), in the same round trip where
the driver can (`tenantguard.orm.rls.lines`).
"""

import logging
from typing import Any, Final, final

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.connections import RAN_RAW
from tenantguard.orm.rls.functions import SETTING, TRANSACTION
from tenantguard.orm.rls.lines import Line
from tenantguard.orm.rls.seal import Seal, plain_value
from tenantguard.orm.rls.sessions import CLEAN, MARKED, SessionReset, Sessions

__all__ = ["TenantSetting", "body_of"]

logger: Final = logging.getLogger("tenantguard.orm")
_WHO_RESETS: Final = ("engine", "pooler", "off")
_WHICH: Final = f"SELECT {TRANSACTION}"
_SET: Final = f"SELECT pg_catalog.set_config('{SETTING}', {{}}, true)"
"""As a query and not as SET LOCAL, which takes no parameter, and of which ``pg_stat_statements`` keeps each value."""


@final
class TenantSetting:
    """Sets the tenant at the begin of a transaction.

    Args:
        line: how the driver sends.
        seal: seals it, or ``None``.
        session_reset: who resets a session between two tenants.

    Raises:
        ConfigurationError: `session_reset` is no way to do it.
    """

    __slots__ = ("_pooler", "_seal", "_sessions", "line")

    def __init__(self, line: Line, seal: Seal | None, session_reset: SessionReset) -> None:
        if session_reset not in _WHO_RESETS:
            raise ConfigurationError(
                f"session_reset={session_reset!r} is none of {', '.join(map(repr, _WHO_RESETS))}.",
                mend="Choose one of them.",
            )
        if session_reset == "off":
            logger.warning("Sessions of PostgreSQL are not reset between tenants (session_reset='off').")
        self.line = line
        self._seal = seal
        self._sessions = Sessions(line) if session_reset == "engine" else None
        self._pooler = session_reset == "pooler"

    def begin(self, pooled: Any, driver: Any, body: str) -> None:
        """Begin a transaction of a tenant, in a session that is its own.

        Args:
            pooled: has the ``info`` of the driver's connection.
            driver: the driver's connection.
            body: as of `body_of`.

        Raises:
            StatementRefused: raw SQL began a transaction in a session that nothing is known of.
            ConfigurationError: the session can't be reset from here.
        """
        if self._sessions is None:
            self.tell(driver, body)
            return
        self.tell(driver, body, self._sessions.due(pooled, driver, body))
        self._sessions.done(pooled, body)

    def tell(self, driver: Any, body: str, reset: tuple[str, ...] = ()) -> None:
        """Tell whose transaction it is, where the session needs no look.

        Args:
            driver: the driver's connection.
            body: as of `body_of`.
            reset: commands that reset the session.
        """
        seal, line = self._seal, self.line
        command = _SET + MARKED if self._pooler and line.is_idle(driver) else _SET
        if not body or seal is None:
            line.send(driver, command.format(f"'{body}'"), reset=reset)
        elif seal.bound_to == "transaction":  # of no use to those who see it
            line.send(driver, command.format(f"'{seal.value(body, line.ask(driver, _WHICH, reset))}'"))
        else:
            line.send(driver, command, seal.value(body, str(line.backend_pid(driver))), reset)

    def reset(self, pooled: Any, driver: Any, body: str = CLEAN) -> None:
        """Make a session a tenant's, or nobody's, with no transaction of its own.

        Args:
            pooled: as for `begin`.
            driver: the driver's connection.
            body: as of `body_of`; nobody's where it is left out.

        Raises:
            StatementRefused, ConfigurationError: as for `begin`.
        """
        if self._sessions is not None:
            if due := self._sessions.due(pooled, driver, body):
                self.line.reset(driver, due)
            self._sessions.done(pooled, body)

    def before_raw(self, pooled: Any, driver: Any, binding: Binding, *, can_send: bool = True) -> None:
        """Reset the session before raw SQL runs on a driver's connection, and again before a transaction of anybody's.

        Args:
            pooled: as for `begin`.
            driver: the driver's connection, about to be handed out.
            binding: what is bound.
            can_send: False where nothing can be sent now.
        """
        if self._sessions is None:
            return
        if can_send and not binding.reads and self.line.is_idle(driver):
            self.reset(pooled, driver, body_of(binding, ""))
        pooled.info[RAN_RAW] = True


def body_of(binding: Binding, mend: str) -> str:
    """Return what the setting says of a binding: nothing for a system context.

    Args:
        binding: what is bound.
        mend: what to use for reading further tenants.

    Raises:
        StatementRefused: further tenants are read, which the database could not hold.
    """
    if binding.system is not None or binding.identity is None or binding.identity.tenant is None:
        return ""
    if binding.reads:
        raise StatementRefused(
            "Row-level security shows the rows of one tenant, and further tenants were to be read.", mend=mend
        )
    return plain_value(binding.identity)
