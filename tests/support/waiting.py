"""Waiting for what comes soon, on machines that are busy with something else.

A test that waits for an event gives it far longer than it takes, for only a failure waits so long. A test that shows
that something is given up in time lets the other side hang for longer than the test may take, and ends it afterwards.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

import anyio
from starlette.responses import PlainTextResponse

__all__ = ["PATIENCE", "Clock", "Hanging", "until", "wait_until"]

PATIENCE: Final = 30.0
"""Seconds after which what a test waits for counts as never happening."""


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE, *, every: float = 0.01) -> None:
    """Return once ``condition`` holds.

    Args:
        condition: asked again and again.
        seconds: how long at most.
        every: seconds between two times that it is asked.

    Raises:
        AssertionError: it does not come to hold.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(every)


async def until(condition: Callable[[], Any], seconds: float = PATIENCE, *, every: float = 0.005) -> None:
    """Do as `wait_until` without holding the event loop.

    Raises:
        AssertionError: see `wait_until`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await anyio.sleep(every)


class Hanging:
    """The answer of an endpoint that hangs: for a `ScriptedEndpoint`, until the ``with`` block is left."""

    def __init__(self) -> None:
        self._over = threading.Event()

    async def __call__(self, _: object) -> PlainTextResponse:
        while not self._over.is_set():
            await anyio.sleep(0.02)
        return PlainTextResponse("late", 500)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


class Clock:
    """Seconds that pass when a test says so: put in the place of `time.time` or `time.monotonic`."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now
