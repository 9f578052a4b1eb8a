"""How models are administered: those of tenants by their tenant's staff, shared ones by superusers.

Rows need no filter here, since every query of the admin passes the barrier: changelists, autocompletes, inlines, what
a deletion takes along. What Django keeps beside the models is what these classes are for: its log of changes, and a
form that was opened in one tenant and is sent in another.
"""

from typing import Any, Final

from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.models import LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest

from tenantguard_django.admin.models import LogEntryTenant

__all__ = ["OPENED_IN", "SharedModelAdmin", "TenantModelAdmin", "entries_of_tenant"]

OPENED_IN: Final = "_tenantguard_tenant"
"""The name of the form's field that says in which tenant it was opened."""


def entries_of_tenant(entries: QuerySet[Any]) -> QuerySet[Any]:
    """Return those entries of the admin's log that were made in the bound tenant."""
    return entries.filter(pk__in=LogEntryTenant.objects.values("entry_id"))


class _Base(ModelAdmin):  # type: ignore[type-arg]  # it is not generic at run time
    def render_change_form(self, request: Any, context: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Say in the form in which tenant it was opened."""
        context["tenantguard_opened_in"] = (OPENED_IN, request.tenant.id if request.tenant else "")
        return super().render_change_form(request, context, *args, **options)


class TenantModelAdmin(_Base):
    """Administers a model of tenants: ``class DocumentAdmin(TenantModelAdmin)``.

    `TenantAdminSite` makes this of any ``ModelAdmin`` that is registered for such a model, so it need not be named.
    """

    change_form_template = "tenantguard_admin/change_form.html"

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **options: Any) -> Any:
        """Return the paginator; that of an object's history holds the entries of its tenant."""
        if getattr(queryset, "model", None) is LogEntry:
            queryset = entries_of_tenant(queryset)
        return super().get_paginator(request, queryset, *args, **options)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log that an object was added."""
        return _noted(super().log_addition(request, obj, message))

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log that an object was changed."""
        return _noted(super().log_change(request, obj, message))

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Log that objects are deleted."""
        return _noted(super().log_deletions(request, queryset))


def _noted(logged: Any) -> Any:
    """Note the bound tenant beside entries of the log, and return them."""
    entries = [logged] if isinstance(logged, LogEntry) else [one for one in logged or () if isinstance(one, LogEntry)]
    LogEntryTenant.objects.bulk_create([LogEntryTenant(entry=entry) for entry in entries])
    return logged


class SharedModelAdmin(_Base):
    """Administers a model that all tenants share: superusers change it, others see it if they have the permission."""

    def has_add_permission(self, request: Any) -> bool:
        """True for superusers."""
        return bool(request.user.is_superuser) and super().has_add_permission(request)

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """True for superusers."""
        return bool(request.user.is_superuser) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """True for superusers."""
        return bool(request.user.is_superuser) and super().has_delete_permission(request, obj)

    def history_view(self, request: Any, object_id: str, extra_context: Any = None) -> Any:
        """Show an object's history to superusers: its entries name people of all tenants."""
        if not request.user.is_superuser:
            messages.warning(request, "The history of what all tenants share is for superusers.")
            from django.shortcuts import redirect

            return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        return super().history_view(request, object_id, extra_context)
