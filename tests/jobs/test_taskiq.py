"""taskiq with a real broker (Redis) and a real worker in a process of its own.

Messages are first sent to a database of Redis where no worker listens, so that a test can hold them back and change
them, as somebody who can write to the queue would.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from taskiq import InMemoryBroker
from taskiq.kicker import AsyncKicker
from tenantguard_taskiq import JobsMiddleware

from tenantguard import RevocationKind
from tenantguard.binding import Credential, current_binding
from tenantguard.context import bind
from tenantguard.errors import JobRefused, NotBound
from tenantguard.jobs import JobKeys, Jobs
from tests.jobs.test_celery import caller, noted

ROOT = Path(__file__).parents[2]
WAITING = 5
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def url(redis_url):
    os.environ["TENANTGUARD_TEST_REDIS"] = redis_url
    yield redis_url
    del os.environ["TENANTGUARD_TEST_REDIS"]


def start(*arguments, url, log, database=0):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "taskiq", *arguments],
        cwd=ROOT,
        env=os.environ | {"TENANTGUARD_TEST_REDIS": url, "TENANTGUARD_TEST_DATABASE": str(database)},
        stdout=log,
        stderr=log,
    )


@contextmanager
def working(url, path, *options, database=0):
    """Run a worker until the block ends; ``path`` is its log."""
    with path.open("wb") as log:
        arguments = ("worker", "--workers", "1", *options, "tests.jobs.taskiq_worker:broker")
        process = start(*arguments, url=url, log=log, database=database)
        try:
            deadline = time.monotonic() + 60
            while b"Listening started" not in path.read_bytes():
                assert process.poll() is None, path.read_text()
                assert time.monotonic() < deadline, path.read_text()
                time.sleep(0.1)
            yield path
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def worker(url, tmp_path_factory):
    with working(url, tmp_path_factory.mktemp("taskiq") / "log") as path:
        yield path


@pytest.fixture
async def broker(url):
    from tests.jobs.taskiq_broker import make_broker

    made = make_broker(WAITING)
    await made.startup()
    yield made
    await made.shutdown()


@pytest.fixture
def connection(url):
    with redis.Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
def queue(url, worker, connection):
    class Queue:
        def take(self):
            with redis.Redis.from_url(url.rsplit("/", 1)[0] + f"/{WAITING}") as waiting:
                raw = waiting.rpop("taskiq")
            assert raw is not None, "nothing was sent"
            return json.loads(raw)

        def give(self, message):
            connection.lpush("taskiq", json.dumps(message))

    with redis.Redis.from_url(url.rsplit("/", 1)[0] + f"/{WAITING}") as waiting:
        waiting.flushdb()
    return Queue()


async def seen(connection, word, count=1):
    return await asyncio.to_thread(noted, connection, word, count)


async def refusal(broker, connection, message, word):
    deadline = time.monotonic() + 60
    letters = []
    while not letters and time.monotonic() < deadline:
        raw = connection.lrange("taskiq.dead_letters", 0, -1)
        letters = [one for one in map(json.loads, raw) if one["task_id"] == message["task_id"]]
        await asyncio.sleep(0.02)
    assert letters, "no dead letter came"
    assert connection.llen(f"noted:{word}") == 0, "it must not have run"
    while not await broker.result_backend.is_result_ready(message["task_id"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    result = await broker.result_backend.get_result(message["task_id"])
    assert result.is_err
    assert isinstance(result.error, JobRefused)
    assert result.error.message == letters[0]["message"]
    return letters[0]["reason"]


async def held_back(broker, queue, word, task="taskiq.report", **changes):
    with bind(caller(**changes), Credential("raw-token")):
        await broker.find_task(task).kiq(word)
    return queue.take()


@pytest.mark.parametrize("task", ["taskiq.report", "taskiq.nested"])
async def test_a_task_runs_in_the_tenant_of_whoever_enqueued_it_narrowed_to_what_was_declared(
    broker, queue, connection, task
):
    """One of the tasks is a coroutine, the other runs in a thread."""
    for subject, tenant in (("alice", "acme"), ("bob", "globex")):
        word = f"{task}-{tenant}"
        message = await held_back(broker, queue, word, task, subject=subject, tenant=tenant)
        assert "raw-token" not in json.dumps(message)
        queue.give(message)
        (line,) = await seen(connection, word)
        assert (line["tenant"], line["chain"]) == (tenant, ["worker:service", f"{subject}:human"])
        wanted = ["documents:read"] if task == "taskiq.report" else ["documents:read", "documents:write"]
        assert (line["scopes"], line["token"]) == (wanted, False)


async def test_many_callers_at_once_in_one_worker_leave_nothing_to_each_other(broker, queue, connection):
    for number in range(30):
        queue.give(
            await held_back(broker, queue, f"tq-mixed-{number}", subject=f"user{number}", tenant=f"tenant{number % 3}")
        )
    for number in range(30):
        (line,) = await seen(connection, f"tq-mixed-{number}")
        assert (line["tenant"], line["chain"][-1]) == (f"tenant{number % 3}", f"user{number}:human")


async def test_a_task_that_was_not_declared_runs_without_any_scope(broker, queue, connection):
    queue.give(await held_back(broker, queue, "tq-undeclared", "taskiq.undeclared"))
    (line,) = await seen(connection, "tq-undeclared")
    assert (line["tenant"], line["scopes"]) == ("acme", [])


async def test_a_task_that_a_task_starts_runs_for_the_same_caller(broker, queue, connection):
    queue.give(await held_back(broker, queue, "tq-outer", "taskiq.starts_another"))
    (line,) = await seen(connection, "tq-outer-inner")
    assert (line["tenant"], line["chain"], line["scopes"]) == ("acme", ["worker:service", "alice:human"], [])


async def test_a_task_is_not_enqueued_with_nobody_bound(broker):
    with pytest.raises(NotBound, match="runs_as"):
        await broker.find_task("taskiq.report").kiq("nobody")


async def test_scheduled_work_runs_as_the_declared_service(url, worker, connection, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        scheduler = start("scheduler", "tests.jobs.taskiq_worker:scheduler", url=url, log=log)
        try:
            (line,) = (await asyncio.to_thread(noted, connection, "scheduled", 1, 90))[:1]
        finally:
            scheduler.terminate()
            scheduler.wait(30)
    assert (line["tenant"], line["chain"], line["scopes"]) == ("globex", ["invoice-run:service"], ["invoices:write"])


async def test_a_message_without_a_capsule_is_refused(broker, queue, connection):
    message = await held_back(broker, queue, "tq-stripped")
    del message["labels"]["tenantguard_capsule"]
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-stripped") == "missing"


async def test_a_capsule_can_not_be_put_on_other_arguments_or_another_task(broker, queue, connection):
    message = await held_back(broker, queue, "tq-mine")
    message["args"] = ["tq-theirs"]
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-theirs") == "arguments"
    message = await held_back(broker, queue, "tq-keywords")
    message["kwargs"] = {"created": "now"}
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-keywords") == "arguments"
    message = await held_back(broker, queue, "tq-other")
    message["task_name"] = "taskiq.nested"
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-other") == "audience"
    message = await held_back(broker, queue, "tq-other-id")
    message["task_id"] = "another"
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-other-id") == "arguments"


async def test_a_forged_capsule_is_refused(broker, queue, connection):
    message = await held_back(broker, queue, "tq-forged")
    message["labels"]["tenantguard_capsule"] = message["labels"]["tenantguard_capsule"][:-6] + "AAAAAA"
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-forged") == "forged"


async def test_a_message_that_is_sent_again_is_refused(broker, queue, connection):
    message = await held_back(broker, queue, "tq-again")
    queue.give(message)
    await seen(connection, "tq-again")
    connection.delete("noted:tq-again")
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-again") == "replayed"


async def test_a_capsule_that_waited_too_long_is_refused(broker, queue, connection):
    message = await held_back(broker, queue, "tq-late", "taskiq.short")
    await asyncio.sleep(1.2)
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-late") == "expired"


async def test_who_was_revoked_and_which_tenant_was_suspended_meanwhile_stops_it(broker, queue, connection):
    from tests.jobs.settings import make_jobs

    message = await held_back(broker, queue, "tq-revoked", subject="trudy")
    revocations = make_jobs("taskiq")._revocations
    await revocations.revoke_async(RevocationKind.SUBJECT, "trudy")
    revocations.close()
    await asyncio.sleep(1)
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-revoked") == "revoked"
    message = await held_back(broker, queue, "tq-suspended", tenant="hooli")
    connection.sadd("suspended", "hooli")
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-suspended") == "tenant"


async def test_a_dependency_that_calls_a_task_s_function_does_not_use_up_the_verdict(broker, queue, connection):
    queue.give(await held_back(broker, queue, "tq-guards-it"))  # functions are guarded with their first message
    await seen(connection, "tq-guards-it")
    queue.give(await held_back(broker, queue, "tq-depending", "taskiq.depending"))
    (line,) = await seen(connection, "tq-depending")
    (aside,) = await seen(connection, "tq-depending-aside")
    assert (line["tenant"], aside["tenant"]) == ("acme", None), "a dependency is resolved with nobody bound"
    message = await held_back(broker, queue, "tq-depending-stripped", "taskiq.depending")
    del message["labels"]["tenantguard_capsule"]
    queue.give(message)
    assert await refusal(broker, connection, message, "tq-depending-stripped") == "missing"


async def test_a_task_that_is_tried_again_runs_for_the_same_caller_each_time(broker, queue, connection):
    queue.give(await held_back(broker, queue, "tq-failing", "taskiq.failing"))
    lines = await seen(connection, "tq-failing", 3)
    assert [(line["tenant"], line["chain"], line["scopes"]) for line in lines] == [
        ("acme", ["worker:service", "alice:human"], ["documents:read"])
    ] * 3


@pytest.mark.parametrize("task", ["taskiq.nightly", "taskiq.starting"])
async def test_a_refused_message_starts_no_scheduled_work(broker, queue, connection, task):
    """Neither by asking to be tried again, nor by what is done for it before its task would run."""
    word = f"tq-planted-{task}"
    message = await held_back(broker, queue, word, task)
    message["labels"] = {"retry_on_error": True, "max_retries": 3}
    queue.give(message)
    assert await refusal(broker, connection, message, word) == "missing"
    await asyncio.sleep(0.5)
    assert connection.llen(f"noted:{word}") == connection.llen(f"noted:{word}-aside") == 0
    assert connection.llen("taskiq") == 0, "and it is not tried again"


async def test_in_a_pool_of_processes_plain_functions_do_not_run_and_coroutines_do(
    url, broker, queue, connection, tmp_path
):
    database = 6
    with working(url, tmp_path / "log", "--use-process-pool", database=database) as log:
        with bind(caller()):
            await AsyncKicker("taskiq.plain", broker, {}).kiq("tq-process")
        message = queue.take()
        with redis.Redis.from_url(url.rsplit("/", 1)[0] + f"/{database}") as other:
            other.lpush("taskiq", json.dumps(message))
            other.lpush("taskiq", json.dumps(await held_back(broker, queue, "tq-coroutine")))
        (line,) = await seen(connection, "tq-coroutine")
        assert line["tenant"] == "acme"
        deadline = time.monotonic() + 15
        while not await broker.result_backend.is_result_ready(message["task_id"]):
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.02)
        result = await broker.result_backend.get_result(message["task_id"])
        assert result.is_err
        assert "PicklingError" in log.read_text()
    assert connection.llen("noted:tq-process") == 0


async def test_no_log_of_the_worker_holds_a_capsule(worker, broker, queue, connection):
    message = await held_back(broker, queue, "tq-logged")
    queue.give(message)
    await seen(connection, "tq-logged")
    assert message["labels"]["tenantguard_capsule"] not in worker.read_text()


async def test_a_function_that_is_a_task_by_two_names_is_guarded_by_both(url, worker, connection):
    from tests.jobs.settings import note

    async def shared(word: str) -> str:
        return note(word)

    jobs = Jobs(JobKeys(b"x" * 32), service="worker")
    broker = InMemoryBroker(await_inplace=True).with_middlewares(JobsMiddleware(jobs))
    tasks = [broker.register_task(shared, "taskiq.first")]
    with bind(caller("carol")):
        await tasks[0].kiq("tq-first")
        tasks.append(broker.register_task(tasks[0].original_func, "taskiq.second"))
        await tasks[1].kiq("tq-second")
        await tasks[0].kiq("tq-third")
    for word in ("tq-first", "tq-second", "tq-third"):
        (line,) = await seen(connection, word)
        assert line["chain"] == ["worker:service", "carol:human"], word


async def test_in_process_nothing_stays_bound_and_direct_calls_run_as_whoever_is_bound(url, worker, connection):
    from tests.jobs.taskiq_broker import make_in_memory_broker

    broker = make_in_memory_broker()
    await broker.startup()
    with bind(caller("carol")):
        await broker.find_task("taskiq.report").kiq("tq-inplace")
        await broker.find_task("taskiq.report")("tq-direct")
    assert current_binding() is None
    (inplace,) = await seen(connection, "tq-inplace")
    (direct,) = await seen(connection, "tq-direct")
    assert (inplace["chain"], inplace["scopes"]) == (["worker:service", "carol:human"], ["documents:read"])
    assert direct["chain"] == ["carol:human"]
    await broker.shutdown()
