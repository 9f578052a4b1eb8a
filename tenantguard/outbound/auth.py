"""Credentials on the wire: an auth that gives each request to a destination its token, and no other any.

It looks at the URL that the request really goes to. httpx2 applies an auth once and follows redirects below it, so
`guard_hop`, which the clients of `tenantguard.outbound.clients` call for every hop, looks at what happens on the way: a
request that leaves the destination's origin keeps the few headers that say nothing about anybody, and never a body.
httpx and httpx2 share their ways, so `AuthFlow` serves both. Source: RFC 6750, section 2.1; RFC 9110, section 15.4.
"""

from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any, Final, final

import httpx2

from tenantguard.binding import current_binding
from tenantguard.outbound.carrier import HARMLESS_HEADERS, Carrier, refuse_body
from tenantguard.outbound.destinations import Destination, Destinations
from tenantguard.outbound.exchange import TokenExchange

__all__ = ["AuthFlow", "DestinationAuth", "guard_hop"]

_MARK: Final = "tenantguard.destination"
"""Request extension that says at which destination the request began, if at one, and with which URL. It goes along with
redirects, which make a request with a URL object of its own."""


class AuthFlow:
    """What `DestinationAuth` does, for any client with the auth protocol of httpx.

    Args:
        destinations: who may receive something: one `Destination`, or several.
        exchange: the token service; needed for the modes that ask for tokens.
        strict: what happens where the app itself put the inbound request's token, cookie or proof, or the caller's
            name, on a request to somebody else. True refuses the request; False takes it off and logs a warning.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """

    def __init__(
        self,
        destinations: Destinations | Destination | Iterable[Destination],
        exchange: TokenExchange | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self._carrier = Carrier(destinations, exchange, strict=strict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._carrier.destinations!r})"

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Called by the client for each request of an async client, before redirects."""
        destination = self._prepare(request)
        if destination is None:
            yield request
            return
        binding = current_binding()
        header, value, cargo = "authorization", self._carrier.warm(destination, binding), None
        if value is None:
            cargo = self._carrier.cargo(destination)
            # Whatever is there goes first: if no token can be had, the request is left without any.
            request.headers.pop(cargo.header, None)
            header, value = cargo.header, await self._carrier.obtain(cargo)
        request.headers[header] = value
        response = yield request
        if response.status_code == 401:
            if cargo is None:
                self._carrier.warm_refused(destination, binding)
            else:
                self._carrier.refused(cargo)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Called by the client for each request of a sync client, before redirects."""
        destination = self._prepare(request)
        if destination is None:
            yield request
            return
        binding = current_binding()
        header, value, cargo = "authorization", self._carrier.warm(destination, binding), None
        if value is None:
            cargo = self._carrier.cargo(destination)
            request.headers.pop(cargo.header, None)
            header, value = cargo.header, self._carrier.obtain_blocking(cargo)
        request.headers[header] = value
        response = yield request
        if response.status_code == 401:
            if cargo is None:
                self._carrier.warm_refused(destination, binding)
            else:
                self._carrier.refused(cargo)

    def _prepare(self, request: Any) -> Destination | None:
        """Take off the request what may not go where it goes; return the destination whose token it must carry."""
        carrier, url, extensions = self._carrier, request.url, request.extensions
        destination = carrier.destinations.find(url)
        began = extensions.get(_MARK)
        if began is not None and began[0] is not destination:
            # The app follows a redirect by itself (`Response.next_request`): who sent it here may choose no call.
            if began[0] is not None:
                leave_origin(request)
            destination = None
        for name in carrier.mistakes(destination, url.raw_path, request.headers.raw):
            request.headers.pop(name, None)
        extensions[_MARK] = (destination, url)
        return None if destination is None or destination.mode == "none" else destination

    def look(self, request: Any) -> None:
        """Look at a request just before it is sent; the last request hook of the clients.

        Raises:
            OutboundError: it left its destination's origin and has a body, or it was sent with another auth than this
                one and holds what came in from the caller.
        """
        guard_hop(request)
        if _MARK not in request.extensions:
            for name in self._carrier.mistakes(None, request.url.raw_path, request.headers.raw):
                request.headers.pop(name, None)


@final
class DestinationAuth(AuthFlow, httpx2.Auth):
    """Puts the right token on requests to declared destinations, and nothing on any other.

    Works with `httpx2.AsyncClient` and `httpx2.Client`. Whoever is bound when the request is sent is whom it is sent
    for; the client and its connections know nobody. An ``Authorization`` header of the app's own on a request to a
    destination is replaced. A client that follows redirects needs `guard_hop` as its last request hook too, which the
    clients of this package have: by itself, httpx2 takes a ``Txn-Token`` along to wherever it is redirected.

    Args:
        destinations: who may receive something: one `Destination`, or several.
        exchange: the token service; needed for the modes that ask for tokens.
        strict: what happens where the app itself put the inbound request's token, cookie or proof, or the caller's
            name, on a request to somebody else. True refuses the request; False takes it off and logs a warning.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """


def guard_hop(request: Any) -> None:
    """Look at a request just before it is sent, redirects included; call it from a request event hook.

    Args:
        request: of httpx2 or httpx; changed in place if it has left its destination's origin.

    Raises:
        OutboundError: it left the origin and has a body.
    """
    began: tuple[Destination | None, object] | None = request.extensions.get(_MARK)
    if began is None or began[0] is None:
        return
    if began[1] is not request.url and not began[0].matches(request.url):
        leave_origin(request)


def leave_origin(request: Any) -> None:
    """Take from a request that left its destination's origin everything that could tell who is calling.

    Raises:
        OutboundError: it has a body, which was meant for the destination.

    Source: RFC 9110, section 15.4: the user agent decides what a redirected request keeps.
    """
    request.extensions.pop(_MARK, None)
    headers = request.headers
    has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    for name in {name.decode("latin-1").lower() for name, _ in headers.raw}:
        if has_body or name not in HARMLESS_HEADERS:
            headers.pop(name, None)
    refuse_body(has_body=has_body)
