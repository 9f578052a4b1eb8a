"""The views of the tests' project: one of each kind that Django has."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from tenantguard_django import requires

from tenantguard import current_identity, current_tenant
from tenantguard.errors import ExchangeError, NotBound, StatementRefused


def whoami(request: Any) -> JsonResponse:
    identity = current_identity()
    assert request.identity is identity
    return JsonResponse(
        {
            "tenant": request.tenant.id if request.tenant else None,
            "actor": identity.actor.id,
            "type": identity.actor.type,
            "chain": [party.id for party in identity.chain],
            "user": request.user.get_username(),
            "authenticated": request.user.is_authenticated,
            "forged": request.headers.get("x-forwarded-user"),
            "meta": request.META.get("HTTP_X_FORWARDED_USER"),
            "said": request.headers.get("x-tenant-id"),
        }
    )


async def awhoami(request: Any) -> JsonResponse:
    user = await request.auser()
    identity = current_identity()
    return JsonResponse({"tenant": identity.tenant.id, "actor": identity.actor.id, "user": user.get_username()})


def health(request: Any) -> JsonResponse:
    try:
        bound = current_identity().subject.id
    except NotBound:
        bound = "nobody"
    return JsonResponse({"bound": bound, "identity": request.identity, "said": request.headers.get("x-tenant-id")})


@requires("notes:read")
def note(request: HttpRequest) -> JsonResponse:
    return JsonResponse(current_tenant().id, safe=False)


@requires("notes:read")
async def anote(request: HttpRequest) -> JsonResponse:
    return JsonResponse(current_tenant().id, safe=False)


@requires("notes:write")
class Notes(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(current_tenant().id, safe=False)

    @requires("notes:admin")
    def delete(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse("deleted", safe=False)


@requires("notes:write")
class AsyncNotes(View):
    async def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(current_tenant().id, safe=False)


class Decorated(View):
    @method_decorator(requires("notes:write"))
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(current_tenant().id, safe=False)


@method_decorator(requires("notes:write"), name="dispatch")
class DispatchDecorated(View):
    def get(self, request: HttpRequest) -> JsonResponse:
        return JsonResponse(current_tenant().id, safe=False)


def add(request: HttpRequest) -> JsonResponse:
    return JsonResponse(request.POST.get("title"), safe=False)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for _ in range(3):
            yield current_tenant().id + "\n"

    return StreamingHttpResponse(parts())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0.002)
            yield current_tenant().id + "\n"

    return StreamingHttpResponse(parts())


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield f"data: {current_tenant().id}\n\n"
        await asyncio.sleep(30)
        yield "data: too late\n\n"

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


def sync_events(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for _ in range(600):
            yield f"data: {current_tenant().id}\n\n"
            time.sleep(0.05)

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


def slow(request: HttpRequest) -> JsonResponse:
    before = current_tenant().id
    time.sleep(0.003)
    return JsonResponse([before, current_tenant().id], safe=False)


async def aslow(request: HttpRequest) -> JsonResponse:
    before = current_tenant().id
    await asyncio.sleep(0.003)
    return JsonResponse([before, current_tenant().id], safe=False)


def template(request: HttpRequest) -> TemplateResponse:
    """Its body is rendered after the view has returned."""
    return TemplateResponse(request, "web/tenant.html", {"tenant": lambda: current_tenant().id})


@cache_page(60)
def cached(request: HttpRequest) -> JsonResponse:
    try:
        return JsonResponse(current_tenant().id, safe=False)
    except NotBound:
        return JsonResponse("nobody", safe=False)


def atomic(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"tenant": current_tenant().id, "atomic": connection.in_atomic_block})


def broken(request: HttpRequest) -> HttpResponse:
    raise StatementRefused("a detail that callers must not see", mend="mend")


def upstream(request: HttpRequest) -> HttpResponse:
    raise ExchangeError("a detail of the token service")


urlpatterns = [
    path("whoami", whoami),
    path("awhoami", awhoami),
    path("health", health),
    path("public/health", health),
    path("note", note),
    path("anote", anote),
    path("notes", Notes.as_view()),
    path("anotes", AsyncNotes.as_view()),
    path("decorated", Decorated.as_view()),
    path("dispatch", DispatchDecorated.as_view()),
    path("add", add),
    path("stream", stream),
    path("astream", astream),
    path("events", events),
    path("sync-events", sync_events),
    path("slow", slow),
    path("aslow", aslow),
    path("template", template),
    path("cached", cached),
    path("public/cached", cached),
    path("atomic", atomic),
    path("broken", broken),
    path("upstream", upstream),
]
