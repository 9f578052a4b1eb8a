"""Erasing and removing tenants: all of theirs is gone, with proof, and nothing of others."""

import time

import pytest

from tenantguard import TenantStatus
from tenantguard.errors import PlacementError
from tenantguard.orm.placement import (
    SHARED,
    Placement,
    Placements,
    create_tenant,
    ddl,
    erase_tenant,
    own_database,
    own_schema,
    remove_tenant,
)
from tests.orm.placement.conftest import Lab
from tests.orm.placement.crashes import QUICK, Crash, crash_after
from tests.orm.placement.filling import everything, fill, fill_placed


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
