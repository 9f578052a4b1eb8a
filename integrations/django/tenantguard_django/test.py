"""For a project's own tests: work as somebody, and send requests as somebody.

``as_identity`` binds an identity for code that is called directly: models, services, commands. `TenantClient` and
`AsyncTenantClient` are Django's test clients, logged in: everything of the middleware runs but the reading of the
token, so scopes, public paths and tenants are as in production. To test tokens too, give one of a development issuer::

    TenantClient(token=issuer.mint("alice", tenant="acme", scopes="documents:read"))
"""

from collections.abc import Iterable
from typing import Any

from django.test import AsyncClient, Client

from tenantguard.context import bind
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard_django.middleware import TESTED

__all__ = ["AsyncTenantClient", "TenantClient", "as_identity", "identity_of"]


def identity_of(
    subject: str = "test-user",
    *,
    tenant: str | Tenant | None,
    scopes: str | Iterable[str] = (),
    actor: Actor | None = None,
    **others: Any,
) -> Identity:
    """Return the identity of a person in a tenant, as a token would have given it.

    Args:
        subject: the person.
        tenant: the tenant or its id; ``None`` for an identity that belongs to none.
        scopes: as a set, or separated by spaces.
        actor: who acts for the person, for example an agent.
        others: further fields of `Identity`.
    """
    person = Actor(subject, ActorType.HUMAN, others.get("issuer"))
    return Identity(
        subject=person,
        actor=actor or person,
        tenant=Tenant(tenant) if isinstance(tenant, str) else tenant,
        scopes=frozenset(scopes.split() if isinstance(scopes, str) else scopes),
        **others,
    )


def as_identity(
    identity: Identity | None = None,
    *,
    subject: str = "test-user",
    tenant: str | Tenant | None = None,
    scopes: str | Iterable[str] = (),
) -> bind:
    """Work as somebody for a block; also a decorator of test functions and methods, sync and async.

    ::

        with as_identity(tenant="acme"):
            assert Document.objects.count() == 3

    Args:
        identity: who; or say it by the other arguments.
        subject: see `identity_of`.
        tenant: see `identity_of`.
        scopes: see `identity_of`.
    """
    return bind(identity or identity_of(subject, tenant=tenant, scopes=scopes))


def _shown(identity: Identity | None, token: str | None, who: dict[str, Any]) -> Identity | str:
    if token is not None:
        if identity is not None or who:
            raise TypeError("Give a token, or say who it is; not both.")
        return token
    if identity is not None and who:
        raise TypeError("Give an identity, or its parts; not both.")
    return identity if identity is not None else identity_of(**who)


class TenantClient(Client):
    """Django's test client, as somebody.

    Args:
        identity: who; or say it by the arguments of `identity_of`.
        token: a token to send instead, which the project's guard must trust.
        enforce_csrf_checks: see `django.test.Client`.
        raise_request_exception: see `django.test.Client`.
        who: the arguments of `identity_of`.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        token: str | None = None,
        enforce_csrf_checks: bool = False,
        raise_request_exception: bool = True,
        **who: Any,
    ) -> None:
        shown = _shown(identity, token, who)
        extra = {TESTED: shown} if isinstance(shown, Identity) else {"HTTP_AUTHORIZATION": f"Bearer {shown}"}
        super().__init__(enforce_csrf_checks, raise_request_exception, **extra)


class AsyncTenantClient(AsyncClient):
    """Django's async test client, as somebody. The arguments are those of `TenantClient`."""

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        token: str | None = None,
        enforce_csrf_checks: bool = False,
        raise_request_exception: bool = True,
        **who: Any,
    ) -> None:
        super().__init__(enforce_csrf_checks, raise_request_exception)
        self._shown = _shown(identity, token, who)

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        scope: dict[str, Any] = super()._base_scope(**request)  # type: ignore[misc]  # the stubs leave it out
        if isinstance(self._shown, Identity):
            scope[TESTED] = self._shown
        else:
            scope["headers"].append((b"authorization", f"Bearer {self._shown}".encode()))
        return scope
