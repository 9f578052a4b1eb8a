"""The development issuer's keys, metadata and minted tokens."""

import time

import httpx2
import jwt
import pytest
from jwt import PyJWK

from tenantguard.errors import ConfigurationError, InvalidTenantId
from tenantguard.testing import DevClient, DevIssuer, DevUser, SigningKey, jwk_thumbprint
from tests.support.server import serve_with_url


def decode(issuer: DevIssuer, token: str, **options):
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(PyJWK(jwk) for jwk in issuer.jwks["keys"] if jwk["kid"] == kid)
    options.setdefault("audience", issuer.audience)
    return jwt.decode(token, key, algorithms=[key.algorithm_name], issuer=issuer.url, **options)


def test_the_thumbprint_is_that_of_the_example_in_rfc_7638():
    # RFC 7638, section 3.1.
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3o"
        "knjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHz"
        "u6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8"
        "awapJzKnqDKgw"
    )
    jwk = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert jwk_thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_a_minted_token_verifies_with_the_published_key(algorithm):
    issuer = DevIssuer("http://127.0.0.1:9000", algorithm=algorithm)
    token = issuer.mint("bob", tenant="globex", scopes=["b", "a"], expires_in=60)
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": issuer.key.kid, "typ": "at+jwt"}
    claims = decode(issuer, token)
    assert claims.pop("exp") - claims.pop("iat") == 60
    assert len(claims.pop("jti")) >= 20
    assert claims == {
        "iss": "http://127.0.0.1:9000",
        "sub": "bob",
        "aud": issuer.audience,
        "client_id": "dev",
        "tenant_id": "globex",
        "actor_type": "human",
        "scope": "a b",
    }


def test_a_published_key_holds_no_private_part():
    for algorithm in ("ES256", "RS256", "EdDSA"):
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(SigningKey.generate(algorithm).public_jwk)


def test_no_repr_shows_a_key_a_secret_or_a_password():
    issuer = DevIssuer(
        "http://localhost:1",
        users=[DevUser("alice", tenant="acme", password="hush-password")],
        clients=[DevClient("web", "hush-secret")],
    )
    shown = repr([issuer, issuer.key, issuer.users, issuer.clients])
    assert "hush" not in shown
    assert "private" not in shown


def test_claims_and_headers_of_a_minted_token_can_be_replaced_and_left_out():
    issuer = DevIssuer("http://127.0.0.1:9000")
    token = issuer.mint(claims={"sub": 7, "exp": ...}, headers={"typ": "JWT", "kid": ..., "alg": "none"})
    assert jwt.get_unverified_header(token) == {"alg": "none", "typ": "JWT"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == 7
    assert "exp" not in claims


def test_a_token_of_a_strange_key_does_not_verify():
    issuer = DevIssuer("http://127.0.0.1:9000")
    token = issuer.mint(key=SigningKey.generate(), headers={"kid": issuer.key.kid})
    with pytest.raises(jwt.InvalidSignatureError):
        decode(issuer, token)


def test_tokens_of_the_key_before_a_rotation_stay_good_until_it_is_retired():
    issuer = DevIssuer("http://127.0.0.1:9000")
    old = issuer.mint()
    issuer.rotate("EdDSA")
    assert decode(issuer, old)["sub"] == "alice"
    assert jwt.get_unverified_header(issuer.mint())["alg"] == "EdDSA"
    issuer.rotate(retire=True)
    assert len(issuer.jwks["keys"]) == 1
    with pytest.raises(StopIteration):
        decode(issuer, old)


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example.com",
        "http://10.0.0.1:9000",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "http://example.com#127.0.0.1",
        "http://[::2]",
        "ftp://127.0.0.1",
        "127.0.0.1:9000",
        "http://127.0.0.1:nonsense",
        "http://127.0.0.1/?a=b",
        "",
    ],
)
def test_an_issuer_that_is_not_on_this_machine_is_refused(url):
    with pytest.raises(ConfigurationError, match="development issuer"):
        DevIssuer(url)


def test_an_issuer_on_another_machine_can_be_allowed_in_so_many_words():
    assert DevIssuer("http://idp.dev.internal", allow_remote_url=True).url == "http://idp.dev.internal"


@pytest.mark.parametrize("lifetime", [0, -1, 301, 3600])
def test_long_lifetimes_are_refused(lifetime):
    with pytest.raises(ConfigurationError, match="1 to 300"):
        DevIssuer("http://127.0.0.1:9000", lifetime=lifetime)


def test_users_and_clients_are_checked_when_they_are_declared():
    with pytest.raises(InvalidTenantId):
        DevUser("alice", tenant="")
    with pytest.raises(ConfigurationError, match="subject"):
        DevUser(" ", tenant="acme")
    with pytest.raises(ConfigurationError, match="secret=None"):
        DevClient("web", "")
    with pytest.raises(ConfigurationError, match="agent"):
        DevClient("web", "s", actor_type="human")


@pytest.mark.parametrize(
    ("path", "openid", "oauth"),
    [
        ("", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"),
        (
            "/realms/dev",
            "/realms/dev/.well-known/openid-configuration",
            "/.well-known/oauth-authorization-server/realms/dev",
        ),
        ("/", "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"),
    ],
)
def test_metadata_and_keys_are_served_where_the_standards_say(path, openid, oauth):
    made = []

    def make_app(url):
        made.append(DevIssuer(url + path))
        return made[0].app

    with serve_with_url(make_app) as url, httpx2.Client(trust_env=False) as client:
        metadata = client.get(url + openid).json()
        assert client.get(url + oauth).json() == metadata
        assert metadata["issuer"] == url + path
        assert metadata["token_endpoint"] == made[0].token_endpoint
        assert client.get(metadata["jwks_uri"]).json() == made[0].jwks


def test_the_clock_can_be_set():
    issuer = DevIssuer("http://127.0.0.1:9000", clock=lambda: 1_000_000.0)
    claims = jwt.decode(issuer.mint(expires_in=10), options={"verify_signature": False})
    assert (claims["iat"], claims["exp"]) == (1_000_000, 1_000_010)
    assert time.time() > claims["exp"]
