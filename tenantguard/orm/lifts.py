"""The barrier lifted for one table of one statement: three rights, three names, each with a reason at the call.

The option is part of the statement, so that a code review sees it where it acts, and part of the statement's cache key,
so that what was compiled with it never serves a statement without it::

    select(func.count()).select_from(Document).options(read_across(Document, reason="total on the status page"))

The right holds for the named entity (or for the one alias that is named) and nothing else in the statement. What is
read so comes as columns, never as entities, so that no row of another tenant settles in a session. Each execution is
logged.
"""

import logging
from collections.abc import Iterable
from typing import Any, Final, final

from sqlalchemy import FromClause, Table, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.sql.cache_key import HasCacheKey
from sqlalchemy.sql.visitors import InternalTraversal

from tenantguard.errors import ConfigurationError
from tenantguard.orm.classify import real_table, table_of

__all__ = ["MOVE", "READ", "WRITE", "Lift", "Lifts", "move_rows", "read_across", "write_across"]

logger: Final = logging.getLogger("tenantguard.orm.lifts")

READ: Final = "read_across"
WRITE: Final = "write_across"
MOVE: Final = "move_rows"


@final
class Lift(HasCacheKey, ORMOption):
    """One right on one table, as an option of a statement. Made by the functions of this module.

    Args:
        right: `READ`, `WRITE` or `MOVE`.
        selectable: the table, or one alias of it.
        reason: why.
    """

    _is_has_cache_key = True
    _traverse_internals = [  # noqa: RUF012 - as SQLAlchemy declares it
        ("right", InternalTraversal.dp_string),
        ("selectable", InternalTraversal.dp_clauseelement),
        ("reason", InternalTraversal.dp_string),
    ]
    _cache_key_traversal = _traverse_internals

    def __init__(self, right: str, selectable: FromClause, reason: str) -> None:
        self.right = right
        self.selectable = selectable
        self.reason = reason

    def __repr__(self) -> str:
        return f"{self.right}({getattr(self.selectable, 'name', '')!r}, reason={self.reason!r})"


@final
class Lifts:
    """The lifts of one statement."""

    __slots__ = ("_lifts",)

    def __init__(self, options: Iterable[object]) -> None:
        self._lifts = tuple(option for option in options if isinstance(option, Lift))

    def __bool__(self) -> bool:
        return bool(self._lifts)

    def holds(self, right: str, element: FromClause) -> bool:
        """True if a right holds for a table or alias."""
        if not self._lifts:
            return False
        # Annotated copies, which the ORM makes, have the hash of their original.
        own = {hash(element), hash(real_table(element))}
        table = element
        while not isinstance(table, Table) and hasattr(table, "element"):
            table = table.element
        own.add(hash(real_table(table)))
        return any(lift.right == right and hash(lift.selectable) in own for lift in self._lifts)

    def log(self) -> None:
        """Write down that a statement with these lifts is executed."""
        for lift in self._lifts:
            name = str(getattr(lift.selectable, "name", ""))
            logger.warning(
                "%s of %s: %s",
                lift.right,
                name,
                lift.reason,
                extra={"tenantguard.permit": lift.right, "tenantguard.table": name, "tenantguard.reason": lift.reason},
            )


def _lift(right: str, entity: Any, reason: str) -> Lift:
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            f"{right}() needs a reason in words.",
            mend=f'For example {right}(Document, reason="total on the status page").',
        )
    try:
        selectable: Any = inspect(entity).selectable
    except (NoInspectionAvailable, AttributeError):
        selectable = None
    if not isinstance(table_of(selectable), Table):
        raise ConfigurationError(
            f"{right}() takes a mapped class, a Table, or an alias of one.", mend=f"For example {right}(Document, …)."
        )
    return Lift(right, real_table(selectable), reason.strip())


def read_across(entity: Any, *, reason: str) -> Any:
    """Let one statement read the rows of all tenants in one table: ``select(...).options(read_across(Document, ...))``.

    Args:
        entity: a mapped class or Table, for every place where it stands in the statement; or one alias, for that alone.
        reason: why, in words that an auditor understands.

    Returns:
        An option for ``.options()`` of `select()` and others. The statement gives columns, not entities.

    Raises:
        ConfigurationError: the entity is none, or the reason is empty.
    """
    return _lift(READ, entity, reason)


def write_across(entity: Any, *, reason: str) -> Any:
    """Let one UPDATE or DELETE change the rows of all tenants: ``update(Document).options(write_across(Document,
    ...))``.

    It changes no row's tenant, and sets no foreign key to a tenant's row other than to NULL.

    Args:
        entity: the mapped class or Table that is changed.
        reason: why, in words that an auditor understands.

    Raises:
        ConfigurationError: the entity is none, or the reason is empty.
    """
    return _lift(WRITE, entity, reason)


def move_rows(entity: Any, *, reason: str) -> Any:
    """Let one UPDATE give the bound tenant's rows to another tenant: ``update(Document).options(move_rows(Document,
    ...))``.

    The new tenant is given as a value. Each foreign key of the table that points to a tenant's row and does not contain
    the tenant key must be set to NULL in the same statement, for what it points to stays behind. Rows that point to the
    moved ones are the caller's care; children without a key of their own go along.

    Args:
        entity: the mapped class or Table whose rows are moved.
        reason: why, in words that an auditor understands.

    Raises:
        ConfigurationError: the entity is none, or the reason is empty.
    """
    return _lift(MOVE, entity, reason)
