"""Making and dropping places: databases, schemas, their tables. Each can be done twice.

A place that is there and has tables of its own is never taken for a new one: it is somebody's, and would be dropped
with the tenant. A database that holds schemas of tenants is made where it is missing, and never dropped.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import URL, Connection, Engine, MetaData, Table, func, inspect, select, text
from sqlalchemy.exc import OperationalError

from tenantguard.errors import ConfigurationError, PlacementError
from tenantguard.orm.placement.databases import Databases, in_place, options_of, owner_engine
from tenantguard.orm.placement.records import SHARED, Placement
from tenantguard.orm.placement.rows import TablePlan, full_name, insert_rows, read_shared_rows
from tenantguard.permits import system

__all__ = [
    "PlaceStep",
    "advance_sequences",
    "create_database",
    "create_schema",
    "create_tables",
    "drop_place",
    "held_schema",
    "place_is_there",
    "run_steps",
    "seed_shared",
]

PlaceStep: TypeAlias = Callable[[Connection, Placement], object]
"""What an app does to a new place: rights, row-level security, first rows. It gets the owner's connection, in a
transaction that leads to the place: by its ``schema_translate_map`` and ``search_path``. It may be called twice."""

_OCCUPIED = "Choose another name, or remove what is there."


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _same_server(one: URL, other: URL) -> bool:
    return one.set(database=None) == other.set(database=None)


def _maintenance(databases: Databases, database: str) -> URL:
    """Return the URL of a database on the same server, from which another can be made and dropped."""
    url = databases.url(database)
    shared = databases.shared_url
    return shared if _same_server(url, shared) else url.set(database="postgres")


def _autocommit(url: URL) -> Engine:
    return owner_engine(url, snapshot=False).execution_options(isolation_level="AUTOCOMMIT")


def _check_dialect(databases: Databases, placement: Placement) -> str:
    name = databases.url(placement.database).get_backend_name()
    if name not in ("postgresql", "sqlite"):
        raise ConfigurationError(
            f"Places are made and dropped on PostgreSQL and SQLite, not on {name}.",
            mend="Make the place yourself, and add the tenant with SqlTenants.add().",
        )
    if name == "sqlite" and placement.schema is not None:
        raise ConfigurationError("SQLite has no schemas.", mend="Give the tenant a database of its own.")
    return name


def create_database(databases: Databases, placement: Placement) -> None:
    """Make the database of a place, where it has one of its own.

    Raises:
        PlacementError: there is one of that name, with tables in it.
        ConfigurationError: the database's kind is not known.
    """
    kind = _check_dialect(databases, placement)
    if placement.database is None:
        return
    if kind == "sqlite":
        file = databases.sqlite_file(placement.database)
        assert file is not None
        file.touch(mode=0o600)
        if file.stat().st_size:
            raise PlacementError("There is a database of that name already, and it is not empty.", mend=_OCCUPIED)
        return
    name = databases.url(placement.database).database or ""
    engine = _autocommit(_maintenance(databases, placement.database))
    try:
        with engine.connect() as connection:
            there = connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name})
            if not there:
                connection.exec_driver_sql(f"CREATE DATABASE {_quoted(connection, name)}")
    finally:
        engine.dispose()
    if there and placement.schema is None:
        with databases.bare_connection(Placement(database=placement.database)) as connection:
            if _relations(connection, None):
                raise PlacementError("There is a database of that name already, and it is not empty.", mend=_OCCUPIED)


_COUNT_RELATIONS: Final = """
    SELECT count(*) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND (CAST(:schema AS text) IS NULL OR n.nspname = :schema)
