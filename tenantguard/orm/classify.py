"""What a table is to the barrier: owned by tenants, a child of such a table, or shared; nothing else may be touched.

The classification stands on the table itself: a column marked as the tenant key makes it owned, `owned_through` in its
``info`` makes it a child, and `shared` makes it shared, with the reason written beside it. A table without any of these
(forgotten, reflected, made by hand with ``sqlalchemy.table()``, from another ``MetaData``) is unclassified, and every
statement that names it is refused: a new table never starts its life unprotected.
"""

from collections.abc import Callable
from typing import Any, Final, final

from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.orm import Mapped, mapped_column

from tenantguard.context import current_binding
from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard.orm.key_types import TENANT_ID_TYPE, converter_of

__all__ = [
    "Child",
    "Owned",
    "Shared",
    "TenantOwned",
    "check_metadata",
    "classify",
    "owned_through",
    "shared",
    "stamp_tenant",
    "tenant_key",
]

_INFO: Final = "tenantguard"


@final
class _TenantKey:
    """The mark on a tenant key column. One object, so that nothing that merely looks like it is taken for it."""

    def __repr__(self) -> str:
        return "TENANT_KEY"

    def __deepcopy__(self, memo: object) -> "_TenantKey":
        return self


_TENANT_KEY: Final = _TenantKey()


@final
class Owned:
    """An owned table: every row belongs to the tenant that its key column names."""

    __slots__ = ("column", "convert")

    def __init__(self, column: Column[Any], convert: Callable[[str], object]) -> None:
        self.column = column
        self.convert = convert


@final
class Child:
    """A table without a tenant key: each row belongs to the tenant of the row that its foreign key points to.

    Args:
        columns: the columns of the foreign key.
        targets: the parent's columns that they point to.
    """

    __slots__ = ("columns", "targets")

    def __init__(self, columns: tuple[Column[Any], ...], targets: tuple[Column[Any], ...]) -> None:
        self.columns = columns
        self.targets = targets

    @property
    def parent(self) -> Table:
        """The parent table."""
        table = self.targets[0].table
        assert isinstance(table, Table)
        return table


@final
class _Through:
    """The mark on a child table."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def __repr__(self) -> str:
        return f"owned_through({', '.join(map(repr, self.names))})"

    def __deepcopy__(self, memo: object) -> "_Through":
        return self


@final
class Shared:
    """A table whose rows belong to no tenant, by declaration.

    Args:
        reason: why everybody may see its rows.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Shared({self.reason!r})"


def shared(reason: str) -> dict[str, object]:
    """Declare a table to be shared by all tenants: ``__table_args__ = {"info": shared("countries: reference data")}``.

    Rows of a shared table are read and written unscoped by every tenant.

    Args:
        reason: why that is right, in words that an auditor understands.

    Raises:
        ConfigurationError: the reason is empty.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            "shared() needs a reason in words.", mend='For example: shared("countries: reference data").'
        )
    return {_INFO: Shared(reason.strip())}


def owned_through(*parent: str) -> dict[str, object]:
    """Declare a table to belong to its parent's tenant: ``__table_args__ = {"info": owned_through("documents")}``.

    For tables without a tenant key of their own. Its rows are read where the parent's row is the tenant's; the parent
    of a row that is written must be the tenant's. It works at any depth. Tables of joined inheritance, whose primary
    key points to the parent's, need no declaration.

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
    return {_INFO: _Through(parent)}


def stamp_tenant() -> str | None:
    """Return the bound tenant's id, as the default of tenant key columns; ``None`` where none is bound.

    It never raises: the barrier refuses the statement itself, with a clear error, if the value is missing.
    """
    binding = current_binding()
    if binding is None or binding.system is not None or binding.identity is None or binding.identity.tenant is None:
        return None
    return binding.identity.tenant.id


def tenant_key() -> dict[str, object]:
    """Mark a column of your own as the tenant key: ``mapped_column(ForeignKey("orgs.id"), info=tenant_key())``.

    The column must be NOT NULL, of a string, integer or UUID type. The barrier fills it on insert.
    """
    return {_INFO: _TENANT_KEY}


class TenantOwned:
    """Mixin of models whose every row belongs to one tenant. The declaration is the whole opt-in.

    It adds the column ``tenant_id``, indexed, filled on insert with the bound tenant and unchangeable after.
    """

    tenant_id: Mapped[str] = mapped_column(
        TENANT_ID_TYPE, default=stamp_tenant, index=True, nullable=False, info={_INFO: _TENANT_KEY}
    )


def _target_name(constraint: ForeignKeyConstraint) -> str:
    return constraint.elements[0].target_fullname.split(".")[-2]


def _child(table: Table, mark: _Through | None) -> Child | None:
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
            one
            for one in constraints
            if set(mark.names) == set(one.column_keys)
            or mark.names == (one.elements[0].target_fullname.split(".")[-2],)
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
            parent = classify(targets[0].table)
        except (NoReferenceError, UnclassifiedTable):
            continue
        if not isinstance(parent, Shared) and targets[0].table is not table:
            return Child(columns, targets)
    if mark is not None:
        raise ConfigurationError(
            f"The table {table.name!r} is {mark!r}, which belongs to no tenant.",
            mend="Make the parent TenantOwned, or declare this table shared as well.",
        )
    return None


def classify(table: object) -> Owned | Child | Shared:
    """Return what a table is to the barrier: owned by its key, owned through its parent, or shared.

    Raises:
        UnclassifiedTable: it is neither owned nor shared, or is no `sqlalchemy.Table` at all.
        ConfigurationError: the marks contradict each other or the key can't serve.
    """
    if not isinstance(table, Table):
        name = getattr(table, "name", type(table).__name__)
        raise UnclassifiedTable(
            f"The table {name!r} is known by its name alone, so the barrier can't tell whose rows it holds.",
            mend="Use the mapped class or the Table of your MetaData.",
        )
    mark = table.info.get(_INFO)
    keys = [column for column in table.columns if column.info.get(_INFO) is _TENANT_KEY]
    if isinstance(mark, Shared):
        if keys:
            raise ConfigurationError(
                f"The table {table.name!r} is declared shared and has the tenant key {keys[0].name!r}.",
                mend="Remove one of the two.",
            )
        return mark
    if not keys:
        child = _child(table, mark if isinstance(mark, _Through) else None)
        if child is not None:
            return child
        raise UnclassifiedTable(
            f"The table {table.name!r} is neither owned by tenants nor shared.",
            mend="Make its model TenantOwned, mark its tenant column with info=tenant_key(), or declare it with "
            'info=owned_through("parent") or info=shared("why").',
        )
    key = keys[0]
    if len(keys) > 1 or key.nullable:
        fault = "has several tenant keys" if len(keys) > 1 else f"has the tenant key {key.name!r}, which may be NULL"
        raise ConfigurationError(f"The table {table.name!r} {fault}.", mend="Have one tenant key, nullable=False.")
    return Owned(key, converter_of(table.name, key))


def check_metadata(metadata: MetaData) -> None:
    """Check at start that every table of a MetaData is classified.

    Raises:
        ConfigurationError: some are not; the message names each.
    """
    faults: list[str] = []
    for table in metadata.sorted_tables:
        try:
            classify(table)
        except (UnclassifiedTable, ConfigurationError) as error:
            faults.append(error.message)
    if faults:
        raise ConfigurationError(
            " ".join(faults),
            mend='Make the models TenantOwned, or declare tables that all tenants share with info=shared("why").',
        )
