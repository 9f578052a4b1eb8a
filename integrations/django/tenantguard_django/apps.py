"""The Django app: ``INSTALLED_APPS = [..., "tenantguard_django"]``."""

from collections.abc import Iterable, Mapping

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import register

__all__ = ["TenantGuardConfig"]


class TenantGuardConfig(AppConfig):
    """Puts the barrier before the databases, and registers the checks.

    All of ``DATABASES`` are protected, or those whose aliases ``TENANTGUARD["DATABASES"]`` names. Where it names one
    that there is not, all are: the checks say so, and a server that runs no checks has no database without the barrier.
    """

    name = "tenantguard_django"
    label = "tenantguard"
    verbose_name = "tenantguard"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Protect the databases, and register the checks of ``manage.py check``."""
        from tenantguard_django import checks
        from tenantguard_django.cache import keep_pages_apart
        from tenantguard_django.orm import protect

        configured = getattr(settings, "TENANTGUARD", None)
        aliases = configured.get("DATABASES") if isinstance(configured, Mapping) else None
        usable = isinstance(aliases, Iterable) and not isinstance(aliases, str)
        named = list(aliases) if usable and aliases is not None else []
        there = list(settings.DATABASES)
        for alias in named if usable and all(each in there for each in named) else there:
            protect(alias)
        keep_pages_apart()
        for check in (checks.check_settings, checks.check_middleware, checks.check_databases):
            register(check, checks.TAG)
        register(checks.check_models, checks.TAG, "models")
        register(checks.check_urls, checks.TAG, "urls")
        if apps.is_installed("drf_spectacular"):
            import tenantguard_django.spectacular  # noqa: F401 - it registers itself
