"""What an app put on a request by mistake: the inbound request's own secrets, or the identity behind it.

Frameworks make it easy to copy all inbound headers to an outbound request. Then a stranger gets the caller's token,
cookie or proof. Here a request is compared with what came in. Nothing is guessed: a header counts only if it holds a
value of the inbound request, or names the bound tenant, subject or actor under a name that gateways use for that.
"""

from collections.abc import Iterable
from typing import Final

from tenantguard.binding import Binding
from tenantguard.forged_headers import IDENTITY_HEADERS

__all__ = ["PLAIN_HEADERS", "mistakes_in"]

Pairs = Iterable[tuple[bytes, bytes]]

_SECRETS: Final = frozenset({b"authorization", b"cookie", b"dpop", b"proxy-authorization", b"txn-token", b"x-api-key"})
_IDENTITY: Final = frozenset(name.encode() for name in IDENTITY_HEADERS)
PLAIN_HEADERS: Final = frozenset(
    spelling
    for name in (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"transfer-encoding",
        b"user-agent",
    )
    for spelling in (name, name.title())
)
"""What clients put on every request by themselves, in the two ways that they write it: not looked at any closer."""
_LEAST_SECRET: Final = 12
"""Shorter values of a cookie (``lang=en``) are no secret, and may be equal by chance."""


def mistakes_in(headers: Pairs, binding: Binding | None, *, stranger: bool) -> list[bytes]:
    """Return the names of the headers that hold what came in with the bound request.

    Args:
        headers: of the outbound request, as bytes, without `PLAIN_HEADERS`.
        binding: what is bound.
        stranger: True where the request goes to nobody declared. Then headers that name the tenant, subject or actor
            count too; a declared destination learns them anyway.
    """
    if binding is None or binding.identity is None:
        return []
    found: list[bytes] = []
    credential = binding.credential
    token = credential.reveal().encode("latin-1", "replace") if credential is not None else None
    secrets: frozenset[bytes] | None = None
    for name, value in headers:
        lower = name.lower()
        if token is not None and token in value:
            found.append(lower)
        elif lower in _SECRETS:
            if secrets is None:
                secrets = _secrets_of(binding)
            if value in secrets or (lower == b"cookie" and any(one in secrets for one in _cookies(value))):
                found.append(lower)
        elif stranger and lower.replace(b"_", b"-") in _IDENTITY and value in _names_of(binding):
            found.append(lower)
    return found


def _secrets_of(binding: Binding) -> frozenset[bytes]:
    secrets: set[bytes] = set()
    for name, value in binding.credential.inbound if binding.credential is not None else ():
        if name in _SECRETS and value:
            secrets.add(value)
            if name == b"cookie":
                secrets.update(_cookies(value))
    return frozenset(secrets)


def _cookies(value: bytes) -> list[bytes]:
    """Return the cookies of a Cookie header that are long enough to be secrets, each as ``name=value``."""
    pairs = [pair.strip() for pair in value.split(b";")]
    return [pair for pair in pairs if len(pair.partition(b"=")[2]) >= _LEAST_SECRET]


def _names_of(binding: Binding) -> set[bytes]:
    identity = binding.identity
    assert identity is not None
    parties = {party.id for party in identity.chain} | {party.name for party in identity.chain if party.name}
    if identity.tenant is not None:
        parties.add(identity.tenant.id)
    return {party.encode("utf-8", "surrogatepass") for party in parties}
