"""What a table is to the barrier: owned by tenants, a child of such a table, or shared; nothing else may be touched.

The classification is read from the marks on the table (`tenantguard.orm.marks`). A table without any (forgotten,
reflected, made by hand with ``sqlalchemy.table()``) is unclassified, and every statement that names it is refused: a
new table never starts its life unprotected.

A class, once read, is for good. A table that changes its class, its name or its key's name at run time is refused, and
so is one of two tables of the same name that are classified differently: one of them would be a way round the other.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, final
from weakref import WeakKeyDictionary

from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql.annotation import Annotated
from sqlalchemy.sql.selectable import AliasedReturnsRows

from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard.orm.key_types import converter_of
from tenantguard.orm.marks import INFO, TENANT, WIDE, KeyMark, OwnedMark, Shared, ThroughMark, Wide, mark_of
from tenantguard.orm.tables import generation, namesakes

__all__ = [
    "NO_GLOBAL",
    "Child",
    "Key",
    "Kind",
    "Owned",
    "Shared",
    "belongs_to_tenants",
    "check_metadata",
    "classify",
    "classify_alone",
    "real_table",
    "table_of",
]

NO_GLOBAL: Final = object()
"""The key's value of rows for everybody, where there are none."""


@final
class Key(NamedTuple):
    """A column that says whose a row is.

    Args:
        column: the column.
        convert: makes its value from an id; raises ValueError where the id does not fit.
        dimension: ``"tenant"``, or a dimension inside it.
    """

    column: Column[Any]
    convert: Callable[[str], object]
    dimension: str


@final
class Owned:
    """An owned table: every row belongs to the tenant that its key column names.

    Args:
        key: the tenant key.
        narrower: the keys of dimensions inside the tenant.
        everyone: the key's value of rows for everybody; ``None`` is NULL, `NO_GLOBAL` means that there are none.
        through: the parent through which it is narrowed in dimensions of which it has no key.
        wide: the dimensions that it is open in.
    """

    __slots__ = ("everyone", "key", "narrower", "through", "wide")

    def __init__(
        self, key: Key, narrower: tuple[Key, ...], everyone: object, through: "Child | None", wide: Wide | None
    ) -> None:
        self.key = key
        self.narrower = narrower
        self.everyone = everyone
        self.through = through
        self.wide = wide

    @property
    def column(self) -> Column[Any]:
        """The tenant key's column."""
        return self.key.column

    @property
    def convert(self) -> Callable[[str], object]:
        """Makes the tenant key's value from a tenant's id."""
        return self.key.convert


@final
class Child:
    """A table without a tenant key: each row belongs to the tenant of the row that its foreign key points to.

    Args:
        columns: the columns of the foreign key.
        targets: the parent's columns that they point to.
        narrower: keys of dimensions inside the tenant, of its own.
        wide: the dimensions that it is open in.
    """

    __slots__ = ("columns", "narrower", "targets", "wide")

    def __init__(
        self,
        columns: tuple[Column[Any], ...],
        targets: tuple[Column[Any], ...],
        narrower: tuple[Key, ...],
        wide: Wide | None,
    ) -> None:
        self.columns = columns
        self.targets = targets
        self.narrower = narrower
        self.wide = wide

    @property
    def parent(self) -> Table:
        """The parent table."""
        table = self.targets[0].table
        assert isinstance(table, Table)
        return table


Kind: TypeAlias = Owned | Child | Shared


class _Known(NamedTuple):
    """What was read from a table, and what it was read from."""

    kind: Kind
    mark: object
    names: tuple[object, ...]


_known: Final[WeakKeyDictionary[Table, _Known]] = WeakKeyDictionary()
_compared: Final[WeakKeyDictionary[Table, int]] = WeakKeyDictionary()


def real_table(table: Any) -> Any:
    """Return the table of which an annotated copy was made, as the ORM does."""
    while isinstance(table, Annotated):
        table = table._Annotated__element  # type: ignore[attr-defined]
    return table


def table_of(element: Any) -> Any:
    """Return the table that an alias stands for, at any depth; what is no alias as it is."""
    while isinstance(element, AliasedReturnsRows):
        element = element.element
    return element


def classify(table: object) -> Kind:
    """Return what a table is to the barrier: owned by its key, owned through its parent, or shared.

    Raises:
        UnclassifiedTable: it is neither owned nor shared, or is no `sqlalchemy.Table` at all.
        ConfigurationError: the marks contradict each other, the key can't serve, the table has changed its class or
            name, or another table of its name is classified differently.
    """
    kind = classify_alone(table)
    own: Table = real_table(table)
    if _compared.get(own) != generation():
        _compare_namesakes(own, kind)
        _compared[own] = generation()
    return kind


