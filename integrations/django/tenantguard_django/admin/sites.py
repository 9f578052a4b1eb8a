"""An admin site that shows one tenant at a time.

Put ``"tenantguard_django.admin"`` and ``"tenantguard_django.admin.apps.TenantAdmin"`` into ``INSTALLED_APPS`` in the
place of ``"django.contrib.admin"``, and the admin's path into ``TENANTGUARD["SESSIONS"]["PATHS"]``. Staff who may work
in several tenants choose one; until then they see nothing.
"""

from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite, ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.http import url_has_allowed_host_and_scheme

from tenantguard.errors import TenantRefused
from tenantguard_django.orm.classify import belongs_to_tenants
from tenantguard_django.sessions import choose_tenant, tenants_to_choose

__all__ = ["TenantAdminSite"]


class TenantAdminSite(AdminSite):
    """The admin, one tenant at a time.

    What is registered for a model of tenants becomes a `TenantModelAdmin`, and for a shared model a
    `SharedModelAdmin`, whatever its class was before.
    """

    index_template = "tenantguard_admin/index.html"

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Register models."""
        from tenantguard_django.admin.options import SharedModelAdmin, TenantModelAdmin

        models = model_or_iterable if isinstance(model_or_iterable, list | tuple) else [model_or_iterable]
        chosen = admin_class or ModelAdmin
        for model in models:
            base = TenantModelAdmin if belongs_to_tenants(model) else SharedModelAdmin
            if not issubclass(chosen, base):
                own = {"change_form_template": chosen.change_form_template or base.change_form_template}
                super().register(model, type(chosen.__name__, (base, chosen), own), **options)
            else:
                super().register(model, chosen, **options)

    # --- who may see it ----------------------------------------------------------------------------------------

    def has_permission(self, request: HttpRequest) -> bool:
        """True for staff who work in a tenant."""
        return super().has_permission(request) and getattr(request, "tenant", None) is not None

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Return a view of the admin, which sends staff without a tenant to choose one.

        They may change their password and log out where they are: both are of the user, and of no tenant.
        """
        from django.views.decorators.cache import never_cache
        from django.views.decorators.csrf import csrf_protect

        guarded = super().admin_view(view, cacheable)
        own = view in (self.logout, self.password_change, self.password_change_done)
        of_user: Any = never_cache(csrf_protect(view)) if own else None

        def inner(request: Any, *args: Any, **options: Any) -> Any:
            if AdminSite.has_permission(self, request) and request.tenant is None:
                if own:
                    return of_user(request, *args, **options)
                return _redirect_to_choice(self.name, request.get_full_path())
            opened_in = request.POST.get(_opened_in()) if request.method == "POST" else None
            if opened_in and request.tenant is not None and opened_in != request.tenant.id:
                messages.error(
                    request,
                    f"Nothing was saved: the form was opened in {opened_in}, and you work in {request.tenant.id} now.",
                )
                return HttpResponseRedirect(reverse("admin:index", current_app=self.name))
            return guarded(request, *args, **options)

        for name in ("__name__", "__doc__", "__module__", "__wrapped__", "csrf_exempt"):
            if hasattr(guarded, name):
                setattr(inner, name, getattr(guarded, name))
        return inner

    def get_urls(self) -> list[Any]:
        """Return the admin's URLs, with the page on which staff choose a tenant."""
        return [path("tenant/", self.tenant_view, name="tenantguard_tenant"), *super().get_urls()]

    def tenant_view(self, request: Any) -> HttpResponse:
        """Let staff choose the tenant to work in."""
        from django.contrib.auth.views import redirect_to_login
        from django.views.decorators.cache import never_cache
        from django.views.decorators.csrf import csrf_protect

        if not AdminSite.has_permission(self, request):
            return redirect_to_login(request.get_full_path(), reverse("admin:login", current_app=self.name))
        view: Any = never_cache(csrf_protect(self._tenant_page))
        response: HttpResponse = view(request)
        return response

    def _tenant_page(self, request: Any) -> HttpResponse:
        index = reverse("admin:index", current_app=self.name)
        target = request.POST.get("next") or request.GET.get("next") or index
        if not url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
            target = index
        if request.method == "POST":
            try:
                choose_tenant(request, request.POST.get("tenant", ""))
            except TenantRefused:
                raise PermissionDenied from None
            return HttpResponseRedirect(target)
        context = {
            **self.each_context(request),
            "title": "Choose a tenant",
            "has_permission": True,  # shows who is logged in, and how to log out
            "tenants": tenants_to_choose(request),
            "current": request.tenant.id if request.tenant else None,
            "next": target,
        }
        request.current_app = self.name
        return TemplateResponse(request, "tenantguard_admin/tenant.html", context)

    # --- what it shows -----------------------------------------------------------------------------------------

    def each_context(self, request: Any) -> dict[str, Any]:
        """Return what every page knows: also the tenant."""
        context = super().each_context(request)
        tenant = getattr(request, "tenant", None)
        if tenant is not None:
            context["site_header"] = f"{self.site_header}: {tenant.name or tenant.id}"
        context["tenantguard_tenant"] = tenant
        return context

    def get_log_entries(self, request: HttpRequest) -> Any:
        """Return the entries of the log that were made in this tenant."""
        from django.contrib.admin.models import LogEntry

        from tenantguard_django.admin.options import entries_of_tenant

        if getattr(request, "tenant", None) is None:
            return LogEntry.objects.none()
        return entries_of_tenant(super().get_log_entries(request))


def _opened_in() -> str:
    from tenantguard_django.admin.options import OPENED_IN

    return OPENED_IN


def _redirect_to_choice(site: str, target: str) -> HttpResponseRedirect:
    from urllib.parse import urlencode

    query = urlencode({"next": target})
    return HttpResponseRedirect(f"{reverse('admin:tenantguard_tenant', current_app=site)}?{query}")
