"""From claims to an identity: which claims name the tenant, the scopes, the client, the actor.

A `ClaimsProfile` is data (the claim names of one provider) plus a few small rules (what kind of actor is this, is this
an access token at all). The presets in `presets.py` are such profiles. Any callable that takes the claims and returns
an `Identity` or `Verified` can stand in its place; issuer and expiry are always those that were verified.

Rules for the actor's type, where no ``actor_type`` claim says it: a subject that is the client itself is a service
(client credentials: RFC 9068, sections 2.2 and 5); an ``act`` member is an agent if it names a ``model``, else a
service; everybody else is human.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from tenantguard.errors import InvalidToken, TenantRefused
from tenantguard.identity import Actor, ActorType, Identity
from tenantguard.tokens.claim_values import (
    SHARED_LENGTH,
    ClaimPath,
    Claims,
    actor_type_of,
    actors_of,
    authorization_details_of,
    claim_at,
    confirmation_of,
    dimensions_at,
    first_text_at,
    refuse_claim,
    scopes_at,
    seconds_at,
    shared_text,
    shared_texts,
    tenant_of,
    text_at,
    texts_at,
)
from tenantguard.tokens.jwt import audience_of

__all__ = ["ClaimsMapping", "ClaimsProfile", "Verified", "refuse_id_token"]

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
        return msgspec.structs.replace(self.identity, tenant=tenant_of(tenant_id))


class ClaimsMapping(Protocol):
    """What turns verified claims into an identity."""

    def __call__(self, claims: Claims, /) -> "Identity | Verified":
        """Return the identity.

        Raises:
            InvalidToken: the claims are not those of an acceptable access token.
        """
        ...


_RARE: Final = frozenset(
    ("act", "acr", "amr", "auth_time", "authorization_details", "cnf", "grant_id", "model", "task", "version")
)
_ID_TOKEN_CLAIMS: Final = frozenset(("nonce", "at_hash", "c_hash", "s_hash"))

ActorTypeRule: TypeAlias = Callable[[Claims], "ActorType | None"]
ScopesRule: TypeAlias = Callable[[Claims], frozenset[str]]
TenantsRule: TypeAlias = Callable[[Claims], Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimsProfile:
    """How one provider writes an identity into claims. Callable: ``profile(claims)`` gives a `Verified`.

    Args:
        tenant: where the tenant's id is; the first path that is there counts.
        tenants: a rule that returns the ids of all tenants, for tokens that may name several.
        dimensions: where the claims are that narrow the right inside the tenant, by the name of the dimension, for
            example ``{"workspace": "workspace_id"}``. A token without such a claim is as wide as its tenant.
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
    dimensions: Mapping[str, ClaimPath] = field(default_factory=dict, hash=False)
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
        issuer = shared_text(claims["iss"])
        client_id = first_text_at(claims, self.client_id)
        if client_id is not None and len(client_id) <= SHARED_LENGTH:
            client_id = shared_text(client_id)
        # Most tokens have none of these; one look at all of them is cheaper than one at each.
        rare = not _RARE.isdisjoint(claims)
        subject = Actor(
            claims["sub"],
            self._subject_type(claims, client_id),
            issuer,
            client_id,
            first_text_at(claims, self.name),
            text_at(claims, "model") if rare else None,
            text_at(claims, "version") if rare else None,
        )
        act = claims.get("act") if rare else None
        actors = () if act is None else actors_of(act, subject, self.act_type)
        if actors:
            self._refuse_tenant_change(act, tenants)
        identity = Identity(
            subject=subject,
            actor=actors[0] if actors else subject,
            tenant=tenant_of(tenants[0]) if len(tenants) == 1 else None,
            prior_actors=actors[1:],
            scopes=self.scopes(claims) if callable(self.scopes) else scopes_at(claims, *self.scopes),
            dimensions=dimensions_at(claims, self.dimensions) if self.dimensions else (),
            authorization_details=authorization_details_of(claims.get("authorization_details")) if rare else (),
            issuer=issuer,
            audience=shared_texts(audience_of(claims, self.audience_claims)),
            client_id=client_id,
            token_id=text_at(claims, "jti"),
            session_id=first_text_at(claims, self.session_id),
            grant_id=text_at(claims, "grant_id") if rare else None,
            task=text_at(claims, "task") if rare else None,
            issued_at=int(claims["iat"]),
            expires_at=int(claims["exp"]),
            auth_time=seconds_at(claims, "auth_time") if rare else None,
            acr=text_at(claims, "acr") if rare else None,
            amr=texts_at(claims, "amr") if rare else (),
            confirmation=confirmation_of(claims.get("cnf")) if rare else None,
        )
        return Verified(identity, tenants)

    def _tenants(self, claims: Claims) -> tuple[str, ...]:
        if self.tenants is not None:
            named = self.tenants(claims)
            if len(named) > MAX_TENANTS:
                raise refuse_claim(f"The token names more than {MAX_TENANTS} tenants.")
            ids = tuple(dict.fromkeys(tenant_of(one).id for one in named))
            if ids:
                return shared_texts(ids)
        for path in self.tenant:
            value = claim_at(claims, path)
            if value is not None:
                return shared_texts((tenant_of(value).id,))
        return ()

    def _refuse_tenant_change(self, act: Any, tenants: tuple[str, ...]) -> None:
        """Refuse a chain in which somebody acted in another tenant than the token's."""
        while isinstance(act, Mapping):
            for path in self.tenant:
                said = claim_at(act, path)
                if said is not None and said not in tenants:
                    raise InvalidToken("The token's tenant changed in its delegation chain.", reason="tenant")
            act = act.get("act")

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
