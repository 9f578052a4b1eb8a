"""The Django app of the admin that shows one tenant at a time: ``"tenantguard_django.admin"``."""

from django.apps import AppConfig

__all__ = ["TenantAdminConfig"]


class TenantAdminConfig(AppConfig):
    """Keeps the admin's history by tenant."""

    name = "tenantguard_django.admin"
    label = "tenantguard_admin"
    verbose_name = "tenantguard admin"
    default_auto_field = "django.db.models.BigAutoField"
