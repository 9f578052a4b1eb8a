"""Who acts, for whom, in which tenant: the immutable values that everything else reads.

A verified token becomes one `Identity`. It answers four questions: what is this actor (`actor`),
is it human or machine (`actor.type`), what may it access (`scopes`), and under whose authority
(`subject`, `chain`). The words are those of RFC 7519 (subject), RFC 8693 section 4.1 (actor, act) and
RFC 9068 (access tokens).

The values are msgspec structs: slotted, frozen, hashable, and outside the garbage collector, so that
a cache with 100,000 of them does not lengthen a collection. They never hold the token itself.
"""

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from tenantguard.errors import InvalidTenantId

__all__ = [
    "MAX_TENANT_ID_LENGTH",
    "Actor",
    "ActorType",
    "AuthorizationDetail",
    "Confirmation",
    "Identity",
    "Tenant",
    "TenantStatus",
    "Transaction",
    "service_identity",
    "validate_tenant_id",
]

MAX_TENANT_ID_LENGTH: Final = 128
"""Longest tenant id in characters: enough for every identity provider's organisation ids and for domains."""

_PLAIN_TENANT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@|~-]{0,127}", re.ASCII)


def validate_tenant_id(value: object) -> str:
    """Return ``value`` if it is a usable tenant id.

    A tenant id is 1 to 128 characters: letters, digits and ``. _ : @ | ~ -``, the first a letter or a
    digit. Letters and digits outside ASCII are allowed where Unicode's NFKC form equals the id, so that two
    ids that compare equal after normalisation can't both exist. Letters of two scripts that look alike are two
    letters. Ids are case-sensitive.

    Raises:
        InvalidTenantId: it is not a string, is empty, too long, has other characters, or is not normalised.
            ``None``, ``0``, ``""`` and ``[]`` raise: no empty value ever means "all tenants".
    """
    if isinstance(value, str) and _PLAIN_TENANT_ID.fullmatch(value):
        return value
    if not isinstance(value, str):
        raise InvalidTenantId(f"it is a {type(value).__name__}, not a string")
    if not value:
        raise InvalidTenantId("it is empty")
    if len(value) > MAX_TENANT_ID_LENGTH:
        raise InvalidTenantId(f"it has {len(value)} characters, at most {MAX_TENANT_ID_LENGTH} are allowed")
    if unicodedata.normalize("NFKC", value) != value:
        raise InvalidTenantId("it is not in Unicode's NFKC form")
    folded = "".join("a" if not c.isascii() and c.isalnum() else c for c in value)
    if not _PLAIN_TENANT_ID.fullmatch(folded):
        raise InvalidTenantId("it has a character other than letters, digits and . _ : @ | ~ -")
    return value


class TenantStatus(StrEnum):
    """Whether a tenant may be used: only an active one may.

    The others say why not: suspended; being set up, moved or removed by an operation; gone for good.
    """

    ACTIVE = "active"
    SUSPENDED = "suspended"
    PROVISIONING = "provisioning"
    MOVING = "moving"
    REMOVING = "removing"
    REMOVED = "removed"


class Tenant(msgspec.Struct, frozen=True, gc=False):
    """A customer organisation whose data is a closed world.

    Args:
        id: its id, checked by `validate_tenant_id`.
        status: an app refuses requests of a tenant that is not active.
        name: a display name, for pages and logs.

    Raises:
        InvalidTenantId: the id is not usable.
        TypeError: the status is no `TenantStatus`.
    """

    id: str
    status: TenantStatus = TenantStatus.ACTIVE
    name: str | None = None

    def __post_init__(self) -> None:
        validate_tenant_id(self.id)
        if not isinstance(self.status, TenantStatus):
            raise TypeError("Tenant.status must be a TenantStatus.")


