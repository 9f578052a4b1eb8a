"""The security scheme in the OpenAPI schema that drf-spectacular makes. It registers itself when it is imported."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension

from tenantguard_django.rest_framework import required_by

__all__ = ["TenantGuardScheme"]


class TenantGuardScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # its metaclass is untyped
    """``bearerAuth``: http, bearer, JWT. Operations name the scopes that their permissions demand."""

    target_class = "tenantguard_django.rest_framework.TenantGuardAuthentication"
    name = "bearerAuth"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return the scheme."""
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An OAuth 2.0 access token (RFC 6750, RFC 9068).",
        }

    def get_security_requirement(self, auto_schema: Any) -> dict[str, list[Any]]:
        """Return the scheme with the scopes that the view demands."""
        return {"bearerAuth": sorted(required_by(auto_schema.view.get_permissions()))}
