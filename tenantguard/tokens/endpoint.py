"""One bounded POST by an authenticated client to an endpoint of an authorization server, made in a worker thread.

The time as a whole, the size of the answer and the connections are bounded; redirects are not followed, proxies of the
environment are not used, cookies are not kept: the request holds the caller's token and the client's secret, and nobody
but the endpoint may see them. Source: RFC 6749, sections 2.3.1 and 3.2; RFC 7662, section 2.1; RFC 9700,
section 4.12.
"""

import math
import os
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Final, Literal, final
from urllib.parse import quote_plus, urlencode

import httpcore2
import httpx2

from tenantguard.errors import ConfigurationError
from tenantguard.tokens.fetch import url_fault

__all__ = ["ClientAuthentication", "EndpointDown", "OAuthEndpoint"]

ClientAuthentication = Literal["client_secret_basic", "client_secret_post"]
"""How the client shows its secret (RFC 6749, section 2.3.1)."""

MAX_CONNECTIONS: Final = 32
KEEPALIVE_SECONDS: Final = 15.0


class EndpointDown(Exception):
    """No answer could be had. The text is fit for logs: it holds nothing that the server sent.

    Args:
        message: why.
        unreachable: True where no connection could be made, so that nothing was asked yet.
        answered: True where there was an answer, which is not read.
    """

    def __init__(self, message: str, *, unreachable: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable
        self.answered = answered


class _Deadline(threading.local):
    at: float = math.inf


class _BoundedStream(httpcore2.NetworkStream):
    """A stream whose every operation ends at the deadline of the thread that uses it.

    Timeouts of single reads would let a server that drips bytes hold a thread for hours.
    """

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def _left(self, timeout: float | None) -> float:
        left = min(self._deadline.at - monotonic(), threading.TIMEOUT_MAX if timeout is None else timeout)
        if left <= 0:
            raise httpcore2.ReadTimeout
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._left(timeout))
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _BoundedBackend(httpcore2.NetworkBackend):
    def __init__(self, deadline: _Deadline) -> None:
        self._sockets = httpcore2.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        left = min(self._deadline.at - monotonic(), threading.TIMEOUT_MAX if timeout is None else timeout)
        if left <= 0:
            raise httpcore2.ConnectTimeout
        stream = self._sockets.connect_tcp(host, port, left, local_address, socket_options)
        return _BoundedStream(stream, self._deadline)


@final
class OAuthEndpoint:
    """A token or introspection endpoint, and the client that asks there.

    Thread-safe. Blocking: call it from a worker thread.

    Args:
        url: the endpoint.
        client_id: the client's id.
        client_secret: the client's secret.
        client_authentication: how the secret is shown.
        max_response: the largest answer, in bytes.
        ssl_context: for endpoints behind a private certificate authority; certificates are always checked.
        allow_plain_http: True lets secrets travel unencrypted to another machine.

    Raises:
        ConfigurationError: the URL, the id or the secret is not usable.
    """

    __slots__ = ("_client", "_deadline", "_headers", "_lock", "_max_response", "_pid", "_pool", "_ssl_context", "_url")

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        client_secret: str,
        client_authentication: ClientAuthentication = "client_secret_basic",
        max_response: int = 64 * 1024,
        ssl_context: ssl.SSLContext | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        checked = "https" + url[4:] if allow_plain_http and isinstance(url, str) and url.startswith("http:") else url
        fault = url_fault(checked) if isinstance(checked, str) else "it is no text"
        if fault is not None:
            raise ConfigurationError(
                f"The endpoint is not usable: {fault}.",
                mend='Give its whole URL, for example "https://login.example.com/oauth/token".',
            )
        if not client_id or not client_secret:
            raise ConfigurationError(
                "The endpoint needs a client_id and a client_secret.",
                mend='For example client_id="documents", client_secret=os.environ["CLIENT_SECRET"].',
            )
        self._url = httpx2.URL(url)
        self._headers = [
            (b"host", self._url.netloc),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"identity"),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"user-agent", b"tenantguard"),
        ]
        self._client: dict[str, str] = {}
        if client_authentication == "client_secret_basic":
            pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
            self._headers.append((b"authorization", b"Basic " + b64encode(pair.encode())))
        elif client_authentication == "client_secret_post":
            self._client = {"client_id": client_id, "client_secret": client_secret}
        else:
            raise ConfigurationError(
                "The client authentication is unknown.", mend="Use client_secret_basic or client_secret_post."
            )
        self._max_response = max_response
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._deadline = _Deadline()
        self._pool: httpcore2.ConnectionPool | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"OAuthEndpoint({str(self._url)!r})"

    def post(self, parameters: Mapping[str, str], deadline: float) -> tuple[int, bytes]:
        """Return status and body of the answer.

        Args:
            parameters: the form, without the client's authentication.
            deadline: when to give up, by `time.monotonic`.

        Raises:
            EndpointDown: no answer in time, or none that can be read.
        """
        body = urlencode({**parameters, **self._client}).encode()
        self._deadline.at = deadline
        try:
            try:
                return self._post(body)
            except (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError):
                # A kept connection that the server has just closed; asking for a token twice does no harm.
                return self._post(body)
        except httpcore2.ConnectTimeout:
            raise EndpointDown("it did not answer in time", unreachable=True) from None
        except (httpcore2.TimeoutException, TimeoutError):
            raise EndpointDown("it did not answer in time") from None
        except httpcore2.ConnectError as fault:
            raise EndpointDown(f"the connection failed ({type(fault).__name__})", unreachable=True) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, ValueError, OverflowError) as fault:
            raise EndpointDown(f"the connection failed ({type(fault).__name__})") from None
        finally:
            self._deadline.at = math.inf

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = [*self._headers, (b"content-length", str(len(body)).encode())]
        wait = {"timeout": {"pool": max(0.0, self._deadline.at - monotonic())}}
        with self._connections().stream(
            "POST", str(self._url), headers=headers, content=body, extensions=wait
        ) as response:
            for name, value in response.headers:
                if name.lower() == b"content-encoding" and value.lower() != b"identity":
                    raise EndpointDown("it answered in a compressed form, which was not asked for", answered=True)
            received = bytearray()
            for chunk in response.iter_stream():
                received += chunk
                if len(received) > self._max_response:
                    raise EndpointDown(f"its answer is larger than {self._max_response} bytes", answered=True)
            return response.status, bytes(received)

    def _connections(self) -> httpcore2.ConnectionPool:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                # Connections do not survive a fork: two processes would write to one.
                if self._url.scheme == "https" and self._ssl_context is None:
                    self._ssl_context = ssl.create_default_context()
                self._pid = os.getpid()
                self._pool = httpcore2.ConnectionPool(
                    ssl_context=self._ssl_context,
                    max_connections=MAX_CONNECTIONS,
                    keepalive_expiry=KEEPALIVE_SECONDS,
                    network_backend=_BoundedBackend(self._deadline),
                )
            return self._pool
