"""Which criteria can fail on some rows and not on others.

A division, a cast, a regular expression fails on a row whose values do not suit it, and the error tells of the row: of
its existence, and on PostgreSQL often of its values. So such criteria must be evaluated on the tenant's rows alone. A
predicate that compares the tenant key with a parameter is the cheapest criterion of its table, and the first, so that
databases apply it before the author's. That of a child table is a subquery, which PostgreSQL turns into a join that it
applies after them. Where a statement has criteria that can fail, child tables are therefore fenced
(`tenantguard.orm.scoping`). Comparisons do not fail; statements with nothing else keep the plain form, and its speed.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import FromClause
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    Case,
    ClauseElement,
    ClauseList,
    ColumnClause,
    ExpressionClauseList,
    False_,
    Grouping,
    Label,
    Null,
    True_,
    Tuple,
    UnaryExpression,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Exists, Join, ScalarSelect, SelectBase

__all__ = ["can_fail"]

_COMPARISONS: Final = frozenset(
    {
        operators.eq, operators.ne, operators.lt, operators.le, operators.gt, operators.ge, operators.in_op,
        operators.not_in_op, operators.is_, operators.is_not, operators.is_distinct_from,
        operators.is_not_distinct_from, operators.between_op, operators.not_between_op, operators.and_, operators.or_,
        operators.inv, operators.comma_op,
    }
)  # fmt: skip
_FUNCTIONS: Final = frozenset({"avg", "coalesce", "count", "max", "min", "nullif", "sum"})
_HARMLESS: Final = (
    AsBoolean, BindParameter, Case, ClauseList, ColumnClause, Exists, False_, FromClause, Grouping,
    Label, Null, SelectBase, True_, Tuple,
)  # fmt: skip


def can_fail(roots: Iterable[Any]) -> bool:
    """True unless expressions are known never to fail, whatever the values of a row.

    Nested statements are not entered: they come by when they are compiled. A scalar subquery can fail, by giving two
    rows.

    Args:
        roots: the expressions, and elements of a FROM list, of whose joins the ON clauses are looked at.
    """
    stack: list[Any] = [*roots]
    while stack:
        element = stack.pop()
        if not isinstance(element, ClauseElement):
            continue
        if not _is_harmless(element):
            return True
        if not isinstance(element, Exists | SelectBase) and (
            isinstance(element, Join) or not isinstance(element, FromClause)
        ):
            stack.extend(element.get_children())
    return False


def _is_harmless(element: Any) -> bool:
    if isinstance(element, FunctionElement):
        return str(getattr(element, "name", "")).lower() in _FUNCTIONS
    if isinstance(element, ScalarSelect):
        return False
    if isinstance(element, BinaryExpression | ExpressionClauseList):
        return element.operator in _COMPARISONS
    if isinstance(element, UnaryExpression) and not isinstance(element, Exists):
        return element.operator in _COMPARISONS
    return isinstance(element, _HARMLESS)
