"""The three grants of the development token endpoint, as functions from a request to claims.

``client_credentials`` (RFC 6749, section 4.4), a ``password`` grant for development only (section 4.3; RFC 9700 section
2.4 forbids it anywhere else), and token exchange (RFC 8693). Whatever is granted is the intersection of what was asked,
what the subject holds and what the client may ever hold; asking for more is refused, not trimmed in silence.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tenantguard.testing.parties import DevClient, DevUser, scope_set
from tenantguard.testing.token_request import OAuthError

__all__ = [
    "ACCESS_TOKEN_TYPE",
    "JWT_TYPE",
    "MAX_CHAIN",
    "TOKEN_EXCHANGE",
    "Granted",
    "grant_client_credentials",
    "grant_exchange",
    "grant_password",
    "require_confidential",
]

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
"""Grant type of RFC 8693, section 2.1."""
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
MAX_CHAIN: Final = 8
"""Most actors that one token may name: a longer chain is a loop."""

_CARRIED: Final[tuple[str, ...]] = (
    "sid",
    "auth_time",
    "acr",
    "amr",
    "name",
    "task",
    "grant_id",
    "authorization_details",
)
"""Claims of the subject token that an exchanged token keeps. ``cnf`` is not among them: its key is the presenter's."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a grant allows.

    Args:
        claims: the claims, without the times, the issuer and the token id.
        scopes: the scopes of the token.
        not_after: the latest expiry in seconds since the epoch, where the subject token sets one.
        issued_token_type: for token exchange (RFC 8693, section 2.2.1).
    """

    claims: dict[str, Any]
    scopes: frozenset[str]
    not_after: int | None = None
    issued_token_type: str | None = None


def grant_client_credentials(client: DevClient, parameters: Mapping[str, str]) -> Granted:
    """A client acts for itself: it is subject and client at once (RFC 9068, section 2.2).

    Raises:
        OAuthError: a public client, an audience or a scope that it may not have.
    """
    require_confidential(client)
    audience = _audience(client, parameters)
    scopes = _scopes(parameters, client.scopes or frozenset(), client.scopes)
    claims = {
        "sub": client.client_id,
        "client_id": client.client_id,
        "aud": audience,
        "tenant_id": client.tenant,
        "actor_type": client.actor_type.value,
        "name": client.name,
    }
    return Granted({name: value for name, value in claims.items() if value is not None}, scopes)


def grant_password(client: DevClient, parameters: Mapping[str, str], users: Mapping[str, DevUser]) -> Granted:
    """A person logs in with a password, for local development alone.

    Raises:
        OAuthError: unknown user, wrong password, an audience or a scope that is not allowed.
    """
    username, password = parameters.get("username"), parameters.get("password")
    if username is None or password is None:
        raise OAuthError("invalid_request", "The password grant needs username and password.")
    user = users.get(username)
    known = user.password if user is not None and user.password else None
    good = hmac.compare_digest((known or "").encode(), password.encode()) and known is not None
    if user is None or not good:
        raise OAuthError("invalid_grant", "The user name or the password is wrong.")
    audience = _audience(client, parameters)
    scopes = _scopes(parameters, user.scopes, client.scopes)
    claims = {
        "sub": user.subject,
        "client_id": client.client_id,
        "aud": audience,
        "tenant_id": user.tenant,
        "actor_type": "human",
        "name": user.name,
    }
    return Granted({name: value for name, value in claims.items() if value is not None}, scopes)


def grant_exchange(
    client: DevClient,
    parameters: Mapping[str, str],
    *,
    issuer: str,
    verify: Callable[[str, str], dict[str, Any]],
    assertion: dict[str, Any] | None = None,
) -> Granted:
    """The client gets a narrower token for the same subject and tenant, and is named in it as the actor.

    Args:
        client: the authenticated client, which becomes the actor.
        parameters: the form parameters.
        issuer: the issuer's URL.
        verify: returns the claims of one of the issuer's own tokens, or raises `OAuthError`; its second argument
            says which token it is.
        assertion: the claims of the subject token, where it is the client's own assertion and has been verified.

    Raises:
        OAuthError: a token that is not good, or an audience or scope that may not be had.

    Source: RFC 8693, sections 2.1, 2.2 and 4.
    """
    require_confidential(client)
    _check_types(parameters)
    if assertion is None:
        subject = verify(parameters["subject_token"], "subject_token")
        if not _audiences(subject) & client.accepts:
            raise OAuthError(
                "invalid_request", "The subject_token is for an audience that this client does not accept."
            )
    else:
        subject = assertion
    tenant = subject.get("tenant_id")
    if client.tenant is not None and client.tenant != tenant:
        raise OAuthError("invalid_request", "The subject_token is of another tenant than the client.")
    actor = client.act(issuer)
    if "actor_token" in parameters:
        _check_actor_token(verify(parameters["actor_token"], "actor_token"), client, tenant)
    _check_may_act(subject, client)
    audience = _audience(client, parameters)
    scopes = _scopes(parameters, scope_set(str(subject.get("scope", ""))), client.scopes)
    claims = {name: subject[name] for name in _CARRIED if name in subject}
    claims |= {"sub": subject["sub"], "client_id": client.client_id, "aud": audience}
    claims |= {name: subject[name] for name in ("tenant_id", "actor_type") if name in subject}
    act = _extend_chain(subject, actor)
    if act is not None:
        claims["act"] = act
    return Granted(
        claims,
        scopes,
        not_after=int(subject["exp"]),
        issued_token_type=parameters.get("requested_token_type", ACCESS_TOKEN_TYPE),
    )


def _check_types(parameters: Mapping[str, str]) -> None:
    if "subject_token" not in parameters or "subject_token_type" not in parameters:
        raise OAuthError("invalid_request", "Token exchange needs subject_token and subject_token_type.")
    if ("actor_token" in parameters) != ("actor_token_type" in parameters):
        raise OAuthError("invalid_request", "actor_token and actor_token_type come together.")
    for name in ("subject_token_type", "actor_token_type", "requested_token_type"):
        if parameters.get(name, ACCESS_TOKEN_TYPE) not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise OAuthError("invalid_request", f"The {name} is not supported.")
    if "resource" in parameters:
        raise OAuthError("invalid_target", "This issuer knows targets by audience, not by resource.")


def _check_actor_token(actor: Mapping[str, Any], client: DevClient, tenant: object) -> None:
    """The token that proves the actor is the client's own, plain, and of no other tenant."""
    if actor.get("sub") != client.client_id or actor.get("client_id") != client.client_id or "act" in actor:
        raise OAuthError("invalid_request", "The actor_token is not the client's own.")
    if actor.get("tenant_id", tenant) != tenant:
        raise OAuthError("invalid_request", "The actor_token is of another tenant than the subject_token.")


