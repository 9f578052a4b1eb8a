"""The verdict on an attack: a function that runs as tenant a against a database that holds tenant b's rows as well.

B's rows are canaries: every text of theirs begins with ``B-CANARY``, and every number is 900,000 or more, so that they
are the greatest of all. An attack has leaked if a canary, or a count that includes one, comes back or stands in the
text of an error; or if afterwards a row of B's is changed, moved or gone, a row of A's stands in B, or a key of A's
points to B's. It may be scoped or refused, by the barrier or by the database, but not end in a fault of the barrier's
own. What it changed is put back before the next one.
"""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateSchema

from tenantguard import bind, service_identity, system
from tenantguard.errors import TenantGuardError
from tenantguard.orm import protect
from tests.orm.attacks.oddities import SIDE, Region, featured, refused_rows_of, rows_of
from tests.orm.attacks.world import Base, Comment, Country, Document, Folder, Label, Memo, Report

__all__ = ["A", "Attack", "B", "engine_of", "seed", "snapshot", "verdict"]

A, B = (service_identity("attack", tenant=tenant) for tenant in ("a", "b"))
CANARY = "B-CANARY"
FIRST_OF_B = 900_000
Attack = Callable[[Session], Any]
Rows = dict[str, list[tuple[Any, ...]]]

_seeded: WeakKeyDictionary[Engine, Rows] = WeakKeyDictionary()


def engine_of(request: pytest.FixtureRequest, database: str, directory: Path | None = None) -> Engine:
    """Return a protected and seeded engine, for a fixture of module scope.

    Args:
        request: the fixture's.
        database: one of `tests.support.engines.DATABASES`.
        directory: for an SQLite database in files, with a pool of connections; in memory, with one, without.
    """
    if database == "postgresql":
        url: str = request.getfixturevalue("postgres_module_url")
        made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    elif database == "mariadb":
        url = request.getfixturevalue("mariadb_module_url")
        made = create_engine(url.replace("mariadb://", "mariadb+pymysql://"))
    else:
        if directory is None:
            made, side = create_engine("sqlite://", poolclass=StaticPool), ":memory:"
        else:
            made = create_engine(f"sqlite:///{directory}/main.db", connect_args={"timeout": 0.2}, pool_size=20)
            side = f"{directory}/side.db"

        @event.listens_for(made, "connect")
        def attach(connection: Any, _record: Any) -> None:
            connection.execute(f"ATTACH '{side}' AS {SIDE}")
            connection.execute("PRAGMA synchronous = OFF")  # of all attached: nothing here outlives the test

    protect(made, metadata=Base.metadata)
    seed(made)
    return made


def seed(engine: Engine) -> None:
    """Make the tables and the rows of both tenants: three documents, a memo and a report each, and an oddity of each kind."""
    with system("create the attacks' tables"):
        with engine.begin() as connection:
            if engine.dialect.name == "mariadb":  # where a schema is a database of the server
                connection.execute(text(f"DROP DATABASE IF EXISTS {SIDE}"))
            if engine.dialect.name != "sqlite":
                connection.execute(CreateSchema(SIDE, if_not_exists=True))
        Base.metadata.create_all(engine)
        with Session(engine) as db, db.begin():
            db.add_all([Country(code="NZ"), Region(code="north")])
    for identity, name, first in ((A, "A", 1), (B, CANARY, FIRST_OF_B)):
        with bind(identity), Session(engine) as db, db.begin():
            label = Label(id=first, name=f"{name}-label")
            folder = Folder(id=first, name=f"{name}-folder")
            child = Folder(id=first + 1, name=f"{name}-child", parent=folder)
            db.add_all([folder, child, label])
            for number in range(3):
                db.add(
                    Document(
                        id=first + number,
                        title=f"{name}-document-{number}",
                        size=first + number,
                        folder=folder,
                        labels=[label],
                        comments=[Comment(id=first + number, text=f"{name}-comment-{number}")],
                    )
                )
            db.add(Memo(id=first + 10, title=f"{name}-memo", size=first + 10, folder=child))
            db.add(Report(id=first + 11, title=f"{name}-report", size=first + 11, pages=first + 11))
            db.flush()
            db.add_all(rows_of(name, first))
            db.execute(featured.insert().values(id=first, folder_id=first))
    with system("rows that tenants may not write"), Session(engine) as db, db.begin():
        db.add_all([*refused_rows_of("A", "a", 1), *refused_rows_of(CANARY, "b", FIRST_OF_B)])
    _seeded[engine] = snapshot(engine)


