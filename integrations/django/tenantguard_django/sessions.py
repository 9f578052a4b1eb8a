"""A login session of Django as a credential, for the pages that people open in a browser: the admin above all.

The session says who the user is, and which tenant was chosen. Which tenants there are to choose from is the project's
to say, and it is asked on each request, so that a choice ends with the right to it. Until a tenant is chosen nobody is
bound, and no owned row can be reached. Cross-site request forgery is checked as for any session.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.http import HttpRequest

from tenantguard.errors import TenantRefused
from tenantguard.guard import TenantGuard
from tenantguard.identity import Actor, ActorType, Identity, Tenant, validate_tenant_id
from tenantguard.tenancy import check_standing
from tenantguard_django.bridge import run_blocking
from tenantguard_django.conf import SessionSettings, get_settings

__all__ = ["SESSION_KEY", "SessionIdentities", "choose_tenant", "tenants_to_choose"]

logger = logging.getLogger("tenantguard.sessions")

SESSION_KEY: Final = "tenantguard.tenant"
_NO_CHOICE: Final = "The tenant of a session is no choice any more: %s"


def tenants_to_choose(request: HttpRequest) -> tuple[str, ...]:
    """Return the ids of the tenants that the request's user may work in, as the setting ``SESSIONS`` has it."""
    sessions = get_settings().sessions
    user: Any = getattr(request, "user", None)
    if sessions is None or user is None or not user.is_authenticated:
        return ()
    return _ids(_asked_here(sessions.tenants, user))


def choose_tenant(request: HttpRequest, tenant_id: str) -> None:
    """Let a session work in one of its user's tenants, from the next request on.

    Args:
        request: the request.
        tenant_id: the tenant's id.

    Raises:
        TenantRefused: the user may not work in it.
    """
    if tenant_id not in tenants_to_choose(request):
        raise TenantRefused("The user may not work in this tenant.")
    request.session[SESSION_KEY] = tenant_id


def _ids(tenants: Iterable[str]) -> tuple[str, ...]:
    return tuple(validate_tenant_id(tenant) for tenant in tenants)


class SessionIdentities:
    """Makes the identities of sessions.

    Args:
        settings: where sessions count, and for which tenants.
        guard: what else holds: tenants that are revoked or suspended are no choice.
    """

    def __init__(self, settings: SessionSettings, guard: TenantGuard) -> None:
        self._settings = settings
        self._guard = guard

    def of(self, request: Any) -> Identity | None:
        """Return whom a request's session stands for; ``None`` if nobody is logged in, or no tenant is settled."""
        user = request.user
        if not user.is_authenticated:
            return None
        settings = self._settings
        tenants = _asked_here(settings.tenants, user)
        chosen = _settle(_ids(tenants), request.session.get(SESSION_KEY))
        if chosen is None:
            return None
        scopes = () if settings.scopes is None else _asked_here(settings.scopes, user, chosen)
        identity = _identity(user, chosen, scopes)
        directory = self._guard.rules.directory
        try:
            if directory is not None:
                identity = run_blocking(lambda: check_standing(identity, directory))
        except TenantRefused as refused:
            logger.info(_NO_CHOICE, refused)
            return None
        self._guard.revocations.check(identity)
        return identity

    async def aof(self, request: Any) -> Identity | None:
        """Return the same, asked for on an event loop."""
        user = await request.auser()
        if not user.is_authenticated:
            return None
        settings = self._settings
        tenants = await _asked(settings.tenants, user)
        chosen = _settle(_ids(tenants), await request.session.aget(SESSION_KEY))
        if chosen is None:
            return None
        scopes = () if settings.scopes is None else await _asked(settings.scopes, user, chosen)
        identity = _identity(user, chosen, scopes)
        try:
            identity = await check_standing(identity, self._guard.rules.directory)
        except TenantRefused as refused:
            logger.info(_NO_CHOICE, refused)
            return None
        self._guard.revocations.check(identity)
        return identity


def _asked_here(function: Callable[..., Any], *arguments: Any) -> Any:
    return async_to_sync(function)(*arguments) if iscoroutinefunction(function) else function(*arguments)


async def _asked(function: Callable[..., Any], *arguments: Any) -> Any:
    if iscoroutinefunction(function):
        answer: Awaitable[Any] = function(*arguments)
        return await answer
    return await sync_to_async(function)(*arguments)


def _settle(tenants: tuple[str, ...], chosen: object) -> str | None:
    if isinstance(chosen, str) and chosen in tenants:
        return chosen
    return tenants[0] if len(tenants) == 1 else None


def _identity(user: Any, tenant_id: str, scopes: Iterable[str]) -> Identity:
    person = Actor(user.get_username(), ActorType.HUMAN)
    return Identity(subject=person, actor=person, tenant=Tenant(tenant_id), scopes=frozenset(scopes))
