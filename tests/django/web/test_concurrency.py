"""Hundreds of requests of many tenants at once, in threads and in tasks, and nobody is answered as somebody else."""

from collections.abc import Iterator

import anyio
import httpx2
import pytest
from django.test import override_settings

from tests.django.login import LOGIN, make_guard
from tests.django.web.servers import serve_asgi, serve_wsgi

TENANTS = [f"tenant-{number}" for number in range(10)]
PATHS = ["/slow", "/aslow", "/astream", "/stream", "/awhoami"]
SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, django_tables: None) -> Iterator[str]:
    with override_settings(TENANTGUARD={"GUARD": make_guard()}), SERVERS[request.param]() as served:
        yield served


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_each_concurrent_request_runs_as_its_own_tenant_only(url: str) -> None:
    tokens = {tenant: LOGIN.mint(f"user-of-{tenant}", tenant=tenant) for tenant in TENANTS}
    answers: list[tuple[str, str, int, str]] = []

    async def ask(http: httpx2.AsyncClient, tenant: str, path: str, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            response = await http.get(path, headers={"authorization": f"Bearer {tokens[tenant]}"})
        answers.append((tenant, path, response.status_code, response.text))

    async def ask_all() -> None:
        limit = anyio.CapacityLimiter(40)
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http, anyio.create_task_group() as tasks:
            for _ in range(6):
                for path in PATHS:
                    for tenant in TENANTS:
                        tasks.start_soon(ask, http, tenant, path, limit)

    anyio.run(ask_all)
    assert len(answers) == 6 * len(PATHS) * len(TENANTS)
    for tenant, path, status, text in answers:
        assert status == 200, (path, text)
        others = [other for other in TENANTS if f'"{other}"' in text or f"{other}\n" in text]
        assert others == [tenant], path
