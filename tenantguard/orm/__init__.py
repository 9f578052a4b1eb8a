"""The barrier in SQLAlchemy: every statement through a protected engine is scoped to the tenant, or refused."""

from tenantguard.orm.classify import check_metadata
from tenantguard.orm.lifts import move_rows, read_across, write_across
from tenantguard.orm.marks import (
    TenantOwned,
    classify_by,
    owned,
    owned_through,
    scope_key,
    shared,
    stamp_tenant,
    tenant_key,
    wide,
)
from tenantguard.orm.protect import async_sessionmaker, is_protected, protect, sessionmaker

__all__ = [
    "TenantOwned",
    "async_sessionmaker",
    "check_metadata",
    "classify_by",
    "is_protected",
    "move_rows",
    "owned",
    "owned_through",
    "protect",
    "read_across",
    "scope_key",
    "sessionmaker",
    "shared",
    "stamp_tenant",
    "tenant_key",
    "wide",
    "write_across",
]
