"""The tables of the control plane: tenants, the operations on them, and runs over many places.

They are declared shared: no tenant owns them. They stand in a MetaData and best in a database of their own; the app's
protected engine never reads them, since they are asked before anybody is bound.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

from tenantguard.identity import MAX_TENANT_ID_LENGTH
from tenantguard.orm.marks import shared

__all__ = ["CONTROL_PLANE", "OPERATIONS", "RUNS", "RUN_PLACES", "STEPS", "TENANTS"]

_ID: Final = String(MAX_TENANT_ID_LENGTH)

CONTROL_PLANE: Final = MetaData()
"""All tables of the control plane. Apps with migrations make them there; `SqlTenants.create_tables` makes them too."""

TENANTS: Final = Table(
    "tenantguard_tenants",
    CONTROL_PLANE,
    Column("id", _ID, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("name", String(255)),
    Column("plan", String(64), index=True),
    Column("database", String(63)),
    Column("schema", String(63)),
    Column("place", String(128), unique=True),  # so that two tenants never get one place, which would be dropped
    Column("cache_seconds", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    info=shared("control plane: which tenants there are, read before a tenant is bound"),
)
OPERATIONS: Final = Table(
    "tenantguard_operations",
    CONTROL_PLANE,
    Column("id", String(32), primary_key=True),
    Column("tenant", _ID, nullable=False, index=True),
    Column("open_for", _ID, unique=True),  # the tenant while it is open: one operation for a tenant at a time
    Column("open_place", String(128), unique=True),  # the place that it makes, while it is open
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("claim", String(32)),
    Column("claimed_until", Float),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    info=shared("control plane: operations on tenants"),
)
STEPS: Final = Table(
    "tenantguard_operation_steps",
    CONTROL_PLANE,
    Column("operation", ForeignKey(OPERATIONS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("step", String(32), primary_key=True),
    Column("result", Text, nullable=False),
    Column("done_at", BigInteger, nullable=False),
    info=shared("control plane: the steps of operations that are done"),
)
RUNS: Final = Table(
    "tenantguard_runs",
    CONTROL_PLANE,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    info=shared("control plane: runs over all places, such as migrations"),
)
RUN_PLACES: Final = Table(
    "tenantguard_run_places",
    CONTROL_PLANE,
    Column("run", ForeignKey(RUNS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("place", String(128), primary_key=True),
    Column("tenant", _ID),
    Column("state", String(16), nullable=False),
    Column("error", Text),
    Column("seconds", Float),
    info=shared("control plane: what became of each place in a run"),
)
