"""The tenant of a request over real HTTP: agreement with the token, choosing one of several, routes that need none."""

from collections.abc import Iterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tenantguard import (
    Identity,
    Issuer,
    RevocationKind,
    Tenant,
    TenantFromHeader,
    TenantFromHost,
    TenantFromPath,
    TenantGuard,
    TenantGuardMiddleware,
    TenantStatus,
    current_identity,
)
from tenantguard.testing import DevIssuer
from tenantguard.tokens import ClaimsProfile
from tests.support.server import serve, serve_issuer

AUDIENCE = "https://api.example.com"


class Directory:
    """What the app knows of its tenants; it fails when told to."""

    failing = False
    tenants = {name: Tenant(name) for name in ("acme", "globex", "initech")} | {
        "late": Tenant("late", status=TenantStatus.SUSPENDED)
    }

    async def get(self, tenant_id: str) -> Tenant | None:
        if self.failing:
            raise ConnectionError("the address of the database")
        return self.tenants.get(tenant_id)


DIRECTORY = Directory()


async def tenant(request: Request) -> JSONResponse:
    identity: Identity = current_identity()
    return JSONResponse(identity.tenant.id if identity.tenant else None)


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience=AUDIENCE) as served:
        yield served


@pytest.fixture(scope="module")
def guard(issuer: DevIssuer) -> TenantGuard:
    several = ClaimsProfile(tenants=lambda claims: claims.get("tenants", []))
    return TenantGuard(
        issuers=[Issuer(issuer.url, audience=AUDIENCE, claims=several, allow_private_addresses=True)],
        tenantless=["/me"],
        tenant_from=[TenantFromHeader(), TenantFromHost("{tenant}.example.com"), TenantFromPath("/t/{tenant}/*")],
        directory=DIRECTORY,
    )


@pytest.fixture(scope="module")
def url(guard: TenantGuard) -> Iterator[str]:
    app = Starlette(routes=[Route(path, tenant) for path in ("/here", "/me", "/t/{tenant}/x")])
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    with serve(app) as served:
        yield served


def get(url: str, path: str, token: str, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.get(url + path, headers={"authorization": f"Bearer {token}", **named})


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/here", {"x_tenant_id": "globex"}),
        ("/here", {"host": "globex.example.com"}),
        ("/t/globex/x", {}),
        ("/t/acme/x", {"host": "globex.example.com"}),
        ("/here", {"x_tenant_id": "nobody-knows"}),
        ("/t/late/x", {}),
    ],
)
def test_another_tenant_than_the_tokens_is_refused_wherever_it_is_said(
    url: str, issuer: DevIssuer, path: str, headers: dict[str, str]
) -> None:
    refused = get(url, path, issuer.mint(tenant="acme"), **headers)
    assert (refused.status_code, refused.json()["title"]) == (403, "Tenant refused")


def test_the_tokens_tenant_may_be_repeated_everywhere(url: str, issuer: DevIssuer) -> None:
    token = issuer.mint(tenant="acme")
    assert get(url, "/t/acme/x", token, host="acme.example.com", x_tenant_id="acme").json() == "acme"
    assert get(url, "/here", token, host="www.acme.example.com").json() == "acme"


def test_a_token_of_several_tenants_needs_a_choice_among_them(url: str, issuer: DevIssuer) -> None:
    token = issuer.mint(tenant=None, claims={"tenants": ["acme", "globex", "late", "unheard-of"]})
    assert get(url, "/here", token).status_code == 403
    assert get(url, "/here", token, x_tenant_id="globex").json() == "globex"
    assert get(url, "/t/acme/x", token).json() == "acme"
    assert get(url, "/here", token, x_tenant_id="initech").json()["title"] == "Tenant refused"
    assert get(url, "/here", token, x_tenant_id="late").json()["title"] == "Suspended tenant"
    assert get(url, "/here", token, x_tenant_id="unheard-of").json()["title"] == "Unknown tenant"
    assert get(url, "/me", token).json() is None


def test_a_revoked_tenant_can_not_be_chosen(url: str, issuer: DevIssuer, guard: TenantGuard) -> None:
    token = issuer.mint(tenant=None, claims={"tenants": ["acme", "initech"]})
    assert get(url, "/here", token, x_tenant_id="initech").json() == "initech"
    guard.revocations.revoke(RevocationKind.TENANT, "initech", issuer=issuer.url)
    assert get(url, "/here", token, x_tenant_id="initech").status_code == 401
    assert get(url, "/here", token, x_tenant_id="acme").json() == "acme"


def test_a_token_without_tenant_is_refused_except_where_the_app_said_so(url: str, issuer: DevIssuer) -> None:
    token = issuer.mint(tenant=None)
    refused = get(url, "/here", token)
    assert refused.status_code == 403
    assert refused.json()["detail"] == "The token names no tenant."
    assert get(url, "/me", token).json() is None
    assert get(url, "/me", issuer.mint(tenant="acme")).json() == "acme"
    for spelling in ("/me/", "//me", "/x/%2e%2e/me", "/ME"):
        assert get(url, spelling, token).status_code in (403, 404)


def test_suspended_and_unknown_tenants_are_refused_in_their_own_way(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/here", issuer.mint(tenant="late")).json()["title"] == "Suspended tenant"
    assert get(url, "/here", issuer.mint(tenant="unheard-of")).json()["title"] == "Unknown tenant"


def test_a_directory_that_fails_lets_nobody_in(url: str, issuer: DevIssuer) -> None:
    DIRECTORY.failing = True
    try:
        refused = get(url, "/here", issuer.mint(tenant="acme"))
    finally:
        DIRECTORY.failing = False
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert "address" not in refused.text
