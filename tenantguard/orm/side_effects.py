"""What the database does by itself because of a write, and what no predicate therefore reaches.

A constraint of SQLite that says ON CONFLICT REPLACE deletes the row that is in the way, whoever owns it. A foreign key
that says ON DELETE CASCADE deletes the rows that point to a deleted one; where the deleted row is shared, those may be
of any tenant. Both are found in the declarations of the tables while the statement compiles, and refused.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import Column, ForeignKeyConstraint, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.exc import NoReferenceError

from tenantguard.errors import ConfigurationError, StatementRefused, UnclassifiedTable
from tenantguard.orm.classify import Owned, Shared, classify_alone

__all__ = ["carrying", "refuse_actions", "refuse_replacing"]

_HARMLESS: Final = frozenset({"", "NO ACTION", "RESTRICT"})


def refuse_replacing(table: Table, dialect: str) -> None:
    """Refuse a write to a table of tenants' rows in which a conflict replaces the row that is in the way.

    Args:
        table: the table that is written to.
        dialect: the dialect's name.

    Raises:
        StatementRefused: one of its constraints does so, and does not contain the tenant key.
    """
    owned = classify_alone(table) if dialect == "sqlite" else None
    if owned is None or isinstance(owned, Shared):
        return
    for columns in _replacing(table):
        if not (isinstance(owned, Owned) and owned.column in columns):
            raise StatementRefused(
                f"A constraint of {table.name!r} says ON CONFLICT REPLACE, so the write could delete a row of another "
                "tenant.",
                mend="Have the constraint contain the tenant key, or leave REPLACE out and use an upsert.",
            )


def _replacing(table: Table) -> Iterator[set[Column[Any]]]:
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint):
            columns = set(constraint.columns)
            ways = [constraint.dialect_options["sqlite"]["on_conflict"]]
            if len(columns) == 1:
                options = next(iter(columns)).dialect_options["sqlite"]
                ways += [options["on_conflict_primary_key"], options["on_conflict_unique"]]
            if any(str(way).upper() == "REPLACE" for way in ways):
                yield columns


def refuse_actions(table: Table, kind: str, sets: Callable[[Column[Any]], bool]) -> None:
    """Refuse a change of shared rows that the database would carry on to rows of any tenant.

    Args:
        table: the table whose rows are changed.
        kind: ``"update"`` or ``"delete"``.
        sets: tells whether an UPDATE sets a column.

    Raises:
        StatementRefused: a foreign key of a table of tenants' rows has such an action.
    """
    found = carrying(table, kind, sets)
    if found is not None:
        raise StatementRefused(
            f"The foreign key of {found.table.name!r} to the shared {found.referred_table.name!r} has an action "
            f"(ON DELETE {found.ondelete}, ON UPDATE {found.onupdate}), so the {kind} could change rows of every "
            "tenant.",
            mend='Do it in a block of system("why").',
        )


def carrying(table: Table, kind: str, sets: Callable[[Column[Any]], bool]) -> ForeignKeyConstraint | None:
    """Return a foreign key by which the database carries a change of shared rows on to rows of tenants.

    Args:
        table: the table whose rows are changed.
        kind: ``"update"`` or ``"delete"``.
        sets: tells whether an UPDATE sets a column.
    """
    if not isinstance(classify_alone(table), Shared):
        return None
    seen: set[tuple[ForeignKeyConstraint, str]] = set()
    pending = [(table, kind, sets)]
    while pending:
        target, change, changes = pending.pop()
        for constraint in _pointing_to(target):
            way = ((constraint.ondelete if change == "delete" else constraint.onupdate) or "").upper()
            touched = change == "delete" or any(changes(element.column) for element in constraint.elements)
            if not touched or way in _HARMLESS or (constraint, change) in seen:
                continue
            if not _is_shared(constraint.table):
                return constraint
            seen.add((constraint, change))
            goes_on = "delete" if change == "delete" and way == "CASCADE" else "update"
            pending.append((constraint.table, goes_on, set(constraint.columns).__contains__))
    return None


def _pointing_to(table: Table) -> Iterator[ForeignKeyConstraint]:
    for other in list(table.metadata.tables.values()):
        for constraint in other.foreign_key_constraints:
            try:
                if hash(constraint.referred_table) == hash(table):  # which may be annotated
                    yield constraint
            except NoReferenceError:
                continue


def _is_shared(table: Table) -> bool:
    try:
        return isinstance(classify_alone(table), Shared)
    except (UnclassifiedTable, ConfigurationError):
        return False
