"""The token exchange client against the development issuer and against token services that misbehave."""

import contextvars
import socket
import threading
import time
from contextlib import closing

import anyio
import jwt
import msgspec
import pytest
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from tenantguard.bearer import PresentedToken
from tenantguard.binding import Credential, current_binding
from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, ExchangeError, NotBound
from tenantguard.outbound import Cargo, Destination, TokenExchange, TokenRequest
from tenantguard.outbound import exchange as exchange_module
from tenantguard.outbound.answers import Answer
from tenantguard.testing import DevClient
from tests.support.callers import caller
from tests.support.capture import CapturingApp, ScriptedEndpoint
from tests.support.server import serve, serve_issuer
from tests.support.waiting import PATIENCE, Clock, until

pytestmark = pytest.mark.anyio
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
BILLING = Destination("https://billing.example", audience="billing", scopes="invoices:read")
OWN = Destination("https://billing.example", audience="billing", scopes="sync:run", mode="client_credentials")
SECRET = "client s3cret: ü%+"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Counting:
    """Counts and delays the requests to the token endpoint of an issuer."""

    def __init__(self, app):
        self.app, self.count, self.delay, self.over = app, 0, 0.0, False

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].endswith("/token"):
            self.count += 1
            ends = anyio.current_time() + self.delay
            while anyio.current_time() < ends and not self.over:
                await anyio.sleep(0.01)
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def running():
    clients = [
        DevClient(
            "documents",
            SECRET,
            accepts="documents",
            audiences="billing",
            scopes="invoices:read invoices:write sync:run",
        )
    ]
    with serve_issuer(clients=clients, audience="documents") as issuer:
        yield issuer


@pytest.fixture
def issuer(running):
    """The issuer with a counter of its own; it is reached through `counted`."""
    return running


@pytest.fixture
def counted(issuer):
    counting = Counting(issuer.app)
    with serve(counting) as url:
        counting.token_endpoint = f"{url}/token"
        yield counting
        counting.over = True


def client(url, **options):
    return TokenExchange(url, **{"client_id": "documents", "client_secret": SECRET, **options})


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


# --- against the development issuer -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_the_caller_is_carried_by_a_narrower_token_that_names_the_service_as_actor(issuer, method):
    exchange = client(issuer.token_endpoint, client_authentication=method)
    identity, credential = caller(issuer, scopes="invoices:read documents:write")
    claims = claims_of(await exchange.exchange(identity, credential, BILLING))
    assert (claims["sub"], claims["tenant_id"], claims["aud"]) == ("alice", "acme", "billing")
    assert (claims["scope"], claims["act"]["sub"]) == ("invoices:read", "documents")
    await exchange.aclose()


async def test_the_service_gets_a_token_of_its_own_whoever_is_bound(issuer):
    exchange = client(issuer.token_endpoint)
    with bind(*caller(issuer)):
        claims = claims_of(await exchange.client_credentials(OWN))
    assert (claims["sub"], claims["scope"]) == ("documents", "sync:run")
    assert "tenant_id" not in claims
    await exchange.aclose()


async def test_a_token_is_kept_for_the_same_caller_and_for_nobody_else(issuer, counted):
    exchange = client(counted.token_endpoint)
    alice = caller(issuer, scopes="invoices:read invoices:write")
    first = await exchange.exchange(*alice, BILLING)
    assert await exchange.exchange(*alice, BILLING) == first
    assert counted.count == 1
    bob = caller(issuer, "bob", "globex", scopes="invoices:read")
    assert claims_of(await exchange.exchange(*bob, BILLING))["tenant_id"] == "globex"
    again = caller(issuer, scopes="invoices:read", claims={"jti": "another"})
    assert await exchange.exchange(*again, BILLING) != first
    wider = Destination("https://billing.example", audience="billing", scopes="invoices:read invoices:write")
    assert claims_of(await exchange.exchange(*alice, wider))["scope"] == "invoices:read invoices:write"
    assert counted.count == 4
    await exchange.aclose()


