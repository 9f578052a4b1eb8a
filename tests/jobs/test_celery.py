"""Celery with a real broker (Redis) and a real worker in a process of its own.

Messages are first sent to a database of Redis where no worker listens. There a test can hold them back and change them,
as somebody who can write to the queue would, and then hand them to the worker.
"""

import base64
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from celery import chain, chord, group

from tenantguard import RevocationKind, service_identity, system
from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, NotBound
from tenantguard.identity import Actor, ActorType, Identity, Tenant

ROOT = Path(__file__).parents[2]
WAITING = 3
"""The database of the broker that no worker listens to."""


@pytest.fixture(scope="module")
def url(redis_url):
    os.environ["TENANTGUARD_TEST_REDIS"] = redis_url
    yield redis_url
    del os.environ["TENANTGUARD_TEST_REDIS"]


def start(*arguments, url, log):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.jobs.celery_worker", *arguments],
        cwd=ROOT,
        env=os.environ | {"TENANTGUARD_TEST_REDIS": url},
        stdout=log,
        stderr=log,
    )


QUIET = ("--loglevel=INFO", "--without-gossip", "--without-mingle", "--without-heartbeat")


@contextmanager
def working(pool, concurrency, url, path, *options):
    """Run a worker until the block ends; ``path`` is its log."""
    with path.open("wb") as log:
        process = start("worker", f"--pool={pool}", f"--concurrency={concurrency}", *QUIET, *options, url=url, log=log)
        try:
            deadline = time.monotonic() + 60
            while b" ready." not in path.read_bytes():
                assert process.poll() is None, path.read_text()
                assert time.monotonic() < deadline, path.read_text()
                time.sleep(0.1)
            yield path
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def worker(url, tmp_path_factory):
    with working("prefork", 2, url, tmp_path_factory.mktemp("celery") / "log") as path:
        yield path


@pytest.fixture(scope="module")
def app(url):
    from tests.jobs.celery_app import make_app

    made = make_app(WAITING)
    yield made
    made.close()


@pytest.fixture
def connection(url):
    with redis.Redis.from_url(url) as opened:
        yield opened


@pytest.fixture
def queue(url, worker, app, connection):
    """Hands messages from the database where they wait to the worker."""

    class Queue:
        def take(self, name="celery"):
            with redis.Redis.from_url(url.rsplit("/", 1)[0] + f"/{WAITING}") as waiting:
                raw = waiting.rpop(name)
            assert raw is not None, "nothing was sent"
            return json.loads(raw)

        def give(self, message, queue="celery"):
            message["properties"]["delivery_info"]["routing_key"] = queue
            connection.lpush("celery", json.dumps(message))

        def pass_on(self):
            message = self.take()
            self.give(message)
            return message["headers"]["id"]

    with redis.Redis.from_url(url.rsplit("/", 1)[0] + f"/{WAITING}") as waiting:
        waiting.flushdb()
    return Queue()


def caller(subject="alice", tenant="acme", **changes):
    person = Actor(subject, ActorType.HUMAN, "https://login.example.com")
    fields = {
        "subject": person,
        "actor": person,
        "tenant": Tenant(tenant),
        "scopes": frozenset({"documents:read", "documents:write", "billing:read"}),
        "issuer": "https://login.example.com",
        "issued_at": int(time.time()),
    }
    return Identity(**(fields | changes))


def noted(connection, word, count=1, seconds=60):
    deadline = time.monotonic() + seconds
    while connection.llen(f"noted:{word}") < count:
        assert time.monotonic() < deadline, f"{word} was not run"
        time.sleep(0.02)
    return [json.loads(line) for line in connection.lrange(f"noted:{word}", 0, -1)]


