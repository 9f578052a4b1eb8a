"""Criteria that can fail: a cast, a division, a function on a value that it does not take.

Databases choose the order in which they evaluate criteria, and an error on another tenant's row tells of that row, with
PostgreSQL its value. Where criteria can fail, they are put into a ``CASE`` that has the predicates as its condition,
which both databases evaluate first; everywhere else nothing changes, so that indexes stay of use.
"""

from typing import Any, Final

from django.db.models import functions
from django.db.models.expressions import (
    Case,
    Col,
    Exists,
    ExpressionList,
    ExpressionWrapper,
    F,
    NegatedExpression,
    OrderBy,
    Ref,
    ResolvedOuterRef,
    Star,
    Subquery,
    Value,
    When,
)
from django.db.models.fields.related_lookups import RelatedLookupMixin
from django.db.models.lookups import In, Lookup, Regex
from django.db.models.query_utils import FilteredRelation
from django.db.models.sql.query import Query
from django.db.models.sql.where import NothingNode, WhereNode

__all__ = ["can_fail", "joins_can_fail"]

_HARMLESS: Final = frozenset(
    {
        Case,
        Col,
        Exists,
        ExpressionList,
        ExpressionWrapper,
        F,
        FilteredRelation,
        NegatedExpression,
        OrderBy,
        Query,
        Ref,
        ResolvedOuterRef,
        Star,
        Subquery,
        Value,
        When,
        WhereNode,
        functions.Coalesce,
        functions.Concat,
        functions.ConcatPair,
        functions.Greatest,
        functions.Least,
        functions.Length,
        functions.Lower,
        functions.Now,
        functions.NullIf,
        functions.Trim,
        functions.Upper,
        functions.ExtractDay,
        functions.ExtractHour,
        functions.ExtractMinute,
        functions.ExtractMonth,
        functions.ExtractSecond,
        functions.ExtractWeek,
        functions.ExtractWeekDay,
        functions.ExtractYear,
        functions.TruncDate,
        functions.TruncDay,
        functions.TruncHour,
        functions.TruncMonth,
        functions.TruncYear,
    }
)
_LOOKUPS: Final = (
    "django.db.models.lookups",
    "django.db.models.fields.related_lookups",
    "django.db.models.fields.tuple_lookups",
    "django.contrib.contenttypes.fields",
)
"""Where the lookups are that take every value; those of JSON do not take every text, and patterns may be malformed."""


def can_fail(node: Any) -> bool:
    """True unless it is known of every part that it takes every value of a column.

    Args:
        node: an expression, a lookup, or a tree of criteria.
    """
    if node is None or node.__class__ is NothingNode:
        return False
    cls = node.__class__
    if cls is WhereNode:
        return any(map(can_fail, node.children))
    if cls is Col:
        return False
    if cls is FilteredRelation:
        return node.resolved_condition is None or can_fail(node.resolved_condition)
    if isinstance(node, Lookup):
        if cls.__module__ not in _LOOKUPS or isinstance(node, Regex):
            return True
        rhs = node.rhs
        if can_fail(node.lhs):
            return True
        if isinstance(rhs, list | tuple | set):
            return any(map(can_fail, rhs))
        if isinstance(node, In) and isinstance(rhs, Query | Subquery):
            return _query_can_fail(rhs)
        return _is_expression(rhs) and can_fail(rhs)
    if not _is_expression(node):
        return False
    if cls not in _HARMLESS and not isinstance(node, RelatedLookupMixin):
        return True
    if isinstance(node, Query | Subquery):
        return _query_can_fail(node) or (cls is not Exists and not _gives_one_row(node))
    return any(map(can_fail, node.get_source_expressions()))


def joins_can_fail(query: Any) -> bool:
    """True if the condition of a `FilteredRelation` in FROM can fail.

    Args:
        query: Django's.
    """
    relations = (getattr(clause, "filtered_relation", None) for clause in query.alias_map.values())
    return any(can_fail(relation) for relation in relations if relation is not None)


def _gives_one_row(node: Any) -> bool:
    """True for a subquery that may stand for a value: several rows would be an error of PostgreSQL's."""
    query = node.query if isinstance(node, Subquery) else node
    return bool(query.has_limit_one())


def _query_can_fail(node: Any) -> bool:
    """True if a subquery can fail: its own tables guard its own rows, but not those that its outer references name."""
    query = node.query if isinstance(node, Subquery) else node
    return (
        can_fail(query.where)
        or any(map(can_fail, query.annotations.values()))
        or any(map(can_fail, query.order_by))
        or joins_can_fail(query)
        or any(map(_query_can_fail, query.combined_queries))
    )


def _is_expression(value: Any) -> bool:
    return hasattr(value, "as_sql")