class ActorType(StrEnum):
    """What an actor is. The difference decides policies and is written into every audit record."""

    HUMAN = "human"
    SERVICE = "service"
    AGENT = "agent"

    @property
    def is_machine(self) -> bool:
        """True for services and agents."""
        return self is not ActorType.HUMAN


class Actor(msgspec.Struct, frozen=True, gc=False):
    """A party that acts or on whose authority somebody acts.

    Args:
        id: the ``sub`` of the party, unique within its issuer (RFC 7519, section 4.1.2).
        type: human, service or agent.
        issuer: the ``iss`` that names the party; ``None`` for a party that the app itself declared.
        client_id: the OAuth client through which it acts, where the token tells.
        name: a display name, where the token tells.
        model: an agent's model, where the token tells.
        version: the version of an agent or service, where the token tells.

    Raises:
        TypeError: the id is empty or no text, or the type is no `ActorType`.
    """

    id: str
    type: ActorType
    issuer: str | None = None
    client_id: str | None = None
    name: str | None = None
    model: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise TypeError("Actor.id must be a non-empty str.")
        if not isinstance(self.type, ActorType):
            raise TypeError("Actor.type must be an ActorType, for example ActorType.HUMAN.")


class AuthorizationDetail(msgspec.Struct, frozen=True, gc=False):
    """One element of ``authorization_details`` (RFC 9396), kept as text so that identities stay hashable.

    Args:
        type: the element's ``type``.
        json: the whole element as JSON text; `value` decodes it.
    """

    type: str
    json: str

    @property
    def value(self) -> dict[str, object]:
        """The element as a new dict."""
        decoded: dict[str, object] = msgspec.json.decode(self.json)
        return decoded


class Confirmation(msgspec.Struct, frozen=True, gc=False):
    """The key that the presenter of the token must hold (``cnf``, RFC 7800).

    Args:
        jkt: SHA-256 thumbprint of a DPoP key (RFC 9449, section 6).
        x5t_s256: SHA-256 thumbprint of a client certificate (RFC 8705, section 3.1).
    """

    jkt: str | None = None
    x5t_s256: str | None = None


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """The transaction that a request is part of (draft-ietf-oauth-transaction-tokens): the same in every service.

    Args:
        id: ``txn``, unique in the trust domain.
        requested_by: ``req_wl``: the services that asked for its token and for replacements, in that order.
        json: ``tctx``, what it is about, as JSON text; `context` decodes it.
    """

    id: str
    requested_by: tuple[str, ...] = ()
    json: str = "{}"

    @property
    def context(self) -> dict[str, object]:
        """What the transaction is about, as a new dict. No service on the way can change it."""
        decoded: dict[str, object] = msgspec.json.decode(self.json)
        return decoded


