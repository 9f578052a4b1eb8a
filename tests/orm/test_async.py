"""The barrier over asynchronous drivers: tasks of two tenants on few connections, streams, cancellation, the driver.

SQLAlchemy's asynchronous engines run on asyncio alone, so these tests do.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, func, insert, literal, select, text, update
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    create_async_engine,
    create_async_pool_from_url,
)
from sqlalchemy.orm import Session, aliased, selectinload
from sqlalchemy.util import greenlet_spawn

from tenantguard import bind, system
from tenantguard.errors import ForeignTenantWrite, NotBound, StatementRefused, TenantGuardError, TenantMismatch
from tenantguard.orm import async_sessionmaker, is_protected, protect
from tests.orm.small_world import CANARY, FIRST_OF_B, A, B, Base, Comment, Document, Folder, seed

pytestmark = pytest.mark.anyio

D = Document.__table__
DRIVERS = {
    "aiosqlite": "sqlite",
    "asyncpg": "postgresql",
    "psycopg": "postgresql",
    "aiomysql": "mariadb",
    "asyncmy": "mariadb",
}
SLOW = {"sqlite": "slow", "postgresql": "pg_sleep", "mariadb": "sleep"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=DRIVERS)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the rows of both tenants, with the driver in it."""
    database = DRIVERS[request.param]
    if database == "sqlite":
        file = request.getfixturevalue("tmp_path_factory").mktemp("async") / "rows.db"
        made = f"sqlite:///{file}"
        blocking = made
    elif database == "postgresql":
        made = request.getfixturevalue("postgres_module_url")
        blocking = made.replace(":", "+psycopg:", 1)
    else:
        made = request.getfixturevalue("mariadb_module_url")
        blocking = made.replace(":", "+pymysql:", 1)
    engine = protect(create_engine(blocking))
    seed(engine)
    engine.dispose()
    return made.replace(":", f"+{request.param}:", 1)


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine with two connections at most."""
    made = create_async_engine(url, pool_size=2, max_overflow=0)
    protect(made, functions=[SLOW[made.dialect.name]])
    yield made
    await made.dispose()


@pytest.fixture
async def single(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine with one connection, which everybody gets in turn."""
    made = create_async_engine(url, pool_size=1, max_overflow=0)
    protect(made, functions=[SLOW[made.dialect.name]])
    yield made
    await made.dispose()


def is_own(identity: Any, titles: Any) -> bool:
    found = list(titles)
    return bool(found) and all(title.startswith(CANARY) is (identity is B) for title in found)


# --- tasks -------------------------------------------------------------------------------------------------


