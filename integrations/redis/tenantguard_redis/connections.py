"""Connections to one Redis from any event loop: redis-py's async client on asyncio, its sync client in threads on trio.

A client belongs to the event loop that needed it first, so that closing it disturbs no other. A command is
sent once and never again by itself: one whose answer got lost may have been carried out, and only its caller knows
whether it may be repeated. Every fault and every delay beyond the deadline is a `StoreUnavailable`.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import anyio
import redis
import redis.asyncio
from anyio.lowlevel import RunVar, current_token
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from tenantguard.errors import ConfigurationError, StoreUnavailable

__all__ = ["Argument", "RedisConnections"]

Argument: TypeAlias = str | bytes | int | float

MAX_CONNECTIONS: Final = 32
"""Most connections of one event loop; a command waits for a free one within its deadline."""
LONGEST_TIMEOUT: Final = 30.0
_FAULTS: Final = (redis.RedisError, OSError, TimeoutError)


@final
@dataclass(frozen=True, slots=True)
class _Threads:
    """A sync client and the threads in which it waits. anyio's own threads are shared with the app's sync endpoints."""

    client: redis.Redis
    limiter: anyio.CapacityLimiter

    async def run(self, ask: Callable[[Any], Any]) -> Any:
        return await anyio.to_thread.run_sync(ask, self.client, abandon_on_cancel=True, limiter=self.limiter)


@final
class RedisConnections:
    """Connections to one Redis, opened when they are needed. Thread-safe.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database where there are any.
        timeout: seconds after which a command has failed, 0.01 to 30.

    Raises:
        ConfigurationError: the URL or the timeout can't be used. The text never shows the URL, which may hold a
            password.
    """

    __slots__ = ("_by_loop", "_lock", "_of_run", "_options", "_running", "_url", "timeout")

    def __init__(self, url: str, *, timeout: float = 1.0) -> None:
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not number or not 0.01 <= timeout <= LONGEST_TIMEOUT:
            raise ConfigurationError(
                f"The timeout of a Redis store is no number of seconds from 0.01 to {LONGEST_TIMEOUT:g}.",
                mend="For example timeout=1.0.",
            )
        self.timeout: Final = float(timeout)
        self._url = url
        self._options: dict[str, Any] = {
            "max_connections": MAX_CONNECTIONS,
            "timeout": self.timeout,
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "protocol": 2,  # every Redis and all that speak its protocol know it
        }
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, redis.asyncio.Redis] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._of_run: RunVar[_Threads | None] = RunVar("tenantguard_redis")
        try:
            pool = self.new_sync_client().connection_pool
            pool.connection_class(**pool.connection_kwargs)  # opens nothing; an unknown option of the URL shows here
        except (ValueError, TypeError, AttributeError):
            raise ConfigurationError(
                "The URL of Redis is not usable.", mend='For example "redis://redis.internal:6379/0".'
            ) from None

    def new_sync_client(self) -> redis.Redis:
        """Return a client that blocks, for threads of the caller's own. Whoever asked for it closes it."""
        retry = Retry(NoBackoff(), 0)
        return redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(self._url, retry=retry, **self._options))

    def _threads(self) -> "_Threads":
        """Return what serves the running trio loop."""
        threads = self._of_run.get(None)
        if threads is None:
            threads = _Threads(self.new_sync_client(), anyio.CapacityLimiter(MAX_CONNECTIONS))
            self._of_run.set(threads)
        return threads

    def _client(self, loop: asyncio.AbstractEventLoop) -> redis.asyncio.Redis:
        """Return the client of the running asyncio loop."""
        with self._lock:
            client = self._by_loop.get(loop)
            if client is None:
                for other in [one for one in self._by_loop if one.is_closed()]:
                    del self._by_loop[other]
                retry = AsyncRetry(NoBackoff(), 0)
                pool = redis.asyncio.BlockingConnectionPool.from_url(self._url, retry=retry, **self._options)
                client = self._by_loop[loop] = redis.asyncio.Redis.from_pool(pool)
            return client

    async def execute(self, name: str, *arguments: Argument) -> Any:
        """Send one command and return what redis-py makes of its answer.

        Args:
            name: for example ``"GET"``.
            arguments: for example a key.

        Raises:
            StoreUnavailable: Redis can't be reached, did not answer in time, or answered with an error.
        """
        try:
            with anyio.fail_after(self.timeout):
                loop = _asyncio_loop()
                if loop is not None:
                    return await self._execute_on_asyncio(loop, name, arguments)
                return await self._threads().run(lambda client: client.execute_command(name, *arguments))
        except _FAULTS as fault:
            raise StoreUnavailable(
                f"Redis could not carry out {name} ({type(fault).__name__}).",
                mend="See that it runs, can be reached, and may be written to by this user.",
            ) from fault

    async def _execute_on_asyncio(
        self, loop: asyncio.AbstractEventLoop, name: str, arguments: tuple[Argument, ...]
    ) -> Any:
        # A task of its own, which is not cancelled with its caller: redis-py may lose a connection of its pool for
        # ever when it is cancelled while it puts it back. The task ends by the timeouts of its socket.
        client: Any = self._client(loop)
        task: asyncio.Task[Any] = loop.create_task(client.execute_command(name, *arguments))
        self._running.add(task)
        task.add_done_callback(self._done)
        await asyncio.wait((task,))
        return task.result()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it, or has given up

    async def aclose(self) -> None:
        """Close the connections of the running event loop. A later command opens new ones."""
        loop = _asyncio_loop()
        if loop is None:
            threads = self._of_run.get(None)
            self._of_run.set(None)
            if threads is not None:
                await threads.run(lambda client: client.connection_pool.disconnect())
            return
        with self._lock:
            client = self._by_loop.pop(loop, None)
        if client is not None:
            with contextlib.suppress(*_FAULTS):
                await client.aclose()

    def __repr__(self) -> str:
        return f"RedisConnections(timeout={self.timeout:g})"


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    loop = current_token().native_token
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None
