"""One event loop in a daemon thread, for WSGI workers, which have none.

A token that is not remembered may need keys from its issuer, a store, or the tenant directory, all of which are async.
A loop for each request would be slow, and stores keep connections that belong to one loop; so all threads of a process
share this one. A token that is remembered never comes here.
"""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from tenantguard.errors import Unavailable

__all__ = ["run_blocking"]

T = TypeVar("T")

SECONDS: Final = 60.0
"""Longest wait. What runs there has deadlines of its own, which are shorter."""

_lock: Final = threading.Lock()
_loops: Final[dict[int, asyncio.AbstractEventLoop]] = {}


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a coroutine function returns, run on the shared loop with an empty context.

    Blocks the calling thread. A process that was forked gets a loop of its own.

    Raises:
        Unavailable: it takes too long.
    """
    future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, work(), _loop())
    try:
        return future.result(SECONDS)
    except TimeoutError:
        if not future.done():
            future.cancel()
            raise Unavailable("A check did not end in time.") from None
        raise


def _loop() -> asyncio.AbstractEventLoop:
    pid = os.getpid()
    loop = _loops.get(pid)
    if loop is not None:
        return loop
    with _lock:
        loop = _loops.get(pid)
        if loop is None:
            started: Future[asyncio.AbstractEventLoop] = Future()
            threading.Thread(target=_serve, args=(started,), name="tenantguard-django", daemon=True).start()
            loop = started.result(10)
            _loops.clear()  # those of the parent process did not survive the fork
            _loops[pid] = loop
        return loop


def _serve(started: "Future[asyncio.AbstractEventLoop]") -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set_result, loop)
    loop.run_forever()
