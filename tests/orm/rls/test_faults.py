"""What breaks: killed backends, exhausted pools, tasks that are cancelled anywhere. Nobody crosses, nothing confirmed is lost."""

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard import allow_raw, bind, service_identity
from tests.orm.rls.lab import Lab, made_lab
from tests.orm.rls.reuse import SEEN, TENANTS, metadata, reuse, rows
from tests.support.postgres_server import postgres_server
from tests.support.waiting import wait_until

ENTRIES = metadata.tables["entries"]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=["backend", "transaction"])
def entries(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[Lab]:
    name = f"entries_{request.param}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        with made_lab(postgres_server.replace("/postgres?", f"/{name}?"), metadata, bound_to=request.param) as lab:
            with lab.admin() as owner:
                owner.execute(rows())
            yield lab
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["psycopg", "asyncpg"])
async def one_connection(request: pytest.FixtureRequest, entries: Lab) -> AsyncIterator[AsyncEngine]:
    made = entries.async_engine(request.param, pool_size=1, max_overflow=0)
    yield made
    await made.dispose()


async def seen(engine: AsyncEngine, tenant: str) -> tuple[object, ...]:
    with bind(service_identity("test", tenant=tenant)), allow_raw("to see what PostgreSQL does by itself"):
        async with engine.connect() as connection:
            return tuple((await connection.execute(SEEN)).one())


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_a_connection_that_goes_from_tenant_to_tenant_thousands_of_times_crosses_never(
    entries: Lab, driver: str
) -> None:
    """The long run of it, 100,000 times, is ``python -m tests.orm.rls.reuse``."""
    engine = entries.async_engine(driver, pool_size=4, max_overflow=0)
    await reuse(engine, 1_500)
    await engine.dispose()


@pytest.mark.anyio
async def test_a_task_that_is_cancelled_at_any_step_leaves_its_tenant_to_nobody(one_connection: AsyncEngine) -> None:
    """Also between BEGIN and the setting, which are two steps where the seal is of one transaction."""
    ended = set()
    async with asyncio.timeout(60):
        for steps in itertools.count():
            if steps >= 60 and "done" in ended:  # more steps where the server is busy
                break
            task = asyncio.ensure_future(seen(one_connection, "t1"))
            for _ in range(steps):
                await asyncio.sleep(0)
                if steps % 3 == 0:
                    await asyncio.sleep(0.0002)  # for what waits for the server
            task.cancel()
            try:
                assert await task == ("t1", "t1", 3)
                ended.add("done")
            except asyncio.CancelledError:
                ended.add("cancelled")
            assert await seen(one_connection, "t2") == ("t2", "t2", 3)
    assert ended == {"done", "cancelled"}


@pytest.mark.anyio
async def test_an_exhausted_pool_refuses_and_crosses_nobody(entries: Lab) -> None:
    engine = entries.async_engine("asyncpg", pool_size=2, max_overflow=0, pool_timeout=1)
    outcomes = {"seen": 0, "refused": 0}

    async def work(number: int) -> None:
        tenant = f"t{number % TENANTS}"
        with bind(service_identity("test", tenant=tenant)), allow_raw("to hold a connection for long"):
            try:
                async with engine.connect() as connection:
                    assert tuple((await connection.execute(SEEN)).one()) == (tenant, tenant, 3)
                    await asyncio.sleep(0.1)
                    outcomes["seen"] += 1
            except PoolTimeout:
                outcomes["refused"] += 1

    await asyncio.gather(*(work(number) for number in range(60)))
    assert min(outcomes.values()) >= 4, outcomes
    assert sum(outcomes.values()) == 60
    assert await seen(engine, "t7") == ("t7", "t7", 3)
    await engine.dispose()


def test_backends_that_are_killed_lose_no_write_that_was_confirmed_and_cross_none() -> None:
    """``kill -9`` of one backend: PostgreSQL ends them all and recovers from its log, which therefore is a durable one."""
    with postgres_server(durable=True) as url, made_lab(url, metadata) as lab:
        confirmed: dict[str, set[int]] = {"t1": set(), "t2": set(), "t3": set(), "t4": set()}
        broken: list[str] = []
        ending = threading.Event()
        engine = lab.engine("psycopg", pool_size=4, max_overflow=0)

        def write(tenant: str, first: int) -> None:
            number = first
            with bind(service_identity("test", tenant=tenant)):
                while not ending.is_set():
                    number += 1
                    try:
                        with engine.begin() as connection:
                            connection.execute(insert(ENTRIES).values(id=number))
                            connection.execute(insert(ENTRIES).values(id=-number))
                        confirmed[tenant].add(number)
                    except DBAPIError:
                        broken.append(tenant)
                        time.sleep(0.05)

        threads = [
            threading.Thread(target=write, args=(tenant, (place + 1) * 1_000_000))
            for place, tenant in enumerate(confirmed)
        ]
        for thread in threads:
            thread.start()
        for kill in (True, True, False):
            before = {tenant: len(numbers) for tenant, numbers in confirmed.items()}
            wait_until(lambda before=before: all(len(confirmed[one]) >= count + 5 for one, count in before.items()), 60)
            if kill:
                os.kill(busy_backend(url, lab.login), signal.SIGKILL)
        ending.set()
        for thread in threads:
            thread.join(20)
        engine.dispose()
        assert broken
        written: dict[str, set[int]] = {}
        with psycopg.connect(url) as owner:
            for tenant, number in owner.execute("SELECT tenant_id, id FROM entries"):
                written.setdefault(tenant, set()).add(number)
        for place, (tenant, numbers) in enumerate(confirmed.items()):
            found = written[tenant]
            assert numbers | {-number for number in numbers} <= found
            assert {abs(number) // 1_000_000 for number in found} == {place + 1}  # nobody else's
            assert {-number for number in found} == found  # whole transactions


def busy_backend(url: str, login: str) -> int:
    """Return the process id of a backend that works for the app."""
    with psycopg.connect(url) as owner:
        (pid,) = owner.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = %s ORDER BY xact_start NULLS LAST LIMIT 1", [login]
        ).fetchone()
    return int(pid)
