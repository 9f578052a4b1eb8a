"""The development issuer's token endpoint, over real sockets."""

from base64 import b64encode

import httpx2
import jwt
import pytest
from jwt import PyJWK

from tenantguard.testing import DevClient, DevIssuer, DevUser, SigningKey
from tests.support.server import serve_issuer

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"


@pytest.fixture(scope="module")
def issuer():
    users = [
        DevUser("alice", tenant="acme", scopes="documents:read documents:write", password="wonderland", name="Alice"),
        DevUser("nologin", tenant="acme"),
    ]
    clients = [
        DevClient("web", audiences="documents"),
        DevClient("documents", "d-secret", accepts="documents", audiences="billing search", version="3"),
        DevClient("billing", "b-secret", accepts="billing", audiences="ledger", scopes="invoices:read"),
        DevClient(
            "copilot", "c-secret", actor_type="agent", model="m-1", version="2", audiences="documents", name="Copilot"
        ),
        DevClient("sync", "s:%+ s", tenant="acme", scopes="documents:read", audiences="documents"),
        DevClient("globex-only", "g-secret", tenant="globex", accepts="documents", audiences="billing"),
    ]
    with serve_issuer(users=users, clients=clients, audience="documents") as running:
        yield running


@pytest.fixture(scope="module")
def http():
    with httpx2.Client(trust_env=False) as client:
        yield client


def verified(issuer: DevIssuer, token: str, audience: str):
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(PyJWK(jwk) for jwk in issuer.jwks["keys"] if jwk["kid"] == kid)
    return jwt.decode(token, key, algorithms=[key.algorithm_name], issuer=issuer.url, audience=audience)


def exchange(http, issuer, subject_token, client=("documents", "d-secret"), /, **parameters):
    data = {"grant_type": EXCHANGE, "subject_token": subject_token, "subject_token_type": ACCESS_TOKEN} | parameters
    return http.post(
        issuer.token_endpoint, data={name: value for name, value in data.items() if value is not None}, auth=client
    )


def refused(response, code, status=400):
    assert response.status_code == status, response.text
    assert response.json()["error"] == code
    assert response.headers["cache-control"] == "no-store"
    assert "access_token" not in response.json()
    return response.json()["error_description"]


# --- client credentials and client authentication -----------------------------------------------------------


def test_a_service_gets_a_token_of_its_own(issuer, http):
    secret = b64encode(b"sync:s%3A%25%2B+s").decode()  # each half is form-encoded first
    response = http.post(
        issuer.token_endpoint, data={"grant_type": "client_credentials"}, headers={"authorization": f"Basic {secret}"}
    )
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert (body["token_type"], body["scope"], body["expires_in"]) == ("Bearer", "documents:read", 120)
    claims = verified(issuer, body["access_token"], "documents")
    assert (claims["sub"], claims["client_id"], claims["tenant_id"]) == ("sync", "sync", "acme")
    assert claims["actor_type"] == "service"


def test_the_secret_may_come_in_the_body(issuer, http):
    data = {"grant_type": "client_credentials", "client_id": "sync", "client_secret": "s:%+ s"}
    assert http.post(issuer.token_endpoint, data=data).status_code == 200


def test_a_service_of_every_tenant_gets_a_token_of_none_and_without_scopes(issuer, http):
    data = {"grant_type": "client_credentials", "audience": "billing"}
    body = http.post(issuer.token_endpoint, data=data, auth=("documents", "d-secret")).json()
    assert body["scope"] == ""
    assert "tenant_id" not in verified(issuer, body["access_token"], "billing")


@pytest.mark.parametrize(
    ("auth", "data"),
    [
        (("documents", "wrong"), {}),
        (("documents", ""), {}),
        (("nobody", "d-secret"), {}),
        (None, {"client_id": "documents", "client_secret": "wrong"}),
        (None, {"client_id": "documents"}),
        (None, {"client_id": "web", "client_secret": "guess"}),
        (None, {}),
    ],
)
def test_a_client_that_can_not_prove_itself_is_refused(issuer, http, auth, data):
    data = {"grant_type": "client_credentials", "audience": "billing"} | data
    response = http.post(issuer.token_endpoint, data=data, auth=auth)
    refused(response, "invalid_client", 401)
    assert ("www-authenticate" in response.headers) == (auth is not None)