def refusal(app, connection, task_id, word, *, with_result=True):
    """Return why a task was refused, as its result and as the dead letter tell it."""
    deadline = time.monotonic() + 60
    while True:
        for raw in connection.lrange("tenantguard.dead_letters", 0, -1):
            letter = json.loads(base64.b64decode(json.loads(raw)["body"]))
            if letter["task_id"] == task_id:
                break
        else:
            assert time.monotonic() < deadline, "no dead letter came"
            time.sleep(0.02)
            continue
        break
    assert connection.llen(f"noted:{word}") == 0, "it must not have run"
    if not with_result:
        return letter["reason"]
    result = app.AsyncResult(task_id)
    while not result.ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert result.state == "FAILURE"
    assert type(result.result).__name__ == "JobRefused"
    assert str(result.result) == letter["message"]
    return letter["reason"]


def state_at_the_end(app, task_id):
    result = app.AsyncResult(task_id)
    deadline = time.monotonic() + 60
    while not result.ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return result.state


# --- as whom it runs ----------------------------------------------------------------------------------------


def test_a_task_runs_in_the_tenant_of_whoever_enqueued_it_narrowed_to_what_was_declared(app, queue, connection):
    agent = Actor("copilot", ActorType.AGENT, "https://login.example.com", model="m1")
    for subject, tenant, actor in (("alice", "acme", agent), ("bob", "globex", None)):
        with bind(caller(subject, tenant, **({"actor": actor} if actor else {})), Credential("raw-token")):
            app.tasks["celery.report"].delay(f"plain-{tenant}", created="2026-01-01")
        message = queue.take()
        assert "raw-token" not in json.dumps(message)
        queue.give(message)
    (acme,), (globex,) = noted(connection, "plain-acme"), noted(connection, "plain-globex")
    assert (acme["tenant"], acme["scopes"], acme["token"]) == ("acme", ["documents:read"], False)
    assert acme["chain"] == ["worker:service", "copilot:agent", "alice:human"]
    assert (globex["tenant"], globex["chain"]) == ("globex", ["worker:service", "bob:human"])


def test_a_task_that_was_not_declared_runs_without_any_scope(app, queue, connection):
    with bind(caller()):
        app.tasks["celery.undeclared"].delay("undeclared")
    queue.pass_on()
    (line,) = noted(connection, "undeclared")
    assert (line["tenant"], line["scopes"]) == ("acme", [])


def test_tasks_of_two_tenants_in_one_worker_process_leave_nothing_to_each_other(app, queue, connection):
    for number in range(20):
        with bind(caller(f"user{number}", f"tenant{number % 3}")):
            app.tasks["celery.report"].delay(f"mixed-{number}")
        queue.pass_on()
    for number in range(20):
        (line,) = noted(connection, f"mixed-{number}")
        assert (line["tenant"], line["chain"][-1]) == (f"tenant{number % 3}", f"user{number}:human")


def test_what_follows_a_task_runs_for_the_same_caller(app, queue, connection):
    """Chains, groups, callbacks, retries, and tasks that a task starts: the worker sends them, with nobody's token."""
    report = app.tasks["celery.report"]
    with bind(caller()):
        chain(report.s("chain-1"), report.si("chain-2"), report.si("chain-3")).delay()
        queue.pass_on()
        report.apply_async(("callback-1",), link=report.si("callback-2"))
        queue.pass_on()
        group(report.s("group-1"), report.s("group-2")).delay()
        queue.pass_on()
        queue.pass_on()
        app.tasks["celery.nested"].delay("nested")
        queue.pass_on()
        app.tasks["celery.failing"].delay("retried")
        queue.pass_on()
    for word in ("chain-1", "chain-2", "chain-3", "callback-1", "callback-2", "group-1", "group-2", "nested-inner"):
        (line,) = noted(connection, word)
        assert (line["tenant"], line["chain"]) == ("acme", ["worker:service", "alice:human"]), word
        assert line["scopes"] == ["documents:read"], word
    assert [line["tenant"] for line in noted(connection, "retried", 3)] == ["acme"] * 3


def test_a_task_is_not_enqueued_with_nobody_bound(app, queue):
    with pytest.raises(NotBound, match="runs_as"):
        app.tasks["celery.report"].delay("nobody")
    with bind(caller()), system("nightly run"), pytest.raises(NotBound):
        app.send_task("celery.report", ("nobody",))


