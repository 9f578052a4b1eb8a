"""Who the request runs as, as parameters of an endpoint: ``async def whoami(actor: CurrentActor)``.

They are async functions, because FastAPI sends plain ones to a thread, which costs more than all of the barrier.
"""

from typing import Annotated

from fastapi import Depends

from tenantguard.errors import TenantRefused
from tenantguard.identity import Actor, Tenant
from tenantguard_fastapi.security import AnyIdentity

__all__ = ["CurrentActor", "CurrentIdentity", "CurrentTenant"]


async def _actor(identity: AnyIdentity) -> Actor:
    return identity.actor


async def _tenant(identity: AnyIdentity) -> Tenant:
    if identity.tenant is None:
        raise TenantRefused("The token names no tenant.", mend="Use a token for one tenant.")
    return identity.tenant


CurrentIdentity = AnyIdentity
"""The bound identity; 401 if there is none."""

CurrentActor = Annotated[Actor, Depends(_actor)]
"""Who acts now; 401 if nobody is bound."""

CurrentTenant = Annotated[Tenant, Depends(_tenant)]
"""The tenant; 401 if nobody is bound, 403 if the token names no tenant."""
