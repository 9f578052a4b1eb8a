"""What needs more than a look at remembered tokens: keys from an issuer, directories, proofs; from threads and tasks."""

import asyncio
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx2
import pytest
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.test import override_settings
from tenantguard_django import bridge

from tenantguard import (
    DPoP,
    Issuer,
    ProtectedResource,
    Tenant,
    TenantFromHost,
    TenantFromPath,
    TenantGuard,
    TenantGuardMiddleware,
    TenantStatus,
)
from tenantguard.testing import DevIssuer
from tenantguard.tokens import DPoPNonces
from tests.django.login import AUDIENCE, bearer, make_guard, settings_with
from tests.django.web.servers import serve_asgi, serve_wsgi
from tests.support.holder import Holder
from tests.support.server import serve_issuer
from tests.support.waiting import Clock

SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


class Directory:
    failing = False

    async def get(self, tenant_id: str) -> Tenant | None:
        await asyncio.sleep(0)
        if self.failing:
            raise ConnectionError("the address of the database")
        known = {"acme": Tenant("acme", name="Acme"), "late": Tenant("late", status=TenantStatus.SUSPENDED)}
        return known.get(tenant_id)


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience=AUDIENCE) as served:
        yield served


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Any:
    return SERVERS[request.param]


def of(issuer: DevIssuer, **options: Any) -> dict[str, Any]:
    trusted = Issuer(issuer.url, audience=AUDIENCE, allow_private_addresses=True)
    return settings_with(GUARD=TenantGuard(issuers=[trusted], **options))


def test_keys_are_fetched_from_the_issuer_once_for_many_threads_at_once(issuer: DevIssuer, server: Any) -> None:
    token = issuer.mint("alice")
    answers = []
    with override_settings(TENANTGUARD=of(issuer)), server() as url:

        def ask() -> None:
            answers.append(httpx2.get(f"{url}/whoami", headers={"authorization": f"Bearer {token}"}, timeout=30))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        rotated = issuer.rotate(retire=True)
        assert rotated
        fresh = httpx2.get(f"{url}/whoami", headers={"authorization": f"Bearer {issuer.mint()}"}, timeout=30)
    assert [answer.status_code for answer in answers] == [200] * 12
    assert fresh.status_code == 200


def test_an_issuer_that_does_not_answer_is_a_503(server: Any) -> None:
    down = DevIssuer("http://127.0.0.1:9", audience=AUDIENCE)
    with override_settings(TENANTGUARD=of(down)), server() as url:
        refused = httpx2.get(f"{url}/whoami", headers={"authorization": f"Bearer {down.mint()}"}, timeout=30)
    assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    assert refused.headers["retry-after"]


def test_a_directory_is_asked_each_time(server: Any) -> None:
    directory = Directory()
    with override_settings(TENANTGUARD=settings_with(GUARD=make_guard(directory=directory))), server() as url:
        headers = bearer()
        for _ in range(2):
            assert httpx2.get(f"{url}/whoami", headers=headers).json()["tenant"] == "acme"
        for tenant, title in (("late", "Suspended tenant"), ("unheard-of", "Unknown tenant")):
            refused = httpx2.get(f"{url}/whoami", headers=bearer(tenant=tenant))
            assert (refused.status_code, refused.json()["title"]) == (403, title)
        directory.failing = True
        failed = httpx2.get(f"{url}/whoami", headers=headers)
        assert failed.status_code == 503
        assert "address" not in failed.text


def test_the_tenant_of_host_and_path_can_only_agree(server: Any) -> None:
    said = [TenantFromHost("{tenant}.example.com"), TenantFromPath("/t/{tenant}/*")]
    with override_settings(TENANTGUARD=settings_with(GUARD=make_guard(tenant_from=said))), server() as url:
        headers = bearer()
        assert httpx2.get(f"{url}/whoami", headers=headers | {"host": "acme.example.com"}).status_code == 200
        assert httpx2.get(f"{url}/whoami", headers=headers | {"host": "globex.example.com"}).status_code == 403
        assert httpx2.get(f"{url}/t/globex/x", headers=headers).status_code == 403
        assert httpx2.get(f"{url}/t/acme/x", headers=headers).status_code == 404


