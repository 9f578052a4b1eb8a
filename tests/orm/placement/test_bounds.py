"""How many engines and connections are open at once, whatever many threads and tasks do."""

import asyncio
import gc
import random
import threading
import time

import pytest
from sqlalchemy import create_engine, select, text

from tenantguard.errors import (
    ConfigurationError,
    StoreUnavailable,
)
from tenantguard.orm.placement import (
    AsyncPlacements,
    Placement,
    Placements,
    create_tenant,
)
from tests.orm.placement.conftest import PLACES, Lab, as_tenant, make_place, names_in
from tests.orm.placement.models import Customer, Note


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
    opened: list[int] = []

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
                        opened.append(placements.engines.connections)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(task(number) for number in range(32)))
        over.set()
        await watching
        await placements.aclose()

    asyncio.run(main())
    assert max(opened) <= 6
    assert 3 <= max(seen) <= 12  # connections that were told to end may be seen for a moment longer
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
