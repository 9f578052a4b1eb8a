"""One bounded HTTP GET for metadata and keys, made in a worker thread.

Everything about it is bounded: the time as a whole (a server that drips bytes can't hold it), the size, the redirects
(same origin only). The address that is connected to is the very one that was checked, so a name that resolves to a
public address first and to a private one later (DNS rebinding) gains nothing. Responses are asked for uncompressed and
proxies of the environment are not used. Source: RFC 9700, section 2; OWASP's notes on server-side request forgery.
"""

import socket
import ssl
import threading
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Any, Final, final
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore2

__all__ = ["FetchError", "Fetcher", "address_fault", "is_loopback_host", "is_private_host", "url_fault"]

MAX_REDIRECTS: Final = 3
MAX_URL_LENGTH: Final = 2048
_NAT64: Final = IPv6Network("64:ff9b::/96")


class FetchError(Exception):
    """The document could not be had. The text is fit for logs: it holds nothing that the server sent."""


def is_loopback_host(host: str) -> bool:
    """True for ``localhost`` and for literal loopback addresses."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_private_host(host: str) -> bool:
    """True for ``localhost`` and for literal addresses that are not public."""
    try:
        return host == "localhost" or address_fault(host, allow_private=False) is not None
    except ValueError:
        return False


def url_fault(url: str) -> str | None:
    """Return why ``url`` is not fetched, or ``None``: it must be https, or http to a loopback host.

    Source: OpenID Connect Discovery 1.0, section 3; RFC 8414, section 2.
    """
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "it is too long or has characters that a URL can't have"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is no URL"
    if not host:
        return "it has no host"
    if parts.username is not None or parts.password is not None:
        return "it holds a user name or password"
    if parts.fragment or url.endswith("#"):
        return "it has a fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(host)):
        return None
    return "it is not https"


def address_fault(address: str, *, allow_private: bool) -> str | None:
    """Return why an IP address may not be connected to, or ``None``.

    Link-local addresses (cloud metadata services live there), multicast and unspecified ones are refused always;
    private and loopback ones unless allowed.
    """
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    inner = _embedded_ipv4(ip)
    if inner is not None:
        ip = inner
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return "it is a link-local, multicast or unspecified address"
    if allow_private and (ip.is_private or ip.is_loopback):
        return None
    if not ip.is_global or ip.is_reserved:
        return "it is a private, loopback or reserved address"
    return None


def _embedded_ipv4(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4, Teredo, NAT64."""
    if isinstance(ip, IPv4Address):
        return None
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


class _BoundedStream(httpcore2.NetworkStream):
    """A network stream whose every operation ends at one deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def _left(self) -> float:
        left = self._deadline - monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("The deadline has passed.")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline decides
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, self._left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, self._left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedBackend(httpcore2.NetworkBackend):
    """Resolves a host once, refuses addresses that are not allowed, and connects to those that were checked."""

    def __init__(self, deadline: float, *, allow_private: bool) -> None:
        self._sockets = httpcore2.SyncBackend()
        self._deadline = deadline
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise FetchError("Its host name does not resolve.") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        faults = [address_fault(address, allow_private=self._allow_private) for address in addresses]
        allowed = [address for address, fault in zip(addresses, faults, strict=True) if fault is None]
        if not allowed:
            raise FetchError(
                f"Its host resolves to an address that is not allowed: {faults[0]}. "
                "Set allow_private_addresses=True on the issuer if it lives in your own network."
            )
        for index, address in enumerate(allowed):
            left = self._deadline - monotonic()
            if left <= 0:
                break
            # Share what is left among the addresses, so that a dead first one leaves time for the next.
            share = left / (len(allowed) - index)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
            return _BoundedStream(stream, self._deadline)
        raise FetchError("No connection could be made.")


@final
class Fetcher:
    """Gets documents over HTTP within bounds. Blocking: call it from a worker thread.

    Args:
        timeout: seconds for one document as a whole, redirects included.
        limit: the largest body, in bytes.
        ssl_context: for issuers behind a private certificate authority; certificates are always checked.
    """

    __slots__ = ("_lock", "_ssl_context", "limit", "timeout")

    def __init__(
        self, *, timeout: float = 5.0, limit: int = 512 * 1024, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.timeout = timeout
        self.limit = limit
        self._ssl_context = ssl_context
        self._lock = threading.Lock()

    def get(self, url: str, *, allow_private: bool = False) -> bytes:
        """Return the body of a 200 answer.

        Raises:
            FetchError: the URL or its address is not allowed, the answer is no 200, too large, too late, or
                redirects to another origin.
        """
        fault = url_fault(url)
        if fault is not None:
            raise FetchError(f"The URL is not fetched: {fault}.")
        deadline = monotonic() + self.timeout
        origin = _origin(urlsplit(url))
        backend = _CheckedBackend(deadline, allow_private=allow_private)
        try:
            with httpcore2.ConnectionPool(ssl_context=self._context(url), network_backend=backend) as pool:
                for _ in range(MAX_REDIRECTS + 1):
                    body, location = self._once(pool, url, deadline)
                    if body is not None:
                        return body
                    url = urljoin(url, location)
                    if url_fault(url) is not None or _origin(urlsplit(url)) != origin:
                        raise FetchError("It redirects to another origin, which is not followed.")
                raise FetchError(f"It redirects more than {MAX_REDIRECTS} times.")
        except (httpcore2.TimeoutException, TimeoutError):
            raise FetchError(f"It did not answer within {self.timeout:g} s.") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, ValueError) as fault_:
            raise FetchError(f"The connection failed ({type(fault_).__name__}).") from None

    def _once(self, pool: httpcore2.ConnectionPool, url: str, deadline: float) -> tuple[bytes | None, str]:
        headers = [("accept", "application/json"), ("accept-encoding", "identity"), ("user-agent", "tenantguard")]
        parts = urlsplit(url)
        headers.insert(0, ("host", parts.netloc))
        with pool.stream("GET", url, headers=headers) as response:
            fields = {name.lower(): value for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308):
                return None, fields.get(b"location", b"").decode("latin-1")
            if response.status != 200:
                raise FetchError(f"It answered with status {response.status}.")
            if fields.get(b"content-encoding", b"identity").lower() != b"identity":
                raise FetchError("It answered in a compressed form, which was not asked for.")
            body = bytearray()
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > self.limit:
                    raise FetchError(f"Its answer is larger than {self.limit} bytes.")
                if monotonic() > deadline:
                    raise httpcore2.ReadTimeout
            return bytes(body), ""

    def _context(self, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        with self._lock:
            if self._ssl_context is None:
                self._ssl_context = ssl.create_default_context()
            return self._ssl_context


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default
