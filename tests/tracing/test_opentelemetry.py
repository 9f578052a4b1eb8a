"""Traces over real sockets: one trace through two services, spans that tell for whom, and baggage that does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tenantguard_opentelemetry import (
    GuardedPropagator,
    IdentityAttributes,
    IdentitySpanProcessor,
    async_trace_hook,
    set_identity_attributes,
    trace_headers,
    trace_hook,
)

from tenantguard import Destination, Issuer, TenantGuard, TenantGuardMiddleware, TokenExchange, system
from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.identity import Actor, ActorType, Identity, Tenant, Transaction
from tenantguard.outbound import Destinations
from tenantguard.testing import DevClient
from tests.support.capture import CapturingApp
from tests.support.server import serve, serve_issuer

W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
ALICE = Identity(
    subject=Actor("alice-4711", ActorType.HUMAN),
    actor=Actor("documents", ActorType.SERVICE),
    prior_actors=(Actor("copilot", ActorType.AGENT, name="Copilot", model="m1", version="3"),),
    tenant=Tenant("acme"),
    transaction=Transaction("txn-1"),
)


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider()
    provider.add_span_processor(IdentitySpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests")
    provider.shutdown()


# --- spans --------------------------------------------------------------------------------------------------


def test_a_span_tells_for_whom_it_ran_by_the_semantic_conventions(tracer, exporter):
    with bind(ALICE, Credential(TOKEN)), tracer.start_as_current_span("work"):
        pass
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes) == {
        "enduser.id": "alice-4711",
        "gen_ai.agent.id": "copilot",
        "gen_ai.agent.name": "Copilot",
        "gen_ai.agent.version": "3",
        "tenantguard.tenant.id": "acme",
        "tenantguard.actor.id": "documents",
        "tenantguard.actor.type": "service",
        "tenantguard.delegation.chain": ("documents", "copilot", "alice-4711"),
        "tenantguard.transaction.id": "txn-1",
    }
    assert TOKEN not in span.to_json()


def test_a_span_without_anybody_bound_tells_nothing(tracer, exporter):
    with tracer.start_as_current_span("work"):
        set_identity_attributes()
    assert dict(exporter.get_finished_spans()[0].attributes) == {}


def test_work_across_tenants_is_marked_and_of_no_tenant(tracer, exporter):
    with bind(ALICE), system("nightly run"), tracer.start_as_current_span("work"):
        pass
    attributes = exporter.get_finished_spans()[0].attributes
    assert attributes["tenantguard.system"] is True
    assert "tenantguard.tenant.id" not in attributes


# --- baggage ------------------------------------------------------------------------------------------------

TELLING = {
    "tenant": "x",
    "tenant_id": "x",
    "Tenant-Id": "x",
    "user.id": "x",
    "enduser.id": "x",
    "x-user-id": "x",
    "sub": "x",
    "email": "x",
    "roles": "x",
    "access_token": "x",
    "note": "alice-4711",
    "where": "acme",
    "who": "for alice-4711, please",
    "debug": TOKEN,
}


def test_identity_is_never_put_into_baggage():
    told = {"experiment": "blue", "region": "eu"} | TELLING
    current = context.Context()
    for name, value in told.items():
        current = baggage.set_baggage(name, value, current)
    carrier: dict[str, str] = {}
    with bind(ALICE, Credential(TOKEN)):
        GuardedPropagator(W3C).inject(carrier, current)
    assert carrier == {"baggage": "experiment=blue,region=eu"}


def test_baggage_that_claims_an_identity_is_not_taken_in():
    header = ",".join(
        ["experiment=blue", *(f"{name}=root" for name in TELLING if name not in ("note", "where", "who", "debug"))]
    )
    found = GuardedPropagator(W3C).extract({"baggage": header})
    assert dict(baggage.get_all(found)) == {"experiment": "blue"}


@pytest.fixture
def global_propagator():
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(W3C)
    yield
    propagate.set_global_textmap(before)


def test_a_stranger_gets_the_trace_and_no_baggage(tracer, global_propagator):
    declared = Destinations(Destination("https://billing.example", audience="billing"))
    attached = context.attach(baggage.set_baggage("experiment", "blue"))
    try:
        with tracer.start_as_current_span("work"):
            assert set(trace_headers("https://billing.example/x", declared)) == {"traceparent", "baggage"}
            assert set(trace_headers("https://stranger.example/x", declared)) == {"traceparent"}
            assert set(trace_headers("https://billing.example/x")) == {"traceparent"}
    finally:
        context.detach(attached)


# --- over sockets -------------------------------------------------------------------------------------------


def test_one_trace_goes_through_two_services_and_each_span_tells_for_whom(tracer, exporter, global_propagator):
    client = DevClient("documents", "s3cret", accepts="documents", audiences="billing")
    billing = CapturingApp()
    stranger = CapturingApp()
    with (
        serve_issuer(clients=[client], audience="documents") as issuer,
        serve(billing) as billing_url,
        serve(stranger) as stranger_url,
    ):
        exchange = TokenExchange(issuer.token_endpoint, client_id="documents", client_secret="s3cret")
        guard = TenantGuard(
            issuers=[Issuer(issuer.url, audience="documents", allow_private_addresses=True)],
            exchange=exchange,
            destinations=[Destination(billing_url, audience="billing", scopes="read")],
        )

        async def work(request: Request) -> JSONResponse:
            with tracer.start_as_current_span("inner"):
                await request.app.state.client.get(f"{billing_url}/x")
                await request.app.state.client.get(f"{stranger_url}/x")
            return JSONResponse("done")

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            hooks = {"request": [async_trace_hook(guard.carrier.destinations)]}
            async with guard, guard.http_client(event_hooks=hooks) as app.state.client:
                yield

        app = Starlette(routes=[Route("/", work)], lifespan=lifespan)
        app.add_middleware(IdentityAttributes)
        app.add_middleware(TenantGuardMiddleware, guard=guard)

        async def traced(scope, receive, send):
            """What OpenTelemetry's instrumentation of ASGI does, outside of everything."""
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            token = context.attach(GuardedPropagator(W3C).extract(headers))
            try:
                with tracer.start_as_current_span("request"):
                    await app(scope, receive, send)
            finally:
                context.detach(token)

        with serve(traced) as url:
            sent = {
                "authorization": f"Bearer {issuer.mint('alice', tenant='acme', scopes='read')}",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "baggage": "experiment=blue,tenant=globex,user_id=root",
            }
            assert httpx2.get(url, headers=sent).status_code == 200
    (arrived,), (seen,) = billing.requests, stranger.requests
    assert arrived.headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert seen.headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert arrived.headers["baggage"] == "experiment=blue"
    assert "baggage" not in seen.headers
    spans = {span.name: span for span in exporter.get_finished_spans()}
    for name in ("inner", "request"):
        attributes = spans[name].attributes
        assert (attributes["enduser.id"], attributes["tenantguard.tenant.id"]) == ("alice", "acme"), name


def test_a_blocking_client_does_the_same(tracer, global_propagator):
    billing = CapturingApp()
    with serve(billing) as url:
        declared = Destination(url, mode="none")
        guard = TenantGuard(issuers=[Issuer("https://login.example.com", audience="x")], destinations=[declared])
        hooks = {"request": [trace_hook(guard.carrier.destinations)]}
        with guard.sync_http_client(event_hooks=hooks) as client, tracer.start_as_current_span("work") as span:
            client.get(f"{url}/x")
    wanted = trace.format_trace_id(span.get_span_context().trace_id)
    assert billing.requests[0].headers["traceparent"].split("-")[1] == wanted
