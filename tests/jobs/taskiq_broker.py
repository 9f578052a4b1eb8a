"""A taskiq broker as a user writes it, for producers and for the worker in a process of its own."""

import contextlib
import json
from typing import Annotated, Any

import redis
from taskiq import Context, InMemoryBroker, SimpleRetryMiddleware, TaskiqDepends
from taskiq.kicker import AsyncKicker
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend
from tenantguard_taskiq import JobsMiddleware

from tenantguard.errors import NotBound
from tenantguard.jobs import DeadLetter
from tests.jobs.settings import make_jobs, note, redis_url

__all__ = ["add_tasks", "make_broker", "make_in_memory_broker"]


def bury(letter: DeadLetter) -> None:
    with redis.Redis.from_url(redis_url()) as connection:
        connection.rpush("taskiq.dead_letters", json.dumps(letter._asdict()))


def make_broker(database: int) -> Any:
    """Return the broker in one of Redis's databases."""
    results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(redis_url(2))
    broker = ListQueueBroker(redis_url(database), queue_name="taskiq").with_result_backend(results)
    middlewares = [SimpleRetryMiddleware(default_retry_count=3), JobsMiddleware(make_jobs("taskiq", dead_letter=bury))]
    return add_tasks(broker.with_middlewares(*middlewares))


def make_in_memory_broker() -> Any:
    return add_tasks(InMemoryBroker(await_inplace=True).with_middlewares(JobsMiddleware(make_jobs("taskiq"))))


async def _calls_another(context: Annotated[Context, TaskiqDepends()]) -> str:
    """A dependency that calls the function of a task directly, and goes on whatever comes of it."""
    with contextlib.suppress(Exception):
        await context.broker.find_task("taskiq.report")(f"{context.message.args[0]}-aside")
    return "done"


async def _starts_another(context: Annotated[Context, TaskiqDepends()]) -> str:
    """A dependency that starts scheduled work."""
    with contextlib.suppress(NotBound):
        await AsyncKicker("taskiq.nightly", context.broker, {}).kiq(f"{context.message.args[0]}-aside")
    return "done"


def add_tasks(broker: Any) -> Any:
    @broker.task("taskiq.report")
    async def report(word: str, created: str | None = None) -> str:
        return note(word)

    @broker.task("taskiq.nested")
    def nested(word: str) -> str:
        return note(word)

    @broker.task("taskiq.undeclared")
    async def undeclared(word: str) -> str:
        return note(word)

    @broker.task("taskiq.starts_another")
    async def starts_another(word: str) -> str:
        note(word)
        await report.kiq(f"{word}-inner")
        return word

    @broker.task("taskiq.depending")
    async def depending(word: str, aside: str = TaskiqDepends(_calls_another)) -> str:
        return note(word)

    @broker.task("taskiq.failing", retry_on_error=True)
    async def failing(word: str) -> str:
        raise ValueError(note(word))

    @broker.task("taskiq.starting")
    async def starting(word: str, aside: str = TaskiqDepends(_starts_another)) -> str:
        return note(word)

    @broker.task("taskiq.short")
    async def short(word: str) -> str:
        return note(word)

    @broker.task("taskiq.nightly")
    async def nightly(word: str) -> str:
        return note(word)

    return broker
