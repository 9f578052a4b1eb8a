"""Pages that Django caches answer for the tenant alone that they were made for."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import RequestFactory, override_settings
from django.test.client import AsyncClient, Client
from django.views.decorators.cache import cache_page
from tenantguard_django.cache import keep_pages_apart
from tenantguard_django.test import TenantClient

from tenantguard import bind, service_identity
from tests.django.login import bearer

OURS = "tenantguard_django.middleware.TenantGuardMiddleware"
UPDATE, FETCH = (f"django.middleware.cache.{name}CacheMiddleware" for name in ("Update", "FetchFrom"))


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def _asked(path: str, tenant: str, **how: Any) -> Any:
    return Client().get(path, headers=bearer(tenant=tenant), **how).json()


def test_a_cached_view_answers_each_tenant_with_its_own_page() -> None:
    for _ in range(2):
        for tenant in ("acme", "globex"):
            assert _asked("/cached", tenant) == tenant
    assert TenantClient(tenant="acme").get("/cached").json() == "acme"
    assert TenantClient(tenant="initech").get("/cached").json() == "initech"


def test_a_cached_view_does_not_answer_who_is_not_let_in() -> None:
    assert _asked("/cached", "acme") == "acme"
    assert Client().get("/cached").status_code == 401


def test_public_pages_are_everybodys() -> None:
    assert Client().get("/public/cached").json() == "nobody"
    assert _asked("/public/cached", "acme") == "nobody"


def test_the_page_is_taken_from_the_cache() -> None:
    made: list[str] = []

    @cache_page(60)
    def view(request: Any) -> Any:
        from django.http import HttpResponse

        made.append(request.path)
        return HttpResponse("page")

    keep_pages_apart()  # once more
    for tenant in ("a", "a", "b", "a", "b"):
        with bind(service_identity("x", tenant=tenant)):
            view(RequestFactory().get("/page"))
    with bind(service_identity("x", tenant="a", dimensions={"workspace": "w"})):
        view(RequestFactory().get("/page"))
    assert len(made) == 3


@override_settings(MIDDLEWARE=[UPDATE, OURS, FETCH], ROOT_URLCONF="tests.django.web.urls")
def test_a_cached_site_does_too() -> None:
    for _ in range(2):
        for tenant in ("acme", "globex"):
            assert Client().get("/note", headers=bearer(tenant=tenant, scopes="notes:read")).json() == tenant


def test_async_requests_are_kept_apart_as_well() -> None:
    import asyncio

    async def ask(tenant: str) -> Any:
        return (await AsyncClient().get("/cached", headers=bearer(tenant=tenant))).json()

    for _ in range(2):
        assert [asyncio.run(ask(tenant)) for tenant in ("acme", "globex")] == ["acme", "globex"]
