"""How a table says whose rows it holds. The declaration stands on the table or column itself, in its ``info``.

A table has one class: owned (`TenantOwned`, `tenant_key` on a column, or `owned` on the table), a child of an owned
table (`owned_through`), or shared by all (`shared`, with the reason beside it). For schemas that were not written for
this, `classify_by` asks a rule about each table of a MetaData. What the marks mean is in `tenantguard.orm.classify`.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, final

from sqlalchemy import Column, ColumnDefault, MetaData, String, Table, event
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.schema import SchemaItem

from tenantguard.binding import bound_id, current_binding
from tenantguard.errors import ConfigurationError
from tenantguard.orm.key_types import TENANT_ID_TYPE, converter_of

__all__ = [
    "ClassificationRule",
    "TenantOwned",
    "classify_by",
    "mark_of",
    "owned",
    "owned_through",
    "scope_key",
    "shared",
    "stamp_tenant",
    "tenant_key",
    "wide",
]

INFO: Final = "tenantguard"
WIDE: Final = "tenantguard.wide"
TENANT: Final = "tenant"

GlobalRows: TypeAlias = bool | int | str | uuid.UUID
ClassificationRule: TypeAlias = Callable[[Table], "Mapping[str, object] | None"]
"""Takes a table, returns what `owned`, `owned_through` or `shared` returns, or ``None`` where it says nothing."""


class _Mark:
    """A mark in an ``info``: compared by identity, kept by copies of the table."""

    __slots__ = ()

    def __deepcopy__(self, memo: object) -> "_Mark":
        return self

    def __copy__(self) -> "_Mark":
        return self


@final
class KeyMark(_Mark):
    """The mark on a column whose value says whose the row is: the tenant's, or a narrower dimension's."""

    __slots__ = ("dimension", "global_rows")

    def __init__(self, dimension: str, global_rows: GlobalRows = False) -> None:
        self.dimension = dimension
        self.global_rows = global_rows

    def __repr__(self) -> str:
        return f"KeyMark({self.dimension!r})"


@final
class OwnedMark(_Mark):
    """The mark on a table whose key columns are named there instead of being marked themselves."""

    __slots__ = ("columns", "global_rows")

    def __init__(self, columns: Mapping[str, str], global_rows: GlobalRows) -> None:
        self.columns = dict(columns)
        self.global_rows = global_rows

    def __repr__(self) -> str:
        return f"owned({self.columns[TENANT]!r})"


@final
class ThroughMark(_Mark):
    """The mark on a child table."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __repr__(self) -> str:
        return f"owned_through({', '.join(map(repr, self.names))})"


