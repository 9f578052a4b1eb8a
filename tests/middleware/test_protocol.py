"""The protocol's surface over real HTTP: step-up (RFC 9470), metadata (RFC 9728), certificates (RFC 8705)."""

import base64
import datetime as dt
import hashlib
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tenantguard import (
    ClientCertificates,
    Issuer,
    ProtectedResource,
    TenantGuard,
    TenantGuardMiddleware,
    current_identity,
    requires,
)
from tenantguard.errors import ConfigurationError
from tenantguard.testing import DevIssuer
from tests.support.server import serve, serve_issuer

AUDIENCE = "https://api.example.com/v1"


async def whoami(request: Request) -> JSONResponse:
    return JSONResponse([current_identity().subject.id, request.headers.get("client-cert")])


@requires("payments:write", acr_values=["urn:example:mfa", "urn:example:hardware"], max_age=300)
async def pay(request: Request) -> JSONResponse:
    return JSONResponse("paid")


@requires(max_age=60)
def recently(request: Request) -> JSONResponse:
    return JSONResponse("recently")


def certificate() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=now.year + 1)
    )
    return builder.sign(key, hashes.SHA256())


CERTIFICATE, OTHER = certificate(), certificate()


def thumbprint(cert: x509.Certificate) -> str:
    digest = hashlib.sha256(cert.public_bytes(Encoding.DER)).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def rfc9440(cert: x509.Certificate) -> str:
    return f":{base64.b64encode(cert.public_bytes(Encoding.DER)).decode()}:"


@pytest.fixture(scope="module")
def issuer() -> Iterator[DevIssuer]:
    with serve_issuer(audience=AUDIENCE) as served:
        yield served


def served_app(issuer: DevIssuer, **options: Any) -> Any:
    guard = TenantGuard(issuers=[Issuer(issuer.url, audience=AUDIENCE, allow_private_addresses=True)], **options)
    app = Starlette(routes=[Route("/whoami", whoami), Route("/pay", pay), Route("/recently", recently)])
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    return serve(app)


@pytest.fixture(scope="module")
def url(issuer: DevIssuer) -> Iterator[str]:
    resource = ProtectedResource(
        AUDIENCE, scopes=["payments:write"], name="Payments", documentation="https://docs.example.com"
    )
    with served_app(
        issuer, realm="payments", resource=resource, certificates=ClientCertificates(trusted=["127.0.0.1"])
    ) as served:
        yield served


def get(url: str, token: str | None = None, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.get(url, headers=named | ({"authorization": f"Bearer {token}"} if token else {}))


# --- step-up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"acr": "urn:example:password"},
        {"acr": "urn:example:mfa"},
        {"acr": "urn:example:mfa", "auth_time": -301},
        {"acr": "urn:example:password", "auth_time": -10},
        {"auth_time": -10},
    ],
)
def test_a_log_in_that_is_too_weak_or_too_old_is_challenged(
    url: str, issuer: DevIssuer, claims: dict[str, Any]
) -> None:
    if "auth_time" in claims:
        claims = {**claims, "auth_time": int(time.time()) + claims["auth_time"]}
    refused = get(f"{url}/pay", issuer.mint(scopes="payments:write", claims=claims))
    assert refused.status_code == 401
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'acr_values="urn:example:mfa urn:example:hardware"' in challenge
    assert 'max_age="300"' in challenge
    assert refused.json()["max_age"] == 300


def test_a_log_in_that_is_good_enough_passes_and_scopes_count_still(url: str, issuer: DevIssuer) -> None:
    claims = {"acr": "urn:example:hardware", "auth_time": int(time.time()) - 5}
    assert get(f"{url}/pay", issuer.mint(scopes="payments:write", claims=claims)).json() == "paid"
    assert get(f"{url}/pay", issuer.mint(claims=claims)).json()["error"] == "insufficient_scope"
    assert get(f"{url}/recently", issuer.mint(claims=claims)).json() == "recently"
    assert get(f"{url}/recently", issuer.mint()).status_code == 401


