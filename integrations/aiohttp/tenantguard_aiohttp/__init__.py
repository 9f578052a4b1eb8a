"""tenantguard for aiohttp: a client middleware that gives each request to a destination its token, and no other any.

aiohttp calls it for every hop of a redirect and for WebSockets too. It follows redirects unless told otherwise, so the
middleware remembers in the context of the call when a destination sent it elsewhere. Every decision is the core's.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, final

import aiohttp
import httpx2
from yarl import URL

from tenantguard.outbound import HARMLESS_HEADERS, Carrier, Destination, Destinations, TokenExchange, refuse_body

__all__ = ["DestinationMiddleware", "client_session"]

_Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_sent_away: Final[ContextVar[tuple[object, URL, bool] | None]] = ContextVar("tenantguard_aiohttp", default=None)
"""In the task that makes the call: the middleware that has just seen a redirect to another origin, that origin, and
whether the call began at a destination."""


@final
class DestinationMiddleware:
    """Puts the right token on requests to declared destinations, and nothing on any other.

    For ``aiohttp.ClientSession(middlewares=[...])``; it must be the last of them. One session may serve all callers,
    with ``cookie_jar=aiohttp.DummyCookieJar()``: a jar would send the session of one caller with the calls of the next.

    Args:
        destinations: who may receive something: one `Destination`, or several.
        exchange: the token service; needed for the modes that ask for tokens.
        strict: refuse requests that hold what came in from the caller, instead of taking it off.

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

    async def __call__(self, request: aiohttp.ClientRequest, handler: _Handler) -> aiohttp.ClientResponse:
        """Called by aiohttp for each hop."""
        before = _sent_away.get()
        _sent_away.set(None)
        redirected = before is not None and before[:2] == (self, request.url.origin())
        left = redirected and before is not None and before[2]
        # Who was sent here by another origin carries nobody: that origin chose what is called.
        destination = None if redirected else self._destination(request.url)
        if left:
            _leave_origin(request)
        pairs = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in request.headers.items()]
        for name in self._carrier.mistakes(destination, str(request.url).encode(), pairs):
            request.headers.popall(name, None)
        cargo = None
        if destination is not None and destination.mode != "none":
            cargo = self._carrier.cargo(destination)
            request.headers.popall(cargo.header, None)
            request.headers[cargo.header] = await self._carrier.obtain(cargo)
        try:
            response = await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            # aiohttp tries again on a new connection, by another call of this middleware for the same hop.
            _sent_away.set(before)
            raise
        if cargo is not None and response.status == 401:
            self._carrier.refused(cargo)
        if response.status in _REDIRECTS:
            self._remember(request.url, response.headers, redirected, left or destination is not None)
        return response

    def _destination(self, url: URL) -> Destination | None:
        """Return where aiohttp will connect, by its own parts of the URL and by httpx2's, which must agree."""
        found = self._carrier.destinations.find(str(url))
        if found is None or url.raw_user is not None or url.raw_password is not None:
            return None
        rebuilt = URL.build(scheme=url.scheme, host=url.raw_host or "", port=url.port)
        return found if found.matches(httpx2.URL(str(rebuilt))) else None

    def _remember(self, url: URL, headers: Mapping[str, str], redirected: bool, left: bool) -> None:
        location = headers.get("location") or headers.get("uri")
        try:
            target = url.join(URL(location)) if location is not None else None
            origin = None if target is None else target.origin()
        except ValueError:
            return  # aiohttp refuses it as well
        if origin is not None and (redirected or origin != url.origin()):
            _sent_away.set((self, origin, left))


def client_session(
    destinations: Destinations | Destination | Iterable[Destination],
    exchange: TokenExchange | None = None,
    *,
    strict: bool = False,
    **options: Any,
) -> aiohttp.ClientSession:
    """Return a session that carries the bound caller to declared destinations, and keeps no cookies.

    Args:
        destinations: where its calls may carry something, and what. With one `Destination`, its ``base_url`` is the
            session's.
        exchange: the token service, for the modes that need one.
        strict: refuse requests that hold what came in from the caller, instead of taking it off.
        options: further arguments of `aiohttp.ClientSession`. Our middleware comes behind those of the app.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """
    middleware = DestinationMiddleware(destinations, exchange, strict=strict)
    options.setdefault("cookie_jar", aiohttp.DummyCookieJar())
    if isinstance(destinations, Destination):
        options["base_url"] = destinations.base_url
    return aiohttp.ClientSession(middlewares=(*options.pop("middlewares", ()), middleware), **options)


def _leave_origin(request: aiohttp.ClientRequest) -> None:
    headers = request.headers
    has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    for name in {name.lower() for name in headers}:
        if has_body or name not in HARMLESS_HEADERS:
            headers.popall(name, None)
    refuse_body(has_body=has_body)
