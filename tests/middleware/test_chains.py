"""A call that goes on from service to service, over real sockets: who is seen at the end, and which chains are refused."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tenantguard import (
    Destination,
    Issuer,
    RevocationKind,
    StaticTenants,
    Tenant,
    TenantGuard,
    TenantGuardMiddleware,
    TenantStatus,
    TokenExchange,
    TokenVerifier,
    current_identity,
    requires,
    transaction_issuer,
)
from tenantguard.errors import ConfigurationError
from tenantguard.testing import DevClient, DevIssuer
from tests.support.server import loopback_socket, serve, serve_issuer

TRUST_DOMAIN = "trust.example"
SECRET = "s3cret"


@pytest.fixture(scope="module")
def issuer() -> Any:
    names = ("documents", "billing", "ledger", "search")
    clients = [
        DevClient(
            name,
            SECRET,
            accepts=f"{name} {TRUST_DOMAIN}",
            audiences=[*(other for other in names if other != name), TRUST_DOMAIN],
            scopes="read write",
        )
        for name in names
    ]
    with serve_issuer(clients=clients, audience="documents", trust_domain=TRUST_DOMAIN) as served:
        yield served


async def whoami(request: Request) -> JSONResponse:
    identity = current_identity()
    transaction = identity.transaction
    return JSONResponse(
        {
            "tenant": identity.tenant.id if identity.tenant else None,
            "subject": identity.subject.id,
            "actor": identity.actor.id,
            "chain": [f"{party.id}:{party.type}" for party in identity.chain],
            "transaction": transaction and transaction.id,
            "context": transaction and transaction.context,
            "headers": sorted(name for name in request.headers if name.startswith(("x-", "x_", "txn"))),
        }
    )


async def call_on(request: Request) -> JSONResponse:
    response = await request.app.state.client.get(request.query_params.get("path", "/whoami"))
    return JSONResponse(response.json(), response.status_code)


@requires("write")
async def write(request: Request) -> JSONResponse:
    return JSONResponse("written")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    identity = current_identity()
    await websocket.send_json([identity.subject.id, identity.actor.id])
    await websocket.receive()


def service(
    issuer: DevIssuer, name: str, *, calls: Destination | None = None, transactions: bool = True, **options: Any
) -> Starlette:
    exchange = TokenExchange(issuer.token_endpoint, client_id=name, client_secret=SECRET)
    if transactions:
        options["transaction_issuers"] = [
            transaction_issuer(issuer.url, trust_domain=TRUST_DOMAIN, allow_private_addresses=True)
        ]
    guard = TenantGuard(
        issuers=[Issuer(issuer.url, audience=name, allow_private_addresses=True)], exchange=exchange, **options
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with guard, guard.http_client(calls or Destination(issuer.url, mode="none")) as app.state.client:
            yield

    app = Starlette(
        routes=[
            Route("/whoami", whoami),
            Route("/on", call_on),
            Route("/write", write),
            WebSocketRoute("/talk", talk),
        ],
        lifespan=lifespan,
    )
    app.state.guard = guard
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    return app


def get(url: str, token: str | None = None, path: str = "/whoami", **headers: str) -> httpx2.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    return httpx2.get(f"{url}{path}", headers=sent)


def txn(issuer: DevIssuer, **changes: Any) -> str:
    claims = {
        "aud": TRUST_DOMAIN,
        "txn": "txn-1",
        "req_wl": "documents",
        "tctx": {"tenant_id": "acme"},
        "rctx": {},
        "tenant_id": ...,
        "client_id": ...,
        "actor_type": ...,
    } | changes
    return issuer.mint("alice", scopes="read", claims=claims, headers={"typ": "txntoken+jwt"})


# --- chains of three services -------------------------------------------------------------------------------


def test_three_services_pass_the_caller_on_and_the_last_sees_the_whole_chain(issuer: DevIssuer) -> None:
    agent = {"sub": "copilot", "actor_type": "agent", "model": "m1"}
    with serve(service(issuer, "ledger")) as ledger:
        second = service(issuer, "billing", calls=Destination(ledger, audience="ledger", scopes="read"))
        with serve(second) as billing:
            first = service(issuer, "documents", calls=Destination(billing, audience="billing", scopes="read write"))
            with serve(first) as documents:
                token = issuer.mint("alice", tenant="acme", scopes="read write", act=agent)
                seen = get(documents, token, "/on?path=/on").json()
                refused = get(documents, token, "/on?path=/on%3Fpath%3D/write")
    assert (seen["tenant"], seen["subject"], seen["actor"]) == ("acme", "alice", "billing")
    assert seen["chain"] == ["billing:service", "documents:service", "copilot:agent", "alice:human"]
    assert refused.status_code == 403, "the last call was narrowed to read"


@pytest.mark.parametrize("narrow", [False, True])
def test_three_services_pass_one_transaction_on(issuer: DevIssuer, narrow: bool) -> None:
    def inside(url: str, scopes: str) -> Destination:
        return Destination(url, audience=TRUST_DOMAIN, scopes=scopes, mode="transaction")

    with serve(service(issuer, "ledger")) as ledger:
        second = service(issuer, "billing", calls=inside(ledger, "read" if narrow else "read write"))
        with serve(second) as billing, serve(service(issuer, "documents", calls=inside(billing, "read write"))) as url:
            token = issuer.mint("alice", tenant="acme", scopes="read write")
            seen, before = get(url, token, "/on?path=/on").json(), get(url, token, "/on").json()
    assert (seen["tenant"], seen["subject"]) == ("acme", "alice")
    assert seen["context"] == {"tenant_id": "acme"}
    assert seen["transaction"]
    assert before["transaction"] != seen["transaction"], "each request is a transaction of its own"
    # A token that is handed on as it came names who asked for it, not who handed it on.
    asked = ["billing:service", "documents:service"] if narrow else ["documents:service"]
    assert seen["chain"] == [*asked, "alice:human"]


# --- what is refused ----------------------------------------------------------------------------------------


def chain(length: int, **innermost: Any) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "service-0", **innermost}
    for number in range(1, length):
        act = {"sub": f"service-{number}", "act": act}
    return act


@pytest.mark.parametrize(
    ("most", "length", "status"), [(None, 5, 200), (None, 6, 401), (2, 2, 200), (2, 3, 401), (8, 8, 200), (8, 9, 401)]
)
def test_a_chain_that_is_too_long_is_refused_each_time(issuer: DevIssuer, most: Any, length: int, status: int) -> None:
    with serve(service(issuer, "ledger", max_actors=most)) as url:
        token = issuer.mint(audience="ledger", act=chain(length))
        assert [get(url, token).status_code for _ in range(3)] == [status] * 3


@pytest.mark.parametrize(
    "act",
    [
        {"sub": "a", "act": {"sub": "b", "act": {"sub": "a"}}},
        {"sub": "a", "act": {"sub": "a"}},
        {"sub": "a", "act": {"sub": "alice"}},
    ],
)
def test_a_loop_is_refused(issuer: DevIssuer, act: dict[str, Any]) -> None:
    with serve(service(issuer, "ledger")) as url:
        assert get(url, issuer.mint(audience="ledger", act=act)).status_code == 401


def test_two_services_that_call_each_other_in_a_circle_are_stopped(issuer: DevIssuer) -> None:
    one, two = loopback_socket(), loopback_socket()
    urls = [f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in (one, two)]
    documents = service(issuer, "documents", calls=Destination(urls[1], audience="billing", scopes="read"))
    billing = service(issuer, "billing", calls=Destination(urls[0], audience="documents", scopes="read"))
    path = "/on"
    for _ in range(3):
        path = f"/on?path={quote(path, safe='/')}"
    with serve(documents, sock=one), serve(billing, sock=two):
        response = get(urls[0], issuer.mint(scopes="read"), path)
    assert response.status_code == 401
    assert "twice" in response.json()["detail"]


@pytest.mark.parametrize(
    "act", [chain(1, tenant_id="globex"), chain(3, tenant_id="globex"), chain(1, tenant_id=["acme"])]
)
def test_a_tenant_that_changed_on_the_way_is_refused(issuer: DevIssuer, act: dict[str, Any]) -> None:
    with serve(service(issuer, "ledger")) as url:
        assert get(url, issuer.mint(audience="ledger", act=act)).status_code == 401
        assert get(url, issuer.mint(audience="ledger", act=chain(3, tenant_id="acme"))).status_code == 200
        assert get(url, issuer.mint(audience="ledger"), x_tenant_id="globex").status_code == 403


def test_only_trusted_services_may_act_where_the_app_names_them(issuer: DevIssuer) -> None:
    with serve(service(issuer, "ledger", trusted_actors=["documents", "billing"])) as url:
        good = {"sub": "billing", "act": {"sub": "documents"}}
        assert get(url, issuer.mint(audience="ledger", act=good)).status_code == 200
        assert (
            get(url, issuer.mint(audience="ledger", act={"sub": "evil", "act": {"sub": "documents"}})).status_code
            == 401
        )
        assert (
            get(url, issuer.mint(audience="ledger", act={"sub": "billing", "act": {"sub": "evil"}})).status_code == 401
        )
        assert get(url, issuer.mint(audience="ledger")).status_code == 200, "who acts for itself needs no trust"
        assert get(url, txn_token=txn(issuer)).status_code == 200
        assert get(url, txn_token=txn(issuer, req_wl="documents,evil")).status_code == 401


def test_headers_that_claim_identity_are_taken_away_from_every_request(issuer: DevIssuer) -> None:
    forged = {"x_user_id": "root", "x_forwarded_user": "root", "x_roles": "admin", "x_own": "stays"}
    with serve(service(issuer, "ledger")) as url:
        for response in (
            get(url, issuer.mint(audience="ledger"), **forged),
            get(url, txn_token=txn(issuer), **forged),
        ):
            assert [name for name in response.json()["headers"] if name != "txn-token"] == ["x-own"]
    with serve(service(issuer, "ledger", transactions=False)) as url:
        response = get(url, issuer.mint(audience="ledger"), txn_token=txn(issuer), **forged)
        assert response.json()["headers"] == ["x-own"], "also a transaction token, where none is accepted"
        assert (response.json()["subject"], response.json()["transaction"]) == ("alice", None)
        assert get(url, txn_token=txn(issuer)).status_code == 401


# --- transaction tokens -------------------------------------------------------------------------------------


def test_a_transaction_token_says_for_whom_the_request_is_made(issuer: DevIssuer) -> None:
    with serve(service(issuer, "ledger")) as url:
        agent = {"sub": "copilot", "actor_type": "agent"}
        seen = get(url, txn_token=txn(issuer, act=agent, req_wl="documents,billing")).json()
    assert (seen["tenant"], seen["subject"], seen["transaction"]) == ("acme", "alice", "txn-1")
    assert seen["chain"] == ["billing:service", "documents:service", "copilot:agent", "alice:human"]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other.example"},
        {"exp": int(time.time()) - 60},
        {"iat": int(time.time()) - 3600, "exp": int(time.time()) + 60},
        {"txn": ...},
        {"txn": 7},
        {"scope": ...},
        {"req_wl": ...},
        {"req_wl": ["documents"]},
        {"req_wl": "documents,,billing"},
        {"req_wl": "documents, billing"},
        {"req_wl": "documents,billing,documents"},
        {"req_wl": ",".join(f"service-{number}" for number in range(6))},
        {"tctx": "text"},
        {"rctx": []},
        {"tctx": {"tenant_id": "acme"}, "tenant_id": "globex"},
        {"tctx": {"tenant_id": ["acme"]}},
        {"cnf": {"jkt": "x"}},
        {"nonce": "id-token"},
        {"iss": "https://evil.example"},
        {"sub": ...},
    ],
)
def test_a_transaction_token_that_is_not_as_it_must_be_is_refused(issuer: DevIssuer, changes: dict[str, Any]) -> None:
    with serve(service(issuer, "ledger")) as url:
        assert get(url, txn_token=txn(issuer, **changes)).status_code in (401, 403)
        assert get(url, txn_token=txn(issuer)).status_code == 200


def test_a_transaction_token_is_no_access_token_and_an_access_token_no_transaction_token(issuer: DevIssuer) -> None:
    with serve(service(issuer, "ledger")) as url:
        assert get(url, txn(issuer)).status_code == 401
        assert get(url, issuer.mint(audience=TRUST_DOMAIN)).status_code == 401
        assert get(url, txn_token=issuer.mint(audience=TRUST_DOMAIN)).status_code == 401
        two = [("txn-token", txn(issuer)), ("txn-token", txn(issuer))]
        assert httpx2.get(f"{url}/whoami", headers=two).status_code == 400
        assert get(url, txn_token="x" * 9000).status_code == 401


def test_beside_a_transaction_token_only_the_calling_service_may_show_itself(issuer: DevIssuer) -> None:
    with serve(service(issuer, "ledger", trusted_actors=["documents"])) as url:

        def with_caller(subject: str, **options: Any) -> int:
            options = {"audience": "ledger", "actor_type": "service", "tenant": None, **options}
            token = issuer.mint(subject, **options)
            return get(url, token, txn_token=txn(issuer)).status_code

        assert with_caller("documents") == 200
        assert with_caller("documents", tenant="acme") == 200
        assert with_caller("documents", tenant="globex") == 403, "the tenant may not change on the way"
        assert with_caller("unknown") == 401
        assert with_caller("alice", actor_type="human") == 400, "two people in one request"
        assert with_caller("copilot", act={"sub": "documents"}) == 400
        assert with_caller("documents", audience="billing") == 401
        assert get(url, "garbage", txn_token=txn(issuer)).status_code == 401


def test_revoking_the_subject_ends_transaction_tokens_too(issuer: DevIssuer) -> None:
    app = service(issuer, "ledger")
    with serve(app) as url:
        token = txn(issuer)
        assert get(url, txn_token=token).status_code == 200
        app.state.guard.revocations.revoke(RevocationKind.SUBJECT, "alice")
        assert get(url, txn_token=token).status_code == 401


def test_the_tenant_directory_holds_for_transactions_too(issuer: DevIssuer) -> None:
    tenants = StaticTenants([Tenant("acme", status=TenantStatus.SUSPENDED), Tenant("globex")])
    with serve(service(issuer, "ledger", directory=tenants)) as url:
        assert get(url, txn_token=txn(issuer)).status_code == 403
        assert get(url, txn_token=txn(issuer, tctx={"tenant_id": "globex"})).status_code == 200
        assert get(url, txn_token=txn(issuer, tctx={})).status_code == 403


def test_a_websocket_carries_a_transaction_and_ends_with_its_token(issuer: DevIssuer) -> None:
    with serve(service(issuer, "ledger")) as url:
        address = url.replace("http:", "ws:") + "/talk"
        with connect(address, additional_headers={"Txn-Token": txn(issuer)}) as socket:
            assert socket.recv() == '["alice","documents"]'
        with pytest.raises(InvalidStatus):
            connect(address, additional_headers={"Txn-Token": txn(issuer, aud="other.example")})


def test_a_websocket_that_carries_two_identities_is_refused(issuer: DevIssuer) -> None:
    with serve(service(issuer, "ledger", websocket_subprotocol="bearer.")) as url:
        address = url.replace("http:", "ws:") + "/talk"
        token = issuer.mint("bob", audience="ledger")
        for headers, protocols in (
            ({"Txn-Token": txn(issuer)}, [f"bearer.{token}"]),
            ({"Txn-Token": txn(issuer), "Authorization": f"Bearer {token}"}, None),
        ):
            with pytest.raises(InvalidStatus) as refused:
                connect(address, additional_headers=headers, subprotocols=protocols)
            assert refused.value.response.status_code == 400


def test_limits_of_chains_belong_to_the_verifier_that_is_given() -> None:
    issuer = Issuer("https://login.example.com", audience="ledger")
    with pytest.raises(ConfigurationError, match="limits of chains"):
        TenantGuard(verifier=TokenVerifier([issuer]), max_actors=2)
    for wrong in (0, 9, True, "3"):
        with pytest.raises(ConfigurationError, match="max_actors"):
            TenantGuard(issuers=[issuer], max_actors=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="trusted_actors"):
        TenantGuard(issuers=[issuer], trusted_actors="documents")