def _check_may_act(subject: Mapping[str, Any], client: DevClient) -> None:
    """Where the subject token names who may act, nobody else may (RFC 8693, section 4.4)."""
    if "may_act" not in subject:
        return
    allowed = subject["may_act"]
    if not isinstance(allowed, dict) or allowed.get("sub") != client.client_id:
        raise OAuthError("invalid_request", "The subject_token does not allow this client to act.")


def _extend_chain(subject: Mapping[str, Any], actor: dict[str, Any]) -> dict[str, Any] | None:
    """Put the client on top of the chain; one that already acts is not named twice in a row."""
    chain = subject.get("act")
    current = chain.get("sub") if isinstance(chain, dict) else subject["sub"]
    if current == actor["sub"]:
        return chain
    if not isinstance(chain, dict):
        return actor
    length, link = 1, chain
    while isinstance(link.get("act"), dict):
        length, link = length + 1, link["act"]
    if length >= MAX_CHAIN:
        raise OAuthError("invalid_request", f"The delegation chain has {length} actors, which is the most.")
    return actor | {"act": chain}


def require_confidential(client: DevClient) -> None:
    """Refuse a public client.

    Raises:
        OAuthError: it is one.
    """
    if client.secret is None:
        raise OAuthError("unauthorized_client", "A public client may not use this grant.")


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    audience = claims.get("aud", ())
    return frozenset((audience,) if isinstance(audience, str) else audience)


def _audience(client: DevClient, parameters: Mapping[str, str]) -> str:
    """One audience per token; a client that may have one only need not name it."""
    asked = parameters.get("audience")
    if asked is None:
        if len(client.audiences) != 1:
            raise OAuthError("invalid_request", "The request needs an audience.")
        return next(iter(client.audiences))
    if asked not in client.audiences:
        raise OAuthError("invalid_target", "The client may not get tokens for this audience.")
    return asked


def _scopes(parameters: Mapping[str, str], held: frozenset[str], ceiling: frozenset[str] | None) -> frozenset[str]:
    """Scopes that were asked, all of which must be within reach; all within reach where none was asked."""
    reach = held if ceiling is None else held & ceiling
    if "scope" not in parameters:
        return reach
    asked = scope_set(parameters["scope"])
    if not asked <= reach:
        raise OAuthError("invalid_scope", "A scope is not held by the subject or not allowed to the client.")
    return asked
