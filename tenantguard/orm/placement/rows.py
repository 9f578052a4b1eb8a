"""The rows of one tenant: which tables have some, in which order they are written, and how they are read and removed.

All of it runs through the barrier with the tenant bound, so no mistake here can reach rows of others; the criteria
below also leave out the rows that everybody may read and nobody owns.

Foreign keys order the tables. Those that point in a circle, within one table or several, are written in a second pass,
when all rows are there; so they must be able to be NULL.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias, final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.ddl import sort_tables_and_constraints

from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, PlacementError
from tenantguard.identity import Tenant, service_identity
from tenantguard.orm.classify import Child, Owned, Shared, classify_alone
from tenantguard.orm.placement.wire import Codec, Digest, WireRow

__all__ = [
    "Erased",
    "TablePlan",
    "as_tenant",
    "count_rows",
    "digests_of",
    "erase_rows",
    "full_name",
    "highest_numbers",
    "insert_rows",
    "read_rows",
    "read_shared_rows",
    "write_rows",
]

_BATCH: Final = 500
Tell: TypeAlias = Callable[[str, int, int], None]
"""Told how far it is: what, how many are done, of how many (0 where nobody knows)."""


def as_tenant(tenant: str | Tenant, work: str) -> bind:
    """Return the block in which an operation works as its tenant, whatever the tenant's status."""
    tenant_id = tenant if isinstance(tenant, str) else tenant.id
    return bind(service_identity(f"tenantguard {work}", tenant=tenant_id))


def full_name(table: Table) -> str:
    """Return a table's name, with its schema where it names one."""
    return str(table.name) if table.schema is None else f"{table.schema}.{table.name}"


@final
class TablePlan:
    """The tables of tenants, parents before children.

    Args:
        tables: all tables of the app.

    Raises:
        ConfigurationError: a foreign key points in a circle and may not be NULL, or a table that has one has no primary
            key; two tables have one name.
    """

    __slots__ = ("later", "shared", "tables")

    def __init__(self, tables: Iterable[Table]) -> None:
        every = list(tables)
        self.shared = [table for table in every if isinstance(classify_alone(table), Shared)]
        own = [table for table in every if not isinstance(classify_alone(table), Shared)]
        self.tables: list[Table] = []
        self.later: dict[Table, list[Column[Any]]] = {}
        for table, constraints in sort_tables_and_constraints(own):
            circular = constraints if table is None else [one for one in constraints if one.referred_table is table]
            if table is not None:
                self.tables.append(table)
            for constraint in circular:
                self._put_off(constraint)
        names = [full_name(table) for table in self.tables]
        if len(set(names)) < len(names):
            raise ConfigurationError("Two tables have one name.", mend="Name the MetaData of one database alone.")

    def _put_off(self, constraint: Any) -> None:
        table = constraint.table
        columns = [element.parent for element in constraint.elements if element.parent.nullable]
        if not columns or not table.primary_key.columns:
            raise ConfigurationError(
                f"A foreign key of {table.name!r} points in a circle, and can't be written last.",
                mend="Let the column be NULL, and give the table a primary key.",
            )
        known = self.later.setdefault(table, [])
        known += [column for column in columns if column not in known]

    def codecs(self, table: Table, dialect: Any) -> list[Codec]:
        """Return how the columns of a table are carried. Computed ones are not: the database computes them."""
        return [Codec(column, dialect) for column in table.columns if column.computed is None]


def own_rows(table: Table, element: FromClause, tenant_id: str) -> ColumnElement[bool]:
    """Return the criterion of the rows that are the tenant's own, without those for everybody."""
    kind = classify_alone(table)
    if isinstance(kind, Owned):
        return element.c[kind.column.key] == kind.convert(tenant_id)
    assert isinstance(kind, Child)
    parent = kind.parent.alias()
    pairs = zip(kind.columns, kind.targets, strict=True)
    same = and_(*(element.c[column.key] == parent.c[target.key] for column, target in pairs))
    return exists().where(same, own_rows(kind.parent, parent, tenant_id))


