"""Pages for people in browsers: the admin, and views of the project's own."""

from typing import Any

from django.contrib import admin
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from tenantguard_django import requires

from tests.django.web.models import Document


async def mine(request: Any) -> JsonResponse:
    titles = [document.title async for document in Document.objects.order_by("id")]
    return JsonResponse({"tenant": request.tenant.id, "titles": titles})


def who(request: Any) -> JsonResponse:
    return JsonResponse({"tenant": request.tenant and request.tenant.id, "user": request.user.get_username()})


@csrf_exempt
def hook(request: Any) -> JsonResponse:
    return JsonResponse({"tenant": request.tenant and request.tenant.id})


@requires("documents:read")
def scoped(request: Any) -> JsonResponse:
    return JsonResponse("read", safe=False)


def said(request: Any) -> JsonResponse:
    return JsonResponse([request.headers.get("x-tenant-id"), request.headers.get("x-user-id")], safe=False)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("pages/mine", mine),
    path("pages/who", who),
    path("pages/hook", hook),
    path("pages/scoped", scoped),
    path("pages/said", said),
    path("api/who", who),
]