"""


def _relations(connection: Connection, schema: str | None) -> int:
    return connection.scalar(text(_COUNT_RELATIONS), {"schema": schema}) or 0


def create_schema(databases: Databases, placement: Placement) -> None:
    """Make the schema of a place, where it has one of its own.

    Raises:
        PlacementError: there is one of that name, with tables in it.
    """
    if placement.schema is None:
        return
    with databases.bare_connection(Placement(database=placement.database)) as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_quoted(connection, placement.schema)}")
        if _relations(connection, placement.schema):
            raise PlacementError("There is a schema of that name already, and it is not empty.", mend=_OCCUPIED)
        connection.commit()


def create_tables(databases: Databases, placement: Placement) -> None:
    """Make the tables of a place of its own, where they are not there. Those that name a schema stand there."""
    if placement.is_shared:
        return
    with system("tables of a new place"), databases.bare_connection(placement) as bare:
        connection = bare.execution_options(**options_of(placement))
        if placement.database is not None and connection.dialect.name == "postgresql":
            for schema in sorted({table.schema for table in databases.tables if table.schema is not None}):
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_quoted(connection, schema)}")
        for metadata in databases.metadata:
            metadata.create_all(connection, tables=_of_place(metadata, placement))
        connection.commit()


def _of_place(metadata: MetaData, placement: Placement) -> list[Table]:
    """A schema beside the shared tables has only the tables without a schema; a new database has them all."""
    every = list(metadata.tables.values())
    return every if placement.database is not None else [table for table in every if table.schema is None]


def run_steps(databases: Databases, placement: Placement, steps: Mapping[str, PlaceStep], name: str) -> None:
    """Run what the app does to a new place, in a transaction."""
    with system(f"step {name} of a new place"), databases.bare_connection(placement) as bare:
        steps[name](in_place(bare, placement), placement)
        bare.commit()


def seed_shared(databases: Databases, plan: TablePlan, placement: Placement) -> dict[str, int]:
    """Copy the shared tables into a database of its own, where they are empty there.

    Returns:
        How many rows were copied, by table.
    """
    copied: dict[str, int] = {}
    if placement.database is None:
        return copied
    with (
        system("shared rows for a new database"),
        databases.bare_connection(SHARED) as source,
        databases.bare_connection(placement) as bare,
    ):
        target = bare.execution_options(**options_of(placement))
        for table in (one for one in _in_order(databases) if one in plan.shared):
            if target.scalar(select(func.count()).select_from(table)):
                continue
            insert_rows(target, plan, table, read_shared_rows(source, plan, table))
            copied[full_name(table)] = target.scalar(select(func.count()).select_from(table)) or 0
        bare.commit()
    return copied


def _in_order(databases: Databases) -> list[Table]:
    return [table for metadata in databases.metadata for table in metadata.sorted_tables]


def advance_sequences(
    databases: Databases, placement: Placement, plan: TablePlan, highest: Mapping[str, Mapping[str, int]]
) -> None:
    """Let PostgreSQL's sequences go on behind the numbers that were written."""
    if databases.url(placement.database).get_backend_name() != "postgresql":
        return
    with databases.bare_connection(placement) as connection:
        for table in plan.tables:
            for column, number in highest.get(full_name(table), {}).items():
                schema = table.schema or placement.schema
                quoted = ".".join(_quoted(connection, part) for part in (schema, table.name) if part is not None)
                sequence = connection.scalar(
                    text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": quoted, "column": column}
                )
                if sequence is not None:
                    connection.execute(
                        text(
                            f"SELECT setval(CAST(:sequence AS regclass), :number) FROM {sequence} "  # noqa: S608 - PostgreSQL's own, quoted name
                            "WHERE last_value < :number OR (last_value = :number AND NOT is_called)"
                        ),
                        {"sequence": sequence, "number": number},
                    )
        connection.commit()


def place_is_there(databases: Databases, placement: Placement) -> bool:
    """Return whether a place of its own is there."""
    file = databases.sqlite_file(placement.database)
    if file is not None:
        return file.exists()
    try:
        if placement.database is not None:
            name = databases.url(placement.database).database
            engine = _autocommit(_maintenance(databases, placement.database))
            try:
                with engine.connect() as connection:
                    statement = text("SELECT 1 FROM pg_database WHERE datname = :name")
                    if not connection.scalar(statement, {"name": name}):
                        return False
            finally:
                engine.dispose()
        if placement.schema is None:
            return True
        with databases.bare_connection(Placement(database=placement.database)) as connection:
            return placement.schema in inspect(connection).get_schema_names()
    except OperationalError as error:
        raise PlacementError(f"The database can't be reached ({type(error.orig).__name__}).") from None


@contextmanager
def held_schema(databases: Databases, placement: Placement, plan: TablePlan) -> Iterator[Callable[[], None]]:
    """Let nobody write into a schema in a block, after waiting for those who do: what is read there then is all of it.

    Yields:
        What drops the schema, with no moment in between.
    """
    assert placement.schema is not None
    with databases.bare_connection(Placement(database=placement.database)) as connection:
        schema = _quoted(connection, placement.schema)
        names = ", ".join(f"{schema}.{_quoted(connection, table.name)}" for table in plan.tables)
        if names:
            connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE MODE")

        def drop() -> None:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
            connection.commit()

        yield drop


def drop_place(databases: Databases, placement: Placement) -> None:
    """Drop a place of its own with all that is in it, if it is there.

    Raises:
        PlacementError: it is the shared place.
    """
    if placement.is_shared:
        raise PlacementError("The shared tables can't be dropped with one tenant.", mend="Erase its rows.")
    if _check_dialect(databases, placement) == "sqlite":
        file = databases.sqlite_file(placement.database)
        assert file is not None
        for one in (file, *(Path(f"{file}{ending}") for ending in ("-wal", "-shm", "-journal"))):
            one.unlink(missing_ok=True)
        return
    if placement.schema is not None:
        with databases.bare_connection(Placement(database=placement.database)) as connection:
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {_quoted(connection, placement.schema)} CASCADE")
            connection.commit()
        return
    assert placement.database is not None
    name = databases.url(placement.database).database or ""
    engine = _autocommit(_maintenance(databases, placement.database))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {_quoted(connection, name)} WITH (FORCE)")
    finally:
        engine.dispose()
