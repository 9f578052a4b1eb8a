"""Proofs that were seen before, remembered by all workers together (RFC 9449, section 11.1).

Each proof is one key that ends by itself: ``SET key 1 NX PX``. Redis carries commands out one after the other, so of
two workers that are shown the same proof at once, one alone is told that it is new.
"""

from math import ceil, isfinite
from typing import final

from tenantguard.errors import ConfigurationError, StoreUnavailable
from tenantguard_redis.connections import RedisConnections

__all__ = ["RedisReplays"]


@final
class RedisReplays:
    """A replay store that workers and servers share. Thread-safe.

    Redis must not throw keys away before they end (``maxmemory-policy noeviction``), and the store must be one Redis
    for all: what a replica did not get before it took over, or what was not kept over a restart, may come a second
    time within `DPoP`'s ``max_age``.

    Args:
        url: for example ``"redis://redis.internal:6379/0"``; ``rediss://`` for TLS, ``unix://`` for a socket.
        prefix: what every key begins with.
        timeout: seconds after which Redis counts as down.

    Raises:
        ConfigurationError: the URL, the prefix or the timeout can't be used.
    """

    __slots__ = ("_connections", "_prefix")

    def __init__(self, url: str, *, prefix: str = "tenantguard:replay:", timeout: float = 1.0) -> None:
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError(
                "RedisReplays needs a prefix that tells its keys from others.",
                mend='For example prefix="tenantguard:replay:".',
            )
        self._prefix = prefix
        self._connections = RedisConnections(url, timeout=timeout)

    async def add(self, key: str, ttl: float) -> bool:
        """Remember a key for ``ttl`` seconds; True if it was not remembered yet.

        Raises:
            StoreUnavailable: Redis can't be reached, did not answer in time, or refused.
        """
        if not (isfinite(ttl) and ttl > 0):
            raise StoreUnavailable("A replay store was given a time to live that is no positive number of seconds.")
        answer = await self._connections.execute("SET", self._prefix + key, 1, "NX", "PX", ceil(ttl * 1000))
        return answer is True

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A later call opens new ones."""
        await self._connections.aclose()

    def __repr__(self) -> str:
        return f"RedisReplays(prefix={self._prefix!r})"
