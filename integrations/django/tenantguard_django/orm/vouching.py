"""Which expressions may write SQL: those of Django itself, where they hold no text of the app's; others are refused.

Django renders some strings as they are (`RawSQL`, ``extra()``, the template and function of a `Func`, the connector of
a `CombinedExpression`), and classes of the app render themselves by ``as_sql``. No predicate reaches a table that such
text names. A class that only adds a known function name, or nothing that is rendered, passes; for every other class the
app says so by name: `vouch_for`.
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.db.models.expressions import (
    BaseExpression,
    Case,
    CombinedExpression,
    Expression,
    Func,
    OrderBy,
    RawSQL,
    Subquery,
    When,
    Window,
    WindowFrame,
    WindowFrameExclusion,
)
from django.db.models.fields import Field
from django.db.models.functions import Cast
from django.db.models.lookups import Lookup
from django.db.models.sql.datastructures import BaseTable, Join
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, OR, XOR, ExtraWhere, WhereNode

from tenantguard.errors import BindingError, ConfigurationError, StatementRefused
from tenantguard.orm.functions import PURE_FUNCTIONS
from tenantguard.permits import reason_in_words

__all__ = ["RAW_MEND", "check_query", "fault_of", "renders_by_itself", "sound_classes", "vouch_for"]

_C = TypeVar("_C", bound=type)
RAW_MEND: Final = (
    "Write it with Django's own expressions, vouch for the class by vouch_for(), or run it in a block of "
    'allow_raw("why") and filter by tenant yourself.'
)
_FIELD_HOOKS: Final = ("get_placeholder", "get_placeholder_sql", "select_format")
"""What a field writes SQL by; the second is the name that Django 6.1 has for the first."""
_VENDORS: Final = frozenset({"as_sql", "as_sqlite", "as_postgresql"})
_QUIET: Final = frozenset(
    """
    __module__ __doc__ __qualname__ __firstlineno__ __static_attributes__ __init__ __annotations__ __slots__ __repr__
    _constructor_args __signature__ lookup_name name output_field arity allow_distinct function
    contains_aggregate contains_over_clause window_compatible prepare_rhs get_prep_lookup bilateral
    empty_result_set_value filterable allow_order_by deconstruct allows_composite_expressions conditional
    """.split()
)
"""What a class of the app may say without rendering anything."""
_COMPILES: Final = frozenset({"as_sql", "get_compiler"})
_CONNECTOR: Final = re.compile(r"[-+*/%^&|#<>=~!@?]{1,4}|AND|OR")
_JOINER: Final = re.compile(r"\s*(?:[,+*/|-]|\|\|)?\s*")
_CAST: Final = re.compile(r"[\w ]+(?:\([\d, ]*\))?(?: [\w ]+)?(?:\[\d*\])*")
_TIME_ZONE: Final = re.compile(r" with(?:out)? time zone\b")
_COLUMN: Final = re.compile(r'"[\w$ -]+"\."[\w$ -]+"')
_WORDS: Final = re.compile(r"(?i)\b(?:select|from|join|union|table|with|where|into|values)\b")

_vouched: Final[set[type]] = set()
sound_classes: Final[set[type]] = set()
"""Classes whose instances need no look."""
_CONNECTORS: Final = frozenset({AND, OR, XOR})
_looked_at: Final[dict[type, Callable[[Any, Any], str | None]]] = {}
_fixed: Final[dict[type, frozenset[str]]] = {}
_plain_fields: Final[set[type]] = set()
"""Django's own classes of fields that are known to hold no other field."""


def vouch_for(cls: _C, *, reason: str) -> _C:
    """Vouch for an expression, lookup, transform or field class that renders itself.

    Its SQL must be made of its arguments and constants alone, and read no table.

    Args:
        cls: the class.
        reason: why that is so, in words that an auditor understands.

    Returns:
        The class.

    Raises:
        ConfigurationError: the reason is empty, or it is a class that renders whatever text it is given.
    """
    try:
        reason_in_words(reason, "vouch_for()", 'reason="compares two columns by similarity()"')
    except BindingError as error:
        raise ConfigurationError(error.message, mend=error.mend) from None
    if not isinstance(cls, type) or issubclass(cls, RawSQL | ExtraWhere | Query | BaseTable | Join) or _is_djangos(cls):
        raise ConfigurationError(
            f"{cls!r} can't be vouched for.", mend="Vouch for an expression, lookup or field class of your own."
        )
    _vouched.add(cls)
    _looked_at.pop(cls, None)
    return cls