@final
class Shared(_Mark):
    """A table whose rows belong to no tenant, by declaration.

    Args:
        reason: why everybody may see its rows.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Shared({self.reason!r})"


@final
class Wide(_Mark):
    """What a table says of dimensions that it has no key for.

    Args:
        dimensions: whom the table is open to although they are narrowed to one of these.
        reason: why.
        writable: whether they may write to it as well.
    """

    __slots__ = ("dimensions", "reason", "writable")

    def __init__(self, dimensions: frozenset[str], reason: str, writable: bool) -> None:
        self.dimensions = dimensions
        self.reason = reason
        self.writable = writable


def shared(reason: str) -> dict[str, object]:
    """Declare a table to be shared by all tenants: ``__table_args__ = {"info": shared("countries: reference data")}``.

    Rows of a shared table are read and written unscoped by every tenant.

    Args:
        reason: why that is right, in words that an auditor understands.

    Raises:
        ConfigurationError: the reason is empty.
    """
    return {INFO: Shared(_reason(reason, "shared()", 'shared("countries: reference data")'))}


def owned(
    tenant: str, *, dimensions: Mapping[str, str] | None = None, global_rows: GlobalRows = False
) -> dict[str, object]:
    """Declare a table to be owned, from outside: ``__table_args__ = {"info": owned("org_id")}``.

    The same as `tenant_key` on the column, for tables whose columns can't be marked.

    Args:
        tenant: the key of the column that holds the tenant.
        dimensions: the keys of columns of narrower dimensions, by dimension: ``{"workspace": "workspace_id"}``.
        global_rows: see `tenant_key`.
    """
    return {INFO: OwnedMark({TENANT: tenant, **(dimensions or {})}, global_rows)}


def owned_through(*parent: str) -> dict[str, object]:
    """Declare a table to belong to its parent's tenant: ``__table_args__ = {"info": owned_through("documents")}``.

    For tables without a tenant key of their own. Its rows are read where the parent's row is the tenant's; the parent
    of a row that is written must be the tenant's. It works at any depth. Tables of joined inheritance, whose primary
    key points to the parent's, need no declaration. A table with a tenant key may be narrowed through its parent as
    well.

    Args:
        parent: the parent table's name, or the names of the columns of the foreign key, which must be NOT NULL.

    Raises:
        ConfigurationError: no name is given.
    """
    if not parent or not all(isinstance(name, str) and name for name in parent):
        raise ConfigurationError(
            "owned_through() needs the parent's table or the foreign key's columns.",
            mend='For example owned_through("documents") or owned_through("document_id").',
        )
    return {INFO: ThroughMark(parent)}


def wide(*dimensions: str, reason: str, writable: bool = False) -> dict[str, object]:
    """Let a table without a dimension's key be read by those who are narrowed in it.

    Without this, an identity that is narrowed to a workspace is refused every table that has no workspace key, since
    nothing says which rows are its own: ``__table_args__ = {"info": wide("workspace", reason="plans: all see them")}``.
    Together with another declaration: ``{**owned_through("plans"), **wide("workspace", reason="…")}``.

    Args:
        dimensions: the dimensions that the table is wider than.
        reason: why, in words that an auditor understands.
        writable: True where they may write to it as well.

    Raises:
        ConfigurationError: no dimension or no reason is given.
    """
    if not dimensions or not all(isinstance(name, str) and name for name in dimensions):
        raise ConfigurationError("wide() needs a dimension.", mend='For example wide("workspace", reason="…").')
    words = _reason(reason, "wide()", 'wide("workspace", reason="plans: all workspaces see them")')
    return {WIDE: Wide(frozenset(dimensions), words, writable)}


def _reason(reason: object, what: str, example: str) -> str:
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(f"{what} needs a reason in words.", mend=f"For example: {example}.")
    return reason.strip()


def tenant_key(*, global_rows: GlobalRows = False) -> dict[str, object]:
    """Mark a column of your own as the tenant key: ``mapped_column(ForeignKey("orgs.id"), info=tenant_key())``.

    The column is of a string, integer or UUID type, and NOT NULL. The barrier fills it on insert.

    Args:
        global_rows: which rows belong to everybody, for tables that hold a tenant's own rows and rows for all: ``True``
            for those whose key is NULL (the column must then be nullable), or a value that is no tenant's id, such as
            ``"*"`` or ``0``. Every tenant reads them beside its own. They are written in a system context alone.
    """
    return {INFO: KeyMark(TENANT, global_rows)}


def scope_key(dimension: str) -> dict[str, object]:
    """Mark a column as the key of a dimension inside the tenant: ``mapped_column(info=scope_key("workspace"))``.

    An identity that is narrowed in the dimension reads and writes the rows of its own value alone; one that is not
    narrowed reads and writes those of the whole tenant. It is filled on insert for those who are narrowed.

    Args:
        dimension: its name, as in `Identity.dimensions`; not ``"tenant"``.

    Raises:
        ConfigurationError: the name is empty or ``"tenant"``.
    """
    if not isinstance(dimension, str) or not dimension or dimension == TENANT:
        raise ConfigurationError(
            "scope_key() needs the name of a dimension inside the tenant.", mend='For example scope_key("workspace").'
        )
    return {INFO: KeyMark(dimension)}


def stamp_tenant(context: Any) -> object:
    """Return the bound tenant's id as the column takes it: ``default=stamp_tenant``.

    Key columns have such a default by themselves; it needs to be named only where a column is marked after it was put
    into its table. ``None`` where no tenant is bound. It never raises: the barrier refuses the statement itself, with a
    clear error, if the value is missing.

    Args:
        context: SQLAlchemy's execution context, which it gives to defaults.
    """
    return _bound_value(TENANT, context)


def _bound_value(dimension: str, context: Any) -> object:
    value = bound_id(current_binding(), dimension)
    column = getattr(context, "current_column", None)
    if value is None or column is None:
        return value
    if type(column.type) is String:
        return value
    try:
        return converter_of(column.table.name, column)(value)
    except (ConfigurationError, ValueError):
        return None


def fill_by_default(column: Column[Any], dimension: str) -> None:
    """Give a key column a default that fills it with what is bound, unless it has one."""
    if column.default is not None or column.server_default is not None:
        return

    def stamp(context: Any) -> object:
        return _bound_value(dimension, context)

    ColumnDefault(stamp_tenant if dimension == TENANT else stamp)._set_parent_with_dispatch(column)


def mark_of(item: Any, key: str = INFO) -> Any:
    """Return the mark on a table, column or MetaData; ``None`` where it has none, or an ``info`` of another kind."""
    if "info" not in item.__dict__ and type(item).info is SchemaItem.info:
        return None  # a look would make one
    info = item.info
    return info.get(key) if isinstance(info, Mapping) else None


def _column_attached(column: Any, _table: Any) -> None:
    mark = mark_of(column)
    if isinstance(mark, KeyMark):
        fill_by_default(column, mark.dimension)


def _table_attached(table: Any, _metadata: Any) -> None:
    mark = mark_of(table)
    if mark is None and (rule := mark_of(table.metadata)) is not None:
        mark = (rule(table) or {}).get(INFO)
    if isinstance(mark, OwnedMark):
        for dimension, name in mark.columns.items():
            if name in table.columns:
                fill_by_default(table.columns[name], dimension)


event.listen(Column, "after_parent_attach", _column_attached)
event.listen(Table, "after_parent_attach", _table_attached)


class TenantOwned:
    """Mixin of models whose every row belongs to one tenant. The declaration is the whole opt-in.

    It adds the column ``tenant_id``, indexed, filled on insert with the bound tenant and unchangeable after.
    """

    tenant_id: Mapped[str] = mapped_column(
        TENANT_ID_TYPE, default=stamp_tenant, index=True, nullable=False, info={INFO: KeyMark(TENANT)}
    )


def classify_by(rule: ClassificationRule, *metadata: MetaData) -> None:
    """Classify the tables of whole MetaData by a rule, for schemas that were not written for this.

    The rule is asked about each table that has no mark of its own, when it is first used, reflected ones included::

        def rule(table: Table) -> Mapping[str, object] | None:
            if "org_id" in table.columns:
                return owned("org_id")
            return shared("lookup tables of the old schema") if table.name.startswith("lu_") else None

        classify_by(rule, Base.metadata)

    Args:
        rule: returns what `owned`, `owned_through` or `shared` returns, or ``None``: the table stays unclassified, and
            every statement that names it is refused.
        metadata: one or several.

    Raises:
        ConfigurationError: the rule can't be called, or no MetaData is given.
    """
    targets: Iterable[object] = metadata
    if not callable(rule) or not metadata or not all(isinstance(one, MetaData) for one in targets):
        raise ConfigurationError(
            "classify_by() needs a function and a MetaData.", mend="For example classify_by(rule, Base.metadata)."
        )
    for one in metadata:
        one.info[INFO] = rule
        for table in one.tables.values():
            _table_attached(table, one)
