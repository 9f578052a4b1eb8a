"""Rows are read by the tenant whose statement they answer.

A result may be read long after its statement ran: a stream, a generator that is resumed elsewhere, a result that is
kept. Each fetch is compared with the tenant, or the system context, in which the statement ran.
"""

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, Final

import sqlalchemy.engine.cursor
from sqlalchemy.engine.cursor import CursorResult

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import TenantMismatch
from tenantguard.orm.pins import pin_of

__all__ = ["ScopedResult"]


_fetchall: Final[Callable[..., Any]] = CursorResult._fetchall_impl


class ScopedResult(CursorResult[Any]):
    """A result that gives its rows to the tenant alone in whose name the statement ran."""

    __slots__ = ()

    def _check(self) -> None:
        context: Any = self.context
        binding = context.binding
        if binding is raw_binding() and (binding is None or not binding.permits):
            return
        if pin_of(current_binding()) != pin_of(binding):
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
        binding = self.context.binding  # type: ignore[attr-defined]
        if binding is not raw_binding() or binding is None or binding.permits:
            self._check()
        return _fetchall(self)

    def _fetchmany_impl(self, size: int | None = None) -> Any:
        self._check()
        return super()._fetchmany_impl(size)


def with_scoped_results(function: Any) -> Any:
    """Return one of SQLAlchemy's functions that make results, in which they are scoped ones.

    It is the same code, with the class exchanged among its globals: a result that is given another class later would
    cost each statement more than all other checks of it together.
    """
    cursor = SimpleNamespace(**vars(sqlalchemy.engine.cursor) | {"CursorResult": ScopedResult})
    made = FunctionType(function.__code__, function.__globals__ | {"_cursor": cursor}, function.__name__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made
