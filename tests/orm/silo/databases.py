"""Two databases under one protected engine: a's rows alone, and a's rows with b's beside them.

One engine serves both, so that they share its compiled statements as the tenants of an app do. Every program starts on
the seeded rows: on SQLite they are copied back into memory, on PostgreSQL the whole program is rolled back.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from tenantguard import bind, system
from tenantguard.identity import Identity
from tenantguard.orm import protect
from tests.orm.silo.world import CANARY, TABLES, Base, seed

__all__ = ["ALONE", "BESIDE", "Databases", "Rows", "postgresql", "sqlite"]

ALONE, BESIDE = "alone", "beside"
Rows = dict[str, list[tuple[Any, ...]]]
_TENANT_KEYS: Final = ("tenant_id", "org")


class Databases:
    """The two databases.

    Args:
        engine: the protected engine.
        connections: an open connection of it to each database.
        raw: the driver's own connection of each, for looks that no barrier stands in the way of.
    """

    dialect: str

    def __init__(self, engine: Engine, connections: dict[str, Connection], raw: dict[str, Any]) -> None:
        self.engine = engine
        self.connections = connections
        self.raw = raw
        self.dialect = engine.dialect.name
        for name, connection in connections.items():
            with system("look at the driver's connection"):
                own = connection.connection.dbapi_connection
            assert own is raw[name], "each connection leads to its own database"

    @contextmanager
    def session(self, name: str, identity: Identity) -> Iterator[Session]:
        """A session on one of the databases, in which everything is undone when the block ends."""
        raise NotImplementedError

    def rows(self, name: str) -> Rows:
        """All rows of all tables, read without the barrier. To be called within `session`."""
        raise NotImplementedError


def split(rows: Rows) -> tuple[Rows, Rows]:
    """Return a's rows with those that all share, and b's rows."""
    own: Rows = {}
    foreign: Rows = {}
    for name, table in rows.items():
        keys = list(TABLES[name].columns.keys())
        at = next((keys.index(key) for key in _TENANT_KEYS if key in keys), None)
        if at is None:
            at = next((keys.index(key) for key in ("document_uid", "uid") if key in keys), None)
        own[name], foreign[name] = [], []
        for row in table:
            of_b = at is not None and (row[at] == "b" or str(row[at]).startswith(CANARY))
            (foreign if of_b else own)[name].append(row)
    return own, foreign


class SQLite(Databases):
    """Two databases in memory, and a seeded copy of each."""

    def __init__(self, engine: Engine, connections: dict[str, Connection], raw: dict[str, Any], seeded: dict[str, Any]):
        super().__init__(engine, connections, raw)
        self._seeded = seeded

    @contextmanager
    def session(self, name: str, identity: Identity) -> Iterator[Session]:
        """A session whose commits are real."""
        raw = self.raw[name]
        before = raw.total_changes
        with bind(identity), Session(self.connections[name]) as db:
            yield db
        if raw.total_changes != before:
            self._seeded[name].backup(raw)

    def rows(self, name: str) -> Rows:
        return {table: self.raw[name].execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


class PostgreSQL(Databases):
    """Two schemas. A program's own transactions are savepoints of one that is rolled back."""

    _all_rows: Final = " UNION ALL ".join(f"SELECT '{name}', row_to_json(t)::text FROM {name} AS t" for name in TABLES)

    @contextmanager
    def session(self, name: str, identity: Identity) -> Iterator[Session]:
        """A session within a transaction that is rolled back."""
        connection = self.connections[name]
        with bind(identity), connection.begin() as transaction:
            with Session(connection, join_transaction_mode="create_savepoint") as db:
                yield db
            transaction.rollback()

    def rows(self, name: str) -> Rows:
        found: Rows = {table: [] for table in TABLES}
        for table, text in self.raw[name].execute(self._all_rows, prepare=True).fetchall():
            found[table].append(tuple(psycopg.types.json.json.loads(text).values()))
        return found


def _seed(url: str, raw: Any, *, with_b: bool) -> None:
    with system("seed the silo"), create_engine(url, creator=lambda: raw).begin() as connection:
        seed(connection, with_b=with_b)


@contextmanager
def sqlite() -> Iterator[Databases]:
    """Make both databases in memory."""
    with ExitStack() as stack:
        seeded, raw = ({name: _sqlite_connection(stack) for name in (ALONE, BESIDE)} for _ in range(2))
        for name, connection in seeded.items():
            _seed("sqlite://", connection, with_b=name == BESIDE)
            connection.commit()
            connection.backup(raw[name])
        waiting = list(raw.values())
        options: dict[str, Any] = {"creator": lambda: waiting.pop(0), "poolclass": QueuePool}
        engine = protect(create_engine("sqlite://", enable_from_linting=False, **options), metadata=Base.metadata)
        # The driver begins no transaction before a SAVEPOINT; SQLAlchemy's advice is to do it oneself.
        event.listen(engine, "begin", _begin)
        connections = {name: stack.enter_context(engine.connect()) for name in raw}
        yield SQLite(engine, connections, raw, seeded)


def _begin(connection: Connection) -> None:
    with system("begin"):
        connection.connection.dbapi_connection.execute("BEGIN")  # type: ignore[union-attr]


def _sqlite_connection(stack: ExitStack) -> sqlite3.Connection:
    connection = stack.enter_context(
        closing(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None))
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def postgresql(url: str) -> Iterator[Databases]:
    """Make both as schemas of an empty database.

    Args:
        url: of the database, without a driver in it.
    """
    options = "-c jit=off -c synchronous_commit=off -c statement_timeout=5000 -c lock_timeout=5000 -c search_path="
    with ExitStack() as stack:
        raw = {
            name: stack.enter_context(closing(psycopg.connect(url, options=f"{options}{name}")))
            for name in (ALONE, BESIDE)
        }
        for name, connection in raw.items():
            connection.execute(f"CREATE SCHEMA {name}")
            connection.commit()
            _seed("postgresql+psycopg://", connection, with_b=name == BESIDE)
        waiting = list(raw.values())
        engine = protect(
            create_engine("postgresql+psycopg://", creator=lambda: waiting.pop(0), enable_from_linting=False),
            metadata=Base.metadata,
        )
        connections = {name: stack.enter_context(engine.connect()) for name in raw}
        yield PostgreSQL(engine, connections, raw)
