"""The tenant is what the token says. A request may repeat it, and for a token of several tenants choose one of them.

What a caller writes into a header decides nothing by itself: if it does not agree with the token, the request is
refused, whether or not the tenant that it names exists.
"""

import msgspec

from tenantguard.errors import SuspendedTenant, TenantRefused, UnknownTenant
from tenantguard.identity import Identity, TenantStatus
from tenantguard.tenancy.directory import TenantDirectory

__all__ = ["agree_on_tenant", "check_standing"]


def agree_on_tenant(identity: Identity, said: bytes | None) -> None:
    """Check that what a request says of its tenant agrees with the token's.

    Args:
        identity: the token's identity.
        said: the tenant header's value; ``None`` if there is none.

    Raises:
        TenantRefused: it says another tenant, or the token names none.
    """
    if said is not None and (identity.tenant is None or identity.tenant.id.encode() != said):
        raise TenantRefused(
            "The request names another tenant than the token.",
            mend="Leave the tenant header out, or use a token for that tenant.",
        )


async def check_standing(identity: Identity, directory: TenantDirectory | None) -> Identity:
    """Return the identity with its tenant as the directory has it, if the tenant may be used now.

    An identity without tenant passes as it is: it reaches no owned row.

    Raises:
        UnknownTenant: the directory does not know the tenant.
        SuspendedTenant: the tenant is not active.
    """
    tenant = identity.tenant
    if tenant is None:
        return identity
    if directory is not None:
        found = await directory.get(tenant.id)
        if found is None or found.id != tenant.id:
            raise UnknownTenant("The token's tenant is not known here.")
        if found != tenant:
            identity = msgspec.structs.replace(identity, tenant=found)
            tenant = found
    if tenant.status is not TenantStatus.ACTIVE:
        raise SuspendedTenant("The token's tenant is suspended.")
    return identity
