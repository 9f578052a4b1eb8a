"""Compiled caches in which a statement of one mode never meets that of another.

A statement has one compiled form for each mode: for one tenant, for an identity that is narrowed, for a set of tenants,
for a system context. The engine's cache keeps them apart, and so do the caches that each mapper has for the unit of
work. A cache of the user's own may not: what comes out of it in the wrong form is refused by the execution context.
"""

from typing import Any

from sqlalchemy.orm import Mapper
from sqlalchemy.util import HasMemoized, LRUCache

from tenantguard.binding import current_binding, raw_binding

__all__ = ["ModeCache", "install_mode_caches"]


class ModeCache(LRUCache[Any, Any]):
    """A compiled cache with a room for each mode."""

    def get(self, key: Any, default: Any = None) -> Any:
        binding = raw_binding()
        item = self._data.get(key if binding is None or binding.mode is None else _room(key))
        if item is None:
            return default
        self._counter = item[2][0] = self._counter + 1
        return item[1]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_room(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_room(key), value)


def _room(key: Any) -> Any:
    binding = current_binding()
    return key if binding is None or binding.mode is None else (key, binding.mode)


def _compiled_cache(self: Any) -> ModeCache:
    return ModeCache(self._compiled_cache_size)


def install_mode_caches() -> None:
    """Give every mapper such a cache, for the statements of the unit of work."""
    Mapper._compiled_cache = HasMemoized.memoized_attribute(_compiled_cache)  # type: ignore[method-assign]