def test_a_proof_of_possession_is_checked_and_good_once(server: Any) -> None:
    holder = Holder()
    nonces = DPoPNonces(b"k" * 32, lifetime=60)
    with (
        override_settings(TENANTGUARD=settings_with(GUARD=make_guard(dpop=DPoP(nonces=nonces)))),
        server() as url,
    ):
        token = bearer(claims={"cnf": {"jkt": holder.jkt}})["authorization"].removeprefix("Bearer ")
        here = f"{url}/whoami"
        asked = httpx2.get(here, headers=holder.headers("GET", here, token))
        assert (asked.status_code, asked.json()["error"]) == (401, "use_dpop_nonce")
        proof = holder.headers("GET", here, token, nonce=asked.headers["dpop-nonce"])
        assert httpx2.get(here, headers=proof).json()["actor"] == "alice"
        assert httpx2.get(here, headers=proof).status_code == 401
        assert httpx2.get(here, headers={"authorization": f"Bearer {token}"}).status_code == 401
        # The refusal of a view is worded in the scheme that the caller used.
        there = f"{url}/note"
        refused = httpx2.get(there, headers=holder.headers("GET", there, token, nonce=asked.headers["dpop-nonce"]))
        assert refused.status_code == 403
        assert 'DPoP error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_a_client_gets_the_next_nonce_with_its_answer(server: Any) -> None:
    holder = Holder()
    clock = Clock()
    nonces = DPoPNonces(b"k" * 32, lifetime=60, clock=clock)
    with (
        override_settings(TENANTGUARD=settings_with(GUARD=make_guard(dpop=DPoP(nonces=nonces)))),
        server() as url,
    ):
        token = bearer(claims={"cnf": {"jkt": holder.jkt}})["authorization"].removeprefix("Bearer ")
        here = f"{url}/whoami"
        nonce = httpx2.get(here, headers=holder.headers("GET", here, token)).headers["dpop-nonce"]
        clock.now += 31
        renewed = httpx2.get(here, headers=holder.headers("GET", here, token, nonce=nonce))
        assert renewed.status_code == 200
        assert renewed.headers["dpop-nonce"] != nonce


def test_the_apps_description_is_served_and_named_in_challenges(server: Any) -> None:
    resource = ProtectedResource("https://api.example.com", scopes=["documents:read"])
    with override_settings(TENANTGUARD=settings_with(GUARD=make_guard(resource=resource))), server() as url:
        described = httpx2.get(f"{url}/.well-known/oauth-protected-resource").json()
        assert described["resource"] == "https://api.example.com"
        assert "resource_metadata=" in httpx2.get(f"{url}/whoami").headers["www-authenticate"]
        assert "resource_metadata=" in httpx2.get(f"{url}/note", headers=bearer()).headers["www-authenticate"]


def test_a_remembered_token_waits_for_nothing_and_no_thread_under_asgi() -> None:
    with override_settings(
        TENANTGUARD=settings_with(), MIDDLEWARE=["tenantguard_django.middleware.TenantGuardMiddleware"]
    ):
        handler = ASGIHandler()

    def request() -> ASGIRequest:
        headers = [(b"authorization", authorization), (b"host", b"testserver")]
        scope = {"type": "http", "method": "GET", "path": "/anote", "headers": headers, "query_string": b""}
        return ASGIRequest(scope, BytesIO())

    authorization = bearer(scopes="notes:read")["authorization"].encode()

    async def main() -> None:
        assert (await handler.get_response_async(request())).status_code == 200
        threads = threading.active_count()
        coroutine = handler.get_response_async(request())
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        assert done.value.value.content == b'"acme"'
        assert threading.active_count() == threads

    asyncio.run(main())


