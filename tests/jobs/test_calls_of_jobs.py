"""A job that runs when its request is long gone calls another service, which sees for whom; over real sockets."""

import time

import jwt
import pytest

from tenantguard import Issuer, TenantGuard
from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.errors import ExchangeError, NotBound, OutboundError
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.jobs import JobKeys, Jobs
from tenantguard.outbound import Destination, TokenExchange, http_client
from tenantguard.testing import DevClient
from tests.support.capture import CapturingApp
from tests.support.server import serve, serve_issuer

pytestmark = pytest.mark.anyio
KEYS = JobKeys(b"a secret of at least thirty-two bytes")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def town():
    audiences = "billing trust.example"
    client = DevClient("documents", "s3cret", audiences=audiences, scopes="read write", jwks=KEYS.public_jwks)
    other = DevClient("other", "s3cret", audiences="billing", jwks=KEYS.public_jwks)
    billing = CapturingApp()
    with (
        serve_issuer(clients=[client, other], audience="documents", trust_domain="trust.example") as issuer,
        serve(billing) as url,
    ):
        yield issuer, billing, Destination(url, audience="billing", scopes="read")


def jobs(issuer, **options):
    made = Jobs(KEYS, service="documents", **{"assertion_audience": issuer.url, **options})
    made.declare("export", scopes="read")
    return made


def sealed(made):
    alice = Actor("alice", ActorType.HUMAN)
    copilot = Actor("copilot", ActorType.AGENT, model="m1")
    caller = Identity(
        subject=alice,
        actor=copilot,
        tenant=Tenant("acme"),
        scopes=frozenset({"read", "write"}),
        issued_at=int(time.time()) - 3600,
        expires_at=int(time.time()) - 60,  # the token of the request has expired
    )
    with bind(caller, Credential("expired")):
        return made.capsule("export", queue="q")


async def call(town, made, text, client="documents"):
    issuer, billing, destination = town
    billing.clear()
    exchange = TokenExchange(issuer.token_endpoint, client_id=client, client_secret="s3cret")
    try:
        async with http_client(destination, exchange) as http, made.running(text, task="export", queue="q"):
            await http.get("/x")
    finally:
        exchange.close()
    return jwt.decode(billing.requests[0].bearer, options={"verify_signature": False})


async def test_a_job_calls_on_in_the_name_of_whom_it_was_put_off_for(town):
    made = jobs(town[0])
    claims = await call(town, made, sealed(made))
    assert (claims["sub"], claims["tenant_id"], claims["aud"], claims["scope"]) == ("alice", "acme", "billing", "read")
    assert claims["act"]["sub"] == "documents"
    assert claims["act"]["act"]["sub"] == "copilot"
    assert "act" not in claims["act"]["act"]


async def test_a_job_begins_a_transaction_of_its_own(town):
    issuer, billing, destination = town
    inside = Destination(destination.base_url, audience="trust.example", scopes="read", mode="transaction")
    made = jobs(issuer)
    exchange = TokenExchange(issuer.token_endpoint, client_id="documents", client_secret="s3cret")
    billing.clear()
    async with http_client(inside, exchange) as http, made.running(sealed(made), task="export", queue="q"):
        await http.get("/x")
        await http.get("/x")
    exchange.close()
    first, second = (captured.headers["txn-token"] for captured in billing.requests)
    claims = jwt.decode(first, options={"verify_signature": False})
    assert first == second
    assert (claims["sub"], claims["tctx"]["tenant_id"], claims["req_wl"]) == ("alice", "acme", "documents")
    assert claims["act"]["act"]["sub"] == "copilot"


async def test_a_job_gets_no_scope_that_it_was_not_declared_with(town):
    issuer, billing, destination = town
    wider = Destination(destination.base_url, audience="billing", scopes="read write")
    with pytest.raises(ExchangeError, match="invalid_scope"):
        made = jobs(issuer)
        await call((issuer, billing, wider), made, sealed(made))


async def test_nobody_else_can_use_the_assertion_and_the_capsule_is_none(town):
    issuer, _, _ = town
    made = jobs(issuer)
    with pytest.raises(ExchangeError, match="invalid_request"):
        await call(town, made, sealed(made), client="other")
    elsewhere = jobs(issuer, assertion_audience="https://other.example")
    with pytest.raises(ExchangeError, match="invalid_request"):
        await call(town, elsewhere, sealed(elsewhere))
    capsule = sealed(made)
    exchange = TokenExchange(issuer.token_endpoint, client_id="documents", client_secret="s3cret")
    found = (await made.open(capsule, task="export", queue="q")).identity
    for kind in ("jwt", "access_token"):
        raw = Credential(capsule, f"urn:ietf:params:oauth:token-type:{kind}")
        with pytest.raises(ExchangeError, match="invalid_request"):
            await exchange.exchange(found, raw, town[2])
    exchange.close()


async def test_without_an_audience_for_assertions_a_job_calls_nobody(town):
    made = jobs(town[0], assertion_audience=None)
    with pytest.raises(NotBound):
        await call(town, made, sealed(made))


async def test_the_assertion_of_a_job_is_never_forwarded_to_a_destination(town):
    issuer, billing, destination = town
    made = jobs(issuer)
    forward = Destination(destination.base_url, mode="forward")
    with pytest.raises(OutboundError, match="forwarded"):
        await call((issuer, billing, forward), made, sealed(made))
    assert billing.requests == []


def test_the_guard_makes_jobs_with_its_own_revocations():
    guard = TenantGuard(issuers=[Issuer("https://login.example.com", audience="x")])
    made = guard.jobs(KEYS, service="documents")
    assert made._revocations is guard.revocations
