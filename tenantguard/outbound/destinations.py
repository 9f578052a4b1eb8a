"""Who may receive what: a destination is one origin, declared with its audience, its scopes and a mode.

Whether a request goes to a destination is decided on the parsed origin (scheme, host and port; RFC 6454, section 4),
never on the text of the URL, and the parser is the very one that makes the connection (httpx2's), so that no URL can
mean one host to the check and another to the socket. Spellings that only DNS may equate are two origins: a name with
and without a trailing dot, ``localhost`` and ``127.0.0.1``, an IPv4 address inside an IPv6 one. In doubt, nothing is
sent.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal, NamedTuple, final, get_args

import httpx2

from tenantguard.errors import ConfigurationError

__all__ = ["Destination", "Destinations", "Mode", "Origin"]

Mode = Literal["exchange", "transaction", "client_credentials", "forward", "none"]
"""What a call carries: a token exchanged for the caller's (RFC 8693), a transaction token of the trust domain
(draft-ietf-oauth-transaction-tokens), a token of the service itself (RFC 6749, section 4.4), the caller's own token as
it came in, or nothing."""

_WITH_AUDIENCE: Final = frozenset({"exchange", "transaction", "client_credentials"})

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_WEBSOCKET_SCHEMES: Final = {"ws": "http", "wss": "https"}
_HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_EXAMPLE: Final = 'For example Destination("https://billing.internal", audience="billing", scopes="invoices:read").'


class Origin(NamedTuple):
    """Scheme, host and port in one spelling.

    Args:
        scheme: ``"http"`` or ``"https"``; WebSocket URLs have the origin of the HTTP request that opens them.
        host: in lower case, IDNA-encoded; IPv6 addresses in their shortest form, without brackets.
        port: 1 to 65535.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        suffix = "" if _DEFAULT_PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{suffix}"

    @property
    def is_loopback(self) -> bool:
        """True for ``localhost`` and literal loopback addresses."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def of(cls, url: httpx2.URL) -> "Origin | None":
        """Return the origin that a request to ``url`` connects to; ``None`` where there is none that can be trusted.

        A URL with user information has none: it is how one host is dressed up as another.
        """
        scheme = _WEBSOCKET_SCHEMES.get(url.scheme, url.scheme)
        default = _DEFAULT_PORTS.get(scheme)
        host = _canonical_host(url.raw_host.decode("ascii"))
        if default is None or host is None or url.userinfo:
            return None
        port = default if url.port is None else url.port
        return cls(scheme, host, port) if 1 <= port <= 65535 else None


def _canonical_host(host: str) -> str | None:
    """Return the host in one spelling, or ``None`` if it is no plain name and no plain address."""
    if ":" in host:
        try:
            address = IPv6Address(host)
        except ValueError:
            return None
        return None if address.scope_id else address.compressed
    name = host.removesuffix(".")
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        return None
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        # Whatever ends in a number is an address; forms like 127.1 and 0x7f000001 mean one to some resolvers only.
        try:
            return str(ip_address(host))
        except ValueError:
            return None
    return host


@dataclass(frozen=True, slots=True, init=False)
class Destination:
    """One origin that the app calls, and what such calls carry.

    Args:
        base_url: the origin, with a path if all calls share one: ``"https://billing.internal/v2"``.
        audience: the audience to ask tokens for; for ``"transaction"`` the name of the trust domain. Required for the
            modes that ask for tokens.
        scopes: the scopes to ask for, as a set or separated by spaces. Without any, the token service decides.
        mode: ``"exchange"`` carries the caller by a token exchanged for this audience; ``"transaction"`` carries the
            transaction that the request is part of, by a ``Txn-Token`` header, and needs scopes;
            ``"client_credentials"`` calls as the service itself, whoever is bound; ``"forward"`` hands on the caller's
            own token, which lets the destination act as the caller anywhere the token is good; ``"none"`` carries
            nothing.
        extra_scopes: scopes that the token service may add though they were not asked for, such as ``"profile"``.
        allow_plain_http: True lets tokens travel unencrypted to a host that is not this machine.

    Raises:
        ConfigurationError: the URL is not a plain http(s) URL, or http to another machine, or the audience or a
            scope is missing or malformed.
    """

    base_url: str
    audience: str | None
    scopes: frozenset[str]
    mode: Mode
    extra_scopes: frozenset[str]
    origin: Origin
    key: str = field(repr=False)
    """Names what a token for this destination is good for; part of the keys of cached tokens."""
    _parts: tuple[str, bytes, int | None] = field(repr=False, compare=False)

    def __init__(
        self,
        base_url: str,
        *,
        audience: str | None = None,
        scopes: str | Iterable[str] = (),
        mode: Mode = "exchange",
        extra_scopes: str | Iterable[str] = (),
        allow_plain_http: bool = False,
    ) -> None:
        url, origin = _parse_base_url(base_url)
        if mode not in get_args(Mode):
            raise ConfigurationError(
                f"The mode of the destination {origin} is unknown.", mend=f"Use one of {', '.join(get_args(Mode))}."
            )
        if origin.scheme == "http" and not origin.is_loopback and mode != "none" and not allow_plain_http:
            raise ConfigurationError(
                f"The destination {origin} would get tokens over plain http.",
                mend="Use https, or allow_plain_http=True if something else encrypts the way there.",
            )
        if mode in _WITH_AUDIENCE and not (isinstance(audience, str) and audience.strip()):
            raise ConfigurationError(f"The destination {origin} has no audience.", mend=_EXAMPLE)
        wanted, extra = _scopes(scopes, origin), _scopes(extra_scopes, origin)
        if mode == "transaction" and not wanted:
            raise ConfigurationError(
                f"The destination {origin} has no scopes, and a transaction token must say what it is for.",
                mend='For example scopes="invoices:read".',
            )
        values = {
            "base_url": str(url),
            "audience": audience,
            "scopes": wanted,
            "mode": mode,
            "extra_scopes": extra,
            "origin": origin,
            # One transaction has one token, whichever services of the trust domain it calls.
            "key": repr((mode, mode != "transaction" and str(origin), audience, sorted(wanted), sorted(extra))),
            "_parts": (url.scheme, url.raw_host, url.port),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return str(self.origin)

    def matches(self, url: httpx2.URL | str) -> bool:
        """True if a request to ``url`` goes to this origin; False for anything that is not plainly so."""
        if isinstance(url, str):
            try:
                url = httpx2.URL(url)
            except (httpx2.InvalidURL, ValueError):
                return False
        if (url.scheme, url.raw_host, url.port) == self._parts:
            return not url.userinfo
        return Origin.of(url) == self.origin


@final
class Destinations:
    """The destinations that an app declared, found by the origin of a URL.

    Args:
        declared: one, or several with different origins.

    Raises:
        ConfigurationError: two have the same origin, so that nobody could tell which is meant; or one is none.
    """

    __slots__ = ("_by_origin", "_by_parts")

    def __init__(self, declared: "Destination | Iterable[Destination]" = ()) -> None:
        self._by_origin: dict[Origin, Destination] = {}
        for one in (declared,) if isinstance(declared, Destination) else declared:
            if not isinstance(one, Destination):
                raise ConfigurationError(f"destinations has a {type(one).__name__} in it.", mend=_EXAMPLE)
            if one.origin in self._by_origin:
                raise ConfigurationError(
                    f"The destination {one} is declared twice.", mend="Declare one destination for each origin."
                )
            self._by_origin[one.origin] = one
        # As URLs of most requests write it, so that they need not be taken apart.
        self._by_parts = {one._parts: one for one in self._by_origin.values()}  # noqa: SLF001 - of the same module

    def __iter__(self) -> Iterator["Destination"]:
        return iter(self._by_origin.values())

    def __len__(self) -> int:
        return len(self._by_origin)

    def __repr__(self) -> str:
        return f"Destinations({', '.join(map(str, self))})"

    def find(self, url: httpx2.URL | str) -> "Destination | None":
        """Return the destination that a request to ``url`` goes to; ``None`` for anything that is not plainly one."""
        if isinstance(url, str):
            try:
                url = httpx2.URL(url)
            except (httpx2.InvalidURL, ValueError):
                return None
        if not url.userinfo:
            found = self._by_parts.get((url.scheme, url.raw_host, url.port))
            if found is not None:
                return found
        origin = Origin.of(url)
        return None if origin is None else self._by_origin.get(origin)


def _parse_base_url(base_url: str) -> tuple[httpx2.URL, Origin]:
    """Declarations are stricter than matching: what is odd in a declaration is a mistake."""
    fault: str | None = None
    url, origin = httpx2.URL(), None
    if not isinstance(base_url, str) or not base_url:
        fault = "it is no text"
    elif re.search(r"[\s\\\x00-\x20\x7f]", base_url):
        fault = "it has a backslash, a space or a control character"
    elif "@" in base_url:
        fault = "it has user information"
    elif "?" in base_url or "#" in base_url:
        fault = "it has a query or a fragment"
    else:
        try:
            url = httpx2.URL(base_url)
        except (httpx2.InvalidURL, ValueError):
            fault = "it is no URL"
        else:
            origin = Origin.of(url)
            if url.scheme not in _DEFAULT_PORTS or not base_url.lower().startswith(f"{url.scheme}://"):
                fault = "it does not start with https:// or http://"
            elif origin is None:
                fault = "its host or port is not usable"
    if fault is not None or origin is None:
        raise ConfigurationError(f"The URL of a destination is not usable: {fault}.", mend=_EXAMPLE)
    # The parser forgets the default port only for schemes in lower case, so it is told the port again.
    return url.copy_with(port=None if origin.port == _DEFAULT_PORTS[origin.scheme] else origin.port), origin


def _scopes(scopes: str | Iterable[str], origin: Origin) -> frozenset[str]:
    wanted = frozenset(scopes.split() if isinstance(scopes, str) else scopes)
    if not all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in wanted):
        raise ConfigurationError(
            f"A scope of the destination {origin} is malformed.", mend="Scopes are printable ASCII without spaces."
        )
    return wanted
