"""Compiled caches in which a statement of a system context never meets that of a tenant.

A statement has two compiled forms, scoped and unscoped. The engine's cache keeps them apart, and so do the caches that
each mapper has for the unit of work. A cache of the user's own may not: what comes out of it in the wrong form is
refused by the execution context.
"""

from typing import Any, Final

from sqlalchemy.orm import Mapper
from sqlalchemy.util import HasMemoized, LRUCache

from tenantguard.context import raw_binding

__all__ = ["ModeCache", "install_mode_caches"]

_SYSTEM: Final = object()


class ModeCache(LRUCache[Any, Any]):
    """A compiled cache with two rooms."""

    def get(self, key: Any, default: Any = None) -> Any:
        binding = raw_binding()
        item = self._data.get(key if binding is None or binding.system is None else (key, _SYSTEM))
        if item is None:
            return default
        item[2][0] = self._inc_counter()
        return item[1]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_room(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_room(key), value)


def _room(key: Any) -> Any:
    binding = raw_binding()
    return key if binding is None or binding.system is None else (key, _SYSTEM)


def _compiled_cache(self: Any) -> ModeCache:
    return ModeCache(self._compiled_cache_size)


def install_mode_caches() -> None:
    """Give every mapper such a cache, for the statements of the unit of work."""
    Mapper._compiled_cache = HasMemoized.memoized_attribute(_compiled_cache)  # type: ignore[method-assign]
