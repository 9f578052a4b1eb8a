"""Tokens that are bound to a key, over real HTTP: proofs, nonces, replays, and no way round them (RFC 9449)."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from tenantguard_redis import RedisReplays
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tenantguard import DPoP, Issuer, TenantGuard, TenantGuardMiddleware, current_identity, requires
from tenantguard.testing import DevIssuer
from tenantguard.tokens import DPoPNonces
from tests.support.holder import Holder
from tests.support.server import serve, serve_issuer, serve_on_trio
from tests.support.waiting import Clock

AUDIENCE = "https://api.example.com"


async def whoami(request: Request) -> JSONResponse:
    return JSONResponse(current_identity().subject.id)


@requires("documents:write")
async def write(request: Request) -> JSONResponse:
    return JSONResponse("written")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_identity().subject.id)
    await websocket.close()


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience=AUDIENCE) as served:
        yield served


@pytest.fixture(scope="module")
def holder() -> Holder:
    return Holder()


def guarded(issuer: DevIssuer, **options: Any) -> Starlette:
    guard = TenantGuard(issuers=[Issuer(issuer.url, audience=AUDIENCE, allow_private_addresses=True)], **options)
    routes = [Route("/whoami", whoami, methods=["GET", "POST"]), Route("/write", write), WebSocketRoute("/talk", talk)]
    app = Starlette(routes=[*routes, Mount("/api", routes=[Route("/whoami", whoami)])], lifespan=guard.lifespan)
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    return app


@pytest.fixture(scope="module")
def url(issuer: DevIssuer) -> Iterator[str]:
    with serve(guarded(issuer, dpop=DPoP())) as served:
        yield served


def bound(issuer: DevIssuer, holder: Holder, **claims: Any) -> str:
    return issuer.mint(claims={"cnf": {"jkt": holder.jkt}, **claims})


def test_who_proves_the_key_is_let_in_again_and_again(url: str, issuer: DevIssuer, holder: Holder) -> None:
    token = bound(issuer, holder)
    for path in ("/whoami", "/whoami?page=2", "/api/whoami"):
        here = url + path.partition("?")[0]
        assert httpx2.get(url + path, headers=holder.headers("GET", here, token)).json() == "alice"
    assert httpx2.post(f"{url}/whoami", headers=holder.headers("POST", f"{url}/whoami", token)).json() == "alice"


def test_a_stolen_token_is_worth_nothing(url: str, issuer: DevIssuer, holder: Holder) -> None:
    token, here, thief = bound(issuer, holder), f"{url}/whoami", Holder()
    assert httpx2.get(here, headers=holder.headers("GET", here, token)).status_code == 200
    proof = holder.proof("GET", here, token)
    attempts = {
        "as a bearer token": {"authorization": f"Bearer {token}"},
        "as a bearer token with a proof": {"authorization": f"Bearer {token}", "dpop": proof},
        "without a proof": {"authorization": f"DPoP {token}"},
        "with the thief's key": thief.headers("GET", here, token),
        "for another method": holder.headers("POST", here, token),
        "for another path": holder.headers("GET", f"{url}/write", token),
        "for another host": holder.headers("GET", "https://elsewhere.example.com/whoami", token),
        "for another token": holder.headers("GET", here, token, ath="x" * 43),
        "for no token": holder.headers("GET", here, token, ath=None),
        "too old": holder.headers("GET", here, token, iat=int(time.time()) - 600),
        "of the future": holder.headers("GET", here, token, iat=int(time.time()) + 600),
    }
    for name, headers in attempts.items():
        refused = httpx2.get(here, headers=headers)
        assert refused.status_code == 401, name
        assert "algs=" in refused.headers["www-authenticate"], name
        assert proof not in refused.text
        assert token not in refused.text
    several = httpx2.get(here, headers=[("authorization", f"DPoP {token}"), ("dpop", proof), ("dpop", proof)])
    assert several.status_code == 401


def test_a_proof_is_good_once(url: str, issuer: DevIssuer, holder: Holder) -> None:
    token, here = bound(issuer, holder), f"{url}/whoami"
    headers = holder.headers("GET", here, token)
    assert httpx2.get(here, headers=headers).status_code == 200
    replayed = httpx2.get(here, headers=headers)
    assert (replayed.status_code, replayed.json()["error"]) == (401, "invalid_dpop_proof")


def test_a_token_that_is_not_bound_is_no_dpop_token(url: str, issuer: DevIssuer, holder: Holder) -> None:
    token, here = issuer.mint(), f"{url}/whoami"
    assert httpx2.get(here, headers=holder.headers("GET", here, token)).status_code == 401
    assert httpx2.get(here, headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_challenges_name_both_schemes_and_errors_the_one_that_was_used(
    url: str, issuer: DevIssuer, holder: Holder
) -> None:
    nobody = httpx2.get(f"{url}/whoami").headers.get_list("www-authenticate")
    assert [challenge.partition(" ")[0] for challenge in nobody] == ["Bearer", "DPoP"]
    token, here = bound(issuer, holder), f"{url}/write"
    refused = httpx2.get(here, headers=holder.headers("GET", here, token))
    assert refused.status_code == 403
    assert refused.headers.get_list("www-authenticate")[0].startswith('DPoP error="insufficient_scope"')


def test_an_app_that_checks_no_proofs_refuses_bound_tokens(issuer: DevIssuer, holder: Holder) -> None:
    with serve(guarded(issuer)) as plain:
        token, here = bound(issuer, holder), f"{plain}/whoami"
        for headers in (holder.headers("GET", here, token), {"authorization": f"Bearer {token}"}):
            assert httpx2.get(here, headers=headers).status_code == 401


def test_an_app_may_demand_bound_tokens(issuer: DevIssuer, holder: Holder) -> None:
    with serve(guarded(issuer, dpop=DPoP(required=True))) as strict:
        here = f"{strict}/whoami"
        for _ in range(2):
            assert httpx2.get(here, headers={"authorization": f"Bearer {issuer.mint()}"}).status_code == 401
        token = bound(issuer, holder)
        assert httpx2.get(here, headers=holder.headers("GET", here, token)).status_code == 200


def test_behind_a_proxy_the_public_origin_counts(issuer: DevIssuer, holder: Holder) -> None:
    with serve(guarded(issuer, dpop=DPoP(origin="https://api.example.com"))) as inside:
        token = bound(issuer, holder)
        public = holder.headers("GET", "https://api.example.com/whoami", token)
        assert httpx2.get(f"{inside}/whoami", headers=public).status_code == 200
        forged = holder.headers("GET", "https://evil.example.com/whoami", token) | {"host": "evil.example.com"}
        assert httpx2.get(f"{inside}/whoami", headers=forged).status_code == 401


def test_a_nonce_is_asked_for_given_out_and_renewed(issuer: DevIssuer, holder: Holder) -> None:
    clock = Clock()
    nonces = DPoPNonces(b"k" * 32, lifetime=60, clock=clock)
    with serve(guarded(issuer, dpop=DPoP(nonces=nonces))) as url:
        token, here = bound(issuer, holder), f"{url}/whoami"
        asked = httpx2.get(here, headers=holder.headers("GET", here, token))
        assert (asked.status_code, asked.json()["error"]) == (401, "use_dpop_nonce")
        assert 'error="use_dpop_nonce"' in asked.headers["www-authenticate"]
        nonce = asked.headers["dpop-nonce"]
        fresh = httpx2.get(here, headers=holder.headers("GET", here, token, nonce=nonce))
        assert fresh.status_code == 200
        assert "dpop-nonce" not in fresh.headers
        clock.now += 31
        renewed = httpx2.get(here, headers=holder.headers("GET", here, token, nonce=nonce))
        assert (renewed.status_code, renewed.headers["dpop-nonce"] != nonce) == (200, True)
        clock.now += 30
        assert httpx2.get(here, headers=holder.headers("GET", here, token, nonce=nonce)).status_code == 401
        assert httpx2.get(here, headers=holder.headers("GET", here, token, nonce="x" * 40)).status_code == 401


@pytest.mark.parametrize("server", [serve, serve_on_trio])
def test_workers_that_share_redis_accept_a_proof_once(
    issuer: DevIssuer, holder: Holder, redis_url: str, server: Any
) -> None:
    origin = "https://api.example.com"
    workers = [guarded(issuer, dpop=DPoP(origin=origin, replays=RedisReplays(redis_url))) for _ in range(2)]
    token = bound(issuer, holder)
    headers = holder.headers("GET", f"{origin}/whoami", token)
    with server(workers[0]) as one, server(workers[1]) as other:
        assert httpx2.get(f"{one}/whoami", headers=headers).status_code == 200
        assert httpx2.get(f"{other}/whoami", headers=headers).status_code == 401


def test_without_its_replay_store_nobody_is_let_in(issuer: DevIssuer, holder: Holder) -> None:
    down = DPoP(replays=RedisReplays("redis://127.0.0.1:9/0", timeout=0.2))
    with serve(guarded(issuer, dpop=down)) as url:
        token, here = bound(issuer, holder), f"{url}/whoami"
        assert httpx2.get(here, headers=holder.headers("GET", here, token)).status_code == 503


def test_websockets_prove_possession_as_they_open(url: str, issuer: DevIssuer, holder: Holder) -> None:
    token, address = bound(issuer, holder), url.replace("http", "ws") + "/talk"
    with connect(address, additional_headers=holder.headers("GET", f"{url}/talk", token)) as socket:
        assert socket.recv() == "alice"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(address, additional_headers={"authorization": f"Bearer {token}"}),
    ):
        pass
    assert refused.value.response.status_code in (401, 403)
