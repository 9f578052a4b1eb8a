"""Wall three: PostgreSQL itself refuses the rows of other tenants, to whatever reaches it.

`RlsPlan` writes the policies from the classification of the tables, `guard_transactions` tells PostgreSQL whose
transaction it is, `Seal` keeps SQL injection from telling it something else.
"""

from tenantguard.orm.rls.plan import RlsPlan
from tenantguard.orm.rls.seal import Seal
from tenantguard.orm.rls.setting import guard_transactions

__all__ = ["RlsPlan", "Seal", "guard_transactions"]