def classify_alone(table: object) -> Kind:
    """Do the same without a look at other tables of the same name.

    Raises:
        UnclassifiedTable: see `classify`.
        ConfigurationError: see `classify`, except for the last.
    """
    return _classified(table, ())


def _classified(table: Any, above: tuple[Table, ...]) -> Kind:
    table = real_table(table)
    if not isinstance(table, Table):
        name = getattr(table, "name", type(table).__name__)
        raise UnclassifiedTable(
            f"The table {name!r} is known by its name alone, so the barrier can't tell whose rows it holds.",
            mend="Use the mapped class or the Table of your MetaData.",
        )
    known = _known.get(table)
    if known is not None and known.mark is _mark_of(table) and known.names == _names(table, known.kind):
        return known.kind
    if table in above:
        raise ConfigurationError(
            f"The table {table.name!r} is owned through itself.", mend="Give one table of the circle a tenant key."
        )
    kind = _read(table, (*above, table))
    if known is not None and (
        _signature(kind) != _signature(known.kind) or known.names[:2] != (str(table.name), table.schema)
    ):
        raise ConfigurationError(
            f"The table {table.name!r} has changed its class or its name after it was used.",
            mend="Declare it once, where it is made.",
        )
    _known[table] = _Known(kind, _mark_of(table), _names(table, kind))
    return kind


def belongs_to_tenants(table: object) -> bool:
    """True if the rows of a table belong to tenants, or if its marks are such that nobody can tell."""
    if not isinstance(table, Table):
        return False
    try:
        return not isinstance(classify_alone(table), Shared)
    except UnclassifiedTable:
        return False  # of another library's engine
    except ConfigurationError:
        return True


def _mark_of(table: Table) -> object:
    return mark_of(table) or mark_of(table.metadata)


def _names(table: Table, kind: Kind) -> tuple[object, ...]:
    own = () if isinstance(kind, Shared) else (kind.key.column.name,) if isinstance(kind, Owned) else ()
    return (str(table.name), table.schema, len(table.columns), len(table.foreign_key_constraints), *own)


def _signature(kind: Kind) -> tuple[object, ...]:
    if isinstance(kind, Shared):
        return ("shared",)
    if isinstance(kind, Owned):
        return ("owned", kind.column.name, *(key.column.name for key in kind.narrower))
    return ("child", *(column.name for column in kind.columns), kind.parent.name)


def _compare_namesakes(table: Table, kind: Kind) -> None:
    """Refuse the table if another one of its name is classified differently."""
    for other in namesakes(table):
        try:
            theirs = classify_alone(other)
        except (UnclassifiedTable, ConfigurationError, NoReferenceError):
            continue  # nothing passes through it
        if _signature(theirs) != _signature(kind) and not isinstance(theirs, Shared):
            raise ConfigurationError(
                f"Two tables are named {table.name!r}, and they say differently whose rows they hold.",
                mend="If they are one table, classify both alike. If they are in two databases, tell each engine its "
                "own: protect(engine, metadata=Base.metadata).",
            )


def _read(table: Table, above: tuple[Table, ...]) -> Kind:
    mark = mark_of(table)
    marked = [(one, column) for column in table.columns if isinstance(one := mark_of(column), KeyMark)]
    keys = {one.dimension: column for one, column in marked}
    if len(marked) > len(keys):
        raise ConfigurationError(
            f"The table {table.name!r} has several keys of one dimension.", mend="Mark one column for each."
        )
    global_rows: Any = mark_of(keys[TENANT]).global_rows if TENANT in keys else False
    if mark is None and TENANT not in keys and (rule := mark_of(table.metadata)) is not None:
        mark = (rule(table) or {}).get(INFO)
    if isinstance(mark, OwnedMark):
        if keys:
            raise _contradiction(table, "owned()", keys)
        keys, global_rows = _named(table, mark), mark.global_rows
    if isinstance(mark, Shared):
        if keys:
            raise _contradiction(table, "shared()", keys)
        return mark
    wide = mark_of(table, WIDE)
    narrower = tuple(
        Key(column, converter_of(table.name, column), name) for name, column in keys.items() if name != TENANT
    )
    through = mark if isinstance(mark, ThroughMark) else None
    if TENANT not in keys:
        child = _child(table, through, narrower, wide, above)
        if child is not None:
            return child
        raise UnclassifiedTable(
            f"The table {table.name!r} is neither owned by tenants nor shared.",
            mend="Make its model TenantOwned, mark its tenant column with info=tenant_key(), or declare it with "
            'info=owned_through("parent") or info=shared("why").',
        )
    column = keys[TENANT]
    everyone = _everyone(table, column, global_rows)
    if column.nullable and everyone is not None:
        raise ConfigurationError(
            f"The table {table.name!r} has the tenant key {column.name!r}, which may be NULL.",
            mend="Have it nullable=False, or tenant_key(global_rows=True) if rows without a tenant are for everybody.",
        )
    convert = converter_of(table.name, column)
    if everyone is not NO_GLOBAL and everyone is not None:
        convert = _other_than(convert, everyone)
    parent = _child(table, through, (), None, above) if through is not None else None
    return Owned(Key(column, convert, TENANT), narrower, everyone, parent, wide if isinstance(wide, Wide) else None)


