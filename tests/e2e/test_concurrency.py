"""A thousand requests of fifty tenants at once, on one process, in every way in which an app runs code."""

import resource
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantguard import (
    Issuer,
    TenantGuard,
    TenantGuardMiddleware,
    bind,
    current_identity,
    current_tenant,
    requires,
    system,
)
from tenantguard.identity import service_identity
from tenantguard.orm import TenantOwned
from tenantguard.testing import DevIssuer
from tests.support.server import serve, serve_issuer

TENANTS = [f"tenant-{number}" for number in range(50)]
KINDS = ["async", "sync", "stream", "background", "thread"]
EACH = 4
"""Requests of each tenant and kind: 50 tenants, 5 kinds, 4 times each make 1,000."""


class Base(DeclarativeBase):
    pass


class Note(TenantOwned, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    kind: Mapped[str]


def build_app(issuer: DevIssuer, url: str) -> FastAPI:
    guard = TenantGuard(issuers=[Issuer(issuer.url, audience="notes", allow_private_addresses=True)])
    async_engine = create_async_engine(
        url.replace("sqlite:", "sqlite+aiosqlite:"),
        pool_size=20,
        max_overflow=0,
        pool_timeout=60,
        connect_args={"timeout": 60},
    )
    sync_engine = create_engine(url, pool_size=20, max_overflow=0, pool_timeout=60)
    sessions = guard.async_sessionmaker(async_engine, metadata=Base.metadata)
    sync_sessions = guard.sessionmaker(sync_engine, metadata=Base.metadata)
    with system("create the test's tables"):
        Base.metadata.create_all(sync_engine)
    for tenant in TENANTS:
        with bind(service_identity("seed", tenant=tenant)), sync_sessions() as db, db.begin():
            db.add_all([Note(text=f"{tenant}/{number}", kind="seed") for number in range(3)])

    app = FastAPI()
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    everything = select(Note.text).where(Note.kind == "seed")

    @app.get("/async")
    @requires("notes:read")
    async def asynchronous() -> list[str]:
        async with sessions() as db:
            await anyio.sleep(0.001)
            return list(await db.scalars(everything))

    @app.get("/sync")
    @requires("notes:read")
    def synchronous() -> list[str]:
        with sync_sessions() as db:
            return list(db.scalars(everything))

    @app.get("/thread")
    @requires("notes:read")
    async def thread() -> list[str]:
        return await anyio.to_thread.run_sync(synchronous)

    @app.get("/stream")
    @requires("notes:read")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async with sessions() as db:
                async for text in await db.stream_scalars(everything):
                    await anyio.sleep(0.001)
                    yield f"{text}\n"

        return StreamingResponse(lines())

    @app.get("/background")
    @requires("notes:read")
    async def background(later: BackgroundTasks) -> list[str]:
        asked_by = current_tenant().id

        async def write() -> None:
            await anyio.sleep(0.005)
            async with sessions() as db, db.begin():
                db.add(Note(text=f"{asked_by}/{current_identity().subject.id}", kind="background"))

        later.add_task(write)
        return [f"{asked_by}/x"]

    @app.get("/written")
    @requires("notes:read")
    async def written() -> list[str]:
        async with sessions() as db:
            return list(await db.scalars(select(Note.text).where(Note.kind == "background")))

    return app


@pytest.fixture
def more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("more_files")
def test_each_of_a_thousand_concurrent_requests_gets_rows_of_its_own_tenant_only(tmp_path) -> None:
    with serve_issuer() as issuer:
        app = build_app(issuer, f"sqlite:///{tmp_path / 'notes.db'}")
        tokens = {
            tenant: issuer.mint(subject=f"user-of-{tenant}", tenant=tenant, audience="notes", scopes="notes:read")
            for tenant in TENANTS
        }
        answers: list[tuple[str, str, int, list[str]]] = []

        async def ask(http: httpx2.AsyncClient, tenant: str, kind: str) -> None:
            response = await http.get(f"/{kind}", headers={"Authorization": f"Bearer {tokens[tenant]}"})
            rows = response.text.split() if kind == "stream" else response.json()
            answers.append((tenant, kind, response.status_code, rows))

        async def ask_all(app_url: str, kinds: list[str], times: int) -> None:
            limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=0)
            async with (
                httpx2.AsyncClient(base_url=app_url, limits=limits, timeout=60) as http,
                anyio.create_task_group() as tasks,
            ):
                for _ in range(times):
                    for kind in kinds:
                        for tenant in TENANTS:
                            tasks.start_soon(ask, http, tenant, kind)

        with serve(app) as app_url:
            anyio.run(ask_all, app_url, KINDS, EACH)
            assert len(answers) == 1000
            assert {status for _, _, status, _ in answers} == {200}
            for tenant, kind, _, rows in answers:
                assert rows, (tenant, kind)
                assert {row.split("/")[0] for row in rows} == {tenant}, (tenant, kind)
                assert len(rows) == (1 if kind == "background" else 3)

            deadline = time.monotonic() + 30
            while True:  # background work goes on after its response
                answers.clear()
                anyio.run(ask_all, app_url, ["written"], 1)
                for tenant, _, _, rows in answers:
                    assert set(rows) <= {f"{tenant}/user-of-{tenant}"}, tenant
                if all(len(rows) == EACH for _, _, _, rows in answers):
                    break
                assert time.monotonic() < deadline, "background work was lost"
                time.sleep(0.1)
