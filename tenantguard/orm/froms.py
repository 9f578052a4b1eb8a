"""Where the tenant's predicate goes in one FROM list.

Each owned table in it gets one predicate. Of inner joins it goes to WHERE; of the optional side of an outer join
it goes to that join's ON clause, so that unmatched rows stay; below a FULL join, where neither place is right, the
table is replaced by a derived table of the tenant's rows. Subqueries and CTEs are not looked into: they are
statements of their own, with FROM lists of their own.

The plan lists every table that it knows. The compiler refuses a table that is rendered without being in the plan
of the statement around it, so a shape that this module does not understand is refused, not passed.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, final

from sqlalchemy import ColumnElement, FromClause, Table
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import (
    CTE,
    AliasedReturnsRows,
    FromGrouping,
    Join,
    ScalarValues,
    Subquery,
    TableClause,
    TableValuedAlias,
    Values,
)

from tenantguard.errors import StatementRefused
from tenantguard.orm.classify import Child, Owned, Shared

__all__ = ["FromPlan"]

Predicate = Callable[[Owned | Child, FromClause], ColumnElement[bool] | None]
Classify = Callable[[FromClause], Owned | Child | Shared]

_OWN_STATEMENT: Final = (Subquery, CTE, Values, ScalarValues, TableValuedAlias, FunctionElement)


@final
class FromPlan:
    """The predicates of one FROM list.

    Args:
        froms: its elements, after correlation.
        predicate: makes the predicate of one table or alias, or returns ``None`` where the barrier is lifted.
        classify: tells what a table is.
        fence: whether child tables are replaced by derived tables too.
        targets: what an UPDATE or DELETE changes, which can't be replaced.

    Raises:
        UnclassifiedTable: a table is neither owned nor shared.
        StatementRefused: an element is of an unknown shape.
    """

    __slots__ = (
        "_classify",
        "_derived",
        "_fence",
        "_keep",
        "_known",
        "_on",
        "_predicate",
        "_targets",
        "full",
        "guard",
        "where",
    )

    def __init__(
        self,
        froms: Iterable[FromClause],
        predicate: Predicate,
        classify: Classify,
        *,
        fence: bool = False,
        targets: Iterable[FromClause] = (),
    ) -> None:
        self._predicate = predicate
        self._classify = classify
        self._fence = fence
        self._targets = {id(target) for target in targets}
        self._known: set[int] = set()
        self._on: dict[int, list[ColumnElement[bool]]] = {}
        self._derived: dict[int, ColumnElement[bool]] = {}
        self._keep: list[Any] = []  # the sets hold ids, which are only valid while the objects live
        self.full = False
        self.guard = False
        self.where: list[ColumnElement[bool]] = []
        for element in froms:
            self.where += self._visit(element, derive=False)

    def knows(self, element: FromClause) -> bool:
        """True if the table or alias was planned for."""
        return id(element) in self._known

    def on(self, join: Join) -> list[ColumnElement[bool]]:
        """Return the predicates that belong to a join's ON clause."""
        return self._on.get(id(join), [])

    def derived(self, element: FromClause) -> ColumnElement[bool] | None:
        """Return the predicate of a table or alias that is to be rendered as a derived table, or ``None``."""
        return self._derived.get(id(element))

    def _note(self, element: FromClause) -> None:
        self._known.add(id(element))
        self._keep.append(element)

    def _leaf(self, table: FromClause, element: FromClause, *, derive: bool) -> list[ColumnElement[bool]]:
        self._note(element)
        owned = self._classify(table)
        predicate = None if isinstance(owned, Shared) else self._predicate(owned, element)
        if predicate is None:
            return []
        changed = id(element) in self._targets
        fence = self._fence and not (isinstance(owned, Owned) and owned.through is None)
        self.guard = self.guard or (fence and changed)
        if derive or (fence and not changed):
            self._derived[id(element)] = predicate
            return []
        return [predicate]

    def _join(self, join: Join, *, derive: bool) -> list[ColumnElement[bool]]:
        self.full = self.full or join.full
        derive = derive or join.full
        self._keep.append(join)
        left = self._visit(join.left, derive=derive)
        # The optional side of a LEFT join below a FULL one still has an ON clause to go to.
        right = self._visit(join.right, derive=derive and not (join.isouter and not join.full))
        if join.isouter and not join.full:
            self._on[id(join)] = right
            return left
        return left + right

    def _visit(self, element: FromClause, *, derive: bool) -> list[ColumnElement[bool]]:
        if isinstance(element, Table):
            return self._leaf(element, element, derive=derive)
        if isinstance(element, Join):
            return self._join(element, derive=derive)
        if isinstance(element, FromGrouping):
            return self._visit(element.element, derive=derive)
        if isinstance(element, _OWN_STATEMENT):
            self._keep.append(element)
            return []
        if isinstance(element, AliasedReturnsRows):
            inner = element.element
            while isinstance(inner, AliasedReturnsRows) and not isinstance(inner, _OWN_STATEMENT):
                self._note(inner)
                inner = inner.element
            if isinstance(inner, TableClause):
                return self._leaf(inner, element, derive=derive)
            if isinstance(inner, _OWN_STATEMENT):
                return []
        if isinstance(element, TableClause):
            self._classify(element)
        raise StatementRefused(
            f"The statement selects from a {type(element).__name__}, which the barrier does not know.",
            mend="Select from tables, aliases, joins, subqueries or CTEs.",
        )