def _is_djangos(cls: type) -> bool:
    return cls.__module__.split(".", 1)[0] == "django"


def renders_by_itself(field: Any) -> bool:
    """True if a field's class, not of Django's making and not vouched for, writes SQL around values or columns."""
    cls = type(field)
    if cls in _vouched or _is_djangos(cls):
        return False
    return any(
        name in base.__dict__
        for base in cls.__mro__
        if not _is_djangos(base) and base not in _vouched
        for name in _FIELD_HOOKS
    )


def fault_of(node: Any, connection: Any) -> str | None:
    """Return what is wrong with an expression that writes SQL which can't be vouched for; ``None`` for others.

    Args:
        node: what is about to be compiled.
        connection: Django's.
    """
    cls = node.__class__
    look = _looked_at.get(cls)
    if look is None:
        look = _looked_at[cls] = _look_for(cls)
        if look is _sound:
            sound_classes.add(cls)
    return look(node, connection)


def _sound(_node: Any, _connection: Any) -> str | None:
    return None


def _raw(node: Any, _connection: Any) -> str | None:
    # Django's own prefetching of many-to-many relations selects a column of a table in FROM so.
    if type(node) is RawSQL and not node.params and isinstance(node.sql, str) and _COLUMN.fullmatch(node.sql):
        return None
    return "raw SQL"


def _look_for(cls: type) -> Callable[[Any, Any], str | None]:
    if cls in _vouched:
        return _sound
    if issubclass(cls, RawSQL | ExtraWhere):
        return _raw
    if cls in (BaseTable, Join):
        return _node
    if issubclass(cls, Query):
        return _query
    if not _is_djangos(cls) and (fault := _own_class(cls)) is not None:
        return lambda _node, _connection: fault
    for base, look in _LOOKS:
        if issubclass(cls, base):
            return look
    return _node


def _own_class(cls: type) -> str | None:
    """Return what is wrong with a class of the app's: it may add names and plain values, and nothing that renders."""
    what = f"{cls.__qualname__}, which writes SQL of its own"
    if not issubclass(cls, BaseExpression | Lookup):
        return what
    for base in cls.__mro__:
        if base is object or _is_djangos(base) or base in _vouched:
            continue
        if not set(base.__dict__) <= _QUIET:
            return what
        field = base.__dict__.get("output_field")
        if isinstance(field, Field) and not _is_djangos(type(field)) and type(field) not in _vouched:
            return what
        function = base.__dict__.get("function")
        if function is not None and not _is_pure(function):
            return f"the function {function!r}, which is not known to compute from its arguments alone"
    return None


def _is_pure(function: object) -> bool:
    return isinstance(function, str) and function.lower() in PURE_FUNCTIONS


def _field_fault(node: Any, connection: Any) -> str | None:
    field = node.__dict__.get("output_field")
    if field is None and not _is_djangos(type(node)):
        field = node._output_field_or_none
    while isinstance(field, Field) and (inner := getattr(field, "base_field", None)) is not None:
        field = inner  # of an array or a range, whose type is written with it
    if not isinstance(field, Field):
        return None
    if _is_djangos(field.__class__):
        if field.__class__.__module__ == "django.db.models.fields":  # where none holds another field
            _plain_fields.add(field.__class__)
        return None
    if renders_by_itself(field):
        return f"a field {type(field).__name__}, which writes SQL of its own"
    if type(field) not in _vouched:
        cast = field.cast_db_type(connection)
        if not _is_type(cast):
            return f"a field {type(field).__name__} with the database type {cast!r}"
    return None


def _is_type(text: str | None) -> bool:
    """True for the name of a type, with its length."""
    if text is None:
        return True
    plain = _TIME_ZONE.sub("", text)
    return _CAST.fullmatch(plain) is not None and _WORDS.search(plain) is None


