"""A row as JSON and back, without loss, and the digest of a set of rows.

Columns are read and written beneath the app's own types (`TypeDecorator`): what stands in the database is carried, not
what the app makes of it, so an encrypted column stays encrypted and nothing is unpickled. Values that JSON has no form
for are tagged: ``{"$": "decimal", "v": "1.50"}``.

The digest of a table is the sum of the SHA-256 of its rows, so it does not depend on their order, and two databases
that sort differently can be compared row by row.
"""

import base64
import datetime as dt
import decimal
import enum
import hashlib
import ipaddress
import json
import math
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeAlias, final

from sqlalchemy import JSON, BindParameter, Column, ColumnElement, Enum, String, Text, bindparam, cast, type_coerce
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.types import TypeDecorator, TypeEngine

from tenantguard.errors import PlacementError

__all__ = ["Codec", "Digest", "WireRow"]

WireRow: TypeAlias = dict[str, Any]
"""A row by the names of its columns, in values of JSON."""


@final
class Codec:
    """How one column goes to JSON and back.

    Args:
        column: the column.
        dialect: of the database.
    """

    __slots__ = ("_is_json", "_type", "column", "name")

    def __init__(self, column: Column[Any], dialect: Any) -> None:
        self.column = column
        self.name = column.name
        self._type = _beneath(column.type, dialect)
        self._is_json = isinstance(self._type, JSON)

    def selected(self) -> ColumnElement[Any]:
        """Return what to select."""
        if self._is_json:
            return cast(self.column, Text()).label(self.name)
        if isinstance(self._type, Enum):
            return type_coerce(self.column, String()).label(self.name)
        if self._type is not self.column.type:
            return type_coerce(self.column, self._type).label(self.name)
        return self.column.label(self.name)

    def bind(self, name: str) -> BindParameter[Any]:
        """Return the parameter that a decoded value is written through."""
        type_: TypeEngine[Any] = JSON(none_as_null=True) if type(self._type) is JSON else self._type
        if self._is_json and type(self._type) is not JSON:
            type_ = self._type.copy() if hasattr(self._type, "copy") else self._type
            type_.none_as_null = True  # type: ignore[attr-defined]
        return bindparam(name, type_=type_)

    def encode(self, value: Any) -> Any:
        """Return a value that was selected, as one of JSON.

        Raises:
            PlacementError: its type is not known.
        """
        if value is not None and self._is_json:
            return {"$": "json", "v": value}
        return self._encoded(value)

    def _encoded(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | str):
            return value.name if isinstance(value, enum.Enum) else value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$": "float", "v": repr(value)}
        if isinstance(value, list | tuple):
            return {"$": "list", "v": [self._encoded(one) for one in value]}
        if isinstance(value, Range):
            ends = [self._encoded(value.lower), self._encoded(value.upper)]
            return {"$": "range", "v": [*ends, value.bounds, value.empty]}
        if isinstance(value, dict):
            return {"$": "map", "v": {str(key): self._encoded(one) for key, one in value.items()}}
        for kind, (tag, encode, _) in _TAGS.items():
            if isinstance(value, kind):
                return {"$": tag, "v": encode(value)}
        raise PlacementError(
            f"The column {self.column} holds values of the type {type(value).__name__}, which can't be carried.",
            mend="Give the column a type of text, number, time, bytes, UUID or JSON.",
        )

    def decode(self, value: Any) -> Any:
        """Return a value of JSON as it is written.

        Raises:
            PlacementError: the tag is not known.
        """
        if not isinstance(value, dict):
            return value
        tag, inner = value.get("$"), value.get("v")
        if tag == "json":
            return JSON.NULL if (parsed := json.loads(str(inner))) is None else parsed
        if tag == "list" and isinstance(inner, list):
            return [self.decode(one) for one in inner]
        if tag == "map" and isinstance(inner, dict):
            return {key: self.decode(one) for key, one in inner.items()}
        if tag == "range" and isinstance(inner, list):
            return Range(self.decode(inner[0]), self.decode(inner[1]), bounds=inner[2], empty=inner[3])
        decode = _DECODERS.get(str(tag))
        if decode is None or not isinstance(inner, str):
            raise PlacementError(f"A value of the column {self.column} has a tag that is not known.")
        return decode(inner)

    def canonical(self, value: Any) -> Any:
        """Return a value of JSON in the form that digests are made of: equal JSON documents are equal."""
        if not self._is_json or not isinstance(value, dict):
            return value
        parsed = json.loads(value["v"], parse_float=lambda digits: {"$": "number", "v": digits})
        return {"$": "json", "v": json.dumps(parsed, sort_keys=True)}


def _beneath(type_: TypeEngine[Any], dialect: Any) -> TypeEngine[Any]:
    while isinstance(type_, TypeDecorator):
        type_ = type_.load_dialect_impl(dialect)
    return type_


def _moment(value: dt.datetime) -> str:
    return (value if value.tzinfo is None else value.astimezone(dt.UTC)).isoformat()


def _span(value: dt.timedelta) -> str:
    return f"{value.days}:{value.seconds}:{value.microseconds}"


def _read_span(text: str) -> dt.timedelta:
    days, seconds, microseconds = map(int, text.split(":"))
    return dt.timedelta(days, seconds, microseconds)


_TAGS: Final[dict[Any, tuple[str, Callable[[Any], str], Callable[[str], Any]]]] = {
    bytes: ("bytes", lambda v: base64.b64encode(v).decode(), base64.b64decode),
    memoryview: ("bytes", lambda v: base64.b64encode(bytes(v)).decode(), base64.b64decode),
    decimal.Decimal: ("decimal", str, decimal.Decimal),
    dt.datetime: ("datetime", _moment, dt.datetime.fromisoformat),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("time", dt.time.isoformat, dt.time.fromisoformat),
    dt.timedelta: ("interval", _span, _read_span),
    uuid.UUID: ("uuid", str, uuid.UUID),
    enum.Enum: ("enum", lambda v: str(v.name), str),
    ipaddress.IPv4Address: ("ip", str, str),
    ipaddress.IPv6Address: ("ip", str, str),
    ipaddress.IPv4Interface: ("ip", str, str),
    ipaddress.IPv6Interface: ("ip", str, str),
    ipaddress.IPv4Network: ("ip", str, str),
    ipaddress.IPv6Network: ("ip", str, str),
}
_DECODERS: Final[dict[str, Callable[[str], Any]]] = {
    **{tag: decode for tag, _, decode in _TAGS.values()},
    "float": float,
}


@final
class Digest:
    """The number of rows, and the sum of their SHA-256, whatever their order."""

    __slots__ = ("_sum", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, codecs: list[Codec], row: WireRow) -> None:
        """Add a row."""
        values = [[codec.name, codec.canonical(row[codec.name])] for codec in codecs]
        line = json.dumps(sorted(values, key=lambda pair: pair[0]), separators=(",", ":"), sort_keys=True)
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line.encode()).digest(), "big")) % (1 << 256)

    @property
    def hex(self) -> str:
        """The digest, in 64 hexadecimal digits."""
        return f"{self._sum:064x}"
