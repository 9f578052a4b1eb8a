"""A control plane, and tenants in every kind of place: on a real PostgreSQL, and in files of SQLite."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from tenantguard import Tenant, bind, service_identity
from tenantguard.orm.placement import Databases, Placement, SqlTenants
from tests.orm.placement.models import Base, PlacedBase


def as_tenant(tenant: str | Tenant) -> Any:
    return bind(service_identity("test", tenant=tenant))


class Lab:
    """The parts of one installation."""

    def __init__(self, directory: SqlTenants, databases: Databases, apps: Databases) -> None:
        self.directory = directory
        self.databases = databases
        """For operations: synchronous, as the owner."""
        self.apps = apps
        """For async sessions."""


@pytest.fixture
def sqlite_lab(tmp_path: Path) -> Iterator[Lab]:
    """Tenants in files of SQLite, and shared tables in one."""
    shared, tenants = tmp_path / "shared.sqlite3", f"{tmp_path}/{{database}}.sqlite3"
    lab = Lab(
        SqlTenants(f"sqlite:///{tmp_path}/control.sqlite3", ttl=0.2),
        Databases(Base.metadata, shared=f"sqlite:///{shared}", tenants=f"sqlite:///{tenants}"),
        Databases(Base.metadata, shared=f"sqlite+aiosqlite:///{shared}", tenants=f"sqlite+aiosqlite:///{tenants}"),
    )
    lab.directory.create_tables()
    engine = create_engine(lab.databases.shared_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    yield lab
    lab.directory.close()


@pytest.fixture
def postgres_lab(postgres_url: str) -> Iterator[Lab]:
    """Shared tables, schemas and databases on one PostgreSQL. Databases that tests make are dropped with it."""
    with lab_on(postgres_url) as lab:
        yield lab


@contextlib.contextmanager
def lab_on(postgres_url: str) -> Iterator[Lab]:
    url = make_url(postgres_url).set(drivername="postgresql+psycopg")
    prefix = f"{url.database}_"

    def own(name: str) -> Any:
        return url.set(database=prefix + name)

    lab = Lab(
        SqlTenants(url.set(drivername="postgresql+psycopg"), ttl=0.2),
        Databases(PlacedBase.metadata, shared=url, tenants=own),
        Databases(
            PlacedBase.metadata,
            shared=url.set(drivername="postgresql+asyncpg"),
            tenants=lambda name: own(name).set(drivername="postgresql+asyncpg"),
        ),
    )
    lab.directory.create_tables()
    engine = create_engine(url)
    PlacedBase.metadata.create_all(engine)
    engine.dispose()
    yield lab
    lab.directory.close()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        names = admin.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]).fetchall()
        for (name,) in names:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def make_place(lab: Lab, placement: Placement) -> None:
    """Make a place and its tables by hand, for tests of what comes after."""
    engine = create_engine(lab.databases.url(placement.database))
    if placement.schema is not None:
        with engine.begin() as connection:
            connection.exec_driver_sql(f'CREATE SCHEMA "{placement.schema}"')
    for metadata in lab.databases.metadata:
        metadata.create_all(engine.execution_options(schema_translate_map={None: placement.schema}))
    engine.dispose()


PLACES = {
    "ann": Placement(),
    "bob": Placement(),
    "cat": Placement(schema="t_cat"),
    "dan": Placement(schema="t_dan"),
    "eve": Placement(database="eve"),
    "fox": Placement(database="fox", schema="t_fox"),
}


@pytest.fixture
def mixed(postgres_lab: Lab) -> Lab:
    from sqlalchemy import make_url

    url = postgres_lab.databases.shared_url
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    for tenant, placement in PLACES.items():
        if placement.database is not None:
            with admin.connect() as connection:
                name = make_url(postgres_lab.databases.url(placement.database)).database
                connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        if not placement.is_shared:
            make_place(postgres_lab, placement)
        postgres_lab.directory.add(tenant, placement=placement)
    admin.dispose()
    return postgres_lab


def names_in(lab: Lab, placement: Placement) -> list[tuple[str, str]]:
    """What stands in the table of a place, seen without the barrier."""
    engine = create_engine(lab.databases.url(placement.database))
    with engine.connect() as connection:
        schema = placement.schema or "public"
        rows = connection.exec_driver_sql(f"SELECT tenant_id, name FROM {schema}.customers ORDER BY 1, 2").all()
    engine.dispose()
    return [tuple(row) for row in rows]
