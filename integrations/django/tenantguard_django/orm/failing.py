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
from django.db.models.lookups import Lookup
from django.db.models.query_utils import FilteredRelation
from django.db.models.sql.query import Query
from django.db.models.sql.where import NothingNode, WhereNode

__all__ = ["can_fail"]

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
_OF_DJANGO: Final = ("django.db.models.", "django.contrib.contenttypes.")


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
        return can_fail(node.resolved_condition)
    if isinstance(node, Lookup):
        if not cls.__module__.startswith(_OF_DJANGO):
            return True
        rhs = node.rhs
        return can_fail(node.lhs) or (
            any(map(can_fail, rhs)) if isinstance(rhs, list | tuple | set) else _is_expression(rhs) and can_fail(rhs)
        )
    if not _is_expression(node):
        return False
    if cls not in _HARMLESS and not isinstance(node, RelatedLookupMixin):
        return True
    if isinstance(node, Query | Subquery):
        return False  # it guards its own criteria
    return any(map(can_fail, node.get_source_expressions()))


def _is_expression(value: Any) -> bool:
    return hasattr(value, "as_sql")
