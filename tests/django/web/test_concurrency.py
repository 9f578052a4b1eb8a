"""Hundreds of requests of many tenants at once, in threads and in tasks, and nobody is answered as somebody else."""

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest
from django.test import override_settings

from tests.django.login import LOGIN, make_guard
from tests.django.web.servers import gunicorn, serve_asgi, serve_wsgi

TENANTS = [f"tenant-{number}" for number in range(10)]
PATHS = ["/slow", "/aslow", "/astream", "/stream", "/awhoami"]
SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, django_tables: None) -> Iterator[str]:
    with override_settings(TENANTGUARD={"GUARD": make_guard()}), SERVERS[request.param]() as served:
        yield served


def answers_to_all(url: str, tokens: dict[str, str], paths: list[str]) -> list[tuple[str, str, int, str]]:
    """Ask each path as each tenant, several times and all at once; return tenant, path, status and text of each."""
    answers: list[tuple[str, str, int, str]] = []

    async def ask(http: httpx2.AsyncClient, tenant: str, path: str, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            response = await http.get(path, headers={"authorization": f"Bearer {tokens[tenant]}"})
        answers.append((tenant, path, response.status_code, response.text))

    async def ask_all() -> None:
        limit = anyio.CapacityLimiter(40)
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http, anyio.create_task_group() as tasks:
            for _ in range(6):
                for path in paths:
                    for tenant in tokens:
                        tasks.start_soon(ask, http, tenant, path, limit)

    anyio.run(ask_all)
    assert len(answers) == 6 * len(paths) * len(tokens)
    return answers


def check(answers: list[tuple[str, str, int, str]], tenants: list[str]) -> None:
    for tenant, path, status, text in answers:
        assert status == 200, (path, text)
        others = [other for other in tenants if f'"{other}"' in text or f"{other}\n" in text]
        assert others == [tenant], path


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_each_concurrent_request_runs_as_its_own_tenant_only(url: str) -> None:
    tokens = {tenant: LOGIN.mint(f"user-of-{tenant}", tenant=tenant) for tenant in TENANTS}
    check(answers_to_all(url, tokens, PATHS), TENANTS)


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_forked_workers_serve_each_as_its_own_tenant_only(worker: str, tmp_path: Path) -> None:
    with gunicorn(worker, tmp_path) as (url, _):
        tokens = json.loads((tmp_path / "tokens").read_text())
        check(answers_to_all(url, tokens, ["/slow", "/stream", "/awhoami"]), list(tokens))


@pytest.mark.parametrize("preload", [True, False])
def test_a_worker_with_greenlets_in_the_place_of_threads_is_refused(preload: bool, tmp_path: Path) -> None:
    with gunicorn("gevent", tmp_path, preload=preload) as (url, process):
        if preload:  # the project is loaded before the worker replaces the threads
            token = json.loads((tmp_path / "tokens").read_text())["tenant-1"]
            answer = httpx2.get(f"{url}/awhoami", headers={"authorization": f"Bearer {token}"}, timeout=60)
            assert answer.status_code == 500
        else:
            assert process.wait(60) != 0
            assert "greenlets in the place of threads" in (tmp_path / "log").read_text()
