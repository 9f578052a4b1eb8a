"""Export, erase, restore: the same rows again, and those of others untouched, byte for byte."""

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.types import UserDefinedType

from tenantguard.errors import ConfigurationError, PlacementError
from tenantguard.orm import tenant_key
from tenantguard.orm.placement import (
    SHARED,
    Databases,
    Placement,
    TenantRecord,
    create_tenant,
    erase_tenant,
    export_tenant,
    own_database,
    own_schema,
    read_export,
    restore_tenant,
)
from tenantguard.orm.placement.rows import TablePlan
from tests.orm.placement.conftest import Lab, as_tenant, lab_on
from tests.orm.placement.filling import everything, fill, fill_placed
from tests.orm.placement.models import Base, Note


@pytest.fixture
def two(sqlite_lab: Lab) -> Lab:
    for number, tenant in enumerate("ab"):
        create_tenant(sqlite_lab.directory, sqlite_lab.databases, tenant)
        fill(sqlite_lab, tenant, 1000 * number + 1)
    return sqlite_lab


def test_what_was_exported_and_erased_is_there_again_when_it_is_restored(two: Lab, tmp_path: Path) -> None:
    before = everything(two)
    others = everything(two, without="a")
    exported = export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    assert everything(two) == before
    assert next(table.table for table in exported.tables) == "folders"
    assert {table.table: table.rows for table in exported.tables} == {
        "folders": 2,
        "notes": 6,
        "lines": 3,
        "templates": 1,
    }
    erase_tenant(two.directory, two.databases, "a", grace=0.0)
    assert everything(two) == others
    restored = restore_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    assert restored == exported
    assert everything(two) == before


@pytest.mark.parametrize("placement", [SHARED, own_schema("a"), own_database("a")])
def test_the_same_on_postgresql_in_every_kind_of_place(postgres_lab: Lab, tmp_path: Path, placement: Placement) -> None:
    create_tenant(postgres_lab.directory, postgres_lab.databases, "b")
    fill_placed(postgres_lab, "b", 1000)
    create_tenant(postgres_lab.directory, postgres_lab.databases, "a", placement=placement)
    fill_placed(postgres_lab, "a", 1, placement)
    before = everything(postgres_lab), everything(postgres_lab, placement)
    export_tenant(postgres_lab.databases, postgres_lab.directory.read("a"), tmp_path / "export")
    erase_tenant(postgres_lab.directory, postgres_lab.databases, "a", grace=0.0)
    assert everything(postgres_lab, placement)["orders"] == (
        [] if not placement.is_shared else everything(postgres_lab, without="a")["orders"]
    )
    restore_tenant(postgres_lab.databases, postgres_lab.directory.read("a"), tmp_path / "export")
    assert (everything(postgres_lab), everything(postgres_lab, placement)) == before


@pytest.fixture
def odd_lab(postgres_url: str) -> Any:
    """The models with a tree, a circle and odd types, on PostgreSQL."""
    with lab_on(postgres_url) as lab:
        odd = Lab(lab.directory, Databases(Base.metadata, shared=lab.databases.shared_url), lab.apps)
        engine = create_engine(lab.databases.shared_url)
        Base.metadata.create_all(engine)
        yield odd
        Base.metadata.drop_all(engine)
        engine.dispose()


def test_trees_circles_and_odd_types_survive_on_postgresql(odd_lab: Lab, tmp_path: Path) -> None:
    for number, tenant in enumerate("ab"):
        create_tenant(odd_lab.directory, odd_lab.databases, tenant)
        fill(odd_lab, tenant, 1000 * number + 1)

    def rows() -> list[str]:
        engine = create_engine(odd_lab.databases.shared_url)
        with engine.connect() as connection:
            found = [
                repr([bytes(v) if isinstance(v, memoryview) else v for v in row])
                for table in Base.metadata.tables
                for row in connection.exec_driver_sql(
                    f"SELECT t.*, extra::text, extra IS NULL FROM {table} t ORDER BY id"
                    if table == "notes"
                    else f"SELECT * FROM {table} ORDER BY id"
                )
            ]
        engine.dispose()
        return found

    before = rows()
    export_tenant(odd_lab.databases, odd_lab.directory.read("a"), tmp_path / "export")
    erase_tenant(odd_lab.directory, odd_lab.databases, "a", grace=0.0)
    assert len(rows()) == len(before) - 12
    restore_tenant(odd_lab.databases, odd_lab.directory.read("a"), tmp_path / "export")
    assert rows() == before


