"""What a table is to the barrier: owned by tenants, or shared; nothing else may be touched.

The classification stands on the table itself: a column marked as the tenant key makes it owned, `shared` in its
``info`` makes it shared, with the reason written beside it. A table without either (forgotten, reflected, made
by hand with ``sqlalchemy.table()``, from another ``MetaData``) is unclassified, and every statement that names
it is refused: a new table never starts its life unprotected.
"""

import uuid
from collections.abc import Callable
from typing import Any, Final, final

from sqlalchemy import Column, MetaData, String, Table
from sqlalchemy.orm import Mapped, mapped_column

from tenantguard.context import current_binding
from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard.identity import MAX_TENANT_ID_LENGTH

__all__ = ["Owned", "Shared", "TenantOwned", "check_metadata", "classify", "shared", "stamp_tenant", "tenant_key"]

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
        String(MAX_TENANT_ID_LENGTH), default=stamp_tenant, index=True, nullable=False, info={_INFO: _TENANT_KEY}
    )


def _convert_for(table: Table, column: Column[Any]) -> Callable[[str], object]:
    try:
        kind: type[Any] = column.type.python_type
    except NotImplementedError:
        kind = object
    if issubclass(kind, str):
        return str
    if issubclass(kind, bool) or not issubclass(kind, int | uuid.UUID):
        raise ConfigurationError(
            f"The tenant key {table.name}.{column.name} is of type {column.type!r}.",
            mend="Use a string, an integer or a UUID column.",
        )
    return int if issubclass(kind, int) else uuid.UUID


def classify(table: object) -> Owned | Shared:
    """Return what a table is to the barrier.

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
        raise UnclassifiedTable(
            f"The table {table.name!r} is neither owned by tenants nor shared.",
            mend="Make its model TenantOwned, mark its tenant column with info=tenant_key(), or declare it with "
            'info=shared("why").',
        )
    key = keys[0]
    if len(keys) > 1 or key.nullable:
        fault = "has several tenant keys" if len(keys) > 1 else f"has the tenant key {key.name!r}, which may be NULL"
        raise ConfigurationError(f"The table {table.name!r} {fault}.", mend="Have one tenant key, nullable=False.")
    return Owned(key, _convert_for(table, key))


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