def test_a_remembered_token_needs_no_event_loop_under_wsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(TENANTGUARD=settings_with()), serve_wsgi() as url:
        headers = bearer()
        assert httpx2.get(f"{url}/whoami", headers=headers).status_code == 200

        def never() -> Any:
            raise AssertionError("a loop was asked for")

        monkeypatch.setattr(bridge, "_loop", never)
        assert httpx2.get(f"{url}/whoami", headers=headers).status_code == 200
        assert httpx2.get(f"{url}/health").status_code == 200
        assert httpx2.get(f"{url}/whoami").status_code == 401


@pytest.mark.parametrize("prefix", ["/app", "/app/deeper"])
def test_under_a_prefix_the_path_that_counts_is_the_routers(prefix: str) -> None:
    from django.core.handlers.wsgi import WSGIHandler

    with override_settings(TENANTGUARD=settings_with()):
        asgi, wsgi = ASGIHandler(), WSGIHandler()

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await asgi({**scope, "root_path": prefix}, receive, send)

    def mounted_wsgi(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"].removeprefix(prefix)
        return wsgi({**environ, "SCRIPT_NAME": prefix, "PATH_INFO": path}, start_response)

    with serve_asgi(mounted) as first, serve_wsgi(mounted_wsgi) as second:
        for url in (first, second):
            assert httpx2.get(f"{url}{prefix}/health").status_code == 200
            assert httpx2.get(f"{url}{prefix}/whoami").status_code == 401
            assert httpx2.get(f"{url}{prefix}/whoami", headers=bearer()).json()["tenant"] == "acme"
            assert httpx2.get(f"{url}{prefix}/x/health").status_code == 401


def test_a_project_inside_the_cores_middleware_takes_over_what_it_bound() -> None:
    guard = make_guard()
    with override_settings(TENANTGUARD=settings_with(GUARD=guard)):
        app = TenantGuardMiddleware(ASGIHandler(), guard)
        with serve_asgi(app) as url:
            assert httpx2.get(f"{url}/whoami", headers=bearer(tenant="globex")).json()["tenant"] == "globex"
            assert httpx2.get(f"{url}/health", headers=bearer()).json()["bound"] == "nobody"
            assert httpx2.get(f"{url}/whoami").status_code == 401


def test_a_text_in_the_place_of_an_identity_is_worth_nothing() -> None:
    """What the test client uses can't come over a network, and not even text under its name would count."""
    from django.core.handlers.wsgi import WSGIHandler

    with override_settings(TENANTGUARD=settings_with()):
        wsgi = WSGIHandler()

    def forged(environ: Any, start_response: Any) -> Any:
        return wsgi({**environ, "tenantguard.identity": "alice", "tenantguard": "alice"}, start_response)

    with serve_wsgi(forged) as url:
        headers = {"tenantguard.identity": "alice", "tenantguard-identity": "alice"}
        assert httpx2.get(f"{url}/whoami", headers=headers).status_code == 401


@pytest.mark.parametrize("kind", SERVERS)
def test_atomic_requests_begin_inside_of_the_identity(kind: str, django_tables: None) -> None:
    from django.db import connections

    with override_settings(TENANTGUARD=settings_with()):
        for connection in connections.all():
            if connection.alias == "default":
                connection.settings_dict["ATOMIC_REQUESTS"] = True
        connections.settings["default"]["ATOMIC_REQUESTS"] = True
        try:
            with SERVERS[kind]() as url:
                answer = httpx2.get(f"{url}/atomic", headers=bearer(tenant="globex")).json()
                assert answer == {"tenant": "globex", "atomic": True}
        finally:
            connections.settings["default"]["ATOMIC_REQUESTS"] = False
            for connection in connections.all():
                connection.settings_dict["ATOMIC_REQUESTS"] = False
