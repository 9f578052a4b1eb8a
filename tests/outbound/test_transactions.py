"""Transaction tokens: which answers are used, what is handed on, and what a replacement may change."""

import json
import time

import jwt
import msgspec
import pytest

from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, ExchangeError, OutboundError
from tenantguard.identity import Transaction
from tenantguard.outbound import Carrier, Destination, TokenRequest
from tenantguard.outbound.answers import ClaimNames, Fault, UsableToken
from tenantguard.outbound.transactions import read_transaction_answer
from tenantguard.testing import DevIssuer
from tests.support.callers import caller
from tests.support.capture import ScriptedEndpoint
from tests.support.server import serve

pytestmark = pytest.mark.anyio
TXN = "urn:ietf:params:oauth:token-type:txn_token"
ISSUER = DevIssuer("http://127.0.0.1:9000", audience="documents")
INSIDE = Destination("https://billing.example", audience="trust.example", scopes="invoices:read", mode="transaction")
IDENTITY, CREDENTIAL = caller(ISSUER, scopes="invoices:read invoices:write")
REQUEST = TokenRequest.on_behalf_of(IDENTITY, CREDENTIAL, INSIDE)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def txn_claims(**changes):
    now = int(time.time())
    claims = {
        "iss": ISSUER.url,
        "iat": now,
        "exp": now + 60,
        "aud": "trust.example",
        "txn": "txn-1",
        "sub": "alice",
        "scope": "invoices:read",
        "req_wl": "documents",
        "tctx": {"tenant_id": "acme"},
        "rctx": {},
    } | changes
    return {name: value for name, value in claims.items() if value is not ...}


def txn_token(*, typ="txntoken+jwt", **changes):
    return ISSUER.key.sign(txn_claims(**changes), {"typ": typ})


def answer(token, **changes):
    return json.dumps({"access_token": token, "token_type": "N_A", "issued_token_type": TXN} | changes).encode()


def read(body, request=REQUEST, status=200):
    return read_transaction_answer(status, body, request, ClaimNames())


def test_a_good_transaction_token_is_used_until_it_expires():
    found = read(answer(txn_token()))
    assert isinstance(found, UsableToken)
    assert found.expires_at == pytest.approx(time.time() + 60, abs=20)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (answer(txn_token(), token_type="Bearer"), "another type"),
        (answer(txn_token(), issued_token_type="urn:ietf:params:oauth:token-type:access_token"), "another type"),
        (answer(txn_token(typ="at+jwt")), "typ is not"),
        (answer(txn_token(typ="jwt")), "typ is not"),
        (answer("opaque"), "no JWT"),
        (answer(CREDENTIAL.reveal()), "typ is not"),
        (answer(txn_token(aud="other.example")), "another trust domain"),
        (answer(txn_token(aud=["trust.example", "other.example"])), "another trust domain"),
        (answer(txn_token(txn=...)), "without a txn"),
        (answer(txn_token(txn="")), "without a txn"),
        (answer(txn_token(scope=...)), "without scope"),
        (answer(txn_token(scope="invoices:read invoices:write")), "wider scopes"),
        (answer(txn_token(sub="bob")), "another subject"),
        (answer(txn_token(tctx={"tenant_id": "globex"})), "another tenant"),
        (answer(txn_token(tenant_id="globex")), "another tenant"),
        (answer(txn_token(exp=...)), "how long"),
        (answer(txn_token(exp=1)), "expired"),
        (b"<html>", "no token response"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(body, fault):
    found = read(body)
    assert isinstance(found, Fault)
    assert fault in found.message


def test_a_transaction_that_hides_the_agent_is_refused():
    identity, credential = caller(ISSUER, act={"sub": "copilot", "actor_type": "agent"})
    request = TokenRequest.on_behalf_of(identity, credential, INSIDE)
    assert "hides who acts" in read(answer(txn_token()), request).message
    assert isinstance(read(answer(txn_token(act={"sub": "copilot"})), request), UsableToken)


def inside(**changes):
    """Return a caller that came in with a transaction token."""
    token = txn_token(**{"scope": "invoices:read invoices:write", **changes})
    scopes = frozenset(jwt.decode(token, options={"verify_signature": False})["scope"].split())
    identity = msgspec.structs.replace(
        IDENTITY, scopes=scopes, audience=("trust.example",), transaction=Transaction("txn-1", ("documents",))
    )
    return identity, Credential(token, TXN)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"txn": "txn-2"}, "changed the txn"),
        ({"sub": "alice2"}, "changed the sub"),
        ({"tctx": {"tenant_id": "acme", "amount": 2}}, "changed the context"),
        ({"tctx": {"tenant_id": "acme"}}, "changed the context"),
        ({"act": {"sub": "somebody"}}, "changed the actors"),
        ({"req_wl": "billing"}, "left out a workload"),
        ({"req_wl": "documentsx,billing"}, "left out a workload"),
        ({"req_wl": ...}, "left out a workload"),
        ({"scope": "invoices:read admin"}, "wider scopes"),
    ],
)
def test_a_replacement_may_narrow_and_change_nothing_else(changes, fault):
    before = {"tctx": {"tenant_id": "acme", "amount": 1}}
    request = TokenRequest.on_behalf_of(*inside(**before), INSIDE)
    good = {"tctx": {"tenant_id": "acme", "amount": 1, "more": True}, "req_wl": "documents,billing"}
    assert isinstance(read(answer(txn_token(**good)), request), UsableToken)
    found = read(answer(txn_token(**(good | changes))), request)
    assert isinstance(found, Fault)
    assert fault in found.message