def read_rows(connection: Connection, plan: TablePlan, table: Table, tenant_id: str) -> Iterator[WireRow]:
    """Yield the rows of a tenant in a table, as they are carried, streamed from the database.

    Args:
        connection: of a protected engine, with the tenant bound.
        plan: the tables.
        table: the table.
        tenant_id: the tenant.
    """
    yield from _streamed(connection, plan, table, own_rows(table, table, tenant_id))


def read_shared_rows(connection: Connection, plan: TablePlan, table: Table) -> Iterator[WireRow]:
    """Yield all rows of a shared table, as they are carried."""
    yield from _streamed(connection, plan, table)


def _streamed(
    connection: Connection, plan: TablePlan, table: Table, *criteria: ColumnElement[bool]
) -> Iterator[WireRow]:
    codecs = plan.codecs(table, connection.dialect)
    statement = select(*(codec.selected() for codec in codecs)).select_from(table)
    statement = statement.where(*criteria).order_by(*table.primary_key.columns)
    with connection.execute(statement, execution_options={"yield_per": _BATCH}) as result:
        for row in result:
            yield {codec.name: codec.encode(value) for codec, value in zip(codecs, row, strict=True)}


def digests_of(
    connection: Connection, plan: TablePlan, tenant_id: str, tell: Tell | None = None
) -> dict[str, tuple[int, str]]:
    """Return the number of a tenant's rows and their digest, by table."""
    found = {}
    for number, table in enumerate(plan.tables):
        if tell is not None:
            tell(f"compare {full_name(table)}", number, len(plan.tables))
        digest, codecs = Digest(), plan.codecs(table, connection.dialect)
        for row in read_rows(connection, plan, table, tenant_id):
            digest.add(codecs, row)
        found[full_name(table)] = (digest.rows, digest.hex)
    return found


# --- writing -------------------------------------------------------------------------------------------------


def write_rows(
    connection: Connection, plan: TablePlan, rows: Callable[[Table], Iterator[WireRow]], tell: Tell | None = None
) -> None:
    """Write rows into all tables, parents first, and what points in a circle last.

    Args:
        connection: of a protected engine, in a transaction, with the tenant bound.
        plan: the tables.
        rows: yields the rows of a table; asked twice for tables with foreign keys that point in a circle.
        tell: told how far it is.

    Raises:
        PlacementError: a row is in the way, or points to one that is not there.
    """
    try:
        for number, table in enumerate(plan.tables):
            if tell is not None:
                tell(f"write {full_name(table)}", number, len(plan.tables))
            insert_rows(connection, plan, table, rows(table))
        for table, columns in plan.later.items():
            _link(connection, plan, table, columns, rows(table))
    except IntegrityError as error:
        raise PlacementError(
            f"The rows can't be written: {_said(error)}.",
            mend="Another row is in the way, or one that they point to is missing: shared tables are not carried.",
        ) from None


def highest_numbers(connection: Connection, plan: TablePlan, tenant_id: str) -> dict[str, dict[str, int]]:
    """Return a tenant's highest number in each column that the database counts up, by table and column."""
    found: dict[str, dict[str, int]] = {}
    for table in plan.tables:
        counted = table.autoincrement_column
        if counted is None:
            continue
        statement = select(func.max(counted)).select_from(table).where(own_rows(table, table, tenant_id))
        if (highest := connection.scalar(statement)) is not None:
            found[full_name(table)] = {counted.name: highest}
    return found


def insert_rows(connection: Connection, plan: TablePlan, table: Table, rows: Iterator[WireRow]) -> None:
    """Write rows into a table, in batches. Foreign keys that point in a circle stay NULL."""
    codecs = plan.codecs(table, connection.dialect)
    later = {column.name for column in plan.later.get(table, ())}
    statement = insert(table).values({codec.column.key: codec.bind(f"w_{codec.column.key}") for codec in codecs})
    for some in _batches(rows):
        connection.execute(
            statement,
            [
                {
                    f"w_{codec.column.key}": None if codec.name in later else codec.decode(row[codec.name])
                    for codec in codecs
                }
                for row in some
            ],
        )


