"""Tenancy: which tenants exist and may be used now, and whether what a caller says of the tenant is true.

`directory.py` has what the app knows of its tenants; `agreement.py` compares what a request says with the token.
"""

from tenantguard.tenancy.agreement import agree_on_tenant, check_standing
from tenantguard.tenancy.directory import StaticTenants, TenantDirectory

__all__ = ["StaticTenants", "TenantDirectory", "agree_on_tenant", "check_standing"]
