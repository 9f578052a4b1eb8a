"""What a policy compares, as SQL text: the same conditions that the barrier adds to statements, for PostgreSQL itself.

A condition stands for one table: which rows may be read, and which may be written. The tenant comes from a function of
the schema ``tenantguard``, always as ``(SELECT …)``, which PostgreSQL evaluates once per statement, so that an index on
the key is of use. A child's condition looks for its parent's row, and repeats the parent's condition there.
"""

from collections.abc import Iterable
from typing import Any, Final, final

from sqlalchemy import Column, Enum, MetaData, Table, TypeDecorator, Uuid
from sqlalchemy.dialects.postgresql import base

from tenantguard.errors import ConfigurationError
from tenantguard.orm.classify import NO_GLOBAL, Child, Key, Owned, Shared, classify_alone
from tenantguard.orm.key_types import compares_exactly
from tenantguard.orm.marks import TENANT

__all__ = ["DIALECT", "Expressions", "dimensions_of", "literal", "quoted"]

DIALECT: Final = base.PGDialect(paramstyle="named")  # others double the percent signs of names
_PREPARER: Final = DIALECT.identifier_preparer


def quoted(name: str) -> str:
    """Return an identifier in quotes."""
    return _PREPARER.quote_identifier(name)


def literal(text: str) -> str:
    """Return a text as an SQL literal, whatever ``standard_conforming_strings`` is."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'" if "\\" not in text else "E'" + escaped.replace("\\", "\\\\") + "'"


def dimensions_of(metadata: Iterable[MetaData]) -> tuple[str, ...]:
    """Return the dimensions inside the tenant that tables have keys for."""
    found: set[str] = set()
    for one in metadata:
        for table in one.tables.values():
            kind = classify_alone(table)
            if not isinstance(kind, Shared):
                found.update(key.dimension for key in kind.narrower)
    return tuple(sorted(found))


def _current(key: Key) -> str:
    """Return the value that a key must have, as a subquery without a FROM."""
    what = "current_tenant" if key.dimension == TENANT else "current_scope"
    argument = "" if key.dimension == TENANT else literal(key.dimension)
    form = key.column.type._unwrapped_dialect_impl(DIALECT)
    if isinstance(form, Uuid) and form.native_uuid:
        return f"(SELECT tenantguard.{what}_uuid({argument}))"
    _check_stored_as_given(key.column, form)
    if isinstance(form, Uuid):
        return f"(SELECT pg_catalog.replace(tenantguard.{what}_uuid({argument})::text, '-', ''))"
    if form.python_type is int:
        return f"(SELECT tenantguard.{what}_integer({argument}))"
    if isinstance(form, Enum) and form.native_enum:
        return f"(SELECT tenantguard.{what}({argument})::{form.compile(DIALECT)})"
    return f"(SELECT tenantguard.{what}({argument}))"


def _check_stored_as_given(column: Column[Any], form: Any) -> None:
    type_ = column.type
    if isinstance(type_, TypeDecorator) and type_._has_bind_processor:
        raise ConfigurationError(
            f"The key {column.table.name}.{column.name} is of the type {type(type_).__name__}, which stores another "
            "value than the id, and PostgreSQL can't tell which.",
            mend="Give the key a plain string, integer or UUID column.",
        )
    if form.python_type not in (str, int):
        raise ConfigurationError(
            f"The key {column.table.name}.{column.name} is of a type that no policy can compare.",
            mend="Give the key a plain string, integer or UUID column.",
        )


@final
class Expressions:
    """Writes conditions.

    Args:
        dimensions: the dimensions inside the tenant that any table has a key for.
        schema: the schema of tables that name none.
    """

    __slots__ = ("_dimensions", "schema")

    def __init__(self, dimensions: tuple[str, ...], schema: str) -> None:
        self._dimensions = dimensions
        self.schema = schema

    def name(self, table: Table) -> str:
        """Return a table's name with its schema, in quotes."""
        return f"{quoted(table.schema or self.schema)}.{quoted(table.name)}"

    def readable(self, table: Table) -> str:
        """Return the condition of rows that may be read: the tenant's own, and those for everybody."""
        return self._condition(table, quoted(table.name), write=False, depth=1)

    def writable(self, table: Table) -> str:
        """Return the condition of rows that may be written: the tenant's own."""
        return self._condition(table, quoted(table.name), write=True, depth=1)

    def _condition(self, table: Table, alias: str, *, write: bool, depth: int) -> str:
        kind = classify_alone(table)
        assert isinstance(kind, Owned | Child)
        parts = self._narrowing(kind, alias, write=write, depth=depth)
        if isinstance(kind, Child):
            return " AND ".join([self._through(kind, alias, write=write, depth=depth), *parts])
        column = f"{alias}.{quoted(kind.column.name)}"
        own = [self._equals(kind.key, alias)]
        everyone = None
        if kind.everyone is None:
            everyone = f"{column} IS NULL"
        elif kind.everyone is not NO_GLOBAL:
            value = kind.everyone if isinstance(kind.everyone, int) else literal(str(kind.everyone))
            own.append(f"{column} <> {value}")  # a tenant of that id would write for everybody
            everyone = f"{column} = {value}"
        condition = " AND ".join([*own, *parts])
        return condition if write or everyone is None else f"({condition}) OR {everyone}"

    def _equals(self, key: Key, alias: str) -> str:
        column, current = f"{alias}.{quoted(key.column.name)}", _current(key)
        if compares_exactly(key.column.type):
            return f"{column} = {current}"
        return f'{column} = {current} AND {column}::text COLLATE "C" = {current}'

    def _narrowing(self, kind: Owned | Child, alias: str, *, write: bool, depth: int) -> list[str]:
        parts: list[str] = []
        above: list[str] = []
        for dimension in self._dimensions:
            free = f"(SELECT tenantguard.current_scope({literal(dimension)})) IS NULL"
            key = next((one for one in kind.narrower if one.dimension == dimension), None)
            if key is not None:
                parts.append(f"({free} OR ({self._equals(key, alias)}))")
            elif isinstance(kind, Child):
                continue  # its parent is asked
            elif kind.through is not None:
                above.append(free)
            elif kind.wide is None or dimension not in kind.wide.dimensions or (write and not kind.wide.writable):
                parts.append(free)  # nothing says which rows are of that dimension
        if above and isinstance(kind, Owned) and kind.through is not None:
            through = self._through(kind.through, alias, write=write, depth=depth)
            parts.append(f"(({' AND '.join(above)}) OR {through})")
        return parts

    def _through(self, kind: Child, alias: str, *, write: bool, depth: int) -> str:
        parent = f"tenantguard_{depth}"
        joined = " AND ".join(
            f"{parent}.{quoted(target.name)} = {alias}.{quoted(column.name)}"
            for column, target in zip(kind.columns, kind.targets, strict=True)
        )
        condition = self._condition(kind.parent, parent, write=write, depth=depth + 1)
        return f"EXISTS (SELECT FROM {self.name(kind.parent)} AS {parent} WHERE {joined} AND ({condition}))"
