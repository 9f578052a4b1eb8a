"""What the tenants of the tests' project own, and what they share."""

from django.db import models
from tenantguard_django.models import TenantModel
from tenantguard_django.orm.marks import owned_through, shared


class Folder(TenantModel):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Document(TenantModel):
    title = models.CharField(max_length=100)
    folder = models.ForeignKey(Folder, models.CASCADE, null=True, blank=True)

    def __str__(self) -> str:
        return self.title


@owned_through("document")
class Comment(models.Model):
    document = models.ForeignKey(Document, models.CASCADE)
    text = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text


@shared("languages: the same for everybody")
class Language(models.Model):
    code = models.CharField(max_length=8, primary_key=True)

    def __str__(self) -> str:
        return self.code