def snapshot(engine: Engine) -> Rows:
    """Return all rows of all tables, as the driver gives them."""
    tables = {
        name: engine.dialect.identifier_preparer.format_table(table) for name, table in Base.metadata.tables.items()
    }
    with system("look at all rows"), engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if engine.dialect.name == "mariadb":
            with driver.cursor() as cursor:
                return {name: _all_rows(cursor, table) for name, table in tables.items()}
        if engine.dialect.name != "postgresql":
            return {name: sorted(driver.execute(f"SELECT * FROM {table}"), key=repr) for name, table in tables.items()}
        found: Rows = {name: [] for name in tables}
        parts = [f"SELECT '{name}', row_to_json(t)::text FROM {table} AS t" for name, table in tables.items()]
        for name, row in driver.execute(" UNION ALL ".join(parts)):
            found[name].append(tuple(json.loads(row).values()))
        return {name: sorted(rows, key=repr) for name, rows in found.items()}


def _all_rows(cursor: Any, table: str) -> list[tuple[Any, ...]]:
    cursor.execute(f"SELECT * FROM {table}")
    return sorted(cursor.fetchall(), key=repr)


def _restore(engine: Engine, now: Rows) -> None:
    changed = [name for name, rows in _seeded[engine].items() if rows != now[name]]
    if not changed:
        return
    with system("put the rows back"), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        if engine.dialect.name == "mariadb":
            connection.execute(text("SET SESSION foreign_key_checks = 0"))
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA foreign_keys = OFF"))
        for name in changed:
            table = Base.metadata.tables[name]
            connection.execute(table.delete())
            if rows := _seeded[engine][name]:
                keys = table.columns.keys()
                connection.execute(table.insert(), [dict(zip(keys, row, strict=True)) for row in rows])
        if engine.dialect.name == "mariadb":
            connection.execute(text("SET SESSION foreign_key_checks = 1"))
    if engine.dialect.name == "sqlite":  # which heeds the setting between transactions alone
        with system("hold foreign keys again"), engine.connect() as connection:
            connection.execute(text("PRAGMA foreign_keys = ON"))


def _of_b(rows: Rows) -> Rows:
    return {name: [row for row in table if _is_canary(row)] for name, table in rows.items()}


def _is_canary(value: Any) -> bool:
    if isinstance(value, str):
        return CANARY in value or value == "b"
    if isinstance(value, bool | float | None.__class__):
        return False
    if isinstance(value, int):
        return value >= FIRST_OF_B
    if isinstance(value, bytes):
        return CANARY.encode() in value
    if isinstance(value, Engine | Session):
        return False
    if hasattr(value, "_sa_instance_state"):
        return any(_is_canary(part) for name, part in vars(value).items() if name != "_sa_instance_state")
    if isinstance(value, dict):
        return any(_is_canary(part) for part in (*value.keys(), *value.values()))
    try:
        return any(_is_canary(part) for part in value)
    except TypeError:
        return CANARY in repr(value)


def _is_a_fault(error: BaseException) -> bool:
    """True if the barrier's own code failed, instead of refusing."""
    if isinstance(error, DBAPIError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    name = str(frame.f_globals.get("__name__", ""))
    return name.startswith("tenantguard.") or (error.__cause__ is not None and _is_a_fault(error.__cause__))


def verdict(engine: Engine, attack: Attack, *, own: Any = None, keeper: Engine | None = None) -> str:
    """Run an attack and return ``"scoped"``, ``"refused"``, ``"leaked: ..."`` or ``"broken: ..."``.

    Args:
        engine: the engine that is attacked.
        attack: what to run, as tenant a; its result is looked at.
        own: what the result is for a alone, where that matters.
        keeper: the protected engine that was seeded, where the one that is attacked could not look at all rows.
    """
    keeper = keeper or engine
    outcome = "scoped"
    with bind(A), Session(engine) as db:
        try:
            result = attack(db)
            if isinstance(result, int) and not isinstance(result, bool) and own is not None and result != own:
                outcome = f"leaked: {result} instead of {own}"
            elif _is_canary(result):
                outcome = f"leaked: {result!r}"
            elif own is not None and result != own:
                outcome = f"broken: {result!r} instead of {own!r}"
            db.commit()
        except TenantGuardError as error:
            outcome = "refused" if not _is_canary(str(error)) else f"leaked: {error}"
        except Exception as error:  # noqa: BLE001 - others refuse as well; what they say is looked at
            outcome = "refused" if CANARY not in str(error) else f"leaked: {error}"
            outcome = f"broken: {error!r}" if _is_a_fault(error) else f"{outcome} ({type(error).__name__})"
        finally:
            db.rollback()
    before, after = _seeded[keeper], snapshot(keeper)
    _restore(keeper, after)
    if _of_b(before) != _of_b(after):
        changed = {name: rows for name, rows in _of_b(after).items() if rows != _of_b(before)[name]}
        return f"leaked: rows of b are now {changed!r}"
    return outcome
