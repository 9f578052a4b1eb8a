"""The tenant directory: what the app knows of a tenant beyond its id.

A token names a tenant; whether that tenant still exists and may be used is the app's to say. Without a directory every
tenant that a trusted issuer names is taken as active.
"""

from collections.abc import Iterable
from typing import Protocol, final

from tenantguard.errors import ConfigurationError
from tenantguard.identity import Tenant

__all__ = ["StaticTenants", "TenantDirectory"]


class TenantDirectory(Protocol):
    """What the middleware asks for the tenant of a request."""

    async def get(self, tenant_id: str, /) -> Tenant | None:
        """Return the tenant with its status, or ``None`` if there is none of that id."""
        ...


@final
class StaticTenants:
    """A directory of tenants that are known at start.

    Args:
        tenants: all of them.

    Raises:
        ConfigurationError: two have the same id.
    """

    def __init__(self, tenants: Iterable[Tenant]) -> None:
        self._tenants: dict[str, Tenant] = {}
        for tenant in tenants:
            if tenant.id in self._tenants:
                raise ConfigurationError(f"The tenant {tenant.id!r} is declared twice.", mend="Remove one of the two.")
            self._tenants[tenant.id] = tenant

    async def get(self, tenant_id: str, /) -> Tenant | None:
        """Return the tenant of that id, or ``None``."""
        return self._tenants.get(tenant_id)
