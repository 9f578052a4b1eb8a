"""Setting up, moving, erasing and removing tenants: what is done, what is left, and that it goes on after a crash."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from tenantguard import TenantStatus
from tenantguard.errors import ConfigurationError, PlacementError, TenantUnavailable, UnknownTenant
from tenantguard.orm.placement import (
    SHARED,
    Placement,
    Placements,
    cancel_create,
    cancel_move,
    create_tenant,
    ddl,
    erase_tenant,
    move_tenant,
    operations,
    own_database,
    own_schema,
    place_name,
    remove_tenant,
)
from tenantguard.orm.placement.operations import pending_operation
from tests.orm.placement.conftest import Lab, as_tenant
from tests.orm.placement.filling import everything, fill, fill_placed
from tests.orm.placement.models import Customer, Note, Order

QUICK: dict[str, Any] = {"grace": 0.0}


class Crash(BaseException):
    """Ends an operation as if the process had died there."""


def crash_after(monkeypatch: pytest.MonkeyPatch, step: str, *, written: bool) -> None:
    """Die when a step is done: after it was written down, or just before."""
    original = operations.Operation.step

    def stepped(self: Any, name: str, work: Callable[[], Any]) -> Any:
        if name != step or name in self.done:
            return original(self, name, work)
        if written:
            original(self, name, work)
        else:
            work()
        raise Crash

    monkeypatch.setattr(operations.Operation, "step", stepped)


def titles(lab: Lab, placement: Placement) -> list[str]:
    engine = create_engine(lab.databases.url(placement.database))
    with engine.connect() as connection:
        found = list(connection.exec_driver_sql("SELECT title FROM notes ORDER BY id").scalars())
    engine.dispose()
    return found


def relations(lab: Lab, placement: Placement) -> int:
    with lab.databases.bare_connection(Placement(database=placement.database)) as connection:
        return int(
            connection.scalar(
                text("SELECT count(*) FROM information_schema.tables WHERE table_schema = :s"),
                {"s": placement.schema or "public"},
            )
        )


# --- setting up ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "placement", [SHARED, own_schema("acme"), own_database("acme"), own_schema("acme", database="shard")]
)
def test_a_new_tenant_can_be_used_at_once_in_every_kind_of_place(postgres_lab: Lab, placement: Placement) -> None:
    fill_placed(postgres_lab, "other", 100)
    told: list[str] = []
    record = create_tenant(
        postgres_lab.directory,
        postgres_lab.databases,
        "acme",
        name="Acme",
        plan="gold",
        placement=placement,
        tell=lambda what, done, total: told.append(f"{what} {done}/{total}"),
    )
    assert (record.status, record.placement, record.plan) == (TenantStatus.ACTIVE, placement, "gold")
    assert told[0] == "register 0/6"
    placements = Placements(postgres_lab.directory, postgres_lab.databases)
    with as_tenant("acme"), placements.sessionmaker().begin() as db:
        db.add(Customer(name="first", country="NZ"))  # the shared row came along
        assert db.scalars(select(Customer.name)).all() == ["first"]
    placements.close()
    assert pending_operation(postgres_lab.directory, "acme") is None


@pytest.mark.parametrize("step", ["register", "database", "schema", "tables", "shared rows", "own: rights", "activate"])
@pytest.mark.parametrize("written", [True, False])
def test_setting_up_goes_on_after_a_crash(
    postgres_lab: Lab, step: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_placed(postgres_lab, "other", 100)
    placement = own_database("acme")
    calls: list[Placement] = []

    def create() -> Any:
        return create_tenant(
            postgres_lab.directory,
            postgres_lab.databases,
            "acme",
            placement=placement,
            steps={"rights": lambda connection, place: calls.append(place)},
        )

    with monkeypatch.context() as patched:
        crash_after(patched, step, written=written)
        with pytest.raises(Crash):
            create()
    assert pending_operation(postgres_lab.directory, "acme") == "create"
    if step != "activate":
        assert postgres_lab.directory.read("acme").status is TenantStatus.PROVISIONING
    assert create().status is TenantStatus.ACTIVE
    assert pending_operation(postgres_lab.directory, "acme") is None
    assert len(calls) in (1, 2)
    assert everything(postgres_lab, placement)["countries"] == ["[('code', 'NZ')]"]


def test_what_is_there_is_not_taken_for_a_new_place(postgres_lab: Lab) -> None:
    with postgres_lab.databases.bare_connection(SHARED) as connection:
        connection.exec_driver_sql("CREATE SCHEMA t_old")
        connection.exec_driver_sql("CREATE TABLE t_old.customers (id int)")
        connection.commit()
    with pytest.raises(PlacementError, match="not empty"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, "acme", placement=Placement(schema="t_old"))
    assert postgres_lab.directory.read("acme").status is TenantStatus.PROVISIONING
    with pytest.raises(PlacementError, match="other arguments"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, "acme", placement=own_schema("acme"))
    cancel_create(postgres_lab.directory, postgres_lab.databases, "acme")
    assert relations(postgres_lab, Placement(schema="t_old")) == 1  # it is somebody's, and stays
    with pytest.raises(UnknownTenant):
        postgres_lab.directory.read("acme")
    create_tenant(postgres_lab.directory, postgres_lab.databases, "acme", placement=own_schema("acme"))


def test_a_database_is_one_tenants_own_or_holds_schemas(postgres_lab: Lab) -> None:
    create_tenant(postgres_lab.directory, postgres_lab.databases, "a", placement=Placement("d", "t_a"))
    create_tenant(postgres_lab.directory, postgres_lab.databases, "b", placement=Placement("d", "t_b"))
    with pytest.raises(PlacementError):
        create_tenant(postgres_lab.directory, postgres_lab.databases, "c", placement=Placement("d"))
    remove_tenant(postgres_lab.directory, postgres_lab.databases, "a", **QUICK)
    assert relations(postgres_lab, Placement("d", "t_b")) == 2
    assert relations(postgres_lab, Placement("d", "t_a")) == 0


def test_ids_are_given_once(sqlite_lab: Lab) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "acme")
    with pytest.raises(PlacementError):
        create_tenant(sqlite_lab.directory, sqlite_lab.databases, "acme")
    remove_tenant(sqlite_lab.directory, sqlite_lab.databases, "acme", **QUICK)
    with pytest.raises(PlacementError):
        create_tenant(sqlite_lab.directory, sqlite_lab.databases, "acme")
    with pytest.raises(UnknownTenant):
        remove_tenant(sqlite_lab.directory, sqlite_lab.databases, "acme", **QUICK)


def test_sqlite_has_no_schemas(sqlite_lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="no schemas"):
        create_tenant(sqlite_lab.directory, sqlite_lab.databases, "acme", placement=own_schema("acme"))


def test_names_of_places_tell_ids_apart_that_look_alike() -> None:
    assert place_name("Acme") != place_name("acme")
    assert place_name("a.b") != place_name("a_b")
    assert len(place_name("x" * 128)) <= 63
    Placement(schema=place_name("日本|x"))


# --- two at once -----------------------------------------------------------------------------------------------


def test_one_process_works_on_an_operation_at_a_time(sqlite_lab: Lab) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def slow(connection: Any, placement: Placement) -> None:
        at_work.set()
        go_on.wait(20)

    def create(steps: Any, **options: Any) -> Any:
        return create_tenant(
            sqlite_lab.directory, sqlite_lab.databases, "a", placement=own_database("a"), steps=steps, **options
        )

    first = threading.Thread(target=lambda: create({"x": slow}))
    first.start()
    assert at_work.wait(20)
    with pytest.raises(PlacementError, match="Another process works"):
        create({"x": lambda *_: None})
    with pytest.raises(PlacementError, match="is open: create"):
        erase_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", **QUICK)
    go_on.set()
    first.join(20)
    assert sqlite_lab.directory.read("a").status is TenantStatus.ACTIVE


def test_who_was_taken_over_does_not_go_on(sqlite_lab: Lab) -> None:
    taken = threading.Event()
    faults: list[BaseException] = []

    def slow(connection: Any, placement: Placement) -> None:
        if not taken.is_set():
            taken.set()
            create(take_over=True)

    def create(**options: Any) -> Any:
        return create_tenant(
            sqlite_lab.directory,
            sqlite_lab.databases,
            "a",
            placement=own_database("a"),
            steps={"x": slow},
            **options,
        )

    with pytest.raises(PlacementError, match="taken the operation over"):
        create()
    assert faults == []
    assert sqlite_lab.directory.read("a").status is TenantStatus.ACTIVE


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


# --- moving ----------------------------------------------------------------------------------------------------


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
    time.sleep(0.5)
    moved = move_tenant(postgres_lab.directory, postgres_lab.databases, "a", own_schema("a"), grace=0.3)
    at_switch = len(confirmed)
    time.sleep(0.7)
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


# --- erasing and removing --------------------------------------------------------------------------------------


def test_erasing_takes_the_tenants_rows_and_no_others_with_proof(sqlite_lab: Lab) -> None:
    for number, tenant in enumerate("ab"):
        create_tenant(sqlite_lab.directory, sqlite_lab.databases, tenant)
        fill(sqlite_lab, tenant, 1000 * number + 1)
    others = everything(sqlite_lab, without="a")
    erasure = erase_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", **QUICK)
    assert {one.table: tuple(one[1:]) for one in erasure.tables} == {
        "folders": (2, 2, 0),
        "notes": (6, 6, 0),
        "lines": (3, 3, 0),
        "templates": (1, 1, 0),
    }
    assert everything(sqlite_lab) == others
    assert len(others["templates"]) == 3  # those for everybody among them
    assert sqlite_lab.directory.read("a").status is TenantStatus.SUSPENDED


@pytest.mark.parametrize("placement", [SHARED, own_schema("a"), own_database("a")])
@pytest.mark.parametrize("step", ["shut the door", "erase", "close"])
@pytest.mark.parametrize("written", [True, False])
def test_removing_goes_on_after_a_crash_and_leaves_others_alone(
    postgres_lab: Lab, placement: Placement, step: str, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_tenant(postgres_lab.directory, postgres_lab.databases, "b")
    fill_placed(postgres_lab, "b", 1000)
    create_tenant(postgres_lab.directory, postgres_lab.databases, "a", placement=placement)
    fill_placed(postgres_lab, "a", 1, placement)
    others = everything(postgres_lab, without="a")
    with monkeypatch.context() as patched:
        crash_after(patched, step, written=written)
        with pytest.raises(Crash):
            remove_tenant(postgres_lab.directory, postgres_lab.databases, "a", **QUICK)
    erasure = remove_tenant(postgres_lab.directory, postgres_lab.databases, "a", **QUICK)
    assert erasure.placement == placement
    assert all(one.after == 0 for one in erasure.tables)
    if written or step != "erase" or not placement.is_shared:
        assert erasure.rows == 10
    assert everything(postgres_lab) == others
    assert placement.is_shared or not ddl.place_is_there(postgres_lab.databases, placement)
    assert postgres_lab.directory.read("a").status is TenantStatus.REMOVED
    assert [record.id for record in postgres_lab.directory.list()] == ["b"]


def test_rows_of_others_that_point_to_the_tenant_stop_the_erasure(sqlite_lab: Lab) -> None:
    for number, tenant in enumerate("ab"):
        create_tenant(sqlite_lab.directory, sqlite_lab.databases, tenant)
        fill(sqlite_lab, tenant, 1000 * number + 1)
    with sqlite_lab.databases.bare_connection(SHARED) as connection:
        connection.exec_driver_sql("UPDATE notes SET folder_id = 1 WHERE id = 1001")  # of b, into a's folder
        connection.commit()
    before = everything(sqlite_lab)
    with pytest.raises(PlacementError, match="not the tenant's point to them"):
        erase_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", **QUICK)
    assert everything(sqlite_lab) == before


def test_the_door_is_shut_before_a_row_is_touched(sqlite_lab: Lab) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a")
    placements = Placements(sqlite_lab.directory, sqlite_lab.databases)
    began = time.monotonic()
    erase_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", grace=0.1)
    assert time.monotonic() - began >= sqlite_lab.directory.ttl + 0.1
    placements.close()


def test_two_operations_do_not_make_one_place(postgres_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else taking one of them back would drop what the other has moved there."""
    place = Placement(schema="t_one")
    for number, tenant in enumerate("ab"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, tenant)
        fill_placed(postgres_lab, tenant, 1000 * number + 1)
    with monkeypatch.context() as patched:
        crash_after(patched, "schema", written=True)
        with pytest.raises(Crash):
            move_tenant(postgres_lab.directory, postgres_lab.databases, "a", place, **QUICK)
    with pytest.raises(PlacementError, match="makes the same place"):
        move_tenant(postgres_lab.directory, postgres_lab.databases, "b", place, **QUICK)
    with pytest.raises(PlacementError, match="makes the same place"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, "c", placement=place)
    move_tenant(postgres_lab.directory, postgres_lab.databases, "a", place, **QUICK)
    with pytest.raises(PlacementError, match="another tenant's"):
        move_tenant(postgres_lab.directory, postgres_lab.databases, "b", place, **QUICK)
    with pytest.raises(PlacementError, match="another tenant's"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, "c", placement=place)
    cancel_create(postgres_lab.directory, postgres_lab.databases, "c")
    assert len(everything(postgres_lab, place)["customers"]) == 5
    assert postgres_lab.directory.read("b").status is TenantStatus.ACTIVE
