"""A token service that is slow, down, broken or hostile: the call is refused, nothing is sent, nothing is kept."""

import threading
import time
from contextlib import closing

import anyio
import pytest
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from tenantguard.context import bind
from tenantguard.errors import ExchangeError
from tenantguard.outbound import exchange as exchange_module
from tenantguard.outbound import sync_http_client
from tests.support.callers import caller
from tests.support.capture import ScriptedEndpoint
from tests.support.outbound_clients import CLIENTS, open_client
from tests.support.server import loopback_socket, serve
from tests.support.waiting import PATIENCE, Clock, Hanging, until

pytestmark = pytest.mark.anyio
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
TXN_TOKEN = "urn:ietf:params:oauth:token-type:txn_token"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=CLIENTS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def endpoint():
    app = ScriptedEndpoint()
    with serve(app) as url:
        app.url = url
        yield app


def good(token, **changes):
    return {
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 60,
        "scope": "invoices:read",
    } | changes


FAULTS = {
    "500": (lambda issuer: PlainTextResponse("boom", 500), "status 500"),
    "html": (lambda issuer: HTMLResponse("<h1>Log in</h1>"), "no token response"),
    "empty": (lambda issuer: Response(b""), "no token response"),
    "redirect": (lambda issuer: RedirectResponse("http://127.0.0.1:1/token", 307), "redirects"),
    "wider scope": (lambda issuer: good(issuer.mint(audience="billing"), scope="invoices:read admin"), "wider scopes"),
    "wider scope inside": (lambda issuer: good(issuer.mint(audience="billing", scopes="admin")), "wider scopes"),
    "other tenant": (lambda issuer: good(issuer.mint(audience="billing", tenant="globex")), "another tenant"),
    "other subject": (lambda issuer: good(issuer.mint("bob", audience="billing")), "another subject"),
    "other audience": (lambda issuer: good(issuer.mint(audience="search")), "another audience"),
    "other type": (lambda issuer: good("x", issued_token_type=TXN_TOKEN), "another type"),
    "refresh token": (
        lambda issuer: good("x", issued_token_type="urn:ietf:params:oauth:token-type:refresh_token"),
        "another type",
    ),
    "no bearer": (lambda issuer: good("x", token_type="N_A"), "no bearer token"),
    "expired": (lambda issuer: good(issuer.mint(audience="billing", expires_in=-5)), "expired"),
    "header injection": (lambda issuer: good("x\r\ny: z"), "can't be sent"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_bad_answer_sends_nothing_keeps_nothing_and_opens_the_circuit(town, kind, endpoint, fault):
    answer, message = FAULTS[fault]
    endpoint.forms.clear()
    endpoint.answer = lambda _: answer(town.issuer)
    identity, credential = caller(town.issuer, scopes="invoices:read")
    async with open_client(kind, town.destination(), town.exchange(token_endpoint=endpoint.url)) as client:
        with bind(identity, credential):
            for _ in range(5):
                with pytest.raises(ExchangeError, match=message) as raised:
                    await client.get(f"{town.billing_url}/x")
                assert credential.reveal() not in str(raised.value)
            with pytest.raises(ExchangeError, match="several times in a row"):
                await client.get(f"{town.billing_url}/x")
    assert len(endpoint.forms) == 5, "a failure is not kept, and the open circuit asks nobody"
    assert town.billing.requests == [], "there is no fall-back to the raw token"


async def test_the_caller_s_own_token_in_the_place_of_an_exchanged_one_is_refused(town, kind, endpoint):
    identity, credential = caller(town.issuer, scopes="invoices:read")
    endpoint.answer = lambda _: good(credential.reveal())
    async with open_client(kind, town.destination(), town.exchange(token_endpoint=endpoint.url)) as client:
        with bind(identity, credential), pytest.raises(ExchangeError, match="caller's own token"):
            await client.get(f"{town.billing_url}/x")
    assert town.billing.requests == []


async def test_a_slow_token_service_is_given_up_at_the_deadline(town, kind, endpoint):
    exchange = town.exchange(token_endpoint=endpoint.url, timeout=0.3)
    with Hanging() as endpoint.answer:
        async with open_client(kind, town.destination(), exchange) as client:
            began = time.monotonic()
            with bind(*caller(town.issuer)), pytest.raises(ExchangeError, match="did not answer in time"):
                await client.get(f"{town.billing_url}/x")
            assert time.monotonic() - began < 5
    assert town.billing.requests == []


async def test_a_token_service_that_is_down_is_a_clear_error_and_work_goes_on_when_it_is_back(town, kind, endpoint):
    with closing(loopback_socket()) as unused:
        down = f"http://127.0.0.1:{unused.getsockname()[1]}/token"
    async with open_client(kind, town.destination(), town.exchange(token_endpoint=down)) as client:
        with bind(*caller(town.issuer)), pytest.raises(ExchangeError, match="connection failed"):
            await client.get(f"{town.billing_url}/x")
    assert town.billing.requests == []
    endpoint.answer = lambda _: good(town.issuer.mint(audience="billing", scopes="invoices:read"))
    async with open_client(kind, town.destination(), town.exchange(token_endpoint=endpoint.url)) as client:
        with bind(*caller(town.issuer)):
            await client.get(f"{town.billing_url}/x")
    assert town.billing.requests[0].bearer


async def test_a_thousand_concurrent_first_calls_of_one_identity_make_one_exchange(town, endpoint):
    async def slowly(_):
        await anyio.sleep(0.2)
        return Response(
            content=b'{"access_token":"%s","issued_token_type":"%s","token_type":"Bearer","expires_in":60}'
            % (town.issuer.mint(audience="billing", scopes="invoices:read").encode(), ACCESS_TOKEN.encode()),
            media_type="application/json",
        )

    endpoint.forms.clear()
    endpoint.answer = slowly
    exchange = town.exchange(token_endpoint=endpoint.url)
    options = {"timeout": 60}
    async with open_client("httpx2", town.destination(), exchange, **options) as client:
        with bind(*caller(town.issuer, scopes="invoices:read")):
            async with anyio.create_task_group() as group:
                for _ in range(1000):
                    group.start_soon(client.get, f"{town.billing_url}/x")
    assert len(endpoint.forms) == 1
    assert len(town.billing.requests) == 1000
    assert len({captured.bearer for captured in town.billing.requests}) == 1


async def test_a_refresh_in_the_background_is_for_whom_it_refreshes_not_for_who_happened_to_call(
    town, endpoint, monkeypatch
):
    """Alice's token is due; the call that notices it is made next to Bob's, in a task that was started as Bob."""
    endpoint.forms.clear()

    def answer(form):
        subject = "alice" if form["subject_token"] == credential.reveal() else "bob"
        tenant = "acme" if subject == "alice" else "globex"
        return good(town.issuer.mint(subject, tenant=tenant, audience="billing", scopes="invoices:read"))

    endpoint.answer = answer
    identity, credential = caller(town.issuer, scopes="invoices:read")
    bob = caller(town.issuer, "bob", "globex", scopes="invoices:read")
    exchange = town.exchange(token_endpoint=endpoint.url)
    async with open_client("httpx2", town.destination(), exchange) as client:
        with bind(*bob):
            await client.get(f"{town.billing_url}/x")
            with bind(identity, credential):
                await client.get(f"{town.billing_url}/x")
                clock = Clock()
                clock.now += 50  # past four fifths of its life
                monkeypatch.setattr(exchange_module, "time", clock)
                await client.get(f"{town.billing_url}/x")
            await until(lambda: len(endpoint.forms) == 3)
    assert [form["subject_token"] == credential.reveal() for form in endpoint.forms] == [False, True, True]


def test_threads_that_call_at_once_make_one_exchange(town, endpoint, monkeypatch):
    """The token service fails once all of them have joined the exchange, and whoever came later would make another."""
    endpoint.forms.clear()
    exchange = town.exchange(token_endpoint=endpoint.url, timeout=PATIENCE)
    failures, start, joined = [], threading.Barrier(20), []
    join = exchange_module.TokenExchange._join

    def joining(self, request):
        flight = join(self, request)
        joined.append(flight)
        return flight

    async def fail(_):
        await until(lambda: len(joined) == 20)
        return PlainTextResponse("", 500)

    monkeypatch.setattr(exchange_module.TokenExchange, "_join", joining)
    endpoint.answer = fail
    bound = caller(town.issuer, scopes="invoices:read")

    def call():
        with sync_http_client(town.destination(), exchange) as client, bind(*bound):
            start.wait()
            try:
                client.get("/x")
            except ExchangeError as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(endpoint.forms), len(failures)) == (1, 20)
    assert len({id(failure) for failure in failures}) == 20, "each has an error of its own"
