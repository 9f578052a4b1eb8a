"""The guard's short ways to outbound calls, and the hook for clients that nobody wrote an integration for."""

import threading
import urllib.request

import httpx2
import jwt
import msgspec
import pytest
from websockets.sync.client import connect

from tenantguard import Issuer, TenantGuard, system
from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, ExchangeError, NotBound, OutboundError
from tenantguard.identity import Confirmation
from tenantguard.outbound import Carrier, Destination, Destinations
from tests.support.callers import caller
from tests.support.server import serve

pytestmark = pytest.mark.anyio
SCOPES = "invoices:read invoices:write"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def guard_of(town, **options):
    issuer = Issuer(town.issuer.url, audience="documents", allow_private_addresses=True)
    return TenantGuard(issuers=[issuer], exchange=town.exchange(), **options)


async def test_one_client_serves_all_declared_destinations_and_nobody_else(town):
    plain = Destination(town.stranger_url, mode="none")
    async with guard_of(town, destinations=[town.destination(), plain]) as guard, guard.http_client() as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{town.billing_url}/x")
            await client.get(f"{town.stranger_url}/x")
    assert claims(town.billing.requests[0].bearer)["sub"] == "alice"
    assert "authorization" not in town.stranger.requests[0].headers


async def test_a_client_for_a_declared_origin_needs_no_more_words(town):
    async with guard_of(town, destinations=[town.destination()]) as guard:
        async with guard.http_client(town.billing_url) as client:
            with bind(*caller(town.issuer, scopes=SCOPES)):
                await client.get("/x")
        with (
            guard.sync_http_client(town.destination(scopes="invoices:write")) as blocking,
            bind(*caller(town.issuer, scopes=SCOPES)),
        ):
            blocking.get("/x")
    assert [claims(one.bearer)["scope"] for one in town.billing.requests] == ["invoices:read", "invoices:write"]


async def test_the_hook_gives_any_client_the_headers_of_one_request(town):
    async with guard_of(town, destinations=[town.destination()]) as guard:
        assert await guard.outbound_headers(f"{town.stranger_url}/x") == {}
        with pytest.raises(NotBound):
            await guard.outbound_headers(f"{town.billing_url}/x")
        with bind(*caller(town.issuer, scopes=SCOPES)):
            headers = await guard.outbound_headers(f"{town.billing_url}/x")
            assert list(headers) == ["authorization"]
            assert guard.sync_outbound_headers(f"{town.billing_url}/y") == headers
            for hostile in ("http://user@127.0.0.1/", f"{town.billing_url}.evil.example/", "", "http://["):
                assert await guard.outbound_headers(hostile) == {}
            request = urllib.request.Request(f"{town.billing_url}/x", headers=headers)
        thread = threading.Thread(target=lambda: urllib.request.urlopen(request, timeout=5).read())
        thread.start()
        thread.join()
    assert claims(town.billing.requests[0].bearer)["sub"] == "alice"


async def test_a_websocket_client_carries_the_caller_by_the_hook(town):
    seen = []

    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        seen.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    with serve(app) as url:
        declared = Destination(url, audience="billing", scopes="invoices:read")
        async with guard_of(town, destinations=[declared]) as guard:
            with bind(*caller(town.issuer, scopes=SCOPES)):
                address = url.replace("http:", "ws:") + "/live"
                headers = await guard.outbound_headers(address)
                with connect(address, additional_headers=headers):
                    pass
                assert await guard.outbound_headers(address.replace("127.0.0.1", "localhost")) == {}
    assert claims(seen[0].removeprefix("Bearer "))["sub"] == "alice"


