"""Tenant keys are compared as the tenants' ids are: character by character.

Ids are case-sensitive, and a database need not be. MySQL's usual collations take "a" for "A", "á" and "a ", as do
SQLite's NOCASE and RTRIM and PostgreSQL's citext and nondeterministic collations; so the predicate of a string key
says how to compare, in a way that leaves the key's index of use. And several ids may become one value of the key's
type: "01" and "1" are one integer, "ABC" and "abc" one UUID, and a short column may keep only the start of a long id.
So an id is converted only if it is the one way to write its value.
"""

import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, final

from sqlalchemy import (
    CHAR,
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Enum,
    Integer,
    Select,
    SmallInteger,
    String,
    TypeDecorator,
    Uuid,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import NULLTYPE, Boolean, TypeEngine

from tenantguard.errors import ConfigurationError
from tenantguard.identity import MAX_TENANT_ID_LENGTH

__all__ = [
    "TENANT_ID_TYPE",
    "ExactKeyMixin",
    "compares_exactly",
    "converter_of",
    "equals_exactly",
    "equals_value",
    "is_among",
    "is_one_of",
    "keeps_text",
]

Convert = Callable[[str], object]

TENANT_ID_TYPE: Final[TypeEngine[str]] = String(MAX_TENANT_ID_LENGTH).with_variant(
    mysql.VARCHAR(MAX_TENANT_ID_LENGTH, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
"""The type of `TenantOwned`'s column. On MySQL its collation is a binary one, so that unique and foreign keys tell
tenants apart as the barrier does."""

_BINARY_COLLATIONS: Final = frozenset({"binary", "c", "posix", "ucs_basic", "pg_c_utf8"})


# --- from ids to values ------------------------------------------------------------------------------------


def converter_of(table_name: str, column: Column[Any]) -> Convert:
    """Return what makes a tenant's id a value of a key column; it raises `ValueError` for an id that does not fit.

    Args:
        table_name: for the error.
        column: the tenant key.

    Raises:
        ConfigurationError: the column is of none of the types that a tenant key may have.
    """
    type_ = column.type
    forms = _forms(type_)
    kinds = {_kind(form) for form in forms}
    convert: Convert | None = None
    length = MAX_TENANT_ID_LENGTH
    decorated = isinstance(type_, TypeDecorator)
    if kinds == {str}:
        lengths = [getattr(form, "length", None) or (1 if isinstance(form, CHAR) else None) for form in forms]
        length = min([length for length in lengths if length is not None], default=MAX_TENANT_ID_LENGTH)
        # A type of the app's own says itself what it stores.
        convert = str if length >= MAX_TENANT_ID_LENGTH or decorated else _text_of(int(length))
        if any(isinstance(form, Uuid) for form in forms):
            convert = _uuid_text
        elif enums := [frozenset(form.enums) for form in forms if isinstance(form, Enum)]:
            convert = _one_of(frozenset.intersection(*enums))
    elif kinds == {int}:
        convert = _integer_of(min(map(_largest, forms)))
    elif kinds <= {uuid.UUID, str} and _kind(forms[0]) is uuid.UUID:
        convert = _uuid
    # What the database is asked to do with a value, no look at the value can tell.
    if convert is None or any(one._has_bind_expression for one in (type_, *forms)):
        raise ConfigurationError(
            f"The tenant key {table_name}.{column.name} is of type {type_!r}.",
            mend="Use a string, an integer or a UUID column.",
        )
    return _decorated(type_, convert, length) if decorated else convert


def _kind(form: Any) -> type[Any] | None:
    try:
        kind: type[Any] = form.python_type
    except NotImplementedError:
        return None
    if issubclass(kind, bool) or getattr(form, "enum_class", None) is not None:
        return None
    return next((known for known in (str, int, uuid.UUID) if issubclass(kind, known)), None)


def _forms(type_: TypeEngine[Any]) -> list[Any]:
    """Return what a type is to the databases: itself, and its variants for some of them."""
    variants = [type_, *type_._variant_mapping.values()]
    return [form.impl_instance if isinstance(form, TypeDecorator) else form for form in variants]


def _uuid(tenant_id: str) -> uuid.UUID:
    value = uuid.UUID(tenant_id)
    if str(value) != tenant_id:
        raise ValueError("not the canonical form")
    return value


def _uuid_text(tenant_id: str) -> str:
    return str(_uuid(tenant_id))


_keeping: Final[set[Convert]] = {str}


def keeps_text(convert: Convert) -> bool:
    """True if what a tenant's id is converted to is the id itself, or it is refused."""
    return convert in _keeping


@lru_cache
def _text_of(length: int) -> Convert:
    def convert(tenant_id: str) -> str:
        if len(tenant_id) > length:
            raise ValueError("longer than the column")
        return tenant_id

    _keeping.add(convert)
    return convert


@lru_cache
def _one_of(known: frozenset[str]) -> Convert:
    def convert(tenant_id: str) -> str:
        if tenant_id not in known:
            raise ValueError("none of the type's values")
        return tenant_id

    _keeping.add(convert)
    return convert


@lru_cache
def _integer_of(largest: int) -> Convert:
    def convert(tenant_id: str) -> int:
        if len(tenant_id) > 20:
            raise ValueError("larger than the column")
        value = int(tenant_id)
        if str(value) != tenant_id or value > largest:
            raise ValueError("not the canonical form, or larger than the column")
        return value

    return convert


def _largest(type_: Any) -> int:
    bits = 32
    if isinstance(type_, BigInteger):
        bits = 64
    elif isinstance(type_, SmallInteger):
        bits = 16
    elif isinstance(type_, mysql.MEDIUMINT | mysql.TINYINT):
        bits = 24 if isinstance(type_, mysql.MEDIUMINT) else 8
    elif not isinstance(type_, Integer):
        bits = 64
    return int(2 ** (bits if getattr(type_, "unsigned", False) else bits - 1)) - 1


@lru_cache
def _decorated(type_: TypeDecorator[Any], inner: Convert, length: int) -> Convert:
    """Hold a type of the app's own to giving each id back: then no two ids that it takes are one value."""
    dialect = DefaultDialect()
    store, load = type_.bind_processor(dialect), type_.result_processor(dialect, None)

    def convert(tenant_id: str) -> object:
        value = inner(tenant_id)
        try:
            stored = value if store is None else store(value)
            loaded = stored if load is None else load(stored)
        except (TypeError, AttributeError, LookupError) as fault:
            raise ValueError("the type does not take it") from fault
        if str(loaded) != tenant_id or (isinstance(stored, str) and len(stored) > length):
            raise ValueError("the type does not give it back")
        return value

    return convert


# --- comparing ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def compares_exactly(type_: TypeEngine[Any]) -> bool:
    """False if a type is declared to take some unequal strings for equal, on any database."""
    for form in _forms(type_):
        collation = str(getattr(form, "collation", None) or "binary").lower()
        if isinstance(form, postgresql.CITEXT) or not (collation in _BINARY_COLLATIONS or collation.endswith("_bin")):
            return False
    return True


@final
class _ExactKey(ColumnElement[bool]):
    """``key = tenant`` or ``key IN (tenants)``, compared exactly; only the barrier's compilers know how to write it."""

    __visit_name__ = "tenantguard_exact_key"
    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - as in SQLAlchemy's own elements
        ("comparison", InternalTraversal.dp_clauseelement)
    ]

    def __init__(self, comparison: BinaryExpression[bool]) -> None:
        self.comparison = comparison
        self.type = Boolean()

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002 - SQLAlchemy would write "= 1" after it
        return self


def equals_exactly(key_column: ColumnElement[Any], bind: BindParameter[Any]) -> ColumnElement[bool]:
    """Return the comparison of a key with the parameter that holds the tenant.

    Args:
        key_column: the key, in the words of the alias that its table goes by.
        bind: the parameter.
    """
    return _exactly(_compared(key_column, bind, operators.eq, operators.ne))


def equals_value(key_column: ColumnElement[Any], value: object) -> ColumnElement[bool]:
    """Return the comparison of a key with a value that is always the same, or is not kept with the statement."""
    return equals_exactly(key_column, BindParameter(None, value, type_=key_column.type, unique=True))


def is_one_of(key_column: ColumnElement[Any], bind: BindParameter[Any]) -> ColumnElement[bool]:
    """Return the comparison of a key with the expanding parameter that holds several tenants."""
    return _exactly(_compared(key_column, bind, operators.in_op, operators.not_in_op))


def is_among(columns: Sequence[ColumnElement[Any]], keys: Select[Any]) -> ColumnElement[bool]:
    """Return the condition that the columns of a foreign key are among the keys that a SELECT gives."""
    # Not by the IN of the column, in whose place its type may have put another.
    return type_coerce(columns[0], NULLTYPE).in_(keys) if len(columns) == 1 else tuple_(*columns).in_(keys)


def _compared(left: Any, right: Any, operator: Any, negated: Any) -> BinaryExpression[bool]:
    # Not by the == of the column, in whose place its type may have put another.
    return BinaryExpression(left, right, operator, type_=Boolean(), negate=negated)


def _exactly(comparison: BinaryExpression[bool]) -> ColumnElement[bool]:
    strings = any(isinstance(form, String) for form in _forms(comparison.right.type))
    return _ExactKey(comparison) if strings else comparison


class ExactKeyMixin:
    """Writes exact comparisons. Mixed in before a dialect's compiler."""

    dialect: Any
    process: Any

    def visit_tenantguard_exact_key(self, element: Any, **kw: Any) -> str:
        """Write the comparison of a string key with the tenant, or with several."""
        comparison = element.comparison
        type_ = comparison.right.type
        several = comparison.operator is operators.in_op
        name = self.dialect.name
        exact = compares_exactly(type_)
        if name == "postgresql" and exact and not several:
            # A text of no type would be taken for the column's, which may be citext without the model's knowing.
            text: str = self.process(comparison, **kw)
            return text if self._is_of_its_type(type_) else f"{text}::VARCHAR"
        operator = "IN" if several else "="
        column: str = self.process(comparison.left, **kw)
        given: str = self.process(comparison.right, **kw)
        if name == "sqlite" and exact:
            return f"{column} COLLATE BINARY {operator} {given}"
        as_is: str = self.process(comparison, **kw)
        if name in ("mysql", "mariadb"):
            # The first half is for the index. Bytes of one character set, since the column may have another.
            given = given if several else f"CAST(CONVERT({given} USING utf8mb4) AS BINARY)"
            return f"({as_is} AND CAST(CONVERT({column} USING utf8mb4) AS BINARY) {operator} {given})"
        if name == "sqlite":
            return f"({as_is} AND {column} COLLATE BINARY {operator} {given})"
        if not exact:
            return f'({as_is} AND CAST({column} AS TEXT) COLLATE "C" {operator} {given})'
        return as_is if self._is_of_its_type(type_) else f"({as_is} AND CAST({column} AS TEXT) {operator} {given})"

    def _is_of_its_type(self, type_: TypeEngine[Any]) -> bool:
        """True if the parameter is written with its type."""
        cast_already: bool = type_._unwrapped_dialect_impl(self.dialect).render_bind_cast
        return cast_already or any(isinstance(form, Enum) for form in _forms(type_))
