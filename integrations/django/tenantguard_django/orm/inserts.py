"""The text of an INSERT, which Django writes once for each set of columns, for rows that are sent as plain parameters.

Django writes the text anew for every row, though nothing of it depends on the row as long as its values are parameters.
What it wrote is kept with the connection and used again for the same fields, which wins back what the barrier's checks
cost. Every value is prepared as Django prepares it, and every check is made before. A value that is an expression, a
field that writes SQL of its own, an upsert and more than one row take Django's way.
"""

import sys
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models.sql.compiler import SQLInsertCompiler

from tenantguard_django.orm.keys import is_plain
from tenantguard_django.orm.writes import InsertCheck

__all__ = ["are_plain", "keep_text", "known_text", "plain_rows"]

_PLAIN: Final = frozenset({bool, bytes, float, int, str, type(None), date, datetime, Decimal, UUID})
"""Classes of values that are no expressions."""
_PER_VALUE: Final = ("field_as_sql", "pre_save_val", "prepare_value")
_MOST_KEPT: Final = 2_000


class _Kept(NamedTuple):
    text: str
    fields: tuple[Any, ...]  # kept, so that no other field gets the id of one of them


def plain_rows(base: Any) -> int:
    """Return how many rows of plain values a database's own compiler writes as Django's does.

    Args:
        base: its class for INSERT.
    """
    if any(getattr(base, name) is not getattr(SQLInsertCompiler, name) for name in _PER_VALUE):
        return 0
    if base.assemble_as_sql is SQLInsertCompiler.assemble_as_sql:
        return sys.maxsize
    # Django's own for PostgreSQL writes several rows otherwise, and one as everywhere.
    return int(base.assemble_as_sql.__module__ == "django.db.backends.postgresql.compiler")


def _writes(field: Any) -> bool:
    return hasattr(field, "get_placeholder") or hasattr(field, "get_placeholder_sql")


def are_plain(fields: Any, rows: Any) -> bool:
    """True if no field and no value of these rows writes SQL of its own.

    Args:
        fields: the fields; ``None`` among them stands for a row without any.
        rows: their prepared values, row by row.
    """
    for field in fields:
        if field is None or _writes(field):
            return False
    for row in rows:
        for value in row:
            if value.__class__ not in _PLAIN and hasattr(value, "as_sql"):
                return False
    return True


def _key(compiler: Any) -> tuple[object, ...]:
    query = compiler.query
    return query.get_meta().db_table, tuple(map(id, query.fields)), tuple(map(id, compiler.returning_fields or ()))


def known_text(compiler: Any, check: InsertCheck) -> list[tuple[str, tuple[Any, ...]]] | None:
    """Return an INSERT with the text that is known for its fields; ``None`` where there is none.

    Args:
        compiler: the INSERT's.
        check: looks at what is sent.
    """
    query = compiler.query
    if query.on_conflict is not None or len(query.objs) != 1:
        return None
    kept = compiler.connection.tenantguard.inserts.get(_key(compiler))
    if kept is None:
        return None
    obj, raw, connection = query.objs[0], query.raw, compiler.connection
    values = []
    for field in query.fields:
        value = getattr(obj, field.attname) if raw else field.pre_save(obj, add=True)
        if value.__class__ in _PLAIN:
            value = field.get_db_prep_save(value, connection=connection)
        else:
            value = compiler.prepare_value(field, value)
        if value.__class__ not in _PLAIN and hasattr(value, "as_sql"):
            return None
        values.append(value)
    check.look(query.fields, (values,))
    return [(kept.text, tuple(values))]


def keep_text(compiler: Any, made: Any) -> None:
    """Keep the text that Django wrote of an INSERT, if no row changes it.

    Args:
        compiler: the INSERT's.
        made: what Django wrote.
    """
    query = compiler.query
    if query.on_conflict is not None or len(query.objs) != 1 or not query.fields or not compiler.plain_rows:
        return
    returning = tuple(compiler.returning_fields or ())
    if compiler.returning_params or len(made) != 1 or len(made[0][1]) != len(query.fields):
        return
    marks = ", ".join(["%s"] * len(query.fields))
    if f" VALUES ({marks})" not in made[0][0]:
        return  # an expression stands in it; a column's name holds no such sign
    # Fields whose pre_save() is the app's might do something twice where a value turns out to be no plain one.
    if any(_writes(field) or not is_plain(field, ("pre_save",)) for field in query.fields):
        return
    texts = compiler.connection.tenantguard.inserts
    if len(texts) >= _MOST_KEPT:
        texts.clear()
    texts[_key(compiler)] = _Kept(made[0][0], (*query.fields, *returning))
