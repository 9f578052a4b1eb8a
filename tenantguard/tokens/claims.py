"""From claims to an identity: which claims name the tenant, the scopes, the client, the actor.

A `ClaimsProfile` is data (the claim names of one provider) plus a few small rules (what kind of actor is this, is this
an access token at all). The presets in `presets.py` are such profiles. Any callable that takes the claims and returns
an `Identity` or `Verified` can stand in its place; issuer and expiry are always those that were verified.

Rules for the actor's type, where no ``actor_type`` claim says it: a subject that is the client itself is a service
(client credentials: RFC 9068, sections 2.2 and 5); an ``act`` member is an agent if it names a ``model``, else a
service; everybody else is human.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from tenantguard.errors import InvalidToken, TenantRefused
from tenantguard.identity import Actor, ActorType, AuthorizationDetail, Confirmation, Identity, Tenant
from tenantguard.tokens.jwt import audience_of

__all__ = [
    "MAX_ACTORS",
    "Claims",
    "ClaimsMapping",
    "ClaimsProfile",
    "Verified",
    "actor_type_of",
    "claim_at",
    "scopes_at",
]

Claims: TypeAlias = Mapping[str, Any]

MAX_ACTORS: Final = 8
"""Longest chain of ``act`` members."""
MAX_TENANTS: Final = 256
"""Most tenants that one token may name."""


class Verified(msgspec.Struct, frozen=True, gc=False):
    """A verified token: its identity, and the tenants that it names.

    Args:
        identity: who; its tenant is set where the token names exactly one.
        tenants: the ids of all tenants that the token names.
    """

    identity: Identity
    tenants: tuple[str, ...] = ()

    @property
    def undecided(self) -> bool:
        """True where the token names several tenants and one must be chosen."""
        return self.identity.tenant is None and len(self.tenants) > 1

    def choose(self, tenant_id: str) -> Identity:
        """Return the identity in one of the token's tenants.

        Raises:
            TenantRefused: the token does not name it.
        """
        if tenant_id not in self.tenants:
            raise TenantRefused("The token does not allow this tenant.", mend="Choose a tenant that the token names.")
        chosen = self.identity.tenant
        if chosen is not None and chosen.id == tenant_id:
            return self.identity
        return msgspec.structs.replace(self.identity, tenant=_tenant(tenant_id))


class ClaimsMapping(Protocol):
    """What turns verified claims into an identity."""

    def __call__(self, claims: Claims, /) -> "Identity | Verified":
        """Return the identity.

        Raises:
            InvalidToken: the claims are not those of an acceptable access token.
        """
        ...


ClaimPath: TypeAlias = str | tuple[str, ...]
"""A claim's name, or the names from the outer member to the inner one: ``("o", "id")``."""


def claim_at(claims: Claims, path: ClaimPath) -> Any:
    """Return the claim at a path, or ``None``. A name is never split: ``https://example.com/org`` is one name."""
    if isinstance(path, str):
        return claims.get(path)
    value: Any = claims
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _refuse(message: str, *, mend: str | None = None) -> InvalidToken:
    return InvalidToken(message, reason="claims", mend=mend)


def _text(claims: Claims, name: str) -> str | None:
    """The claim, which must be text; empty text counts as none."""
    value = claims.get(name)
    if value is None or value.__class__ is str:
        return value or None
    raise _refuse(f"The token's {name} is no text.")


def _first_text(claims: Claims, paths: tuple[ClaimPath, ...]) -> str | None:
    """The first of the claims that is there; it must be text."""
    for path in paths:
        value = claims.get(path) if path.__class__ is str else claim_at(claims, path)
        if value is not None:
            if value.__class__ is not str:
                raise _refuse(f"The token's {path if isinstance(path, str) else '.'.join(path)} is no text.")
            return value or None
    return None


_RARE: Final = frozenset(
    ("act", "acr", "amr", "auth_time", "authorization_details", "cnf", "grant_id", "model", "task", "version")
)
_ID_TOKEN_CLAIMS: Final = frozenset(("nonce", "at_hash", "c_hash", "s_hash"))

# Values that many tokens share are held once: with 100,000 cached tokens that is most of their memory.
_SHARED_LENGTH: Final = 512


@lru_cache(maxsize=4096)
def _split(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=4096)
def _frozen(items: frozenset[str]) -> frozenset[str]:
    return items


@lru_cache(maxsize=4096)
def _shared_tenant(tenant_id: str) -> Tenant:
    return Tenant(id=tenant_id)


@lru_cache(maxsize=4096)
def _shared_texts(items: tuple[str, ...]) -> tuple[str, ...]:
    return items


@lru_cache(maxsize=4096)
def _shared_text(text: str) -> str:
    return text


def _tenant(tenant_id: Any) -> Tenant:
    if isinstance(tenant_id, str):
        return _shared_tenant(tenant_id) if len(tenant_id) <= _SHARED_LENGTH else Tenant(id=tenant_id)
    return Tenant(id=tenant_id)


