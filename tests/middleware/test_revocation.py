"""What ends before its time, over real HTTP: revoked tokens, and connections that outlive theirs."""

import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Send
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tenantguard import (
    Identity,
    Issuer,
    RevocationKind,
    Revocations,
    Tenant,
    TenantGuard,
    TenantGuardMiddleware,
    TenantStatus,
    current_identity,
    service_identity,
)
from tenantguard.errors import InvalidToken
from tenantguard.lifetimes import RECHECK_SECONDS
from tenantguard.testing import DevIssuer
from tests.support.server import serve, serve_issuer, serve_on_trio
from tests.support.waiting import PATIENCE, wait_until

AUDIENCE = "https://api.example.com"
PUSHED = RECHECK_SECONDS / 3
"""Within so many seconds a connection was told of its end; by itself it would have looked later."""
ENDED: list[str] = []
"""What the app's own code saw at the end of a connection."""


async def whoami(request: Request) -> JSONResponse:
    return JSONResponse(current_identity().subject.id)


class Events(StreamingResponse):
    """Closes its generator wherever it is stopped: trio warns of one that is left to the garbage collector."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            await self.body_iterator.aclose()
            ENDED.append("events")


async def events(request: Request) -> StreamingResponse:
    every = float(request.query_params.get("every", "0.02"))

    async def parts() -> AsyncIterator[str]:
        yield "data: begin\n\n"
        while True:
            await anyio.sleep(every)
            yield f"data: {current_identity().subject.id}\n\n"

    return Events(parts(), media_type="text/event-stream")


async def download(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(20):
            await anyio.sleep(0.1)
            yield b"x" * 10

    return StreamingResponse(parts(), media_type="application/octet-stream")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        async for text in websocket.iter_text():
            await websocket.send_text(text)
    finally:
        ENDED.append("talk")


async def push(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text("tick")
        await anyio.sleep(0.02)


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience=AUDIENCE) as served:
        yield served


@pytest.fixture(scope="module")
def revocations() -> Revocations:
    return Revocations()


@pytest.fixture(scope="module", params=["h11", "httptools", "trio"])
def url(request: pytest.FixtureRequest, issuer: DevIssuer, revocations: Revocations) -> Iterator[str]:
    guard = TenantGuard(
        issuers=[Issuer(issuer.url, audience=AUDIENCE, allow_private_addresses=True)], revocations=revocations
    )
    routes = [Route("/whoami", whoami), Route("/events", events), Route("/download", download)]
    app = Starlette(routes=[*routes, WebSocketRoute("/talk", talk), WebSocketRoute("/push", push)])
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    if request.param == "trio":
        with serve_on_trio(app) as served:
            yield served
        return
    sockets = {"h11": "wsproto", "httptools": "websockets-sansio"}[request.param]
    with serve(app, http=request.param, ws=sockets) as served:
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


KINDS = [
    (RevocationKind.TOKEN, {"jti": "the-token"}, "the-token"),
    (RevocationKind.SESSION, {"sid": "the-session"}, "the-session"),
    (RevocationKind.GRANT, {"grant_id": "the-grant"}, "the-grant"),
    (RevocationKind.SUBJECT, {"sub": "the-subject"}, "the-subject"),
    (RevocationKind.ACTOR, {"act": {"sub": "the-actor", "actor_type": "agent"}}, "the-actor"),
    (RevocationKind.ACTOR, {"act": {"sub": "x", "act": {"sub": "a-prior-actor"}}}, "a-prior-actor"),
    (RevocationKind.TENANT, {"tenant_id": "the-tenant"}, "the-tenant"),
]


@pytest.mark.parametrize("with_issuer", [True, False])
@pytest.mark.parametrize(("kind", "claims", "name"), KINDS, ids=[f"{kind}-{name}" for kind, _, name in KINDS])
def test_a_revoked_token_is_refused_at_once_and_others_are_not(
    url: str,
    issuer: DevIssuer,
    revocations: Revocations,
    kind: RevocationKind,
    claims: dict,
    name: str,
    with_issuer: bool,
) -> None:
    unique = f"{name}-{time.time_ns()}"
    claims = json.loads(json.dumps(claims).replace(name, unique))
    token, other = issuer.mint(claims=claims), issuer.mint("bob", tenant="globex")
    assert httpx2.get(f"{url}/whoami", headers=bearer(token)).status_code == 200
    assert httpx2.get(f"{url}/whoami", headers=bearer(other)).status_code == 200
    revocations.revoke(kind, unique, issuer="https://elsewhere.example.com")
    assert httpx2.get(f"{url}/whoami", headers=bearer(token)).status_code == 200
    revocations.revoke(kind, unique, issuer=issuer.url if with_issuer else None)
    refused = httpx2.get(f"{url}/whoami", headers=bearer(token))
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert refused.json()["title"] == "Revoked token"
    assert httpx2.get(f"{url}/whoami", headers=bearer(other)).status_code == 200


def test_a_token_that_comes_first_after_its_revocation_is_refused_too(
    url: str, issuer: DevIssuer, revocations: Revocations
) -> None:
    token = issuer.mint(claims={"sid": "gone-before"})
    revocations.revoke(RevocationKind.SESSION, "gone-before", issuer=issuer.url)
    assert httpx2.get(f"{url}/whoami", headers=bearer(token)).status_code == 401


def test_who_logs_in_again_after_a_subject_was_revoked_is_let_in(
    url: str, issuer: DevIssuer, revocations: Revocations
) -> None:
    now = int(time.time())
    old = issuer.mint("carol", claims={"iat": now - 20})
    revocations.revoke(RevocationKind.SUBJECT, "carol", issuer=issuer.url, at=now - 10)
    assert httpx2.get(f"{url}/whoami", headers=bearer(old)).status_code == 401
    assert httpx2.get(f"{url}/whoami", headers=bearer(issuer.mint("carol"))).json() == "carol"


def test_a_websocket_closes_with_1008_when_its_token_expires(url: str, issuer: DevIssuer) -> None:
    token = issuer.mint(expires_in=3)
    with connect(url.replace("http", "ws") + "/talk", additional_headers=bearer(token)) as socket:
        socket.send("hello")
        assert socket.recv(timeout=PATIENCE) == "hello"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Expired token")


@pytest.mark.parametrize("path", ["/talk", "/push"])
def test_a_websocket_closes_with_1008_when_its_token_is_revoked_and_not_at_the_next_look(
    url: str, issuer: DevIssuer, revocations: Revocations, path: str
) -> None:
    session = f"ws-{time.time_ns()}"
    token = issuer.mint(claims={"sid": session})
    with connect(url.replace("http", "ws") + path, additional_headers=bearer(token)) as socket:
        socket.send("hello")
        socket.recv(timeout=PATIENCE)
        began = time.monotonic()
        revocations.revoke(RevocationKind.SESSION, session)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=PATIENCE)
        assert time.monotonic() - began < PUSHED
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Revoked token")


@pytest.mark.parametrize("every", ["0.02", "60"], ids=["busy", "idle"])
def test_an_event_stream_ends_when_its_token_is_revoked_and_not_at_the_next_look_and_a_new_one_is_refused(
    url: str, issuer: DevIssuer, revocations: Revocations, every: str
) -> None:
    session = f"sse-{time.time_ns()}"
    token = issuer.mint(claims={"sid": session})
    ENDED.clear()
    with httpx2.stream("GET", f"{url}/events", params={"every": every}, headers=bearer(token)) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: begin"
        began = time.monotonic()
        threading.Timer(0.1, revocations.revoke, (RevocationKind.SESSION, session)).start()
        for _ in lines:
            pass  # the body ends as a complete one: otherwise the client raises
        assert time.monotonic() - began < PUSHED
    # The frame of a generator whose consumer was interrupted may live until the next garbage collection.
    wait_until(lambda: gc.collect() >= 0 and "events" in ENDED)
    assert httpx2.get(f"{url}/events", headers=bearer(token)).status_code == 401


def test_an_event_stream_ends_when_its_token_expires(url: str, issuer: DevIssuer) -> None:
    with httpx2.stream("GET", f"{url}/events", headers=bearer(issuer.mint(expires_in=3))) as answer:
        began = time.monotonic()
        assert sum(1 for _ in answer.iter_lines()) > 2
        assert time.monotonic() - began < PUSHED


def test_a_download_that_began_in_time_is_not_cut(url: str, issuer: DevIssuer) -> None:
    assert len(httpx2.get(f"{url}/download", headers=bearer(issuer.mint(expires_in=1))).content) == 200


class Ticket:
    """A credential that somebody else may revoke."""

    max_age = 0.0
    good = True

    def accepts(self, token: str) -> bool:
        return token.startswith("ticket-")

    async def verify(self, token: str) -> Identity:
        if not self.good:
            raise InvalidToken("The ticket is not good.", reason="ticket")
        return service_identity("turnstile", tenant="acme")


class Tenants:
    """A directory that somebody else may change."""

    status = TenantStatus.ACTIVE

    async def get(self, tenant_id: str) -> Tenant | None:
        return Tenant(tenant_id, status=self.status)


@pytest.mark.parametrize("server", [serve, serve_on_trio])
@pytest.mark.parametrize("ends", ["the credential", "the tenant"])
def test_what_is_revoked_elsewhere_ends_open_connections_too(
    monkeypatch: pytest.MonkeyPatch, server: Any, ends: str
) -> None:
    monkeypatch.setattr("tenantguard.lifetimes.RECHECK_SECONDS", 0.2)
    ticket, tenants = Ticket(), Tenants()
    guard = TenantGuard(credentials=[ticket], directory=tenants)
    app = Starlette(routes=[WebSocketRoute("/talk", talk), Route("/events", events)])
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    headers = bearer("ticket-1")
    with server(app) as url, connect(url.replace("http", "ws") + "/talk", additional_headers=headers) as socket:
        socket.send("hello")
        assert socket.recv(timeout=PATIENCE) == "hello"
        with httpx2.stream("GET", f"{url}/events", headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            time.sleep(0.6)
            socket.send("still here")
            assert socket.recv(timeout=PATIENCE) == "still here"
            if ends == "the credential":
                ticket.good = False
            else:
                tenants.status = TenantStatus.SUSPENDED
            for _ in lines:
                pass
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_nothing_watches_a_connection_that_has_ended(url: str, issuer: DevIssuer, revocations: Revocations) -> None:
    with connect(url.replace("http", "ws") + "/talk", additional_headers=bearer(issuer.mint())) as socket:
        socket.send("hello")
        socket.recv(timeout=PATIENCE)
    with httpx2.stream("GET", f"{url}/events", headers=bearer(issuer.mint())) as answer:
        next(answer.iter_lines())
    wait_until(lambda: not revocations._watchers)
