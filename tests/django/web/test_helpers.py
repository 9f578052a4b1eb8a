"""The weapons for a project's own tests: work as somebody, ask as somebody."""

import asyncio
from collections.abc import Iterator

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from tenantguard_django.conf import get_settings
from tenantguard_django.test import AsyncTenantClient, TenantClient, as_identity, identity_of

from tenantguard import Actor, ActorType, current_identity, current_tenant
from tenantguard.binding import raw_binding
from tenantguard.errors import NotBound, StatementRefused
from tests.django.login import LOGIN, settings_with
from tests.django.web.models import Document
from tests.django.web.rows import seed, wipe


@pytest.fixture(autouse=True)
def rows(django_tables: None) -> Iterator[dict[str, int]]:
    with override_settings(TENANTGUARD=settings_with()):
        yield seed()
    wipe()


def test_as_identity_works_in_a_tenant_for_a_block() -> None:
    for tenant in ("acme", "globex"):
        with as_identity(tenant=tenant, subject="alice", scopes="documents:read"):
            assert [document.title for document in Document.objects.all()] == [f"{tenant}'s"]
            assert current_identity().has_scopes("documents:read")
    with pytest.raises(NotBound):
        current_tenant()


@as_identity(tenant="acme")
def test_as_identity_decorates_tests() -> None:
    assert Document.objects.count() == 1


def test_as_identity_decorates_async_functions() -> None:
    @as_identity(tenant="globex")
    async def count() -> list[str]:
        return [document.title async for document in Document.objects.all()]

    assert asyncio.run(count()) == ["globex's"]


def test_the_client_asks_as_somebody() -> None:
    alice = TenantClient(subject="alice", tenant="acme", scopes="notes:read")
    assert alice.get("/note").json() == "acme"
    assert alice.get("/whoami").json()["user"] == "alice"
    refused = TenantClient(tenant="acme").get("/note")
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_the_client_asks_as_an_agent() -> None:
    copilot = Actor("copilot", ActorType.AGENT)
    answer = TenantClient(identity_of("alice", tenant="globex", actor=copilot)).get("/whoami").json()
    assert (answer["actor"], answer["user"], answer["tenant"]) == ("copilot", "alice", "globex")


def test_the_async_client_asks_as_somebody() -> None:
    async def main() -> None:
        client = AsyncTenantClient(subject="alice", tenant="globex")
        assert (await client.get("/awhoami")).json()["tenant"] == "globex"
        token = LOGIN.mint("bob", tenant="acme")
        assert (await AsyncTenantClient(token=token).get("/awhoami")).json()["actor"] == "bob"

    asyncio.run(main())


def test_the_client_sends_real_tokens_too() -> None:
    assert TenantClient(token=LOGIN.mint("bob")).get("/whoami").json()["actor"] == "bob"
    assert TenantClient(token="nonsense").get("/whoami").status_code == 401


def test_public_paths_and_missing_tenants_are_as_in_production() -> None:
    assert TenantClient(tenant="acme").get("/health").json()["bound"] == "nobody"
    refused = TenantClient(tenant=None).get("/whoami")
    assert (refused.status_code, refused.json()["title"]) == (403, "Tenant refused")


def test_what_a_test_has_bound_does_not_help_the_request_that_it_sends() -> None:
    from django.test import Client

    with as_identity(tenant="acme"):
        assert Client().get("/whoami").status_code == 401
        assert Client().get("/health").json()["bound"] == "nobody"
        assert TenantClient(tenant="globex").get("/whoami").json()["tenant"] == "globex"
        assert current_tenant().id == "acme"


def test_errors_of_the_app_are_raised_to_the_test() -> None:
    with pytest.raises(StatementRefused):
        TenantClient(tenant="acme").get("/broken")


def test_who_is_said_twice_is_a_mistake() -> None:
    with pytest.raises(TypeError):
        TenantClient(token="x", tenant="acme")
    with pytest.raises(TypeError):
        TenantClient(identity_of(tenant="acme"), tenant="acme")


def test_settings_are_read_anew_when_a_test_overrides_them() -> None:
    with override_settings(TENANTGUARD={}), pytest.raises(ImproperlyConfigured):
        get_settings()
    assert get_settings().guard is get_settings().guard
    assert raw_binding() is None
