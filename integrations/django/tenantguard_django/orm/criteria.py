"""The WHERE of a scoped statement: the predicates, and after them the author's criteria in parentheses of their own."""

from typing import Any

from django.core.exceptions import FullResultSet
from django.db.models.sql.constants import INNER
from django.db.models.sql.datastructures import Join

from tenantguard_django.orm.classify import Child, kind_of
from tenantguard_django.orm.failing import can_fail
from tenantguard_django.orm.vouching import sound_classes

__all__ = ["Guarded", "follows", "guarded"]


class Guarded:
    """WHERE with the predicate before the author's criteria."""

    __slots__ = ("condition", "criteria", "params", "sql")

    def __init__(
        self,
        sql: str,
        params: list[object],
        criteria: Any,
        condition: tuple[str, list[object]] | None = None,
    ) -> None:
        self.sql = sql
        self.params = params
        self.criteria = criteria
        self.condition = condition
        """What must hold before the criteria are evaluated, where these can fail."""

    def as_sql(self, compiler: Any, _connection: Any) -> tuple[str, list[object]]:
        compiler.pending = False
        try:
            sql, params = compiler.compile(self.criteria) if self.criteria is not None else ("", ())
        except FullResultSet:
            sql, params = "", ()
        if not sql:
            return self.sql, self.params
        if self.condition is not None:
            sql = f"CASE WHEN {self.condition[0]} THEN ({sql}) ELSE FALSE END"
            params = [*self.condition[1], *params]
        return (f"{self.sql} AND ({sql})" if self.sql else sql), [*self.params, *params]


sound_classes.add(Guarded)


def guarded(found: tuple[str, list[object]], criteria: Any) -> Guarded:
    """Return the WHERE of a statement on one table."""
    return Guarded(*found, criteria, found if can_fail(criteria) else None)


def follows(query: Any, alias: str, clause: Any) -> bool:
    """True for a child table whose predicate follows from its parent's, which the same FROM joins by the owning key."""
    kind = kind_of(clause.table_name)
    if not isinstance(kind, Child) or kind.narrower:
        return False
    if clause.__class__ is Join:
        if clause.filtered_relation is not None and can_fail(clause.filtered_relation):
            return False  # whose condition is evaluated on rows that the predicate must have let through
        parent = query.alias_map.get(clause.parent_alias)
        turned = tuple((own, theirs) for theirs, own in clause.join_cols)
        return bool(parent is not None and parent.table_name == kind.parent.table and turned == kind.pairs)
    return any(
        other.__class__ is Join
        and other.join_type == INNER
        and other.parent_alias == alias
        and other.table_name == kind.parent.table
        and other.join_cols == kind.pairs
        and query.alias_refcount[name]
        for name, other in query.alias_map.items()
    )
