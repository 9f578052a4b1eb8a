"""The tenant directory: its cache is bounded, short and shared, and it fails closed."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from tenantguard import Tenant, TenantStatus, service_identity
from tenantguard.errors import (
    ConfigurationError,
    InvalidTenantId,
    PlacementError,
    StoreUnavailable,
    SuspendedTenant,
    TenantUnavailable,
    UnknownTenant,
)
from tenantguard.orm import check_metadata, protect
from tenantguard.orm.placement import CONTROL_PLANE, Placement, SqlTenants
from tenantguard.tenancy import check_standing
from tests.support.waiting import Clock


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = create_engine(f"sqlite:///{tmp_path}/control.sqlite3")
    CONTROL_PLANE.create_all(made)
    yield made
    made.dispose()


class Counted:
    """A directory that counts what it asks its database."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.asked = 0
        self.directory = SqlTenants(engine, **options)

        def count(*_: Any) -> None:
            self.asked += 1

        event.listen(engine, "before_cursor_execute", count)


def test_it_answers_with_the_record(engine: Engine) -> None:
    directory = SqlTenants(engine)
    directory.add("acme", name="Acme", plan="gold", placement=Placement(schema="t_acme"))
    record = directory.find_blocking("acme")
    assert record is not None
    assert (record.tenant, record.plan, record.placement) == (
        Tenant("acme", name="Acme"),
        "gold",
        Placement(schema="t_acme"),
    )
    assert asyncio.run(directory.get("acme")) == record.tenant
    assert asyncio.run(directory.get("other")) is None
    directory.close()


def test_it_asks_once_for_as_long_as_the_record_says(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000.0)
    monkeypatch.setattr("tenantguard.orm.placement.directory.time", SimpleNamespace(monotonic=clock, time=time.time))
    counted = Counted(engine, ttl=5)
    counted.directory.add("acme")
    before = counted.asked
    for _ in range(50):
        counted.directory.find_blocking("acme")
        counted.directory.find_blocking("nobody")
    clock.now += 4.9
    counted.directory.find_blocking("acme")
    assert counted.asked == before + 2
    clock.now += 0.2
    counted.directory.find_blocking("acme")
    assert counted.asked == before + 3
    counted.directory.close()


def test_a_record_is_kept_for_the_shorter_of_two_times(engine: Engine) -> None:
    SqlTenants(engine, ttl=0.1).add("short")
    patient = Counted(engine, ttl=60)
    patient.directory.find_blocking("short")
    before = patient.asked
    time.sleep(0.15)
    patient.directory.find_blocking("short")
    assert patient.asked == before + 1
    patient.directory.close()


def test_many_who_ask_at_once_ask_the_database_once(engine: Engine) -> None:
    counted = Counted(engine, ttl=60)
    counted.directory.add("acme")
    before = counted.asked
    slow = threading.Event()
    event.listen(engine, "before_cursor_execute", lambda *_: slow.wait(0.1))

    async def main() -> None:
        assert len(set(await asyncio.gather(*(counted.directory.get("acme") for _ in range(100))))) == 1

    asyncio.run(main())
    assert counted.asked == before + 1
    threads = [threading.Thread(target=counted.directory.find_blocking, args=("other",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert counted.asked == before + 2
    counted.directory.close()


def test_who_asks_first_and_is_cancelled_leaves_nobody_waiting(engine: Engine) -> None:
    directory = SqlTenants(engine, ttl=60)
    directory.add("acme")
    event.listen(engine, "before_cursor_execute", lambda *_: time.sleep(0.1))

    async def main() -> None:
        first = asyncio.create_task(directory.get("acme"))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(directory.get("acme"))
        await asyncio.sleep(0.02)
        first.cancel()
        assert await second == Tenant("acme")

    asyncio.run(main())
    directory.close()


def test_it_keeps_no_more_records_than_it_may(engine: Engine) -> None:
    directory = SqlTenants(engine, max_tenants=3, ttl=60)
    for number in range(10):
        directory.find_blocking(f"guess-{number}")
    assert len(directory._cache) == 3
    directory.close()


def test_a_change_is_seen_at_once_where_it_was_made(engine: Engine) -> None:
    directory = SqlTenants(engine, ttl=60)
    record = directory.add("acme")
    directory.find_blocking("acme")
    directory.change(record, status=TenantStatus.SUSPENDED)
    found = directory.find_blocking("acme")
    assert found is not None
    assert found.status is TenantStatus.SUSPENDED
    with pytest.raises(PlacementError, match="changed by somebody else"):
        directory.change(record, plan="gold")
    directory.close()


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (TenantStatus.SUSPENDED, SuspendedTenant, 403),
        (TenantStatus.PROVISIONING, TenantUnavailable, 503),
        (TenantStatus.MOVING, TenantUnavailable, 503),
        (TenantStatus.REMOVING, UnknownTenant, 403),
        (TenantStatus.REMOVED, UnknownTenant, 403),
    ],
)
def test_the_door_refuses_who_may_not_be_used(
    engine: Engine, status: TenantStatus, error: type[Exception], code: int
) -> None:
    directory = SqlTenants(engine)
    directory.add("acme", status=status)
    with pytest.raises(error) as refused:
        asyncio.run(check_standing(service_identity("x", tenant="acme"), directory))
    assert refused.value.status == code  # type: ignore[attr-defined]
    assert "acme" not in str(refused.value)
    directory.close()


def test_without_its_database_it_lets_nobody_in(tmp_path: Path) -> None:
    directory = SqlTenants(f"sqlite:///{tmp_path}/none/control.sqlite3")
    with pytest.raises(StoreUnavailable):
        directory.find_blocking("acme")
    with pytest.raises(StoreUnavailable):
        asyncio.run(directory.get("acme"))
    directory.close()

    async def main() -> None:
        control = create_async_engine("postgresql+asyncpg://app:pass-word@127.0.0.1:1/control")
        with pytest.raises(StoreUnavailable) as refused:
            await SqlTenants(control).get("acme")
        assert "pass-word" not in str(refused.value)
        await control.dispose()

    asyncio.run(main())


def test_a_closed_directory_lets_nobody_in(engine: Engine) -> None:
    directory = SqlTenants(engine, ttl=0)
    directory.add("acme")
    asyncio.run(directory.aclose())
    with pytest.raises(StoreUnavailable):
        directory.find_blocking("acme")


def test_a_protected_engine_is_refused(tmp_path: Path) -> None:
    made = protect(create_engine(f"sqlite:///{tmp_path}/x.sqlite3"))
    with pytest.raises(ConfigurationError, match="protects"):
        SqlTenants(made)

    async def main() -> None:
        control = protect(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/x.sqlite3"))
        with pytest.raises(ConfigurationError, match="protected"):
            SqlTenants(control)
        await control.dispose()

    asyncio.run(main())
    made.dispose()


@pytest.mark.parametrize("options", [{"ttl": -1}, {"ttl": 301}, {"ttl": True}, {"max_tenants": 0}, {"timeout": 0}])
def test_settings_that_make_no_sense_stop_the_start(engine: Engine, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SqlTenants(engine, **options)


def test_ids_are_checked_and_not_folded(engine: Engine) -> None:
    directory = SqlTenants(engine)
    with pytest.raises(InvalidTenantId):
        directory.add("")
    directory.add("acme")
    assert directory.find_blocking("ACME") is None
    with pytest.raises(UnknownTenant):
        directory.read("ACME")
    directory.close()


def test_the_control_plane_is_declared_shared() -> None:
    check_metadata(CONTROL_PLANE)
    assert all("control plane" in repr(table.info) for table in CONTROL_PLANE.tables.values())
