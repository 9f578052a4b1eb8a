"""Tenancy: which tenants exist and may be used now, and whether what a caller says of the tenant is true.

`directory.py` has what the app knows of its tenants; `resolvers.py` reads what a request says; `agreement.py` compares
that with the token.
"""

from tenantguard.tenancy.agreement import check_standing, settle_tenant
from tenantguard.tenancy.directory import StaticTenants, TenantDirectory
from tenantguard.tenancy.resolvers import (
    TenantFromHeader,
    TenantFromHost,
    TenantFromPath,
    TenantResolver,
    tenant_said,
)

__all__ = [
    "StaticTenants",
    "TenantDirectory",
    "TenantFromHeader",
    "TenantFromHost",
    "TenantFromPath",
    "TenantResolver",
    "check_standing",
    "settle_tenant",
    "tenant_said",
]
