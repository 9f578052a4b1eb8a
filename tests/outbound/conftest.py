"""A token service, a destination and a stranger on loopback, each with a socket of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from tenantguard.outbound import Destination, TokenExchange
from tenantguard.testing import DevClient, DevIssuer
from tests.support.capture import CapturingApp
from tests.support.server import serve, serve_issuer

SECRET = "client s3cret: ü%+"
SCOPES = "invoices:read invoices:write"


@dataclass
class Town:
    """Who is there: a token service, one declared destination, and somebody whom nobody declared."""

    issuer: DevIssuer
    billing: CapturingApp
    billing_url: str
    stranger: CapturingApp
    stranger_url: str
    opened: list[TokenExchange] = field(default_factory=list)

    @property
    def billing_port(self) -> int:
        return urlsplit(self.billing_url).port or 0

    @property
    def stranger_port(self) -> int:
        return urlsplit(self.stranger_url).port or 0

    def exchange(self, **options: object) -> TokenExchange:
        """Return a client of the token service that is closed with the test."""
        options = {"client_id": "documents", "client_secret": SECRET, **options}
        self.opened.append(TokenExchange(options.pop("token_endpoint", self.issuer.token_endpoint), **options))
        return self.opened[-1]

    def destination(self, **options: object) -> Destination:
        return Destination(self.billing_url, **{"audience": "billing", "scopes": "invoices:read", **options})


@pytest.fixture(scope="session")
def _town() -> Iterator[Town]:
    client = DevClient(
        "documents",
        SECRET,
        accepts="documents",
        audiences="billing documents trust.example",
        scopes=f"{SCOPES} sync:run",
    )
    other = DevClient("billing", SECRET, accepts="billing trust.example", audiences="ledger trust.example")
    billing, stranger = CapturingApp(), CapturingApp()
    with (
        serve_issuer(clients=[client, other], audience="documents", trust_domain="trust.example") as issuer,
        serve(billing) as billing_url,
        serve(stranger) as stranger_url,
    ):
        yield Town(issuer, billing, billing_url, stranger, stranger_url)


@pytest.fixture
def town(_town: Town) -> Iterator[Town]:
    _town.billing.clear()
    _town.stranger.clear()
    yield _town
    while _town.opened:
        _town.opened.pop().close()
