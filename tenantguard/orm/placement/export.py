"""One tenant's rows as files: a directory with one file of JSON Lines for each table, and a manifest.

All is read in one transaction, so the files show one moment. The manifest is written last: an export without one is
none. It counts the rows of each table and has two digests: of the file's bytes, and of the rows whatever their order,
which a restored tenant is compared with.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Table

from tenantguard.errors import PlacementError
from tenantguard.orm.placement.databases import Databases
from tenantguard.orm.placement.ddl import advance_sequences
from tenantguard.orm.placement.operations import Tell
from tenantguard.orm.placement.records import TenantRecord
from tenantguard.orm.placement.rows import (
    TablePlan,
    as_tenant,
    count_rows,
    digests_of,
    full_name,
    highest_numbers,
    read_rows,
    write_rows,
)
from tenantguard.orm.placement.wire import Digest, WireRow

__all__ = ["Exported", "ExportedTable", "export_tenant", "read_export", "restore_tenant"]

FORMAT: Final = "tenantguard-export/1"
MANIFEST: Final = "manifest.json"


class ExportedTable(msgspec.Struct, frozen=True):
    """A table of an export.

    Args:
        table: its name.
        rows: how many rows.
        bytes: how large the file is.
        sha256: of the file.
        digest: of the rows, whatever their order.
    """

    table: str
    rows: int
    bytes: int
    sha256: str
    digest: str


class Exported(msgspec.Struct, frozen=True):
    """The manifest of an export.

    Args:
        format: ``tenantguard-export/1``.
        tenant: the tenant's id.
        exported_at: when, in seconds since the epoch.
        tables: its tables, parents before children: the order in which they are written again.
    """

    format: str
    tenant: str
    exported_at: int
    tables: tuple[ExportedTable, ...]

    @property
    def rows(self) -> int:
        """How many rows it has in all."""
        return sum(table.rows for table in self.tables)


def _file_name(number: int, table: Table) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", full_name(table))[:80]
    return f"{number:04d}-{plain}.jsonl"


def _private(path: Path) -> Any:
    """Open a new file that only its owner reads: it holds a customer's rows."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def export_tenant(databases: Databases, record: TenantRecord, directory: Path, *, tell: Tell | None = None) -> Exported:
    """Write all rows of a tenant into files: owned and child tables, without the rows for everybody.

    The tenant may be in use: what is written is one moment of it. Values are those that stand in the database: an
    encrypted column stays encrypted.

    Args:
        databases: where the databases are, as a role that may read the tables.
        record: the tenant.
        directory: a new or empty directory; only its owner may read it.
        tell: told how far it is.

    Raises:
        PlacementError: the directory is not empty; a column has values that can't be carried.
    """
    plan = TablePlan(databases.tables)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise PlacementError("The directory of an export is not empty.", mend="Name a new one.")
    tables = []
    with databases.engine(record.placement) as engine, as_tenant(record.tenant, "export"):
        level = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        with engine.connect().execution_options(**level) as connection, connection.begin():
            for number, table in enumerate(plan.tables):
                if tell is not None:
                    tell(f"export {full_name(table)}", number, len(plan.tables))
                codecs, digest = plan.codecs(table, connection.dialect), Digest()
                sha256, size = hashlib.sha256(), 0
                with _private(directory / _file_name(number, table)) as file:
                    for row in read_rows(connection, plan, table, record.id):
                        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                        digest.add(codecs, row)
                        sha256.update(line)
                        size += len(line)
                        file.write(line)
                tables.append(ExportedTable(full_name(table), digest.rows, size, sha256.hexdigest(), digest.hex))
    manifest = Exported(FORMAT, record.id, int(time.time()), tuple(tables))
    part = directory / f"{MANIFEST}.part"
    with _private(part) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.rename(directory / MANIFEST)
    return manifest


def read_export(directory: Path, databases: Databases) -> Exported:
    """Return the manifest of an export, if the files are what it says and fit the tables.

    Raises:
        PlacementError: they are not; the export is not whole, was changed, or is of other tables.
    """
    plan = TablePlan(databases.tables)
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Exported)
    except FileNotFoundError:
        raise PlacementError("There is no manifest, so the export is not whole.", mend="Export again.") from None
    except (msgspec.DecodeError, OSError) as error:
        raise PlacementError(f"The manifest can't be read ({type(error).__name__}).") from None
    if manifest.format != FORMAT:
        raise PlacementError("The export is of another format.", mend="Use the version of tenantguard that made it.")
    if sorted(table.table for table in manifest.tables) != sorted(full_name(table) for table in plan.tables):
        raise PlacementError(
            "The export is of other tables than the app has now.", mend="Restore it with the app's version of its day."
        )
    numbers = {full_name(table): number for number, table in enumerate(plan.tables)}
    for table in manifest.tables:
        one = plan.tables[numbers[table.table]]
        sha256, rows = hashlib.sha256(), 0
        with contextlib.suppress(FileNotFoundError), _file_of(directory, manifest, one).open("rb") as file:
            for line in file:
                sha256.update(line)
                rows += 1
        if sha256.hexdigest() != table.sha256 or rows != table.rows:
            raise PlacementError(f"The file of {table.table} is not the one that was exported.", mend="Export again.")
    return manifest


def _file_of(directory: Path, manifest: Exported, table: Table) -> Path:
    """Return a table's file, by its number in the manifest: no name of a file is taken from it."""
    number = [one.table for one in manifest.tables].index(full_name(table))
    return directory / _file_name(number, table)


def restore_tenant(
    databases: Databases, record: TenantRecord, directory: Path, *, tell: Tell | None = None
) -> Exported:
    """Write the rows of an export back, in one transaction, and compare them with the export before it is committed.

    Args:
        databases: where the databases are, as the owner of the tables.
        record: the tenant; it must be the export's, and have no rows in its place.
        directory: the export.
        tell: told how far it is.

    Raises:
        PlacementError: the export is not whole or of another tenant, the tenant has rows, or a row is in the way.
            Nothing is written then.
    """
    plan = TablePlan(databases.tables)
    manifest = read_export(directory, databases)
    if manifest.tenant != record.id:
        raise PlacementError("The export is of another tenant.", mend="Name that one.")
    expected = {table.table: (table.rows, table.digest) for table in manifest.tables}

    def rows(table: Table) -> Iterator[WireRow]:
        names = {codec.name for codec in plan.codecs(table, engine.dialect)}
        with _file_of(directory, manifest, table).open("rb") as file:
            for line in file:
                row = json.loads(line)
                if set(row) != names:
                    raise PlacementError(
                        f"A row of {full_name(table)} has other columns than the table has now.",
                        mend="Restore it with the app's version of its day, and migrate then.",
                    )
                yield row

    with (
        databases.engine(record.placement) as engine,
        as_tenant(record.tenant, "restore"),
        engine.connect() as connection,
        connection.begin(),
    ):
        if any(count_rows(connection, plan, record.id).values()):
            raise PlacementError("The tenant has rows already.", mend="Erase them first: tenantguard tenants erase.")
        write_rows(connection, plan, rows, tell)
        written = digests_of(connection, plan, record.id, tell)
        unequal = [name for name, one in expected.items() if written[name] != one]
        if unequal:
            raise PlacementError(
                f"What was written is not what was exported, in {', '.join(unequal)}. Nothing was kept.",
                mend="Look for a column whose values this database keeps differently.",
            )
        highest = highest_numbers(connection, plan, record.id)
    advance_sequences(databases, record.placement, plan, highest)
    return manifest
