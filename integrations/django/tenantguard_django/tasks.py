"""For Django's task framework (Django 6.0 and newer): tasks run as whom they were enqueued for.

::

    TENANTGUARD = {..., "JOBS": "documents.jobs.jobs"}  # a tenantguard.jobs.Jobs
    TASKS = {"default": {"BACKEND": "documents.jobs.Backend"}}


    class Backend(TenantTasks, DatabaseBackend): ...  # any backend, with this before it

A task takes its capsule along among its keyword arguments, since those are what every backend stores. Whatever runs it
does so by `Task.call`, where the capsule is opened. Every decision is that of `tenantguard.jobs`.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from django.tasks import Task
from django.tasks.backends.immediate import ImmediateBackend as _ImmediateBackend
from django.utils.json import normalize_json

from tenantguard.binding import enter_binding, leave_binding
from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, JobRefused
from tenantguard.jobs import Capsule, Jobs, arguments_hash
from tenantguard_django.conf import get_settings

__all__ = ["ImmediateBackend", "TenantTask", "TenantTasks"]

CAPSULE: Final = "_tenantguard_capsule"
"""The keyword argument that carries the capsule. Task functions never see it."""


def _jobs() -> Jobs:
    jobs = get_settings().jobs
    if jobs is None:
        raise ConfigurationError(
            "Tasks carry identities, and TENANTGUARD['JOBS'] is not set.",
            mend="Name a tenantguard.jobs.Jobs: 'JOBS': 'documents.jobs.jobs'.",
        )
    return jobs


def _digest(args: Any, kwargs: dict[str, Any]) -> str:
    return arguments_hash(msgspec.json.encode([list(args), kwargs], order="sorted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTask(Task):  # type: ignore[type-arg]  # it is not generic at run time
    """A task that runs as whom it was enqueued for. `TenantTasks` makes it of every task of its backend."""

    def enqueue(self, *args: Any, **kwargs: Any) -> Any:
        """Queue up the task, in the name of whoever is bound.

        Raises:
            NotBound: nobody is bound, and the task was not declared to run as a service.
        """
        return Task.enqueue(self, *args, **self._sealed(args, kwargs))

    async def aenqueue(self, *args: Any, **kwargs: Any) -> Any:
        """Queue up the task, in the name of whoever is bound. Raises as `enqueue` does."""
        return await Task.aenqueue(self, *args, **self._sealed(args, kwargs))

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task as whom it was enqueued for.

        Raises:
            JobRefused: it may not run: the capsule is missing, forged, of another job, used before or too old, or
                somebody in it was revoked.
        """
        text, own, digest = self._opened(args, kwargs)
        jobs = _jobs()
        try:
            capsule = jobs.open_blocking(text, task=self.module_path, queue=self.queue_name, arguments=digest)
        except JobRefused as refused:
            jobs.bury(refused, self.module_path, self.queue_name, "")
            raise
        with _running(jobs, capsule):
            return Task.call(self, *args, **own)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task as whom it was enqueued for. Raises as `call` does."""
        text, own, digest = self._opened(args, kwargs)
        jobs = _jobs()
        try:
            capsule = await jobs.open(text, task=self.module_path, queue=self.queue_name, arguments=digest)
        except JobRefused as refused:
            jobs.bury(refused, self.module_path, self.queue_name, "")
            raise
        with _running(jobs, capsule):
            return await Task.acall(self, *args, **own)

    def _sealed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in kwargs.items() if name != CAPSULE}
        stored: Any = normalize_json(own)
        digest = _digest(normalize_json(list(args)), stored)
        capsule = _jobs().capsule(self.module_path, queue=self.queue_name, arguments=digest)
        return own if capsule is None else {**own, CAPSULE: capsule}

    def _opened(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str | None, dict[str, Any], str]:
        own = dict(kwargs)
        text = own.pop(CAPSULE, None)
        return text, own, _digest(args[1:] if self.takes_context else args, own)


@contextmanager
def _running(jobs: Jobs, capsule: Capsule | None) -> Any:
    block: bind | None = jobs.binding_of(capsule)
    if block is not None:
        with block:
            yield
        return
    nobody = enter_binding(None)  # a task that was left unguarded gets nothing of whoever runs it
    try:
        yield
    finally:
        leave_binding(nobody)


class TenantTasks:
    """Mixin before a backend's class: ``class Backend(TenantTasks, DatabaseBackend)``."""

    task_class = TenantTask


class ImmediateBackend(TenantTasks, _ImmediateBackend):  # type: ignore[misc]  # the task's class is the mixin's
    """Django's immediate backend, whose tasks run as whom they were enqueued for."""