@pytest.mark.parametrize("header", ["Bearer x", "Basic ???", "Basic", "Basic " + b64encode(b"nocolon").decode()])
def test_an_unusable_authorization_header_is_refused(issuer, http, header):
    response = http.post(
        issuer.token_endpoint, data={"grant_type": "client_credentials"}, headers={"authorization": header}
    )
    refused(response, "invalid_client", 401)


def test_two_ways_to_authenticate_at_once_are_refused(issuer, http):
    data = {"grant_type": "client_credentials", "client_id": "documents", "client_secret": "d-secret"}
    refused(http.post(issuer.token_endpoint, data=data, auth=("documents", "d-secret")), "invalid_request")
    data = {"grant_type": "client_credentials", "client_id": "billing"}
    refused(http.post(issuer.token_endpoint, data=data, auth=("documents", "d-secret")), "invalid_request")


def test_a_public_client_gets_no_token_of_its_own(issuer, http):
    data = {"grant_type": "client_credentials", "client_id": "web"}
    refused(http.post(issuer.token_endpoint, data=data), "unauthorized_client")
    response = http.post(
        issuer.token_endpoint,
        data={
            "grant_type": EXCHANGE,
            "client_id": "web",
            "subject_token": issuer.mint(),
            "subject_token_type": ACCESS_TOKEN,
        },
    )
    refused(response, "unauthorized_client")


def test_a_client_gets_no_scope_and_no_audience_beyond_its_registration(issuer, http):
    data = {"grant_type": "client_credentials", "scope": "documents:read documents:write"}
    refused(http.post(issuer.token_endpoint, data=data, auth=("sync", "s:%+ s")), "invalid_client", 401)  # not encoded
    data |= {"client_id": "sync", "client_secret": "s:%+ s"}
    refused(http.post(issuer.token_endpoint, data=data), "invalid_scope")
    data |= {"scope": "documents:read", "audience": "billing"}
    refused(http.post(issuer.token_endpoint, data=data), "invalid_target")


# --- the request itself -------------------------------------------------------------------------------------


def test_a_repeated_parameter_is_refused(issuer, http):
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = "grant_type=client_credentials&client_id=documents&client_secret=d-secret&audience=billing&audience=search"
    refused(http.post(issuer.token_endpoint, content=body, headers=form), "invalid_request")


def test_only_a_small_form_is_read(issuer, http):
    refused(http.post(issuer.token_endpoint, json={"grant_type": "client_credentials"}), "invalid_request")
    refused(http.post(issuer.token_endpoint, data={"grant_type": "x" * 70_000}), "invalid_request")
    assert http.get(issuer.token_endpoint).status_code == 405


def test_an_unknown_grant_is_refused(issuer, http):
    auth = ("documents", "d-secret")
    refused(http.post(issuer.token_endpoint, data={"grant_type": "implicit"}, auth=auth), "unsupported_grant_type")
    refused(http.post(issuer.token_endpoint, data={"audience": "billing"}, auth=auth), "invalid_request")


# --- password -----------------------------------------------------------------------------------------------


def login(http, issuer, username, password, **more):
    data = {"grant_type": "password", "client_id": "web", "username": username, "password": password} | more
    return http.post(issuer.token_endpoint, data=data)


def test_a_person_logs_in_with_a_password(issuer, http):
    body = login(http, issuer, "alice", "wonderland", scope="documents:read").json()
    claims = verified(issuer, body["access_token"], "documents")
    assert (claims["sub"], claims["tenant_id"], claims["actor_type"]) == ("alice", "acme", "human")
    assert (claims["client_id"], claims["scope"], claims["name"]) == ("web", "documents:read", "Alice")


