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

from sqlalchemy import Column, ForeignKeyConstraint, FromClause, Table, or_, select, tuple_
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql.elements import ColumnElement, Grouping, Label, Null
from sqlalchemy.sql.selectable import CompoundSelect, ScalarSelect, Select, SelectStatementGrouping

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, UnclassifiedTable
from tenantguard.orm.classify import NO_GLOBAL, Child, Key, Kind, Owned, Shared, classify_alone
from tenantguard.orm.marks import TENANT

__all__ = ["Link", "LinkCheck", "computes_own_link", "foreign_link", "links_of", "missing_rows"]

MOST_AT_ONCE: Final = 500
"""How many keys one look-up asks for."""


class Link(NamedTuple):
    """A foreign key to a table that belongs to tenants.

    Args:
        columns: the columns that point.
        targets: the columns that are pointed to.
        owns: True where the key says whose the row is, so that what it points to must be the tenant's own to write.
        held: the dimensions in which the database itself holds it, since it contains their keys of both tables.
    """

    columns: tuple[Column[Any], ...]
    targets: tuple[Column[Any], ...]
    owns: bool = False
    held: frozenset[str] = frozenset()

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
        names: the parameters that hold its values, one per column; a key where it is the key's bound value.
        own: the parameters in which the same statement inserts what may be pointed to; empty where it does not.
    """

    link: Link
    names: tuple[str | Key, ...]
    own: tuple[str | Key, ...] = ()


_links: Final[WeakKeyDictionary[Table, tuple[int, tuple[Link, ...]]]] = WeakKeyDictionary()


def links_of(table: Table, narrowed: frozenset[str] = frozenset()) -> tuple[Link, ...]:
    """Return the links of a table that the database alone does not hold.

    Args:
        table: the table that points.
        narrowed: the dimensions that the bound identity is narrowed in, inside its tenant.
    """
    known = _links.get(table)
    if known is None or known[0] != len(table.foreign_key_constraints):
        known = _links[table] = (len(table.foreign_key_constraints), tuple(_found(table)))
    return tuple(link for link in known[1] if not link.held >= {TENANT, *narrowed})


def _found(table: Table) -> Iterable[Link]:
    own = classify_alone(table)
    for constraint in sorted(table.foreign_key_constraints, key=_order):
        try:
            targets = tuple(element.column for element in constraint.elements)
            target = classify_alone(targets[0].table)
        except (NoReferenceError, UnclassifiedTable, ConfigurationError):
            continue  # a table that no statement may name
        if isinstance(target, Shared):
            continue
        columns = tuple(element.parent for element in constraint.elements)
        through = own if isinstance(own, Child) else own.through if isinstance(own, Owned) else None
        owns = through is not None and through.columns == columns
        yield Link(columns, targets, owns, _held_within(own, target, columns, targets))


def _held_within(
    own: Kind, target: Owned | Child, columns: tuple[Column[Any], ...], targets: tuple[Column[Any], ...]
) -> frozenset[str]:
    """Return the dimensions whose keys, of both tables, the foreign key contains."""
    if not isinstance(own, Owned) or not isinstance(target, Owned):
        return frozenset()
    theirs = {key.dimension: key.column for key in (target.key, *target.narrower)}
    return frozenset(
        key.dimension
        for key in (own.key, *own.narrower)
        if any(c is key.column and t is theirs.get(key.dimension) for c, t in zip(columns, targets, strict=True))
    )


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


def missing_rows(connection: Any, link: Link, wanted: Sequence[tuple[Any, ...]], binding: Binding) -> bool:
    """True if one of the rows that are to be pointed to is not there for the bound tenant.

    Args:
        connection: the connection of the statement, in its transaction.
        link: which link.
        wanted: the distinct keys.
        binding: who writes it.
    """
    reads = select(*link.targets).distinct()
    if link.owns or binding.mode is not None:
        # What is only read (rows for everybody, those of further tenants) may not become the owner of a row.
        reads = reads.where(_own_rows(link.table, binding, everybody=not link.owns))
    for start in range(0, len(wanted), MOST_AT_ONCE):
        part = wanted[start : start + MOST_AT_ONCE]
        if len(link.targets) == 1:
            statement = reads.where(link.targets[0].in_([key for (key,) in part]))
        else:
            statement = reads.where(tuple_(*link.targets).in_(part))
        if len(connection.execute(statement).all()) < len(part):
            return True
    return False


def _own_rows(table: FromClause, binding: Binding, *, everybody: bool) -> ColumnElement[bool]:
    kind = classify_alone(getattr(table, "element", table))
    assert isinstance(kind, Owned | Child)
    if isinstance(kind, Child):
        parent = kind.parent.alias()
        keys = select(*(parent.c[column.key] for column in kind.targets))
        own = [table.c[column.key] for column in kind.columns]
        above = keys.where(_own_rows(parent, binding, everybody=everybody))
        return own[0].in_(above) if len(own) == 1 else tuple_(*own).in_(above)
    assert binding.identity is not None
    assert binding.identity.tenant is not None
    column = table.c[kind.column.key]
    mine = column == kind.convert(binding.identity.tenant.id)
    if not everybody or kind.everyone is NO_GLOBAL:
        return mine
    return or_(mine, column.is_(None) if kind.everyone is None else column == kind.everyone)


def foreign_link(link: Link) -> ForeignTenantWrite:
    """Return the error of a link that points to what is not there for the bound tenant."""
    names = ", ".join(column.name for column in link.columns)
    return ForeignTenantWrite(
        f"The foreign key {link.columns[0].table.name!r}.{names} was about to point to a row of {link.table.name!r} "
        "that the bound tenant does not have.",
        mend="Read the row first, as this tenant, and use its key. A foreign key that contains the tenant keys of both "
        "tables is held by the database, without a look-up.",
    )
