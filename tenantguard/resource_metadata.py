"""The protected resource's own description, so that a client that was refused finds out where to get a token.

Served without a credential at its well-known path, and named in every challenge (RFC 9728). MCP clients begin there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final
from urllib.parse import urlsplit

import msgspec
from starlette.types import Receive, Scope, Send

from tenantguard.errors import ConfigurationError
from tenantguard.paths import path_of
from tenantguard.tokens.fetch import url_fault

__all__ = ["ProtectedResource", "ResourceMetadata"]

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What an app says of itself to OAuth clients.

    Args:
        resource: the app's resource identifier, as clients name it when they ask for a token: its public URL, https
            or http on loopback, without query and fragment.
        authorization_servers: issuers at which tokens can be had; by default the guard's declared issuers.
        scopes: scopes that clients may ask for.
        name: a name for people.
        documentation: URL of a page for developers.

    Raises:
        ConfigurationError: a URL is not usable.

    Source: RFC 9728, sections 2 and 3.
    """

    resource: str
    authorization_servers: Iterable[str] | None = field(default=None, kw_only=True)
    scopes: Iterable[str] = field(default=(), kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    documentation: str | None = field(default=None, kw_only=True)
    path: str = field(init=False)
    url: str = field(init=False)

    def __post_init__(self) -> None:
        servers = self.authorization_servers
        if isinstance(servers, str) or isinstance(self.scopes, str):
            raise ConfigurationError(
                "authorization_servers and scopes are lists.", mend='For example scopes=["documents:read"].'
            )
        named = [self.resource, *(() if servers is None else servers)]
        named += [] if self.documentation is None else [self.documentation]
        for url in named:
            fault = url_fault(url) if isinstance(url, str) else "it is no text"
            if fault is not None or '"' in url:
                raise ConfigurationError(
                    f"A URL of the protected resource is not usable: {fault or 'it has a quote'}.",
                    mend='For example ProtectedResource("https://api.example.com").',
                )
        parts = urlsplit(self.resource)
        if parts.query:
            raise ConfigurationError("The resource has a query.", mend="Name it by its origin and path alone.")
        path = _WELL_KNOWN + parts.path.rstrip("/")
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "url", f"{parts.scheme}://{parts.netloc}{path}")

    def document(self, *, issuers: Iterable[str], dpop_algorithms: Iterable[str] | None) -> dict[str, Any]:
        """Return the metadata (RFC 9728, section 2).

        Args:
            issuers: the authorization servers, where none are given.
            dpop_algorithms: the algorithms of DPoP proofs; ``None`` where proofs are not checked.
        """
        servers = self.authorization_servers
        document: dict[str, Any] = {
            "resource": self.resource,
            "authorization_servers": sorted(issuers if servers is None else servers),
            "bearer_methods_supported": ["header"],
            "scopes_supported": sorted(self.scopes),
            "resource_name": self.name,
            "resource_documentation": self.documentation,
            "dpop_signing_alg_values_supported": None if dpop_algorithms is None else sorted(dpop_algorithms),
        }
        return {name: value for name, value in document.items() if value}


@final
class ResourceMetadata:
    """The ASGI app that serves the description. Any origin may read it: browser clients begin there as well.

    Args:
        resource: the description.
        issuers: the declared issuers.
        dpop_algorithms: see `ProtectedResource.document`.
    """

    __slots__ = ("_body", "_path")

    def __init__(
        self, resource: ProtectedResource, *, issuers: Iterable[str], dpop_algorithms: Iterable[str] | None
    ) -> None:
        self._path = resource.path
        self._body = msgspec.json.encode(resource.document(issuers=issuers, dpop_algorithms=dpop_algorithms))

    def covers(self, scope: Mapping[str, Any]) -> bool:
        """True if the request of an ASGI scope asks for it."""
        return path_of(scope) == self._path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Serve it (ASGI)."""
        method = scope["method"]
        headers = [(b"access-control-allow-origin", b"*"), (b"access-control-allow-methods", b"GET, HEAD, OPTIONS")]
        body = b""
        if method in ("GET", "HEAD"):
            status = 200
            headers += [(b"content-type", b"application/json"), (b"cache-control", b"public, max-age=300")]
            headers.append((b"content-length", str(len(self._body)).encode()))
            body = self._body if method == "GET" else b""
        elif method == "OPTIONS":
            status = 204
            headers.append((b"access-control-allow-headers", b"*"))
        else:
            status = 405
            headers += [(b"allow", b"GET, HEAD, OPTIONS"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
