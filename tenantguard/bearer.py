"""How a token is read from a request: one Authorization header, and nothing else (RFC 6750, section 2.1; RFC 9449).

A token in the body or in the query string is never read (sections 2.2 and 2.3: it ends up in logs and caches). For
browsers, whose WebSocket interface can't send headers, an app may declare that a subprotocol carries the token.
"""

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from tenantguard.errors import InvalidRequest, MissingCredential

__all__ = ["PresentedToken", "read_authorization", "read_subprotocol"]

_TOKEN68: Final = re.compile(rb"(bearer|dpop) +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_OTHER_SCHEME: Final = re.compile(
    rb"(?!(?:bearer|dpop)(?:\s|\Z))[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: +[\x21-\x7e].*)?", re.IGNORECASE
)
_MEND: Final = "Send exactly one header 'Authorization: Bearer <token>'."
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+-]+")


class PresentedToken(NamedTuple):
    """A token as it was presented.

    Args:
        token: the token.
        scheme: the authentication scheme that it came with.
    """

    token: str
    scheme: Literal["Bearer", "DPoP"] = "Bearer"

    def __repr__(self) -> str:
        return f"PresentedToken(scheme={self.scheme!r})"


def read_authorization(value: bytes, *, dpop: bool = False) -> PresentedToken:
    """Return the token of an Authorization header.

    Args:
        value: the header's value.
        dpop: True where the scheme DPoP is understood as well.

    Raises:
        MissingCredential: the header has another scheme.
        InvalidRequest: it is malformed: no token, several, odd white space, characters that no token has.

    Source: RFC 6750, section 2.1; RFC 9449, section 7.1; RFC 9110, section 11.4.
    """
    value = value.strip(b" \t")  # RFC 9110, section 5.5; not every server takes it away
    match = _TOKEN68.fullmatch(value)
    if match is not None:
        if match[1].lower() == b"bearer":
            return PresentedToken(match[2].decode("ascii"))
        if dpop:
            return PresentedToken(match[2].decode("ascii"), "DPoP")
        raise MissingCredential("The Authorization header has another scheme than Bearer.")
    if _OTHER_SCHEME.fullmatch(value):
        raise MissingCredential("The Authorization header has another scheme than Bearer.")
    raise InvalidRequest("The Authorization header is malformed.", mend=_MEND)


def read_subprotocol(subprotocols: Iterable[str], prefix: str) -> tuple[str | None, list[str]]:
    """Return the token that a WebSocket subprotocol carries, if one does, and the other subprotocols.

    Args:
        subprotocols: those that the client offers.
        prefix: what a token's subprotocol begins with, for example ``"bearer."``.

    Raises:
        InvalidRequest: several subprotocols carry a token, or what follows the prefix can't be one.
    """
    others: list[str] = []
    token: str | None = None
    for offered in subprotocols:
        if not offered.startswith(prefix):
            others.append(offered)
        elif token is not None:
            raise InvalidRequest("Several subprotocols carry a token.", mend="Send one.")
        elif not _TOKEN.fullmatch(token := offered[len(prefix) :]):
            raise InvalidRequest("The subprotocol that carries the token is malformed.", mend=f"Send {prefix}<token>.")
    return token, others