async def test_an_event_stream_is_read_while_it_comes_and_carries_the_caller(town):
    seen = []

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        seen.append(dict(scope["headers"])[b"authorization"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with serve(app) as url:
        declared = Destination(url, audience="billing", scopes="invoices:read")
        async with guard_of(town, destinations=[declared]) as guard, guard.http_client() as client:
            with bind(*caller(town.issuer, scopes=SCOPES)):
                async with client.stream("GET", f"{url}/events") as response:
                    lines = [line async for line in response.aiter_lines() if line]
    assert lines == ["data: 0", "data: 1", "data: 2"]
    assert claims(seen[0].removeprefix("Bearer "))["sub"] == "alice"


async def test_a_webhook_tells_its_receiver_nothing_of_the_caller(town):
    """A webhook goes to a URL that a customer wrote: nobody declared it, and it may redirect anywhere."""
    town.stranger.redirects["/hook"] = (307, f"{town.billing_url}/internal")
    identity, credential = caller(town.issuer, scopes=SCOPES)
    guard = guard_of(town, destinations=[town.destination()], strict_outbound=True)
    async with guard, guard.http_client() as client:
        with bind(identity, credential):
            await client.post(f"{town.stranger_url}/hook", json={"event": "invoice.paid"})
            with pytest.raises(OutboundError):
                await client.post(f"{town.stranger_url}/hook", headers={"X-Token": credential.reveal()})
            with pytest.raises(OutboundError):
                await client.post(f"{town.stranger_url}/hook", headers={"X-Tenant-ID": "acme"})
    (captured,) = town.stranger.requests
    assert captured.body == b'{"event":"invoice.paid"}'
    assert "authorization" not in captured.headers
    assert town.billing.requests == [], "redirects are not followed unless asked for"


async def test_a_webhook_that_is_redirected_into_the_house_gets_no_token_there(town):
    town.stranger.redirects["/hook"] = (302, f"{town.billing_url}/internal")
    guard = guard_of(town, destinations=[town.destination()])
    async with guard, guard.http_client(follow_redirects=True) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.post(f"{town.stranger_url}/hook", json={})
    assert [one.bearer for one in town.billing.requests] == [None]


async def test_a_service_with_a_token_of_its_own_shows_it_and_is_named_as_the_actor(town):
    exchange = town.exchange(actor_audience="documents")
    agent = {"sub": "copilot", "actor_type": "agent", "model": "m1"}
    with bind(*caller(town.issuer, act=agent, scopes=SCOPES)):
        for _ in range(2):
            headers = await Carrier(town.destination(), exchange).headers(town.billing_url)
    carried = claims(headers["authorization"].removeprefix("Bearer "))
    assert carried["act"]["sub"] == "documents"
    assert carried["act"]["act"]["sub"] == "copilot"


async def test_a_sender_constrained_token_is_not_forwarded(town):
    identity, credential = caller(town.issuer)
    bound = msgspec.structs.replace(identity, confirmation=Confirmation(jkt="thumbprint"))
    with bind(bound, credential), pytest.raises(OutboundError, match="only the caller holds"):
        await Carrier(town.destination(mode="forward")).headers(town.billing_url)


async def test_a_forwarded_transaction_token_stays_in_its_own_header(town):
    identity, _ = caller(town.issuer)
    txn = Credential("a.b.c", "urn:ietf:params:oauth:token-type:txn_token")
    with bind(identity, txn):
        assert await Carrier(town.destination(mode="forward")).headers(town.billing_url) == {"txn-token": "a.b.c"}


def test_what_can_not_work_is_refused_when_it_is_declared(town):
    with pytest.raises(ConfigurationError, match="declared twice"):
        Destinations([town.destination(), town.destination(scopes="other")])
    with pytest.raises(ConfigurationError, match="has a str in it"):
        Destinations(["https://billing.example"])
    with pytest.raises(ConfigurationError, match="needs a token service"):
        Carrier(town.destination())
    guard = guard_of(town)
    with pytest.raises(ConfigurationError, match="no destinations"):
        guard.http_client()
    with pytest.raises(TypeError, match="base_url"):
        guard.http_client(town.destination(), base_url="http://127.0.0.1:1")


async def test_a_system_context_never_calls_out_for_the_caller_around_it(town):
    with bind(*caller(town.issuer, scopes=SCOPES)), system("nightly run"), pytest.raises(NotBound):
        await Carrier(town.destination(), town.exchange()).headers(town.billing_url)


async def test_a_failing_token_service_sends_nothing_by_the_hook(town):
    with bind(*caller(town.issuer, scopes="documents:read")), pytest.raises(ExchangeError, match="invalid_scope"):
        await Carrier(town.destination(), town.exchange()).headers(town.billing_url)


def test_an_httpx2_transport_of_the_app_s_own_still_gets_the_token(town):
    transport = httpx2.HTTPTransport(retries=2)
    guard = guard_of(town, destinations=[town.destination()])
    with (
        guard.sync_http_client(town.billing_url, transport=transport) as client,
        bind(*caller(town.issuer, scopes=SCOPES)),
    ):
        client.get("/x")
    assert claims(town.billing.requests[0].bearer)["sub"] == "alice"