async def test_a_transaction_token_is_handed_on_as_it_is_where_it_says_no_more_than_it_may(town):
    both = town.destination(mode="transaction", audience="trust.example", scopes="invoices:read invoices:write")
    identity, credential = inside()
    with bind(identity, credential):
        assert await Carrier(both, town.exchange()).headers(town.billing_url) == {"txn-token": credential.reveal()}


async def test_it_is_never_widened_and_never_leaves_its_trust_domain(town):
    wider = town.destination(mode="transaction", audience="trust.example", scopes="invoices:read sync:run")
    elsewhere = town.destination(mode="transaction", audience="other.example")
    with bind(*inside()):
        with pytest.raises(OutboundError, match="can't be widened"):
            await Carrier(wider, town.exchange()).headers(town.billing_url)
        with pytest.raises(OutboundError, match="trust domain"):
            await Carrier(elsewhere, town.exchange()).headers(town.billing_url)


async def test_a_narrower_destination_gets_a_replacement_of_the_same_transaction(town):
    wide = town.destination(mode="transaction", audience="trust.example", scopes="invoices:read invoices:write")
    narrow = town.destination(mode="transaction", audience="trust.example", scopes="invoices:read")
    identity, credential = caller(town.issuer, scopes="invoices:read invoices:write")
    with bind(identity, credential):
        first = (await Carrier(wide, town.exchange()).headers(town.billing_url))["txn-token"]
    before = jwt.decode(first, options={"verify_signature": False})
    arrived = msgspec.structs.replace(
        identity, audience=("trust.example",), transaction=Transaction(before["txn"], ("documents",))
    )
    billing = town.exchange(client_id="billing")
    with bind(arrived, Credential(first, TXN)):
        second = (await Carrier(narrow, billing).headers(town.billing_url))["txn-token"]
    after = jwt.decode(second, options={"verify_signature": False})
    assert {after[name] == before[name] for name in ("txn", "sub", "aud", "tctx")} == {True}
    assert (after["scope"], after["req_wl"]) == ("invoices:read", "documents,billing")


async def test_a_transaction_holds_the_details_that_its_service_gives_it(town):
    exchange = town.exchange(request_details=lambda identity: {"invoice": 7, "for": identity.subject.id})
    target = town.destination(mode="transaction", audience="trust.example")
    with bind(*caller(town.issuer, scopes="invoices:read")):
        token = (await Carrier(target, exchange).headers(town.billing_url))["txn-token"]
    context = jwt.decode(token, options={"verify_signature": False})["tctx"]
    assert context == {"invoice": 7, "for": "alice", "tenant_id": "acme"}


async def test_the_request_is_that_of_the_draft(town):
    endpoint = ScriptedEndpoint()
    endpoint.answer = lambda _: json.loads(answer(txn_token()))
    with serve(endpoint) as url:
        exchange = town.exchange(token_endpoint=url, request_details=lambda _: {"invoice": 7})
        target = town.destination(mode="transaction", audience="trust.example")
        identity, credential = caller(town.issuer, scopes="invoices:read")
        with bind(identity, credential):
            await Carrier(target, exchange).headers(town.billing_url)
    assert endpoint.forms == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": TXN,
            "audience": "trust.example",
            "scope": "invoices:read",
            "subject_token": credential.reveal(),
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "request_details": '{"invoice":7}',
        }
    ]


async def test_a_token_service_that_makes_no_transactions_gives_a_clear_error(town):
    target = town.destination(mode="transaction", audience="unknown.example")
    with bind(*caller(town.issuer, scopes="invoices:read")), pytest.raises(ExchangeError, match="invalid_target"):
        await Carrier(target, town.exchange()).headers(town.billing_url)


def test_a_transaction_must_say_what_it_is_for():
    with pytest.raises(ConfigurationError, match="must say what it is for"):
        Destination("https://billing.example", audience="trust.example", mode="transaction")
