"""httpx2 clients that carry the bound identity to one destination: the short way to outbound calls.

They are ordinary httpx2 clients with the destination's base URL and auth, and one event hook that looks at every hop.
Redirects are not followed and proxies of the environment are not used, unless asked for: both send requests to hosts
that nobody declared.
"""

from typing import Any

import httpx2

from tenantguard.outbound.auth import DestinationAuth, guard_hop
from tenantguard.outbound.destinations import Destination
from tenantguard.outbound.exchange import TokenExchange

__all__ = ["http_client", "sync_http_client"]


def http_client(
    destination: Destination, exchange: TokenExchange | None = None, *, strict: bool = False, **options: Any
) -> httpx2.AsyncClient:
    """Return an async client for one destination. One client may serve all callers of the process.

    Args:
        destination: where its calls go, and what they carry.
        exchange: the token service, for the modes that need one.
        strict: refuse requests to other origins that hold the caller's token, instead of taking it off.
        options: further arguments of `httpx2.AsyncClient`, except ``auth`` and ``base_url``. Replacing the client's
            ``event_hooks`` later takes away the look at redirects.

    Raises:
        ConfigurationError: the destination's mode needs a token service and there is none.
        TypeError: ``auth`` or ``base_url`` is among the options.
    """

    async def look(request: httpx2.Request) -> None:
        guard_hop(destination, request)

    return httpx2.AsyncClient(
        base_url=destination.base_url,
        auth=DestinationAuth(destination, exchange, strict=strict),
        event_hooks=_with_last_hook(options, look),
        **_defaults(options),
    )


def sync_http_client(
    destination: Destination, exchange: TokenExchange | None = None, *, strict: bool = False, **options: Any
) -> httpx2.Client:
    """Return a blocking client for one destination, for threads and scripts. Otherwise as `http_client`."""

    def look(request: httpx2.Request) -> None:
        guard_hop(destination, request)

    return httpx2.Client(
        base_url=destination.base_url,
        auth=DestinationAuth(destination, exchange, strict=strict),
        event_hooks=_with_last_hook(options, look),
        **_defaults(options),
    )


def _with_last_hook(options: dict[str, Any], look: Any) -> dict[str, list[Any]]:
    """Our hook runs after those of the app, so that it sees the request as it will be sent."""
    hooks = options.pop("event_hooks", None) or {}
    return {**hooks, "request": [*hooks.get("request", ()), look]}


def _defaults(options: dict[str, Any]) -> dict[str, Any]:
    return {"follow_redirects": False, "trust_env": False, **options}
