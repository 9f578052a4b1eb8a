"""The views of the document service. None of them filters by company: the barrier does.

They come in the kinds that projects have: REST framework's view sets, plain functions, async ones, streams.
"""

from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import ModelSerializer
from rest_framework.viewsets import GenericViewSet, ModelViewSet
from tenantguard_django import requires
from tenantguard_django.rest_framework import scopes

from examples.django_app.documents import billing
from examples.django_app.documents.models import Comment, Document, Folder
from examples.django_app.documents.tasks import REPORT, celery
from tenantguard import current_actor, current_identity, current_tenant


class DocumentSerializer(ModelSerializer[Document]):
    class Meta:
        model = Document
        fields = ("id", "title", "body", "folder", "created_by", "tenant_id")
        read_only_fields = ("created_by", "tenant_id")


class FolderSerializer(ModelSerializer[Folder]):
    class Meta:
        model = Folder
        fields = ("id", "name")


class DocumentViewSet(ModelViewSet[Document]):
    queryset = Document.objects.order_by("id")
    serializer_class = DocumentSerializer

    def get_permissions(self) -> Any:
        reads = self.request is None or self.request.method in ("GET", "HEAD", "OPTIONS")
        return [scopes("documents:read" if reads else "documents:write")()]

    def get_object(self) -> Document:
        try:
            return super().get_object()
        except Exception as error:
            raise NotFound("No such document.") from error

    @action(detail=True)
    def comments(self, request: Request, pk: str) -> Response:
        found = Comment.objects.filter(document=self.get_object()).order_by("id")
        return Response(list(found.values_list("text", flat=True)))

    def perform_create(self, serializer: Any) -> None:
        serializer.save(created_by=current_actor().id)


class FolderViewSet(ListModelMixin, GenericViewSet[Folder]):
    queryset = Folder.objects.order_by("id")
    serializer_class = FolderSerializer
    permission_classes = (scopes("documents:read"),)


def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


def whoami(request: HttpRequest) -> JsonResponse:
    identity = current_identity()
    return JsonResponse(
        {
            "tenant": current_tenant().id,
            "subject": identity.subject.id,
            "actor": identity.actor.id,
            "type": identity.actor.type,
            "scopes": sorted(identity.scopes),
            "chain": [party.id for party in identity.chain],
        }
    )


@require_POST
@requires("documents:read")
async def summarise(request: HttpRequest) -> HttpResponse:
    """Give the first sentence of each document, and what the billing service says of the company's plan."""
    lines = [f"{document.title}: {document.body.split('.')[0]}." async for document in Document.objects.order_by("id")]
    usage = await billing.usage()
    if usage is None:
        return JsonResponse({"detail": "The billing service did not answer."}, status=502)
    return JsonResponse({"lines": lines, "usage": usage})


@require_POST
@requires("documents:read")
async def report_later(request: HttpRequest) -> JsonResponse:
    """Put a report off: a worker writes it when this request is long gone, in the name of whoever asked for it."""
    document = await Document.objects.order_by("id").afirst()
    if document is None:
        return JsonResponse({"detail": "There is nothing to report on."}, status=404)
    await sync_to_async(celery().tasks[REPORT].delay)(document.pk)
    return JsonResponse({"document_id": document.pk}, status=202)


@requires("documents:read")
def documents_per_company(request: HttpRequest) -> JsonResponse:
    """Count documents by company. The author forgot to ask whose: the answer has one company all the same."""
    counted = Document.objects.order_by().values_list("tenant_id").annotate(Count("id"))
    return JsonResponse(dict(counted))


@requires("documents:read")
def raw_report(request: HttpRequest) -> JsonResponse:
    """Ask in raw SQL, which nobody can scope: refused."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT title FROM documents_document")
        return JsonResponse([title for (title,) in cursor.fetchall()], safe=False)


@requires("documents:read")
async def export(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        yield "company,title\n"
        async for document in Document.objects.order_by("id").aiterator():
            yield f"{document.tenant_id},{document.title}\n"

    return StreamingHttpResponse(lines(), content_type="text/csv")