def test_the_files_are_lines_of_json_that_only_their_owner_reads(two: Lab, tmp_path: Path) -> None:
    export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    files = sorted(path.name for path in (tmp_path / "export").iterdir())
    assert files[-1] == "manifest.json"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "export").iterdir())
    assert stat.S_IMODE((tmp_path / "export").stat().st_mode) == 0o700
    (notes,) = [path for path in (tmp_path / "export").iterdir() if "notes" in path.name]
    rows = [json.loads(line) for line in notes.read_bytes().splitlines()]
    assert {row["tenant_id"] for row in rows} == {"a"}
    assert rows[0]["secret"] == "emases nepo"  # as it stands in the database, not as the app sees it
    assert rows[0]["size"] == {"$": "decimal", "v": "1.500"}
    assert "b \N{SNOWMAN}" not in notes.read_text()


def test_rows_for_everybody_are_nobodys_to_take(two: Lab, tmp_path: Path) -> None:
    export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    (templates,) = [path for path in (tmp_path / "export").iterdir() if "templates" in path.name]
    assert [json.loads(line)["text"] for line in templates.read_text().splitlines()] == ["own of a"]


def test_an_export_shows_one_moment(odd_lab: Lab, tmp_path: Path) -> None:
    """Somebody writes while it is made: neither a part of that is in it, nor a line without its note."""
    create_tenant(odd_lab.directory, odd_lab.databases, "a")
    fill(odd_lab, "a", 1)
    told: list[str] = []

    def write_meanwhile(what: str, done: int, total: int) -> None:
        told.append(what)
        if what == "export lines":
            with odd_lab.databases.bare_connection(SHARED) as connection:
                connection.execute(text("INSERT INTO notes (id, title, tenant_id) VALUES (77, 'too-late', 'a')"))
                connection.execute(text("INSERT INTO lines (id, note_id, number, text) VALUES (77, 77, 1, 'too-late')"))
                connection.commit()

    exported = export_tenant(odd_lab.databases, odd_lab.directory.read("a"), tmp_path / "export", tell=write_meanwhile)
    assert "export lines" in told
    assert exported.rows == 12
    assert "too-late" not in "".join(path.read_text() for path in (tmp_path / "export").iterdir())


def _first_file(directory: Path) -> Path:
    return next(path for path in sorted(directory.iterdir()) if "notes" in path.name)


def _cut(directory: Path) -> None:
    file = _first_file(directory)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def _change(directory: Path) -> None:
    file = _first_file(directory)
    file.write_bytes(file.read_bytes().replace(b"empty", b"EMPTY"))


def _manifest(directory: Path, **changes: Any) -> None:
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "not the one that was exported"),
        (_change, "not the one that was exported"),
        (lambda d: _first_file(d).unlink(), "not the one that was exported"),
        (lambda d: (d / "manifest.json").unlink(), "not whole"),
        (lambda d: (d / "manifest.json").write_text("{"), "can't be read"),
        (lambda d: _manifest(d, format="x/2"), "another format"),
        (lambda d: _manifest(d, tables=[]), "other tables"),
        (lambda d: _manifest(d, tenant="b"), "another tenant"),
    ],
)
def test_an_export_that_is_not_whole_is_not_restored(two: Lab, tmp_path: Path, spoil: Any, said: str) -> None:
    export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    erase_tenant(two.directory, two.databases, "a", grace=0.0)
    before = everything(two)
    spoil(tmp_path / "export")
    with pytest.raises(PlacementError, match=said):
        restore_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    assert everything(two) == before


