"""The second service, which is called in the name of whoever asked."""

from typing import Any

from django.conf import settings
from tenantguard_django.conf import get_guard

from tenantguard import Destination, TokenExchange
from tenantguard.outbound import sync_http_client


def make_exchange() -> TokenExchange:
    return TokenExchange(
        f"{settings.ISSUER_URL}/token", client_id="documents-app", client_secret=settings.CLIENT_SECRET or "unset"
    )


AUDIENCE = "https://billing.example"


async def usage() -> Any:
    """Return what the bound caller's company uses; ``None`` if the service does not answer."""
    client = get_guard().http_client(settings.BILLING_URL, audience=AUDIENCE, scopes="usage:read")
    async with client:
        response = await client.get("/usage")
    return response.json() if response.status_code == 200 else None


def usage_now() -> Any:
    """Return the same, for code without an event loop."""
    exchange = get_guard().exchange
    assert exchange is not None
    with sync_http_client(
        Destination(settings.BILLING_URL, audience=AUDIENCE, scopes="usage:read"), exchange
    ) as client:
        return client.get("/usage").raise_for_status().json()
