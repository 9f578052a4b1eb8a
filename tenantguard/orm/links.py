"""Foreign keys do not point across tenants.

Where a foreign key contains the tenant keys of both tables, the database itself holds that. Every other foreign key to
a table that belongs to tenants is a link that is checked when it is written: just before the statement, the rows that
it is about to point to are looked up in the same transaction, by a statement that is scoped like any other. What is
not there for this tenant can't be pointed to, whether it exists for another or not at all.

The value must be known for that. A value that an SQL expression computes is refused, unless the expression is a column
that is itself such a key, or the key that it points to, read by a scoped statement.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Column, ForeignKeyConstraint, Table, select, tuple_
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql.elements import ColumnElement, Grouping, Label, Null
from sqlalchemy.sql.selectable import CompoundSelect, ScalarSelect, Select, SelectStatementGrouping

from tenantguard.errors import ConfigurationError, ForeignTenantWrite, UnclassifiedTable
from tenantguard.orm.classify import Owned, Shared, classify
from tenantguard.orm.key_types import compares_exactly

__all__ = ["Link", "LinkCheck", "computes_own_link", "foreign_link", "links_of", "missing_rows"]

MOST_AT_ONCE: Final = 500
"""How many keys one look-up asks for."""


class Link(NamedTuple):
    """A foreign key to a table that belongs to tenants, which the database alone does not hold within one of them.

    Args:
        columns: the columns that point.
        targets: the columns that are pointed to.
    """

    columns: tuple[Column[Any], ...]
    targets: tuple[Column[Any], ...]

    @property
    def table(self) -> Table:
        """The table that is pointed to."""
        table = self.targets[0].table
        assert isinstance(table, Table)
        return table


class LinkCheck(NamedTuple):
    """A link that a statement writes.

    Args:
        link: which one.
        names: the parameters that hold its values, one per column.
        own: the parameters in which the same statement inserts what may be pointed to; empty where it does not.
    """

    link: Link
    names: tuple[str, ...]
    own: tuple[str, ...] = ()


_links: Final[WeakKeyDictionary[Table, tuple[int, tuple[Link, ...]]]] = WeakKeyDictionary()


def links_of(table: Table) -> tuple[Link, ...]:
    """Return the links of a table."""
    known = _links.get(table)
    if known is None or known[0] != len(table.foreign_key_constraints):
        found = tuple(_found(table))
        known = _links[table] = (len(table.foreign_key_constraints), found)
    return known[1]


def _found(table: Table) -> Iterable[Link]:
    own = classify(table)
    for constraint in sorted(table.foreign_key_constraints, key=_order):
        try:
            targets = tuple(element.column for element in constraint.elements)
            target = classify(targets[0].table)
        except (NoReferenceError, UnclassifiedTable, ConfigurationError):
            continue  # a table that no statement may name
        if isinstance(target, Shared):
            continue
        columns = tuple(element.parent for element in constraint.elements)
        if isinstance(own, Owned) and isinstance(target, Owned):
            pairs = zip(columns, targets, strict=True)
            if any(c is own.column and t is target.column and _alike(c, t) for c, t in pairs):
                continue
        yield Link(columns, targets)


def _alike(column: Column[Any], target: Column[Any]) -> bool:
    """True if the database takes equal tenant keys alone for equal."""
    return compares_exactly(column.type) and compares_exactly(target.type)


def _order(constraint: ForeignKeyConstraint) -> tuple[str, ...]:
    return tuple(constraint.column_keys)


def computes_own_link(value: Any, link: Link) -> bool:
    """True if an SQL expression can only give a key that this tenant may point to, or NULL.

    Args:
        value: the expression.
        link: the link that is written.
    """
    if isinstance(value, Null):
        return True
    if isinstance(value, Grouping | Label | SelectStatementGrouping):
        return computes_own_link(value.element, link)
    if isinstance(value, ScalarSelect):
        return computes_own_link(value.element, link)
    if isinstance(value, CompoundSelect):
        return all(computes_own_link(one, link) for one in value.selects)
    if isinstance(value, Select):
        selected = list(value._raw_columns)
        return len(selected) == 1 and computes_own_link(selected[0], link)
    if isinstance(value, ColumnElement):
        bases = list(value.base_columns)
        return bool(bases) and all(_points_alike(base, link) for base in bases)
    return False


def _points_alike(base: Any, link: Link) -> bool:
    """True if a table's column is what the link points to, or a key of the same kind."""
    if len(link.columns) != 1 or not isinstance(base, Column) or not isinstance(base.table, Table):
        return False
    (target,) = link.targets
    if base is target:
        return True
    return any(other.targets == (target,) and other.columns == (base,) for other in links_of(base.table))


def missing_rows(connection: Any, link: Link, wanted: Sequence[tuple[Any, ...]]) -> bool:
    """True if one of the rows that are to be pointed to is not there for the bound tenant.

    Args:
        connection: the connection of the statement, in its transaction.
        link: which link.
        wanted: the distinct keys.
    """
    for start in range(0, len(wanted), MOST_AT_ONCE):
        part = wanted[start : start + MOST_AT_ONCE]
        statement: Any = select(*link.targets).distinct()
        if len(link.targets) == 1:
            statement = statement.where(link.targets[0].in_([key for (key,) in part]))
        else:
            statement = statement.where(tuple_(*link.targets).in_(part))
        if len(connection.execute(statement).all()) < len(part):
            return True
    return False


def foreign_link(link: Link) -> ForeignTenantWrite:
    """Return the error of a link that points to what is not there for the bound tenant."""
    names = ", ".join(column.name for column in link.columns)
    return ForeignTenantWrite(
        f"The foreign key {link.columns[0].table.name!r}.{names} was about to point to a row of {link.table.name!r} "
        "that the bound tenant does not have.",
        mend="Read the row first, as this tenant, and use its key. A foreign key that contains the tenant keys of both "
        "tables is held by the database, without a look-up.",
    )
