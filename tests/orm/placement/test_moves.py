"""Moving tenants: every row arrives, none is lost, and a move goes on after a crash or is taken back."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema

from tenantguard import TenantStatus
from tenantguard.errors import ConfigurationError, PlacementError, TenantUnavailable
from tenantguard.orm import tenant_key
from tenantguard.orm.placement import (
    SHARED,
    Databases,
    Placement,
    Placements,
    cancel_move,
    create_tenant,
    ddl,
    move_tenant,
    own_database,
    own_schema,
    remove_tenant,
)
from tests.orm.placement.conftest import Lab, as_tenant
from tests.orm.placement.crashes import QUICK, Crash, crash_after, titles
from tests.orm.placement.filling import everything, fill, fill_placed
from tests.orm.placement.models import Customer, Note, Order
from tests.support.waiting import wait_until

SCRIPT = """
    import os, sys
    sys.path.insert(0, {root!r})
    from tenantguard.orm.placement import *
    from tests.orm.placement.models import Base
    directory = SqlTenants("sqlite:///{path}/control.sqlite3", ttl=0.2)
    databases = Databases(Base.metadata, shared="sqlite:///{path}/shared.sqlite3",
                          tenants="sqlite:///{path}/{{database}}.sqlite3")
    def tell(what, done, total):
        if what == {at!r}:
            os.kill(os.getpid(), 9)
    {call}
