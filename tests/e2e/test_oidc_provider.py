"""A certified provider in front of an app, on loopback: npm's oidc-provider, which knows nothing of tenantguard."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tenantguard import DPoP, Introspection, Issuer, TenantGuard, TenantGuardMiddleware, current_identity, requires
from tests.support.holder import Holder
from tests.support.oidc_idp import OidcProvider
from tests.support.server import serve
from tests.support.waiting import wait_until

AUDIENCE = "https://api.example.com"


@requires("documents:read")
async def whoami(request: Request) -> JSONResponse:
    identity = current_identity()
    assert identity.tenant is not None
    return JSONResponse([identity.tenant.id, identity.actor.id, identity.actor.type, identity.issuer])


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with OidcProvider(AUDIENCE, {"sync": "acme", "report": "globex"}) as running:
        yield running


@pytest.fixture(scope="module")
def url(provider: OidcProvider) -> Iterator[str]:
    guard = TenantGuard(
        issuers=[Issuer(provider.issuer, audience=AUDIENCE, allow_private_addresses=True)],
        credentials=[
            Introspection(
                provider.introspection_endpoint,
                issuer=provider.issuer,
                audience=AUDIENCE,
                client_id="api",
                client_secret=provider.secret,
                max_age=1,
            )
        ],
        dpop=DPoP(),
    )
    app = Starlette(routes=[Route("/whoami", whoami)], lifespan=guard.lifespan)
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    with serve(app) as served:
        yield f"{served}/whoami"


def ask(url: str, token: str, client: Any = httpx2) -> httpx2.Response:
    answer: httpx2.Response = client.get(url, headers={"authorization": f"Bearer {token}"})
    return answer


def test_client_credentials_are_a_service_of_their_tenant(url: str, provider: OidcProvider) -> None:
    assert ask(url, provider.token("sync")).json() == ["acme", "sync", "service", provider.issuer]
    assert ask(url, provider.token("report")).json() == ["globex", "report", "service", provider.issuer]
    assert ask(url, provider.token("sync", scope="documents:write")).json()["error"] == "insufficient_scope"
    other = provider.token("sync", resource="https://other.example.com")
    assert ask(url, other).status_code == 401


def test_opaque_tokens_are_the_same_service(url: str, provider: OidcProvider) -> None:
    token = provider.opaque_token("sync")
    assert ask(url, token).json() == ["acme", "sync", "service", provider.issuer]
    assert ask(url, token[:-1] + ("a" if token[-1] != "a" else "b")).status_code == 401
    provider.revoke("sync", token)
    time.sleep(1.1)
    assert ask(url, token).status_code == 401


@pytest.mark.parametrize("form", ["signed", "opaque"])
def test_bound_tokens_need_a_proof_whatever_their_form(url: str, provider: OidcProvider, form: str) -> None:
    holder, thief = Holder(), Holder()
    resource = AUDIENCE if form == "signed" else f"{AUDIENCE}/opaque"
    token = provider.bound_token("sync", holder, resource=resource)
    assert httpx2.get(url, headers=holder.headers("GET", url, token)).json()[1] == "sync-bound"
    assert httpx2.get(url, headers=thief.headers("GET", url, token)).status_code == 401
    assert ask(url, token).status_code == 401


def test_keys_rotate_under_load_without_a_failed_request(url: str, provider: OidcProvider) -> None:
    answers: Counter[int] = Counter()
    signed_by: Counter[str] = Counter()
    stop = threading.Event()
    counting = threading.Lock()

    def load() -> None:
        with httpx2.Client() as client:
            while not stop.is_set():
                token = provider.token("sync")
                status = ask(url, token, client).status_code
                with counting:
                    answers[status] += 1
                    signed_by[token.partition(".")[0]] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for keys in range(1, 4):
            wait_until(lambda keys=keys: len(signed_by) == keys and min(signed_by.values()) >= 10)
            provider.command("add-key")
        wait_until(lambda: len(signed_by) == 4 and min(signed_by.values()) >= 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert set(answers) == {200}


def test_tokens_of_a_withdrawn_key_end_with_the_next_look_at_the_keys(provider: OidcProvider) -> None:
    issuer = Issuer(provider.issuer, audience=AUDIENCE, allow_private_addresses=True, keys_fresh_for=1)
    guard = TenantGuard(issuers=[issuer])
    app = Starlette(routes=[Route("/whoami", whoami)], lifespan=guard.lifespan)
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    old = provider.token("sync")
    with serve(app) as served:
        assert ask(f"{served}/whoami", old).status_code == 200
        provider.command("add-key")
        provider.command("drop-keys")
        time.sleep(1.2)
        deadline = time.monotonic() + 30
        # The first request after the keys grew stale starts the look in the background.
        while ask(f"{served}/whoami", provider.token("report")).status_code == 200:
            if ask(f"{served}/whoami", old).status_code == 401:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(f"{served}/whoami", old).status_code == 401
        assert ask(f"{served}/whoami", provider.token("sync")).status_code == 200
