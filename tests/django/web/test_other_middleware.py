"""Beside the middleware that real projects have: sync ones of other packages, gzip, languages, handlers of errors."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import override_settings
from django.urls import path

from tenantguard import current_tenant
from tests.django.login import bearer, make_guard
from tests.django.web import urls
from tests.django.web.servers import serve_asgi, serve_wsgi

SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}
OURS = "tenantguard_django.middleware.TenantGuardMiddleware"
SYNC = "tests.django.web.test_other_middleware.only_sync"


def only_sync(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Return a middleware as old packages have it: a function that is neither async nor marked."""

    def middleware(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    return middleware


def stacks() -> dict[str, list[str]]:
    own: list[str] = settings.MIDDLEWARE
    at = own.index(OURS)
    return {
        "sync before": [SYNC, *own],
        "sync after": [*own, SYNC],
        "sync on both sides": [SYNC, *own, SYNC],
        "languages, gzip, etags": [
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
            *own[:at],
            "django.middleware.locale.LocaleMiddleware",
            *own[at:],
        ],
        "gzip after": [*own, "django.middleware.gzip.GZipMiddleware"],
    }


def upload(request: Any) -> JsonResponse:
    with request.FILES["file"] as file:
        return JsonResponse([file.name, file.size, current_tenant().id], safe=False)


async def aupload(request: Any) -> JsonResponse:
    return upload(request)


def failing(request: HttpRequest) -> HttpResponse:
    raise LookupError("a mistake of the app's")


def of_error(status: int) -> Callable[..., JsonResponse]:
    def handler(request: Any, exception: Any = None) -> JsonResponse:
        return JsonResponse([request.tenant.id, current_tenant().id], safe=False, status=status)

    return handler


class Urls:
    urlpatterns = (
        *urls.urlpatterns,
        path("upload", upload),
        path("aupload", aupload),
        path("failing", failing),
        path("with-slash/", urls.slow),
    )
    handler404 = staticmethod(of_error(404))
    handler500 = staticmethod(of_error(500))


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Any:
    return SERVERS[request.param]


@pytest.fixture(params=["sync before", "sync after", "sync on both sides", "languages, gzip, etags", "gzip after"])
def stack(request: pytest.FixtureRequest, django_tables: None) -> Iterator[None]:
    with override_settings(MIDDLEWARE=stacks()[request.param], ROOT_URLCONF=Urls, TENANTGUARD={"GUARD": make_guard()}):
        yield


def test_views_of_both_kinds_and_streams_run_as_their_caller(stack: None, server: Any) -> None:
    with server() as url:
        for tenant in ("acme", "globex"):
            headers = bearer(tenant=tenant)
            for _ in range(2):  # the second time the token is remembered
                assert httpx2.get(f"{url}/whoami", headers=headers).json()["tenant"] == tenant
                assert httpx2.get(f"{url}/awhoami", headers=headers).json()["tenant"] == tenant
            parts = httpx2.get(
                url + ("/astream" if server is serve_asgi else "/stream"),
                headers={**headers, "accept-encoding": "identity"},
            )
            assert parts.text == f"{tenant}\n" * 3
        assert httpx2.get(f"{url}/whoami").status_code == 401
        assert httpx2.get(f"{url}/health").json()["bound"] == "nobody"
        assert httpx2.get(f"{url}/note", headers=bearer(scopes="other")).status_code == 403


def test_an_event_stream_begins_and_ends_with_its_token(stack: None) -> None:
    headers = {**bearer(expires_in=3, tenant="globex"), "accept-encoding": "identity"}
    with serve_asgi() as url, httpx2.stream("GET", f"{url}/events", headers=headers, timeout=20) as response:
        assert response.read() == b"data: globex\n\n"


@pytest.fixture
def url(server: Any, django_tables: None) -> Iterator[str]:
    with override_settings(ROOT_URLCONF=Urls, TENANTGUARD={"GUARD": make_guard()}), server() as served:
        yield served


def test_the_projects_pages_for_errors_know_the_caller(url: str) -> None:
    for path_, status in (("/nowhere", 404), ("/failing", 500)):
        answer = httpx2.get(url + path_, headers=bearer(tenant="globex"))
        assert (answer.status_code, answer.json()) == (status, ["globex", "globex"])
    assert httpx2.get(f"{url}/nowhere").status_code == 401


def test_a_missing_slash_is_appended_for_those_who_are_let_in(url: str) -> None:
    moved = httpx2.get(f"{url}/with-slash", headers=bearer())
    assert (moved.status_code, moved.headers["location"]) == (301, "/with-slash/")
    assert httpx2.get(f"{url}/with-slash").status_code == 401


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_other_methods_need_the_same(url: str, method: str) -> None:
    assert httpx2.request(method, f"{url}/notes", headers=bearer(scopes="notes:write")).status_code == 200
    assert httpx2.request(method, f"{url}/notes", headers=bearer(scopes="notes:read")).status_code == 403
    assert httpx2.request(method, f"{url}/notes").status_code == 401


@pytest.mark.parametrize("view", ["/upload", "/aupload"])
def test_files_are_uploaded_as_their_sender(url: str, view: str) -> None:
    size = 3_000_000  # goes to a temporary file
    sent = httpx2.post(url + view, headers=bearer(tenant="globex"), files={"file": ("plan.txt", b"x" * size)})
    assert sent.json() == ["plan.txt", size, "globex"]
    assert httpx2.post(url + view, files={"file": ("plan.txt", b"x")}).status_code == 401
