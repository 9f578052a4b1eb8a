"""One event loop in a thread, for workers that have none.

Stores are async, and keep connections that belong to one loop, so a loop for each call would open them each time.
"""

import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

import anyio
from anyio.from_thread import BlockingPortal

__all__ = ["run_blocking"]

T = TypeVar("T")

_lock = threading.Lock()
_portals: dict[int, BlockingPortal] = {}


def run_blocking(work: Callable[[], Awaitable[T]]) -> T:
    """Return what a coroutine function returns, run in the thread's loop with an empty context.

    A process that was forked gets a thread of its own. Never call it on an event loop: it blocks.
    """
    return contextvars.Context().run(_portal().call, work)


def _portal() -> BlockingPortal:
    pid = os.getpid()
    with _lock:
        portal = _portals.get(pid)
        if portal is None:
            started: Future[BlockingPortal] = Future()
            threading.Thread(target=_serve, args=(started,), name="tenantguard-jobs", daemon=True).start()
            portal = started.result(10)
            _portals.clear()  # those of the parent process did not survive the fork
            _portals[pid] = portal
        return portal


def _serve(started: "Future[BlockingPortal]") -> None:
    async def main() -> None:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    anyio.run(main)
