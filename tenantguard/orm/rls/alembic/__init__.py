"""Row-level security in migrations of Alembic: operations for the scripts, and autogenerate, which writes them.

Importing it is the whole set-up: it registers ``op.enable_tenant_rls`` and its sisters, and a comparator that runs
where ``env.py`` gives `rls_options` to ``context.configure()``. It needs Alembic, which the extra
``tenantguard[alembic]`` brings; nothing else of tenantguard imports it.
"""

try:
    import alembic  # noqa: F401
except ImportError as error:
    raise ImportError("Migrations need Alembic: pip install 'tenantguard[alembic]'.") from error

from tenantguard.orm.rls.alembic import render  # noqa: F401 - registers how operations are written
from tenantguard.orm.rls.alembic.compare import RlsOptions, rls_options

__all__ = ["RlsOptions", "rls_options"]
