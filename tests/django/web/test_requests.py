"""The door of a Django project over real HTTP, under ASGI and under WSGI: the same answers from both."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.test import override_settings
from tenantguard_django import exchange

from tenantguard.testing import DevIssuer
from tests.django.login import AUDIENCE, LOGIN, bearer, make_guard
from tests.django.web.servers import serve_asgi, serve_wsgi

SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture(scope="module", params=SERVERS)
def url(request: pytest.FixtureRequest, django_tables: None) -> Iterator[str]:
    with override_settings(TENANTGUARD={"GUARD": make_guard()}), SERVERS[request.param]() as served:
        yield served


def get(url: str, path: str, headers: dict[str, str] | None = None, **more: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return httpx2.get(url + path, headers={**(headers or {}), **named})


def test_a_person_is_let_in_and_bound(url: str) -> None:
    for _ in range(2):  # the second time the token is remembered
        headers = bearer()
        for _ in range(2):
            assert get(url, "/whoami", headers).json() == {
                "tenant": "acme",
                "actor": "alice",
                "type": "human",
                "chain": ["alice"],
                "user": "alice",
                "authenticated": True,
                "forged": None,
                "meta": None,
                "said": None,
            }
            assert get(url, "/awhoami", headers).json() == {"tenant": "acme", "actor": "alice", "user": "alice"}


def test_an_agent_for_a_person_is_told_apart_with_its_chain(url: str) -> None:
    act = {"sub": "copilot", "actor_type": "agent", "act": {"sub": "gateway", "actor_type": "service"}}
    answer = get(url, "/whoami", bearer(act=act)).json()
    assert (answer["actor"], answer["type"], answer["user"]) == ("copilot", "agent", "alice")
    assert answer["chain"] == ["copilot", "gateway", "alice"]


def test_without_a_token_the_challenge_has_no_error_code(url: str) -> None:
    refused = get(url, "/whoami")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert "error=" not in refused.headers["www-authenticate"]
    assert refused.headers["content-type"] == "application/problem+json"


def test_expired_forged_and_foreign_tokens_are_refused(url: str) -> None:
    stranger = DevIssuer("http://127.0.0.1:1", audience=AUDIENCE)
    forger = DevIssuer(LOGIN.url, audience=AUDIENCE)
    other = LOGIN.mint(audience="https://other.example")
    for token in (
        LOGIN.mint(expires_in=-60),
        stranger.mint(),
        forger.mint(),
        LOGIN.mint()[:-3],
        other,
        "nonsense~",
        "a.b.c",
    ):
        refused = get(url, "/whoami", {"authorization": f"Bearer {token}"})
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused.headers["www-authenticate"]
        assert token not in refused.text + str(refused.headers)


@pytest.mark.parametrize("path", ["/notes", "/anotes", "/decorated", "/dispatch"])
def test_class_views_demand_scopes(url: str, path: str) -> None:
    assert get(url, path, bearer(scopes="notes:write")).json() == "acme"
    refused = get(url, path, bearer(scopes="notes:read"))
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="notes:write"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/note", "/anote"])
def test_function_views_demand_scopes(url: str, path: str) -> None:
    assert get(url, path, bearer(scopes="notes:read")).json() == "acme"
    refused = get(url, path, bearer(scopes="other"))
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_a_method_may_demand_more_than_its_class(url: str) -> None:
    assert httpx2.delete(f"{url}/notes", headers=bearer(scopes="notes:write")).status_code == 403
    assert httpx2.delete(f"{url}/notes", headers=bearer(scopes="notes:admin")).status_code == 403
    assert httpx2.delete(f"{url}/notes", headers=bearer(scopes="notes:write notes:admin")).json() == "deleted"


def test_a_tenant_header_can_only_agree(url: str) -> None:
    headers = bearer()
    assert get(url, "/whoami", headers, x_tenant_id="acme").json()["said"] == "acme"
    assert get(url, "/whoami", headers, x_tenant_id="globex").status_code == 403
    several = [*headers.items(), ("x-tenant-id", "acme"), ("x-tenant-id", "globex")]
    assert httpx2.get(f"{url}/whoami", headers=several).status_code in (400, 403)


def test_forged_identity_headers_do_not_reach_the_app(url: str) -> None:
    headers = bearer()
    for _ in range(2):
        answer = get(url, "/whoami", headers, x_forwarded_user="root").json()
        assert (answer["forged"], answer["meta"]) == (None, None)
    spelled = httpx2.get(f"{url}/whoami", headers={**headers, "X_Forwarded_User": "root"}).json()
    assert (spelled["forged"], spelled["meta"]) == (None, None)


def test_on_public_paths_nobody_is_bound_and_no_tenant_is_said(url: str) -> None:
    for headers in ({}, bearer(), {"authorization": "Bearer nonsense"}):
        answer = get(url, "/health", headers, x_tenant_id="acme").json()
        assert answer == {"bound": "nobody", "identity": None, "said": None}
    assert get(url, "/public/health").status_code == 200


def test_the_neighbours_of_public_paths_are_protected(url: str) -> None:
    for path in (
        "/health/",
        "/public//health",
        "/health/../whoami",
        "/Health",
        "/health%2f",
        "/healthx",
        "/public/%2e%2e/whoami",
    ):
        assert get(url, path).status_code == 401, path
    assert get(url, "/public/../whoami").status_code == 401


def test_nothing_stays_bound_after_a_request(url: str) -> None:
    with httpx2.Client(base_url=url) as http:
        for tenant in ("acme", "globex", "acme"):
            for path in ("/whoami", "/awhoami"):
                assert http.get(path, headers=bearer(tenant=tenant)).json()["tenant"] == tenant
                assert http.get("/health").json()["bound"] == "nobody"


@pytest.mark.parametrize("path", ["/stream", "/astream"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")  # Django's own, of the mixed pairs
def test_streams_run_as_their_caller(url: str, path: str) -> None:
    assert get(url, path, bearer(tenant="globex")).text.split() == ["globex"] * 3


def test_templates_are_rendered_as_their_caller(url: str) -> None:
    assert get(url, "/template", bearer(tenant="globex")).text == "globex"


def test_errors_of_the_app_say_nothing_to_the_caller(url: str) -> None:
    failed = get(url, "/broken", bearer())
    assert failed.status_code == 500
    assert "detail that callers" not in failed.text
    bad_gateway = get(url, "/upstream", bearer())
    assert (bad_gateway.status_code, bad_gateway.json()["title"]) == (502, "Upstream call failed")
    assert "detail of" not in bad_gateway.text


@pytest.mark.parametrize("value", ["Bearer", "Bearer a b", "Basic eDp5", "Bearer a,b"])
def test_malformed_authorization_is_refused_and_never_an_error(url: str, value: str) -> None:
    assert get(url, "/whoami", {"authorization": value}).status_code in (400, 401)


def test_several_authorization_headers_are_refused(url: str) -> None:
    good = bearer()["authorization"]
    refused = httpx2.get(f"{url}/whoami", headers=[("authorization", good), ("authorization", good)])
    assert refused.status_code in (400, 401)


def test_a_token_without_tenant_is_refused(url: str) -> None:
    refused = get(url, "/whoami", bearer(tenant=None))
    assert (refused.status_code, refused.json()["title"]) == (403, "Tenant refused")


def test_requests_with_a_token_need_no_csrf_token(url: str) -> None:
    added = httpx2.post(f"{url}/add", data={"title": "Plan"}, headers=bearer())
    assert added.json() == "Plan"


def test_answers_vary_by_the_authorization_so_that_caches_keep_callers_apart(url: str) -> None:
    assert "authorization" in get(url, "/whoami", bearer()).headers["vary"].lower()
    assert get(url, "/whoami").headers["cache-control"] == "no-store"


def test_a_session_cookie_does_not_change_who_a_token_stands_for(url: str, django_tables: None) -> None:
    from django.contrib.auth import get_user_model
    from django.test import Client

    get_user_model().objects.get_or_create(username="bob")
    client = Client()
    client.force_login(get_user_model().objects.get(username="bob"))
    cookie = client.cookies["sessionid"].value
    answer = get(url, "/whoami", bearer("alice"), cookie=f"sessionid={cookie}").json()
    assert (answer["user"], answer["actor"]) == ("alice", "alice")
    assert get(url, "/whoami", cookie=f"sessionid={cookie}").status_code == 401


class RequestOfEarlyReleases(ASGIRequest):
    """As Django made it before it dropped headers whose names have underscores."""

    def __init__(self, scope: dict[str, Any], body_file: Any) -> None:
        super().__init__(scope, body_file)
        found: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            found.setdefault("HTTP_" + name.decode().upper().replace("-", "_"), []).append(value.decode("latin-1"))
        self.META.update({name: ",".join(values) for name, values in found.items()})


@pytest.mark.parametrize("inner", [False, True])
def test_names_with_underscores_forge_no_header_with_early_releases_of_django_either(
    django_tables: None, monkeypatch: pytest.MonkeyPatch, inner: bool
) -> None:
    monkeypatch.setattr(exchange, "ASGIRequest", RequestOfEarlyReleases)
    middleware = [*settings.MIDDLEWARE, *(["tests.django.web.test_other_middleware.only_sync"] if inner else [])]
    with override_settings(TENANTGUARD={"GUARD": make_guard()}, MIDDLEWARE=middleware):
        handler = ASGIHandler()
        handler.request_class = RequestOfEarlyReleases
        with serve_asgi(handler) as served:
            forged = {"x_tenant_id": "globex", "x_forwarded_user": "root"}
            seen = httpx2.get(f"{served}/whoami", headers={**bearer(), **forged}).json()
            assert (seen["said"], seen["forged"], seen["meta"]) == (None, None, None)
            seen = httpx2.get(f"{served}/whoami", headers={**bearer(), **forged, "x-tenant-id": "acme"}).json()
            assert seen["said"] in (None, "acme")
            assert httpx2.get(f"{served}/health", headers=forged).json()["said"] is None
