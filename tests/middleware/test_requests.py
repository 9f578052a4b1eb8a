"""The door over real HTTP: who is let in, who is refused and how, and what is left bound afterwards."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tenantguard import (
    Issuer,
    StaticTenants,
    Tenant,
    TenantGuard,
    TenantGuardMiddleware,
    TenantStatus,
    current_identity,
    current_tenant,
    requires,
)
from tenantguard.errors import NotBound, StatementRefused
from tenantguard.testing import DevIssuer
from tests.support.server import serve, serve_issuer

AUDIENCE = "https://api.example.com"


async def whoami(request: Request) -> JSONResponse:
    identity = current_identity()
    return JSONResponse(
        {
            "tenant": current_tenant().id,
            "actor": identity.actor.id,
            "type": identity.actor.type,
            "chain": [party.id for party in identity.chain],
            "forged": request.headers.get("x-forwarded-user"),
        }
    )


@requires("notes:read")
def sync_note(request: Request) -> JSONResponse:
    return JSONResponse(current_tenant().id)


class Notes(HTTPEndpoint):
    @requires("notes:write")
    async def post(self, request: Request) -> JSONResponse:
        return JSONResponse(current_tenant().id)


async def health(request: Request) -> JSONResponse:
    try:
        return JSONResponse(current_tenant().id)
    except NotBound:
        return JSONResponse("nobody")


async def stream(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for _ in range(3):
            yield current_tenant().id + "\n"

    return StreamingResponse(parts())


async def broken(request: Request) -> JSONResponse:
    raise StatementRefused("a detail that callers must not see", mend="mend")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_tenant().id)
    await websocket.close()


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience=AUDIENCE) as served:
        yield served


@pytest.fixture(scope="module")
def url(issuer: DevIssuer) -> Iterator[str]:
    guard = TenantGuard(
        issuers=[Issuer(issuer.url, audience=AUDIENCE, allow_private_addresses=True)],
        public=["/health"],
        directory=StaticTenants([Tenant("acme"), Tenant("globex"), Tenant("late", status=TenantStatus.SUSPENDED)]),
    )
    app = Starlette(
        routes=[
            Route("/whoami", whoami),
            Route("/note", sync_note),
            Route("/notes", Notes),
            Route("/health", health),
            Route("/stream", stream),
            Route("/broken", broken),
            WebSocketRoute("/socket", socket),
        ]
    )
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    with serve(app) as served:
        yield served


def get(url: str, path: str, token: str | None = None, **headers: str) -> httpx2.Response:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    return httpx2.get(url + path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_person_is_let_in_and_bound(url: str, issuer: DevIssuer) -> None:
    answer = get(url, "/whoami", issuer.mint("alice")).json()
    assert answer == {"tenant": "acme", "actor": "alice", "type": "human", "chain": ["alice"], "forged": None}


def test_an_agent_for_a_person_is_told_apart_with_its_chain(url: str, issuer: DevIssuer) -> None:
    act = {"sub": "copilot", "actor_type": "agent", "act": {"sub": "gateway", "actor_type": "service"}}
    answer = get(url, "/whoami", issuer.mint("alice", act=act)).json()
    assert (answer["actor"], answer["type"]) == ("copilot", "agent")
    assert answer["chain"] == ["copilot", "gateway", "alice"]


def test_a_service_is_told_apart(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/whoami", issuer.mint("sync", actor_type="service")).json()["type"] == "service"


def test_without_a_token_the_challenge_has_no_error_code(url: str) -> None:
    refused = get(url, "/whoami")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert "error=" not in refused.headers["www-authenticate"]
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_token_for_another_audience_is_refused(url: str, issuer: DevIssuer) -> None:
    refused = get(url, "/whoami", issuer.mint("alice", audience="https://other.example"))
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def test_expired_forged_and_foreign_tokens_are_refused(url: str, issuer: DevIssuer) -> None:
    stranger = DevIssuer("http://127.0.0.1:1", audience=AUDIENCE)
    forger = DevIssuer(issuer.url, audience=AUDIENCE)
    for token in (issuer.mint(expires_in=-60), stranger.mint(), forger.mint(), issuer.mint()[:-3], "x", "a.b.c"):
        refused = get(url, "/whoami", token)
        assert refused.status_code == 401
        assert token not in refused.text + str(refused.headers)


def test_scopes_decide_for_functions_and_classes(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/note", issuer.mint(scopes="notes:read")).json() == "acme"
    refused = get(url, "/note", issuer.mint(scopes="other"))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert 'scope="notes:read"' in refused.headers["www-authenticate"]
    headers = {"authorization": f"Bearer {issuer.mint(scopes='notes:read')}"}
    assert httpx2.post(f"{url}/notes", headers=headers).status_code == 403


def test_a_tenant_header_can_only_agree(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/whoami", issuer.mint(), x_tenant_id="acme").status_code == 200
    assert get(url, "/whoami", issuer.mint(), x_tenant_id="globex").status_code == 403


def test_suspended_and_unknown_tenants_are_refused(url: str, issuer: DevIssuer) -> None:
    for tenant in ("late", "nobody-knows"):
        assert get(url, "/whoami", issuer.mint(tenant=tenant)).status_code == 403


def test_forged_identity_headers_do_not_reach_the_app(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/whoami", issuer.mint(), x_forwarded_user="root").json()["forged"] is None


def test_public_paths_are_open_and_their_neighbours_are_not(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/health").json() == "nobody"
    for path in ("/health/", "//health", "/health/../whoami", "/Health", "/health%2f", "/healthx"):
        assert get(url, path).status_code in (401, 404), path
        assert "tenant" not in get(url, path).text or get(url, path).status_code == 401


def test_nothing_stays_bound_after_a_request(url: str, issuer: DevIssuer) -> None:
    with httpx2.Client(base_url=url) as http:
        for tenant in ("acme", "globex", "acme"):
            headers = {"authorization": f"Bearer {issuer.mint(tenant=tenant)}"}
            assert http.get("/whoami", headers=headers).json()["tenant"] == tenant
            assert http.get("/health").json() == "nobody"


def test_streams_run_as_their_caller(url: str, issuer: DevIssuer) -> None:
    assert get(url, "/stream", issuer.mint(tenant="globex")).text.split() == ["globex"] * 3


def test_errors_of_the_app_say_nothing_to_the_caller(url: str, issuer: DevIssuer) -> None:
    failed = get(url, "/broken", issuer.mint())
    assert failed.status_code == 500
    assert "detail that callers" not in failed.text


@pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "Basic eDp5", "Bearer a,b"])
def test_malformed_authorization_is_refused_and_never_an_error(url: str, value: str) -> None:
    assert httpx2.get(f"{url}/whoami", headers={"authorization": value}).status_code in (400, 401)


def test_several_authorization_headers_are_refused(url: str, issuer: DevIssuer) -> None:
    good = f"Bearer {issuer.mint()}"
    refused = httpx2.get(f"{url}/whoami", headers=[("authorization", good), ("authorization", good)])
    assert refused.status_code == 400


def test_websockets_are_bound_or_refused_before_they_open(url: str, issuer: DevIssuer) -> None:
    address = url.replace("http", "ws") + "/socket"
    with connect(address, additional_headers={"authorization": f"Bearer {issuer.mint()}"}) as opened:
        assert opened.recv() == "acme"
    with pytest.raises(InvalidStatus) as refused, connect(address):
        pass
    assert refused.value.response.status_code in (401, 403)
