"""What the companies own: folders, documents, comments. `TenantModel` is the whole opt-in."""

from typing import Any

from django.conf import settings
from django.db import models
from tenantguard_django.models import TenantModel
from tenantguard_django.orm import owned_through, shared


class Folder(TenantModel):
    name: Any = models.CharField(max_length=200)

    def __str__(self) -> str:
        return str(self.name)


@shared("languages: reference data, the same for every company")
class Language(models.Model):
    code: Any = models.CharField(max_length=8, primary_key=True)
    name: Any = models.CharField(max_length=80)

    def __str__(self) -> str:
        return str(self.name)


class Document(TenantModel):
    title: Any = models.CharField(max_length=200)
    body: Any = models.TextField(default="", blank=True)
    created_by: Any = models.CharField(max_length=200, editable=False)
    created_at: Any = models.DateTimeField(auto_now_add=True)
    folder: Any = models.ForeignKey(Folder, models.SET_NULL, null=True, blank=True)
    language: Any = models.ForeignKey(Language, models.PROTECT, default="en")

    def __str__(self) -> str:
        return str(self.title)


@owned_through("document")
class Comment(models.Model):
    document: Any = models.ForeignKey(Document, models.CASCADE, related_name="comments")
    text: Any = models.TextField()
    created_by: Any = models.CharField(max_length=200, editable=False)

    def __str__(self) -> str:
        return str(self.text)


@shared("memberships: which staff works for which companies, asked before a company is chosen")
class Membership(models.Model):
    user: Any = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    company: Any = models.CharField(max_length=128)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user", "company"], name="one_membership"),)

    def __str__(self) -> str:
        return f"{self.user} works for {self.company}"
