"""Tasks of Django's own framework, which asks that they stand in a module."""

from typing import Any

from django.tasks import task

from tenantguard import current_identity
from tenantguard.binding import raw_binding
from tests.django.web.models import Document


@task
def titles(prefix: str, *, least: int = 0) -> dict[str, Any]:
    identity = current_identity()
    found = [f"{prefix}{document.title}" for document in Document.objects.order_by("id")]
    return {
        "titles": found[least:],
        "subject": identity.subject.id,
        "actor": identity.actor.id,
        "scopes": sorted(identity.scopes),
    }


@task
async def atitles(prefix: str) -> list[str]:
    return [f"{prefix}{document.title}" async for document in Document.objects.order_by("id")]


@task(takes_context=True)
def attempt(context: Any, number: int) -> list[Any]:
    return [context.attempt, number, current_identity().tenant.id]  # type: ignore[union-attr]


@task
def housekeeping() -> bool:
    return raw_binding() is None
