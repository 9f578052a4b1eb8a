"""The same small API three times: REST framework, Ninja, and REST framework's function views."""

from typing import Any

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from ninja import NinjaAPI
from rest_framework.decorators import api_view, authentication_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import ModelViewSet
from tenantguard_django import requires
from tenantguard_django.ninja import TenantGuardAuth, answer_refusals
from tenantguard_django.rest_framework import HasTenant, TenantGuardAuthentication, scopes

from tenantguard import current_identity
from tests.django.web.models import Document


class DocumentSerializer(ModelSerializer[Document]):
    class Meta:
        model = Document
        fields = ["id", "title", "folder"]


class DocumentViewSet(ModelViewSet[Document]):
    queryset = Document.objects.order_by("id")
    serializer_class = DocumentSerializer
    authentication_classes = [TenantGuardAuthentication]
    permission_classes = [IsAuthenticated & HasTenant & (scopes("documents:read") | scopes("documents:admin"))]

    def get_permissions(self) -> Any:
        if self.action in ("create", "update", "partial_update", "destroy"):
            return [scopes("documents:write")()]
        return super().get_permissions()


@api_view(["GET"])
@authentication_classes([TenantGuardAuthentication])
@requires("documents:read")
def whoami(request: Any) -> Response:
    assert request.auth is current_identity()
    return Response({"user": request.user.get_username(), "tenant": request.auth.tenant.id})


@requires("documents:read")
@api_view(["GET"])
@authentication_classes([TenantGuardAuthentication])
def outside(request: Any) -> Response:
    return Response({"tenant": request.auth.tenant.id})


@api_view(["GET"])
@authentication_classes([TenantGuardAuthentication])
def open_to_all(request: Any) -> Response:
    return Response({"authenticated": bool(request.user.is_authenticated)})


api = NinjaAPI(auth=TenantGuardAuth(), urls_namespace="tests")
answer_refusals(api)


@api.get("/documents", auth=TenantGuardAuth("documents:read"))
def documents(request: Any) -> list[str]:
    return [document.title for document in Document.objects.order_by("id")]


@api.get("/adocuments", auth=TenantGuardAuth("documents:read"))
async def adocuments(request: Any) -> list[str]:
    return [document.title async for document in Document.objects.order_by("id")]


@api.get("/me")
async def me(request: Any) -> dict[str, str]:
    return {"actor": request.auth.actor.id}


@api.get("/inside")
@requires("documents:write")
def inside(request: Any) -> str:
    return "inside"


router = DefaultRouter()
router.register("documents", DocumentViewSet)
urlpatterns = [
    path("drf/", include(router.urls)),
    path("drf/whoami", whoami),
    path("drf/outside", outside),
    path("public/open", open_to_all),
    path("drf/open", open_to_all),
    path("schema", SpectacularAPIView.as_view()),
    path("ninja/", api.urls),
]
