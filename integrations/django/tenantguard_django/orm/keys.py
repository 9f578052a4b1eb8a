"""Tenant keys as Django fields: which fields can serve, what a tenant's id is as their value, how they are compared.

The rules are those of the core (`tenantguard.orm.key_types`): an id becomes a value only if it is the one way to write
that value, and strings are compared character by character, whatever the column's collation is. A field is turned into
an SQLAlchemy column for that, which serves for the policies of row-level security as well.
"""

from collections.abc import Callable
from typing import Any, Final, final

from sqlalchemy import BigInteger, Column, Integer, SmallInteger, String, Uuid
from sqlalchemy.types import TypeEngine

from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm.key_types import converter_of

__all__ = ["VALUE_METHODS", "Key", "column_type", "end_field", "is_plain"]

_INTEGERS: Final[dict[str, type[TypeEngine[Any]]]] = {
    "AutoField": Integer,
    "BigAutoField": BigInteger,
    "SmallAutoField": SmallInteger,
    "IntegerField": Integer,
    "BigIntegerField": BigInteger,
    "SmallIntegerField": SmallInteger,
    "PositiveIntegerField": Integer,
    "PositiveBigIntegerField": BigInteger,
    "PositiveSmallIntegerField": SmallInteger,
}
_STRINGS: Final = frozenset({"CharField", "SlugField", "EmailField", "URLField", "TextField"})
VALUE_METHODS: Final = (
    "get_prep_value",
    "get_db_prep_value",
    "get_db_prep_save",
    "pre_save",
    "to_python",
    "from_db_value",
)


def end_field(field: Any) -> Any:
    """Return the field whose values a field holds: itself, or what a foreign key points to, at any depth."""
    while field.remote_field is not None:
        field = field.target_field
    return field


def is_plain(field: Any, names: tuple[str, ...]) -> bool:
    """True if none of these methods of a field is of another maker than Django."""
    for name in names:
        for one in type(field).__mro__:
            if name in one.__dict__:
                if not one.__module__.startswith("django."):
                    return False
                break
    return True


def column_type(field: Any) -> TypeEngine[Any] | None:
    """Return the type of a field's column in SQLAlchemy's words; ``None`` for what no key can be."""
    end = end_field(field)
    kind = end.get_internal_type()
    if kind in _INTEGERS:
        return _INTEGERS[kind]()
    if kind == "UUIDField":
        return Uuid()
    if kind in _STRINGS:
        return String(end.max_length, collation=getattr(end, "db_collation", None))
    return None


@final
class Key:
    """A field that says whose a row is.

    Args:
        field: the field.
        dimension: ``"tenant"``, or a dimension inside it.

    Raises:
        ConfigurationError: the field can't be a key.
    """

    __slots__ = ("_values", "attname", "column", "convert", "dimension", "end", "field", "text")

    def __init__(self, field: Any, dimension: str) -> None:
        self.field = field
        self.dimension = dimension
        self.column: str = field.column
        self.attname: str = field.attname
        self.end = end_field(field)
        type_ = column_type(field)
        if type_ is None or not is_plain(self.end, VALUE_METHODS) or not is_plain(field, VALUE_METHODS):
            raise ConfigurationError(
                f"The key {field.model._meta.label}.{field.name} is of the type {type(self.end).__name__}.",
                mend="Use a plain string, integer or UUID field, or a foreign key to one.",
            )
        self.text = isinstance(type_, String)
        self.convert: Callable[[str], object] = converter_of(
            field.model._meta.label, Column(self.column, type_, nullable=False)
        )
        self._values: dict[tuple[str, str], Any] = {}

    def field_of(self, opts: Any) -> Any:
        """Return the field that a model has for the key's column: its own, where two models are of one table.

        Args:
            opts: the ``_meta`` of the model.

        Raises:
            StatementRefused: it has none.
        """
        if opts.concrete_model is self.field.model:
            return self.field
        for field in opts.local_concrete_fields:
            if field.column == self.column:
                return field
        raise StatementRefused(
            f"The model {opts.label} has no field for the column {self.column!r}, which says whose a row is.",
            mend=f"Give it one like that of {self.field.model._meta.label}, or write by that model.",
        )

    def value(self, bound: str) -> object:
        """Return what the field of a row must hold.

        Args:
            bound: the bound tenant's id, or what the identity is narrowed to.

        Raises:
            StatementRefused: the id does not fit the field.
        """
        try:
            return self.convert(bound)
        except ValueError:
            raise StatementRefused(
                f"The bound {self.dimension} does not fit the {self.dimension} key of {self.field.model._meta.label}.",
                mend="Give the key a string field, or ids of the key's type.",
            ) from None

    def parameter(self, bound: str, connection: Any) -> object:
        """Return the same as a parameter of a statement."""
        if self.convert is str:
            return bound
        known = self._values.get((bound, connection.vendor))
        if known is None:
            if len(self._values) > 10_000:
                self._values.clear()
            known = self.end.get_db_prep_value(self.value(bound), connection=connection, prepared=False)
            self._values[bound, connection.vendor] = known
        return known

    def same(self, given: object, bound: str) -> bool:
        """True if a value that was given is the bound one."""
        try:
            return bool(self.end.to_python(given) == self.value(bound)) and not isinstance(given, bool)
        except Exception:  # noqa: BLE001 - a value that the field can't take is not the bound one
            return False

    def compare(self, column: str, vendor: str) -> tuple[str, int]:
        """Return the comparison of the key's column with a parameter, and how often the parameter stands in it.

        Args:
            column: the column, in quotes, in the words of its alias.
            vendor: Django's name of the database.
        """
        if not self.text:
            return f"{column} = %s", 1
        exact = getattr(self.end, "db_collation", None) in (None, "", "C", "POSIX", "BINARY", "ucs_basic")
        if vendor == "sqlite":
            binary = f"{column} COLLATE BINARY = %s"
            return (binary, 1) if exact else (f"({column} = %s AND {binary})", 2)
        if exact:
            return f"{column} = %s::varchar", 1
        return f'({column} = %s AND CAST({column} AS TEXT) COLLATE "C" = %s)', 2
