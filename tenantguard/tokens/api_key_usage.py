"""When API keys were last used: written rarely, and never in the way of a request.

People look at it to find keys that nobody needs any more, so a minute is exact enough, and a store that can't write it
now is no reason to refuse a good key.
"""

import logging
import threading
from collections import OrderedDict
from typing import Final, final

import anyio

from tenantguard.tokens.api_key_records import ApiKey
from tenantguard.tokens.api_key_stores import ApiKeyStore

__all__ = ["LastUses"]

logger = logging.getLogger("tenantguard.tokens")

EVERY: Final = 60.0
"""Least seconds between two writes for one key."""
SECONDS: Final = 1.0
"""Most seconds that a request waits for a write."""
KEPT: Final = 10_000
"""Most keys of which the last attempt to write is remembered."""


@final
class LastUses:
    """Writes last uses to a store, once in a while for each key, whether that succeeds or not. Thread-safe.

    Args:
        store: where to.
        every: least seconds between two writes for one key, at least a minute.
    """

    __slots__ = ("_every", "_lock", "_store", "_tried")

    def __init__(self, store: ApiKeyStore, *, every: float) -> None:
        self._store = store
        self._every = max(every, EVERY)
        self._lock = threading.Lock()
        self._tried: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tried)

    async def note(self, key: ApiKey, now: float) -> None:
        """Write that a key was used, unless that was written lately, here or in another process."""
        if key.last_used_at is not None and key.last_used_at > now - self._every:
            return
        with self._lock:
            tried = self._tried.get(key.id)
            if tried is not None and abs(now - tried) < self._every:
                return
            self._tried[key.id] = now
            self._tried.move_to_end(key.id)
            if len(self._tried) > KEPT:
                self._tried.popitem(last=False)
        try:
            with anyio.fail_after(SECONDS):
                await self._store.touch(key.id, int(now))
        except Exception as fault:  # noqa: BLE001 - the key was verified; its text may hold values
            logger.warning("The last use of the API key %s was not written: %s.", key.id, type(fault).__name__)