def test_scheduled_work_runs_as_the_declared_service(url, app, queue, connection, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        beat = start("beat", "--schedule", str(tmp_path / "schedule"), "--max-interval", "1", url=url, log=log)
        try:
            line = noted(connection, "beat", 2, seconds=90)[0]
        finally:
            beat.terminate()
            beat.wait(30)
    assert (line["tenant"], line["chain"], line["scopes"]) == ("globex", ["invoice-run:service"], ["invoices:write"])


def test_a_service_may_start_work_for_each_tenant_by_hand(app, queue, connection):
    for tenant in ("acme", "globex"):
        with bind(service_identity("cron", tenant=tenant, scopes={"documents:read"})):
            app.tasks["celery.report"].delay(f"cron-{tenant}")
        queue.pass_on()
        (line,) = noted(connection, f"cron-{tenant}")
        assert (line["tenant"], line["chain"]) == (tenant, ["worker:service", "cron:service"])


# --- what is refused ----------------------------------------------------------------------------------------


def held_back(app, queue, word, task="celery.report", **changes):
    with bind(caller(**changes)):
        app.tasks[task].delay(word)
    message = queue.take()
    return message, message["headers"]["id"]


def body_of(message):
    return json.loads(base64.b64decode(message["body"]))


def set_body(message, body):
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()


def test_a_message_without_a_capsule_is_refused(app, queue, connection):
    message, task_id = held_back(app, queue, "stripped")
    del message["headers"]["tenantguard_capsule"]
    queue.give(message)
    assert refusal(app, connection, task_id, "stripped") == "missing"


@pytest.mark.parametrize("task", ["celery.late", "celery.late_class"])
def test_a_task_that_is_registered_late_with_a_class_of_its_own_is_guarded_too(app, queue, connection, task):
    good, _ = held_back(app, queue, f"good-{task}", task)
    queue.give(good)
    assert noted(connection, f"good-{task}")[0]["tenant"] == "acme"
    message, task_id = held_back(app, queue, f"stripped-{task}", task)
    del message["headers"]["tenantguard_capsule"]
    queue.give(message)
    assert refusal(app, connection, task_id, f"stripped-{task}") == "missing"


@pytest.mark.parametrize("called_directly", [True, False])
def test_a_message_that_claims_to_be_run_in_process_is_refused(app, queue, connection, called_directly):
    word = f"eager-{called_directly}"
    message, task_id = held_back(app, queue, word)
    del message["headers"]["tenantguard_capsule"]
    message["headers"] |= {"called_directly": called_directly, "is_eager": True, "_tenantguard_verdict": True}
    queue.give(message)
    assert refusal(app, connection, task_id, word) == "missing"


def test_a_header_that_hides_a_method_of_the_request_lets_nothing_run(app, queue, connection):
    """Celery makes every header an attribute of the request: one named ``get`` stands in front of its method."""
    message, task_id = held_back(app, queue, "hidden")
    del message["headers"]["tenantguard_capsule"]
    message["headers"] |= {"get": 1, "_tenantguard_verdict": True}
    queue.give(message)
    # Celery itself can't write a result for such a request.
    assert refusal(app, connection, task_id, "hidden", with_result=False) == "missing"
    follow_up, _ = held_back(app, queue, "after-hidden")
    queue.give(follow_up)
    assert noted(connection, "after-hidden")[0]["tenant"] == "acme"
    assert connection.llen("noted:hidden") == 0


def test_a_capsule_that_was_changed_is_refused(app, queue, connection):
    message, task_id = held_back(app, queue, "changed")
    head, payload, signature = message["headers"]["tenantguard_capsule"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims |= {"tenant_id": "globex"}
    payload = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).decode().rstrip("=")
    message["headers"]["tenantguard_capsule"] = ".".join((head, payload, signature))
    queue.give(message)
    assert refusal(app, connection, task_id, "changed") == "forged"


def test_a_capsule_can_not_be_put_on_other_arguments(app, queue, connection):
    message, task_id = held_back(app, queue, "mine")
    _, kwargs, embed = body_of(message)
    set_body(message, [["theirs"], kwargs, embed])
    queue.give(message)
    assert refusal(app, connection, task_id, "theirs") == "arguments"


def test_nothing_can_be_added_that_is_to_run_after_a_task(app, queue, connection):
    report = app.tasks["celery.report"]
    for name, value in (
        ("chain", [dict(report.si("planted"))]),
        ("callbacks", [dict(report.si("planted"))]),
        ("errbacks", [dict(report.si("planted"))]),
    ):
        message, task_id = held_back(app, queue, f"before-{name}")
        args, kwargs, embed = body_of(message)
        set_body(message, [args, kwargs, embed | {name: value}])
        queue.give(message)
        assert refusal(app, connection, task_id, f"before-{name}") == "arguments"
    assert connection.llen("noted:planted") == 0


HELD = {
    "eta": "2000-01-01T00:00:00+00:00",
    "expires": "2100-01-01T00:00:00+00:00",
    "retries": 1,
    "timelimit": [600, 600],
    "group": "the-group-of-another-tenant",
    "group_index": 7,
    "root_id": "another-root",
    "parent_id": "another-parent",
    "ignore_result": True,
    "replaced_task_nesting": 1,
    "stamped_headers": ["batch"],
    "stamps": {"batch": ["other"]},
}


@pytest.mark.parametrize("name", HELD)
def test_no_header_that_says_when_a_task_runs_or_what_its_result_is_counted_with_can_be_changed(
    app, queue, connection, name
):
    message, task_id = held_back(app, queue, f"header-{name}")
    assert message["headers"][name] != HELD[name]
    message["headers"][name] = HELD[name]
    queue.give(message)
    with_result = name != "ignore_result"
    assert refusal(app, connection, task_id, f"header-{name}", with_result=with_result) == "arguments"


@pytest.mark.parametrize("name", ["reply_to", "correlation_id"])
def test_the_result_of_a_task_can_not_be_sent_to_anybody_else(app, queue, connection, name):
    message, task_id = held_back(app, queue, f"property-{name}")
    assert message["properties"][name]
    message["properties"][name] = "eavesdropper"
    queue.give(message)
    assert refusal(app, connection, task_id, f"property-{name}") == "arguments"


def test_a_task_with_times_a_group_a_correlation_and_headers_of_its_own_arrives(app, queue, connection):
    moment = datetime.now(UTC) + timedelta(seconds=1)
    options = {
        "eta": moment,
        "expires": 60,
        "time_limit": 30,
        "soft_time_limit": 20,
        "correlation_id": "order-7",
        "reply_to": "answers",
        "headers": {"x-note": "hello"},
        "stamped_headers": ["batch"],
        "batch": "b1",
        "group_id": "g1",
        "group_index": 0,
        "shadow": "report of acme",
    }
    with bind(caller()):
        app.tasks["celery.report"].apply_async(("options",), **options)
    queue.pass_on()
    assert noted(connection, "options")[0]["tenant"] == "acme"
    assert datetime.now(UTC) >= moment


def test_a_chord_s_body_runs_for_the_same_caller(app, queue, connection, worker):
    report = app.tasks["celery.report"]
    with bind(caller()):
        result = chord([report.s("part-1"), report.s("part-2")], report.si("body")).delay()
    queue.pass_on()
    queue.pass_on()
    for word in ("part-1", "part-2", "body"):
        (line,) = noted(connection, word)
        assert (line["tenant"], line["chain"]) == ("acme", ["worker:service", "alice:human"]), worker.read_text()
    result.forget()


@pytest.mark.parametrize(
    "change",
    [{"eta": "9999-12-31T23:59:59-14:00"}, {"eta": "0001-01-01T00:00:00+14:00"}],
    ids=["a time too late", "a time too early"],
)
def test_a_message_that_fails_before_anybody_looked_at_its_capsule_starts_no_scheduled_work(
    app, queue, connection, worker, change
):
    """Celery itself calls what is to follow a failure: in the worker's main process, with nobody bound."""
    word = f"planted-{change['eta'][:4]}"
    message, task_id = held_back(app, queue, f"fails-{word}")
    del message["headers"]["tenantguard_capsule"]
    message["headers"] |= change
    args, kwargs, embed = body_of(message)
    planted = [dict(app.tasks[name].s(word)) for name in ("celery.errback", "celery.report")]
    planted.append(dict(app.tasks["celery.nightly"].si(word)))
    set_body(message, [args, kwargs, embed | {"errbacks": planted}])
    before = len(worker.read_text())
    queue.give(message)
    assert state_at_the_end(app, task_id) == "FAILURE"
    time.sleep(0.5)
    assert connection.llen(f"noted:{word}") == 0, worker.read_text()[before:]
    good, _ = held_back(app, queue, f"after-{word}")
    queue.give(good)
    assert noted(connection, f"after-{word}")[0]["tenant"] == "acme", "the worker goes on"


@pytest.mark.parametrize("name", ["chain", "callbacks"])
def test_housekeeping_that_needs_no_capsule_starts_no_scheduled_work(app, queue, connection, name):
    """Anybody who can write to the broker can start it, and say what is to follow."""
    word = f"after-housekeeping-{name}"
    message, task_id = held_back(app, queue, "unused")
    del message["headers"]["tenantguard_capsule"]
    message["headers"]["task"] = "celery.backend_cleanup"
    set_body(message, [[], {}, {name: [dict(app.tasks["celery.nightly"].si(word))]}])
    queue.give(message)
    assert state_at_the_end(app, task_id) == "SUCCESS"
    time.sleep(0.5)
    assert connection.llen(f"noted:{word}") == 0


def test_a_hook_before_a_task_runs_as_the_task_and_not_for_a_refused_one(app, queue, connection):
    good, _ = held_back(app, queue, "hooked", "celery.hooked")
    queue.give(good)
    assert noted(connection, "hooked")[0]["tenant"] == "acme"
    assert noted(connection, "start-hooked")[0]["tenant"] == "acme"
    message, task_id = held_back(app, queue, "hook-stripped", "celery.hooked")
    del message["headers"]["tenantguard_capsule"]
    queue.give(message)
    assert refusal(app, connection, task_id, "hook-stripped") == "missing"
    assert connection.llen("noted:start-hook-stripped") == 0


def test_error_callbacks_of_a_task_that_ran_are_called_and_sent_for_the_same_caller(app, queue, connection):
    with bind(caller()):
        errbacks = [app.tasks["celery.errback"].s("errback-called"), app.tasks["celery.report"].si("errback-sent")]
        app.tasks["celery.broken"].apply_async(("broken",), link_error=errbacks)
    queue.pass_on()
    for word in ("errback-called", "errback-sent"):
        assert noted(connection, word)[0]["tenant"] == "acme"


def test_a_capsule_can_not_be_put_on_another_task_or_queue(app, queue, connection):
    message, task_id = held_back(app, queue, "other-task")
    message["headers"]["task"] = "celery.nested"
    queue.give(message)
    assert refusal(app, connection, task_id, "other-task") == "audience"
    message, task_id = held_back(app, queue, "other-queue")
    queue.give(message, queue="elsewhere")
    assert refusal(app, connection, task_id, "other-queue") == "audience"


def test_a_message_that_is_sent_again_is_refused(app, queue, connection):
    message, task_id = held_back(app, queue, "again")
    queue.give(message)
    noted(connection, "again")
    connection.delete("noted:again")
    queue.give(message)
    deadline = time.monotonic() + 60
    letters = []
    while not letters and time.monotonic() < deadline:
        raw = connection.lrange("tenantguard.dead_letters", 0, -1)
        letters = [one for one in map(letter_in, raw) if one["task_id"] == task_id]
        time.sleep(0.02)
    assert [one["reason"] for one in letters] == ["replayed"]
    assert connection.llen("noted:again") == 0


def letter_in(raw):
    return json.loads(base64.b64decode(json.loads(raw)["body"]))


def test_a_capsule_that_waited_too_long_is_refused(app, queue, connection):
    message, task_id = held_back(app, queue, "late", task="celery.short")
    time.sleep(1.2)
    queue.give(message)
    assert refusal(app, connection, task_id, "late") == "expired"


def test_who_was_revoked_while_the_task_waited_stops_it(app, queue, connection, url):
    from tests.jobs.settings import make_jobs

    message, task_id = held_back(app, queue, "revoked", subject="mallory")
    revocations = make_jobs("celery")._revocations
    revocations.revoke(RevocationKind.SUBJECT, "mallory")
    revocations.close()
    time.sleep(1)  # as long as a revocation may take to every worker
    queue.give(message)
    assert refusal(app, connection, task_id, "revoked") == "revoked"


def test_a_tenant_that_was_suspended_while_the_task_waited_stops_it(app, queue, connection):
    message, task_id = held_back(app, queue, "suspended", tenant="initech")
    connection.sadd("suspended", "initech")
    queue.give(message)
    assert refusal(app, connection, task_id, "suspended") == "tenant"


def test_no_log_of_the_worker_holds_a_capsule(worker, app, queue, connection):
    message, _ = held_back(app, queue, "logged")
    queue.give(message)
    noted(connection, "logged")
    assert message["headers"]["tenantguard_capsule"] not in worker.read_text()


# --- pools --------------------------------------------------------------------------------------------------


def test_tasks_that_run_at_once_in_threads_of_one_process_leave_nothing_to_each_other(
    url, app, queue, connection, tmp_path
):
    """Each waits for the others in the middle, so that all of them are bound at the same time."""
    count = 8
    with working("threads", count, url, tmp_path / "log", "--queues=in-threads") as log:
        for number in range(count):
            with bind(caller(f"user{number}", f"tenant{number}")):
                app.tasks["celery.meeting"].apply_async((f"met-{number}", count), queue="in-threads")
            connection.lpush("in-threads", json.dumps(queue.take("in-threads")))
        for number in range(count):
            before, after = noted(connection, f"met-{number}", 2)
            assert before == after, log.read_text()
            assert (before["tenant"], before["chain"][-1]) == (f"tenant{number}", f"user{number}:human")
        with bind(caller()):
            chain(app.tasks["celery.report"].s("thread-1"), app.tasks["celery.report"].si("thread-2")).apply_async(
                queue="in-threads"
            )
        message = queue.take("in-threads")
        connection.lpush("in-threads", json.dumps(message))
        assert noted(connection, "thread-1")[0]["tenant"] == "acme"
        with bind(caller()):
            app.tasks["celery.report"].apply_async(("thread-stripped",), queue="in-threads")
        stripped = queue.take("in-threads")
        del stripped["headers"]["tenantguard_capsule"]
        connection.lpush("in-threads", json.dumps(stripped))
        assert refusal(app, connection, stripped["headers"]["id"], "thread-stripped") == "missing"


def test_a_worker_does_not_start_in_a_pool_whose_tasks_do_not_each_have_a_thread(url, tmp_path, monkeypatch):
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "tests.jobs.celery_app:Greenlets")
    with (tmp_path / "log").open("wb") as log:
        process = start("worker", "--pool=custom", *QUIET, url=url, log=log)
        assert process.wait(60) != 0
    assert "--pool=threads" in (tmp_path / "log").read_text()


# --- in process ---------------------------------------------------------------------------------------------


def test_a_task_that_is_called_in_process_runs_as_whoever_is_bound(app, queue, connection):
    with bind(caller("carol", "acme")):
        app.tasks["celery.report"]("direct")
        app.tasks["celery.report"].apply(("applied",))
    for word in ("direct", "applied"):
        (line,) = noted(connection, word)
        assert line["chain"] == ["carol:human"]


def test_an_app_is_guarded_once(app):
    from celery import Celery
    from tenantguard_celery import install

    from tenantguard.jobs import JobKeys, Jobs

    jobs = Jobs(JobKeys(b"x" * 32), service="worker")
    with pytest.raises(ConfigurationError, match="already"):
        install(app, jobs)
    with pytest.raises(ConfigurationError, match="protocol"):
        install(Celery("old", set_as_current=False, task_protocol=1), jobs)