def _fixed_names(cls: type) -> frozenset[str]:
    """Return what an instance may not have otherwise than its class: the methods, and the texts, which are rendered."""
    members = {name: value for base in reversed(cls.__mro__) for name, value in base.__dict__.items()}
    names = {name for name, value in members.items() if isinstance(value, str) or callable(value)}
    found = _fixed[cls] = frozenset(names | _VENDORS | {"template", "function"})
    return found


def _expression(node: Any, connection: Any) -> str | None:
    own = node.__dict__
    names = _fixed.get(node.__class__) or _fixed_names(node.__class__)
    if not names.isdisjoint(own) and any(
        own[name] != getattr(type(node), name, None) and not (name == "function" and _is_pure(own[name]))
        for name in names & own.keys()
    ):
        return f"a {type(node).__name__} with a template or function of its own"
    if "output_field" in own and own["output_field"].__class__ in _plain_fields:
        return None
    return _field_fault(node, connection)


def _node(node: Any, _connection: Any) -> str | None:
    if not _VENDORS.isdisjoint(node.__dict__):
        return f"a {type(node).__name__} that renders itself"
    return None


def _where(node: Any, connection: Any) -> str | None:
    if node.connector.__class__ is not str or node.connector not in _CONNECTORS:
        return "criteria with a connector of their own"
    return _node(node, connection)


def _frame(node: Any, connection: Any) -> str | None:
    if not isinstance(node.exclusion, WindowFrameExclusion | None):
        return "a window's frame with an exclusion of its own"
    return _expression(node, connection)


def _case(node: Any, connection: Any) -> str | None:
    return "a Case with a template of its own" if node.extra else _expression(node, connection)


def _func(node: Any, connection: Any) -> str | None:
    extra = node.extra
    if extra:
        for name, value in extra.items():
            if name == "function":
                if not _is_pure(value):
                    return f"the function {value!r}, which is not known to compute from its arguments alone"
            elif name == "arg_joiner":
                if not isinstance(value, str) or not _JOINER.fullmatch(value):
                    return f"a {type(node).__name__} with a joiner of its own"
            elif name == "template" or isinstance(value, str):
                return f"a {type(node).__name__} with the text {name!r}"
    return _expression(node, connection)


def _cast(node: Any, connection: Any) -> str | None:
    if node.output_field.__class__ not in _vouched:
        cast = node.output_field.cast_db_type(connection)
        if not _is_type(cast):
            return f"a cast to {cast!r}, which is no type's name"
    return _func(node, connection)


def _combined(node: Any, connection: Any) -> str | None:
    if not isinstance(node.connector, str) or not _CONNECTOR.fullmatch(node.connector.strip()):
        return "an expression with a connector of its own"
    return _expression(node, connection)


def _subquery(node: Any, connection: Any) -> str | None:
    if any(name == "template" or isinstance(value, str) for name, value in node.extra.items()):
        return "a Subquery with a template of its own"
    return _query(node.query, connection) or _expression(node, connection)


def _query(query: Any, _connection: Any) -> str | None:
    cls = type(query)
    own = query.__dict__
    if cls.as_sql is Query.as_sql and cls.get_compiler is Query.get_compiler and _COMPILES.isdisjoint(own):
        return None
    return f"a query of the class {cls.__name__}, which compiles itself"


_LOOKS: Final = (
    (Cast, _cast),
    (Func, _func),
    (Subquery, _subquery),
    (CombinedExpression, _combined),
    (Case, _case),
    (WindowFrame, _frame),
    (Expression | OrderBy | When | Window, _expression),
    (WhereNode, _where),
)
"""How instances of Django's classes, and of the app's that render nothing, are looked at: the first that fits."""


def check_query(query: Any, connection: Any) -> None:
    """Refuse a query whose class compiles itself.

    Raises:
        StatementRefused: it does.
    """
    if (fault := _query(query, connection)) is not None:
        raise StatementRefused(f"The statement holds {fault}.", mend=RAW_MEND)
