"""Refusals on the wire: the challenge (RFC 6750, RFC 9449, RFC 9470) and the problem+json body (RFC 9457).

The caller of a request reads the fixed title of the error's class and, where the fault is on their side, its message.
Errors of the app's own making say nothing beyond their title: their text is for the log.
"""

from collections.abc import Iterable
from typing import Final, final

import msgspec

from tenantguard.errors import (
    InsufficientAuthentication,
    InsufficientScope,
    MissingCredential,
    NonceRequired,
    TenantGuardError,
    Unavailable,
)

__all__ = ["Refusals"]

Headers = list[tuple[bytes, bytes]]
_RETRY_AFTER: Final = b"5"


def _quoted(value: str) -> str:
    """Return a quoted-string of the characters that RFC 6750, section 3 allows in its attributes."""
    return '"' + "".join(c for c in value if " " <= c <= "~" and c not in '"\\') + '"'


def _challenge(scheme: str, attributes: Iterable[tuple[str, str | None]]) -> str:
    written = ", ".join(f"{name}={_quoted(value)}" for name, value in attributes if value)
    return f"{scheme} {written}" if written else scheme


@final
class Refusals:
    """How an app answers the requests that it refuses.

    Args:
        realm: the protection space, if the app names one.
        resource_metadata: the URL of the app's metadata (RFC 9728, section 5.1).
        dpop_algorithms: the algorithms of DPoP proofs, where the app checks them (RFC 9449, section 7.1).
    """

    __slots__ = ("_algorithms", "_realm", "_resource_metadata")

    def __init__(
        self,
        *,
        realm: str | None = None,
        resource_metadata: str | None = None,
        dpop_algorithms: Iterable[str] | None = None,
    ) -> None:
        self._realm = realm
        self._resource_metadata = resource_metadata
        self._algorithms = None if dpop_algorithms is None else " ".join(sorted(dpop_algorithms))

    def challenges(self, error: TenantGuardError, *, scheme: str = "Bearer") -> list[str]:
        """Return the values of ``WWW-Authenticate`` for a refusal.

        Without any credential in the request there is no error code, so that nobody learns more than that a token is
        needed. What went wrong is said in the scheme that the caller used.

        Args:
            error: why the request is refused.
            scheme: the authentication scheme of the request.

        Source: RFC 6750, section 3; RFC 9449, section 7.1; RFC 9470, section 3.
        """
        fault: list[tuple[str, str | None]] = []
        if error.code is not None and not isinstance(error, MissingCredential):
            fault += [("error", error.code), ("error_description", error.message)]
        if isinstance(error, InsufficientScope):
            fault.append(("scope", " ".join(error.required)))
        if isinstance(error, InsufficientAuthentication):
            fault.append(("acr_values", " ".join(error.acr_values)))
            fault.append(("max_age", None if error.max_age is None else str(error.max_age)))
        common: list[tuple[str, str | None]] = [("realm", self._realm)]
        metadata: list[tuple[str, str | None]] = [("resource_metadata", self._resource_metadata)]
        written = []
        if scheme != "DPoP" or not fault:
            written.append(_challenge("Bearer", common + fault + metadata))
        if self._algorithms is not None:
            own = fault if scheme == "DPoP" else []
            written.append(_challenge("DPoP", [*common, *own, ("algs", self._algorithms), *metadata]))
        return written

    def answer(self, error: TenantGuardError, *, scheme: str = "Bearer") -> tuple[int, Headers, bytes]:
        """Return status, headers and body of the response that refuses a request.

        Args:
            error: why the request is refused.
            scheme: the authentication scheme of the request.

        Source: RFC 9457; RFC 6750, section 3.
        """
        document: dict[str, object] = {"type": "about:blank", "title": error.title, "status": error.status}
        if error.detail is not None:
            document["detail"] = error.detail
        if error.code is not None:
            document["error"] = error.code
        if isinstance(error, InsufficientScope):
            document["scope"] = " ".join(error.required)
        if isinstance(error, InsufficientAuthentication):
            document |= {"acr_values": " ".join(error.acr_values)} if error.acr_values else {}
            document |= {} if error.max_age is None else {"max_age": error.max_age}
        body = msgspec.json.encode(document)
        headers: Headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if error.status == 401 or error.code is not None:
            for challenge in self.challenges(error, scheme=scheme):
                headers.append((b"www-authenticate", challenge.encode("ascii")))
        if isinstance(error, NonceRequired):
            headers.append((b"dpop-nonce", error.nonce.encode("ascii")))
        if isinstance(error, Unavailable):
            headers.append((b"retry-after", _RETRY_AFTER))
        return error.status, headers, body
