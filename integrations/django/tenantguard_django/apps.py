"""The Django app: ``INSTALLED_APPS = [..., "tenantguard_django"]``."""

from django.apps import AppConfig, apps
from django.core.checks import register

__all__ = ["TenantGuardConfig"]


class TenantGuardConfig(AppConfig):
    """Registers the checks, and what other installed apps find by importing it."""

    name = "tenantguard_django"
    label = "tenantguard"
    verbose_name = "tenantguard"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks of ``manage.py check``."""
        from tenantguard_django import checks

        for check in (checks.check_settings, checks.check_middleware, checks.check_caches):
            register(check, checks.TAG)
        register(checks.check_urls, checks.TAG, "urls")
        if apps.is_installed("drf_spectacular"):
            import tenantguard_django.spectacular  # noqa: F401 - it registers itself
