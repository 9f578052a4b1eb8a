"""Credentials on the wire: an httpx2 auth that gives each request to a destination its token, and no other any.

It looks at the URL that the request really goes to. httpx2 applies an auth once and follows redirects below it, so
`guard_hop`, which the clients of `tenantguard.outbound.clients` call for every hop, looks at what happens on the way: a
request that leaves the destination's origin keeps the few headers that say nothing about anybody, and never a body.
Source: RFC 6750, section 2.1; RFC 9110, section 15.4.
"""

import logging
from collections.abc import AsyncGenerator, Generator
from typing import Final, final

import httpx2

from tenantguard.binding import current_binding
from tenantguard.errors import ConfigurationError, OutboundError
from tenantguard.outbound.destinations import Destination
from tenantguard.outbound.exchange import TokenExchange
from tenantguard.outbound.token_requests import TokenRequest, bound_caller

__all__ = ["DestinationAuth", "guard_hop", "leave_origin"]

logger = logging.getLogger("tenantguard.outbound")

_MARK: Final = "tenantguard.destination"
"""Request extension that says that the request began at a destination. It goes along with redirects."""

_HARMLESS_HEADERS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"content-length",
        b"host",
        b"range",
        b"user-agent",
    }
)
"""What a request that leaves its origin may keep. Everything else may hold a secret or an identity."""


@final
class DestinationAuth(httpx2.Auth):
    """Puts the right token on requests to one destination, and nothing on any other.

    Works with `httpx2.AsyncClient` and `httpx2.Client`. Whoever is bound when the request is sent is whom it is sent
    for; the client and its connections know nobody. An ``Authorization`` header of the app's own on a request to the
    destination is replaced.

    Args:
        destination: where tokens may go.
        exchange: the token service; needed for the modes ``"exchange"`` and ``"client_credentials"``.
        strict: what happens where the app itself put the caller's token on a request to another origin. True refuses
            the request; False takes the token off and logs a warning.

    Raises:
        ConfigurationError: the mode needs a token service and there is none.
    """

    def __init__(
        self, destination: Destination, exchange: TokenExchange | None = None, *, strict: bool = False
    ) -> None:
        if exchange is None and destination.mode in ("exchange", "client_credentials"):
            raise ConfigurationError(
                f"The destination {destination} needs a token service for its mode {destination.mode}.",
                mend="Give TokenExchange(token_endpoint, client_id=..., client_secret=...).",
            )
        self._destination = destination
        self._exchange = exchange
        self._strict = strict

    def __repr__(self) -> str:
        return f"DestinationAuth({self._destination})"

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Called by httpx2 for each request of an async client, before redirects."""
        wanted, exchange = self._prepare(request), self._exchange
        if wanted is None or exchange is None:
            yield request
            return
        token = exchange.cached(wanted)
        if token is None:
            # Whatever is there goes first: if no token can be had, the request is left without any.
            request.headers.pop("authorization", None)
            token = await exchange.obtain(wanted)
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            exchange.forget(wanted)

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Called by httpx2 for each request of a sync client, before redirects."""
        wanted, exchange = self._prepare(request), self._exchange
        if wanted is None or exchange is None:
            yield request
            return
        request.headers.pop("authorization", None)
        request.headers["authorization"] = f"Bearer {exchange.obtain_blocking(wanted)}"
        response = yield request
        if response.status_code == 401:
            exchange.forget(wanted)

    def _prepare(self, request: httpx2.Request) -> TokenRequest | None:
        """Leave on the request what may go where it goes; return the token that it still needs."""
        destination = self._destination
        if not destination.matches(request.url):
            if _MARK in request.extensions:
                leave_origin(request)
            _take_off_caller_token(request, destination, strict=self._strict)
            return None
        request.extensions[_MARK] = destination.key
        mode = destination.mode
        if mode == "none":
            _take_off_caller_token(request, destination, strict=self._strict)
            return None
        if mode == "forward":
            _, credential = bound_caller(destination)
            request.headers["authorization"] = f"Bearer {credential.reveal()}"
            return None
        return TokenRequest.from_context(destination)


def guard_hop(destination: Destination, request: httpx2.Request) -> None:
    """Look at a request just before it is sent, redirects included; call it from a request event hook.

    Args:
        destination: where the client's tokens may go.
        request: changed in place if it has left the destination's origin.

    Raises:
        OutboundError: it left the origin and has a body.
    """
    if _MARK in request.extensions and not destination.matches(request.url):
        leave_origin(request)


def leave_origin(request: httpx2.Request) -> None:
    """Take from a request that left its destination's origin everything that could tell who is calling.

    Raises:
        OutboundError: it has a body, which was meant for the destination.

    Source: RFC 9110, section 15.4: the user agent decides what a redirected request keeps.
    """
    request.extensions.pop(_MARK, None)
    if "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0":
        for name in {name for name, _ in request.headers.raw}:
            request.headers.pop(name.decode("latin-1"), None)
        raise OutboundError(
            "A destination redirected a request with a body to another origin, which is not followed.",
            mend="Declare the origin that it redirects to as a destination of its own.",
        )
    for name in {name.lower() for name, _ in request.headers.raw} - _HARMLESS_HEADERS:
        request.headers.pop(name.decode("latin-1"), None)


def _take_off_caller_token(request: httpx2.Request, destination: Destination, *, strict: bool) -> None:
    """Find the bound caller's own token on a request that must not hold it, in a header or in the URL."""
    binding = current_binding()
    if binding is None or binding.credential is None:
        return
    token = binding.credential.reveal()
    found = [name for name, value in request.headers.raw if token.encode() in value]
    in_url = token in str(request.url)
    if not found and not in_url:
        return
    if strict or in_url:
        raise OutboundError(
            f"A request of the client for {destination} holds the caller's own token, which may not go there.",
            mend='Don\'t copy inbound headers; declare a destination, with mode="forward" if its token must go along.',
        )
    logger.warning("The caller's own token was taken off a request of the client for %s.", destination)
    for name in found:
        request.headers.pop(name.decode("latin-1"), None)
