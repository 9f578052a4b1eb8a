"""Headers by which gateways tell an app who calls. From the outside they are forgeries, so the app never sees them.

A gateway that authenticates callers itself and is the only way in belongs behind a verifier of its own, not behind
trust in a header that anybody can send.
"""

from collections.abc import Iterable
from itertools import product
from typing import Final

__all__ = ["IDENTITY_HEADERS", "spellings"]

IDENTITY_HEADERS: Final = (
    "remote-user",
    "x-actor",
    "x-actor-id",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    "x-amzn-oidc-identity",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-auth-request-user",
    "x-authenticated-groups",
    "x-authenticated-user",
    "x-authenticated-userid",
    "x-consumer-id",
    "x-consumer-username",
    "x-forwarded-access-token",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-goog-authenticated-user-email",
    "x-goog-authenticated-user-id",
    "x-identity",
    "x-ms-client-principal",
    "x-ms-client-principal-id",
    "x-ms-client-principal-name",
    "x-ms-token-aad-access-token",
    "x-org",
    "x-org-id",
    "x-organization",
    "x-organization-id",
    "x-remote-user",
    "x-role",
    "x-roles",
    "x-scope",
    "x-scopes",
    "x-subject",
    "x-tenant",
    "x-tenant-id",
    "x-user",
    "x-user-email",
    "x-user-id",
    "x-user-name",
    "x-user-roles",
    "x-username",
)


def spellings(name: bytes) -> Iterable[bytes]:
    """All spellings of a header's name with ``_`` for ``-``: CGI, WSGI and so some frameworks see no difference."""
    parts = name.replace(b"_", b"-").split(b"-")
    for seams in product((b"-", b"_"), repeat=len(parts) - 1):
        yield b"".join(part + seam for part, seam in zip(parts, (*seams, b""), strict=True))
