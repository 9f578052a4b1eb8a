"""Each preset on tokens of its provider's documented shape: accepted, mapped, and its ID tokens refused."""

import dataclasses
from typing import Any

import pytest

from tenantguard.errors import InvalidTenantId, InvalidToken, TenantRefused
from tenantguard.identity import ActorType, Identity
from tenantguard.tokens import (
    ClaimsProfile,
    Issuer,
    TokenVerifier,
    Verified,
    auth0,
    clerk,
    cognito,
    entra,
    google,
    keycloak,
    oidc,
    okta,
    workos,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Provider:
    """One provider, played with its documented header and claims over a real key."""

    def __init__(self, lab: Any, profile: ClaimsProfile, issuer: str, audience: str, **header: Any) -> None:
        self.lab = lab
        self.header = header
        self.issuer = issuer
        self.verifier = TokenVerifier([Issuer(issuer, audience=audience, claims=profile, jwks=lab.jwks(lab.ec))])

    def token(self, claims: dict[str, Any], **header: Any) -> str:
        now = self.lab.claims()
        whole = {"iss": self.issuer, "exp": now["exp"], "iat": now["iat"]} | claims
        return self.lab.ec.token({k: v for k, v in whole.items() if v is not None}, **(self.header | header))

    async def identity(self, claims: dict[str, Any], **header: Any) -> Identity:
        return await self.verifier.verify(self.token(claims, **header))

    async def refused(self, claims: dict[str, Any], **header: Any) -> str:
        with pytest.raises(InvalidToken) as caught:
            await self.identity(claims, **header)
        return caught.value.reason


def tenant_of(identity: Identity) -> str | None:
    return identity.tenant.id if identity.tenant else None


# --- Auth0 -----------------------------------------------------------------------------------------------

AUTH0 = {
    "sub": "auth0|6553da60a54af58e29493993",
    "aud": ["https://api.example.com", "https://acme.eu.auth0.com/userinfo"],
    "azp": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja",
    "scope": "openid profile read:documents",
    "org_id": "org_9ybsU1dN2dKfDkBi",
    "permissions": ["read:documents", "delete:documents"],
}
AUTH0_MACHINE = {
    "sub": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja@clients",
    "aud": "https://api.example.com",
    "azp": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja",
    "scope": "read:documents",
    "gty": "client-credentials",
}


@pytest.fixture
def of_auth0(lab: Any) -> Provider:
    return Provider(lab, auth0(), "https://acme.eu.auth0.com/", "https://api.example.com", typ="JWT")


async def test_auth0_tokens_of_a_user_in_an_organisation(of_auth0: Provider) -> None:
    identity = await of_auth0.identity(AUTH0)
    assert tenant_of(identity) == "org_9ybsU1dN2dKfDkBi"
    assert identity.scopes == {"openid", "profile", "read:documents"}
    assert identity.actor.type is ActorType.HUMAN
    assert identity.client_id == "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"


async def test_auth0_tokens_of_the_rfc_9068_profile(of_auth0: Provider) -> None:
    claims = AUTH0 | {"azp": None, "client_id": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "jti": "73WakrfVbNJBaAmhQtEeDv"}
    assert (await of_auth0.identity(claims, typ="at+jwt")).token_id == "73WakrfVbNJBaAmhQtEeDv"
    by_client = claims | {"sub": AUTH0_MACHINE["sub"]}
    assert (await of_auth0.identity(by_client, typ="at+jwt")).actor.type is ActorType.SERVICE


async def test_auth0_tokens_by_client_credentials_are_services(of_auth0: Provider) -> None:
    identity = await of_auth0.identity(AUTH0_MACHINE)
    assert identity.actor.type is ActorType.SERVICE
    assert identity.tenant is None


async def test_auth0_permissions_are_scopes_only_where_that_is_asked_for(lab: Any, of_auth0: Provider) -> None:
    assert "delete:documents" not in (await of_auth0.identity(AUTH0)).scopes
    wide = Provider(lab, auth0(permissions=True), "https://acme.eu.auth0.com/", "https://api.example.com", typ="JWT")
    assert "delete:documents" in (await wide.identity(AUTH0)).scopes


async def test_auth0_id_tokens_are_refused(of_auth0: Provider) -> None:
    assert await of_auth0.refused({"sub": "auth0|1", "aud": "https://api.example.com", "nonce": "n"}) == "id_token"
    assert await of_auth0.refused({"sub": "auth0|1", "aud": "https://api.example.com", "name": "Ada"}) == "type"


# --- Okta ------------------------------------------------------------------------------------------------

OKTA = {
    "ver": 1,
    "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
    "aud": "https://api.example.com",
    "sub": "ada@example.com",
    "cid": "nmdP1fcyvdVO11AL7ECm",
    "uid": "00ujmkLgagxeRrAg20g3",
    "scp": ["openid", "documents:read"],
    "auth_time": 1467145094,
    "tenant_id": "acme",
}


@pytest.fixture
def of_okta(lab: Any) -> Provider:
    return Provider(lab, okta(), "https://acme.okta.com/oauth2/default", "https://api.example.com", typ=None)


async def test_okta_tokens_of_a_user(of_okta: Provider) -> None:
    identity = await of_okta.identity(OKTA)
    assert tenant_of(identity) == "acme"
    assert identity.scopes == {"openid", "documents:read"}
    assert identity.actor.type is ActorType.HUMAN
    assert identity.auth_time == 1467145094
    assert await of_okta.identity(OKTA, typ="application/okta-internal-at+jwt")


async def test_okta_tokens_by_client_credentials_are_services(of_okta: Provider) -> None:
    identity = await of_okta.identity(OKTA | {"sub": OKTA["cid"], "uid": None, "auth_time": None})
    assert identity.actor.type is ActorType.SERVICE


async def test_okta_id_tokens_are_refused(of_okta: Provider) -> None:
    assert await of_okta.refused(OKTA | {"cid": None}) == "type"
    assert await of_okta.refused(OKTA | {"jti": "ID.radCQMOQUmyvcTBm"}) == "type"
    assert await of_okta.refused(OKTA | {"at_hash": "fPlsvVszI29LU2UhDyJ9vg"}) == "id_token"


# --- Entra -----------------------------------------------------------------------------------------------

TID = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
ENTRA = {
    "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
    "aio": "AXQAi/8IAAAAtAaZ",
    "azp": "1f7f2ba4-9b64-4f8b-8f52-4a4f0b7c9e0d",
    "azpacr": "0",
    "name": "Ada Lovelace",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "preferred_username": "ada@example.com",
    "rh": "I",
    "scp": "Documents.Read Documents.Write",
    "roles": ["Documents.Admin"],
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": TID,
    "uti": "fqiBqXLPj0eQa82S-IYFAA",
    "ver": "2.0",
}
ENTRA_APP = {name: value for name, value in ENTRA.items() if name not in ("scp", "preferred_username", "name")} | {
    "sub": ENTRA["oid"]
}


@pytest.fixture
def of_entra(lab: Any) -> Provider:
    return Provider(lab, entra(), f"https://login.microsoftonline.com/{TID}/v2.0", str(ENTRA["aud"]), typ="JWT")


async def test_entra_tokens_of_a_user_hold_what_the_user_let_the_client_do(of_entra: Provider) -> None:
    identity = await of_entra.identity(ENTRA)
    assert tenant_of(identity) == TID
    assert identity.scopes == {"Documents.Read", "Documents.Write"}
    assert identity.actor.type is ActorType.HUMAN
    assert identity.subject.name == "Ada Lovelace"


async def test_entra_app_only_tokens_are_services_with_their_roles(of_entra: Provider) -> None:
    for claims in (ENTRA_APP, ENTRA_APP | {"idtyp": "app"}):
        identity = await of_entra.identity(claims)
        assert identity.actor.type is ActorType.SERVICE
        assert identity.scopes == {"Documents.Admin"}


async def test_entra_v1_tokens_are_read(lab: Any) -> None:
    of_v1 = Provider(lab, entra(), f"https://sts.windows.net/{TID}/", "api://documents", typ="JWT", x5t="thumb")
    identity = await of_v1.identity(ENTRA | {"azp": None, "appid": "app-1", "ver": "1.0", "aud": "api://documents"})
    assert identity.client_id == "app-1"


async def test_entra_id_tokens_and_foreign_directories_are_refused(of_entra: Provider) -> None:
    id_token = ENTRA | {"azp": None, "azpacr": None, "scp": None}
    assert await of_entra.refused(id_token) == "type"
    assert await of_entra.refused(id_token | {"nonce": "n"}) == "id_token"
    assert await of_entra.refused(ENTRA | {"scp": None}) == "type"
    assert await of_entra.refused(ENTRA | {"tid": "another-directory"}) == "issuer"
    assert await of_entra.refused(ENTRA | {"tid": None}) == "issuer"


# --- Keycloak --------------------------------------------------------------------------------------------

KEYCLOAK = {
    "jti": "onrtac:1f0ad2b6",
    "aud": ["documents-api", "account"],
    "sub": "f3a2cf0c-61ad-4b4b-8b9c-1a2b3c4d5e6f",
    "typ": "Bearer",
    "azp": "documents-web",
    "sid": "5a1e6b3a-7f7d-4c55-9c1d-3c9b5c1d2e3f",
    "acr": "1",
    "realm_access": {"roles": ["offline_access"]},
    "resource_access": {"documents-api": {"roles": ["editor"]}},
    "scope": "openid organization profile",
    "organization": ["acme"],
    "name": "Ada Lovelace",
    "preferred_username": "ada",
}


@pytest.fixture
def of_keycloak(lab: Any) -> Provider:
    return Provider(lab, keycloak(), "https://sso.example.com/realms/main", "documents-api", typ="JWT")


@pytest.mark.parametrize("claim", [["acme"], {"acme": {}}, {"acme": {"id": "42c3", "tier": ["gold"]}}], ids=range(3))
async def test_keycloak_tokens_of_a_user_in_an_organisation(of_keycloak: Provider, claim: Any) -> None:
    identity = await of_keycloak.identity(KEYCLOAK | {"organization": claim})
    assert tenant_of(identity) == "acme"
    assert identity.scopes == {"openid", "organization", "profile"}
    assert identity.session_id == KEYCLOAK["sid"]
    assert identity.actor.type is ActorType.HUMAN


async def test_keycloak_organisation_ids_can_be_the_tenant(lab: Any) -> None:
    profile = keycloak(organization="id", client_roles="documents-api")
    provider = Provider(lab, profile, "https://sso.example.com/realms/main", "documents-api", typ="JWT")
    identity = await provider.identity(KEYCLOAK | {"organization": {"acme": {"id": "42c3"}}})
    assert tenant_of(identity) == "42c3"
    assert "editor" in identity.scopes
    assert await provider.refused(KEYCLOAK) == "claims"
    assert await provider.refused(KEYCLOAK | {"organization": {"acme": {}}}) == "claims"


async def test_keycloak_users_of_several_organisations_must_choose(of_keycloak: Provider) -> None:
    token = of_keycloak.token(KEYCLOAK | {"organization": {"acme": {}, "globex": {}}})
    with pytest.raises(TenantRefused, match="2 tenants and none was chosen"):
        await of_keycloak.verifier.verify(token)
    assert of_keycloak.verifier.cached(token) is None
    for _ in range(2):
        verified = await of_keycloak.verifier.verify_all(token)
        assert verified.undecided
        assert verified.tenants == ("acme", "globex")
        assert tenant_of(verified.choose("globex")) == "globex"
        with pytest.raises(TenantRefused):
            verified.choose("initech")
    with pytest.raises(TenantRefused):
        await of_keycloak.verifier.verify(token)


async def test_keycloak_service_accounts_are_services(of_keycloak: Provider) -> None:
    claims = KEYCLOAK | {"preferred_username": "service-account-documents-web", "organization": None}
    identity = await of_keycloak.identity(claims)
    assert identity.actor.type is ActorType.SERVICE
    assert identity.tenant is None
    other = KEYCLOAK | {"preferred_username": "service-account-other"}
    assert (await of_keycloak.identity(other)).actor.type is ActorType.HUMAN


@pytest.mark.parametrize("kind", ["ID", "Refresh", "Offline", "Logout", None, ["Bearer"]], ids=str)
async def test_keycloak_tokens_of_other_kinds_are_refused(of_keycloak: Provider, kind: Any) -> None:
    assert await of_keycloak.refused(KEYCLOAK | {"typ": kind}) == "type"


# --- Cognito ---------------------------------------------------------------------------------------------

COGNITO = {
    "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "device_key": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "cognito:groups": ["testgroup"],
    "version": None,
    "client_id": "xxxxxxxxxxxxexample",
    "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-000000000000",
    "event_id": "aaaaaaaa-bbbb-cccc-dddd-111111111111",
    "token_use": "access",
    "scope": "phone openid documents/read",
    "auth_time": 1676313851,
    "jti": "aaaaaaaa-bbbb-cccc-dddd-222222222222",
    "username": "ada",
    "custom:tenant_id": "acme",
}


@pytest.fixture
def of_cognito(lab: Any) -> Provider:
    pool = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_example"
    return Provider(lab, cognito(), pool, "xxxxxxxxxxxxexample", typ=None)


async def test_cognito_access_tokens(of_cognito: Provider) -> None:
    identity = await of_cognito.identity(COGNITO)
    assert tenant_of(identity) == "acme"
    assert identity.scopes == {"phone", "openid", "documents/read"}
    assert identity.audience == ("xxxxxxxxxxxxexample",)
    assert identity.session_id == COGNITO["origin_jti"]
    machine = await of_cognito.identity(COGNITO | {"sub": COGNITO["client_id"], "username": None})
    assert machine.actor.type is ActorType.SERVICE


async def test_cognito_tokens_of_other_clients_uses_and_resources_are_refused(of_cognito: Provider) -> None:
    assert await of_cognito.refused(COGNITO | {"client_id": "other"}) == "audience"
    assert await of_cognito.refused(COGNITO | {"aud": "https://other.example.com"}) == "audience"
    assert await of_cognito.refused(COGNITO | {"client_id": None}) == "audience"
    id_token = COGNITO | {"token_use": "id", "aud": "xxxxxxxxxxxxexample", "client_id": None}
    assert await of_cognito.refused(id_token) == "type"
    assert await of_cognito.refused(COGNITO | {"token_use": None}) == "type"


# --- WorkOS ----------------------------------------------------------------------------------------------

WORKOS = {
    "sub": "user_01HBEQKA6K4QJAS93VPE39W1JT",
    "sid": "session_01HQSXZGF8FHF7A9ZZFCW4387R",
    "jti": "01HQSXZXPPFPKMDD32RKTFR6MM",
    "aud": "https://api.example.com",
    "org_id": "org_01HRDMC6CM357W30QMHMQ96Q0S",
    "role": "member",
    "roles": ["member"],
    "permissions": ["posts:read", "posts:write"],
    "entitlements": ["audit-logs"],
}


@pytest.fixture
def of_workos(lab: Any) -> Provider:
    return Provider(lab, workos(), "https://api.workos.com/", "https://api.example.com", typ=None)


async def test_workos_session_tokens(of_workos: Provider) -> None:
    identity = await of_workos.identity(WORKOS)
    assert tenant_of(identity) == "org_01HRDMC6CM357W30QMHMQ96Q0S"
    assert identity.scopes == {"posts:read", "posts:write"}
    assert identity.session_id == WORKOS["sid"]
    assert identity.actor.type is ActorType.HUMAN


async def test_workos_impersonation_names_the_human_who_acts(of_workos: Provider) -> None:
    identity = await of_workos.identity(WORKOS | {"act": {"sub": "admin@example.com"}})
    assert identity.is_delegated
    assert (identity.actor.id, identity.actor.type) == ("admin@example.com", ActorType.HUMAN)


async def test_workos_tokens_without_audience_or_session_are_refused(of_workos: Provider) -> None:
    assert await of_workos.refused(WORKOS | {"aud": None}) == "audience"
    assert await of_workos.refused(WORKOS | {"sid": None}) == "type"
    machine = WORKOS | {"sid": None, "client_id": "client_01", "sub": "client_01"}
    assert (await of_workos.identity(machine)).actor.type is ActorType.SERVICE


# --- Clerk -----------------------------------------------------------------------------------------------

CLERK = {
    "azp": "https://app.example.com",
    "fea": "o:dashboard,u:export,uo:teams",
    "fva": [7, -1],
    "jti": "a1b2c3d4e5f67890abcd",
    "nbf": 1713158390,
    "o": {"id": "org_123", "rol": "admin", "slg": "acme", "per": "manage,read", "fpm": "3,2"},
    "pla": "o:pro",
    "sid": "sess_123",
    "sts": "active",
    "sub": "user_123",
    "v": 2,
}


@pytest.fixture
def of_clerk(lab: Any) -> Provider:
    return Provider(
        lab, clerk(), "https://clerk.example.com", "https://app.example.com", typ="JWT", cat="cl_B7d4PD111AAA"
    )


async def test_clerk_session_tokens_of_version_2(of_clerk: Provider) -> None:
    identity = await of_clerk.identity(CLERK)
    assert tenant_of(identity) == "org_123"
    assert identity.scopes == {"org:dashboard:manage", "org:dashboard:read", "org:teams:read"}
    assert identity.session_id == "sess_123"
    assert identity.actor.type is ActorType.HUMAN
    personal = await of_clerk.identity(CLERK | {"o": None})
    assert personal.tenant is None
    assert not personal.scopes


async def test_clerk_session_tokens_of_version_1(of_clerk: Provider) -> None:
    old = {"org_id": "org_123", "org_role": "org:admin", "org_permissions": ["org:teams:manage"], "v": None}
    identity = await of_clerk.identity(CLERK | {"o": None, "fea": None, "pla": None} | old)
    assert tenant_of(identity) == "org_123"
    assert identity.scopes == {"org:teams:manage"}


async def test_clerk_impersonation_names_the_human_who_acts(of_clerk: Provider) -> None:
    act = {"iss": "https://dashboard.clerk.com", "sub": "user_admin"}
    identity = await of_clerk.identity(CLERK | {"act": act})
    assert identity.actor.type is ActorType.HUMAN
    assert identity.actor.issuer == "https://dashboard.clerk.com"


async def test_clerk_tokens_of_other_origins_and_pending_sessions_are_refused(of_clerk: Provider) -> None:
    assert await of_clerk.refused(CLERK | {"azp": "https://evil.example"}) == "audience"
    assert await of_clerk.refused(CLERK | {"azp": None}) == "audience"
    assert await of_clerk.refused(CLERK | {"sts": "pending"}) == "claims"
    assert await of_clerk.refused(CLERK | {"sid": None}) == "type"
    for broken in ("o", ["o"], {"id": "org_1", "per": "a", "fpm": "1"}, {"per": 7}, {"per": "a", "fpm": "-1,2"},
                   {"per": "a", "fpm": "9" * 5000 + ",1"}, {"id": 7}):  # fmt: skip
        with pytest.raises((InvalidToken, InvalidTenantId)):
            await of_clerk.identity(CLERK | {"o": broken, "fea": "o:one,o:two" if broken != "o" else None})


# --- Google ----------------------------------------------------------------------------------------------

GOOGLE = {
    "azp": "1234987819200.apps.googleusercontent.com",
    "aud": "1234987819200.apps.googleusercontent.com",
    "sub": "10769150350006150715113082367",
    "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
    "hd": "example.com",
    "email": "ada@example.com",
    "email_verified": True,
    "name": "Ada Lovelace",
    "nonce": "0394852-3190485-2490358",
}


@pytest.fixture
def of_google(lab: Any) -> Provider:
    return Provider(lab, google(), "https://accounts.google.com", str(GOOGLE["aud"]), typ="JWT")


async def test_google_id_tokens_of_a_workspace_user(of_google: Provider) -> None:
    identity = await of_google.identity(GOOGLE)
    assert tenant_of(identity) == "example.com"
    assert identity.actor.type is ActorType.HUMAN
    assert (await of_google.identity(GOOGLE | {"hd": None})).tenant is None


async def test_google_service_accounts_are_services(of_google: Provider) -> None:
    robot = GOOGLE | {"email": "robot@project.iam.gserviceaccount.com", "hd": None, "at_hash": None, "nonce": None}
    assert (await of_google.identity(robot)).actor.type is ActorType.SERVICE
    assert (await of_google.identity(robot | {"email_verified": False})).actor.type is ActorType.HUMAN
    assert await of_google.refused(GOOGLE | {"aud": "somebody-else"}) == "audience"


# --- the default profile ---------------------------------------------------------------------------------


@pytest.fixture
def of_oidc(lab: Any) -> Provider:
    return Provider(lab, oidc(), lab.issuer, lab.audience)


def plain(lab: Any, **changes: Any) -> dict[str, Any]:
    return {"jti": None} | lab.claims(**changes)


async def test_a_subject_that_is_the_client_is_a_service_unless_the_token_says_otherwise(
    lab: Any, of_oidc: Provider
) -> None:
    by_client = plain(lab, sub="web")
    assert (await of_oidc.identity(by_client)).actor.type is ActorType.SERVICE
    assert (await of_oidc.identity(by_client | {"actor_type": "agent"})).actor.type is ActorType.AGENT
    assert (await of_oidc.identity(plain(lab))).actor.type is ActorType.HUMAN
    for odd in ("robot", "", "HUMAN", 7, ["human"], {}, True):
        assert await of_oidc.refused(plain(lab) | {"actor_type": odd}) == "claims"


async def test_a_delegation_chain_is_read_with_the_current_actor_first(lab: Any, of_oidc: Provider) -> None:
    act = {
        "sub": "agent-7",
        "client_id": "agents",
        "model": "m-4",
        "version": "2",
        "name": "Filer",
        "act": {"sub": "gateway", "iss": "https://other.example.com", "act": {"sub": "bot", "actor_type": "agent"}},
    }
    identity = await of_oidc.identity(plain(lab, act=act))
    assert identity.is_delegated
    assert [(party.id, party.type) for party in identity.chain] == [
        ("agent-7", ActorType.AGENT),
        ("gateway", ActorType.SERVICE),
        ("bot", ActorType.AGENT),
        ("user-1", ActorType.HUMAN),
    ]
    actor = identity.actor
    assert (actor.model, actor.version, actor.name, actor.client_id) == ("m-4", "2", "Filer", "agents")
    assert [party.issuer for party in identity.prior_actors] == ["https://other.example.com", lab.issuer]


def chain(length: int) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": "agent-0"}
    for number in range(1, length):
        act = {"sub": f"agent-{number}", "act": act}
    return act


async def test_a_chain_of_five_is_accepted_and_longer_ones_are_not(lab: Any, of_oidc: Provider) -> None:
    assert len((await of_oidc.identity(plain(lab, act=chain(5)))).chain) == 6
    assert await of_oidc.refused(plain(lab, act=chain(6))) == "chain"
    assert await of_oidc.refused(plain(lab, act=chain(9))) == "claims", "and the parser itself stops at eight"


@pytest.mark.parametrize(
    "act",
    ["agent", [], {}, True, 7, [{"sub": "a"}], {"sub": ""}, {"sub": 7}, {"sub": "a", "act": "b"}, {"sub": "a", "act": {}},
     {"sub": "a", "act": {"sub": "a"}}, {"sub": "user-1"}, {"sub": "a", "act": {"sub": "user-1"}},
     {"sub": "a", "actor_type": "x"}, {"sub": "a", "model": 7}, {"sub": "a", "name": []}],
    ids=range(16),
)  # fmt: skip
async def test_a_malformed_or_circular_chain_is_refused(lab: Any, of_oidc: Provider, act: Any) -> None:
    assert await of_oidc.refused(plain(lab) | {"act": act}) == "claims"


@pytest.mark.parametrize(
    ("name", "value"),
    [("scope", 7), ("scope", {"a": 1}), ("scope", ["a", 7]), ("scope", ["a b"]), ("scope", [""]), ("scp", True),
     ("sid", 7), ("jti", []), ("client_id", {}), ("name", 7), ("acr", []), ("amr", "pwd"), ("amr", [7]), ("auth_time", "x"),
     ("auth_time", True), ("auth_time", -1), ("grant_id", 7), ("task", []), ("authorization_details", {}),
     ("authorization_details", ["x"]), ("authorization_details", [{}]), ("authorization_details", [{"type": 7}]),
     ("cnf", "x"), ("cnf", {}), ("cnf", {"jwk": {}}), ("cnf", {"jkt": 7}), ("cnf", {"jkt": "x", "kid": "y"}), ("model", 7)],
    ids=range(28),
)  # fmt: skip
async def test_a_claim_of_another_form_is_refused(lab: Any, of_oidc: Provider, name: str, value: Any) -> None:
    assert await of_oidc.refused(plain(lab) | {name: value}) == "claims"


@pytest.mark.parametrize(
    "tenant", ["", "a b", "../x", 7, True, ["acme"], {"id": "acme"}, "a" * 129, "\uff41cme"], ids=range(9)
)
async def test_a_tenant_id_that_is_not_usable_is_refused(lab: Any, of_oidc: Provider, tenant: Any) -> None:
    with pytest.raises(InvalidTenantId):
        await of_oidc.identity(plain(lab) | {"tenant_id": tenant})


async def test_authorization_details_are_kept_as_text(lab: Any, of_oidc: Provider) -> None:
    details = [{"type": "file", "actions": ["read"], "locations": ["a"]}]
    identity = await of_oidc.identity(plain(lab, authorization_details=details))
    assert [one.value for one in identity.authorization_details] == details
    assert hash(identity)


async def test_equal_scopes_tenants_and_audiences_are_one_object(lab: Any, of_oidc: Provider) -> None:
    first = await of_oidc.identity(plain(lab, jti="1"))
    second = await of_oidc.identity(plain(lab, jti="2"))
    assert first.scopes is second.scopes
    assert first.tenant is second.tenant
    assert first.audience is second.audience
    assert first.issuer is second.issuer


# --- mappings of the app's own ---------------------------------------------------------------------------


async def test_a_part_of_a_preset_can_be_replaced(lab: Any) -> None:
    profile = dataclasses.replace(
        oidc(tenant=["https://example.com/org", "tenant_id"]), actor_type=lambda claims: ActorType.AGENT
    )
    provider = Provider(lab, profile, lab.issuer, lab.audience)
    assert tenant_of(await provider.identity(plain(lab) | {"https://example.com/org": "globex"})) == "globex"
    identity = await provider.identity(plain(lab))
    assert tenant_of(identity) == "acme"
    assert identity.actor.type is ActorType.AGENT


async def test_a_callable_decides_who_it_is_but_not_whose_word_that_is_or_how_long_it_holds(lab: Any) -> None:
    own = oidc()

    def mapping(claims: Any) -> Any:
        import msgspec

        identity = own(claims).identity
        return msgspec.structs.replace(identity, issuer="https://evil.example", expires_at=None, task="mapped")

    token = lab.rsa.token(lab.claims())
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, claims=mapping, jwks=lab.jwks(lab.rsa))])
    identity = await verifier.verify(token)
    assert identity.task == "mapped"
    assert identity.issuer == lab.issuer
    assert identity.expires_at == lab.claims()["exp"] or identity.expires_at is not None
    verified = await verifier.verify_all(token)
    assert isinstance(verified, Verified)
    assert verified.tenants == ("acme",)
    assert verified.choose("acme") is verified.identity
