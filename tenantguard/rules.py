"""What holds for the requests of an app, checked once at the start."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, final

from tenantguard.errors import ConfigurationError
from tenantguard.forged_headers import IDENTITY_HEADERS, spellings
from tenantguard.paths import PublicPaths
from tenantguard.resource_metadata import ProtectedResource
from tenantguard.tenancy import TenantDirectory, TenantFromHeader, TenantResolver
from tenantguard.tokens.client_certificates import ClientCertificates
from tenantguard.tokens.dpop import DPoP

__all__ = ["AUTHORIZATION", "DPOP", "TXN_TOKEN", "RequestRules"]

AUTHORIZATION: Final = b"authorization"
DPOP: Final = b"dpop"
TXN_TOKEN: Final = b"txn-token"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTABLE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """What holds for the requests of an app.

    Args:
        public: the paths that need no credential.
        tenantless: the paths that an identity without a tenant may use. Everywhere else it is refused.
        tenant_from: where a request may say its tenant. What it says must agree with the token.
        identity_headers: the headers that are taken away, with all their spellings with underscores.
        websocket_subprotocol: what a WebSocket subprotocol begins with that carries the token, for example
            ``"bearer."``, for browsers. ``None``: tokens come in the Authorization header alone.
        directory: the tenants that the app knows. Without it, every tenant of a good token is let in.
        realm: the protection space that every challenge names (RFC 9110, section 11.5).
        resource: the app's own description, served without a credential and named in every challenge (RFC 9728).
        dpop: how proofs of possession are checked (RFC 9449). Without it, tokens bound to a key are refused.
        certificates: where client certificates are (RFC 8705). Without it, tokens bound to one are refused.
        transactions: True where transaction tokens are accepted; otherwise the ``Txn-Token`` header is taken away.
        trusted_actors: the services that may present a transaction token together with a token of their own.

    Raises:
        ConfigurationError: a value is not usable; the text names it.
    """

    public: PublicPaths = field(default_factory=PublicPaths)
    tenantless: PublicPaths = field(default_factory=PublicPaths)
    tenant_from: tuple[TenantResolver, ...] = field(default_factory=lambda: (TenantFromHeader(),))
    identity_headers: Iterable[str] = IDENTITY_HEADERS
    websocket_subprotocol: str | None = None
    directory: TenantDirectory | None = None
    realm: str | None = None
    resource: ProtectedResource | None = None
    dpop: DPoP | None = None
    certificates: ClientCertificates | None = None
    transactions: bool = False
    trusted_actors: frozenset[str] | None = None
    tenant_headers: frozenset[bytes] = field(init=False, repr=False)
    forged: frozenset[bytes] = field(init=False, repr=False)
    watched: frozenset[bytes] = field(init=False, repr=False)
    always_asked: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if any(not callable(getattr(one, "resolve", None)) for one in self.tenant_from):
            raise ConfigurationError(
                "tenant_from holds something that resolves no tenant.", mend='For example [TenantFromHeader("x-org")].'
            )
        if isinstance(self.identity_headers, str):
            raise ConfigurationError("identity_headers is a single text.", mend='Give a list: ["x-user-id"].')
        tenant_headers = frozenset(one.name for one in self.tenant_from if isinstance(one, TenantFromHeader))
        names = {_header_name(name) for name in self.identity_headers} | tenant_headers
        forged = {spelling for name in names for spelling in spellings(name)} - tenant_headers
        forged |= set(spellings(TXN_TOKEN)) - ({TXN_TOKEN} if self.transactions else set())
        if AUTHORIZATION in forged or DPOP in forged:
            raise ConfigurationError("The Authorization and DPoP headers carry the token.", mend="Name other headers.")
        prefix = self.websocket_subprotocol
        if prefix is not None and not (isinstance(prefix, str) and _NAME.fullmatch(prefix)):
            raise ConfigurationError(
                "websocket_subprotocol is no prefix of a subprotocol.", mend='For example "bearer.".'
            )
        if self.realm is not None and not (isinstance(self.realm, str) and _QUOTABLE.fullmatch(self.realm)):
            raise ConfigurationError(
                "realm must be text of printable ASCII characters without quotes and backslashes.",
                mend='For example realm="documents".',
            )
        for name, kind in (("resource", ProtectedResource), ("dpop", DPoP), ("certificates", ClientCertificates)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(
                    f"{name} is a {type(value).__name__}.", mend=f"For example {name}={kind.__name__}(...)."
                )
        if self.resource is not None:
            object.__setattr__(self, "public", PublicPaths([*self.public.patterns, self.resource.path]))
        watched = {AUTHORIZATION, TXN_TOKEN, *forged, *tenant_headers}
        if self.dpop is not None:
            watched.add(DPOP)
        if self.certificates is not None and self.certificates.header is not None:
            watched.add(self.certificates.header)
        object.__setattr__(self, "tenant_headers", tenant_headers)
        object.__setattr__(self, "forged", frozenset(forged))
        object.__setattr__(self, "watched", frozenset(watched))
        beyond_headers = any(not isinstance(one, TenantFromHeader) for one in self.tenant_from)
        strict = self.dpop is not None and self.dpop.required
        object.__setattr__(self, "always_asked", self.directory is not None or beyond_headers or strict)


def _header_name(name: object) -> bytes:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError("identity_headers names a header that can't exist.", mend='For example "x-user-id".')
    return name.lower().encode()
