"""The Django apps of the admin that shows one tenant at a time.

``"tenantguard_django.admin"`` goes into ``INSTALLED_APPS``, and ``"tenantguard_django.admin.apps.TenantAdmin"`` in the
place of ``"django.contrib.admin"``: it is that app, with another site.
"""

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps

__all__ = ["TenantAdmin", "TenantAdminConfig"]


class TenantAdminConfig(AppConfig):
    """Keeps the admin's history by tenant."""

    name = "tenantguard_django.admin"
    label = "tenantguard_admin"
    verbose_name = "tenantguard admin"
    default = True
    default_auto_field = "django.db.models.BigAutoField"


class TenantAdmin(admin_apps.AdminConfig):
    """``django.contrib.admin``, whose site shows one tenant at a time."""

    default = False
    default_site = "tenantguard_django.admin.sites.TenantAdminSite"
