"""Sessions, results and contexts between the tasks of an event loop, on aiosqlite and asyncpg."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

from tenantguard import bind, current_tenant, system
from tenantguard.errors import TenantGuardError
from tenantguard.orm import protect
from tests.orm.attacks.harness import FIRST_OF_B, A, Attack, B
from tests.orm.attacks.oddities import SIDE
from tests.orm.attacks.world import Base, Document, Folder, Label

PER_TWO = {"yield_per": 2}


DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mariadb": "asyncmy"}


def on_loop(attack: Callable[[AsyncEngine], Awaitable[Any]]) -> Attack:
    """Run a coroutine function with a protected async engine on the same database."""

    def run(db: Session) -> Any:
        url = db.get_bind().engine.url
        database = url.get_backend_name()
        engine = create_async_engine(url.set(drivername=f"{database}+{DRIVERS[database]}"))
        if url.drivername == "sqlite":

            @event.listens_for(engine.sync_engine, "connect")
            def attach(connection: Any, _record: Any) -> None:
                cursor = connection.cursor()
                cursor.execute(f"ATTACH '{str(url.database).replace('main.db', 'side.db')}' AS {SIDE}")
                cursor.execute("PRAGMA synchronous = OFF")
                cursor.close()

        protect(engine, metadata=Base.metadata)

        async def main() -> Any:
            try:
                async with asyncio.timeout(20):
                    return await attack(engine)
            finally:
                await engine.dispose()

        try:
            return asyncio.run(main())
        finally:
            gc.collect()  # greenlets that were left suspended end here, not in the middle of something else

    return run


async def titles(session: AsyncSession) -> list[str]:
    return list(await session.scalars(select(Document.title).order_by(Document.id)))


def in_turns(first: Callable[[AsyncSession], Awaitable[Any]], then: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    """Let a task of b's use a session, and then a's."""

    async def attack(engine: AsyncEngine) -> Any:
        async def of_b() -> Any:
            with bind(B):
                return await first(session)

        async with AsyncSession(engine, expire_on_commit=False) as session:
            await asyncio.create_task(of_b())
            return await then(session)

    return on_loop(attack)


async def load(session: AsyncSession) -> Any:
    return list(await session.scalars(select(Document)))


async def at_once(engine: AsyncEngine) -> Any:
    """Two tenants' tasks use one session at the same time; a's answers are returned."""
    seen: list[Any] = []

    async def use(identity: Any) -> None:
        with bind(identity):
            for _ in range(5):
                found = await titles(session)
                if current_tenant().id == "a":
                    seen.extend(found)
                await asyncio.sleep(0)

    async with AsyncSession(engine) as session:
        outcomes = await asyncio.gather(use(A), use(B), use(A), use(B), return_exceptions=True)
    return seen, [str(outcome) for outcome in outcomes]


async def at_once_on_a_connection(engine: AsyncEngine) -> Any:
    seen: list[Any] = []

    async def use(identity: Any) -> None:
        with bind(identity):
            for _ in range(5):
                found = (await connection.execute(select(Document.title))).scalars().all()
                if current_tenant().id == "a":
                    seen.extend(found)

    async with engine.connect() as connection:
        outcomes = await asyncio.gather(use(B), use(A), return_exceptions=True)
    return seen, [str(outcome) for outcome in outcomes]


def opened_by_b(start: Callable[[AsyncSession], Awaitable[Any]], read: Callable[[Any], Awaitable[Any]]) -> Attack:
    async def attack(engine: AsyncEngine) -> Any:
        async with AsyncSession(engine) as session:
            with bind(B):
                kept = await start(session)
            try:
                return await read(kept)
            finally:
                if hasattr(kept, "close"):
                    await kept.close()

    return on_loop(attack)


async def one_read(result: Any) -> Any:
    await result.fetchone()
    return result


async def streamed(session: AsyncSession) -> Any:
    return await one_read(await session.stream(select(Document), execution_options=PER_TWO))


async def _generated(session: AsyncSession) -> Any:
    async def generate() -> Any:
        async for document in await session.stream_scalars(select(Document)):
            yield document.title

    iterator = generate()
    await anext(iterator)
    return iterator


async def after_the_block(engine: AsyncEngine) -> Any:
    gate = asyncio.Event()

    async def work() -> Any:
        await gate.wait()
        async with AsyncSession(engine) as session:
            return (await session.execute(text("SELECT title FROM documents"))).all()

    with system("start a task"):
        task = asyncio.create_task(work())
    gate.set()
    return await task


async def after_the_block_scoped(engine: AsyncEngine) -> Any:
    gate = asyncio.Event()

    async def work() -> Any:
        await gate.wait()
        async with AsyncSession(engine) as session:
            return await titles(session)

    async with system("start a task"):
        task = asyncio.create_task(work())
    gate.set()
    return await task


async def callback_of_the_block(engine: AsyncEngine) -> Any:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    async def work() -> None:
        try:
            async with AsyncSession(engine) as session:
                found = await titles(session)
        except TenantGuardError as error:
            done.set_exception(error)
        else:
            done.set_result(found)

    with system("schedule"):
        context = copy_context()
    loop.call_soon(lambda: loop.create_task(work(), context=context), context=context)
    return await done


async def bare_executor(engine: AsyncEngine) -> Any:
    def work() -> Any:
        return asyncio.run(read())

    async def read() -> Any:
        other = protect(create_async_engine(engine.url), metadata=Base.metadata)
        try:
            async with AsyncSession(other) as session:
                return await titles(session)
        finally:
            await other.dispose()

    return await asyncio.get_running_loop().run_in_executor(None, work)


async def scoped_by_one(engine: AsyncEngine) -> Any:
    registry = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    try:
        with bind(B):
            await load(registry())
        return await registry.get(Document, FIRST_OF_B), list(await registry.scalars(select(Document)))
    finally:
        await registry.remove()


async def held_by_a_generator(engine: AsyncEngine) -> Any:
    async def generate() -> Any:
        with bind(B):
            yield None

    iterator = generate()
    await anext(iterator)
    try:
        async with AsyncSession(engine) as session:
            return await titles(session)
    finally:
        await iterator.aclose()


async def bound_around_a_task_group(engine: AsyncEngine) -> Any:
    async def read() -> Any:
        async with AsyncSession(engine) as session:
            return await titles(session)

    async with asyncio.TaskGroup() as group:
        with bind(B):
            group.create_task(read())
        mine = group.create_task(read())
    return mine.result()


ATTACKS: dict[str, Attack] = {
    "a session of b's task: get": in_turns(load, lambda s: s.get(Document, FIRST_OF_B)),
    "a session of b's task: get_one": in_turns(load, lambda s: s.get_one(Document, FIRST_OF_B)),
    "a session of b's task: select": in_turns(load, titles),
    "a session of b's task: after commit": in_turns(lambda s: _then(load(s), s.commit()), titles),
    "a session of b's task: after commit, get": in_turns(
        lambda s: _then(load(s), s.commit()), lambda s: s.get(Document, FIRST_OF_B)
    ),
    "a session of b's task: run_sync": in_turns(
        load, lambda s: s.run_sync(lambda sync: [d.title for d in sync.scalars(select(Document))])
    ),
    "a session of b's task: refresh": in_turns(
        load, lambda s: s.refresh(next(iter(s.sync_session.identity_map._dict.values())).obj())
    ),
    "a session of b's task: add": in_turns(load, lambda s: _added(s)),
    "a session of b's task: connection": in_turns(load, lambda s: _on_connection(s)),
    "a session of b's task: savepoint": in_turns(load, lambda s: _in_savepoint(s)),
    "two tenants at once in a session": on_loop(at_once),
    "two tenants at once on a connection": on_loop(at_once_on_a_connection),
    "a stream of b's: one": opened_by_b(streamed, lambda r: r.fetchone()),
    "a stream of b's: all": opened_by_b(streamed, lambda r: r.all()),
    "a stream of b's: many": opened_by_b(streamed, lambda r: r.fetchmany(1)),
    "a stream of b's: scalars": opened_by_b(
        lambda s: _first(s.stream_scalars(select(Document), execution_options=PER_TWO)), lambda r: r.all()
    ),
    "a stream of b's: of columns": opened_by_b(lambda s: _first(s.stream(select(Document.title))), lambda r: r.all()),
    "a stream of b's: partitions": opened_by_b(
        lambda s: s.stream(select(Document), execution_options=PER_TWO), lambda r: _parts(r)
    ),
    "a stream of b's: frozen": opened_by_b(lambda s: _frozen(s), lambda frozen: _called(frozen)),
    "a generator of b's": opened_by_b(_generated, lambda g: anext(g)),
    "a task that outlives its system block": on_loop(after_the_block),
    "a task that outlives its system block, scoped": on_loop(after_the_block_scoped),
    "a callback of a system block": on_loop(callback_of_the_block),
    "an executor without context": on_loop(bare_executor),
    "one scoped session for all tasks": on_loop(scoped_by_one),
    "a block of b's that an async generator holds open": on_loop(held_by_a_generator),
    "a task group in which b's task was started": on_loop(bound_around_a_task_group),
}


async def _then(first: Awaitable[Any], then: Awaitable[Any]) -> Any:
    found = await first
    await then
    return found


async def _first(result: Awaitable[Any]) -> Any:
    opened = await result
    await opened.first() if not hasattr(opened, "fetchmany") else await opened.fetchmany(1)
    return opened


async def _parts(result: Any) -> Any:
    return [part async for part in result.partitions(2)]


async def _frozen(session: AsyncSession) -> Any:
    return await (await session.stream(select(Document.title))).freeze()


async def _called(frozen: Any) -> Any:
    return frozen().all()


async def _added(session: AsyncSession) -> None:
    session.add(Label(id=50, name="x"))
    await session.commit()


async def _on_connection(session: AsyncSession) -> Any:
    return (await (await session.connection()).execute(select(Document.title))).all()


async def _in_savepoint(session: AsyncSession) -> Any:
    async with session.begin_nested():
        return await titles(session)


async def interleaved(engine: AsyncEngine) -> Any:
    """Many tasks of two tenants, each with a session of its own."""

    async def use(identity: Any) -> set[str]:
        seen: set[str] = set()
        with bind(identity):
            for _ in range(5):
                async with AsyncSession(engine) as session:
                    seen |= set(await session.scalars(select(Document.tenant_id)))
                    await asyncio.sleep(0)
                    folder = (await session.scalars(select(Folder))).first()
                    assert folder is not None
                    seen.add(folder.tenant_id)
        return seen

    found = await asyncio.gather(*(use(identity) for identity in (A, B) * 4))
    return [sorted("B" if tenant == "b" else tenant for tenant in one) for one in found[:2]] + [len(found)]


async def streamed_to_the_end(engine: AsyncEngine) -> Any:
    async with AsyncSession(engine) as session:
        count = 0
        async for _ in await session.stream_scalars(select(Document), execution_options=PER_TWO):
            count += 1
        return count, await session.scalar(select(func.count()).select_from(Document))


async def in_a_thread(engine: AsyncEngine) -> Any:
    return await asyncio.to_thread(lambda: current_tenant().id)


OWN: dict[str, tuple[Attack, Any]] = {
    "interleaved tasks": (on_loop(interleaved), [["a"], ["B"], 8]),
    "a stream": (on_loop(streamed_to_the_end), (5, 5)),
    "a thread": (on_loop(in_a_thread), "a"),
}
