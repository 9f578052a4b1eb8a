"""Claims profiles of identity providers: where each one's documented access tokens hold what.

A preset is data; `dataclasses.replace(auth0(), tenant=("org_name",))` changes a part of it. Each tells human and
service apart by the rule in its docstring, and refuses the provider's ID tokens, which share issuer and keys with its
access tokens. A preset widens what is accepted only where the provider documents it (another ``typ``, another audience
claim).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from tenantguard.errors import InvalidToken
from tenantguard.identity import ActorType
from tenantguard.tokens.claim_values import ClaimPath, Claims, scopes_at
from tenantguard.tokens.claims import ClaimsProfile

__all__ = ["auth0", "clerk", "cognito", "entra", "google", "keycloak", "oidc", "okta", "workos"]


def oidc(
    *, tenant: ClaimPath | Iterable[ClaimPath] = "tenant_id", token_types: Iterable[str] = ("at+jwt",)
) -> ClaimsProfile:
    """Return the default profile: access tokens by RFC 9068.

    A subject that is the client itself is a service; ``actor_type`` and ``act`` are read.

    Args:
        tenant: the claim that names the tenant, or several of which the first that is there counts. A tuple of
            names inside a list is a path into a nested claim.
        token_types: accepted ``typ`` values; ``""`` stands for none.
    """
    paths = (tenant,) if isinstance(tenant, str) else tuple(tenant)
    return ClaimsProfile(tenant=paths, token_types=frozenset(token_types))


def _not_an_access_token() -> InvalidToken:
    return InvalidToken(
        "This is no access token of this provider.", reason="type", mend="Send the access token, not the ID token."
    )


def _need(claims: Claims, *names: str) -> None:
    if all(claims.get(name) is None for name in names):
        raise _not_an_access_token()


# --- Auth0 -----------------------------------------------------------------------------------------------


def auth0(*, permissions: bool = False) -> ClaimsProfile:
    """Return the profile of Auth0 with Organizations: the tenant is ``org_id``.

    Both of Auth0's access token profiles are read: its own (``typ`` JWT, ``azp``) and RFC 9068's. A token by client
    credentials (``gty``, or a subject ending in ``@clients``) is a service.

    Args:
        permissions: True adds the ``permissions`` claim to the scopes. These are all that the user may do, not what
            the user let this client do; use it only where every client is your own.

    Source: Auth0 docs, "Access Token Profiles".
    """
    return ClaimsProfile(
        tenant=("org_id",),
        scopes=("scope", "permissions") if permissions else ("scope",),
        client_id=("client_id", "azp"),
        actor_type=_auth0_type,
        token_types=frozenset({"jwt", "at+jwt"}),
        check=lambda claims: _need(claims, "azp", "client_id"),
    )


def _auth0_type(claims: Claims) -> ActorType | None:
    by_client = claims.get("gty") == "client-credentials" or claims["sub"].endswith("@clients")
    return ActorType.SERVICE if by_client else None


# --- Okta ------------------------------------------------------------------------------------------------


def okta(*, tenant: ClaimPath = "tenant_id") -> ClaimsProfile:
    """Return the profile of Okta's custom authorization servers.

    Okta has no tenant claim of its own: add one to the authorization server (``tenant_id``), or declare one issuer
    per customer. Scopes are the list ``scp``, the client is ``cid``; a subject that is the client is a service.

    Args:
        tenant: the claim that names the tenant.

    Source: Okta developer docs, "Access tokens".
    """
    return ClaimsProfile(
        tenant=(tenant,),
        scopes=("scp",),
        client_id=("cid",),
        token_types=frozenset({"", "at+jwt", "okta-internal-at+jwt"}),
        check=_okta_check,
    )


def _okta_check(claims: Claims) -> None:
    _need(claims, "cid")
    if not str(claims.get("jti", "AT.")).startswith("AT."):
        raise _not_an_access_token()


# --- Microsoft Entra ID ----------------------------------------------------------------------------------


def entra() -> ClaimsProfile:
    """Return the profile of Microsoft Entra ID, v1.0 and v2.0 tokens: the tenant is ``tid``.

    A user's token must have ``scp``, which are its scopes; ``roles`` of a user are left out, since they say what the
    user may do, not what the user let this client do. An app-only token (``idtyp`` is ``app``, or, where that claim is
    not configured, no ``scp`` and ``oid`` equal to ``sub``) is a service; its scopes are its ``roles``. The issuer
    must be the tenant's own: for apps of several directories give an issuer directory.

    Source: Microsoft identity platform, "Access token claims reference".
    """
    return ClaimsProfile(
        tenant=("tid",),
        scopes=lambda claims: scopes_at(claims, "roles" if _entra_app_only(claims) else "scp"),
        client_id=("azp", "appid"),
        actor_type=lambda claims: ActorType.SERVICE if _entra_app_only(claims) else ActorType.HUMAN,
        token_types=frozenset({"jwt", "at+jwt"}),
        check=_entra_check,
    )


def _entra_app_only(claims: Claims) -> bool:
    kind = claims.get("idtyp")
    if kind is not None:
        return bool(kind == "app")
    return "scp" not in claims and claims.get("oid") == claims["sub"]


def _entra_check(claims: Claims) -> None:
    _need(claims, "azp", "appid")
    if not _entra_app_only(claims):
        _need(claims, "scp")
    tenant = claims.get("tid")
    if not isinstance(tenant, str) or not tenant or tenant not in claims["iss"].split("/"):
        raise InvalidToken("The token's tid is not the tenant of its issuer.", reason="issuer")


# --- Keycloak --------------------------------------------------------------------------------------------


def keycloak(*, organization: Literal["alias", "id"] = "alias", client_roles: str | None = None) -> ClaimsProfile:
    """Return the profile of Keycloak with Organizations: the tenants are those of the ``organization`` claim.

    A client that asks for the scope ``organization:*`` gets all organisations of the user; one must be chosen then.
    The token of a service account (``preferred_username`` is ``service-account-`` and the client's id) is a service.
    Keycloak writes an audience only where an audience mapper is configured, and ``sub`` only with the scope ``basic``.

    Args:
        organization: whether the tenant's id is the organisation's alias, or its id (the mapper's "Add organization
            id" must be on then).
        client_roles: the client id of this app, whose client roles are added to the scopes.

    Source: Keycloak server administration guide, "Mapping organization claims".
    """

    def tenants(claims: Claims) -> Sequence[Any]:
        return _keycloak_organizations(claims.get("organization"), organization)

    scopes: tuple[ClaimPath, ...] = ("scope",)
    if client_roles is not None:
        scopes = ("scope", ("resource_access", client_roles, "roles"))
    return ClaimsProfile(
        tenant=(),
        tenants=tenants,
        scopes=scopes,
        client_id=("azp", "client_id"),
        actor_type=_keycloak_type,
        token_types=frozenset({"jwt", "at+jwt"}),
        check=_keycloak_check,
    )


def _keycloak_organizations(claim: Any, member: Literal["alias", "id"]) -> Sequence[Any]:
    if claim is None:
        return ()
    if isinstance(claim, Mapping):
        if member == "alias":
            return list(claim)
        ids = [details.get("id") if isinstance(details, Mapping) else None for details in claim.values()]
        if all(isinstance(one, str) for one in ids):
            return ids
    elif isinstance(claim, list) and member == "alias":
        return claim
    raise InvalidToken(
        f"The token's organization claim has no {member} of each organisation.",
        reason="claims",
        mend="Configure Keycloak's Organization Membership mapper for it.",
    )


def _keycloak_type(claims: Claims) -> ActorType | None:
    client = claims.get("azp")
    user = claims.get("preferred_username")
    if isinstance(client, str) and isinstance(user, str) and user == f"service-account-{client.lower()}":
        return ActorType.SERVICE
    return None


def _keycloak_check(claims: Claims) -> None:
    if claims.get("typ") not in ("Bearer", "DPoP"):
        raise _not_an_access_token()


# --- Amazon Cognito --------------------------------------------------------------------------------------


def cognito(*, tenant: ClaimPath = "custom:tenant_id") -> ClaimsProfile:
    """Return the profile of Amazon Cognito user pools.

    Cognito's access tokens have no ``typ``, and no ``aud`` unless the client asked for a resource: Issuer(audience=...)
    is compared with ``aud`` where it is there, else with ``client_id``. Custom attributes are in access tokens only
    where a pre token generation trigger puts them there. A subject that is the client is a service.

    Args:
        tenant: the claim that names the tenant.

    Source: Amazon Cognito developer guide, "Understanding the access token".
    """
    return ClaimsProfile(
        tenant=(tenant,),
        scopes=("scope",),
        client_id=("client_id",),
        session_id=("origin_jti",),
        name=("username",),
        token_types=frozenset({"", "jwt", "at+jwt"}),
        audience_claims=("aud", "client_id"),
        check=_cognito_check,
    )


def _cognito_check(claims: Claims) -> None:
    if claims.get("token_use") != "access":
        raise _not_an_access_token()


# --- WorkOS ----------------------------------------------------------------------------------------------


def workos() -> ClaimsProfile:
    """Return the profile of WorkOS AuthKit: the tenant is ``org_id``, the scopes are the ``permissions``.

    Session tokens have no audience unless a JWT template adds one: add ``"aud"`` to the template of the environment.
    ``client_id`` is compared where it is there instead. A subject that is the client is a service. The actor of an
    impersonated session is a human.

    Source: WorkOS docs, "Sessions" and "Access token".
    """
    return ClaimsProfile(
        tenant=("org_id",),
        scopes=("permissions", "scope"),
        client_id=("client_id", "azp"),
        act_type=ActorType.HUMAN,
        token_types=frozenset({"", "jwt", "at+jwt"}),
        audience_claims=("aud", "client_id"),
        check=_workos_check,
    )


def _workos_check(claims: Claims) -> None:
    if claims["sub"] not in (claims.get("client_id"), claims.get("azp")):
        _need(claims, "sid")


# --- Clerk -----------------------------------------------------------------------------------------------


def clerk() -> ClaimsProfile:
    """Return the profile of Clerk's session tokens, versions 1 and 2: the tenant is the active organisation.

    They have no audience: Issuer(audience=...) is compared with ``azp``, the origin of the app's frontend. The scopes
    are the organisation's permissions, ``org:feature:permission``. A session whose status is ``pending`` is refused.
    The actor of an impersonated session is a human.

    Source: Clerk docs, "Session tokens".
    """
    return ClaimsProfile(
        tenant=(("o", "id"), "org_id"),
        scopes=_clerk_permissions,
        client_id=(),
        act_type=ActorType.HUMAN,
        token_types=frozenset({"jwt"}),
        audience_claims=("aud", "azp"),
        check=_clerk_check,
    )


def _clerk_check(claims: Claims) -> None:
    _need(claims, "sid")
    if claims.get("sts", "active") != "active":
        raise InvalidToken("The session is not active.", reason="claims", mend="Let the user finish signing in.")


_CLERK_MOST: Final = 256


def _clerk_permissions(claims: Claims) -> frozenset[str]:
    """Version 2 packs them: for the n-th feature of the organisation, bit m of the n-th number is permission m."""
    organization = claims.get("o")
    if organization is None:
        return scopes_at(claims, "org_permissions")
    if not isinstance(organization, Mapping):
        raise InvalidToken("The token's o is no JSON object.", reason="claims")
    permissions = _clerk_list(organization.get("per"))
    numbers = _clerk_list(organization.get("fpm"))
    features = [
        feature
        for scope, _, feature in (entry.partition(":") for entry in _clerk_list(claims.get("fea")))
        if "o" in scope
    ]
    if not permissions or not numbers:
        return frozenset()
    if len(numbers) != len(features) or not all(number.isascii() and number.isdigit() for number in numbers):
        raise InvalidToken("The token's organisation permissions do not fit its features.", reason="claims")
    held = [
        f"org:{feature}:{permission}"
        for feature, number in zip(features, numbers, strict=True)
        for bit, permission in enumerate(permissions)
        if int(number) >> bit & 1
    ]
    return scopes_at({"permissions": held}, "permissions")


def _clerk_list(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    entries = value.split(",") if isinstance(value, str) else []
    if not entries or max(len(entries), *map(len, entries)) > _CLERK_MOST:
        raise InvalidToken("The token's organisation claims are malformed.", reason="claims")
    return [entry.strip() for entry in entries]


# --- Google ----------------------------------------------------------------------------------------------


def google() -> ClaimsProfile:
    """Return the profile of Google's ID tokens: the tenant is the Workspace domain, ``hd``.

    Google's access tokens are opaque, so its ID tokens are what an API can verify: this is the one preset that accepts
    ID tokens. The audience is the app's own client id. Accounts outside Workspace have no tenant. An account whose
    verified e-mail address is of ``gserviceaccount.com`` is a service.

    Source: Google Identity docs, "OpenID Connect".
    """
    return ClaimsProfile(
        tenant=("hd",),
        scopes=(),
        client_id=("azp",),
        actor_type=_google_type,
        token_types=frozenset({"jwt"}),
        id_tokens=True,
    )


def _google_type(claims: Claims) -> ActorType:
    mail = claims.get("email")
    verified = claims.get("email_verified") is True
    is_service = verified and isinstance(mail, str) and mail.endswith(".gserviceaccount.com")
    return ActorType.SERVICE if is_service else ActorType.HUMAN
