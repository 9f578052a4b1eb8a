"""What the database itself changes as rows are deleted: foreign keys with ``DB_CASCADE`` and its like (Django 6.1).

Django's own cascades are queries, which are scoped like any other. What the database does by itself passes no
predicate, so a DELETE that sets it off is refused unless everything it reaches belongs to the tenant of the deleted
rows: that is so for a foreign key from one tenant's table to another, since the barrier lets none point across
tenants, and not for one to a shared table.
"""

from typing import Any, Final

from django.db.models import deletion

from tenantguard_django.orm.classify import Kind, Owned, Shared, kind_of, kind_of_model

__all__ = ["reach_of_delete"]

_BY_DATABASE: Final[type | None] = getattr(deletion, "DatabaseOnDelete", None)


def reach_of_delete(table: str, *, narrowed: bool) -> str | None:
    """Return the foreign key by which deleting rows of a table may change rows that are not the bound tenant's.

    Args:
        table: whose rows are to be deleted.
        narrowed: whether the bound identity is narrowed to a part of its tenant.

    Returns:
        Its name, or ``None`` if there is no such key.

    Raises:
        UnclassifiedTable: the database would change an unclassified table.
        ConfigurationError: the declaration of a table that the database would change can't serve.
    """
    if _BY_DATABASE is None:
        return None
    ahead, met = [kind_of(table)], {table}
    while ahead:
        kind = ahead.pop()
        for relation in kind.model._meta.get_fields(include_hidden=True):
            on_delete = getattr(relation, "on_delete", None)
            if relation.concrete or not isinstance(on_delete, _BY_DATABASE):
                continue
            source = kind_of_model(relation.related_model)
            if not isinstance(source, Shared) and (
                narrowed or isinstance(kind, Shared) or _moves(source, relation.field, on_delete)
            ):
                return f"{relation.related_model._meta.label}.{relation.field.name}"
            if on_delete is deletion.DB_CASCADE and source.table not in met:
                met.add(source.table)
                ahead.append(source)
    return None


def _moves(source: Kind, field: Any, on_delete: Any) -> bool:
    """True if a row may belong to somebody else afterwards, or point to another tenant's row."""
    return on_delete is deletion.DB_SET_DEFAULT or (
        on_delete is deletion.DB_SET_NULL and isinstance(source, Owned) and field is source.key.field
    )
