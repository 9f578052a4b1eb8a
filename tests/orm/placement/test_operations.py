"""Setting up, moving, erasing and removing tenants: what is done, what is left, and that it goes on after a crash."""

import threading
from typing import Any

import pytest
from sqlalchemy import select

from tenantguard import TenantStatus
from tenantguard.errors import ConfigurationError, PlacementError, UnknownTenant
from tenantguard.orm.placement import (
    SHARED,
    Placement,
    Placements,
    cancel_create,
    create_tenant,
    erase_tenant,
    move_tenant,
    own_database,
    own_schema,
    place_name,
    remove_tenant,
)
from tenantguard.orm.placement.operations import pending_operation
from tests.orm.placement.conftest import Lab, as_tenant
from tests.orm.placement.crashes import QUICK, Crash, crash_after, relations
from tests.orm.placement.filling import everything, fill_placed
from tests.orm.placement.models import Customer

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