@pytest.mark.parametrize(
    ("username", "password"), [("alice", "wrong"), ("bob", "wonderland"), ("nologin", "x"), ("alice", "wonderlandX")]
)
def test_a_wrong_password_is_refused(issuer, http, username, password):
    refused(login(http, issuer, username, password), "invalid_grant")


def test_an_empty_password_is_refused(issuer, http):
    refused(login(http, issuer, "nologin", ""), "invalid_request")


def test_a_person_gets_no_scope_beyond_her_own(issuer, http):
    refused(login(http, issuer, "alice", "wonderland", scope="documents:delete"), "invalid_scope")


# --- token exchange -----------------------------------------------------------------------------------------


def test_an_exchanged_token_keeps_subject_and_tenant_and_names_the_client_as_actor(issuer, http):
    subject_token = issuer.mint(scopes="invoices:read documents:read", claims={"sid": "s-1", "cnf": {"jkt": "k"}})
    response = exchange(http, issuer, subject_token, audience="billing", scope="invoices:read")
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body["issued_token_type"] == ACCESS_TOKEN
    assert (body["token_type"], body["scope"]) == ("Bearer", "invoices:read")
    claims = verified(issuer, body["access_token"], "billing")
    assert (claims["sub"], claims["tenant_id"], claims["actor_type"]) == ("alice", "acme", "human")
    assert (claims["scope"], claims["sid"], claims["client_id"]) == ("invoices:read", "s-1", "documents")
    assert "cnf" not in claims
    assert claims["act"] == {
        "sub": "documents",
        "iss": issuer.url,
        "client_id": "documents",
        "actor_type": "service",
        "version": "3",
    }


def test_the_actor_is_nested_on_the_actors_before(issuer, http):
    user = issuer.mint(scopes="invoices:read")
    agent = exchange(http, issuer, user, ("copilot", "c-secret"), audience="documents").json()["access_token"]
    service = exchange(http, issuer, agent, audience="billing").json()["access_token"]
    third = exchange(http, issuer, service, ("billing", "b-secret")).json()["access_token"]
    act = verified(issuer, third, "ledger")["act"]
    assert [act["sub"], act["act"]["sub"], act["act"]["act"]["sub"]] == ["billing", "documents", "copilot"]
    copilot = act["act"]["act"]
    assert (copilot["actor_type"], copilot["model"], copilot["version"]) == ("agent", "m-1", "2")
    assert "act" not in copilot


def test_a_client_that_acts_already_is_not_named_twice_in_a_row(issuer, http):
    user = issuer.mint()
    once = exchange(http, issuer, user, ("copilot", "c-secret")).json()["access_token"]
    twice = exchange(http, issuer, once, ("copilot", "c-secret")).json()["access_token"]
    assert "act" not in verified(issuer, twice, "documents")["act"]


def test_a_chain_has_an_end(issuer, http):
    act = None
    for index in range(8):
        act = {"sub": f"s{index}"} | ({"act": act} if act else {})
    refused(exchange(http, issuer, issuer.mint(act=act), audience="billing"), "invalid_request")


def test_asking_for_a_scope_that_the_subject_lacks_is_refused(issuer, http):
    token = issuer.mint(scopes="documents:read")
    refused(exchange(http, issuer, token, audience="billing", scope="invoices:read"), "invalid_scope")


def test_asking_for_a_scope_that_the_client_may_not_have_is_refused(issuer, http):
    token = issuer.mint(audience="billing", scopes="invoices:read invoices:write")
    refused(exchange(http, issuer, token, ("billing", "b-secret"), scope="invoices:write"), "invalid_scope")
    granted = exchange(http, issuer, token, ("billing", "b-secret")).json()
    assert granted["scope"] == "invoices:read"


def test_an_exchanged_token_never_outlives_the_subject_token(issuer, http):
    token = issuer.mint(expires_in=20)
    body = exchange(http, issuer, token, audience="billing").json()
    assert body["expires_in"] <= 20
    exp = jwt.decode(token, options={"verify_signature": False})["exp"]
    assert verified(issuer, body["access_token"], "billing")["exp"] <= exp