async def test_an_identity_that_differs_from_its_token_gets_no_token_of_the_cache(issuer):
    exchange = client(issuer.token_endpoint)
    identity, credential = caller(issuer, scopes="invoices:read")
    await exchange.exchange(identity, credential, BILLING)
    other, _ = caller(issuer, "alice", "globex", scopes="invoices:read")
    with pytest.raises(ExchangeError, match="another tenant"):
        await exchange.exchange(other, credential, BILLING)
    other, _ = caller(issuer, "mallory", scopes="invoices:read")
    with pytest.raises(ExchangeError, match="another subject"):
        await exchange.exchange(other, credential, BILLING)
    await exchange.aclose()


async def test_a_thousand_concurrent_first_calls_make_one_exchange(issuer, counted):
    exchange = client(counted.token_endpoint)
    alice, counted.delay, tokens = caller(issuer, scopes="invoices:read"), 0.1, set()

    async def one():
        tokens.add(await exchange.exchange(*alice, BILLING))

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(one)
    assert (counted.count, len(tokens)) == (1, 1)
    await exchange.aclose()


async def test_a_waiter_that_is_cancelled_takes_nothing_from_the_others(issuer, counted):
    exchange = client(counted.token_endpoint)
    alice, counted.delay, tokens = caller(issuer, scopes="invoices:read"), 0.3, []

    async def starter():
        with anyio.move_on_after(0.05):
            await exchange.exchange(*alice, BILLING)

    async def waiter():
        await anyio.sleep(0.02)
        tokens.append(await exchange.exchange(*alice, BILLING))

    async with anyio.create_task_group() as group:
        group.start_soon(starter)
        for _ in range(5):
            group.start_soon(waiter)
    assert (counted.count, len(tokens)) == (1, 5)
    await exchange.aclose()


async def test_a_token_is_refreshed_ahead_of_time_while_it_is_used(monkeypatch):
    clients = [DevClient("documents", SECRET, accepts="documents", audiences="billing")]
    with serve_issuer(clients=clients, audience="documents", lifetime=60) as issuer:
        exchange = client(issuer.token_endpoint)
        request = TokenRequest.on_behalf_of(*caller(issuer, scopes="invoices:read"), BILLING)
        first = await exchange.obtain(request)
        clock = Clock()
        monkeypatch.setattr(exchange_module, "time", clock)
        clock.now += 45
        assert exchange.cached(request) == first
        assert not exchange._flights
        clock.now += 6  # past four fifths of its life
        assert exchange.cached(request) == first, "and nobody waits for the successor"
        await until(lambda: exchange.cached(request) not in (None, first))
        clock.now += 60
        assert exchange.cached(request) is None
        await exchange.aclose()


# --- threads and contexts -----------------------------------------------------------------------------------


def test_threads_and_event_loops_share_one_exchange(issuer, counted):
    exchange = client(counted.token_endpoint)
    request = TokenRequest.on_behalf_of(*caller(issuer, scopes="invoices:read"), BILLING)
    counted.delay, tokens, start = 0.2, [], threading.Barrier(12)

    def in_loop(backend):
        async def main():
            return await exchange.obtain(request)

        start.wait()
        tokens.append(anyio.run(main, backend=backend))

    def in_thread():
        start.wait()
        tokens.append(exchange.obtain_blocking(request))

    threads = [threading.Thread(target=in_loop, args=(backend,)) for backend in ("asyncio", "trio") * 3]
    threads += [threading.Thread(target=in_thread) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counted.count, len(tokens), len(set(tokens))) == (1, 12, 1)
    exchange.close()


