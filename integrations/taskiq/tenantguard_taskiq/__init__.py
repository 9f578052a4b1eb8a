"""tenantguard for taskiq: tasks run as whom they were enqueued for, if that is still allowed.

A middleware puts a capsule into the labels of every message that is sent, and opens it before a task runs. taskiq can't
be told by a middleware not to run a task, so every task's function is wrapped before its first message runs: it obeys
the verdict that the middleware left for it. What other middlewares and dependencies send around a task, as those that
try again do, is sent as whom the message was for, or not at all. Every decision is that of `tenantguard.jobs`.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final, final

import anyio.to_thread
import msgspec
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult

from tenantguard.binding import current_binding
from tenantguard.context import bind
from tenantguard.errors import JobRefused, NotBound
from tenantguard.jobs import Capsule, Jobs, arguments_hash

__all__ = ["JobsMiddleware"]

LABEL: Final = "tenantguard_capsule"
_RECEIVER: Final = "taskiq.receiver.receiver"
_bodies: Final[set[CodeType]] = set()
"""The code that calls the functions of tasks: what they call is the app's own code."""


@dataclass(slots=True)
class _Verdict:
    """What was decided on a message, for the function of its task alone.

    Args:
        task: the task's name.
        outcome: what its capsule says, or why it may not run; ``None`` for no capsule: unguarded.
        outer: the verdict on the message in whose execution this one was executed, as an in-memory broker does.
        taken: whether the function has begun.
    """

    task: str
    outcome: Capsule | JobRefused | None
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
            NotBound: nobody is, and the task has no ``runs_as``; or it is sent around a task that may not run.
        """
        message.labels.pop(LABEL, None)
        with self._sender(message.task_name):
            capsule = self._jobs.capsule(message.task_name, queue=self._queue, arguments=_digest(message))
        if capsule is not None:
            message.labels[LABEL] = capsule
        return message

    def _sender(self, task: str) -> AbstractContextManager[object]:
        """Return the block in which a message is sealed."""
        binding = current_binding()
        if (binding is not None and binding.identity is not None) or not _is_around_a_task():
            return nullcontext()
        verdict = _verdict.get()
        block = self._jobs.binding_of(verdict.outcome) if verdict and isinstance(verdict.outcome, Capsule) else None
        if block is None and self._jobs.declaration(task).unguarded is None:
            raise NotBound(
                f"The task {task} was started around a task that may not run, or that runs with nobody bound.",
                mend="Start it in the function of a task.",
            )
        return nullcontext() if block is None else block

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Open the capsule, and leave the verdict for the task's function."""
        task = self.broker.find_task(message.task_name)
        if task is not None:
            task.original_func = _guarded(task.original_func, message.task_name, self._jobs)
        text = message.labels.pop(LABEL, None)
        outcome: Capsule | JobRefused | None
        try:
            outcome = await self._jobs.open(text, task=message.task_name, queue=self._queue, arguments=_digest(message))
        except JobRefused as refused:
            outcome = refused
            message.labels["retry_on_error"] = False  # it would be refused again
            await anyio.to_thread.run_sync(self._jobs.bury, refused, message.task_name, self._queue, message.task_id)
        _verdict.set(_Verdict(message.task_name, outcome, _verdict.get()))
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:  # noqa: ARG002 - taskiq's
        """Leave no verdict behind for whatever runs next in this context."""
        verdict = _verdict.get()
        _verdict.set(None if verdict is None else verdict.outer)


def _is_around_a_task() -> bool:
    """True if it is asked by what taskiq calls for a message, other than the function of its task."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the way to who sends
    while frame is not None and frame.f_code not in _bodies:
        if frame.f_globals.get("__name__") == _RECEIVER:
            return True
        frame = frame.f_back
    return False


def _digest(message: TaskiqMessage) -> str:
    """Bind a capsule to its message. The arguments are plain JSON values on both sides."""
    encoded = msgspec.json.encode([message.task_id, list(message.args), message.kwargs])
    return arguments_hash(encoded)


def _guarded(function: Callable[..., Any], name: str, jobs: Jobs) -> Callable[..., Any]:
    """Return a function that runs as the verdict on its task says; one that is guarded already is returned as it is."""
    if getattr(function, "__tenantguard__", None) == name:
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            block = _take_verdict(name, jobs)
            if block is None:
                return await function(*args, **kwargs)
            with block:
                return await function(*args, **kwargs)
    else:

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            block = _take_verdict(name, jobs)
            if block is None:
                return function(*args, **kwargs)
            with block:
                return function(*args, **kwargs)

    guard: Any = run
    _bodies.add(guard.__code__)
    guard.__tenantguard__ = name
    return run


def _take_verdict(name: str, jobs: Jobs) -> bind | None:
    verdict = _verdict.get()
    if verdict is None or verdict.task != name or verdict.taken:
        return None  # called by the app's own code, as whoever is bound there
    if isinstance(verdict.outcome, JobRefused):
        raise verdict.outcome
    verdict.taken = True
    return jobs.binding_of(verdict.outcome)
