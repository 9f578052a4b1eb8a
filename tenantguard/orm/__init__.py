"""The barrier in SQLAlchemy: every statement through a protected engine is scoped to the tenant, or refused."""

from tenantguard.orm.classify import TenantOwned, check_metadata, owned_through, shared, stamp_tenant, tenant_key
from tenantguard.orm.protect import async_sessionmaker, is_protected, protect, sessionmaker

__all__ = [
    "TenantOwned",
    "async_sessionmaker",
    "check_metadata",
    "is_protected",
    "owned_through",
    "protect",
    "sessionmaker",
    "shared",
    "stamp_tenant",
    "tenant_key",
]
