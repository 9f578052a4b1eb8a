"""The names of `tests.orm.silo.programs` with the tenant's filter written by hand, as one would without the barrier.

Each table is replaced by ``(SELECT * FROM table WHERE tenant_id = 'a')``, and each mapped class by an alias on such a
subquery; a child is filtered through its parents, in its own words. The same source of a query that runs through the
barrier runs with these names on a connection without it.
"""

from typing import Any, Final

from sqlalchemy import Table, exists, select
from sqlalchemy import inspect as sqlalchemy_inspect
from sqlalchemy.orm import aliased

from tests.orm.silo.programs import NAMESPACE
from tests.orm.silo.world import MODELS, TABLES

__all__ = ["handwritten_names"]

_THROUGH: Final = {"contracts": "uid", "notes": "document_uid", "replies": "document_uid", "watchers": "document_uid"}


def _criterion(table: Table, tenant: str) -> Any:
    if table.name in _THROUGH:
        documents = TABLES["documents"].alias()
        return exists().where(documents.c.uid == table.c[_THROUGH[table.name]], documents.c.tenant_id == tenant)
    key = {"ledger": "org", "countries": None}.get(table.name, "tenant_id")
    return None if key is None else table.c[key] == tenant


def _filtered(statement: Any, tables: Any, tenant: str) -> Any:
    for table in tables:
        criterion = _criterion(table, tenant)
        if criterion is not None:
            statement = statement.where(criterion)
    return statement


def _is_stored(attribute: Any) -> bool:
    return attribute.columns[0].table is not None


def handwritten_names(dialect: str, tenant: str) -> dict[str, Any]:
    """Return the namespace.

    Args:
        dialect: ``"sqlite"`` or ``"postgresql"``.
        tenant: whose rows the filters let through.
    """

    def entity(model: Any, name: str | None = None) -> Any:
        mapper = model.__mapper__
        if len(mapper.tables) == 1:
            # Of the table, without the criterion of single-table inheritance, which stands where SQLAlchemy puts it.
            selected = select(mapper.local_table)
        else:
            selected = select(*(getattr(model, key) for key, one in mapper.column_attrs.items() if _is_stored(one)))
        return aliased(model, _filtered(selected, mapper.tables, tenant).subquery(name))

    def own_aliased(target: Any, selectable: Any = None, *, name: str | None = None) -> Any:
        model = sqlalchemy_inspect(target).mapper.class_
        return entity(model, name) if selectable is None else aliased(model, selectable)

    names = {model.__name__: entity(model) for model in MODELS}
    tables = {name: _filtered(select(table), [table], tenant).subquery(name) for name, table in TABLES.items()}
    return NAMESPACE[dialect] | names | tables | {"aliased": own_aliased}
