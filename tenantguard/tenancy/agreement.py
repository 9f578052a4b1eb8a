"""The tenant is what the token says. A request may repeat it, and for a token of several tenants choose one of them.

What a caller writes into a request decides nothing by itself: if it does not agree with the token, the request is
refused, whether or not the tenant that it names exists.
"""

import logging
from typing import Final

import anyio
import msgspec

from tenantguard.errors import (
    StoreUnavailable,
    SuspendedTenant,
    TenantGuardError,
    TenantRefused,
    TenantUnavailable,
    UnknownTenant,
)
from tenantguard.identity import Identity, TenantStatus
from tenantguard.tenancy.directory import TenantDirectory
from tenantguard.tokens.claims import Verified

__all__ = ["check_standing", "refusal_of", "settle_tenant"]

logger = logging.getLogger("tenantguard.tenancy")

DIRECTORY_SECONDS: Final = 5.0


def settle_tenant(verified: Verified, said: str | None, *, tenantless: bool) -> Identity:
    """Return the identity in the tenant that the token and the request agree on.

    Args:
        verified: the token's identity, with all its tenants.
        said: the tenant that the request says; ``None`` if it says none.
        tenantless: True where the app declared that it serves this request without a tenant.

    Raises:
        TenantRefused: the request says another tenant; or no tenant is settled, and the app needs one.
    """
    if said is not None:
        return verified.choose(said)
    identity = verified.identity
    if identity.tenant is None and not tenantless:
        if verified.undecided:
            raise TenantRefused(
                f"The token names {len(verified.tenants)} tenants and none was chosen.",
                mend="Name one of them in the request, or ask the issuer for a token for one tenant.",
            )
        raise TenantRefused(
            "The token names no tenant.",
            mend="Ask the issuer for a token for a tenant. For routes that need none: TenantGuard(tenantless=[...]).",
        )
    return identity


async def check_standing(identity: Identity, directory: TenantDirectory | None) -> Identity:
    """Return the identity with its tenant as the directory has it, if the tenant may be used now.

    An identity without tenant passes as it is: it reaches no owned row.

    Raises:
        UnknownTenant: the directory does not know the tenant, or it is removed.
        SuspendedTenant: the tenant is suspended.
        TenantUnavailable: it is being set up or moved.
        StoreUnavailable: the directory fails, or does not answer in time.
    """
    tenant = identity.tenant
    if tenant is None:
        return identity
    if directory is not None:
        try:
            with anyio.fail_after(DIRECTORY_SECONDS):
                found = await directory.get(tenant.id)
        except TenantGuardError:
            raise
        except Exception as fault:
            logger.exception("The tenant directory failed.")
            raise StoreUnavailable(f"The tenant directory failed ({type(fault).__name__}).") from None
        if found is None or found.id != tenant.id:
            raise UnknownTenant("The token's tenant is not known here.")
        if found != tenant:
            identity = msgspec.structs.replace(identity, tenant=found)
            tenant = found
    if tenant.status is not TenantStatus.ACTIVE:
        raise refusal_of(tenant.status)
    return identity


def refusal_of(status: TenantStatus) -> TenantGuardError:
    """Return the error of a tenant that may not be used now."""
    if status in (TenantStatus.PROVISIONING, TenantStatus.MOVING):
        return TenantUnavailable("The tenant is being set up or moved.", mend="Try again when that is done.")
    if status in (TenantStatus.REMOVING, TenantStatus.REMOVED):
        return UnknownTenant("The tenant is removed.")
    return SuspendedTenant("The tenant is suspended.")