async def test_no_exchange_runs_in_the_context_of_the_task_that_started_it(issuer, monkeypatch):
    seen = []
    real = exchange_module.read_answer

    def spy(*args, **options):
        seen.append((current_binding(), len(contextvars.copy_context())))
        return real(*args, **options)

    monkeypatch.setattr(exchange_module, "read_answer", spy)
    # Threads of some builds of Python inherit their starter's context; make all of them do so here.
    start = threading.Thread.start

    def inheriting_start(self):
        run, context = self.run, contextvars.copy_context()
        self.run = lambda: context.run(run)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", inheriting_start)
    exchange = client(issuer.token_endpoint)
    with bind(*caller(issuer, "bob", "globex")):
        await exchange.exchange(*caller(issuer, scopes="invoices:read"), BILLING)
    assert seen == [(None, 0)]
    await exchange.aclose()


def test_a_request_for_a_token_is_read_from_the_context_or_refused(issuer):
    with pytest.raises(NotBound, match="client_credentials"):
        TokenRequest.from_context(BILLING)
    identity, credential = caller(issuer)
    with bind(identity), pytest.raises(NotBound):
        TokenRequest.from_context(BILLING)
    with bind(identity, credential):
        request = TokenRequest.from_context(BILLING)
        assert request.identity is identity
        assert credential.reveal() not in repr(request) + repr(request.key)
        assert TokenRequest.from_context(OWN).identity is None


# --- token services that misbehave --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripted_server():
    app = ScriptedEndpoint()
    with serve(app) as url:
        app.url = url
        yield app


@pytest.fixture
def scripted(scripted_server):
    scripted_server.forms.clear()
    return scripted_server


def good(token, **changes):
    return {
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 60,
        "scope": "invoices:read",
    } | changes


async def test_the_request_is_that_of_rfc_8693(issuer, scripted):
    exchange = client(scripted.url)
    identity, credential = caller(issuer, scopes="invoices:read")
    scripted.answer = lambda _: good(issuer.mint(audience="billing", scopes="invoices:read"))
    await exchange.exchange(identity, credential, BILLING)
    assert scripted.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": credential.reveal(),
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
            "audience": "billing",
            "scope": "invoices:read",
        }
    ]
    await exchange.aclose()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda issuer: PlainTextResponse("boom", 500), "status 500"),
        (lambda issuer: HTMLResponse("<h1>Log in</h1>"), "no token response"),
        (lambda issuer: HTMLResponse("<h1>Log in</h1>", 503), "status 503"),
        (lambda issuer: RedirectResponse("http://127.0.0.1:1/token", 307), "redirects"),
        (lambda issuer: Response(b'{"access_token":"' + b"x" * 100_000), "larger than"),
        (lambda issuer: Response(b"x", headers={"content-encoding": "gzip"}), "compressed"),
        (lambda issuer: good(issuer.mint(audience="billing"), scope="invoices:read admin"), "wider scopes"),
        (lambda issuer: good(issuer.mint(audience="billing", tenant="globex")), "another tenant"),
        (lambda issuer: good(issuer.mint("bob", audience="billing")), "another subject"),
        (lambda issuer: good(issuer.mint(audience="search")), "another audience"),
        (lambda issuer: good("x", token_type="mac"), "no bearer token"),
        (lambda issuer: good("x", issued_token_type="urn:ietf:params:oauth:token-type:saml2"), "another type"),
        (lambda issuer: good("x\r\ny: z"), "can't be sent"),
    ],
)
async def test_a_bad_answer_is_refused_not_kept_and_opens_the_circuit(issuer, scripted, answer, message):
    exchange = client(scripted.url)
    identity, credential = caller(issuer, scopes="invoices:read")
    scripted.answer = lambda _: answer(issuer)
    for _ in range(5):
        with pytest.raises(ExchangeError, match=message) as raised:
            await exchange.exchange(identity, credential, BILLING)
        assert credential.reveal() not in str(raised.value)
        assert SECRET not in str(raised.value)
    assert len(scripted.forms) == 5, "a failure is not kept"
    with pytest.raises(ExchangeError, match="failed several times in a row"):
        await exchange.exchange(identity, credential, BILLING)
    assert len(scripted.forms) == 5, "the open circuit asks nobody"
    await exchange.aclose()


