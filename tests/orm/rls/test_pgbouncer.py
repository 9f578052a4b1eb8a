"""Through a real PgBouncer in transaction mode: two backends that many clients of two tenants share.

Where PostgreSQL's own answer is looked at, raw SQL is allowed, so that the barrier adds nothing to it.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tenantguard import allow_raw, bind, service_identity
from tenantguard.errors import ConfigurationError
from tenantguard.orm import protect
from tenantguard.orm.rls import Seal, guard_transactions
from tenantguard.orm.rls.seal import BoundTo
from tests.orm.attacks.world import Base, Document, Folder
from tests.orm.rls.conftest import ROWS
from tests.orm.rls.lab import KEY, Lab, made_lab
from tests.support.pgbouncer import PgBouncer

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
OF = {"a": ["a doc", "a report"], "b": ["b doc", "b report"]}
RAW = text("SELECT title FROM documents ORDER BY id")
HERE = text("SELECT pg_backend_pid()")
GIVEN = text("SELECT current_setting('tenantguard.tenant')")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Pooled:
    """A database with row-level security, and PgBouncer before it."""

    def __init__(self, lab: Lab, bouncer: PgBouncer, database: str) -> None:
        self.lab = lab
        self.database = database
        self.url = bouncer.url

    def engine(self, seal: Seal | None = None, **options: Any) -> Engine:
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        made = create_engine(url, connect_args={"prepare_threshold": None}, **options)
        return guard_transactions(protect(made), seal=seal or self.lab.seal, session_reset="pooler")

    def async_engine(self, driver: str, **options: Any) -> AsyncEngine:
        url = self.url.replace("postgresql:", f"postgresql+{driver}:")
        arguments: dict[str, Any] = {"prepare_threshold": None}
        if driver == "asyncpg":
            url += "&prepared_statement_cache_size=0"
            name = lambda: f"__asyncpg_{uuid.uuid4()}__"  # noqa: E731
            arguments = {"statement_cache_size": 0, "prepared_statement_name_func": name}
        made = create_async_engine(url, connect_args=arguments, **options)
        return guard_transactions(protect(made), seal=self.lab.seal, session_reset="pooler")


@pytest.fixture(scope="module", params=["transaction", "time"])
def pooled(request: pytest.FixtureRequest, debian_postgres_url: str) -> Iterator[Pooled]:
    bound_to: BoundTo = request.param
    name = f"test_{uuid.uuid4().hex}"
    url = debian_postgres_url.replace("/postgres?", f"/{name}?")
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(debian_postgres_url, autocommit=True))
        admin.execute(f'CREATE DATABASE "{name}"')
        stack.callback(admin.execute, f'DROP DATABASE "{name}" WITH (FORCE)')
        lab = stack.enter_context(made_lab(url, Base.metadata, bound_to=bound_to))
        with lab.admin() as owner:
            owner.execute(ROWS)
        directory = url.partition("host=")[2]
        yield Pooled(lab, stack.enter_context(PgBouncer(directory, name, lab.login)), name)


@pytest.fixture(params=[{"poolclass": NullPool}, {"pool_size": 5}], ids=["no pool", "a pool"])
def engine(request: pytest.FixtureRequest, pooled: Pooled) -> Iterator[Engine]:
    made = pooled.engine(**request.param)
    yield made
    made.dispose()


@pytest.fixture(params=["psycopg", "asyncpg"])
async def async_engine(request: pytest.FixtureRequest, pooled: Pooled) -> AsyncIterator[AsyncEngine]:
    made = pooled.async_engine(request.param, pool_size=20)
    yield made
    await made.dispose()


def raw(connection: Connection, statement: Any = RAW) -> list[Any]:
    """What PostgreSQL shows without a predicate of the barrier."""
    with allow_raw("to see what PostgreSQL does by itself"):
        return list(connection.scalars(statement))


def test_each_transaction_has_its_tenant_whichever_backend_it_gets(engine: Engine) -> None:
    backends = set()
    for _ in range(5):
        with ExitStack() as stack:
            for identity in (A, B):  # both backends at once
                stack.enter_context(bind(identity))
                connection = stack.enter_context(engine.connect())
                assert raw(connection) == OF[identity.tenant.id]
                backends.update(raw(connection, HERE))
    assert len(backends) == 2


def test_one_client_is_moved_from_backend_to_backend_between_its_transactions(pooled: Pooled) -> None:
    engine = pooled.engine(pool_size=1, max_overflow=0)
    backends = set()
    with bind(A), engine.connect() as connection:
        for holds in (False, True, False, True):
            with psycopg.connect(pooled.url, prepare_threshold=None) as other:
                if holds:  # the backend that was used last, as PgBouncer gives that one first
                    other.execute("SELECT 1")
                assert raw(connection) == OF["a"]
                backends.update(raw(connection, HERE))
                connection.commit()
    engine.dispose()
    assert len(backends) == 2


def test_savepoints_keep_the_tenant(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        db.add(Folder(id=70, name="new", parent_id=1))
        db.flush()
        savepoint = db.begin_nested()
        assert raw(db.connection()) == OF["a"]
        savepoint.rollback()
        assert raw(db.connection()) == OF["a"]
        assert [one.title for one in db.scalars(select(Document).order_by(Document.id))] == OF["a"]
        db.rollback()


def test_a_seal_for_one_backend_does_not_hold_behind_it_and_is_refused(pooled: Pooled) -> None:
    engine = pooled.engine(Seal(KEY, bound_to="backend"), poolclass=NullPool)
    with bind(A), engine.connect() as connection, pytest.raises(DBAPIError, match="of another transaction"):
        raw(connection)


@pytest.mark.parametrize("afterwards", [False, True], ids=["at the same time", "afterwards"])
def test_a_seal_that_was_stolen_is_refused_where_it_is_of_one_transaction(pooled: Pooled, afterwards: bool) -> None:
    engine = pooled.engine(poolclass=NullPool)
    take = text("SELECT set_config('tenantguard.tenant', :stolen, true)")
    with bind(A), engine.connect() as victim, allow_raw("to steal it, as an injection would"):
        stolen = victim.scalar(GIVEN)
        if afterwards:
            victim.commit()
        with bind(B), engine.connect() as thief:
            with allow_raw("to use it"):
                thief.execute(take, {"stolen": stolen})
            if pooled.lab.seal.bound_to == "transaction":
                with pytest.raises(DBAPIError, match="of another transaction"):
                    raw(thief)
            else:  # the limit of a seal of its time alone, which the docs name
                assert raw(thief) == OF["a"]


def test_an_engine_that_should_reset_sessions_itself_refuses_a_pooler_between(pooled: Pooled) -> None:
    url = pooled.url.replace("postgresql:", "postgresql+psycopg:")
    engine = guard_transactions(protect(create_engine(url, poolclass=NullPool)), seal=pooled.lab.seal)
    for _ in range(2):
        with (
            bind(A),
            engine.connect() as connection,
            pytest.raises(ConfigurationError, match="A pooler stands between"),
        ):
            raw(connection)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.anyio
async def test_a_pooler_that_does_not_reset_sessions_is_found_out_and_nothing_runs(pooled: Pooled, driver: str) -> None:
    _, _, directory = pooled.lab.url.partition("host=")
    with PgBouncer(directory, pooled.database, pooled.lab.login, backends=1, resets=False) as careless:
        engine = Pooled(pooled.lab, careless, pooled.database).async_engine(driver, poolclass=NullPool)
        with bind(A):
            async with engine.begin() as connection:
                assert await connection.run_sync(raw) == OF["a"]
        with bind(B):
            async with engine.connect() as connection:
                with pytest.raises(DBAPIError, match="set server_reset_query_always = 1"):
                    await connection.run_sync(raw)
        await engine.dispose()


def test_a_setting_that_was_left_on_a_backend_is_nobodys_tenant(pooled: Pooled) -> None:
    engine = pooled.engine(poolclass=NullPool)
    keep = text("SELECT set_config('tenantguard.tenant', current_setting('tenantguard.tenant'), false)")
    with ExitStack() as stack:
        for _ in range(2):  # on both backends
            stack.enter_context(bind(A))
            connection = stack.enter_context(engine.connect())
            with allow_raw("to leave it behind, as a careless SET does"):
                connection.execute(keep)
            stack.callback(connection.commit)
    with bind(B), engine.connect() as connection:
        assert raw(connection) == OF["b"]
    with psycopg.connect(pooled.url, prepare_threshold=None) as bare:
        if pooled.lab.seal.bound_to == "transaction":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                bare.execute("SELECT title FROM documents")
        bare.rollback()
        bare.execute("RESET ALL")
        bare.commit()


@pytest.mark.anyio
async def test_hundreds_of_tasks_of_two_tenants_share_two_backends_and_some_are_cancelled(
    async_engine: AsyncEngine,
) -> None:
    done: Counter[str] = Counter()

    async def work(number: int) -> None:
        identity = (A, B)[number % 2]
        with bind(identity):
            async with async_engine.connect() as connection:
                with allow_raw("to see what PostgreSQL does by itself"):
                    assert list(await connection.scalars(RAW)) == OF[identity.tenant.id]
                done["seen"] += 1

    async def cancelled(number: int) -> None:
        task = asyncio.ensure_future(work(number))
        for _ in range(number % 29):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            done["cancelled"] += 1

    async with asyncio.timeout(60):
        for _ in range(4):
            await asyncio.gather(*(work(n) if n % 3 else cancelled(n) for n in range(90)))
    assert done["seen"] >= 240
    assert done["cancelled"] > 20


def test_a_backend_that_is_killed_takes_its_transaction_along_and_crosses_nobody(
    engine: Engine, pooled: Pooled
) -> None:
    with bind(A), engine.connect() as connection:
        connection.execute(Folder.__table__.insert().values(id=71, name="lost"))
        (backend,) = raw(connection, HERE)
        with pooled.lab.admin() as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        with pytest.raises(DBAPIError):
            raw(connection)
    for identity in (B, A, B, A):
        with bind(identity), engine.connect() as connection:
            assert raw(connection) == OF[identity.tenant.id]
            assert 71 not in connection.scalars(select(Folder.id)).all()
