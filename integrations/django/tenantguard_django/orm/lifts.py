"""The barrier lifted for one model of one query set's statement: three rights, three names, each with a reason.

The right is put on the query, so that a code review sees it where it acts: ``read_across(Invoice.objects.filter(...),
reason="total on the status page").count()``. It goes with clones of the query set, and holds for the tables in its own
FROM: not for a query that it is put into, not for subqueries, prefetches and related managers, which have queries of
their own. What is read so comes as values, never as objects, so that no row of another tenant is taken for the bound
tenant's. Each execution is logged.
"""

import logging
from typing import Any, Final, NoReturn, TypeVar, final

from django.db.models.manager import BaseManager
from django.db.models.query import QuerySet
from django.db.models.sql.query import Query

from tenantguard.errors import ConfigurationError, StatementRefused

__all__ = [
    "LIFTS",
    "MOVE",
    "READ",
    "WRITE",
    "Lift",
    "find_lift",
    "install_lifts",
    "lifts_of",
    "move_rows",
    "read_across",
]
__all__ += ["write_across"]

logger: Final = logging.getLogger("tenantguard.orm.lifts")

READ: Final = "read_across"
WRITE: Final = "write_across"
MOVE: Final = "move_rows"

LIFTS: Final = "_tenantguard_lifts"
"""Where a query has its lifts, in its ``__dict__``; most have none."""
_Q = TypeVar("_Q", bound=QuerySet[Any])


@final
class Lift:
    """One right on one model's table. Made by the functions of this module.

    Args:
        right: `READ`, `WRITE` or `MOVE`.
        model: the model.
        reason: why.
    """

    __slots__ = ("label", "reason", "right", "table")

    def __init__(self, right: str, model: Any, reason: str) -> None:
        self.right = right
        self.label: str = model._meta.label
        self.table: str = model._meta.concrete_model._meta.db_table
        self.reason = reason

    def __repr__(self) -> str:
        return f"{self.right}({self.label!r}, reason={self.reason!r})"

    def __copy__(self) -> "Lift":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Lift":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A query set with {self.right}() can't be pickled: pickle a list of what it gives.")

    def log(self) -> None:
        """Write down that a statement with this right is executed."""
        logger.warning(
            "%s of %s: %s",
            self.right,
            self.label,
            self.reason,
            extra={
                "tenantguard.permit": self.right,
                "tenantguard.table": self.table,
                "tenantguard.reason": self.reason,
            },
        )


def lifts_of(query: Any) -> tuple[Lift, ...]:
    """Return the lifts of a query itself; none for ``None``."""
    found = () if query is None else query.__dict__.get(LIFTS)
    return tuple(one for one in found if isinstance(one, Lift)) if found else ()


def find_lift(query: Any, right: str, table: str) -> Lift | None:
    """Return the lift that gives a query a right on a table."""
    if LIFTS not in query.__dict__:
        return None
    return next((one for one in lifts_of(query) if one.right == right and one.table == table), None)


def _lifted(queryset: Any, right: str, models: tuple[Any, ...], reason: str) -> Any:
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            f"{right}() needs a reason in words.",
            mend=f'For example {right}(Invoice.objects.all(), reason="total on the status page").',
        )
    if isinstance(queryset, BaseManager):
        queryset = queryset.all()
    if not isinstance(queryset, QuerySet) or queryset.query.combinator:
        raise ConfigurationError(
            f"{right}() takes a query set, or a manager.", mend="Of a union, give it each of the parts."
        )
    if not all(isinstance(model, type) and hasattr(model, "_meta") for model in models):
        raise ConfigurationError(f"{right}() lifts the barrier for models.", mend=f"{right}(query_set, Model, …)")
    made = queryset.all()
    new = tuple(Lift(right, model, reason.strip()) for model in models)
    made.query.__dict__[LIFTS] = (*lifts_of(made.query), *new)
    return made


def read_across(queryset: _Q, *models: type[Any], reason: str) -> _Q:
    """Let one query set read the rows of all tenants in one model's table.

    It gives values (``values()``, ``values_list()``, ``count()``, ``aggregate()``, ``exists()``), no objects, and locks
    nothing. Other models in the same statement stay scoped: the columns of their rows are the tenant's own, or NULL.

    Args:
        queryset: a query set or manager; it is left as it is.
        models: the models, for every place where they stand in the query set's own FROM; the query set's by default. A
            model of multi-table inheritance names its parents too.
        reason: why, in words that an auditor understands.

    Returns:
        A query set with the right.

    Raises:
        ConfigurationError: it is no query set, or the reason is empty.
    """
    made: _Q = _lifted(queryset, READ, models or (getattr(queryset, "model", None),), reason)
    return made


def write_across(queryset: _Q, *, reason: str) -> _Q:
    """Let ``update()`` or ``delete()`` of one query set change the rows of all tenants in its model's table.

    It changes no row's tenant, and sets no foreign key to a tenant's row other than to NULL. ``delete()`` is refused
    where Django would have to remove or change rows of other models with it.

    Args:
        queryset: a query set or manager; it is left as it is.
        reason: why, in words that an auditor understands.

    Returns:
        A query set with the right.

    Raises:
        ConfigurationError: it is no query set, or the reason is empty.
    """
    made: _Q = _lifted(queryset, WRITE, (getattr(queryset, "model", None),), reason)
    return made


def move_rows(queryset: _Q, *, reason: str) -> _Q:
    """Let ``update()`` of one query set give the bound tenant's rows to another tenant.

    The new tenant is given as a value. Each foreign key of the model to a tenant's row is set to NULL in the same
    ``update()``, for what it points to stays behind. Rows that point to the moved ones are the caller's care; children
    without a key of their own go along.

    Args:
        queryset: a query set or manager; it is left as it is.
        reason: why, in words that an auditor understands.

    Returns:
        A query set with the right.

    Raises:
        ConfigurationError: it is no query set, or the reason is empty.
    """
    made: _Q = _lifted(queryset, MOVE, (getattr(queryset, "model", None),), reason)
    return made


def install_lifts() -> None:
    """Keep lifts from spreading over query sets that are joined by ``&`` and ``|``, once for the process."""
    original = Query.combine
    if getattr(original, "tenantguard", False):
        return

    def combine(self: Any, rhs: Any, connector: Any) -> None:
        if lifts_of(self) != lifts_of(rhs):
            raise StatementRefused(
                "Two query sets are made one, and the barrier is lifted for one of them alone.",
                mend="Combine them first, and lift the barrier for the whole; or use union().",
            )
        original(self, rhs, connector)

    combine.tenantguard = True
    Query.combine = combine
