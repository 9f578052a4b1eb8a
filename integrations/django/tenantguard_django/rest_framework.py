"""For Django REST framework: who calls, and what a view demands, in its own words.

::

    REST_FRAMEWORK = {
        "DEFAULT_AUTHENTICATION_CLASSES": ["tenantguard_django.rest_framework.TenantGuardAuthentication"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    }


    class DocumentViewSet(ModelViewSet):
        permission_classes = [scopes("documents:read")]

The middleware has read the token, so nothing is read here, and a view without these classes is no less protected.
"""

from typing import Any, Final

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from tenantguard.errors import InsufficientScope
from tenantguard.identity import Identity
from tenantguard.scopes import validate_scopes
from tenantguard_django.refusals import note_refusal

__all__ = ["HasTenant", "TenantGuardAuthentication", "scopes"]


def _django_request(request: Any) -> Any:
    return getattr(request, "_request", request)


def _identity_of(request: Any) -> Identity | None:
    found = getattr(_django_request(request), "identity", None)
    return found if isinstance(found, Identity) else None


class TenantGuardAuthentication(BaseAuthentication):
    """The caller that the middleware let in: ``request.user`` is the subject, ``request.auth`` the identity."""

    def authenticate(self, request: Request) -> tuple[Any, Identity] | None:
        """Return the user and the identity, or ``None`` where nobody is bound."""
        identity = _identity_of(request)
        return None if identity is None else (_django_request(request).user, identity)

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - the signature of REST framework
        """Return the challenge: refusals are 401 and not 403."""
        return "Bearer"


class HasTenant(BasePermission):
    """The caller works in a tenant. Only on paths that are declared tenantless or public does somebody not."""

    message = "The token names no tenant."
    code = "tenant_refused"

    def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ARG002
        """True if a tenant is bound."""
        identity = _identity_of(request)
        return identity is not None and identity.tenant is not None


class _Scopes(BasePermission):
    required: frozenset[str] = frozenset()
    message: Final = "The token lacks a scope."
    code: Final = "insufficient_scope"

    def has_permission(self, request: Request, view: Any) -> bool:  # noqa: ARG002
        identity = _identity_of(request)
        if identity is None:
            return False
        missing = self.required - identity.scopes
        if missing:
            note_refusal(_django_request(request), InsufficientScope(required=self.required, missing=missing))
        return not missing


def scopes(*required: str) -> type[BasePermission]:
    """Return a permission class that demands scopes, to be combined with others by ``&``, ``|`` and ``~``.

    A refusal says which scopes in its challenge, and they stand in the OpenAPI schema.

    Args:
        required: one or more scopes, for example ``"documents:read"``.

    Raises:
        ConfigurationError: at once, if there is no scope or one is not usable.

    Source: RFC 6750, section 3.1.
    """
    demanded = validate_scopes(required)
    made: type[BasePermission] = type(
        "Scopes", (_Scopes,), {"required": demanded, "__doc__": " ".join(sorted(demanded))}
    )
    return made


def required_by(permissions: Any) -> frozenset[str]:
    """Return the scopes that the permissions of a view name, in whatever combination."""
    found: frozenset[str] = frozenset()
    for permission in permissions:
        found |= getattr(permission, "required", frozenset()) if isinstance(permission, _Scopes) else frozenset()
        parts = [getattr(permission, name) for name in ("op1", "op2") if hasattr(permission, name)]
        found |= required_by(parts) if parts else frozenset()
    return found