def _forge(directory: Path, old: bytes, new: bytes) -> None:
    """Change a file, and the manifest with it."""
    import hashlib

    file = _first_file(directory)
    file.write_bytes(file.read_bytes().replace(old, new))
    manifest = json.loads((directory / "manifest.json").read_text())
    for table in manifest["tables"]:
        if table["table"] == "notes":
            table["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"tenant_id":"a"', b'"tenant_id":"b"', "another tenant than the bound one"),
        (b'"folder_id":2', b'"folder_id":1002', "does not exist for the bound tenant|foreign key"),
        (b'"empty"', b'"EMPTY"', "not what was exported"),
        (b'"ratio":', b'"other":', "other columns"),
        (b'"$":"uuid"', b'"$":"pickle"', "tag that is not known"),
    ],
)
def test_a_forged_export_writes_nothing_for_others(two: Lab, tmp_path: Path, old: bytes, new: bytes, said: str) -> None:
    from tenantguard.errors import TenantGuardError

    export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    erase_tenant(two.directory, two.databases, "a", grace=0.0)
    before = everything(two)
    _forge(tmp_path / "export", old, new)
    with pytest.raises(TenantGuardError, match=said):
        restore_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    assert everything(two) == before


def test_a_tenant_with_rows_is_not_restored_over(two: Lab, tmp_path: Path) -> None:
    export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    before = everything(two)
    with pytest.raises(PlacementError, match="has rows already"):
        restore_tenant(two.databases, two.directory.read("a"), tmp_path / "export")
    assert everything(two) == before
    assert read_export(tmp_path / "export", two.databases).rows == 12


def test_nothing_is_written_over(two: Lab, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "kept").write_text("x")
    with pytest.raises(PlacementError, match="not empty"):
        export_tenant(two.databases, two.directory.read("a"), tmp_path / "export")


def test_a_large_table_is_streamed(sqlite_lab: Lab, tmp_path: Path) -> None:
    create_tenant(sqlite_lab.directory, sqlite_lab.databases, "a", placement=own_database("a"))
    with sqlite_lab.databases.engine(own_database("a")) as engine, as_tenant("a"), Session(engine) as db, db.begin():
        db.execute(Note.__table__.insert(), [{"id": n, "title": "x" * 1000} for n in range(1, 20_001)])
    import tracemalloc

    tracemalloc.start()
    exported = export_tenant(sqlite_lab.databases, sqlite_lab.directory.read("a"), tmp_path / "export")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert exported.rows == 20_000
    assert exported.tables[-1].bytes + sum(table.bytes for table in exported.tables) > 20_000_000
    assert peak < 10_000_000


class Point(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self) -> str:
        return "TEXT"

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return lambda value: object()


def test_values_that_can_not_be_carried_are_said(tmp_path: Path) -> None:
    metadata = MetaData()
    table = Table(
        "points",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String(128), nullable=False, info=tenant_key()),
        Column("at", Point()),
    )
    databases = Databases(metadata, shared=f"sqlite:///{tmp_path}/points.sqlite3")
    with databases.bare_connection(SHARED) as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql("INSERT INTO points VALUES (1, 'a', 'x')")
        connection.commit()
    from tenantguard import Tenant

    with pytest.raises(PlacementError, match=r"points\.at holds values of the type object"):
        export_tenant(databases, TenantRecord(Tenant("a")), tmp_path / "export")
    assert table.name == "points"


def test_a_circle_that_can_not_be_written_is_said_at_once() -> None:
    from sqlalchemy import ForeignKey

    metadata = MetaData()
    Table(
        "nodes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String(128), nullable=False, info=tenant_key()),
        Column("root", ForeignKey("nodes.id"), nullable=False),
    )
    with pytest.raises(ConfigurationError, match="points in a circle"):
        TablePlan(metadata.tables.values())


def test_a_move_and_an_export_do_not_hold_up_other_tenants(postgres_lab: Lab, tmp_path: Path) -> None:
    """While a's rows are read in one transaction, b writes."""
    for number, tenant in enumerate("ab"):
        create_tenant(postgres_lab.directory, postgres_lab.databases, tenant)
        fill_placed(postgres_lab, tenant, 1000 * number + 1)
    wrote = threading.Event()

    def write(what: str, done: int, total: int) -> None:
        if what == "export orders":
            with postgres_lab.databases.bare_connection(SHARED) as connection:
                connection.exec_driver_sql("SET lock_timeout = '1s'")
                connection.exec_driver_sql("UPDATE customers SET name = 'new' WHERE tenant_id = 'b'")
                connection.commit()
            wrote.set()

    export_tenant(postgres_lab.databases, postgres_lab.directory.read("a"), tmp_path / "export", tell=write)
    assert wrote.is_set()
