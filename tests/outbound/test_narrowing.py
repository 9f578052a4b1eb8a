"""An identity that was narrowed inside a request: what goes out allows no more than it holds, by any mode."""

import jwt
import msgspec
import pytest
from starlette.responses import PlainTextResponse

from tenantguard import Issuer, TenantGuard, TenantGuardMiddleware
from tenantguard.binding import Credential
from tenantguard.context import bind, current_credential, current_identity
from tenantguard.errors import ExchangeError, OutboundError
from tenantguard.identity import Transaction
from tenantguard.outbound import Carrier
from tests.support.callers import caller
from tests.support.outbound_clients import CLIENTS, open_client
from tests.support.server import serve

pytestmark = pytest.mark.anyio
BOTH = "invoices:read invoices:write"
TXN = "urn:ietf:params:oauth:token-type:txn_token"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def narrowed(identity, *scopes):
    return msgspec.structs.replace(identity, scopes=frozenset(scopes))


def scope_in(token):
    return jwt.decode(token, options={"verify_signature": False})["scope"]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_narrowed_identity_asks_for_those_of_the_destination_s_scopes_that_it_holds(town, kind):
    """In both orders, with a token of the wide identity in the cache and without."""
    identity, credential = caller(town.issuer, scopes=f"{BOTH} documents:read")
    async with open_client(kind, town.destination(scopes=BOTH), town.exchange()) as client:
        for one in (
            narrowed(identity, "invoices:read", "documents:read"),
            identity,
            narrowed(identity, "invoices:read"),
            narrowed(identity, "invoices:write"),
            identity,
        ):
            with bind(one, credential):
                await client.get(f"{town.billing_url}/x")
    assert [scope_in(captured.bearer) for captured in town.billing.requests] == [
        "invoices:read",
        BOTH,
        "invoices:read",
        "invoices:write",
        BOTH,
    ]


async def test_a_narrowed_identity_without_a_scope_of_the_destination_gets_no_token(town):
    identity, credential = caller(town.issuer, scopes=f"{BOTH} documents:read")
    carriers = [
        Carrier(town.destination(scopes=BOTH), town.exchange()),
        Carrier(town.destination(scopes=""), town.exchange()),
        Carrier(town.destination(scopes=BOTH, mode="transaction", audience="trust.example"), town.exchange()),
    ]
    for carrier, left in zip(carriers, ("documents:read", None, "documents:read"), strict=True):
        less = narrowed(identity, *([left] if left else []))
        with bind(less, credential), pytest.raises(OutboundError, match="narrowed"):
            await carrier.headers(town.billing_url)


async def test_where_no_scopes_are_declared_a_narrowed_identity_asks_for_its_own(town):
    identity, credential = caller(town.issuer, scopes=BOTH)
    carrier = Carrier(town.destination(scopes=""), town.exchange())
    with bind(narrowed(identity, "invoices:read"), credential):
        token = (await carrier.headers(town.billing_url))["authorization"].removeprefix("Bearer ")
    assert scope_in(token) == "invoices:read"


async def test_an_identity_that_was_not_narrowed_asks_for_all_that_was_declared(town):
    """What its token says for this service does not bound what the token service grants for another."""
    identity, credential = caller(town.issuer, scopes="documents:read invoices:read")
    with bind(identity, credential), pytest.raises(ExchangeError, match="invalid_scope"):
        await Carrier(town.destination(scopes=BOTH), town.exchange()).headers(town.billing_url)


async def test_the_token_of_a_narrowed_identity_is_not_forwarded(town):
    identity, credential = caller(town.issuer, scopes=BOTH)
    carrier = Carrier(town.destination(mode="forward"), town.exchange())
    with bind(narrowed(identity, "invoices:read"), credential), pytest.raises(OutboundError, match="narrowed"):
        await carrier.headers(town.billing_url)
    with bind(identity, credential):
        assert await carrier.headers(town.billing_url) == {"authorization": f"Bearer {credential.reveal()}"}


async def test_the_transaction_of_a_narrowed_identity_is_replaced_not_handed_on(town):
    identity, credential = caller(town.issuer, scopes=BOTH)
    inside = town.destination(mode="transaction", audience="trust.example", scopes=BOTH)
    with bind(narrowed(identity, "invoices:read"), credential):
        begun = (await Carrier(inside, town.exchange()).headers(town.billing_url))["txn-token"]
    assert scope_in(begun) == "invoices:read"
    with bind(identity, credential):
        first = (await Carrier(inside, town.exchange()).headers(town.billing_url))["txn-token"]
    assert scope_in(first) == BOTH
    arrived = msgspec.structs.replace(
        identity,
        audience=("trust.example",),
        transaction=Transaction(jwt.decode(first, options={"verify_signature": False})["txn"], ("documents",)),
    )
    carrier = Carrier(inside, town.exchange(client_id="billing"))
    with bind(narrowed(arrived, "invoices:read"), Credential(first, TXN)):
        replaced = (await carrier.headers(town.billing_url))["txn-token"]
    assert (replaced != first, scope_in(replaced)) == (True, "invoices:read")
    with bind(arrived, Credential(first, TXN)):
        assert await carrier.headers(town.billing_url) == {"txn-token": first}


def test_a_token_that_shows_its_scopes_to_nobody_can_be_told_them(town):
    identity, _ = caller(town.issuer, scopes=BOTH)
    narrow = narrowed(identity, "invoices:read")
    assert Credential("opaque", scopes=frozenset(BOTH.split())).is_wider_than(narrow)
    assert not Credential("opaque", scopes=frozenset(BOTH.split())).is_wider_than(identity)
    assert not Credential("opaque").is_wider_than(narrow)
    for odd in ("a.b.c", "a.e30.c", "a.W10.c", "a.!.c", "ä.ö.ü"):
        assert Credential(odd).scopes is None


async def test_in_a_request_the_scopes_that_came_in_are_known_whatever_the_token_looks_like(town):
    """What the middleware bound is what the token allows here, so that re-binding less is a narrowing."""
    seen = []

    async def app(scope, receive, send):
        identity, credential = current_identity(), current_credential()
        seen.append(credential.is_wider_than(identity))
        seen.append(credential.scopes == identity.scopes)
        seen.append(credential.is_wider_than(narrowed(identity)))
        await PlainTextResponse("ok")(scope, receive, send)

    guard = TenantGuard(issuers=[Issuer(town.issuer.url, audience="documents", allow_private_addresses=True)])
    token = town.issuer.mint(scopes=BOTH)
    with serve(TenantGuardMiddleware(app, guard), lifespan="off") as url:
        async with open_client("httpx2", [], None) as client:
            for _ in range(2):
                answer = await client.get(url, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status, seen) == (200, [False, True, True] * 2)
