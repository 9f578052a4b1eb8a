"""Rows are read by the tenant whose statement they answer.

A result may be read long after its statement ran: a stream, a generator that is resumed elsewhere, a result that is
kept. Each fetch is compared with the tenant, or the system context, in which the statement ran.
"""

from typing import Any

from sqlalchemy.engine.cursor import CursorResult

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import TenantMismatch
from tenantguard.orm.pins import pin_of

__all__ = ["ScopedResult"]


class ScopedResult(CursorResult[Any]):
    """A result that gives its rows to the tenant alone in whose name the statement ran."""

    __slots__ = ()

    def _check(self) -> None:
        context: Any = self.context
        if raw_binding() is context.binding and (context.binding is None or context.binding.system is None):
            return
        if pin_of(current_binding()) != pin_of(context.binding):
            raise TenantMismatch(
                "The result was opened for another tenant (or in a system context) than the one that is bound now.",
                mend="Read it where it was opened, for example with .all() inside the block.",
            )

    def _fetchiter_impl(self) -> Any:
        for row in super()._fetchiter_impl():
            self._check()
            yield row

    def _fetchone_impl(self, hard_close: bool = False) -> Any:
        self._check()
        return super()._fetchone_impl(hard_close)

    def _fetchall_impl(self) -> Any:
        self._check()
        return super()._fetchall_impl()

    def _fetchmany_impl(self, size: int | None = None) -> Any:
        self._check()
        return super()._fetchmany_impl(size)
