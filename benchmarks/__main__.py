"""``make bench``: the warm request path and a scoped query, against the same without tenantguard, in one run."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tenantguard import Issuer, TenantGuard, TenantGuardMiddleware, bind, service_identity, system
from tenantguard.orm import TenantOwned, protect
from tenantguard.testing import DevIssuer
from tenantguard.tokens import StaticKeys

ROUNDS, CALLS = 7, 2000


class Base(DeclarativeBase):
    pass


class Note(TenantOwned, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


async def hello(_request):
    return PlainTextResponse("hello")


def compare(runs: dict[str, Callable[[], None]]) -> list[tuple[str, float]]:
    """Return the median microseconds of one call of each; the rounds take turns, so that all see the same machine."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                run()
            samples[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return [(name, statistics.median(taken)) for name, taken in samples.items()]


def request_costs() -> list[tuple[str, float]]:
    """Measure a request to bare Starlette, and to the same app behind the middleware with a token seen before."""
    issuer = DevIssuer("http://127.0.0.1:9000", audience="api")
    guard = TenantGuard(issuers=[Issuer(issuer.url, audience="api", jwks=StaticKeys(issuer.jwks))], public=["/public"])
    routes = [Route("/", hello), Route("/public", hello)]
    bare, guarded = Starlette(routes=routes), Starlette(routes=routes)
    guarded.add_middleware(TenantGuardMiddleware, guard=guard)
    header = (b"authorization", b"Bearer " + issuer.mint(expires_in=3600).encode())

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message):
        return None

    def call(app: Starlette, path: str) -> Callable[[], None]:
        def run() -> None:
            scope = {
                "type": "http",
                "method": "GET",
                "path": path,
                "root_path": "",
                "query_string": b"",
                "headers": [header],
            }
            coroutine: Awaitable[None] = app(scope, receive, send)
            try:
                coroutine.send(None)  # type: ignore[attr-defined]
            except StopIteration:
                return
            raise RuntimeError("the request waited for something")

        return run

    async def warm() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "root_path": "",
            "query_string": b"",
            "headers": [header],
        }
        await guarded(scope, receive, send)

    asyncio.run(warm())
    return compare(
        {
            "bare Starlette": call(bare, "/"),
            "public path": call(guarded, "/public"),
            "token seen before": call(guarded, "/"),
        }
    )


def query_costs() -> list[tuple[str, float]]:
    """Measure a query with a handwritten filter, and the scoped one."""
    plain = create_engine("sqlite://", poolclass=StaticPool)
    scoped = protect(create_engine("sqlite://", poolclass=StaticPool))
    runs: dict[str, Callable[[], None]] = {}
    with bind(service_identity("bench", tenant="a")), ExitStack() as stack:
        for engine in (plain, scoped):
            with system("set up the benchmark"):
                Base.metadata.create_all(engine)
            with Session(engine) as db, db.begin():
                db.add_all([Note(text=str(number)) for number in range(50)])
            connection = stack.enter_context(engine.connect())
            statement = select(Note.__table__)
            if engine is plain:
                statement = statement.where(Note.tenant_id == "a")
            name = "50 rows, filter by hand" if engine is plain else "50 rows, scoped"
            runs[name] = lambda c=connection, s=statement: c.execute(s).all()
        return compare(runs)


def main() -> None:
    table = Table(title="What tenantguard costs")
    for column in ("what", "µs", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for costs in (request_costs(), query_costs()):
        base = costs[0][1]
        for name, cost in costs:
            table.add_row(name, f"{cost:.2f}", f"{cost / base:.2f}")
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
