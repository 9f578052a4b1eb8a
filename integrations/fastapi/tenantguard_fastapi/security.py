"""Scopes as a FastAPI dependency, so that OpenAPI shows them: security scheme ``bearerAuth``, http bearer, JWT.

It does the same check as ``requires``. Dependencies run before the endpoint, in the request's own task, so the identity
that the middleware bound is the one that is looked at.
"""

from typing import Annotated, Any, Final

from fastapi import Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from tenantguard.identity import Identity
from tenantguard.scopes import check_scopes, validate_scopes

__all__ = ["BEARER", "scopes"]


class _Bearer(SecurityBase):
    """The security scheme. The middleware has read the token, so nothing is read here."""

    scheme_name = "bearerAuth"

    def __init__(self) -> None:
        self.model = HTTPBearer(bearerFormat="JWT", description="An OAuth 2.0 access token (RFC 6750, RFC 9068).")

    async def __call__(self, required: SecurityScopes) -> Identity:
        return check_scopes(*required.scopes)


BEARER: Final = _Bearer()


def scopes(*required: str) -> Any:
    """Return a dependency that demands scopes and gives the identity.

    ::

        @app.get("/documents", dependencies=[scopes("documents:read")])
        async def list_documents(): ...


        @app.post("/documents")
        async def add_document(identity: Annotated[Identity, scopes("documents:write")]): ...

    Args:
        required: one or more scopes.

    Raises:
        ConfigurationError: at once, if there is no scope or one is not usable.

    Source: RFC 6749, section 3.3; RFC 6750, section 3.1.
    """
    validate_scopes(required)
    return Security(BEARER, scopes=list(required))


AnyIdentity = Annotated[Identity, Security(BEARER)]
"""Somebody must be bound; no scope is demanded."""
