"""Foreign keys do not point across tenants.

Where a foreign key contains the tenant keys of both tables, the database itself holds that. Every other foreign key to
a table that belongs to tenants is a link that is checked when it is written: just before the statement, the rows that
it is about to point to are looked up in the same transaction, by a statement that is scoped like any other. What is
not there for this tenant can't be pointed to, whether it exists for another or not at all.

The value must be known for that. A value that an SQL expression computes is refused, unless the expression is a column
that is itself such a key, or the key that it points to, read by a scoped statement.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Column, ForeignKeyConstraint, FromClause, Table, bindparam, or_, select, tuple_
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ColumnClause, ColumnElement, Grouping, Label, Null, _anonymous_label
from sqlalchemy.sql.selectable import (
    CTE,
    Alias,
    CompoundSelect,
    FromGrouping,
    Join,
    Lateral,
    ScalarSelect,
    Select,
    SelectStatementGrouping,
    Subquery,
    TableSample,
)

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, UnclassifiedTable
from tenantguard.orm.classify import NO_GLOBAL, Child, Key, Kind, Owned, Shared, classify_alone, real_table
from tenantguard.orm.key_types import compares_exactly, equals_value, is_among
from tenantguard.orm.marks import TENANT

__all__ = [
    "Link",
    "LinkCheck",
    "computes_own_link",
    "foreign_link",
    "invents_value",
    "links_of",
    "missing_rows",
    "selects_own_link",
]

_NUMBERED: Final = re.compile(r"_[0-9a-f]{1,4}$")
_NOT_PLAIN: Final = re.compile(r"[.*]")

MOST_AT_ONCE: Final = 500
"""How many keys one look-up asks for."""


class Link(NamedTuple):
    """A foreign key to a table that belongs to tenants.

    Args:
        columns: the columns that point.
        targets: the columns that are pointed to; none while the table that they belong to is not known.
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
        known = (len(table.foreign_key_constraints), tuple(_found(table)))
        if all(link.targets for link in known[1]):  # else the other table may be declared later
            _links[table] = known
    return tuple(link for link in known[1] if not link.held >= {TENANT, *narrowed})


def _found(table: Table) -> Iterable[Link]:
    own = classify_alone(table)
    for constraint in sorted(table.foreign_key_constraints, key=_order):
        try:
            targets = tuple(element.column for element in constraint.elements)
            target = classify_alone(targets[0].table)
        except NoReferenceError:
            yield Link(tuple(element.parent for element in constraint.elements), ())
            continue
        except (UnclassifiedTable, ConfigurationError):
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
        if any(
            c is key.column and t is theirs.get(key.dimension) and _alike(c, t)
            for c, t in zip(columns, targets, strict=True)
        )
    )


def _alike(column: Column[Any], target: Column[Any]) -> bool:
    """True if the database takes equal tenant keys alone for equal."""
    return compares_exactly(column.type) and compares_exactly(target.type)


def _order(constraint: ForeignKeyConstraint) -> tuple[str, ...]:
    return tuple(constraint.column_keys)


def computes_own_link(value: Any, link: Link, ctes: list[CTE]) -> bool:
    """True if an SQL expression can only give a key that this tenant may point to, or NULL.

    It must be a column that can be followed, through subqueries and CTEs, to a column of a table that the statement
    reads. Names decide what the database takes it for, so no other element of the FROM list may have the table's.

    Args:
        value: the expression.
        link: the link that is written.
        ctes: takes the CTEs that the answer relies on; each must be rendered as it is.
    """
    if isinstance(value, Null):
        return True
    if isinstance(value, Grouping | Label | SelectStatementGrouping | ScalarSelect):
        return computes_own_link(value.element, link, ctes)
    if isinstance(value, Select | CompoundSelect):
        return len(value.selected_columns) == 1 and selects_own_link(value, 0, link, ctes)
    if not isinstance(value, ColumnClause):
        return False
    source: Any = value.table
    inner = source
    while isinstance(inner, Alias | TableSample):
        inner = inner.element
    if isinstance(inner, Table):
        return _points_alike(value, link)
    if not isinstance(inner, Subquery | CTE | Lateral):
        return False
    if isinstance(inner, CTE):
        ctes.append(inner)
    query: Any = inner.element
    at = _place(value, list(source.columns))
    if at is None:
        return False
    if isinstance(query, UpdateBase):
        returned: Any = list(query.exported_columns)[at]
        while isinstance(returned, Grouping | Label):
            returned = returned.element
        # Of other elements the name could mean another one.
        return real_table(getattr(returned, "table", None)) is real_table(query.table) and _points_alike(returned, link)
    return selects_own_link(query, at, link, ctes)


def _place(value: ColumnClause[Any], columns: list[Any]) -> int | None:
    """Return the place of the column that a subquery gives under a name.

    The name is what the database reads, and of two columns that are called so it may read either.

    Returns:
        ``None`` if there is none, or if several are called so or could be.
    """
    same = [column.key == value.key or _meet(column, value) for column in columns]
    return same.index(True) if same.count(True) == 1 else None


