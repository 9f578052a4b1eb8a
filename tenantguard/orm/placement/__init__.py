"""Placement: where each tenant's rows are, and how sessions, migrations and operations get there.

`SqlTenants` knows where a tenant is: in the shared tables, in a schema or in a database of its own. `Placements` and
`AsyncPlacements` lead the sessions of the bound tenant there. Operations on a tenant are resumable: `create_tenant`,
`move_tenant`, `erase_tenant`, `remove_tenant`; `export_tenant` and `restore_tenant` carry its rows as files;
`run_over_places` runs migrations everywhere at once.
"""

from tenantguard.orm.placement.databases import Databases
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.engines import BoundedEngines
from tenantguard.orm.placement.records import SHARED, Placement, TenantRecord, own_database, own_schema, place_name
from tenantguard.orm.placement.router import AsyncPlacements, PlacedSession, Placements, check_tables
from tenantguard.orm.placement.tables import CONTROL_PLANE

__all__ = [
    "CONTROL_PLANE",
    "SHARED",
    "AsyncPlacements",
    "BoundedEngines",
    "Databases",
    "PlacedSession",
    "Placement",
    "Placements",
    "SqlTenants",
    "TenantRecord",
    "check_tables",
    "own_database",
    "own_schema",
    "place_name",
]
