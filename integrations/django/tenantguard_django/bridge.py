"""One event loop in a daemon thread, for WSGI workers, which have none.

A token that is not remembered may need keys from its issuer, a store, or the tenant directory, all of which are async.
A loop for each request would be slow, and stores keep connections that belong to one loop; so all threads of a process
share this one. A token that is remembered never comes here.
"""

import asyncio
import contextvars
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from tenantguard.errors import ConfigurationError, Unavailable

__all__ = ["check_threads", "run_blocking"]

T = TypeVar("T")

SECONDS: Final = 60.0
"""Longest wait. What runs there has deadlines of its own, which are shorter."""

_lock = threading.Lock()
_loops: Final[dict[int, asyncio.AbstractEventLoop]] = {}


def check_threads() -> None:
    """Refuse a process in which greenlets stand in the place of threads, where the loop's thread would stop them all.

    Raises:
        ConfigurationError: gevent or eventlet has replaced the threads.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if (gevent is not None and gevent.is_module_patched("threading")) or (
        eventlet is not None and eventlet.is_monkey_patched("thread")
    ):
        raise ConfigurationError(
            "The worker has greenlets in the place of threads, in which tokens can't be checked.",
            mend="Use threads (gunicorn: --worker-class gthread --threads 8), or serve by ASGI.",
        )


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a coroutine function returns, run on the shared loop with an empty context.

    Blocks the calling thread. A process that was forked gets a loop of its own.

    Raises:
        ConfigurationError: there are no threads.
        Unavailable: it takes too long.
    """
    loop = _loop()
    future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, work(), loop)
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
    check_threads()  # once more, since a worker may replace them after the project was loaded
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


def _forked() -> None:
    """Forget a lock that a thread of the parent may have held as the process was forked."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
