"""Where a tenant's rows are, and what the control plane knows of a tenant.

A place is a database and a schema in it. The database has a name, never a URL, so that the control plane holds no
password: `Databases` makes the URL. Tenants without a place of their own are in the shared tables.
"""

import hashlib
import re
from typing import Final

import msgspec

from tenantguard.errors import ConfigurationError
from tenantguard.identity import Tenant, TenantStatus, validate_tenant_id

__all__ = ["SHARED", "Placement", "TenantRecord", "own_database", "own_schema", "place_name"]

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_RESERVED: Final = frozenset(
    {"information_schema", "public", "main", "temp", "tenantguard", "postgres", "template0", "template1"}
)


def _check_name(name: str | None, what: str) -> None:
    if name is None:
        return
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED or name.startswith("pg_"):
        raise ConfigurationError(
            f"The {what} of a placement has a name that can't be used.",
            mend="Use up to 63 small letters, digits and _, not beginning with a digit or pg_, and no name of the "
            "database's own.",
        )


class Placement(msgspec.Struct, frozen=True, gc=False):
    """Where a tenant's rows are.

    Args:
        database: the name of a database of its own; ``None`` for the shared one.
        schema: the name of a schema of its own in that database; ``None`` for the database's default one. Without
            either, the tenant's rows are in the shared tables.

    Raises:
        ConfigurationError: a name can't be used.
    """

    database: str | None = None
    schema: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.database, "database")
        _check_name(self.schema, "schema")

    @property
    def is_shared(self) -> bool:
        """True where the rows stand beside those of other tenants."""
        return self.database is None and self.schema is None

    @property
    def label(self) -> str:
        """How people read it: ``shared``, ``schema x``, ``database y``, ``database y, schema x``."""
        named = (("database", self.database), ("schema", self.schema))
        parts = [f"{what} {name}" for what, name in named if name is not None]
        return ", ".join(parts) or "shared"

    @property
    def key(self) -> str | None:
        """A text that is unique to the place; ``None`` for the shared tables, where many tenants are."""
        return None if self.is_shared else f"{self.database or ''}/{self.schema or ''}"


SHARED: Final = Placement()
"""The shared tables."""


def place_name(tenant_id: str) -> str:
    """Return a name for the schema or database of a tenant: readable, and unique by a digest of the id.

    Raises:
        InvalidTenantId: the id is not usable.
    """
    readable = re.sub(r"[^a-z0-9]+", "_", validate_tenant_id(tenant_id).lower()).strip("_")[:40]
    digest = hashlib.sha256(tenant_id.encode()).hexdigest()[:12]
    return "_".join(part for part in ("t", readable, digest) if part)


def own_schema(tenant_id: str, *, database: str | None = None) -> Placement:
    """Return the placement of a tenant in a schema of its own, named by `place_name`.

    Args:
        tenant_id: the tenant.
        database: the name of the database that the schema is in; ``None`` for the shared one.
    """
    return Placement(database=database, schema=place_name(tenant_id))


def own_database(tenant_id: str) -> Placement:
    """Return the placement of a tenant in a database of its own, named by `place_name`."""
    return Placement(database=place_name(tenant_id))


class TenantRecord(msgspec.Struct, frozen=True, gc=False):
    """What the control plane knows of a tenant.

    Args:
        tenant: its id, status and name.
        placement: where its rows are.
        plan: the plan that it is on, in the app's own words.
        cache_seconds: how long anybody may go on with this record before it is read again. A move waits so long.
        revision: grows by one with each change.
    """

    tenant: Tenant
    placement: Placement = SHARED
    plan: str | None = None
    cache_seconds: float = 5.0
    revision: int = 0

    @property
    def id(self) -> str:
        """The tenant's id."""
        return self.tenant.id

    @property
    def status(self) -> TenantStatus:
        """Whether the tenant may be used."""
        return self.tenant.status
