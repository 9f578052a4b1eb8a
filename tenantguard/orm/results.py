"""Rows are read by the tenant whose statement they answer.

A result may be read long after its statement ran: a stream, a generator that is resumed elsewhere, a result that is
kept, frozen or put into a cache. Each fetch is compared with the tenant, or the system context, in which the statement
ran: of the cursor's result, of the results that the ORM makes from it, and of frozen ones, also pickled. The latter two
are SQLAlchemy's own classes, which are asked to look here, once for the process.
"""

from collections.abc import Callable, Iterator
from types import FunctionType, SimpleNamespace
from typing import Any, Final

import sqlalchemy.engine.cursor
from sqlalchemy.engine.cursor import CursorResult
from sqlalchemy.engine.result import FrozenResult, IteratorResult

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import TenantMismatch
from tenantguard.orm.connections import starting_up
from tenantguard.orm.pins import pin_of

__all__ = ["ScopedResult", "install_result_checks"]

_PIN: Final = "tenantguard_pin"
_UNSET: Final = object()


def _check_pin(pin: object) -> None:
    if pin_of(current_binding()) != pin and not starting_up.get():
        raise TenantMismatch(
            "The result was opened for another tenant (or in a system context) than the one that is bound now.",
            mend="Read it where it was opened, for example with .all() inside the block. Caches need the tenant in "
            "their keys.",
        )


_fetchall: Final[Callable[..., Any]] = CursorResult._fetchall_impl


class ScopedResult(CursorResult[Any]):
    """A result that gives its rows to the tenant alone in whose name the statement ran."""

    __slots__ = ()

    def _check(self) -> None:
        context: Any = self.context
        binding = context.binding
        if binding is raw_binding() and (binding is None or not binding.permits):
            return
        _check_pin(pin_of(context.binding))

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


def _source_of(result: Any) -> Any:
    """Return what tells for whom a result was opened: a scoped result, a pin, or `_UNSET`."""
    if isinstance(result, ScopedResult):
        return result
    pin = result.__dict__.get(_PIN, _UNSET)
    if pin is not _UNSET:
        return pin
    parts = (getattr(result, "_real_result", None), result.__dict__.get("raw"), *result.__dict__.get("_results", ()))
    for part in parts:
        if part is not None and (source := _source_of(part)) is not _UNSET:
            return source
    return _UNSET


def _check(source: Any) -> None:
    if isinstance(source, ScopedResult):
        source._check()
    elif source is not _UNSET:
        _check_pin(source)


def _each(rows: Iterator[Any], source: Any) -> Iterator[Any]:
    for row in rows:
        _check(source)
        yield row


def _iterating(original: Any) -> Any:
    def rows_of(self: Any) -> Any:
        source = _source_of(self)
        rows = original(self)
        return rows if source is _UNSET else _each(rows, source)

    return rows_of


def _fetching(original: Any) -> Any:
    def fetch(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(_source_of(self))
        return original(self, *args, **kwargs)

    return fetch


def _freeze(original: Any) -> Any:
    def freeze(self: Any, result: Any) -> None:
        original(self, result)
        source = _source_of(result)
        if source is not _UNSET:
            context: Any = getattr(source, "context", None)
            self.__dict__[_PIN] = pin_of(context.binding) if isinstance(source, ScopedResult) else source

    return freeze


def _thawing(original: Any) -> Any:
    def thaw(self: Any, *args: Any) -> Any:
        pin = self.__dict__.get(_PIN, _UNSET)
        _check(pin)
        made = original(self, *args)
        if pin is not _UNSET and isinstance(made, IteratorResult | FrozenResult):
            made.__dict__[_PIN] = pin
        return made

    return thaw


def install_result_checks() -> None:
    """Have the results of the ORM, and frozen ones, compare the tenant. Others are left alone."""
    for name in ("_fetchiter_impl", "_raw_row_iterator"):
        setattr(IteratorResult, name, _iterating(getattr(IteratorResult, name)))
    for name in ("_fetchone_impl", "_fetchall_impl", "_fetchmany_impl"):
        setattr(IteratorResult, name, _fetching(getattr(IteratorResult, name)))
    FrozenResult.__init__ = _freeze(FrozenResult.__init__)  # type: ignore[method-assign]
    for name in ("__call__", "_rewrite_rows", "with_new_rows"):
        setattr(FrozenResult, name, _thawing(getattr(FrozenResult, name)))
