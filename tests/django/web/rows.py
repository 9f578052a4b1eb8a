"""Rows of two tenants, and nobody else's."""

from tenantguard import bind, service_identity
from tests.django.web.models import Document, Folder

__all__ = ["TENANTS", "seed", "wipe"]

TENANTS = ("acme", "globex")


def seed() -> dict[str, int]:
    """Make a document and a folder for each tenant, and return their ids: ``acme``, ``acme-folder`` ..."""
    made = {}
    for tenant in TENANTS:
        with bind(service_identity("seed", tenant=tenant)):
            folder = Folder.objects.create(name=f"{tenant}'s")
            made[f"{tenant}-folder"] = folder.pk
            made[tenant] = Document.objects.create(title=f"{tenant}'s").pk
    return made


def wipe() -> None:
    """Remove all rows of both tenants."""
    for tenant in TENANTS:
        with bind(service_identity("seed", tenant=tenant)):
            Document.objects.all().delete()
            Folder.objects.all().delete()
