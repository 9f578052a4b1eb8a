"""REST framework and Ninja: their own classes say who calls and what is demanded, and their schemas show it."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml
from django.test import Client, override_settings
from tenantguard_django.test import TenantClient

from tenantguard import system
from tests.django.login import TENANTGUARD, bearer
from tests.django.web.models import Document
from tests.django.web.rows import seed, wipe
from tests.django.web.servers import serve_asgi, serve_wsgi

READ, WRITE = {"scopes": "documents:read"}, {"scopes": "documents:read documents:write"}
SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture(autouse=True)
def documents(database: str) -> Iterator[dict[str, int]]:
    with override_settings(ROOT_URLCONF="tests.django.web.api", TENANTGUARD=TENANTGUARD):
        yield seed()
    wipe()


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, documents: Any) -> Iterator[str]:
    with SERVERS[request.param]() as served:
        yield served


def titles(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one if isinstance(one, str) else one["title"] for one in response.json()]


@pytest.mark.parametrize("path", ["/drf/documents/", "/ninja/documents", "/ninja/adocuments"])
def test_a_list_holds_the_callers_tenants_rows(url: str, path: str) -> None:
    for tenant in ("acme", "globex"):
        assert titles(httpx2.get(url + path, headers=bearer(tenant=tenant, **READ))) == [f"{tenant}'s"]


@pytest.mark.parametrize(
    "path", ["/drf/documents/", "/ninja/documents", "/ninja/adocuments", "/drf/whoami", "/drf/outside"]
)
def test_a_missing_scope_is_a_403_with_the_rfcs_challenge(url: str, path: str) -> None:
    refused = httpx2.get(url + path, headers=bearer(scopes="other"))
    assert refused.status_code == 403, refused.text
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert "documents:read" in challenge or "documents:admin" in challenge


def test_writing_needs_the_scope_for_it_and_stays_in_the_tenant(url: str, documents: dict[str, int]) -> None:
    assert httpx2.post(f"{url}/drf/documents/", json={"title": "x"}, headers=bearer(**READ)).status_code == 403
    made = httpx2.post(f"{url}/drf/documents/", json={"title": "Plan"}, headers=bearer(**WRITE))
    assert made.status_code == 201
    assert titles(httpx2.get(f"{url}/drf/documents/", headers=bearer(**READ))) == ["acme's", "Plan"]
    assert titles(httpx2.get(f"{url}/drf/documents/", headers=bearer(tenant="globex", **READ))) == ["globex's"]


def test_another_tenants_row_is_not_there(url: str, documents: dict[str, int]) -> None:
    foreign = f"{url}/drf/documents/{documents['globex']}/"
    assert httpx2.get(foreign, headers=bearer(**READ)).status_code == 404
    assert httpx2.delete(foreign, headers=bearer(**WRITE)).status_code == 404
    assert httpx2.patch(foreign, json={"title": "mine"}, headers=bearer(**WRITE)).status_code == 404


def test_a_link_to_another_tenants_row_is_no_choice(url: str, documents: dict[str, int]) -> None:
    foreign = {"title": "x", "folder": documents["globex-folder"]}
    refused = httpx2.post(f"{url}/drf/documents/", json=foreign, headers=bearer(**WRITE))
    assert (refused.status_code, list(refused.json())) == (400, ["folder"])
    own = {"title": "x", "folder": documents["acme-folder"]}
    assert httpx2.post(f"{url}/drf/documents/", json=own, headers=bearer(**WRITE)).status_code == 201


def test_users_of_tokens_are_authenticated_and_the_identity_is_auth(url: str) -> None:
    assert httpx2.get(f"{url}/drf/whoami", headers=bearer(**READ)).json() == {"user": "alice", "tenant": "acme"}
    assert httpx2.get(f"{url}/drf/outside", headers=bearer(**READ)).json() == {"tenant": "acme"}
    assert httpx2.get(f"{url}/drf/open", headers=bearer()).json() == {"authenticated": True}
    assert httpx2.get(f"{url}/public/open", headers=bearer()).json() == {"authenticated": False}
    assert httpx2.get(f"{url}/ninja/me", headers=bearer()).json() == {"actor": "alice"}


def test_nobody_is_a_401_everywhere(url: str) -> None:
    for path in ("/drf/documents/", "/drf/open", "/ninja/documents", "/ninja/me", "/schema", "/ninja/openapi.json"):
        refused = httpx2.get(url + path)
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")


def test_requires_works_on_ninjas_operations_below_their_decorator(url: str) -> None:
    assert httpx2.get(f"{url}/ninja/inside", headers=bearer(scopes="documents:write")).json() == "inside"
    refused = httpx2.get(f"{url}/ninja/inside", headers=bearer())
    assert (refused.status_code, refused.json()["scope"]) == (403, "documents:write")


def test_ninja_answers_refusals_also_while_debugging() -> None:
    with override_settings(DEBUG=True):
        refused = TenantClient(tenant="acme").get("/ninja/documents")
    assert (refused.status_code, refused["content-type"]) == (403, "application/problem+json")


def test_the_openapi_schemas_have_the_bearer_scheme_and_the_scopes() -> None:
    client = TenantClient(tenant="acme")
    schema = yaml.safe_load(client.get("/schema").content)
    scheme = schema["components"]["securitySchemes"]["bearerAuth"]
    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    listed, added = schema["paths"]["/drf/documents/"]["get"], schema["paths"]["/drf/documents/"]["post"]
    assert listed["security"] == [{"bearerAuth": ["documents:admin", "documents:read"]}]
    assert added["security"] == [{"bearerAuth": ["documents:write"]}]
    ninja = client.get("/ninja/openapi.json").json()
    assert ninja["components"]["securitySchemes"]["TenantGuardAuth"]["scheme"] == "bearer"
    assert ninja["paths"]["/ninja/documents"]["get"]["security"] == [{"TenantGuardAuth": []}]


def test_without_the_middleware_the_classes_let_nobody_in() -> None:
    with override_settings(MIDDLEWARE=[]):
        assert Client().get("/drf/documents/").status_code == 401
        assert Client().get("/ninja/me").status_code == 401


def test_rows_of_one_tenant_are_all_that_a_system_context_adds_up(documents: dict[str, int]) -> None:
    with system("count what the tests made"):
        assert Document.objects.count() == 2
