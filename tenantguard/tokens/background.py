"""Blocking work off the event loop, started from any thread and awaited from any event loop.

Keys are shared by all event loops and threads of a process (a web server with sync endpoints, tests with a new loop
each), so nothing here belongs to one loop: work runs in daemon threads and is handed over as a
`concurrent.futures.Future`. anyio's own worker threads are not used, since they belong to one loop and their number is
shared with the app's sync endpoints.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar, cast, final

import anyio
from anyio.lowlevel import current_token

__all__ = ["DaemonThreads", "wait_for"]

T = TypeVar("T")

IDLE_SECONDS: Final = 10.0


@final
class DaemonThreads:
    """A bounded number of daemon threads, started when there is work and ended when there is none.

    They are daemons so that a process never waits for a slow issuer when it exits.

    Args:
        limit: most threads at once; further work waits.
    """

    __slots__ = ("_closed", "_condition", "_idle", "_limit", "_pid", "_threads", "_work")

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0
        self._pid = os.getpid()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` in a thread and return its future. After `close` the future is cancelled."""
        future: Future[T] = Future()
        if self._pid != os.getpid():
            self._reset()  # threads do not survive a fork
        with self._condition:
            if self._closed:
                future.cancel()
                future.set_running_or_notify_cancel()
                return future
            self._work.append((future, work))
            if self._idle >= len(self._work):
                self._condition.notify()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._serve, name="tenantguard-fetch", daemon=True).start()
        return future

    def close(self) -> None:
        """Cancel what has not begun and let the threads end. What runs ends at its own deadline."""
        with self._condition:
            self._closed = True
            waiting = list(self._work)
            self._work.clear()
            self._condition.notify_all()
        for future, _ in waiting:
            future.cancel()
            future.set_running_or_notify_cancel()

    def _serve(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                if not self._work and not self._closed:
                    self._condition.wait(IDLE_SECONDS)
                self._idle -= 1
                if not self._work:
                    self._threads -= 1
                    return
                future, work = self._work.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the future
                future.set_exception(error)
            else:
                future.set_result(result)


async def wait_for(future: Future[T], seconds: float) -> T:
    """Await a future of another thread from this event loop, asyncio's or trio's.

    Args:
        seconds: how long to wait; the future itself goes on.

    Raises:
        TimeoutError: it was not done in time.
    """
    if not future.done():
        event = anyio.Event()
        native = cast(Any, current_token().native_token)
        call_soon: Callable[..., Any] = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe

        def wake(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop that waited is closed
                call_soon(event.set)

        future.add_done_callback(wake)
        with anyio.fail_after(seconds):
            await event.wait()
    return future.result()
