"""Whose the entries of the admin's log are. Django's own model of them knows no tenant, so a row beside it does."""

from typing import Any

from django.contrib.admin.models import LogEntry
from django.db import models

from tenantguard_django.models import TenantModel

__all__ = ["LogEntryTenant"]


class LogEntryTenant(TenantModel):
    """The tenant in which an entry of the admin's log was made."""

    entry: Any = models.OneToOneField(LogEntry, models.CASCADE, primary_key=True, related_name="tenantguard")

    class Meta:
        """Named for what it is."""

        verbose_name = "tenant of a log entry"
        verbose_name_plural = "tenants of log entries"

    def __str__(self) -> str:
        return f"{self.pk}: {self.tenant_id}"
