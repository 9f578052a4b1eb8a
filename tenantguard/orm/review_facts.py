"""What a review knows of the models before it judges them: tables with their class, keys, and what points to what."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql.elements import UnaryExpression

from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard.orm.classify import Child, Owned, Shared, classify_alone
from tenantguard.orm.marks import TENANT, KeyMark, mark_of

__all__ = [
    "Key",
    "Subject",
    "World",
    "column_name",
    "column_names",
    "has_key",
    "is_confined",
    "is_generated",
    "keys_of",
    "plain",
    "plain_columns",
    "replaces",
    "targets_of",
    "unique_keys_of",
]

Key = PrimaryKeyConstraint | UniqueConstraint | Index


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A table as the rules see it.

    Args:
        table: the table.
        kind: owned, child, shared, unclassified or misconfigured.
        detail: what people are told about it.
        key: its tenant key, also of a table whose key can't serve.
        through: the foreign key that makes it a child.
        mend: how to mend a table that is not classified.
    """

    table: Table
    kind: str
    detail: str
    key: Column[Any] | None = None
    through: tuple[Column[Any], ...] = ()
    mend: str = ""

    @property
    def of_tenants(self) -> bool:
        """True if each of its rows is one tenant's."""
        return self.key is not None or bool(self.through)


class World:
    """All tables under review. A table that is pointed to from outside of them is looked at as well.

    Args:
        tables: in the order of the review.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        self._subjects = {table: _subject(table) for table in tables}
        self._reviewed = tuple(self._subjects.values())
        self._pointed: set[tuple[Table, frozenset[Column[Any]]]] = set()
        for subject in self._reviewed:
            for constraint in subject.table.foreign_key_constraints:
                targets = targets_of(constraint)
                if targets:
                    self._pointed.add((targets[0].table, frozenset(targets)))

    def __iter__(self) -> Iterator[Subject]:
        return iter(self._reviewed)

    def of(self, table: Any) -> Subject:
        """Return what is known of a table."""
        known = self._subjects.get(table)
        if known is None:
            known = self._subjects[table] = _subject(table)
        return known

    def is_pointed_to(self, table: Table, columns: Sequence[Column[Any]]) -> bool:
        """True if a foreign key points to exactly these columns."""
        return (table, frozenset(columns)) in self._pointed


def _subject(table: Table) -> Subject:
    marks = [(column, mark_of(column)) for column in table.columns]
    marked = [column for column, mark in marks if isinstance(mark, KeyMark) and mark.dimension == TENANT]
    key = marked[0] if len(marked) == 1 else None
    try:
        found = classify_alone(table)
        if isinstance(found, Shared):
            return Subject(table, "shared", found.reason)
        if isinstance(found, Child):
            return Subject(table, "child", _path(found), through=found.columns)
        return Subject(table, "owned", column_name(found.column), key=found.column)
    except UnclassifiedTable as error:
        return Subject(table, "unclassified", error.message, mend=error.mend or "")
    except ConfigurationError as error:
        return Subject(table, "misconfigured", error.message, key=key, mend=error.mend or "")


def _path(child: Child | Owned | Shared) -> str:
    """Return the columns that lead from a child to the tenant key."""
    steps = []
    while isinstance(child, Child):
        steps.append(_columns(child.columns))
        child = classify_alone(child.parent)
    if isinstance(child, Owned):
        steps.append(column_name(child.column))
    return " -> ".join(steps)


def is_confined(key: Key, columns: Sequence[Column[Any]], subject: Subject, world: World) -> bool:
    """True if a unique key can't clash with a row of another tenant.

    Args:
        key: the key.
        columns: its columns, without expressions.
        subject: its table.
        world: all tables.
    """
    if subject.key is not None and subject.key in columns:
        return True
    same_nulls = not isinstance(key, PrimaryKeyConstraint) and bool(
        key.dialect_options["postgresql"]["nulls_not_distinct"]
    )
    for constraint in subject.table.foreign_key_constraints:
        pointing = [element.parent for element in constraint.elements]
        targets = targets_of(constraint)
        if not targets or not set(pointing) <= set(columns) or not world.of(targets[0].table).of_tenants:
            continue
        if same_nulls and any(column.nullable for column in pointing):
            continue
        target = world.of(targets[0].table)
        if target.key in targets or has_key(target.table, targets):
            return True
    return False


def replaces(key: Key) -> bool:
    """True if SQLite deletes the rows that are in the way of an insert."""
    if isinstance(key, Index):
        return False
    columns = list(key.columns)
    said: Any = key.dialect_options["sqlite"]["on_conflict"]
    if said is None and len(columns) == 1:
        kind = "primary_key" if isinstance(key, PrimaryKeyConstraint) else "unique"
        said = columns[0].dialect_options["sqlite"][f"on_conflict_{kind}"]
    return said is not None and str(said).upper() == "REPLACE"


def is_generated(table: Table) -> bool:
    """True if the primary key is one column that fills itself."""
    columns = list(table.primary_key.columns)
    if len(columns) != 1:
        return False
    (column,) = columns
    default = column.default
    return (
        table.autoincrement_column is not None
        or column.server_default is not None
        or (default is not None and not default.is_scalar)
    )


def keys_of(table: Table) -> list[Key]:
    """Return all that works as an index of the whole table."""
    unique = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    partial = ("postgresql_where", "sqlite_where")
    whole = [one for one in table.indexes if all(one.dialect_kwargs.get(name) is None for name in partial)]
    return [table.primary_key, *unique, *whole]


def targets_of(constraint: ForeignKeyConstraint) -> tuple[Column[Any], ...]:
    """Return what a foreign key points to; nothing if that is not there."""
    try:
        return tuple(element.column for element in constraint.elements)
    except NoReferenceError:
        return ()


def unique_keys_of(table: Table) -> list[Key]:
    """Return what is unique in the whole table."""
    return [key for key in keys_of(table) if not isinstance(key, Index) or key.unique]


def has_key(table: Table, columns: Sequence[Column[Any]]) -> bool:
    """True if a unique key of the table is contained in the columns."""
    return any(plain and set(plain) <= set(columns) for plain in map(plain_columns, unique_keys_of(table)))


def plain(part: Any) -> Any:
    """Return a part of an index without ASC, DESC and the like."""
    while isinstance(part, UnaryExpression) and part.modifier is not None:
        part = part.element
    return part


def plain_columns(key: Key) -> list[Column[Any]]:
    """Return the columns of a key that stand there as they are, not within an expression."""
    parts = key.expressions if isinstance(key, Index) else key.columns
    return [part for part in map(plain, parts) if isinstance(part, Column)]


def column_name(column: Column[Any]) -> str:
    """Return a column's name with its table's."""
    return f"{column.table.name}.{column.name}"


def _columns(columns: Sequence[Column[Any]]) -> str:
    return column_name(columns[0]) if len(columns) == 1 else f"{columns[0].table.name}.({column_names(columns)})"


def column_names(columns: Sequence[Column[Any]]) -> str:
    """Return the names of columns."""
    return ", ".join(column.name for column in columns)