def _texts(items: tuple[str, ...]) -> tuple[str, ...]:
    return _shared_texts(items) if sum(map(len, items)) <= _SHARED_LENGTH else items


def scopes_at(claims: Claims, *paths: ClaimPath) -> frozenset[str]:
    """Return the scopes of all claims that are there, as one shared set.

    Raises:
        InvalidToken: one is neither text nor a list of texts.
    """
    scopes: frozenset[str] = frozenset()
    for path in paths:
        value = claim_at(claims, path)
        if value is not None:
            found = _scopes_of(value, path if isinstance(path, str) else ".".join(path))
            scopes = scopes | found if scopes else found
    return scopes


def _scopes_of(value: Any, name: str) -> frozenset[str]:
    """Scopes as a space separated text (RFC 6749, section 3.3) or as a list of texts (Okta, Auth0, WorkOS)."""
    if isinstance(value, str):
        return _split(value) if len(value) <= _SHARED_LENGTH else frozenset(value.split())
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        scopes = frozenset(value)
        if any(not one or one.split() != [one] for one in scopes):
            raise _refuse(f"The token's {name} has an entry that is empty or holds spaces.")
        return _frozen(scopes) if sum(map(len, scopes)) <= _SHARED_LENGTH else scopes
    raise _refuse(f"The token's {name} is neither text nor a list of texts.")


def actor_type_of(claims: Claims) -> ActorType | None:
    """Return what the ``actor_type`` claim says, or ``None`` where there is none.

    Raises:
        InvalidToken: it is none of ``human``, ``service``, ``agent``.
    """
    value = claims.get("actor_type")
    if value is None:
        return None
    try:
        return ActorType(value)
    except ValueError:
        raise _refuse("The token's actor_type is none of human, service, agent.") from None


