"""Outbound calls carry the originating user to declared destinations, and nothing to anybody else.

Read `destinations.py` (who may receive what), `carrier.py` (what goes along with a call), then `exchange.py` (how a
token is had) and `auth.py` (how it gets onto a request).
"""

from tenantguard.outbound.auth import AuthFlow, DestinationAuth, guard_hop
from tenantguard.outbound.carrier import HARMLESS_HEADERS, Cargo, Carrier, headers_as_bytes, refuse_body
from tenantguard.outbound.clients import client_options, http_client, sync_http_client
from tenantguard.outbound.destinations import Destination, Destinations, Mode, Origin
from tenantguard.outbound.exchange import TokenExchange
from tenantguard.outbound.token_requests import TokenRequest

__all__ = [
    "HARMLESS_HEADERS",
    "AuthFlow",
    "Cargo",
    "Carrier",
    "Destination",
    "DestinationAuth",
    "Destinations",
    "Mode",
    "Origin",
    "TokenExchange",
    "TokenRequest",
    "client_options",
    "guard_hop",
    "headers_as_bytes",
    "http_client",
    "refuse_body",
    "sync_http_client",
]
