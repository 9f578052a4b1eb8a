"""The dependencies of tenantguard-fastapi, over real HTTP."""

from collections.abc import Iterator

import httpx2
import pytest
from fastapi import FastAPI
from tenantguard_fastapi import CurrentActor, CurrentIdentity, CurrentTenant, scopes

from tenantguard import Issuer, TenantGuard, TenantGuardMiddleware, requires
from tenantguard.testing import DevIssuer
from tests.support.server import serve, serve_issuer


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience="api") as served:
        yield served


@pytest.fixture(scope="module")
def url(issuer: DevIssuer) -> Iterator[str]:
    app = FastAPI()
    guard = TenantGuard(
        issuers=[Issuer(issuer.url, audience="api", allow_private_addresses=True)], public=["/openapi.json"]
    )
    app.add_middleware(TenantGuardMiddleware, guard=guard)

    @app.get("/who")
    async def who(identity: CurrentIdentity, tenant: CurrentTenant, actor: CurrentActor) -> list[str]:
        return [tenant.id, actor.id, identity.subject.id]

    @app.get("/sync")
    def sync(tenant: CurrentTenant) -> str:
        return tenant.id

    @app.get("/scoped", dependencies=[scopes("notes:read")])
    async def scoped() -> str:
        return "ok"

    @app.get("/decorated/{number}")
    @requires("notes:read")
    def decorated(number: int, tenant: CurrentTenant) -> str:
        return f"{tenant.id}/{number}"

    with serve(app) as served:
        yield served


def get(url: str, path: str, token: str) -> httpx2.Response:
    return httpx2.get(url + path, headers={"authorization": f"Bearer {token}"})


def test_endpoints_get_tenant_actor_and_identity(url: str, issuer: DevIssuer) -> None:
    act = {"sub": "copilot", "actor_type": "agent"}
    assert get(url, "/who", issuer.mint("alice", act=act)).json() == ["acme", "copilot", "alice"]
    assert get(url, "/sync", issuer.mint(tenant="globex")).json() == "globex"


def test_a_token_without_tenant_gets_403_where_a_tenant_is_wanted(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/sync", issuer.mint(tenant=None)).status_code == 403


def test_scopes_are_checked_and_shown_in_openapi(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/scoped", issuer.mint(scopes="notes:read")).json() == "ok"
    refused = get(url, "/scoped", issuer.mint(scopes="other"))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    document = httpx2.get(f"{url}/openapi.json").json()
    assert "notes:read" in str(document["paths"]["/scoped"]["get"]["security"])


def test_requires_keeps_the_signature_that_fastapi_reads(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/decorated/7", issuer.mint(scopes="notes:read")).json() == "acme/7"
    assert get(url, "/decorated/x", issuer.mint(scopes="notes:read")).status_code == 422