def selects_own_link(query: Any, at: int, link: Link, ctes: list[CTE]) -> bool:
    """True if one of the columns that a SELECT selects can only be such a key.

    Args:
        query: the SELECT, or a compound of several.
        at: the column's place.
        link: the link that is written.
        ctes: see `computes_own_link`.
    """
    if isinstance(query, SelectStatementGrouping):
        return selects_own_link(query.element, at, link, ctes)
    if isinstance(query, CompoundSelect):
        return all(selects_own_link(one, at, link, ctes) for one in query.selects)
    if not isinstance(query, Select):
        return False
    selected: Any = query._all_selected_columns
    if not all(map(_is_one_column, selected)):
        return False
    value: Any = selected[at]
    while isinstance(value, Grouping | Label):
        value = value.element
    source = getattr(value, "table", None)
    if source is not None and any(
        element is not source and hash(element) != hash(source) and _meet(element, source)
        for element in _elements(query.get_final_froms())
    ):
        return False
    return computes_own_link(value, link, ctes)


def _is_one_column(selected: Any) -> bool:
    """True if what a SELECT selects is one column, and has no other name for the database than for SQLAlchemy."""
    if not isinstance(selected, ColumnElement):
        return False  # text, which may be several columns
    return not (isinstance(selected, ColumnClause) and selected.is_literal and _NOT_PLAIN.search(selected.name))


def _elements(froms: Iterable[FromClause]) -> Iterator[FromClause]:
    for element in froms:
        if isinstance(element, Join):
            yield from _elements((element.left, element.right))
        elif isinstance(element, FromGrouping):
            yield from _elements((element.element,))
        else:
            yield element


def _name(element: object) -> str:
    return str(getattr(element, "name", "")).lower()


def _meet(one: object, other: object) -> bool:
    """True if two elements go by one name for the database, or could: of a name that SQLAlchemy makes, the number at
    its end is not known yet."""
    made = [isinstance(getattr(element, "name", ""), _anonymous_label) for element in (one, other)]
    if made[0] == made[1]:
        return _name(one) == _name(other)
    return bool(_NUMBERED.search(_name(other if made[0] else one)))


def _points_alike(value: Any, link: Link) -> bool:
    """True if a column of a table or its alias is what the link points to, or a key of the same kind.

    The keys in a shared table are those of any tenant.
    """
    if len(link.targets) != 1:
        return False
    base = real_table(next(iter(value.base_columns)))
    if base is link.targets[0]:
        return True
    if isinstance(classify_alone(base.table), Shared):
        return False
    return any(
        other.targets == link.targets and len(other.columns) == 1 and other.columns[0] is base
        for other in links_of(base.table)
    )


def invents_value(column: Column[Any], dialect: Any) -> bool:
    """True if a column's type sends a value where it is given ``None``."""
    process = column.type.dialect_impl(dialect).bind_processor(dialect)
    try:
        return process is not None and process(None) is not None
    except Exception:  # noqa: BLE001 - what it sends is not known
        return True


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
            # Of the type of the column that points, so that the same value is asked for that will be written.
            keys = bindparam("keys", [key for (key,) in part], expanding=True, type_=link.columns[0].type)
            statement = reads.where(link.targets[0].in_(keys))
        else:
            types = [column.type for column in link.columns]
            statement = reads.where(tuple_(*link.targets, types=types).in_(part))
        if len(connection.execute(statement).all()) < len(part):
            return True
    return False


def _own_rows(table: FromClause, binding: Binding, *, everybody: bool) -> ColumnElement[bool]:
    kind = classify_alone(getattr(table, "element", table))
    assert isinstance(kind, Owned | Child)
    if isinstance(kind, Child):
        parent = kind.parent.alias()
        keys = select(*(parent.c[column.key] for column in kind.targets))
        above = keys.where(_own_rows(parent, binding, everybody=everybody))
        return is_among([table.c[column.key] for column in kind.columns], above)
    assert binding.identity is not None
    assert binding.identity.tenant is not None
    column = table.c[kind.column.key]
    mine = equals_value(column, kind.convert(binding.identity.tenant.id))
    if not everybody or kind.everyone is NO_GLOBAL:
        return mine
    return or_(mine, column.is_(None) if kind.everyone is None else equals_value(column, kind.everyone))


def foreign_link(link: Link) -> ForeignTenantWrite:
    """Return the error of a link that points to what is not there for the bound tenant."""
    names = ", ".join(column.name for column in link.columns)
    return ForeignTenantWrite(
        f"The foreign key {link.columns[0].table.name!r}.{names} was about to point to a row of {link.table.name!r} "
        "that the bound tenant does not have.",
        mend="Read the row first, as this tenant, and use its key. A foreign key that contains the tenant keys of both "
        "tables is held by the database, without a look-up.",
    )
