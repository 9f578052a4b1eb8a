"""Where sessions go: to the place of the bound tenant, and nowhere if there is none."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, insert, select, text

from tenantguard import TenantStatus, system
from tenantguard.errors import (
    ConfigurationError,
    NotBound,
    PlacementError,
    StatementRefused,
    StoreUnavailable,
    SuspendedTenant,
    TenantMismatch,
    TenantUnavailable,
    UnknownTenant,
)
from tenantguard.orm.placement import (
    AsyncPlacements,
    Databases,
    Placement,
    Placements,
    SqlTenants,
    check_tables,
    own_database,
)
from tests.orm.placement.conftest import PLACES, Lab, as_tenant, names_in
from tests.orm.placement.models import Base, Country, Customer, Order, PlacedBase


@pytest.fixture
def placements(mixed: Lab) -> Iterator[Placements]:
    made = Placements(mixed.directory, mixed.databases, max_engines=2, max_connections=4)
    yield made
    made.close()


def test_the_same_session_code_reaches_every_kind_of_place(mixed: Lab, placements: Placements) -> None:
    Session = placements.sessionmaker()
    for tenant in PLACES:
        with as_tenant(tenant), Session.begin() as db:
            db.add(Customer(id=ord(tenant[0]), name=f"of {tenant}"))
            db.flush()
            db.add(Order(id=ord(tenant[0]), customer_id=ord(tenant[0]), total=1))
    for tenant in PLACES:
        with as_tenant(tenant), Session() as db:
            assert db.scalars(select(Customer.name)).all() == [f"of {tenant}"]
            assert db.scalars(select(Customer.name).join(Order)).all() == [f"of {tenant}"]
            assert db.get(Customer, ord("a")) is None or tenant == "ann"
        with as_tenant(tenant), placements.connect() as connection:
            assert connection.scalars(select(Order.total)).all() == [1]
    assert names_in(mixed, Placement()) == [("ann", "of ann"), ("bob", "of bob")]
    for tenant in ("cat", "dan", "eve", "fox"):
        assert names_in(mixed, PLACES[tenant]) == [(tenant, f"of {tenant}")]


def test_nothing_of_a_schema_stays_on_a_pooled_connection(mixed: Lab) -> None:
    placements = Placements(
        mixed.directory,
        mixed.databases,
        shared=create_engine(mixed.databases.shared_url, pool_size=1, max_overflow=0),
    )
    Session = placements.sessionmaker()
    backends = set()
    for tenant in ("ann", "cat", "dan", "bob", "cat", "ann"):
        with as_tenant(tenant), Session.begin() as db:
            db.add(Customer(name=tenant))
            db.flush()
            assert set(db.scalars(select(Customer.name))) == {tenant}
        with system("look at the connection"), placements._shared.connect() as connection:
            backends.add(connection.scalar(text("SELECT pg_backend_pid()")))
            assert connection.scalar(text("SHOW search_path")) == '"$user", public'
    assert len(backends) == 1  # it was one connection for all of them
    assert names_in(mixed, PLACES["cat"]) == [("cat", "cat")] * 2
    placements.close()


def test_shared_tables_are_read_from_where_they_say_they_are(mixed: Lab, placements: Placements) -> None:
    with system("reference data"), placements._shared.begin() as connection:
        connection.execute(insert(Country), [{"code": "NZ"}])
    Session = placements.sessionmaker()
    for tenant in ("ann", "cat", "dan"):
        with as_tenant(tenant), Session.begin() as db:
            db.add(Customer(name="x", country="NZ"))
            assert db.scalars(select(Country.code).join(Customer)).all() == ["NZ"]


def test_no_place_without_a_tenant(placements: Placements) -> None:
    Session = placements.sessionmaker()
    with Session() as db, pytest.raises(NotBound):
        db.scalars(select(Customer))
    with system("why"), Session() as db, pytest.raises(NotBound, match="no tenant, and so no place"):
        db.scalars(select(Customer))
    with pytest.raises(NotBound), placements.connect():
        pass


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (TenantStatus.SUSPENDED, SuspendedTenant),
        (TenantStatus.MOVING, TenantUnavailable),
        (TenantStatus.PROVISIONING, TenantUnavailable),
        (TenantStatus.REMOVING, UnknownTenant),
        (TenantStatus.REMOVED, UnknownTenant),
    ],
)
@pytest.mark.parametrize("tenant", ["ann", "cat", "eve"])
def test_a_tenant_that_may_not_be_used_reaches_nothing(
    mixed: Lab, placements: Placements, tenant: str, status: TenantStatus, error: type[Exception]
) -> None:
    mixed.directory.change(mixed.directory.read(tenant), status=status)
    Session = placements.sessionmaker()
    with as_tenant(tenant), Session() as db, pytest.raises(error):
        db.scalars(select(Customer))
    with as_tenant(tenant), pytest.raises(error), placements.begin():
        pass


def test_an_unknown_tenant_reaches_nothing(placements: Placements) -> None:
    with as_tenant("nobody"), placements.sessionmaker()() as db, pytest.raises(UnknownTenant):
        db.scalars(select(Customer))


def test_without_the_directory_nobody_is_let_in_once_the_record_is_too_old(mixed: Lab, placements: Placements) -> None:
    Session = placements.sessionmaker()
    with as_tenant("cat"), Session.begin() as db:
        db.add(Customer(name="before"))
    mixed.directory.run(lambda c: c.exec_driver_sql("ALTER TABLE tenantguard_tenants RENAME TO gone"))
    time.sleep(0.25)
    with as_tenant("cat"), Session() as db, pytest.raises(StoreUnavailable):
        db.scalars(select(Customer))
    mixed.directory.run(lambda c: c.exec_driver_sql("ALTER TABLE gone RENAME TO tenantguard_tenants"))
    with as_tenant("cat"), Session() as db:
        assert db.scalars(select(Customer.name)).all() == ["before"]


def test_a_transaction_does_not_go_on_or_commit_when_its_tenant_is_being_moved(
    mixed: Lab, placements: Placements
) -> None:
    Session = placements.sessionmaker()
    with as_tenant("ann"), Session() as going_on, Session() as committing, placements.connect() as connection:
        for db in (going_on, committing):
            db.add(Customer(name="too late"))
            db.flush()
        connection.execute(insert(Customer), [{"name": "too late"}])
        mixed.directory.change(mixed.directory.read("ann"), status=TenantStatus.MOVING)
        time.sleep(0.25)
        with pytest.raises(TenantUnavailable):
            going_on.scalars(select(Customer.name)).all()
        with pytest.raises(TenantUnavailable):
            committing.commit()
        with pytest.raises(TenantUnavailable):
            connection.commit()
        connection.rollback()
    assert names_in(mixed, Placement()) == []


def test_a_session_stays_with_its_tenant(placements: Placements) -> None:
    Session = placements.sessionmaker()
    with Session() as db:
        with as_tenant("cat"):
            db.scalars(select(Customer)).all()
        with as_tenant("dan"), pytest.raises(TenantMismatch):
            db.scalars(select(Customer)).all()
        with as_tenant("ann"), pytest.raises(TenantMismatch):
            db.scalars(select(Customer)).all()


def test_savepoints_and_rollbacks_work_in_every_place(mixed: Lab, placements: Placements) -> None:
    Session = placements.sessionmaker()
    for tenant in ("bob", "dan", "eve", "fox"):
        with as_tenant(tenant), Session.begin() as db:
            db.add(Customer(name="kept"))
            with pytest.raises(ZeroDivisionError), db.begin_nested():
                db.add(Customer(name="taken back"))
                db.flush()
                raise ZeroDivisionError
        assert names_in(mixed, PLACES[tenant]) == [(tenant, "kept")]


def test_the_async_sessions_reach_every_kind_of_place(mixed: Lab) -> None:
    async def main() -> None:
        placements = AsyncPlacements(mixed.directory, mixed.apps, max_engines=1, max_connections=2)
        Session = placements.sessionmaker()

        async def work(tenant: str, number: int) -> None:
            with as_tenant(tenant):
                async with Session.begin() as db:
                    db.add(Customer(name=f"{tenant} {number}"))
                    await db.flush()
                    await asyncio.sleep(0)
                    assert all(name.startswith(tenant) for name in await db.scalars(select(Customer.name)))
                async with placements.begin() as connection:
                    assert f"{tenant} {number}" in (await connection.scalars(select(Customer.name))).all()

        await asyncio.gather(*(work(tenant, number) for number in range(3) for tenant in PLACES))
        assert placements.engines.engines <= 1
        with as_tenant("eve"):
            async with Session() as db:
                assert (await db.scalars(select(Customer.name).order_by(Customer.name))).all() == [
                    "eve 0",
                    "eve 1",
                    "eve 2",
                ]
        with as_tenant("nobody"):
            async with Session() as db:
                with pytest.raises(UnknownTenant):
                    await db.scalars(select(Customer))
        await placements.aclose()

    asyncio.run(main())
    for tenant in PLACES:
        assert (tenant, f"{tenant} 2") in names_in(mixed, PLACES[tenant])


def test_the_directory_of_an_async_engine_serves_async_sessions(mixed: Lab) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main() -> None:
        control = create_async_engine(mixed.apps.shared_url)
        directory = SqlTenants(control, ttl=0.05)
        placements = AsyncPlacements(directory, mixed.apps)
        Session = placements.sessionmaker()
        with as_tenant("cat"):
            async with Session() as db:
                db.add(Customer(name="x"))
                await db.flush()
                await asyncio.sleep(0.1)  # the record is read again before the commit
                await db.commit()
        with pytest.raises(ConfigurationError, match="only async callers"):
            directory.find_blocking("cat")
        await placements.aclose()
        await control.dispose()

    asyncio.run(main())
    assert names_in(mixed, PLACES["cat"]) == [("cat", "x")]


def test_a_refused_statement_leaves_the_session_usable(placements: Placements) -> None:
    with as_tenant("cat"), placements.sessionmaker()() as db:
        with pytest.raises(StatementRefused):
            db.execute(text("SELECT 1"))
        assert db.scalars(select(Customer)).all() == []


# --- the declaration -------------------------------------------------------------------------------------------


def test_shared_tables_must_say_where_they_are_if_tenants_have_schemas(sqlite_lab: Lab) -> None:
    from sqlalchemy import Column, MetaData, String, Table

    from tenantguard.orm import shared

    metadata = MetaData()
    Table("currencies", metadata, Column("code", String(3), primary_key=True), info=shared("reference data"))
    databases = Databases(metadata, shared="sqlite:///x.sqlite3")
    with pytest.raises(ConfigurationError, match="currencies"):
        check_tables(databases)
    with pytest.raises(ConfigurationError, match="currencies"):
        Placements(sqlite_lab.directory, databases)
    Placements(sqlite_lab.directory, databases, schemas=False).close()
    check_tables(Databases(PlacedBase.metadata, shared="sqlite:///x.sqlite3"))


@pytest.mark.parametrize(
    "name", ["", "public", "pg_temp", "A", "a b", 'a"b', "a.b", "1a", "x" * 64, "../x", "template1", 7]
)
def test_names_of_places_are_plain(name: object) -> None:
    with pytest.raises(ConfigurationError):
        Placement(schema=name)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        Placement(database=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("tenants", ["sqlite:///one.sqlite3", "no url", 7])
def test_a_url_without_a_place_for_the_name_stops_the_start(tenants: object) -> None:
    with pytest.raises(ConfigurationError):
        Databases(Base.metadata, shared="sqlite:///x.sqlite3", tenants=tenants).url("x")  # type: ignore[arg-type]


def test_a_name_that_postgresql_would_cut_off_stops_before_two_tenants_share_a_database() -> None:
    prefix = "production_customers_of_the_region_"
    one, other = (own_database(f"a-customer-with-a-long-name-{number}").database for number in (1, 2))
    assert one is not None
    assert other is not None
    assert f"{prefix}{one}"[:63] == f"{prefix}{other}"[:63]
    for tenants in (f"postgresql://db/{prefix}{{database}}", lambda name: f"postgresql://db/{prefix}{name}"):
        databases = Databases(PlacedBase.metadata, shared="postgresql://db/shop", tenants=tenants)
        with pytest.raises(ConfigurationError, match="cuts it off"):
            databases.url(one)
        assert databases.url("short").database == f"{prefix}short"


@pytest.mark.parametrize(
    ("shared", "tenants"),
    [
        ("postgresql://owner@db/shop", "postgresql+psycopg://app@db/{database}"),
        ("sqlite:////data/shop.sqlite3", "sqlite:////data/{database}.sqlite3"),
        ("postgresql://db/shop", lambda _: "postgresql://db/shop"),
    ],
)
def test_the_shared_database_is_no_tenants_own_which_would_be_dropped_with_it(shared: str, tenants: Any) -> None:
    databases = Databases(PlacedBase.metadata, shared=shared, tenants=tenants)
    with pytest.raises(ConfigurationError, match="shared tables"):
        databases.url("shop")
    assert databases.url(None).database == databases.shared_url.database


def test_two_tenants_never_get_one_place(sqlite_lab: Lab) -> None:
    sqlite_lab.directory.add("a", placement=Placement(database="one"))
    with pytest.raises(PlacementError):
        sqlite_lab.directory.add("b", placement=Placement(database="one"))
    sqlite_lab.directory.add("c")
    with pytest.raises(PlacementError):
        sqlite_lab.directory.change(sqlite_lab.directory.read("c"), placement=Placement(database="one"))
