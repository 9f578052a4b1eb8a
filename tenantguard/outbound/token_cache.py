"""Exchanged tokens, kept until shortly before they expire, in a bounded number.

A look-up takes no lock and costs one dictionary access: it marks the entry as used. When the cache is full, the oldest
entry that was not used since it was last passed over goes (the clock algorithm, close to least recently used).
"""

import threading
from math import inf
from typing import Final, final

from tenantguard.outbound.answers import UsableToken
from tenantguard.outbound.token_requests import TokenRequest

__all__ = ["CachedToken", "TokenCache"]

REFRESH_AFTER: Final = 0.8
"""Share of a token's lifetime after which it is refreshed while it is still used."""
MARGIN: Final = 0.1
"""Share of a token's lifetime before its expiry in which it is used no more: a call takes time to arrive."""
LONGEST_MARGIN: Final = 10.0


@final
class CachedToken:
    """A token and its times, in seconds since the epoch.

    Attributes:
        value: the token.
        bearer: the header's value with it.
        obtained_at: when it was had.
        use_until: when it is used no more.
        refresh_at: when a new one should be on its way.
        used: whether it was looked up since it was last passed over.
    """

    __slots__ = ("bearer", "obtained_at", "refresh_at", "use_until", "used", "value")

    def __init__(self, token: UsableToken, request: TokenRequest) -> None:
        lifetime = token.expires_at - token.obtained_at
        self.value = token.value
        self.bearer = f"Bearer {token.value}"
        self.obtained_at = token.obtained_at
        self.use_until = token.expires_at - min(lifetime * MARGIN, LONGEST_MARGIN)
        self.used = False
        ends_with = request.identity.expires_at if request.identity is not None else None
        # A token that ends together with the caller's own can't be had for longer.
        in_vain = ends_with is not None and token.expires_at >= ends_with - 1
        self.refresh_at = inf if in_vain else token.obtained_at + lifetime * REFRESH_AFTER

    def __repr__(self) -> str:
        return "CachedToken(...)"


@final
class TokenCache:
    """Tokens by the key of the request that they answer. Thread-safe.

    Args:
        limit: most tokens.
    """

    __slots__ = ("_entries", "_limit", "_lock", "find")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: dict[tuple[object, ...], CachedToken] = {}
        self.find = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: tuple[object, ...], entry: CachedToken) -> None:
        """Keep a token, in place of an earlier one."""
        with self._lock:
            self._entries.pop(key, None)
            while len(self._entries) >= self._limit:
                self._evict()
            self._entries[key] = entry

    def drop(self, key: tuple[object, ...], entry: CachedToken) -> None:
        """Forget a token, unless another has taken its place."""
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]

    def clear(self) -> None:
        """Forget all tokens."""
        with self._lock:
            self._entries.clear()

    def _evict(self) -> None:
        for _ in range(len(self._entries)):
            key = next(iter(self._entries))
            entry = self._entries.pop(key)
            if not entry.used:
                return
            entry.used = False
            self._entries[key] = entry
        self._entries.pop(next(iter(self._entries)))
