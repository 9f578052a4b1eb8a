"""The doctor sees what views of REST framework and Ninja demand, wherever these keep it."""

import json
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path
from django.views import View
from django.views.decorators.cache import never_cache
from ninja import NinjaAPI, Router
from ninja.security import APIKeyHeader
from rest_framework.decorators import action, api_view, permission_classes
from rest_framework.permissions import IsAdminUser, IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from tenantguard_django import requires
from tenantguard_django.demands import demands_of
from tenantguard_django.ninja import TenantGuardAuth
from tenantguard_django.rest_framework import scopes

from tests.django.web.test_commands import doctor


@api_view(["GET"])
@requires("documents:read")
def guarded_inside(request: Any) -> Response:
    return Response()


@requires("documents:read")
@api_view(["GET", "POST"])
@requires("documents:list")
@permission_classes([scopes("documents:all")])
def guarded_on_all_sides(request: Any) -> Response:
    return Response()


@api_view(["GET", "DELETE"])
@permission_classes([scopes("documents:read")])
def by_permission(request: Any) -> Response:
    return Response()


@never_cache
@api_view(["GET"])
@never_cache
@requires("documents:read")
def under_other_decorators(request: Any) -> Response:
    return Response()


@api_view(["GET"])
def open_to_tokens(request: Any) -> Response:
    return Response()


class Documents(APIView):
    permission_classes = [IsAuthenticated & (scopes("documents:read") | IsAdminUser) & ~scopes("documents:guest")]

    def get(self, request: Any) -> Response:
        return Response()

    @requires("documents:write")
    def post(self, request: Any) -> Response:
        return Response()


class Deciding(APIView):
    permission_classes = [scopes("documents:read")]

    def get_permissions(self) -> Any:
        if self.request.user.is_staff:
            return []
        return super().get_permissions()

    def get(self, request: Any) -> Response:
        return Response()


class DocumentSet(ViewSet):
    permission_classes = [scopes("documents:read")]

    def get_permissions(self) -> Any:
        return [scopes("documents:write")()] if self.action == "create" else super().get_permissions()

    def list(self, request: Any) -> Response:
        return Response()

    def create(self, request: Any) -> Response:
        return Response()

    @action(detail=False, methods=["post"], permission_classes=[scopes("documents:publish")])
    @requires("documents:sign")
    def publish(self, request: Any) -> Response:
        return Response()


class Methods(View):
    @requires("notes:read")
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    @requires("notes:write")
    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Key(APIKeyHeader):
    def authenticate(self, request: HttpRequest, key: str | None) -> Any:
        return key


api = NinjaAPI(auth=TenantGuardAuth("api:use"), urls_namespace="demands")
inner = Router(auth=TenantGuardAuth("inner:use"))


@api.get("/by-the-api")
def by_the_api(request: Any) -> str:
    return ""


@api.get("/documents", auth=TenantGuardAuth("documents:read"))
def read_documents(request: Any) -> str:
    return ""


@api.post("/documents", auth=TenantGuardAuth("documents:write"))
@requires("documents:sign")
async def write_documents(request: Any) -> str:
    return ""


@api.get("/open", auth=None)
def open_operation(request: Any) -> str:
    return ""


@api.get("/either", auth=[TenantGuardAuth("documents:read"), TenantGuardAuth("documents:admin"), Key()])
def either(request: Any) -> str:
    return ""


@api.get("/inside", auth=None)
@requires("documents:read")
def inside(request: Any) -> str:
    return ""


@inner.get("/deep")
def deep(request: Any) -> str:
    return ""


api.add_router("/inner", inner)
router = SimpleRouter(use_regex_path=False)
router.register("set", DocumentSet, basename="set")
urlpatterns = [
    path("inside", guarded_inside),
    path("all-sides", guarded_on_all_sides),
    path("permission", by_permission),
    path("decorated", under_other_decorators),
    path("open", open_to_tokens),
    path("class", Documents.as_view()),
    path("deciding", Deciding.as_view()),
    path("methods", Methods.as_view()),
    path("", include(router.urls)),
    path("ninja/", api.urls),
]

READER = "a token with (documents:read or IsAdminUser) and (not documents:guest)"
DEMANDED = {
    "/inside": "a token with documents:read",
    "/all-sides": "a token with documents:all documents:list documents:read",
    "/permission": "a token with documents:read",
    "/decorated": "a token with documents:read",
    "/open": "a token",
    "/class": f"GET: {READER}; POST: {READER.replace('with ', 'with documents:write and ')}",
    "/deciding": "a token with documents:read and (what get_permissions() decides)",
    "/methods": "GET: a token with notes:read; POST: a token with notes:write",
    "/set/": "GET: a token with documents:read; POST: a token with documents:write",
    "/set/publish/": "a token with documents:publish documents:sign",
    "/ninja/by-the-api": "a token with api:use",
    "/ninja/documents": "GET: a token with documents:read; POST: a token with documents:sign documents:write",
    "/ninja/open": "a token",
    "/ninja/either": "a token with (documents:read or documents:admin or Key)",
    "/ninja/inside": "a token with documents:read",
    "/ninja/inner/deep": "a token with inner:use",
}


@pytest.mark.parametrize("url", DEMANDED)
def test_the_doctor_says_what_a_url_demands(url: str) -> None:
    with override_settings(ROOT_URLCONF=__name__):
        _, out, _ = doctor("--json")
    found = {one["url"]: one["demands"] for one in json.loads(out)["urls"]}
    assert found[url] == DEMANDED[url]


def test_a_view_that_wraps_itself_is_no_endless_way() -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse()

    view.__wrapped__ = view  # type: ignore[attr-defined]
    assert demands_of(view) == "a token"
