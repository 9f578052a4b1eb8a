"""When the token service is left in peace, and for whom: no tenant shuts out another by what its own token causes."""

import threading
import time
from contextlib import closing

import anyio
import pytest
from starlette.responses import PlainTextResponse, Response

from tenantguard.errors import ExchangeError
from tenantguard.outbound import Destination
from tenantguard.outbound import circuit as circuit_module
from tenantguard.outbound.circuit import Blame, Circuit, Circuits
from tests.support.callers import caller
from tests.support.capture import ScriptedEndpoint
from tests.support.server import loopback_socket, serve

pytestmark = pytest.mark.anyio
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
BILLING = Destination("https://billing.example", audience="billing", scopes="invoices:read")
OWN = Destination("https://billing.example", audience="billing", mode="client_credentials")
OPEN = "several times in a row"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def endpoint(town):
    """A token service that fails for tenants whose name begins with ``bad``, as a test says, and serves all others."""
    app = ScriptedEndpoint()
    app.failure = lambda: PlainTextResponse("boom", 500)
    app.known = {}

    def answer(form):
        name = app.known.get(form.get("subject_token"))
        if name is None or name.startswith("bad"):
            return app.failure()
        token = town.issuer.mint(tenant=name, audience="billing", scopes="invoices:read")
        return {"access_token": token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 60}

    app.answer = answer
    with serve(app) as url:
        app.url = url
        yield app


async def ask(town, endpoint, exchange, tenant, number=0):
    """Ask for a token for one of a tenant's callers; return why there is none."""
    bound = caller(town.issuer, tenant=tenant, scopes="invoices:read", claims={"jti": f"{tenant}-{number}"})
    endpoint.known[bound[1].reveal()] = tenant
    try:
        assert await exchange.exchange(*bound, BILLING)
    except ExchangeError as error:
        return str(error)
    return None


def too_large():
    return Response(b'{"access_token":"' + b"x" * 100_000, media_type="application/json")


@pytest.mark.parametrize(
    "failure",
    [
        lambda: PlainTextResponse("boom", 500),
        lambda: PlainTextResponse("busy", 503),
        lambda: PlainTextResponse("no", 404),
        lambda: PlainTextResponse('{"error":"invalid_request"}', 400),
        lambda: PlainTextResponse('{"error":"unauthorized_client"}', 400),
        lambda: PlainTextResponse("slow down", 429),
        too_large,
        lambda: {"access_token": "x", "token_type": "Bearer", "expires_in": 60},
    ],
    ids=["500", "503", "404", "invalid_request", "unauthorized_client", "429", "too large", "another type"],
)
async def test_a_tenant_for_whom_the_token_service_always_fails_shuts_out_no_other(town, endpoint, failure):
    endpoint.failure = failure
    exchange = town.exchange(token_endpoint=endpoint.url)
    for number in range(12):
        assert await ask(town, endpoint, exchange, "bad-tenant", number)
    assert await ask(town, endpoint, exchange, "acme") is None


async def test_a_tenant_for_whom_the_token_service_hangs_shuts_out_no_other(town, endpoint):
    async def hang():
        await anyio.sleep(0.6)
        return PlainTextResponse("late", 504)

    endpoint.failure = hang
    exchange = town.exchange(token_endpoint=endpoint.url, timeout=0.2)
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ask, town, endpoint, exchange, "bad-tenant", number)
    assert OPEN in await ask(town, endpoint, exchange, "bad-tenant", 99)
    assert await ask(town, endpoint, exchange, "acme") is None


async def test_one_caller_with_unusable_answers_shuts_out_no_other_of_its_tenant(town, endpoint):
    exchange = town.exchange(token_endpoint=endpoint.url)
    bound = caller(town.issuer, tenant="acme", scopes="invoices:read", claims={"jti": "odd"})
    endpoint.failure = lambda: PlainTextResponse("<h1>Log in</h1>")
    for _ in range(5):
        with pytest.raises(ExchangeError, match="no token response"):
            await exchange.exchange(*bound, BILLING)
    with pytest.raises(ExchangeError, match=OPEN):
        await exchange.exchange(*bound, BILLING)
    assert await ask(town, endpoint, exchange, "acme") is None


async def test_a_token_service_that_fails_for_several_tenants_is_left_in_peace_by_all(town, endpoint):
    exchange = town.exchange(token_endpoint=endpoint.url)
    for number in range(5):
        await ask(town, endpoint, exchange, f"bad-{number % 2}", number)
    before = len(endpoint.forms)
    assert OPEN in await ask(town, endpoint, exchange, "acme")
    assert len(endpoint.forms) == before
    await anyio.sleep(1.1)
    assert await ask(town, endpoint, exchange, "acme") is None


async def test_a_token_service_that_can_not_be_reached_is_left_in_peace_by_all(town, endpoint):
    with closing(loopback_socket()) as unused:
        exchange = town.exchange(token_endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}/token")
        for number in range(5):
            assert "connection failed" in await ask(town, endpoint, exchange, "bad-tenant", number)
        assert OPEN in await ask(town, endpoint, exchange, "acme")


async def test_what_fails_for_the_service_itself_would_fail_for_everybody(town, endpoint):
    exchange = town.exchange(token_endpoint=endpoint.url)
    for _ in range(5):
        with pytest.raises(ExchangeError, match="500"):
            await exchange.client_credentials(OWN)
    assert OPEN in await ask(town, endpoint, exchange, "acme")


def test_after_the_pause_one_tenant_s_failed_attempt_neither_lengthens_it_nor_keeps_others_waiting():
    circuit = Circuit(pause=0.05, parties=2)
    for number in range(5):
        circuit.failed(time.monotonic(), number % 2)
    assert circuit.seconds_left() > 0
    time.sleep(0.06)
    assert circuit.seconds_left() == 0
    circuit.attempt(5)
    assert circuit.seconds_left() > 4, "while the one attempt lasts, others wait"
    circuit.failed(time.monotonic(), 0)
    assert circuit.seconds_left() == 0, "it was that tenant's word alone"
    circuit.attempt(5)
    circuit.failed(time.monotonic(), 1)
    assert 0.05 < circuit.seconds_left() <= 0.1, "twice as long as before"
    circuit.succeeded()
    assert circuit.seconds_left() == 0


def test_failures_of_requests_that_began_before_it_opened_do_not_lengthen_the_pause():
    circuit, began = Circuit(pause=0.2), time.monotonic()
    for _ in range(50):
        circuit.failed(began)
    assert circuit.seconds_left() <= 0.2


def test_the_number_of_circuits_is_bounded_and_threads_may_share_them(monkeypatch):
    monkeypatch.setattr(circuit_module, "MAX_CIRCUITS", 20)
    circuits = Circuits()

    def fail(thread):
        for number in range(200):
            circuits.ended(f"t{thread}-{number}", f"w{number}", time.monotonic(), list(Blame)[number % 4])
            circuits.seconds_open(f"t{number}", "w", 0.0)

    threads = [threading.Thread(target=fail, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(circuits._own) <= 20