class Identity(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The verified whole that a request, job or script runs as.

    Args:
        subject: on whose authority: the party that the token is about (``sub``).
        actor: who acts now: the subject itself, or the outermost ``act`` of a delegated token.
        tenant: the one tenant; ``None`` only for an identity that belongs to none, which then reaches
            no owned row.
        prior_actors: earlier actors of a delegated token, the latest first. History only: they decide
            no access (RFC 8693, section 4.1).
        scopes: OAuth scopes (RFC 6749, section 3.3).
        dimensions: what the right is narrowed to inside the tenant, as pairs of a declared dimension and a value, for
            example ``(("workspace", "w1"),)``. Empty where it is as wide as the tenant.
        authorization_details: RFC 9396 details.
        issuer: the token's ``iss``; ``None`` where the app itself declared the identity.
        audience: the token's ``aud`` values.
        client_id: the OAuth client that the token was issued to.
        token_id: ``jti``.
        session_id: ``sid``, the login session.
        grant_id: the stored consent under which an agent acts.
        task: what the token was issued for, where the issuer says so.
        issued_at: ``iat``, in seconds since the epoch.
        expires_at: ``exp``, in seconds since the epoch; ``None`` never expires (declared identities only).
        auth_time: when the human last authenticated, in seconds since the epoch.
        acr: authentication context class.
        amr: authentication methods.
        confirmation: the sender constraint.
        transaction: the transaction that the request is part of, where it came with a transaction token.

    Raises:
        TypeError: a part that decides access is of the wrong kind, for example scopes that are one text. Struct
            types are not checked by themselves, and what is mutable could change after it was verified.
    """

    subject: Actor
    actor: Actor
    tenant: Tenant | None = None
    prior_actors: tuple[Actor, ...] = ()
    scopes: frozenset[str] = frozenset()
    dimensions: tuple[tuple[str, str], ...] = ()
    authorization_details: tuple[AuthorizationDetail, ...] = ()
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    client_id: str | None = None
    token_id: str | None = None
    session_id: str | None = None
    grant_id: str | None = None
    task: str | None = None
    issued_at: int | None = None
    expires_at: int | None = None
    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    confirmation: Confirmation | None = None
    transaction: Transaction | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.subject, Actor) or not isinstance(self.actor, Actor):
            raise TypeError("Identity.subject and Identity.actor must be Actors.")
        if self.tenant is not None and not isinstance(self.tenant, Tenant):
            raise TypeError("Identity.tenant must be a Tenant or None.")
        if not isinstance(self.scopes, frozenset):
            raise TypeError("Identity.scopes must be a frozenset of str.")
        for name in ("prior_actors", "dimensions", "authorization_details", "audience", "amr"):
            if not isinstance(getattr(self, name), tuple):
                raise TypeError(f"Identity.{name} must be a tuple.")
        if self.dimensions:
            _check_dimensions(self.dimensions)

    def narrowed_to(self, dimension: str) -> str | None:
        """Return the value that the right is narrowed to in a dimension; ``None`` where it is as wide as the tenant."""
        for name, value in self.dimensions:
            if name == dimension:
                return value
        return None

    @property
    def chain(self) -> tuple[Actor, ...]:
        """The delegation chain: current actor, prior actors (latest first), subject; the subject alone if it acts."""
        if not self.is_delegated:
            return (self.subject,)
        return (self.actor, *self.prior_actors, self.subject)

    @property
    def is_delegated(self) -> bool:
        """True where somebody acts for the subject (RFC 8693, section 1.1)."""
        return self.actor != self.subject

    def has_scopes(self, *required: str) -> bool:
        """True if every scope of ``required`` is held."""
        return self.scopes.issuperset(required)


def _check_dimensions(dimensions: tuple[Any, ...]) -> None:
    names = set()
    for pair in dimensions:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0]:
            raise TypeError('Identity.dimensions must be pairs of texts, for example (("workspace", "w1"),).')
        if pair[0] in names or pair[0] == "tenant":
            raise TypeError("Identity.dimensions must name each dimension once, and not the tenant.")
        names.add(pair[0])
        validate_tenant_id(pair[1])


def service_identity(
    name: str,
    *,
    tenant: str | Tenant,
    scopes: frozenset[str] | set[str] = frozenset(),
    dimensions: Mapping[str, str] | None = None,
) -> Identity:
    """Return the identity of the app itself, for scripts and scheduled work in one tenant.

    Args:
        name: the service's name, for example ``"invoice-run"``.
        tenant: the tenant or its id.
        scopes: what it may do.
        dimensions: what it is narrowed to inside the tenant, for example ``{"workspace": "w1"}``.

    Raises:
        InvalidTenantId: the tenant id is not usable.
        ValueError: the name is empty.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError('A service identity needs a name, for example service_identity("invoice-run", tenant="acme").')
    service = Actor(id=name, type=ActorType.SERVICE)
    bound = tenant if isinstance(tenant, Tenant) else Tenant(id=tenant)
    return Identity(
        subject=service,
        actor=service,
        tenant=bound,
        scopes=frozenset(scopes),
        dimensions=tuple((dimensions or {}).items()),
    )