async def test_the_circuit_closes_again_when_the_token_service_recovers(issuer, scripted):
    exchange = client(scripted.url)
    alice = caller(issuer, scopes="invoices:read")
    scripted.answer = lambda _: PlainTextResponse("", 500)
    for _ in range(5):
        with pytest.raises(ExchangeError, match="status 500"):
            await exchange.exchange(*alice, BILLING)
    scripted.answer = lambda _: good(issuer.mint(audience="billing", scopes="invoices:read"))
    with pytest.raises(ExchangeError, match="asked again in"):
        await exchange.exchange(*alice, BILLING)
    await anyio.sleep(1.1)
    assert await exchange.exchange(*alice, BILLING)
    await exchange.aclose()


async def test_refusals_of_single_callers_never_open_the_circuit(issuer):
    exchange = client(issuer.token_endpoint)
    for number in range(8):
        identity, expired = caller(issuer, f"user{number}", expires_in=-10)
        identity = msgspec.structs.replace(identity, expires_at=None)  # as of an opaque token: only its issuer knows
        with pytest.raises(ExchangeError, match="refused with invalid_request"):
            await exchange.exchange(identity, expired, BILLING)
    with pytest.raises(ExchangeError, match="invalid_scope"):
        await exchange.exchange(*caller(issuer, scopes="documents:read"), BILLING)
    assert await exchange.exchange(*caller(issuer, scopes="invoices:read"), BILLING)
    await exchange.aclose()


async def test_a_slow_token_service_is_given_up_at_the_deadline(issuer, counted):
    exchange = client(counted.token_endpoint, timeout=0.3)
    counted.delay = 60
    began = time.monotonic()
    with pytest.raises(ExchangeError, match="did not answer in time"):
        await exchange.exchange(*caller(issuer, scopes="invoices:read"), BILLING)
    assert time.monotonic() - began < 5
    await exchange.aclose()


def test_a_token_service_that_drips_bytes_is_given_up_at_the_deadline(issuer):
    stop, hung_up = threading.Event(), threading.Event()

    def drip(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    hung_up.set()
                    return

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        exchange = client(f"http://127.0.0.1:{listening.getsockname()[1]}/token", timeout=0.4)
        began = time.monotonic()
        request = TokenRequest.on_behalf_of(*caller(issuer, scopes="invoices:read"), BILLING)
        with pytest.raises(ExchangeError, match="did not answer in time"):
            exchange.obtain_blocking(request)
        assert time.monotonic() - began < 5
        assert hung_up.wait(PATIENCE), "the thread itself ended, not only the wait for it"
        stop.set()
        thread.join(PATIENCE)
        exchange.close()


async def test_a_token_service_that_is_down_is_a_clear_error(issuer):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        exchange = client(f"http://127.0.0.1:{unused.getsockname()[1]}/token")
        with pytest.raises(ExchangeError, match="connection failed"):
            await exchange.exchange(*caller(issuer, scopes="invoices:read"), BILLING)
        await exchange.aclose()


async def test_a_connection_that_the_token_service_closed_is_opened_again(issuer):
    """Each connection serves one request and is then closed, though nothing said so."""
    token = issuer.mint(audience="billing", scopes="invoices:read")
    body = (
        f'{{"access_token":"{token}","issued_token_type":"{ACCESS_TOKEN}","token_type":"Bearer","expires_in":60}}'
    ).encode()

    def answer_and_close(listening):
        for _ in range(3):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=answer_and_close, args=(listening,), daemon=True)
        thread.start()
        exchange = client(f"http://127.0.0.1:{listening.getsockname()[1]}/token")
        for number in range(3):
            alice = caller(issuer, scopes="invoices:read", claims={"jti": str(number)})
            assert await exchange.exchange(*alice, BILLING) == token
        thread.join(PATIENCE)
        await exchange.aclose()


