"""Where sessions go: to the place of the bound tenant, and nowhere if there is none."""

import asyncio
import gc
import random
import threading
import time
from collections.abc import Iterator

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
    create_tenant,
)
from tests.orm.placement.conftest import Lab, as_tenant, make_place
from tests.orm.placement.models import Base, Country, Customer, Note, Order, PlacedBase

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


@pytest.fixture
def placements(mixed: Lab) -> Iterator[Placements]:
    made = Placements(mixed.directory, mixed.databases, max_engines=2, max_connections=4)
    yield made
    made.close()


def names_in(lab: Lab, placement: Placement) -> list[tuple[str, str]]:
    """What stands in the table of a place, seen without the barrier."""
    engine = create_engine(lab.databases.url(placement.database))
    with engine.connect() as connection:
        schema = placement.schema or "public"
        rows = connection.exec_driver_sql(f"SELECT tenant_id, name FROM {schema}.customers ORDER BY 1, 2").all()
    engine.dispose()
    return [tuple(row) for row in rows]


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


# --- the bounds ------------------------------------------------------------------------------------------------


def test_an_engine_in_use_is_not_closed_and_the_next_one_waits(mixed: Lab) -> None:
    placements = Placements(mixed.directory, mixed.databases, max_engines=1, max_connections=1, timeout=0.3)
    Session = placements.sessionmaker()
    with as_tenant("eve"), Session() as held:
        held.add(Customer(name="held"))
        held.flush()
        with as_tenant("fox"), Session() as db, pytest.raises(StoreUnavailable, match="in use"):
            db.scalars(select(Customer))
        held.commit()
    with as_tenant("fox"), Session() as db:
        assert db.scalars(select(Customer)).all() == []
    assert names_in(mixed, PLACES["eve"]) == [("eve", "held")]
    assert placements.engines.engines == 1
    placements.close()


def test_a_session_that_was_forgotten_does_not_hold_its_engine_for_ever(mixed: Lab) -> None:
    placements = Placements(mixed.directory, mixed.databases, max_engines=1, max_connections=1, timeout=0.3)
    Session = placements.sessionmaker()
    with as_tenant("eve"):
        db = Session()
        db.get_bind()
        del db
    gc.collect()
    with as_tenant("fox"), Session() as db:
        assert db.scalars(select(Customer)).all() == []
    placements.close()


def test_an_engine_that_made_room_opens_no_connection_any_more(mixed: Lab) -> None:
    placements = Placements(mixed.directory, mixed.databases, max_engines=1, max_connections=1)
    Session = placements.sessionmaker()
    with as_tenant("eve"), Session() as db:
        kept = db.get_bind()
    with as_tenant("fox"), Session() as db:
        db.scalars(select(Customer)).all()
    with as_tenant("eve"), pytest.raises(StoreUnavailable, match="closed to make room"):
        kept.connect()
    placements.close()


def test_engines_that_are_idle_for_long_are_closed(mixed: Lab) -> None:
    placements = Placements(mixed.directory, mixed.databases, idle_seconds=0.2)
    Session = placements.sessionmaker()
    with as_tenant("eve"), Session() as db:
        db.scalars(select(Customer)).all()
    assert (placements.engines.engines, placements.engines.connections) == (1, 1)
    time.sleep(0.25)
    with as_tenant("fox"), Session() as db:
        db.scalars(select(Customer)).all()
        assert placements.engines.engines == 1
    placements.close()
    assert placements.engines.connections == 0


