"""Outbound calls carry the originating user to declared destinations, and nothing to anybody else.

Read `destinations.py` (who may receive what), then `exchange.py` (how a token is had for it) and `auth.py` (how it gets
onto a request).
"""

from tenantguard.outbound.auth import DestinationAuth
from tenantguard.outbound.clients import http_client, sync_http_client
from tenantguard.outbound.destinations import Destination, Mode, Origin
from tenantguard.outbound.exchange import TokenExchange
from tenantguard.outbound.token_requests import TokenRequest

__all__ = [
    "Destination",
    "DestinationAuth",
    "Mode",
    "Origin",
    "TokenExchange",
    "TokenRequest",
    "http_client",
    "sync_http_client",
]
