"""Django's task framework: tasks run as whom they were enqueued for, or not at all."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.tasks import TaskResultStatus, task_backends
from django.test import override_settings
from tenantguard_django.tasks import CAPSULE
from tenantguard_django.test import as_identity

from tenantguard import RevocationKind, Revocations, bind, service_identity
from tenantguard.errors import ConfigurationError, JobRefused, NotBound
from tenantguard.jobs import DeadLetter, JobKeys, Jobs
from tests.django.login import settings_with
from tests.django.web import put_off
from tests.django.web.rows import seed, wipe

TASKS = {"default": {"BACKEND": "tenantguard_django.tasks.ImmediateBackend"}}
REVOCATIONS = Revocations()
BURIED: list[DeadLetter] = []


def make_jobs() -> Jobs:
    jobs = Jobs(JobKeys(secrets.token_bytes(32)), service="worker", revocations=REVOCATIONS, dead_letter=BURIED.append)
    jobs.declare("tests.django.web.put_off.titles", scopes="documents:read")
    jobs.leave_unguarded("tests.django.web.put_off.housekeeping", "it looks at no row")
    return jobs


@pytest.fixture(autouse=True)
def rows(django_tables: None) -> Iterator[None]:
    BURIED.clear()
    seed()
    with override_settings(TASKS=TASKS, TENANTGUARD=settings_with(JOBS=make_jobs())):
        yield
    wipe()


def enqueue(task: Any, *args: Any, **kwargs: Any) -> Any:
    result = task.enqueue(*args, **kwargs)
    assert result.status == TaskResultStatus.SUCCESSFUL, result.errors
    return result.return_value


def test_a_task_runs_in_the_tenant_and_in_the_name_of_its_caller_with_the_declared_scopes() -> None:
    for tenant in ("acme", "globex"):
        with as_identity(tenant=tenant, subject="alice", scopes="documents:read documents:write"):
            assert enqueue(put_off.titles, "* ", least=0) == {
                "titles": [f"* {tenant}'s"],
                "subject": "alice",
                "actor": "worker",
                "scopes": ["documents:read"],
            }


def test_async_tasks_and_tasks_with_a_context_do_too() -> None:
    with as_identity(tenant="globex"):
        assert enqueue(put_off.atitles, "* ") == ["* globex's"]
        assert enqueue(put_off.attempt, 7) == [1, 7, "globex"]

    async def main() -> Any:
        with as_identity(tenant="acme"):
            return (await put_off.atitles.aenqueue("+ ")).return_value

    assert asyncio.run(main()) == ["+ acme's"]


def test_with_nobody_bound_a_task_is_not_put_off() -> None:
    with pytest.raises(NotBound):
        put_off.titles.enqueue("x")
    assert enqueue(put_off.housekeeping) is True
    with as_identity(tenant="acme"):
        assert enqueue(put_off.housekeeping) is True


def carried(task: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The keyword arguments that a queue would have stored."""
    sealed: dict[str, Any] = task._sealed(args, kwargs)
    return sealed


def test_a_worker_opens_the_capsule_and_is_left_unbound() -> None:
    with as_identity(tenant="acme", subject="alice"):
        stored = carried(put_off.titles, "x")
    assert put_off.titles.call("x", **stored)["titles"] == ["xacme's"]
    with pytest.raises(NotBound):
        from tenantguard import current_tenant

        current_tenant()


def test_a_capsule_is_of_one_job_and_good_once() -> None:
    with as_identity(tenant="acme"):
        stored = carried(put_off.titles, "x")
    attempts = {
        "missing": lambda: put_off.titles.call("x"),
        "arguments": lambda: put_off.titles.call("y", **stored),
        "audience": lambda: put_off.atitles.call("x", **stored),
        "forged": lambda: put_off.titles.call("x", **{CAPSULE: stored[CAPSULE][:-4] + "AAAA"}),
    }
    for reason, run in attempts.items():
        with pytest.raises(JobRefused) as refused:
            run()
        assert refused.value.reason == reason
    put_off.titles.call("x", **stored)
    with pytest.raises(JobRefused) as refused:
        put_off.titles.call("x", **stored)
    assert refused.value.reason == "replayed"
    assert [letter.reason for letter in BURIED] == [*attempts, "replayed"]


def test_who_was_revoked_meanwhile_stops_the_task() -> None:
    with as_identity(tenant="acme", subject="mallory"):
        stored = carried(put_off.titles, "x")
    REVOCATIONS.revoke(RevocationKind.SUBJECT, "mallory", issuer=None)
    with pytest.raises(JobRefused) as refused:
        asyncio.run(put_off.titles.acall("x", **stored))
    assert refused.value.reason == "revoked"


def test_a_capsule_can_not_be_slipped_in_by_the_caller() -> None:
    with as_identity(tenant="globex"):
        foreign = carried(put_off.titles, "x")
    with as_identity(tenant="acme"):
        assert enqueue(put_off.titles, "x", **foreign)["titles"] == ["xacme's"]


def test_without_jobs_in_the_settings_nothing_is_put_off() -> None:
    with (
        override_settings(TENANTGUARD=settings_with()),
        bind(service_identity("x", tenant="acme")),
        pytest.raises(ConfigurationError, match="JOBS"),
    ):
        put_off.titles.enqueue("x")
    assert type(task_backends["default"]).__module__ == "tenantguard_django.tasks"
