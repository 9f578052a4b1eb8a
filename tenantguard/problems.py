"""Refusals on the wire: the RFC 6750 challenge and the problem+json body (RFC 9457).

The caller of a request reads the fixed title of the error's class and, where the fault is on their side, its message.
Errors of the app's own making say nothing beyond their title: their text is for the log.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from tenantguard.errors import InsufficientScope, MissingCredential, TenantGuardError, Unavailable

__all__ = ["challenge", "problem"]

Headers = list[tuple[bytes, bytes]]
_RETRY_AFTER: Final = b"5"


def _quoted(value: str) -> str:
    """Return a quoted-string of the characters that RFC 6750, section 3 allows in its attributes."""
    return '"' + "".join(c for c in value if " " <= c <= "~" and c not in '"\\') + '"'


def challenge(error: TenantGuardError, *, realm: str | None = None, extra: Iterable[tuple[str, str]] = ()) -> str:
    """Return the value of ``WWW-Authenticate`` for a refusal.

    Without any credential in the request there is no error code, so that nobody learns more than that a token is
    needed.

    Args:
        error: why the request is refused.
        realm: the protection space, if the app names one.
        extra: further attributes, for example ``resource_metadata`` (RFC 9728, section 5.1).

    Source: RFC 6750, section 3.
    """
    parts = [("realm", realm)] if realm else []
    if error.code is not None and not isinstance(error, MissingCredential):
        parts += [("error", error.code), ("error_description", error.message)]
    if isinstance(error, InsufficientScope):
        parts.append(("scope", " ".join(error.required)))
    parts += extra
    attributes = ", ".join(f"{name}={_quoted(value)}" for name, value in parts if value)
    return f"Bearer {attributes}" if attributes else "Bearer"


def problem(
    error: TenantGuardError, *, realm: str | None = None, extra: Iterable[tuple[str, str]] = ()
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the response that refuses a request.

    Args:
        error: why the request is refused.
        realm: see `challenge`.
        extra: see `challenge`.

    Source: RFC 9457; RFC 6750, section 3.
    """
    document: dict[str, object] = {"type": "about:blank", "title": error.title, "status": error.status}
    if error.detail is not None:
        document["detail"] = error.detail
    if error.code is not None:
        document["error"] = error.code
    if isinstance(error, InsufficientScope):
        document["scope"] = " ".join(error.required)
    body = msgspec.json.encode(document)
    headers: Headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if error.status == 401 or error.code is not None:
        headers.append((b"www-authenticate", challenge(error, realm=realm, extra=extra).encode("ascii")))
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", _RETRY_AFTER))
    return error.status, headers, body
