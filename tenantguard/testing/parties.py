"""Who can get tokens from the development issuer: its users and its registered clients.

A client is declared with everything that it may do: the scopes that it can ever hold, the audiences that it may get
tokens for, and the audiences whose tokens it may exchange. What is not declared is refused (RFC 6749, section 2; RFC
8693, section 2.1).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tenantguard.errors import ConfigurationError
from tenantguard.identity import ActorType, validate_tenant_id

__all__ = ["DevClient", "DevUser", "scope_set"]


def scope_set(scopes: str | Iterable[str]) -> frozenset[str]:
    """Return scopes as a set; a string holds them separated by spaces (RFC 6749, section 3.3)."""
    return frozenset(scopes.split() if isinstance(scopes, str) else scopes)


@dataclass(frozen=True, slots=True, init=False)
class DevUser:
    """A person who can log in with the development-only ``password`` grant.

    Args:
        subject: the ``sub`` of the tokens, and the user name.
        tenant: the tenant that the person belongs to; ``None`` for a person of no tenant.
        scopes: the most that the person's tokens can hold.
        password: for the password grant; without one that grant is refused.
        name: a display name.

    Raises:
        InvalidTenantId: the tenant id is not usable.
        ConfigurationError: the subject is empty.
    """

    subject: str
    tenant: str | None
    scopes: frozenset[str]
    password: str | None = field(repr=False)
    name: str | None

    def __init__(
        self,
        subject: str,
        *,
        tenant: str | None,
        scopes: str | Iterable[str] = (),
        password: str | None = None,
        name: str | None = None,
    ) -> None:
        _require_id(subject, "A development user", "subject")
        _set(
            self,
            subject=subject,
            tenant=None if tenant is None else validate_tenant_id(tenant),
            scopes=scope_set(scopes),
            password=password,
            name=name,
        )


@dataclass(frozen=True, slots=True, init=False)
class DevClient:
    """An OAuth client: a service, an agent, or the app through which people log in.

    Args:
        client_id: its id, and the ``sub`` of its own tokens.
        secret: for ``client_secret_basic`` and ``client_secret_post``; ``None`` makes it a public client, which may
            use the password grant only.
        actor_type: what it is when it acts for somebody: ``"service"`` or ``"agent"``.
        scopes: the most that its tokens can hold, its own as well as exchanged ones. ``None`` sets no bound of its
            own: tokens for a person or exchanged tokens hold what the subject holds, its own tokens hold none.
        audiences: the audiences that it may get tokens for.
        accepts: the audiences of subject tokens that it may exchange: the names under which it is itself a resource
            server. The same as ``audiences`` unless given.
        tenant: the tenant of its own tokens, and the only tenant whose tokens it may exchange; ``None`` for a client
            that serves every tenant, whose own tokens name none.
        jwks: public keys of the client (RFC 7591). With them it may say by an assertion of its own for whom it acts, as
            jobs do; see `tenantguard.jobs.JobKeys.public_jwks`.
        name: a display name.
        model: an agent's model.
        version: the version of the agent or service.

    Raises:
        InvalidTenantId: the tenant id is not usable.
        ConfigurationError: the id is empty, the secret is empty, or the actor type is neither service nor agent.
    """

    client_id: str
    secret: str | None = field(repr=False)
    actor_type: ActorType
    scopes: frozenset[str] | None
    audiences: frozenset[str]
    accepts: frozenset[str]
    tenant: str | None
    jwks: Mapping[str, Any] | None = field(repr=False, hash=False)
    name: str | None
    model: str | None
    version: str | None

    def __init__(
        self,
        client_id: str,
        secret: str | None = None,
        *,
        actor_type: str = "service",
        scopes: str | Iterable[str] | None = None,
        audiences: str | Iterable[str] = (),
        accepts: str | Iterable[str] | None = None,
        tenant: str | None = None,
        jwks: Mapping[str, Any] | None = None,
        name: str | None = None,
        model: str | None = None,
        version: str | None = None,
    ) -> None:
        _require_id(client_id, "A development client", "client_id")
        if secret is not None and not secret:
            raise ConfigurationError(
                "A development client has an empty secret.", mend="Give it one, or secret=None for a public client."
            )
        if actor_type not in ("service", "agent"):
            raise ConfigurationError(
                "A development client is neither a service nor an agent.", mend='Say actor_type="service" or "agent".'
            )
        _set(
            self,
            client_id=client_id,
            secret=secret,
            actor_type=ActorType(actor_type),
            scopes=None if scopes is None else scope_set(scopes),
            audiences=scope_set(audiences),
            accepts=scope_set(audiences if accepts is None else accepts),
            tenant=None if tenant is None else validate_tenant_id(tenant),
            jwks=jwks,
            name=name,
            model=model,
            version=version,
        )

    def act(self, issuer: str) -> dict[str, Any]:
        """Return the ``act`` member that names this client as the actor (RFC 8693, section 4.1)."""
        members = {
            "sub": self.client_id,
            "iss": issuer,
            "client_id": self.client_id,
            "actor_type": self.actor_type.value,
            "name": self.name,
            "model": self.model,
            "version": self.version,
        }
        return {name: value for name, value in members.items() if value is not None}


def _require_id(value: str, what: str, key: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{what} has no {key}.", mend=f'For example {key}="alice".')


def _set(target: object, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(target, name, value)