async def test_tasks_of_two_tenants_on_few_connections_see_own_rows_alone(engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(engine)

    async def work(number: int) -> None:
        identity = (A, B)[number % 2]
        with bind(identity):
            for step in range(4):
                async with sessions() as db:
                    assert is_own(identity, await db.scalars(select(Document.title)))
                    await asyncio.sleep(0)
                    folder = (await db.scalars(select(Folder).options(selectinload(Folder.documents)))).first()
                    assert is_own(identity, [folder.name, *(document.title for document in folder.documents)])
                    if step % 2:
                        db.add(Document(id=int(f"{(1, FIRST_OF_B)[number % 2]}{number:02}{step}"), title="x"))
                        await db.flush()
                    await asyncio.sleep(0)
                    assert await db.scalar(select(func.count(D.c.tenant_id.distinct()))) == 1
                    await db.rollback()

    await asyncio.gather(*(work(number) for number in range(12)))


async def test_a_session_of_one_tenant_is_not_used_by_a_task_of_another(engine: AsyncEngine) -> None:
    begun, looked = asyncio.Event(), asyncio.Event()
    async with AsyncSession(engine) as db:

        async def of_a() -> None:
            with bind(A):
                assert is_own(A, await db.scalars(select(Document.title)))
                begun.set()
                await looked.wait()
                assert is_own(A, [(await db.get_one(Document, 1)).title])

        async def of_b() -> None:
            await begun.wait()
            with bind(B):
                for use in (
                    lambda: db.scalars(select(Document.title)),
                    lambda: db.get(Document, 1),
                    lambda: db.get(Document, FIRST_OF_B),
                    lambda: db.stream(select(D)),
                    lambda: db.run_sync(lambda session: session.query(Document).all()),
                    lambda: db.execute(update(Document).values(title="x")),
                ):
                    with pytest.raises(TenantMismatch):
                        await use()
            looked.set()

        await asyncio.gather(of_a(), of_b())


async def test_a_task_without_a_tenant_gets_nothing(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as db:
        with pytest.raises(NotBound):
            await db.scalars(select(Document.title))
    with bind(A):
        inherited = asyncio.create_task(titles(engine))
        assert is_own(A, await inherited)


async def titles(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list(await connection.scalars(select(D.c.title)))


# --- streams, run_sync and what else there is to read with --------------------------------------------------

READS: dict[str, Callable[[AsyncSession], Any]] = {
    "stream": lambda db: collect(db.stream(select(Document.title)), lambda row: row[0]),
    "stream_scalars": lambda db: collect(db.stream_scalars(select(Document.title)), str),
    "stream of entities": lambda db: collect(db.stream_scalars(select(Document)), lambda document: document.title),
    "yield_per": lambda db: collect(db.stream_scalars(select(Document.title).execution_options(yield_per=1)), str),
    "partitions": lambda db: partitions(db),
    "run_sync": lambda db: db.run_sync(lambda session: [d.title for d in session.query(Document)]),
    "run_sync lazy load": lambda db: db.run_sync(lambda s: [d.title for d in s.get_one(Folder, first(s)).documents]),
    "greenlet_spawn": lambda db: greenlet_spawn(blocking_titles, db.get_bind()),
    "connection": lambda db: connection_titles(db),
    "connection run_sync": lambda db: connection_run_sync(db),
    "alias": lambda db: gathered(db.scalars(select(aliased(Document).title))),
}


def first(session: Session) -> Any:
    return session.scalars(select(func.min(Folder.id))).one()


def blocking_titles(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Document.title)))


async def gathered(result: Any) -> list[str]:
    return list(await result)


async def collect(result: Any, title: Callable[[Any], str]) -> list[str]:
    return [title(row) async for row in await result]


async def partitions(db: AsyncSession) -> list[str]:
    result = await db.stream_scalars(select(Document.title))
    return [title async for part in result.partitions(2) for title in part]


async def connection_titles(db: AsyncSession) -> list[str]:
    return list((await (await db.connection()).execute(select(D.c.title))).scalars())


async def connection_run_sync(db: AsyncSession) -> list[str]:
    return await (await db.connection()).run_sync(lambda connection: list(connection.scalars(select(D.c.title))))


@pytest.mark.parametrize("name", READS)
async def test_a_way_to_read_gives_own_rows(engine: AsyncEngine, name: str) -> None:
    for identity in (A, B):
        with bind(identity):
            async with AsyncSession(engine) as db:
                assert is_own(identity, await READS[name](db))


async def test_get_refresh_and_lazy_loads_reach_own_rows(engine: AsyncEngine) -> None:
    with bind(A):
        async with AsyncSession(engine) as db:
            assert await db.get(Document, FIRST_OF_B) is None
            assert await db.get(Comment, FIRST_OF_B) is None
            planted = Document(id=FIRST_OF_B, title="x", tenant_id="a")
            merged = await db.merge(planted, load=True)
            assert merged.title == "x"
            db.expunge_all()
            own = await db.get_one(Document, 1)
            await db.refresh(own, ["folder", "comments"])
            assert is_own(A, [own.folder.name, *(comment.text for comment in own.comments)])
            with pytest.raises(InvalidRequestError):
                await db.refresh(planted)


async def test_a_scoped_session_is_of_its_task_and_tenant(engine: AsyncEngine) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)

    async def work(identity: Any) -> None:
        with bind(identity):
            assert is_own(identity, await scoped.scalars(select(Document.title)))
            await asyncio.sleep(0)
            assert is_own(identity, await scoped.scalars(select(Document.title)))
            await scoped.remove()

    await asyncio.gather(*(work(identity) for identity in (A, B, A, B)))


