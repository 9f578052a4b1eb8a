"""Defects of databases that would lose the tenant's predicate, although it stands in the statement.

The barrier trusts the database to apply a WHERE clause. Where a version is known not to, the shape is refused there.
"""

from typing import Any, Final

from sqlalchemy.sql.selectable import CompoundSelect

__all__ = ["loses_criteria_of_unions"]

_MENDED: Final = (3, 45, 0)


def loses_criteria_of_unions(dialect: Any, stack: list[Any]) -> bool:
    """True if a FULL JOIN at this place of a statement makes the database forget the WHERE clauses beside it.

    SQLite 3.39 to 3.40, at least, take a UNION ALL in FROM apart; if one of its SELECTs has a FULL JOIN, the WHERE
    clause of another is then read as that join's ON clause, and filters nothing. 3.45 was seen not to do so.

    Args:
        dialect: of the statement.
        stack: the compiler's: the statements around the place.
    """
    if dialect.name != "sqlite" or getattr(dialect.dbapi, "sqlite_version_info", _MENDED) >= _MENDED:
        return False
    return any(isinstance(entry["selectable"], CompoundSelect) for entry in stack)
