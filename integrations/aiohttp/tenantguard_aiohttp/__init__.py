"""tenantguard for aiohttp: a client middleware that gives each request to a destination its token, and no other any.

aiohttp calls it for every hop of a redirect and for WebSockets too, and does not tell it which hops are of one call. So
there is a trace beside it, by which aiohttp tells when a call begins, is redirected and ends. Every decision is the
core's.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, final

import aiohttp
import httpx2
from yarl import URL

from tenantguard.errors import OutboundError
from tenantguard.outbound import HARMLESS_HEADERS, Carrier, Destination, Destinations, TokenExchange, refuse_body

__all__ = ["DestinationMiddleware", "client_session"]

_Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]


@dataclass(slots=True)
class _Call:
    """One call of the app, over all its hops. It is looked up in the context, and changed in place: a middleware of the
    app may send each hop in a task of its own, whose changes of the context nobody sees.

    Args:
        middleware: whose call it is.
        outer: the call in whose middlewares or traces this one was made.
        sent_from: the origin that answered with the latest redirect.
        redirected: whether another origin chose what is called now.
        left: whether it began at a destination and was sent elsewhere.
    """

    middleware: object
    outer: "_Call | None"
    sent_from: URL | None = None
    redirected: bool = False
    left: bool = False


_call: Final[ContextVar[_Call | None]] = ContextVar("tenantguard_aiohttp", default=None)


@final
class DestinationMiddleware:
    """Puts the right token on requests to declared destinations, and nothing on any other.

    `client_session` has all of this. By hand: ``ClientSession(middlewares=[..., m], trace_configs=[m.trace_config])``,
    where it must be the last middleware. One session may serve all callers, with
    ``cookie_jar=aiohttp.DummyCookieJar()``: a jar would send the session of one caller with the calls of the next.

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
        self.trace_config = aiohttp.TraceConfig()
        self.trace_config.on_request_start.append(self._begin)
        self.trace_config.on_request_redirect.append(self._redirect)
        self.trace_config.on_request_end.append(self._end)
        self.trace_config.on_request_exception.append(self._end)

    async def __call__(self, request: aiohttp.ClientRequest, handler: _Handler) -> aiohttp.ClientResponse:
        """Called by aiohttp for each hop.

        Raises:
            NotBound, OutboundError: as for `Carrier.cargo`; or the session lacks this middleware's trace.
            ExchangeError: no token can be had.
        """
        call = _call.get()
        if call is None or call.middleware is not self:
            raise OutboundError(
                "The aiohttp session does not tell its middleware when it is redirected, so nothing was sent.",
                mend="Use client_session(...), or ClientSession(middlewares=[m], trace_configs=[m.trace_config]).",
            )
        if call.sent_from is not None and call.sent_from != request.url.origin():
            call.redirected = True
        # Who was sent here by another origin carries nobody: that origin chose what is called.
        destination = None if call.redirected else self._destination(request.url)
        if call.redirected and call.left:
            _leave_origin(request)
        pairs = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in request.headers.items()]
        for name in self._carrier.mistakes(destination, str(request.url).encode(), pairs):
            request.headers.popall(name, None)
        cargo = None
        if destination is not None and destination.mode != "none":
            cargo = self._carrier.cargo(destination)
            request.headers.popall(cargo.header, None)
            request.headers[cargo.header] = await self._carrier.obtain(cargo)
        response = await handler(request)
        if cargo is not None and response.status == 401:
            self._carrier.refused(cargo)
        return response

    async def _begin(self, session: Any, context: SimpleNamespace, params: Any) -> None:  # noqa: ARG002 - aiohttp's
        context.call = _Call(self, _call.get())
        _call.set(context.call)

    async def _redirect(self, session: Any, context: SimpleNamespace, params: Any) -> None:  # noqa: ARG002 - aiohttp's
        call: _Call = context.call
        call.left = call.left or (not call.redirected and self._destination(params.url) is not None)
        call.sent_from = params.url.origin()

    async def _end(self, session: Any, context: SimpleNamespace, params: Any) -> None:  # noqa: ARG002 - aiohttp's
        call: _Call = context.call
        if _call.get() is call:
            _call.set(call.outer)

    def _destination(self, url: URL) -> Destination | None:
        """Return where aiohttp will connect, by its own parts of the URL and by httpx2's, which must agree."""
        found = self._carrier.destinations.find(str(url))
        if found is None or url.raw_user is not None or url.raw_password is not None:
            return None
        rebuilt = URL.build(scheme=url.scheme, host=url.raw_host or "", port=url.port)
        return found if found.matches(httpx2.URL(str(rebuilt))) else None


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
        options: further arguments of `aiohttp.ClientSession`. Our middleware comes behind those of the app, and our
            trace behind its ``trace_configs``.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """
    middleware = DestinationMiddleware(destinations, exchange, strict=strict)
    options.setdefault("cookie_jar", aiohttp.DummyCookieJar())
    if isinstance(destinations, Destination):
        options["base_url"] = destinations.base_url
    options["middlewares"] = (*options.get("middlewares", ()), middleware)
    options["trace_configs"] = [*(options.get("trace_configs") or ()), middleware.trace_config]
    return aiohttp.ClientSession(**options)


def _leave_origin(request: aiohttp.ClientRequest) -> None:
    headers = request.headers
    has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    for name in {name.lower() for name in headers}:
        if has_body or name not in HARMLESS_HEADERS:
            headers.popall(name, None)
    refuse_body(has_body=has_body)