async def test_a_redirecting_token_endpoint_tells_the_target_nothing(issuer, scripted):
    stranger = CapturingApp()
    with serve(stranger) as url:
        for status in (301, 302, 303, 307, 308):
            scripted.answer = lambda _, status=status: RedirectResponse(f"{url}/token", status)
            exchange = client(scripted.url)
            with pytest.raises(ExchangeError, match="redirects"):
                await exchange.exchange(*caller(issuer, scopes="invoices:read"), BILLING)
            await exchange.aclose()
    assert stranger.requests == []


# --- bounds and configuration -------------------------------------------------------------------------------


async def test_work_that_outlives_the_caller_s_token_gets_no_token_from_a_lenient_token_service(issuer, scripted):
    identity, credential = caller(issuer, expires_in=-5)
    exchange = client(scripted.url)
    for _ in range(6):
        with pytest.raises(ExchangeError, match="the caller's own token has expired"):
            await exchange.exchange(identity, credential, BILLING)
    exchange.close()
    assert scripted.forms == [], "nobody was asked, and the circuit stays closed for others"


async def test_the_number_of_kept_tokens_is_bounded_and_used_ones_stay(issuer, counted):
    exchange = client(counted.token_endpoint, max_tokens=3)
    callers = [caller(issuer, f"user{number}", scopes="invoices:read") for number in range(6)]
    used = TokenRequest.on_behalf_of(*callers[0], BILLING)
    token = await exchange.obtain(used)
    for one in callers[1:]:
        assert exchange.cached(used) == token
        await exchange.exchange(*one, BILLING)
        assert len(exchange._cache) <= 3
    assert exchange.cached(used) == token
    assert exchange.cached(TokenRequest.on_behalf_of(*callers[1], BILLING)) is None
    await exchange.aclose()


async def test_a_closed_exchange_refuses_and_keeps_nothing(issuer):
    exchange = client(issuer.token_endpoint)
    request = TokenRequest.on_behalf_of(*caller(issuer, scopes="invoices:read"), BILLING)
    await exchange.obtain(request)
    await exchange.aclose()
    assert exchange.cached(request) is None
    with pytest.raises(ExchangeError, match="closed"):
        await exchange.obtain(request)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://idp.example/token", {}),
        ("https://user:pass@idp.example/token", {}),
        ("idp.example/token", {}),
        ("https://idp.example/token", {"client_secret": ""}),
        ("https://idp.example/token", {"client_id": ""}),
        ("https://idp.example/token", {"client_authentication": "none"}),
        ("https://idp.example/token", {"timeout": 0}),
        ("https://idp.example/token", {"timeout": 600}),
        ("https://idp.example/token", {"max_tokens": 0}),
    ],
)
def test_settings_that_can_not_work_are_refused_at_once(url, options):
    with pytest.raises(ConfigurationError) as raised:
        client(url, **options)
    assert SECRET not in str(raised.value)


def test_no_repr_shows_a_secret_or_a_token(issuer):
    exchange = client(issuer.token_endpoint)
    identity, credential = caller(issuer, scopes="invoices:read")
    request = TokenRequest.on_behalf_of(identity, credential, BILLING)
    token = exchange.obtain_blocking(request)
    cargo = Cargo("authorization", f"Bearer {token}", request)
    answer = Answer(access_token=token, token_type="Bearer")
    presented = PresentedToken(token)
    shown = repr([exchange, exchange._endpoint, exchange._cache.find(request.key), request, Credential(token)])
    shown += repr([cargo, answer, presented]) + f"{cargo} {answer} {presented}"
    assert SECRET not in shown
    assert token not in shown
    assert credential.reveal() not in shown
    exchange.close()