async def test_a_stream_is_read_by_the_tenant_alone_that_opened_it(engine: AsyncEngine) -> None:
    for read in (
        lambda result: result.all(),
        lambda result: result.first(),
        lambda result: result.fetchmany(2),
        lambda result: anext(aiter(result)),
        lambda result: anext(aiter(result.partitions(2))),
    ):
        async with engine.connect() as connection:
            with bind(A):
                result = await connection.stream(select(D.c.title))
            with bind(B), pytest.raises(TenantMismatch):
                await read(result)
            await result.close()


# --- writing -----------------------------------------------------------------------------------------------


async def test_writes_touch_own_rows_alone(engine: AsyncEngine) -> None:
    with bind(A):
        async with AsyncSession(engine) as db:
            assert (await db.execute(update(Document).values(title="mine"))).rowcount == 3  # type: ignore[attr-defined]
            assert (await db.execute(delete(Comment))).rowcount == 3  # type: ignore[attr-defined]
            with pytest.raises(ForeignTenantWrite):
                await db.execute(
                    insert(Document), [{"id": 500, "title": "x"}, {"id": 501, "title": "y", "tenant_id": "b"}]
                )
            with pytest.raises(ForeignTenantWrite):
                await db.execute(insert(D).values(id=400, title="x", folder_id=FIRST_OF_B))
            await db.execute(insert(Document), [{"id": 400 + number, "title": "x"} for number in range(3)])
            db.add_all([Document(id=410 + number, title="x") for number in range(3)])
            await db.flush()
            assert await db.scalar(select(func.count()).select_from(D).where(D.c.id.between(400, 499))) == 6
            if engine.dialect.name == "mariadb":
                rows = [{"id": FIRST_OF_B, "title": "stolen"}, {"id": 1, "title": "again"}]
                statement = mysql.insert(D).on_duplicate_key_update(title="stolen")
                await db.execute(statement, rows)
                await db.execute(statement.values(rows))
            await db.rollback()
    with bind(B):
        assert is_own(B, await titles(engine))


# --- cancellation ------------------------------------------------------------------------------------------


def slow(engine: AsyncEngine) -> Any:
    """Return a statement that takes a while and reads the tenant's rows."""
    if engine.dialect.name == "sqlite":
        numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
        numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 300_000))
        return select(D.c.title).where(select(func.max(numbers.c.n)).scalar_subquery() > D.c.id)
    return select(D.c.title, getattr(func, SLOW[engine.dialect.name])(0.2))


async def test_a_connection_whose_query_was_cancelled_gives_the_next_tenant_own_rows(single: AsyncEngine) -> None:
    async def of_a(statement: Any) -> None:
        with bind(A):
            async with AsyncSession(single) as db:
                await db.execute(statement)
                await db.execute(statement)

    with bind(B):
        assert is_own(B, await titles(single))
    for statement, waits in ((select(D.c.title), range(24)), (slow(single), (0.01, 0.05))):
        for wait in waits:
            task = asyncio.create_task(of_a(statement))
            if isinstance(wait, int):
                for _ in range(wait):  # as many turns of the loop: each time it is cancelled elsewhere
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(wait)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with bind(B):
                async with asyncio.timeout(10):
                    assert is_own(B, await titles(single))


@pytest.mark.filterwarnings(
    "ignore:Previous unbuffered result was left incomplete", "ignore:.*was deleted while still open"
)
async def test_a_stream_that_was_left_open_gives_the_next_tenant_own_rows(single: AsyncEngine) -> None:
    with bind(A):
        async with single.connect() as connection:
            result = await connection.stream(select(D.c.title).execution_options(yield_per=1))
            assert is_own(A, [(await anext(aiter(result)))[0]])
    with bind(B):
        assert is_own(B, await titles(single))
    del result, connection
    gc.collect()  # so that the drivers complain here


# --- ways round --------------------------------------------------------------------------------------------

RAW = "SELECT title FROM small_documents"


async def raw(connection: AsyncConnection) -> Any:
    return await connection.get_raw_connection()


async def native(connection: AsyncConnection, name: str, *args: Any, **kwargs: Any) -> Any:
    return await getattr(await raw(connection), name)(*args, **kwargs)


