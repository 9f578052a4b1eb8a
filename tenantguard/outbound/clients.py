"""httpx2 clients that carry the bound identity to declared destinations: the short way to outbound calls.

They are ordinary httpx2 clients with an auth, and one event hook that looks at every hop. Redirects are not followed
and proxies of the environment are not used, unless asked for: both send requests to hosts that nobody declared. Cookies
are not kept: one client serves all callers, and the session of one would be sent with the calls of the next.
"""

from collections.abc import Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from tenantguard.outbound.auth import DestinationAuth
from tenantguard.outbound.destinations import Destination, Destinations
from tenantguard.outbound.exchange import TokenExchange

__all__ = ["client_options", "http_client", "sync_http_client"]


def http_client(
    destinations: Destinations | Destination | Iterable[Destination],
    exchange: TokenExchange | None = None,
    *,
    strict: bool = False,
    **options: Any,
) -> httpx2.AsyncClient:
    """Return an async client. One client may serve all callers of the process.

    Args:
        destinations: where its calls may carry something, and what. With one `Destination`, its ``base_url`` is the
            client's.
        exchange: the token service, for the modes that need one.
        strict: refuse requests that hold what came in from the caller, instead of taking it off.
        options: further arguments of `httpx2.AsyncClient`, except ``auth``; ``base_url`` only with several
            destinations. Replacing the client's ``event_hooks`` later takes away the look at redirects. A jar given as
            ``cookies`` is shared by all callers.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
        TypeError: ``auth`` is among the options, or ``base_url`` with one destination.
    """

    auth = DestinationAuth(destinations, exchange, strict=strict)

    async def look(request: httpx2.Request) -> None:
        auth.look(request)

    return httpx2.AsyncClient(auth=auth, **client_options(destinations, options, look))


def sync_http_client(
    destinations: Destinations | Destination | Iterable[Destination],
    exchange: TokenExchange | None = None,
    *,
    strict: bool = False,
    **options: Any,
) -> httpx2.Client:
    """Return a blocking client, for threads and scripts. Otherwise as `http_client`."""
    auth = DestinationAuth(destinations, exchange, strict=strict)
    return httpx2.Client(auth=auth, **client_options(destinations, options, auth.look))


def client_options(destinations: Any, options: dict[str, Any], look: Any) -> dict[str, Any]:
    """Return the options of a client: the app's own over safe ones, and our hook behind those of the app.

    It comes last, so that it sees each request as it will be sent.
    """
    hooks = options.pop("event_hooks", None) or {}
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    safe: dict[str, Any] = {"follow_redirects": False, "trust_env": False, "cookies": no_cookies}
    if isinstance(destinations, Destination):
        if "base_url" in options:
            raise TypeError("The base_url is that of the destination.")
        safe["base_url"] = destinations.base_url
    return {**safe, **options, "event_hooks": {**hooks, "request": [*hooks.get("request", ()), look]}}
