"""API keys at the door of a real server: beside tokens of an issuer, revoked, without their store, and self-service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from sqlalchemy import create_engine
from sqlalchemy import text as sql
from sqlalchemy.pool import NullPool
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tenantguard import Issuer, Revocations, TenantGuard, TenantGuardMiddleware, current_identity, current_tenant
from tenantguard.testing import DevIssuer
from tenantguard.tokens import StaticKeys
from tenantguard.tokens.api_keys import ApiKeys, SqlApiKeyStore
from tests.support.api_keys import mint
from tests.support.server import serve

AUDIENCE = "https://api.example.com"
LOGIN = DevIssuer("http://127.0.0.1:1", audience=AUDIENCE)


async def whoami(request: Request) -> JSONResponse:
    identity = current_identity()
    return JSONResponse([identity.actor.id, identity.actor.type, current_tenant().id, sorted(identity.scopes)])


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


class Running:
    """An app that takes tokens and API keys, and lets its callers manage the keys."""

    def __init__(self, url: str, *, max_age: float) -> None:
        self.database = url
        revocations = Revocations()
        self.keys = ApiKeys(SqlApiKeyStore(url), max_age=max_age, revocations=revocations)
        self.guard = TenantGuard(
            issuers=[Issuer(LOGIN.url, audience=AUDIENCE, jwks=StaticKeys(LOGIN.jwks))],
            credentials=[self.keys],
            revocations=revocations,
        )
        routes = [
            Route("/whoami", whoami),
            WebSocketRoute("/talk", talk),
            Route("/keys", self.make, methods=["POST"]),
            Route("/keys/{id}", self.end, methods=["DELETE"]),
        ]
        self.app = Starlette(routes=routes, middleware=[Middleware(TenantGuardMiddleware, guard=self.guard)])
        self.http = httpx2.Client()

    async def make(self, request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        minted = await self.keys.mint(**body)
        return JSONResponse(minted.key, status_code=201)

    async def end(self, request: Request) -> JSONResponse:
        await self.keys.revoke(request.path_params["id"])
        return JSONResponse(None)

    def get(self, credential: str, **headers: str) -> httpx2.Response:
        return self.http.get("/whoami", headers={"authorization": f"Bearer {credential}", **headers})


@pytest.fixture(params=[0.0, 30.0], ids=["uncached", "cached"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    made = Running(f"sqlite:///{tmp_path}/keys.db", max_age=request.param)
    store: Any = made.keys.store
    anyio.run(store.create_table)
    with serve(made.app) as url, httpx2.Client(base_url=url) as made.http:
        yield made
    anyio.run(store.aclose)


def test_an_api_key_opens_the_door_beside_the_tokens_of_an_issuer(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    for _ in range(3):
        assert running.get(minted.key).json() == ["invoice-sync", "service", "acme", ["documents:read"]]
    token = LOGIN.mint("alice", tenant="globex", scopes="documents:read")
    assert running.get(token).json() == ["alice", "human", "globex", ["documents:read"]]


def test_what_is_no_key_is_refused_with_a_challenge_that_does_not_repeat_it(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    for wrong in (minted.key[:-1], minted.key.swapcase(), "tgk_x", minted.key + "A", f"{minted.key[:-1]}-"):
        answer = running.get(wrong)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert wrong not in f"{answer.headers}{answer.text}"


def test_a_key_is_for_its_tenant_alone(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    assert running.get(minted.key, **{"x-tenant-id": "acme"}).status_code == 200
    assert running.get(minted.key, **{"x-tenant-id": "globex"}).status_code == 403


def test_a_revoked_key_is_refused_at_once_though_it_was_just_seen(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    assert running.get(minted.key).status_code == 200
    anyio.run(running.keys.revoke, minted.record.id)
    answer = running.get(minted.key)
    assert answer.status_code == 401
    assert answer.json()["title"] == "Revoked token"


def test_a_connection_ends_when_its_key_is_revoked(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    url = f"{running.http.base_url}".replace("http", "ws").rstrip("/") + "/talk"
    with connect(url, additional_headers={"authorization": f"Bearer {minted.key}"}) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        anyio.run(running.keys.revoke, minted.record.id)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)


def test_a_key_may_last_longer_than_revocations_are_remembered(running: Running) -> None:
    year = anyio.run(lambda: mint(running.keys, expires_in=366 * 86400))
    assert running.get(year.key).status_code == 200


def test_without_its_store_a_key_is_answered_with_503_and_tokens_work_on(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    engine = create_engine(running.database, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(sql("DROP TABLE tenantguard_api_keys"))
    answer = running.get(minted.key)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "OperationalError" not in answer.text
    assert running.get(LOGIN.mint("alice", tenant="acme")).status_code == 200


def test_the_guard_closes_the_store_with_itself(running: Running) -> None:
    minted = anyio.run(mint, running.keys)
    anyio.run(running.guard.aclose)
    assert running.get(minted.key).status_code == 503


def test_callers_manage_the_keys_of_their_own_tenant_alone(running: Running) -> None:
    theirs = anyio.run(lambda: mint(running.keys, tenant="globex"))
    alice = {"authorization": f"Bearer {LOGIN.mint('alice', tenant='acme')}"}
    made = running.http.post("/keys", json={"service": "export", "tenant": "acme"}, headers=alice)
    assert made.status_code == 201
    assert running.get(made.json()).json() == ["export", "service", "acme", []]
    foreign = running.http.post("/keys", json={"service": "export", "tenant": "globex"}, headers=alice)
    assert foreign.status_code == 403
    assert running.http.delete(f"/keys/{theirs.record.id}", headers=alice).status_code == 404
    assert running.get(theirs.key).status_code == 200
