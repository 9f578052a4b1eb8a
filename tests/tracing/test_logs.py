"""Log lines tell for whom the code ran, by one line of set-up, and never hold a token."""

import io
import json
import logging

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tenantguard import service_identity, system
from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.logs import IDENTITY_FIELDS, add_identity, add_identity_to_logs, identity_fields

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
ALICE = Identity(
    subject=Actor("alice", ActorType.HUMAN),
    actor=Actor("copilot", ActorType.AGENT, model="m1"),
    tenant=Tenant("acme"),
    scopes=frozenset({"documents:read"}),
)


@pytest.fixture
def logged():
    """What the standard library's logging writes, with a format as apps have it."""
    factory = logging.getLogRecordFactory()
    logger = logging.getLogger("tests.tracing")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(tenant)s %(subject)s %(actor)s %(actor_type)s %(trace_id)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel("INFO")
    logger.propagate = False
    add_identity_to_logs()
    yield logger, stream
    logger.removeHandler(handler)
    logging.setLogRecordFactory(factory)


def test_a_record_tells_tenant_subject_actor_and_trace(logged):
    logger, stream = logged
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span, bind(ALICE, Credential(TOKEN)):
        logger.info("exported")
        trace_id = trace.format_trace_id(span.get_span_context().trace_id)
    assert stream.getvalue() == f"acme alice copilot agent {trace_id} exported\n"


def test_where_nobody_is_bound_the_fields_are_there_and_empty(logged):
    logger, stream = logged
    logger.info("started")
    assert stream.getvalue() == "None None None None None started\n"


def test_a_system_context_is_of_no_tenant(logged):
    logger, stream = logged
    with bind(ALICE), system("nightly run"):
        logger.info("cleaned")
    assert stream.getvalue().startswith("None alice copilot agent")


def test_what_the_app_tells_by_itself_is_left_alone(logged):
    logger, stream = logged
    with bind(ALICE):
        logger.makeRecord  # noqa: B018 - `extra` is refused by logging where a record has the name already
        with pytest.raises(KeyError):
            logger.info("x", extra={"tenant": "mine"})
        logger.info("x")
    assert "acme alice" in stream.getvalue()


def test_setting_it_up_twice_changes_nothing(logged):
    factory = logging.getLogRecordFactory()
    add_identity_to_logs()
    assert logging.getLogRecordFactory() is factory


def test_structlog_gets_the_same_by_one_processor():
    stream = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream), processors=[add_identity, structlog.processors.JSONRenderer()]
    )
    with bind(ALICE, Credential(TOKEN)):
        logger.info("exported", rows=3)
        logger.info("exported", tenant="mine")
    logger.info("started")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] == {
        "event": "exported",
        "rows": 3,
        "tenant": "acme",
        "subject": "alice",
        "actor": "copilot",
        "actor_type": "agent",
    }
    assert lines[1]["tenant"] == "mine"
    assert lines[2] == {"event": "started"}


def test_no_field_ever_holds_a_token(logged):
    logger, stream = logged
    with bind(ALICE, Credential(TOKEN)):
        logger.info("exported")
        fields = identity_fields()
    assert tuple(fields) == IDENTITY_FIELDS
    assert TOKEN not in stream.getvalue() + repr(fields)
    assert TOKEN.split(".")[1] not in stream.getvalue() + repr(fields)


def test_a_service_is_told_as_one(logged):
    logger, stream = logged
    with bind(service_identity("invoice-run", tenant="globex")):
        logger.info("ran")
    assert stream.getvalue().startswith("globex invoice-run invoice-run service")