def _link(
    connection: Connection, plan: TablePlan, table: Table, columns: list[Column[Any]], rows: Iterator[WireRow]
) -> None:
    codecs = {codec.name: codec for codec in plan.codecs(table, connection.dialect)}
    keys = list(table.primary_key.columns)
    statement = (
        update(table)
        .where(*(column == codecs[column.name].bind(f"k_{column.key}") for column in keys))
        .values({column.key: codecs[column.name].bind(f"v_{column.key}") for column in columns})
    )
    linked = (row for row in rows if any(row[column.name] is not None for column in columns))
    for some in _batches(linked):
        connection.execute(
            statement,
            [
                {f"k_{column.key}": codecs[column.name].decode(row[column.name]) for column in keys}
                | {f"v_{column.key}": codecs[column.name].decode(row[column.name]) for column in columns}
                for row in some
            ],
        )


def _batches(rows: Iterator[WireRow]) -> Iterator[list[WireRow]]:
    while some := list(islice(rows, _BATCH)):
        yield some


def _said(error: IntegrityError) -> str:
    """What kind of key was hurt, by names alone."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is None:
        return str(error.orig)  # SQLite's has names alone
    return f"SQLSTATE {diagnosis.sqlstate}, constraint {diagnosis.constraint_name} of {diagnosis.table_name}"


# --- removing ------------------------------------------------------------------------------------------------


class Erased(NamedTuple):
    """What was removed from a table: the proof is that ``after`` is 0.

    Args:
        table: its name.
        before: how many rows of the tenant it had.
        deleted: how many were deleted.
        after: how many it has.
    """

    table: str
    before: int
    deleted: int
    after: int


def count_rows(connection: Connection, plan: TablePlan, tenant_id: str) -> dict[str, int]:
    """Return how many rows of a tenant each table has."""
    return {
        full_name(table): connection.scalar(
            select(func.count()).select_from(table).where(own_rows(table, table, tenant_id))
        )
        or 0
        for table in plan.tables
    }


def erase_rows(connection: Connection, plan: TablePlan, tenant_id: str, tell: Tell | None = None) -> tuple[Erased, ...]:
    """Delete all rows of a tenant, children first, and count before and after.

    Args:
        connection: of a protected engine, in a transaction that the caller commits, with the tenant bound.
        plan: the tables.
        tenant_id: the tenant.
        tell: told how far it is.

    Raises:
        PlacementError: rows are left, or other rows point to them. The caller rolls back.
    """
    before = count_rows(connection, plan, tenant_id)
    deleted: dict[str, int] = {}
    try:
        for table, columns in plan.later.items():
            pointing = or_(*(column.is_not(None) for column in columns))
            nothing: Mapping[Any, Any] = {column.key: None for column in columns}
            connection.execute(update(table).where(own_rows(table, table, tenant_id), pointing).values(nothing))
        for number, table in enumerate(reversed(plan.tables)):
            if tell is not None:
                tell(f"erase {full_name(table)}", number, len(plan.tables))
            result = connection.execute(delete(table).where(own_rows(table, table, tenant_id)))
            deleted[full_name(table)] = result.rowcount
    except IntegrityError as error:
        raise PlacementError(
            f"The rows can't be erased: {_said(error)}.", mend="Rows that are not the tenant's point to them."
        ) from None
    after = count_rows(connection, plan, tenant_id)
    if any(after.values()):
        left = ", ".join(name for name, number in after.items() if number)
        raise PlacementError(f"Rows are left in {left}.", mend="Something writes them: stop it, and erase again.")
    return tuple(Erased(name, before[name], deleted[name], after[name]) for name in before)
