"""For Django Ninja: the caller as ``auth``, with the scopes that an operation demands.

::

    api = NinjaAPI(auth=TenantGuardAuth())
    answer_refusals(api)


    @api.get("/documents", auth=TenantGuardAuth("documents:read"))
    async def list_documents(request): ...

The middleware has read the token, so nothing is read here, and an operation without ``auth`` is no less protected.
"""

from typing import Any, final

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.security.base import AuthBase

from tenantguard.errors import TenantGuardError
from tenantguard.identity import Identity
from tenantguard.scopes import check_scopes, validate_scopes
from tenantguard_django.conf import get_guard
from tenantguard_django.refusals import Answers

__all__ = ["TenantGuardAuth", "answer_refusals"]


@final
class TenantGuardAuth(AuthBase):
    """Demands a caller, and scopes if some are given; ``request.auth`` is the identity. OpenAPI shows a bearer token.

    Args:
        scopes: the scopes to demand.

    Raises:
        ConfigurationError: at once, if a scope is not usable.
    """

    openapi_type = "http"
    openapi_scheme = "bearer"
    openapi_bearerFormat = "JWT"  # noqa: N815 - a field of OpenAPI
    openapi_description = "An OAuth 2.0 access token (RFC 6750, RFC 9068)."

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = validate_scopes(scopes) if scopes else frozenset()
        self.is_async = True  # or else Ninja would send the check to a thread in async operations

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ARG002 - the identity is bound
        """Return the identity, in the way that the operation wants it.

        Raises:
            MissingCredential: nobody is bound.
            InsufficientScope: a scope is missing.
        """
        return self._checked()

    async def _checked(self) -> Identity:
        return check_scopes(*self.scopes)


def answer_refusals(api: NinjaAPI) -> None:
    """Let an API answer refusals with a challenge and a problem document, also with ``DEBUG = True``.

    Args:
        api: the API.
    """

    def answer(request: HttpRequest, error: Any) -> HttpResponse:
        response = Answers(get_guard()).to(request, error)
        if response is None:
            raise error
        return response

    api.add_exception_handler(TenantGuardError, answer)