ROUND: dict[str, Callable[[AsyncConnection], Any]] = {
    "exec_driver_sql": lambda c: c.exec_driver_sql(RAW),
    "text": lambda c: c.execute(text(RAW)),
    "stream of text": lambda c: c.stream(text(RAW)),
    "stream_scalars of text": lambda c: c.stream_scalars(text(RAW)),
    "run_sync exec_driver_sql": lambda c: c.run_sync(lambda connection: connection.exec_driver_sql(RAW).all()),
    "run_sync text": lambda c: c.run_sync(lambda connection: connection.execute(text(RAW)).all()),
    "run_sync cursor": lambda c: c.run_sync(lambda connection: connection.connection.cursor().execute(RAW)),
    "run_sync driver": lambda c: c.run_sync(lambda connection: connection.connection.driver_connection),
    "run_sync create_all": lambda c: c.run_sync(
        lambda connection: Base.metadata.create_all(connection, checkfirst=False)
    ),
    "run_sync drop_all": lambda c: c.run_sync(lambda connection: Base.metadata.drop_all(connection, checkfirst=False)),
    "sync connection": lambda c: greenlet_spawn(lambda: c.sync_connection.exec_driver_sql(RAW)),  # type: ignore[union-attr]
    "sync engine": lambda c: greenlet_spawn(blocking_raw, c.engine.sync_engine),
    "engine's raw connection": lambda c: engine_raw(c.engine),
    "copy_records_to_table": lambda c: native(c, "copy_records_to_table", "small_documents", records=[(9, "x")]),
    "copy_from_query": lambda c: native(c, "copy_from_query", RAW, output="/dev/null"),
    "fetch": lambda c: native(c, "fetch", RAW),
    "prepare": lambda c: native(c, "prepare", RAW),
    "execute": lambda c: native(c, "execute", RAW),
    "executescript": lambda c: native(c, "executescript", RAW),
    "query": lambda c: native(c, "query", RAW),
    "run_async": lambda c: native(c, "run_async", lambda driver: driver.execute(RAW)),
    "cursor": lambda c: native(c, "cursor"),
}


def blocking_raw(engine: Engine) -> Any:
    pooled = engine.raw_connection()
    try:
        return pooled.cursor()
    finally:
        pooled.close()


async def engine_raw(engine: AsyncEngine) -> Any:
    pooled = await engine.raw_connection()
    try:
        return pooled.driver_connection
    finally:
        await greenlet_spawn(pooled.close)


@pytest.mark.parametrize("name", ROUND)
async def test_a_way_round_the_statements_is_refused(engine: AsyncEngine, name: str) -> None:
    with bind(A):
        async with engine.connect() as connection:
            await connection.execute(select(D.c.id))
            with pytest.raises(StatementRefused):
                await ROUND[name](connection)
            await connection.rollback()


async def test_the_drivers_connection_is_not_handed_out(engine: AsyncEngine) -> None:
    with bind(A):
        async with engine.connect() as connection:
            pooled = await connection.get_raw_connection()
            with pytest.raises(StatementRefused, match="driver"):
                _ = pooled.driver_connection
            with system("look at the driver"):
                assert pooled.driver_connection is not None


async def test_a_pool_that_was_made_by_itself_is_guarded_with_the_engine(url: str) -> None:
    pool = create_async_pool_from_url(url)
    engine = protect(create_async_engine(url, pool=pool))
    with bind(A):
        assert is_own(A, await titles(engine))
        for _ in range(2):
            pooled = await greenlet_spawn(engine.sync_engine.pool.connect)
            with pytest.raises(StatementRefused):
                pooled.cursor()
            await greenlet_spawn(pooled.close)
            await engine.dispose()  # which makes the pool anew
            assert is_own(A, await titles(engine))
    await engine.dispose()


async def test_variants_of_the_engine_are_scoped(engine: AsyncEngine) -> None:
    for options in ({"isolation_level": "SERIALIZABLE"}, {"compiled_cache": None}):
        variant = engine.execution_options(**options)
        assert is_protected(variant)
        for identity in (A, B):
            with bind(identity):
                assert is_own(identity, await titles(variant))
                with pytest.raises(TenantGuardError):
                    async with variant.connect() as connection:
                        await connection.execute(text(RAW))
