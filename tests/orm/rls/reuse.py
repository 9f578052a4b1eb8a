"""``python -m tests.orm.rls.reuse``: one pool's connections go from tenant to tenant, 100,000 times.

Concurrent tasks of many tenants share a few connections. Each transaction counts, without a predicate of the barrier, the
rows that PostgreSQL shows; a row of another tenant, or a missing one, ends it with 1.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Column, Integer, MetaData, String, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard import allow_raw, bind, service_identity
from tenantguard.orm import tenant_key
from tests.orm.rls.lab import made_lab
from tests.support.postgres_server import postgres_server

__all__ = ["TENANTS", "metadata", "reuse", "rows"]

TENANTS = 40
metadata = MetaData()
Table(
    "entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant_id", String(20), nullable=False, index=True, info=tenant_key()),
)
SEEN = text("SELECT min(tenant_id), max(tenant_id), count(*) FROM entries")


def rows() -> str:
    """Three rows of each tenant."""
    return f"INSERT INTO entries (tenant_id) SELECT 't' || n % {TENANTS} FROM generate_series(1, {3 * TENANTS}) AS n"


async def reuse(engine: AsyncEngine, times: int, *, tasks: int = 16, done: Callable[[], object] = lambda: None) -> None:
    """Have concurrent tasks take turns at an engine's connections, each time as another tenant.

    Args:
        engine: a protected engine whose transactions are guarded.
        times: how many transactions in all.
        tasks: how many at once.
        done: is called after each.

    Raises:
        AssertionError: a transaction saw other rows than its tenant's.
    """
    numbers = iter(range(times))

    async def work() -> None:
        for number in numbers:
            tenant = f"t{number % TENANTS}"
            with bind(service_identity("reuse", tenant=tenant)), allow_raw("to see what PostgreSQL does by itself"):
                async with engine.connect() as connection:
                    seen: Any = (await connection.execute(SEEN)).one()
                    assert tuple(seen) == (tenant, tenant, 3), (number, tuple(seen))
            done()

    await asyncio.gather(*(work() for _ in range(tasks)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.orm.rls.reuse", description=__doc__)
    parser.add_argument("--times", type=int, default=100_000, metavar="N", help="transactions (default: 100000)")
    parser.add_argument("--driver", choices=("asyncpg", "psycopg"), default="asyncpg", help="default: asyncpg")
    options = parser.parse_args()
    console = Console(stderr=True)
    with postgres_server() as url, made_lab(url, metadata) as lab:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(rows())
        engine = lab.async_engine(options.driver, pool_size=4, max_overflow=0)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        begin = time.monotonic()
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("transactions", total=options.times)

            async def run() -> None:
                await reuse(engine, options.times, done=lambda: progress.advance(bar))
                await engine.dispose()

            try:
                asyncio.run(run())
            except AssertionError as error:
                console.print(f"A crossing: {error}")
                return 1
        seconds = time.monotonic() - begin
        console.print(
            f"{options.times} transactions of {TENANTS} tenants over 4 connections: no crossing. {seconds:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