"""


@pytest.mark.parametrize("at", ["copy", "write notes", "compare", "switch", "clear", "erase lines", "let in"])
def test_a_move_that_was_killed_goes_on_in_another_process(sqlite_lab: Lab, tmp_path: Path, at: str) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a")
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "b")
    fill(sqlite_lab, "a", 1)
    fill(sqlite_lab, "b", 1000)
    others = everything(sqlite_lab, without="a")
    before = everything(sqlite_lab)
    target = own_database("a")
    call = 'move_tenant(directory, databases, "a", own_database("a"), tell=tell, grace=0.0)'
    script = textwrap.dedent(SCRIPT).format(root=str(Path(__file__).parents[3]), path=tmp_path, at=at, call=call)
    died = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr
    sqlite_lab.directory.forget("a")
    assert sqlite_lab.directory.read("a").status is TenantStatus.MOVING
    with pytest.raises(PlacementError, match="Another process works"):
        move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", target, **QUICK)
    moved = move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", target, take_over=True, **QUICK)
    assert moved.record.status is TenantStatus.ACTIVE
    assert moved.record.placement == target
    assert moved.rows == 2 + 6 + 3 + 1
    assert everything(sqlite_lab) == others
    there = everything(sqlite_lab, target)
    assert {name: sorted(rows + others[name]) for name, rows in there.items()} == before


def test_provisioning_that_was_killed_goes_on_in_another_process(sqlite_lab: Lab, tmp_path: Path) -> None:
    call = 'create_tenant(directory, databases, "a", placement=own_database("a"), tell=tell)'
    script = textwrap.dedent(SCRIPT).format(
        root=str(Path(__file__).parents[3]), path=tmp_path, at="shared rows", call=call
    )
    died = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr
    record = create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", placement=own_database("a"), take_over=True)
    assert record.status is TenantStatus.ACTIVE


@pytest.mark.parametrize(
    "step", ["shut the door", "tables", "copy", "sequences", "compare", "switch", "clear", "let in"]
)
@pytest.mark.parametrize("written", [True, False])
def test_a_move_goes_on_after_a_crash_at_every_step(
    postgres_lab: Lab, step: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, tenant in enumerate("ab"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, tenant)
        fill_placed(postgres_lab, tenant, 1000 * number + 1)
    others = everything(postgres_lab, without="a")
    before = everything(postgres_lab)
    target = own_schema("a")
    with monkeypatch.context() as patched:
        crash_after(patched, step, written=written)
        with pytest.raises(Crash):
            move_tenant(postgres_lab.directory, postgres_lab.databases, "a", target, **QUICK)
    moved = move_tenant(postgres_lab.directory, postgres_lab.databases, "a", target, **QUICK)
    assert (moved.record.status, moved.record.placement) == (TenantStatus.ACTIVE, target)
    assert everything(postgres_lab) == others
    there = everything(postgres_lab, target)
    for name in ("customers", "orders"):
        assert sorted(there[name] + others[name]) == before[name]
    placements = Placements(postgres_lab.directory, postgres_lab.databases)
    with as_tenant("a"), placements.sessionmaker().begin() as db:
        db.add(Customer(name="new", country="NZ"))  # the sequence goes on behind what was copied
    placements.close()


@pytest.mark.parametrize(
    "way",
    [
        (SHARED, own_database("a")),
        (own_database("a"), SHARED),
        (own_schema("a"), own_database("a")),
        (own_database("a"), own_schema("a", database="shard")),
        (own_schema("a", database="shard"), own_schema("a")),
        (own_schema("a"), SHARED),
    ],
)
def test_tenants_move_between_all_kinds_of_places(postgres_lab: Lab, way: tuple[Placement, Placement]) -> None:
    source, target = way
    create_tenant(postgres_lab.directory, postgres_lab.databases, "b")
    fill_placed(postgres_lab, "b", 1000)
    create_tenant(postgres_lab.directory, postgres_lab.databases, "a", placement=source)
    fill_placed(postgres_lab, "a", 1, source)
    others = everything(postgres_lab, without="a")
    moved = move_tenant(postgres_lab.directory, postgres_lab.databases, "a", target, **QUICK)
    assert {table: rows for table, (rows, _) in moved.tables.items()} == {"customers": 5, "orders": 5}
    assert everything(postgres_lab, without="a") == others
    placements = Placements(postgres_lab.directory, postgres_lab.databases)
    with as_tenant("a"), placements.sessionmaker()() as db:
        assert db.scalars(select(Customer.name).order_by(Customer.id)).all() == [f"a {n}" for n in range(1, 6)]
        assert db.scalars(select(Order.total).order_by(Order.id)).all() == [1, 2, 3, 4, 5]
        db.add(Customer(name="next", country="NZ"))
        db.commit()
    placements.close()
    if not source.is_shared:
        assert not ddl.place_is_there(postgres_lab.databases, source)


def test_a_suspended_tenant_stays_suspended_when_it_is_moved(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a")
    sqlite_lab.directory.change(sqlite_lab.directory.read("a"), status=TenantStatus.SUSPENDED)
    with monkeypatch.context() as patched:
        crash_after(patched, "shut the door", written=False)
        with pytest.raises(Crash):
            move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    moved = move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    assert moved.record.status is TenantStatus.SUSPENDED


def test_writers_that_ask_the_directory_lose_nothing_while_their_tenant_is_moved(postgres_lab: Lab) -> None:
    """Threads write without a pause, before, during and after; each commit that succeeded is there afterwards."""
    create_tenant(postgres_lab.directory, postgres_lab.databases, "a")
    placements = Placements(postgres_lab.directory, postgres_lab.databases)
    Session_ = placements.sessionmaker()
    over = threading.Event()
    confirmed: list[str] = []
    refused: list[str] = []
    faults: list[BaseException] = []

    def write(worker: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            name = f"{worker}-{number}"
            try:
                with as_tenant("a"), Session_.begin() as db:
                    db.add(Customer(name=name))
                    db.flush()
                    time.sleep(0.001 * (number % 30))
                confirmed.append(name)
            except TenantUnavailable:
                refused.append(name)
                time.sleep(0.01)
            except BaseException as fault:  # noqa: BLE001 - shown below
                faults.append(fault)
                return

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(confirmed) >= 20)
    moved = move_tenant(postgres_lab.directory, postgres_lab.databases, "a", own_schema("a"), grace=1)
    at_switch = len(confirmed)
    wait_until(lambda: faults or len(confirmed) >= at_switch + 20)
    over.set()
    for thread in threads:
        thread.join(20)
    assert faults == []
    assert refused
    assert 0 < moved.rows <= at_switch
    assert len(confirmed) > at_switch
    with as_tenant("a"), Session_() as db:
        assert sorted(db.scalars(select(Customer.name))) == sorted(confirmed)
    placements.close()
    assert everything(postgres_lab)["customers"] == []


def test_a_writer_that_does_not_ask_is_noticed_and_nothing_is_deleted(
    sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a")
    fill(sqlite_lab, "a", 1)
    with monkeypatch.context() as patched:
        crash_after(patched, "switch", written=True)
        with pytest.raises(Crash):
            move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    with sqlite_lab.databases.engine(SHARED) as engine, as_tenant("a"), Session(engine) as db, db.begin():
        db.get(Note, 1).title = "changed behind its back"
    with pytest.raises(PlacementError, match="has changed since it was copied: notes"):
        move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    assert sqlite_lab.directory.read("a").status is TenantStatus.MOVING
    assert "changed behind its back" in titles(sqlite_lab, SHARED)
    record = cancel_move(sqlite_lab.directory, sqlite_lab.databases, "a")
    assert (record.status, record.placement) == (TenantStatus.ACTIVE, SHARED)
    assert not ddl.place_is_there(sqlite_lab.databases, own_database("a"))
    moved = move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    assert "changed behind its back" in titles(sqlite_lab, moved.record.placement)


def test_a_copy_that_differs_is_noticed(sqlite_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a")
    fill(sqlite_lab, "a", 1)
    with monkeypatch.context() as patched:
        crash_after(patched, "copy", written=True)
        with pytest.raises(Crash):
            move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    with sqlite_lab.databases.bare_connection(own_database("a")) as connection:
        connection.exec_driver_sql("UPDATE lines SET text = 'x' WHERE id = 1")
        connection.commit()
    with pytest.raises(PlacementError, match="different rows in lines"):
        move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", own_database("a"), **QUICK)
    assert sqlite_lab.directory.read("a").placement == SHARED
    cancel_move(sqlite_lab.directory, sqlite_lab.databases, "a")
    assert len(titles(sqlite_lab, SHARED)) == 6


def test_a_move_into_a_place_where_a_key_is_taken_fails_and_can_be_taken_back(postgres_lab: Lab) -> None:
    create_tenant(postgres_lab.directory, postgres_lab.databases, "b")
    fill_placed(postgres_lab, "b", 1)
    create_tenant(postgres_lab.directory, postgres_lab.databases, "a", placement=own_schema("a"))
    fill_placed(postgres_lab, "a", 1, own_schema("a"))
    before = everything(postgres_lab), everything(postgres_lab, own_schema("a"))
    with pytest.raises(PlacementError, match="23505, constraint customers_pkey") as refused:
        move_tenant(postgres_lab.directory, postgres_lab.databases, "a", SHARED, **QUICK)
    assert "a 1" not in str(refused.value)
    with pytest.raises(PlacementError, match="to another place is open"):
        move_tenant(postgres_lab.directory, postgres_lab.databases, "a", own_database("a"), **QUICK)
    cancel_move(postgres_lab.directory, postgres_lab.databases, "a")
    assert (everything(postgres_lab), everything(postgres_lab, own_schema("a"))) == before
    assert postgres_lab.directory.read("a").status is TenantStatus.ACTIVE


def test_a_tenant_does_not_move_to_where_it_is(sqlite_lab: Lab) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a")
    with pytest.raises(ConfigurationError):
        move_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", SHARED, **QUICK)
    with pytest.raises(PlacementError, match="no open move"):
        cancel_move(sqlite_lab.directory, sqlite_lab.databases, "a")


@pytest.mark.parametrize("target", [own_schema("acme"), own_database("acme")])
def test_tables_that_name_a_schema_do_not_lose_their_rows_in_a_move_to_a_schema(
    postgres_lab: Lab, target: Placement
) -> None:
    metadata = MetaData(schema="app")
    own = Column("tenant_id", String(128), nullable=False, info=tenant_key())
    Table("invoices", metadata, Column("id", Integer, primary_key=True), own)
    databases = Databases(metadata, shared=postgres_lab.databases.shared_url, tenants=postgres_lab.databases.url)
    with databases.bare_connection(SHARED) as connection:
        connection.execute(CreateSchema("app"))
        metadata.create_all(connection)
        connection.exec_driver_sql("INSERT INTO app.invoices VALUES (1, 'acme')")
        connection.commit()
    create_tenant(postgres_lab.directory, databases, "acme")
    if target.schema is not None:
        with pytest.raises(ConfigurationError, match=r"app\.invoices"):
            move_tenant(postgres_lab.directory, databases, "acme", target, **QUICK)
        target = SHARED
        assert postgres_lab.directory.read("acme").status is TenantStatus.ACTIVE
        with pytest.raises(ConfigurationError, match=r"app\.invoices"):
            create_tenant(postgres_lab.directory, databases, "globex", placement=own_schema("globex"))
        other = postgres_lab.directory.add("other", placement=own_schema("other"))
        with pytest.raises(ConfigurationError, match=r"app\.invoices"):
            remove_tenant(postgres_lab.directory, databases, other.id, **QUICK)
    else:
        move_tenant(postgres_lab.directory, databases, "acme", target, **QUICK)
    with databases.bare_connection(target) as connection:
        assert connection.exec_driver_sql("SELECT * FROM app.invoices").all() == [(1, "acme")]


def test_a_writer_that_does_not_ask_and_commits_while_its_schema_is_compared_loses_nothing(postgres_lab: Lab) -> None:
    source, target = own_schema("acme"), own_database("acme")
    create_tenant(postgres_lab.directory, postgres_lab.databases, "acme", placement=source)
    fill_placed(postgres_lab, "acme", 1, source)
    with postgres_lab.databases.bare_connection(source) as writer:
        writer.exec_driver_sql(f"INSERT INTO {source.schema}.customers (id, name, tenant_id) VALUES (777, 'x', 'acme')")

        def commit_once_it_is_waited_for() -> None:
            with postgres_lab.databases.bare_connection(SHARED) as watching:
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"
                wait_until(lambda: watching.exec_driver_sql(waiting).scalar())
            writer.commit()

        clearing = threading.Thread(target=commit_once_it_is_waited_for)
        clearing.start()
        with pytest.raises(PlacementError, match="has changed"):
            move_tenant(postgres_lab.directory, postgres_lab.databases, "acme", target, **QUICK)
        clearing.join()
    cancel_move(postgres_lab.directory, postgres_lab.databases, "acme")
    assert "777" in str(everything(postgres_lab, source))
