"""All tables of the process by name, so that two of one name are noticed.

SQLAlchemy tells whenever a table is put into a MetaData. Names are compared without case, and a table without a schema
is taken for one in any: databases differ in both, and the question is whether two tables *could* be one.
"""

from collections.abc import Iterator
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Table, event

__all__ = ["generation", "namesakes"]

_tables: Final[dict[str, "WeakSet[Table]"]] = {}
_count = 0


def _attached(table: Table, _metadata: Any) -> None:
    global _count
    _tables.setdefault(table.name.casefold(), WeakSet()).add(table)
    _count += 1


event.listen(Table, "after_parent_attach", _attached)


def generation() -> int:
    """Return a number that grows whenever a table is made."""
    return _count


def namesakes(table: Table, *, any_schema: bool = False) -> Iterator[Table]:
    """Return the other tables of the process that could be the same one in a database.

    Args:
        table: the table.
        any_schema: True where schemas are translated when the statement runs, so that they do not tell tables apart.
    """
    schema = table.schema
    for other in list(_tables.get(table.name.casefold(), ())):
        if other is table:
            continue
        if any_schema or schema is None or other.schema is None or schema.casefold() == other.schema.casefold():
            yield other
