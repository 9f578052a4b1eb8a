"""tenantguard for taskiq: tasks run as whom they were enqueued for, if that is still allowed.

A middleware puts a capsule into the labels of every message that is sent, and opens it before a task runs. taskiq can't
be told by a middleware not to run a task, so every task's function is wrapped before its first message runs: it obeys
the verdict that the middleware left for it. Every decision is that of `tenantguard.jobs`.
"""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, final

import anyio.to_thread
import msgspec
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from tenantguard.context import bind
from tenantguard.errors import JobRefused
from tenantguard.jobs import Jobs, arguments_hash

__all__ = ["JobsMiddleware"]

LABEL: Final = "tenantguard_capsule"


@dataclass(slots=True)
class _Verdict:
    """What was decided on a message, for the function of its task alone.

    Args:
        task: the task's name.
        outcome: whom it runs as, or why it may not; ``None`` as whom: unguarded.
        outer: the verdict on the message in whose execution this one was executed, as an in-memory broker does.
        taken: whether the function has begun.
    """

    task: str
    outcome: bind | JobRefused | None
    outer: "_Verdict | None"
    taken: bool = False


_verdict: Final[ContextVar[_Verdict | None]] = ContextVar("tenantguard_taskiq", default=None)


@final
class JobsMiddleware(TaskiqMiddleware):
    """Guards every task of a taskiq broker: ``broker.with_middlewares(JobsMiddleware(jobs))``.

    Put it last, so that it seals what is really sent. A task that was kicked while an identity was bound runs in its
    tenant, with the scopes that were declared by ``jobs.declare(task_name, scopes=...)``. A task that may not run is
    not run: its result is the error `JobRefused`, and ``jobs.dead_letter`` is told. Dependencies of a task are resolved
    before it runs, with nobody bound.

    Args:
        jobs: seals and opens capsules.
        queue: the name of the broker's queue, the same in producers and workers.
    """

    def __init__(self, jobs: Jobs, *, queue: str = "taskiq") -> None:
        super().__init__()
        self._jobs = jobs
        self._queue = queue

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Seal who is bound.

        Raises:
            NotBound: nobody is, and the task has no ``runs_as``.
        """
        message.labels.pop(LABEL, None)
        capsule = self._jobs.capsule(message.task_name, queue=self._queue, arguments=_digest(message))
        if capsule is not None:
            message.labels[LABEL] = capsule
        return message

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Open the capsule, and leave the verdict for the task's function."""
        task = self.broker.find_task(message.task_name)
        if task is not None:
            task.original_func = _guarded(task.original_func, message.task_name)
        text = message.labels.pop(LABEL, None)
        outcome: bind | JobRefused | None
        try:
            capsule = await self._jobs.open(text, task=message.task_name, queue=self._queue, arguments=_digest(message))
            outcome = self._jobs.binding_of(capsule)
        except JobRefused as refused:
            outcome = refused
            await anyio.to_thread.run_sync(self._jobs.bury, refused, message.task_name, self._queue, message.task_id)
        _verdict.set(_Verdict(message.task_name, outcome, _verdict.get()))
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:  # noqa: ARG002 - taskiq's
        """Leave no verdict behind for whatever runs next in this context."""
        verdict = _verdict.get()
        _verdict.set(None if verdict is None else verdict.outer)


def _digest(message: TaskiqMessage) -> str:
    """Bind a capsule to its message. The arguments are plain JSON values on both sides."""
    encoded = msgspec.json.encode([message.task_id, list(message.args), message.kwargs])
    return arguments_hash(encoded)


def _guarded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function that runs as the verdict on its task says; one that is guarded already is returned as it is."""
    if getattr(function, "__tenantguard__", None) == name:
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            block = _take_verdict(name)
            if block is None:
                return await function(*args, **kwargs)
            with block:
                return await function(*args, **kwargs)
    else:

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            block = _take_verdict(name)
            if block is None:
                return function(*args, **kwargs)
            with block:
                return function(*args, **kwargs)

    run.__tenantguard__ = name  # type: ignore[attr-defined]
    return run


def _take_verdict(name: str) -> bind | None:
    verdict = _verdict.get()
    if verdict is None or verdict.task != name or verdict.taken:
        return None  # called by the app's own code, as whoever is bound there
    if isinstance(verdict.outcome, JobRefused):
        raise verdict.outcome
    verdict.taken = True
    return verdict.outcome
