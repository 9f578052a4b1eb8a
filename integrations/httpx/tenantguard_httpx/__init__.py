"""tenantguard for httpx: the auth and the clients of `tenantguard.outbound`, for those who still hold httpx.

Every decision is the core's: httpx and httpx2 have the same auth protocol, hooks and URLs.
"""

from collections.abc import Iterable
from typing import Any, final

import httpx

from tenantguard.outbound import AuthFlow, Destination, Destinations, TokenExchange, client_options

__all__ = ["DestinationAuth", "http_client", "sync_http_client"]


@final
class DestinationAuth(AuthFlow, httpx.Auth):
    """`tenantguard.outbound.DestinationAuth` for `httpx.AsyncClient` and `httpx.Client`.

    A client that follows redirects needs `tenantguard.outbound.guard_hop` as its last request hook too, which the
    clients of this module have.

    Args:
        destinations: who may receive something: one `Destination`, or several.
        exchange: the token service; needed for the modes that ask for tokens.
        strict: refuse requests that hold what came in from the caller, instead of taking it off.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """


def http_client(
    destinations: Destinations | Destination | Iterable[Destination],
    exchange: TokenExchange | None = None,
    *,
    strict: bool = False,
    **options: Any,
) -> httpx.AsyncClient:
    """Return an async client. One client may serve all callers of the process.

    Args:
        destinations: where its calls may carry something, and what. With one `Destination`, its ``base_url`` is the
            client's.
        exchange: the token service, for the modes that need one.
        strict: refuse requests that hold what came in from the caller, instead of taking it off.
        options: further arguments of `httpx.AsyncClient`, except ``auth``.

    Raises:
        ConfigurationError: a mode needs a token service and there is none.
    """

    auth = DestinationAuth(destinations, exchange, strict=strict)

    async def look(request: httpx.Request) -> None:
        auth.look(request)

    return httpx.AsyncClient(auth=auth, **client_options(destinations, options, look))


def sync_http_client(
    destinations: Destinations | Destination | Iterable[Destination],
    exchange: TokenExchange | None = None,
    *,
    strict: bool = False,
    **options: Any,
) -> httpx.Client:
    """Return a blocking client, for threads and scripts. Otherwise as `http_client`."""
    auth = DestinationAuth(destinations, exchange, strict=strict)
    return httpx.Client(auth=auth, **client_options(destinations, options, auth.look))
