"""A Celery app as a user writes it, for producers and for the worker in a process of its own."""

import time
from typing import Any

import redis
from celery import Celery, Task
from celery.concurrency.base import BasePool
from tenantguard_celery import install

from tests.jobs.settings import make_jobs, note, redis_url

__all__ = ["make_app"]


class Greenlets(BasePool):
    """A pool of another kind than those that guarded workers know."""


class Own(Task):  # type: ignore[type-arg]
    """A base class as projects have one."""


class Hooked(Task):  # type: ignore[type-arg]
    """A base class with a hook that Celery calls before the task."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"start-{args[0]}")


class LateClass(Task):  # type: ignore[type-arg]
    """A task as a class."""

    name = "celery.late_class"

    def run(self, word: str) -> str:
        return note(word)


def make_app(broker: int) -> Celery:
    """Return the app with its broker in one of Redis's databases."""
    app = Celery("tests", broker=redis_url(broker), backend=redis_url(2), set_as_current=False)
    app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, task_acks_late=True)
    app.conf.beat_schedule = {"nightly": {"task": "celery.nightly", "schedule": 0.3, "args": ["beat"]}}
    install(app, make_jobs("celery"))

    @app.task(name="celery.report", shared=False)
    def report(word: str, *_: Any, **__: Any) -> str:
        return note(word)

    @app.task(name="celery.nested", shared=False)
    def nested(word: str) -> str:
        note(word)
        report.delay(f"{word}-inner")
        return word

    @app.task(name="celery.undeclared", shared=False)
    def undeclared(word: str) -> str:
        return note(word)

    @app.task(name="celery.short", shared=False)
    def short(word: str) -> str:
        return note(word)

    @app.task(name="celery.nightly", shared=False)
    def nightly(word: str) -> str:
        return note(word)

    @app.task(name="celery.errback", shared=False)
    def errback(request: Any, error: Any, traceback: Any, word: str) -> str:
        """Celery calls such a function in the process where the failure is noticed, with three arguments."""
        return note(word)

    @app.task(name="celery.hooked", shared=False, base=Hooked)
    def hooked(word: str) -> str:
        return note(word)

    @app.task(name="celery.broken", shared=False)
    def broken(word: str) -> str:
        raise ValueError(note(word))

    @app.task(name="celery.failing", shared=False, bind=True, max_retries=2)
    def failing(self: Any, word: str) -> str:
        note(word)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return word

    @app.task(name="celery.meeting", shared=False)
    def meeting(word: str, count: int) -> str:
        """Note who is bound before and after ``count`` such tasks have come together."""
        note(word)
        with redis.Redis.from_url(redis_url()) as connection:
            connection.incr("met")
            deadline = time.monotonic() + 20
            while int(connection.get("met") or 0) < count and time.monotonic() < deadline:
                time.sleep(0.01)
            if time.monotonic() >= deadline:
                return "alone"
        return note(word)

    # Tasks that come late, with classes of their own: some modules are imported when the app is finalized already.
    app.finalize()

    @app.task(name="celery.late", shared=False, base=Own)
    def late(word: str) -> str:
        return note(word)

    app.register_task(LateClass())
    return app