@pytest.mark.parametrize(
    "bounds", [{"max_engines": 0}, {"max_connections": 0}, {"max_engines": 9, "max_connections": 8}]
)
def test_bounds_that_make_no_sense_stop_the_start(sqlite_lab: Lab, bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        Placements(sqlite_lab.directory, sqlite_lab.databases, **bounds)


def test_a_pool_that_gets_round_the_bounds_stops_the_start(sqlite_lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="max_overflow"):
        Placements(sqlite_lab.directory, sqlite_lab.databases, engine_options={"max_overflow": 5})


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


@pytest.mark.parametrize("name", ["", "public", "pg_temp", "A", "a b", 'a"b', "a.b", "1a", "x" * 64, "../x", 7])
def test_names_of_places_are_plain(name: object) -> None:
    with pytest.raises(ConfigurationError):
        Placement(schema=name)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        Placement(database=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("tenants", ["sqlite:///one.sqlite3", "no url", 7])
def test_a_url_without_a_place_for_the_name_stops_the_start(tenants: object) -> None:
    with pytest.raises(ConfigurationError):
        Databases(Base.metadata, shared="sqlite:///x.sqlite3", tenants=tenants).url("x")  # type: ignore[arg-type]


def test_two_tenants_never_get_one_place(sqlite_lab: Lab) -> None:
    sqlite_lab.directory.add("a", placement=Placement(database="one"))
    with pytest.raises(PlacementError):
        sqlite_lab.directory.add("b", placement=Placement(database="one"))
    sqlite_lab.directory.add("c")
    with pytest.raises(PlacementError):
        sqlite_lab.directory.change(sqlite_lab.directory.read("c"), placement=Placement(database="one"))


# --- many at once ----------------------------------------------------------------------------------------------


def test_64_tasks_over_40_databases_keep_to_their_tenant_and_the_bounds_on_sqlite(sqlite_lab: Lab) -> None:
    tenants = [f"t{number}" for number in range(40)]
    for tenant in tenants:
        make_place(sqlite_lab, Placement(database=tenant))
        sqlite_lab.directory.add(tenant, placement=Placement(database=tenant))
    most: list[tuple[int, int]] = []

    async def main() -> None:
        placements = AsyncPlacements(sqlite_lab.directory, sqlite_lab.apps, max_engines=8, max_connections=16)
        Session = placements.sessionmaker()

        async def task(number: int) -> None:
            for turn in range(5):
                tenant = tenants[(number * 7 + turn * 3) % 40]
                with as_tenant(tenant):
                    async with Session.begin() as db:
                        db.add(Note(title=tenant))
                        await db.flush()
                        await asyncio.sleep(0)
                        assert set(await db.scalars(select(Note.title))) == {tenant}
                        most.append((placements.engines.engines, placements.engines.connections))

        await asyncio.gather(*(task(number) for number in range(64)))
        await placements.aclose()

    asyncio.run(main())
    assert max(engines for engines, _ in most) == 8
    assert max(connections for _, connections in most) <= 16
    written = 0
    for tenant in tenants:
        engine = create_engine(sqlite_lab.databases.url(tenant))
        with engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT tenant_id, title FROM notes").all()
        engine.dispose()
        assert {(tenant, tenant)} == {tuple(row) for row in rows}
        written += len(rows)
    assert written == 64 * 5


def test_the_server_itself_sees_no_more_connections_than_the_bound(postgres_lab: Lab) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    tenants = [f"t{number}" for number in range(10)]
    for tenant in tenants:
        create_tenant(postgres_lab.directory, postgres_lab.databases, tenant, placement=Placement(database=tenant))
    prefix = f"{postgres_lab.databases.shared_url.database}_t"
    seen: list[int] = []

    async def main() -> None:
        placements = AsyncPlacements(postgres_lab.directory, postgres_lab.apps, max_engines=3, max_connections=6)
        Session = placements.sessionmaker()
        over = asyncio.Event()

        async def watch() -> None:
            engine = create_async_engine(postgres_lab.apps.shared_url, poolclass=NullPool)
            async with engine.connect() as connection:
                statement = text("SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, :prefix)")
                while not over.is_set():
                    seen.append(await connection.scalar(statement, {"prefix": prefix}))
                    await connection.rollback()
                    await asyncio.sleep(0.005)
            await engine.dispose()

        async def task(number: int) -> None:
            for turn in range(4):
                tenant = tenants[(number * 3 + turn * 7) % 10]
                with as_tenant(tenant):
                    async with Session.begin() as db:
                        db.add(Customer(name=tenant))
                        await db.flush()
                        assert set(await db.scalars(select(Customer.name))) == {tenant}

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(task(number) for number in range(32)))
        over.set()
        await watching
        await placements.aclose()

    asyncio.run(main())
    assert 3 <= max(seen) <= 7  # a connection that was told to end may be seen for a moment longer
    for tenant in tenants:
        assert {name for _, name in names_in(postgres_lab, Placement(database=tenant))} == {tenant}


def test_tasks_that_are_cancelled_anywhere_leave_no_lease_behind(postgres_lab: Lab) -> None:
    tenants = [f"t{number}" for number in range(4)]
    for tenant in tenants:
        create_tenant(postgres_lab.directory, postgres_lab.databases, tenant, placement=Placement(database=tenant))
    finished: list[str] = []

    async def main() -> None:
        placements = AsyncPlacements(postgres_lab.directory, postgres_lab.apps, max_engines=2, max_connections=4)
        Session = placements.sessionmaker()
        chance = random.Random(4711)

        async def task(number: int) -> None:
            tenant = tenants[number % 4]
            with as_tenant(tenant):
                async with Session.begin() as db:
                    db.add(Customer(name=tenant))
                    await db.flush()
                    await asyncio.sleep(0.002)
                    assert set(await db.scalars(select(Customer.name))) == {tenant}
            finished.append(tenant)

        tasks = [asyncio.create_task(task(number)) for number in range(120)]
        for _ in range(60):
            await asyncio.sleep(chance.random() * 0.01)
            chance.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in results), results
        assert any(isinstance(one, asyncio.CancelledError) for one in results)
        for tenant in tenants:  # each has its turn again, so nothing is held
            with as_tenant(tenant):
                async with Session() as db:
                    assert set(await db.scalars(select(Customer.name))) <= {tenant}
        assert all(held.leases == 0 for held in placements.engines._engines.values())
        assert placements.engines.engines <= 2
        await placements.aclose()

    asyncio.run(main())
    for tenant in tenants:
        # What a task finished is there. A task that was cancelled in its commit may be there too.
        assert len(names_in(postgres_lab, Placement(database=tenant))) >= finished.count(tenant)


def test_threads_over_databases_and_schemas_keep_to_their_tenant_and_the_bounds(mixed: Lab) -> None:
    placements = Placements(mixed.directory, mixed.databases, max_engines=1, max_connections=2)
    Session = placements.sessionmaker()
    faults: list[BaseException] = []
    open_at_once: list[int] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                tenant = list(PLACES)[(number + turn) % len(PLACES)]
                with as_tenant(tenant), Session.begin() as db:
                    db.add(Customer(name=tenant))
                    db.flush()
                    assert set(db.scalars(select(Customer.name))) == {tenant}
                    open_at_once.append(placements.engines.engines)
        except BaseException as fault:  # noqa: BLE001 - shown below
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert max(open_at_once) == 1
    for tenant, placement in PLACES.items():
        assert names_in(mixed, placement).count((tenant, tenant)) == 20
    placements.close()


def test_a_refused_statement_leaves_the_session_usable(placements: Placements) -> None:
    with as_tenant("cat"), placements.sessionmaker()() as db:
        with pytest.raises(StatementRefused):
            db.execute(text("SELECT 1"))
        assert db.scalars(select(Customer)).all() == []
