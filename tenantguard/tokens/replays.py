"""Which proofs were seen before: a proof of possession is good for one request (RFC 9449, section 11.1).

A store takes a key and says, atomically, whether it is new. It remembers the key for as long as the proof would be
accepted, and no longer. When it can't know, it raises: a proof whose novelty is unknown is refused. `InMemoryReplays`
serves one process; several processes share a store outside, for example that of ``tenantguard-redis``.
"""

import threading
from collections.abc import Callable
from heapq import heappop, heappush
from math import isfinite
from time import monotonic
from typing import Final, Protocol, final, runtime_checkable

from tenantguard.errors import ConfigurationError, StoreUnavailable

__all__ = ["InMemoryReplays", "ReplayStore"]

_SLICES_PER_SECOND: Final = 4


@runtime_checkable
class ReplayStore(Protocol):
    """Remembers keys for a time."""

    async def add(self, key: str, ttl: float, /) -> bool:
        """Remember a key; True if it was not remembered yet. Of several calls at once, one alone gets True.

        Args:
            key: a digest of what must not come twice.
            ttl: for how many seconds it must be remembered at least.

        Raises:
            StoreUnavailable: that can't be known now, or can't be remembered.
        """
        ...


@final
class InMemoryReplays:
    """The store of one process. Thread-safe.

    Keys whose time is over go first. A store that is full of living keys refuses further ones: to drop one of them
    would let its proof in again. With several worker processes, each remembers its own proofs alone; use a shared
    store then.

    Args:
        size: most keys at once. A key takes about 150 bytes; there are as many as requests come with proofs within
            the time for which a proof is accepted.
        clock: seconds that never run backwards.

    Raises:
        ConfigurationError: the size is no positive whole number.
    """

    __slots__ = ("_clock", "_due", "_keys", "_lock", "_slices", "size")

    def __init__(self, size: int = 200_000, *, clock: Callable[[], float] = monotonic) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ConfigurationError("InMemoryReplays needs a size of at least 1.", mend="For example size=200_000.")
        self.size: Final = size
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: set[str] = set()
        # Keys that end in the same quarter of a second go together, so that adding one costs the same however many
        # there are: the heap holds the slices, not the keys.
        self._slices: dict[int, list[str]] = {}
        self._due: list[int] = []

    async def add(self, key: str, ttl: float) -> bool:
        """Remember a key; True if it was not remembered yet.

        Raises:
            StoreUnavailable: it is full of keys whose time is not over.
        """
        if not (isfinite(ttl) and ttl > 0):
            raise StoreUnavailable("A replay store was given a time to live that is no positive number of seconds.")
        now = self._clock()
        ends = int((now + ttl) * _SLICES_PER_SECOND) + 1
        with self._lock:
            self._drop_ended(now)
            if key in self._keys:
                return False
            if len(self._keys) >= self.size:
                raise StoreUnavailable(
                    f"The replay store is full: {self.size} proofs are remembered and none may be forgotten yet.",
                    mend="Raise InMemoryReplays(size=...), or lower DPoP(max_age=...).",
                )
            self._keys.add(key)
            same = self._slices.get(ends)
            if same is None:
                self._slices[ends] = [key]
                heappush(self._due, ends)
            else:
                same.append(key)
        return True

    def _drop_ended(self, now: float) -> None:
        """Forget the keys whose time is over. The lock is held."""
        present = int(now * _SLICES_PER_SECOND)
        while self._due and self._due[0] <= present:
            self._keys.difference_update(self._slices.pop(heappop(self._due)))

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"InMemoryReplays({len(self)} of {self.size})"