@pytest.mark.parametrize(
    "spoil",
    [
        {"expires_in": -1},
        {"audience": "billing"},
        {"claims": {"iss": "http://127.0.0.1:1"}},
        {"claims": {"exp": ...}},
        {"claims": {"exp": "tomorrow"}},
        {"claims": {"sub": ...}},
        {"claims": {"aud": ...}},
        {"key": SigningKey.generate()},
        {"headers": {"kid": ...}},
        {"headers": {"alg": "none"}},
        {"headers": {"alg": "HS256"}},
        {"headers": {"typ": "JWT"}},
        {"claims": {"may_act": {"sub": "billing"}}},
        {"claims": {"may_act": []}},
    ],
)
def test_a_subject_token_that_is_not_good_is_refused(issuer, http, spoil):
    token = issuer.mint(**spoil)
    description = refused(exchange(http, issuer, token, audience="billing"), "invalid_request")
    assert token not in description


def test_a_forged_key_under_the_published_key_id_is_refused(issuer, http):
    token = issuer.mint(key=SigningKey.generate(), headers={"kid": issuer.key.kid})
    refused(exchange(http, issuer, token, audience="billing"), "invalid_request")


def test_may_act_lets_the_named_client_act(issuer, http):
    token = issuer.mint(claims={"may_act": {"sub": "documents"}})
    assert exchange(http, issuer, token, audience="billing").status_code == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"audience": "ledger"}, "invalid_target"),
        ({"audience": None}, "invalid_request"),
        ({"resource": "https://billing.example"}, "invalid_target"),
        ({"subject_token_type": REFRESH_TOKEN}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "garbage"}, "invalid_request"),
        ({"requested_token_type": REFRESH_TOKEN}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"actor_token_type": ACCESS_TOKEN}, "invalid_request"),
    ],
)
def test_a_request_out_of_form_is_refused(issuer, http, change, code):
    refused(exchange(http, issuer, issuer.mint(), **({"audience": "billing"} | change)), code)


def test_a_client_of_one_tenant_exchanges_no_token_of_another(issuer, http):
    client = ("globex-only", "g-secret")
    refused(exchange(http, issuer, issuer.mint(tenant="acme"), client), "invalid_request")
    assert exchange(http, issuer, issuer.mint(tenant="globex"), client).status_code == 200


def test_an_actor_token_of_the_client_itself_is_taken_and_any_other_refused(issuer, http):
    def with_actor(actor_token):
        return exchange(
            http,
            issuer,
            issuer.mint(),
            audience="billing",
            actor_token=actor_token,
            actor_token_type=ACCESS_TOKEN,
        )

    good = with_actor(issuer.mint("documents", actor_type="service", tenant=None))
    assert verified(issuer, good.json()["access_token"], "billing")["act"]["sub"] == "documents"
    refused(with_actor(issuer.mint("billing", actor_type="service", tenant=None)), "invalid_request")
    refused(with_actor(issuer.mint("documents", actor_type="service", tenant="globex")), "invalid_request")
    refused(with_actor(issuer.mint("documents", actor_type="service", expires_in=-1)), "invalid_request")
    refused(with_actor(issuer.mint("documents", actor_type="service", act={"sub": "x"})), "invalid_request")


def test_a_service_that_exchanges_its_own_token_is_no_actor_for_itself(issuer, http):
    own = issuer.mint("documents", actor_type="service", tenant=None)
    claims = verified(issuer, exchange(http, issuer, own, audience="billing").json()["access_token"], "billing")
    assert "act" not in claims
    assert claims["actor_type"] == "service"


def test_an_exchange_with_the_key_before_a_rotation_works_until_it_is_retired(http):
    with serve_issuer(clients=[DevClient("documents", "d", audiences="documents")], audience="documents") as issuer:
        token = issuer.mint()
        issuer.rotate()
        assert exchange(http, issuer, token, ("documents", "d")).status_code == 200
        issuer.rotate(retire=True)
        refused(exchange(http, issuer, token, ("documents", "d")), "invalid_request")
