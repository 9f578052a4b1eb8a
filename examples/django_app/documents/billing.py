"""The second service, which is called in the name of whoever asked."""

from typing import Any

from django.conf import settings
from tenantguard_django.conf import get_guard

from tenantguard import TokenExchange


def make_exchange() -> TokenExchange:
    return TokenExchange(
        f"{settings.ISSUER_URL}/token", client_id="documents-app", client_secret=settings.CLIENT_SECRET or "unset"
    )


async def usage() -> Any:
    """Return what the bound caller's company uses; ``None`` if the service does not answer."""
    client = get_guard().http_client(settings.BILLING_URL, audience="https://billing.example", scopes="usage:read")
    async with client:
        response = await client.get("/usage")
    return response.json() if response.status_code == 200 else None