ActorTypeRule: TypeAlias = Callable[[Claims], "ActorType | None"]
ScopesRule: TypeAlias = Callable[[Claims], frozenset[str]]
TenantsRule: TypeAlias = Callable[[Claims], Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsProfile:
    """How one provider writes an identity into claims. Callable: ``profile(claims)`` gives a `Verified`.

    Args:
        tenant: where the tenant's id is; the first path that is there counts.
        tenants: a rule that returns the ids of all tenants, for tokens that may name several.
        scopes: the claims that hold scopes, all that are there; or a rule that returns the scopes.
        client_id: where the client's id is; the first that is there counts.
        session_id: where the session's id is.
        name: where a display name is.
        actor_type: a rule for the subject's type; where it returns ``None``, the general rules hold.
        token_types: the header's ``typ`` values, in lower case without ``application/``; ``""`` stands for none.
        act_type: what a party in ``act`` is that names neither its type nor a model.
        audience_claims: the claims that Issuer(audience=...) is compared with; the first that is there counts.
        check: raises `InvalidToken` for tokens that are not access tokens of this provider.
        id_tokens: True where the provider's ID tokens are meant to be accepted (Google).
    """

    tenant: tuple[ClaimPath, ...] = ("tenant_id",)
    tenants: TenantsRule | None = None
    scopes: tuple[ClaimPath, ...] | ScopesRule = ("scope", "scp")
    client_id: tuple[ClaimPath, ...] = ("client_id", "azp")
    session_id: tuple[ClaimPath, ...] = ("sid",)
    name: tuple[ClaimPath, ...] = ("name",)
    actor_type: ActorTypeRule | None = None
    token_types: frozenset[str] = frozenset({"at+jwt"})
    act_type: ActorType = ActorType.SERVICE
    audience_claims: tuple[str, ...] = ("aud",)
    check: Callable[[Claims], None] | None = None
    id_tokens: bool = False

    def __call__(self, claims: Claims, /) -> Verified:
        """Return the identity that verified claims describe.

        Raises:
            InvalidToken: a claim has the wrong form, or this is no access token.
            InvalidTenantId: the tenant's id is not usable.
        """
        if not self.id_tokens:
            refuse_id_token(claims)
        if self.check is not None:
            self.check(claims)
        tenants = self._tenants(claims)
        issuer = _shared_text(claims["iss"])
        client_id = _first_text(claims, self.client_id)
        if client_id is not None and len(client_id) <= _SHARED_LENGTH:
            client_id = _shared_text(client_id)
        # Most tokens have none of these; one look at all of them is cheaper than one at each.
        rare = not _RARE.isdisjoint(claims)
        subject = Actor(
            claims["sub"],
            self._subject_type(claims, client_id),
            issuer,
            client_id,
            _first_text(claims, self.name),
            _text(claims, "model") if rare else None,
            _text(claims, "version") if rare else None,
        )
        act = claims.get("act") if rare else None
        actors = () if act is None else _actors(act, subject, self.act_type)
        identity = Identity(
            subject=subject,
            actor=actors[0] if actors else subject,
            tenant=_tenant(tenants[0]) if len(tenants) == 1 else None,
            prior_actors=actors[1:],
            scopes=self.scopes(claims) if callable(self.scopes) else scopes_at(claims, *self.scopes),
            authorization_details=_authorization_details(claims.get("authorization_details")) if rare else (),
            issuer=issuer,
            audience=_texts(audience_of(claims, self.audience_claims)),
            client_id=client_id,
            token_id=_text(claims, "jti"),
            session_id=_first_text(claims, self.session_id),
            grant_id=_text(claims, "grant_id") if rare else None,
            task=_text(claims, "task") if rare else None,
            issued_at=int(claims["iat"]),
            expires_at=int(claims["exp"]),
            auth_time=_seconds(claims, "auth_time") if rare else None,
            acr=_text(claims, "acr") if rare else None,
            amr=_list_of_texts(claims, "amr") if rare else (),
            confirmation=_confirmation(claims.get("cnf")) if rare else None,
        )
        return Verified(identity, tenants)

    def _tenants(self, claims: Claims) -> tuple[str, ...]:
        if self.tenants is not None:
            named = self.tenants(claims)
            if len(named) > MAX_TENANTS:
                raise _refuse(f"The token names more than {MAX_TENANTS} tenants.")
            ids = tuple(dict.fromkeys(_tenant(one).id for one in named))
            if ids:
                return _texts(ids)
        for path in self.tenant:
            value = claim_at(claims, path)
            if value is not None:
                return _texts((_tenant(value).id,))
        return ()

    def _subject_type(self, claims: Claims, client_id: str | None) -> ActorType:
        declared = actor_type_of(claims)
        if declared is None and self.actor_type is not None:
            declared = self.actor_type(claims)
        if declared is not None:
            return declared
        return ActorType.SERVICE if claims["sub"] == client_id else ActorType.HUMAN


def refuse_id_token(claims: Claims) -> None:
    """Raise where the claims are those of an ID token: it tells an app who logged in, and is no right to call it.

    Raises:
        InvalidToken: a claim that only ID tokens have is there.

    Source: OpenID Connect Core 1.0, sections 2 and 3.3.2.11; RFC 8725, section 3.12.
    """
    if not _ID_TOKEN_CLAIMS.isdisjoint(claims):
        raise InvalidToken("This is an ID token.", reason="id_token", mend="Send the access token instead.")


def _seconds(claims: Claims, name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise _refuse(f"The token's {name} is no time in seconds.")
    return int(value)


def _list_of_texts(claims: Claims, name: str) -> tuple[str, ...]:
    value = claims.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _refuse(f"The token's {name} is no list of texts.")
    return _texts(tuple(value))


def _actors(act: Any, about: Actor, untyped: ActorType) -> tuple[Actor, ...]:
    """The delegation chain of ``act`` members, the current actor first (RFC 8693, section 4.1).

    A party that is in the chain twice, or is the subject itself, is refused: such a chain tells no history.
    """
    actors: list[Actor] = []
    issuer = about.issuer
    while act is not None:
        if not isinstance(act, dict):
            raise _refuse("The token's act is no JSON object.")
        if len(actors) == MAX_ACTORS:
            raise _refuse(f"The token's act chain is longer than {MAX_ACTORS}.")
        subject = act.get("sub")
        if not isinstance(subject, str) or not subject:
            raise _refuse("An act of the token has no sub.")
        model = _text(act, "model")
        actors.append(
            Actor(
                id=subject,
                type=actor_type_of(act) or (ActorType.AGENT if model is not None else untyped),
                issuer=_text(act, "iss") or issuer,
                client_id=_text(act, "client_id"),
                name=_text(act, "name"),
                model=model,
                version=_text(act, "version"),
            )
        )
        act = act.get("act")
    if len({(party.issuer, party.id) for party in (about, *actors)}) != len(actors) + 1:
        raise _refuse("The token's act chain names a party twice.")
    return tuple(actors)


def _authorization_details(value: Any) -> tuple[AuthorizationDetail, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _refuse("The token's authorization_details is no list.")
    details = []
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("type"), str) or not one["type"]:
            raise _refuse("An entry of the token's authorization_details has no type.")
        details.append(AuthorizationDetail(type=one["type"], json=msgspec.json.encode(one).decode()))
    return tuple(details)


def _confirmation(value: Any) -> Confirmation | None:
    """The key that the token is bound to. A kind that is not known is refused, since it could not be checked."""
    if value is None:
        return None
    if not isinstance(value, dict) or not value or not set(value) <= {"jkt", "x5t#S256"}:
        raise _refuse("The token's cnf is of a kind that is not supported.", mend="Use jkt (DPoP) or x5t#S256 (mTLS).")
    if not all(isinstance(one, str) and one for one in value.values()):
        raise _refuse("The token's cnf is malformed.")
    return Confirmation(jkt=value.get("jkt"), x5t_s256=value.get("x5t#S256"))
