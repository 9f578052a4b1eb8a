"""Which answers of a token endpoint are used, and which are refused, without any network."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantguard.outbound import Destination, TokenRequest
from tenantguard.outbound.answers import ClaimNames, Fault, UsableToken, read_answer
from tenantguard.outbound.circuit import Blame
from tenantguard.testing import DevIssuer
from tests.support.callers import caller

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ISSUER = DevIssuer("http://127.0.0.1:9000", audience="documents")
BILLING = Destination("https://billing.example", audience="billing", scopes="invoices:read")
ANY_SCOPE = Destination("https://billing.example", audience="billing")
IDENTITY, CREDENTIAL = caller(ISSUER, scopes="invoices:read documents:read", expires_in=3600)
REQUEST = TokenRequest.on_behalf_of(IDENTITY, CREDENTIAL, BILLING)


def minted(subject="alice", **options):
    return ISSUER.mint(subject, **{"audience": "billing", "scopes": "invoices:read", **options})


def answer(**changes):
    members = {
        "access_token": minted(),
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 60,
        "scope": "invoices:read",
    } | changes
    return json.dumps({name: value for name, value in members.items() if value is not ...}).encode()


def read(body, status=200, request=REQUEST, names=None):
    return read_answer(status, body, request, names or ClaimNames())


def test_a_good_answer_is_used():
    token = minted()
    found = read(answer(access_token=token))
    assert isinstance(found, UsableToken)
    assert found.value == token
    assert found.expires_at == pytest.approx(time.time() + 60, abs=20)
    assert token not in repr(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"token_type": "bearer"},
        {"scope": ...},
        {"scope": ""},
        {"expires_in": ...},
        {"issued_token_type": JWT_TYPE},
        {"access_token": "opaque-token"},
        {"access_token": "opaque.token.x", "extra": {"nested": [1]}},
    ],
)
def test_answers_that_say_less_but_nothing_wrong_are_used(changes):
    assert isinstance(read(answer(**changes)), UsableToken)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"token_type": "DPoP"}, "no bearer token"),
        ({"token_type": "N_A"}, "no bearer token"),
        ({"token_type": ...}, "no token response"),
        ({"issued_token_type": ...}, "another type"),
        ({"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "another type"),
        ({"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "another type"),
        ({"access_token": ...}, "no token response"),
        ({"access_token": 7}, "no token response"),
        ({"access_token": ""}, "can't be sent"),
        ({"access_token": "a\r\nx-admin: 1"}, "can't be sent"),
        ({"access_token": "a b"}, "can't be sent"),
        ({"access_token": "é"}, "can't be sent"),
        ({"access_token": "a" * 20_000}, "can't be sent"),
        ({"access_token": CREDENTIAL.reveal()}, "caller's own token"),
        ({"access_token": "a.b", "issued_token_type": JWT_TYPE}, "no JWT"),
        ({"access_token": "opaque", "expires_in": ...}, "how long"),
        ({"expires_in": 0}, "expired"),
        ({"expires_in": -5}, "expired"),
        ({"expires_in": "60"}, "no token response"),
        ({"expires_in": True}, "no token response"),
        ({"expires_in": 1.5}, "no token response"),
        ({"scope": "invoices:read invoices:write"}, "wider scopes"),
        ({"scope": "admin"}, "wider scopes"),
        ({"scope": ["invoices:read"]}, "no token response"),
        ({"access_token": minted(scopes="invoices:read invoices:write"), "scope": ...}, "wider scopes"),
        ({"access_token": minted(tenant="globex")}, "another tenant"),
        ({"access_token": minted(claims={"tenant_id": ["acme"]})}, "another tenant"),
        ({"access_token": minted(claims={"tenant_id": None})}, "another tenant"),
        ({"access_token": minted("bob")}, "another subject"),
        ({"access_token": minted(audience="search")}, "another audience"),
        ({"access_token": minted(audience=["billing", "search"])}, "another audience"),
        ({"access_token": minted(expires_in=-1)}, "expired"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(changes, fault):
    found = read(answer(**changes))
    assert isinstance(found, Fault)
    assert fault in found.message
    assert found.blame is Blame.ANSWER


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"access_token":', b'"token"', b"{}"]
)
def test_a_body_that_is_no_token_response_is_refused(body):
    assert read(body) == Fault(
        "the token service's answer is no token response", "Check the URL of the token endpoint."
    )


@pytest.mark.parametrize(
    ("status", "body", "message", "blame"),
    [
        (400, b'{"error":"invalid_scope"}', "refused with invalid_scope", Blame.REQUEST),
        (400, b'{"error":"invalid_grant","error_description":"tok"}', "refused with invalid_grant", Blame.REQUEST),
        (401, b'{"error":"invalid_client"}', "refused with invalid_client", Blame.ANSWER),
        (400, b'{"error":"<script>"}', "answered with status 400", Blame.ANSWER),
        (400, b"<html>", "answered with status 400", Blame.ANSWER),
        (404, b'{"error":"invalid_scope"}', "answered with status 404", Blame.ANSWER),
        (429, b"{}", "answered with status 429", Blame.ANSWER),
        (500, b'{"access_token":"x"}', "answered with status 500", Blame.SERVICE),
        (503, b"<h1>Down</h1>", "answered with status 503", Blame.SERVICE),
        (201, answer(), "answered with status 201", Blame.ANSWER),
        (302, b"", "redirects", Blame.ANSWER),
        (307, b"", "redirects", Blame.ANSWER),
    ],
)
def test_a_refusal_is_told_by_its_code_alone(status, body, message, blame):
    fault = read(body, status)
    assert isinstance(fault, Fault)
    assert fault.message.endswith(message) or message in fault.message
    assert fault.blame is blame
    assert "tok." not in fault.message


def test_scopes_that_the_token_service_always_adds_can_be_declared():
    lenient = Destination("https://b.example", audience="billing", scopes="invoices:read", extra_scopes="profile")
    body = answer(scope="invoices:read profile")
    assert isinstance(read(body), Fault)
    assert isinstance(read(body, request=TokenRequest.on_behalf_of(IDENTITY, CREDENTIAL, lenient)), UsableToken)


def test_where_no_scope_was_asked_for_the_caller_s_own_are_the_bound():
    request = TokenRequest.on_behalf_of(IDENTITY, CREDENTIAL, ANY_SCOPE)
    token = minted(scopes="documents:read")
    assert isinstance(read(answer(scope="documents:read", access_token=token), request=request), UsableToken)
    fault = read(answer(scope="documents:write", access_token=token), request=request)
    assert isinstance(fault, Fault)
    assert "wider scopes" in fault.message


def test_a_token_that_hides_the_actor_is_refused():
    identity, credential = caller(ISSUER, act={"sub": "copilot", "actor_type": "agent"})
    request = TokenRequest.on_behalf_of(identity, credential, BILLING)
    hidden = read(answer(access_token=minted(act={"sub": "documents"})), request=request)
    assert isinstance(hidden, Fault)
    assert "hides who acts" in hidden.message
    chain = {"sub": "documents", "act": {"sub": "copilot"}}
    assert isinstance(read(answer(access_token=minted(act=chain)), request=request), UsableToken)


def test_a_token_is_not_used_longer_than_the_caller_s_own():
    identity, credential = caller(ISSUER, expires_in=30)
    found = read(answer(expires_in=3600), request=TokenRequest.on_behalf_of(identity, credential, BILLING))
    assert isinstance(found, UsableToken)
    assert found.expires_at == identity.expires_at


def test_a_token_that_was_made_from_one_that_has_expired_is_refused():
    identity, credential = caller(ISSUER, expires_in=-5)
    found = read(answer(expires_in=3600), request=TokenRequest.on_behalf_of(identity, credential, BILLING))
    assert isinstance(found, Fault)
    assert "expired" in found.message


def test_the_claim_names_can_be_those_of_another_issuer():
    names = ClaimNames(tenant="org_id", subject=None)
    token = minted("pairwise-77", tenant="ignored", claims={"org_id": "acme"})
    assert isinstance(read(answer(access_token=token), names=names), UsableToken)
    token = minted("pairwise-77", claims={"org_id": "globex"})
    assert isinstance(read(answer(access_token=token), names=names), Fault)


def test_a_token_of_the_service_itself_needs_no_issued_token_type():
    own = Destination("https://b.example", audience="billing", scopes="sync", mode="client_credentials")
    token = minted("documents", tenant=None, scopes="sync")
    body = answer(access_token=token, issued_token_type=..., scope="sync")
    assert isinstance(read(body, request=TokenRequest.for_service(own)), UsableToken)
    body = answer(access_token=token, issued_token_type=..., scope="sync more")
    assert isinstance(read(body, request=TokenRequest.for_service(own)), Fault)


@given(st.binary(max_size=300), st.integers(100, 599))
def test_no_answer_makes_the_reader_raise(body, status):
    assert isinstance(read(body, status), Fault)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["tenant_id", "sub", "aud", "exp", "scope", "act"]), json_values))
def test_a_jwt_with_any_claims_is_used_only_if_they_do_not_contradict(claims):
    found = read(answer(access_token=ISSUER.key.sign(claims)))
    if isinstance(found, UsableToken):
        assert claims.get("tenant_id", "acme") == "acme"
        assert claims.get("sub", "alice") == "alice"
        assert claims.get("aud", "billing") in ("billing", ["billing"])
