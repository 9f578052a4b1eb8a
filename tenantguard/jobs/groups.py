"""Jobs in the same process: a task group that outlives requests, and runs each task as whom it was started for.

A task of a plain group inherits everything that its starter had bound, its token and all its scopes, for as long as it
runs. Here it gets a capsule like a job in a queue, is looked at when it starts, and inherits nothing else.
"""

import contextvars
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self, final

import anyio
from anyio.abc import TaskGroup

from tenantguard.errors import JobRefused
from tenantguard.jobs.jobs import Jobs

__all__ = ["JobGroup", "task_name"]

logger = logging.getLogger("tenantguard.jobs")

QUEUE: Final = "process"


def task_name(function: Callable[..., object]) -> str:
    """Return the name under which a function is declared: module and qualified name."""
    return f"{function.__module__}.{function.__qualname__}"


@final
class JobGroup:
    """A task group for work that goes on after the request, on asyncio and trio.

    Open it for as long as the app lives. A task that fails is logged, and takes nothing from the others. When the group
    is closed, it waits ``grace`` seconds for those that run, and then cancels them.

    Args:
        jobs: seals and opens.
        grace: seconds.
    """

    def __init__(self, jobs: Jobs, *, grace: float = 10.0) -> None:
        self._jobs = jobs
        self._grace = grace
        self._group: TaskGroup | None = None

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object, name: str | None = None) -> None:
        """Start a task in the name of whoever is bound now.

        Args:
            function: a coroutine function.
            args: its arguments.
            name: the name that it was declared under; by default `task_name`.

        Raises:
            NotBound: nobody is bound and the task has no ``runs_as``.
            RuntimeError: the group is not open.
        """
        if self._group is None:
            raise RuntimeError("The job group is not open: enter it with `async with` for as long as the app lives.")
        task = name or task_name(function)
        capsule = self._jobs.capsule(task, queue=QUEUE)
        # A new context: neither the token nor anything else of the request goes along.
        contextvars.Context().run(self._group.start_soon, self._run, task, capsule, function, args)

    async def _run(
        self, task: str, capsule: str | None, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        try:
            async with self._jobs.running(capsule, task=task, queue=QUEUE):
                await function(*args)
        except JobRefused:
            return  # it is among the dead letters
        except Exception:
            logger.exception("The task %s failed.", task)

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        assert group is not None
        if kind is None:
            group.cancel_scope.deadline = anyio.current_time() + self._grace
        await group.__aexit__(kind, error, trace)
