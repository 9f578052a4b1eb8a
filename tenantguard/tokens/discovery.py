"""Where an issuer publishes its keys: OpenID Connect Discovery 1.0 and RFC 8414 metadata.

The document must name the very issuer that it was fetched for, character for character; otherwise one issuer could
pass off its keys as another's (OpenID Connect Discovery 1.0, section 4.3; RFC 8414, section 3.3).
"""

from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from tenantguard.tokens.fetch import Fetcher, FetchError, url_fault

__all__ = ["discover_jwks_uri", "metadata_urls", "parse_metadata"]


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


_decoder: Final = msgspec.json.Decoder(_Metadata)


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Return where the issuer's metadata may be, in the order they are tried.

    OpenID Connect appends its path to the issuer; RFC 8414, section 3.1 inserts it after the host.
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    inserted = urlunsplit((parts.scheme, parts.netloc, f"/.well-known/oauth-authorization-server{path}", "", ""))
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration", inserted


def parse_metadata(document: bytes, issuer: str) -> str:
    """Return the ``jwks_uri`` of a metadata document.

    Raises:
        FetchError: it is no metadata, names another issuer, or its ``jwks_uri`` is not fetched.
    """
    try:
        metadata = _decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FetchError("Its metadata is no JSON object with issuer and jwks_uri.") from None
    if metadata.issuer != issuer:
        raise FetchError(
            "Its metadata names another issuer. Issuer(url=...) must be the issuer's own name, "
            "character for character, with or without the slash at the end."
        )
    fault = url_fault(metadata.jwks_uri)
    if fault is not None or (metadata.jwks_uri.startswith("http:") and not issuer.startswith("http:")):
        raise FetchError(f"The jwks_uri of its metadata is not fetched: {fault or 'it is not https'}.")
    return metadata.jwks_uri


def discover_jwks_uri(fetcher: Fetcher, issuer: str, *, allow_private: bool) -> str:
    """Return the issuer's ``jwks_uri``. Blocking.

    Raises:
        FetchError: no metadata could be had, or it is not acceptable; the first fault tells.
    """
    faults = []
    for url in metadata_urls(issuer):
        try:
            return parse_metadata(fetcher.get(url, allow_private=allow_private), issuer)
        except FetchError as fault:
            faults.append(fault)
    raise faults[0]
