"""What a query set has read answers only while the tenant is bound that it was read for.

A query set keeps its rows, and answers from them without a statement, so no predicate reaches it: one that was
evaluated for a tenant and kept (in a form, a module, a cache, a pickle, a prefetch) would give its rows to the next.
Rows of shared models are anybody's, unless rows of a tenant were fetched into them.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models.query import QuerySet, RawQuerySet

from tenantguard.binding import current_binding, raw_binding
from tenantguard.errors import TenantMismatch
from tenantguard.orm.pins import pin_of
from tenantguard_django.orm.classify import belongs_to_tenants
from tenantguard_django.orm.compilers import TOUCHED

__all__ = ["install_result_pins"]

_CACHE: Final = "_result_cache"
_PIN: Final = "_tenantguard_pin"


def _mismatch() -> TenantMismatch:
    return TenantMismatch(
        "A query set that was read for another tenant (or in a system context) is used for the bound one.",
        mend="Use .all() to ask the database again.",
    )


class _ResultCache:
    """The descriptor in the place of ``_result_cache``."""

    def __get__(self, queryset: Any, owner: type | None = None) -> Any:
        if queryset is None:
            return self
        own = queryset.__dict__
        found = own.get(_CACHE)
        if found is not None and _PIN in own and pin_of(current_binding()) != own[_PIN]:
            raise _mismatch()
        return found

    def __set__(self, queryset: Any, value: Any) -> None:
        own = queryset.__dict__
        own[_CACHE] = value
        if value is None:
            own.pop(_PIN, None)
            return
        query = own.get("_query", own.get("query"))
        if not value and query is not None and getattr(query, "is_empty", bool)():
            return  # none()
        if (query is not None and query.__dict__.get(TOUCHED)) or belongs_to_tenants(queryset.model):
            own[_PIN] = pin_of(current_binding())


def _while_bound(rows: Iterator[Any], pin: object) -> Iterator[Any]:
    """Give rows that a query set keeps while the tenant is bound that they were read for."""
    seen = raw_binding()
    for row in rows:
        if raw_binding() is not seen and pin_of(current_binding()) != pin:
            raise _mismatch()
        yield row


def _pinned_iter(plain: Any) -> Any:
    def iterate(self: Any) -> Iterator[Any]:
        rows: Iterator[Any] = plain(self)
        own = self.__dict__
        return _while_bound(rows, own[_PIN]) if _PIN in own else rows

    return iterate


def _aiter(self: Any) -> AsyncIterator[Any]:
    async def rows() -> AsyncIterator[Any]:
        await sync_to_async(self._fetch_all)()
        for row in self:
            yield row

    return rows()


def _touches(queryset: Any) -> bool:
    return (
        bool(queryset.query.__dict__.get(TOUCHED))
        or bool(queryset._prefetch_related_lookups)
        or belongs_to_tenants(queryset.model)
    )


def _touching() -> int:
    """Return how many statements on rows of tenants this thread has made."""
    guards = (getattr(connection, "tenantguard", None) for connection in connections.all(initialized_only=True))
    return sum(guard.statements for guard in guards if guard is not None)


def _pinned_prefetch(plain: Any) -> Any:
    """Rows of a shared model belong to who read them once rows of a tenant were fetched into them."""

    def prefetch(self: Any) -> None:
        before = _touching()
        plain(self)
        own = self.__dict__
        if own.get(_CACHE) and _touching() != before:
            own[_PIN] = pin_of(current_binding())

    return prefetch


def install_result_pins() -> None:
    """Watch every query set of the process, once."""
    if _CACHE in QuerySet.__dict__:
        return
    setattr(QuerySet, _CACHE, _ResultCache())
    setattr(RawQuerySet, _CACHE, _ResultCache())
    for cls in (QuerySet, RawQuerySet):
        cls.__iter__ = _pinned_iter(cls.__iter__)
        plain_prefetch = cls._prefetch_related_objects  # type: ignore[union-attr]
        cls._prefetch_related_objects = _pinned_prefetch(plain_prefetch)  # type: ignore[union-attr]
    QuerySet.__aiter__ = _aiter
    plain, plain_async = QuerySet._iterator, QuerySet.aiterator

    def iterator(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        seen, pin = raw_binding(), pin_of(current_binding())
        for row in plain(self, *args, **kwargs):
            yield row
            if raw_binding() is not seen and pin_of(current_binding()) != pin and _touches(self):
                raise _mismatch()

    async def aiterator(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        seen, pin = raw_binding(), pin_of(current_binding())
        async for row in plain_async(self, *args, **kwargs):
            yield row
            if raw_binding() is not seen and pin_of(current_binding()) != pin and _touches(self):
                raise _mismatch()

    QuerySet._iterator = iterator
    QuerySet.aiterator = aiterator