@pytest.mark.parametrize(
    "demand",
    [{"acr_values": "urn:x"}, {"acr_values": [""]}, {"acr_values": ["a b"]}, {"max_age": -1}, {"max_age": True}, {}],
)
def test_a_demand_that_can_not_be_written_is_refused_at_once(demand: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        requires(**demand)


# --- metadata ----------------------------------------------------------------------------------------------


def test_the_challenge_leads_to_the_metadata_and_that_to_the_issuer(url: str, issuer: DevIssuer) -> None:
    challenge = get(f"{url}/whoami").headers["www-authenticate"]
    assert challenge == (
        'Bearer realm="payments", resource_metadata="https://api.example.com/.well-known/oauth-protected-resource/v1"'
    )
    answer = get(f"{url}/.well-known/oauth-protected-resource/v1")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.json() == {
        "resource": AUDIENCE,
        "authorization_servers": [issuer.url],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["payments:write"],
        "resource_name": "Payments",
        "resource_documentation": "https://docs.example.com",
    }
    assert httpx2.head(f"{url}/.well-known/oauth-protected-resource/v1").text == ""
    assert httpx2.options(f"{url}/.well-known/oauth-protected-resource/v1").status_code == 204
    assert httpx2.post(f"{url}/.well-known/oauth-protected-resource/v1").status_code == 405
    assert get(f"{url}/.well-known/oauth-protected-resource").status_code == 401


@pytest.mark.parametrize(
    "resource",
    ["", "api.example.com", "http://api.example.com", "https://a.example.com?x=1", 'https://a.example.com/"', None],
)
def test_a_resource_must_be_a_plain_https_url(resource: str) -> None:
    with pytest.raises(ConfigurationError, match=r"https://api\.example\.com|origin and path"):
        ProtectedResource(resource)


# --- certificates ------------------------------------------------------------------------------------------


def test_a_token_that_is_bound_to_a_certificate_needs_it(url: str, issuer: DevIssuer) -> None:
    bound = issuer.mint(claims={"cnf": {"x5t#S256": thumbprint(CERTIFICATE)}})
    assert get(f"{url}/whoami", bound, client_cert=rfc9440(CERTIFICATE)).json()[0] == "alice"
    for headers in ({}, {"client_cert": rfc9440(OTHER)}):
        refused = get(f"{url}/whoami", bound, **headers)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
    # Seen before or not makes no difference, in either order.
    assert get(f"{url}/whoami", bound, client_cert=rfc9440(CERTIFICATE)).status_code == 200
    assert get(f"{url}/whoami", bound).status_code == 401


@pytest.mark.parametrize("value", [":", "::", ":!!!:", "x", ":aGVsbG8=:", "a" * 20_000, rfc9440(CERTIFICATE)[1:]])
def test_what_is_no_certificate_is_refused(url: str, issuer: DevIssuer, value: str) -> None:
    bound = issuer.mint(claims={"cnf": {"x5t#S256": thumbprint(CERTIFICATE)}})
    assert get(f"{url}/whoami", bound, client_cert=value).status_code == 400


def test_a_certificate_header_counts_from_trusted_proxies_alone_and_is_hidden_else(issuer: DevIssuer) -> None:
    bound = issuer.mint(claims={"cnf": {"x5t#S256": thumbprint(CERTIFICATE)}})
    with served_app(issuer, certificates=ClientCertificates(trusted=["10.0.0.0/8"])) as strict:
        assert get(f"{strict}/whoami", bound, client_cert=rfc9440(CERTIFICATE)).status_code == 401
        assert get(f"{strict}/whoami", issuer.mint(), client_cert=rfc9440(CERTIFICATE)).json() == ["alice", None]


def test_an_app_that_looks_at_no_certificates_refuses_bound_tokens(issuer: DevIssuer) -> None:
    with served_app(issuer) as plain:
        for cnf in ({"x5t#S256": thumbprint(CERTIFICATE)}, {"jkt": "x" * 43}):
            bound = issuer.mint(claims={"cnf": cnf})
            assert get(f"{plain}/whoami", bound, client_cert=rfc9440(CERTIFICATE)).status_code == 401
            assert get(f"{plain}/whoami", bound).status_code == 401


def test_nginx_sends_it_as_escaped_pem(issuer: DevIssuer) -> None:
    bound = issuer.mint(claims={"cnf": {"x5t#S256": thumbprint(CERTIFICATE)}})
    settings = ClientCertificates(header="x-client-cert", form="escaped_pem", trusted=["127.0.0.0/8"])
    pem = urllib.parse.quote(CERTIFICATE.public_bytes(Encoding.PEM).decode())
    with served_app(issuer, certificates=settings) as proxied:
        assert get(f"{proxied}/whoami", bound, x_client_cert=pem).status_code == 200
        assert get(f"{proxied}/whoami", bound, x_client_cert="-----BEGIN").status_code == 400


def test_a_server_that_ends_tls_itself_says_it_in_the_scope() -> None:
    settings = ClientCertificates(header=None)
    pem = CERTIFICATE.public_bytes(Encoding.PEM).decode()
    scope = {"extensions": {"tls": {"client_cert_chain": [pem]}}, "client": ("192.0.2.1", 1)}
    assert settings.thumbprint(scope, []) == thumbprint(CERTIFICATE)
    assert settings.thumbprint({"client": ("192.0.2.1", 1)}, [rfc9440(CERTIFICATE).encode()]) is None


@pytest.mark.parametrize(
    "options", [{}, {"trusted": ["nowhere"]}, {"trusted": "10.0.0.1"}, {"form": "der"}, {"header": ""}]
)
def test_certificates_are_believed_from_nobody_by_default(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ClientCertificates(**options)
