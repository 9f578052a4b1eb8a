"""What carrying a caller costs a warm call: a bare httpx2 client against the same behind our auth, with a transport in
process that answers at once. Nothing here waits for a network, so the ratio is the worst that anybody sees."""

import asyncio
from collections.abc import Callable

import httpx2

from benchmarks.harness import compare
from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.outbound import Destination, TokenExchange, TokenRequest, http_client, sync_http_client
from tenantguard.outbound.answers import UsableToken
from tenantguard.outbound.token_cache import CachedToken
from tenantguard.testing import DevIssuer

BILLING = Destination("https://billing.example", audience="billing", scopes="invoices:read")
SIX = [BILLING, *(Destination(f"https://service-{number}.example", audience="x") for number in range(5))]


class OneHeader(httpx2.Auth):
    """The least that an auth can do."""

    def auth_flow(self, request):
        request.headers["authorization"] = "Bearer token"
        yield request


def answer(_request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=b"ok")


def outbound_costs() -> dict[str, float]:
    """Microseconds of a warm call: bare, with an auth that sets one header, and carrying the bound caller."""
    issuer = DevIssuer("http://127.0.0.1:9000", audience="documents")
    alice = Actor("alice", ActorType.HUMAN, issuer=issuer.url)
    identity = Identity(subject=alice, actor=alice, tenant=Tenant("acme"), scopes=frozenset({"invoices:read"}))
    inbound = [(b"host", b"api.example"), (b"cookie", b"session=0123456789abcdef"), (b"user-agent", b"browser")]
    credential = Credential(issuer.mint(expires_in=3600), inbound=inbound)
    exchange = TokenExchange("http://127.0.0.1:9/token", client_id="documents", client_secret="secret")
    request = TokenRequest.on_behalf_of(identity, credential, BILLING)
    token = UsableToken(issuer.mint(audience="billing", expires_in=3600), 4e9, 2e9)
    exchange._cache.put(request.key, CachedToken(token, request))
    transport = httpx2.MockTransport(answer)
    options = {"transport": transport, "trust_env": False}
    clients = {
        "bare httpx2": httpx2.Client(base_url=BILLING.base_url, **options),
        "an auth that sets one header": httpx2.Client(base_url=BILLING.base_url, auth=OneHeader(), **options),
        "carrying the caller": sync_http_client(BILLING, exchange, transport=transport),
        "  the same among six destinations": sync_http_client(
            SIX, exchange, transport=transport, base_url=BILLING.base_url
        ),
    }
    with bind(identity, credential):
        costs = compare({name: lambda client=client: client.get("/invoices") for name, client in clients.items()})
    for client in clients.values():
        client.close()
    return costs


def async_outbound_costs() -> dict[str, float]:
    """The same for the async client, each call driven by hand: nothing in it waits."""
    issuer = DevIssuer("http://127.0.0.1:9000", audience="documents")
    alice = Actor("alice", ActorType.HUMAN, issuer=issuer.url)
    identity = Identity(subject=alice, actor=alice, tenant=Tenant("acme"), scopes=frozenset({"invoices:read"}))
    credential = Credential(issuer.mint(expires_in=3600))
    exchange = TokenExchange("http://127.0.0.1:9/token", client_id="documents", client_secret="secret")
    request = TokenRequest.on_behalf_of(identity, credential, BILLING)
    token = UsableToken(issuer.mint(audience="billing", expires_in=3600), 4e9, 2e9)
    exchange._cache.put(request.key, CachedToken(token, request))
    transport = httpx2.MockTransport(answer)
    loop = asyncio.new_event_loop()
    bare = httpx2.AsyncClient(base_url=BILLING.base_url, transport=transport, trust_env=False)
    carrying = http_client(BILLING, exchange, transport=transport)

    def runs(client: httpx2.AsyncClient) -> Callable[[], None]:
        async def ten() -> None:
            for _ in range(10):
                await client.get("/invoices")

        return lambda: loop.run_until_complete(ten())

    with bind(identity, credential):
        costs = compare({"bare httpx2, async, ten calls": runs(bare), "carrying the caller": runs(carrying)})
    loop.run_until_complete(bare.aclose())
    loop.run_until_complete(carrying.aclose())
    loop.close()
    return costs