def _contradiction(table: Table, mark: str, keys: dict[str, Column[Any]]) -> ConfigurationError:
    names = ", ".join(repr(column.name) for column in keys.values())
    return ConfigurationError(
        f"The table {table.name!r} is declared {mark} and has the key {names}.", mend="Remove one of the two."
    )


def _named(table: Table, mark: OwnedMark) -> dict[str, Column[Any]]:
    missing = [name for name in mark.columns.values() if name not in table.columns]
    if missing:
        raise ConfigurationError(
            f"The table {table.name!r} is {mark!r}, and has no column {', '.join(map(repr, missing))}.",
            mend="Name the column that holds the tenant.",
        )
    return {dimension: table.columns[name] for dimension, name in mark.columns.items()}


def _everyone(table: Table, column: Column[Any], global_rows: Any) -> object:
    if global_rows is False:
        return NO_GLOBAL
    if global_rows is True:
        if not column.nullable:
            raise ConfigurationError(
                f"The tenant key of {table.name!r} marks rows for everybody by NULL, and may not be NULL.",
                mend="Have it nullable=True, or give the value that marks them: tenant_key(global_rows='*').",
            )
        return None
    return global_rows


def _other_than(convert: Callable[[str], object], everyone: object) -> Callable[[str], object]:
    def checked(tenant_id: str) -> object:
        value = convert(tenant_id)
        if value == everyone:
            raise ValueError("the value that marks rows for everybody is no tenant")
        return value

    return checked


def _child(
    table: Table, mark: ThroughMark | None, narrower: tuple[Key, ...], wide: Any, above: tuple[Table, ...]
) -> Child | None:
    """Return the table as a child, if it is declared to be one, or is an extension of its parent's rows.

    Raises:
        ConfigurationError: it is declared to be one and has no foreign key that can serve.
    """
    constraints = list(table.foreign_key_constraints)
    if mark is None:
        # Joined inheritance: the primary key is the parent's.
        own = set(table.primary_key.columns)
        constraints = [one for one in constraints if own and {e.parent for e in one.elements} == own]
    else:
        constraints = [
            one for one in constraints if set(mark.names) == set(one.column_keys) or mark.names == (_target(one),)
        ]
        if len(constraints) != 1:
            raise ConfigurationError(
                f"The table {table.name!r} is {mark!r}, and has {len(constraints)} foreign keys of that name.",
                mend="Name the columns of the one foreign key that says whose the row is.",
            )
    for constraint in constraints:
        columns = tuple(element.parent for element in constraint.elements)
        if any(column.nullable for column in columns):
            raise ConfigurationError(
                f"The foreign key of {table.name!r} that says whose the row is may be NULL.", mend="Set nullable=False."
            )
        try:
            targets = tuple(element.column for element in constraint.elements)
            if targets[0].table is table:
                continue
            parent = _classified(targets[0].table, above)
        except (NoReferenceError, UnclassifiedTable):
            continue
        if not isinstance(parent, Shared):
            return Child(columns, targets, narrower, wide if isinstance(wide, Wide) else None)
    if mark is not None:
        raise ConfigurationError(
            f"The table {table.name!r} is {mark!r}, which belongs to no tenant.",
            mend="Make the parent TenantOwned, or declare this table shared as well.",
        )
    return None


def _target(constraint: ForeignKeyConstraint) -> str:
    return constraint.elements[0].target_fullname.split(".")[-2]


def check_metadata(*metadata: MetaData) -> None:
    """Check at start that every table of one or several MetaData is classified.

    Raises:
        ConfigurationError: some are not; the message names each.
    """
    faults: list[str] = []
    for table in (table for one in metadata for table in one.tables.values()):
        try:
            classify_alone(table)
        except (UnclassifiedTable, ConfigurationError) as error:
            faults.append(error.message)
    if faults:
        raise ConfigurationError(
            " ".join(faults),
            mend='Make the models TenantOwned, or declare tables that all tenants share with info=shared("why").',
        )
