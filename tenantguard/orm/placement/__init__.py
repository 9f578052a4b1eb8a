"""Placement: where each tenant's rows are, and how sessions, migrations and operations get there.

`SqlTenants` knows where a tenant is: in the shared tables, in a schema or in a database of its own. `Placements` and
`AsyncPlacements` lead the sessions of the bound tenant there. Operations on a tenant are resumable: `create_tenant`,
`move_tenant`, `erase_tenant`, `remove_tenant`; `export_tenant` and `restore_tenant` carry its rows as files;
`run_over_places` runs migrations everywhere at once.
"""

from tenantguard.orm.placement.databases import Databases
from tenantguard.orm.placement.ddl import PlaceStep
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.engines import BoundedEngines
from tenantguard.orm.placement.export import Exported, ExportedTable, export_tenant, read_export, restore_tenant
from tenantguard.orm.placement.fan_out import PlaceResult, PlaceWork, RunReport, run_over_places
from tenantguard.orm.placement.migrate import alembic_stamp, alembic_upgrade, migrate_places
from tenantguard.orm.placement.move import Moved, cancel_move, move_tenant
from tenantguard.orm.placement.provision import Erasure, cancel_create, create_tenant, erase_tenant, remove_tenant
from tenantguard.orm.placement.records import SHARED, Placement, TenantRecord, own_database, own_schema, place_name
from tenantguard.orm.placement.router import AsyncPlacements, PlacedSession, Placements, check_tables
from tenantguard.orm.placement.rows import Erased
from tenantguard.orm.placement.tables import CONTROL_PLANE

__all__ = [
    "CONTROL_PLANE",
    "SHARED",
    "AsyncPlacements",
    "BoundedEngines",
    "Databases",
    "Erased",
    "Erasure",
    "Exported",
    "ExportedTable",
    "Moved",
    "PlaceResult",
    "PlaceStep",
    "PlaceWork",
    "PlacedSession",
    "Placement",
    "Placements",
    "RunReport",
    "SqlTenants",
    "TenantRecord",
    "alembic_stamp",
    "alembic_upgrade",
    "cancel_create",
    "cancel_move",
    "check_tables",
    "create_tenant",
    "erase_tenant",
    "export_tenant",
    "migrate_places",
    "move_tenant",
    "own_database",
    "own_schema",
    "place_name",
    "read_export",
    "remove_tenant",
    "restore_tenant",
    "run_over_places",
]
