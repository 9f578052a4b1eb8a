"""Random SQL expressions, written as Python source over the schema of `tests.orm.silo.world`.

What is generated is source text, not objects: a failing program prints as what one would type to reproduce it, and the
same text runs in other namespaces, such as that of handwritten filters. Expressions are typed (``int``, ``str``,
``date``), so that PostgreSQL takes them. A good part of the literals are aimed at b's values.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date
from random import Random
from typing import Any, Final, NamedTuple

from tests.orm.silo.world import CANARY, MODELS, TABLES

__all__ = ["KINDS", "Column", "ExpressionWriter", "Query", "Source", "columns_of", "kind_of"]

KINDS: Final = ("int", "str", "date")
_OWN: Final[dict[str, tuple[str, ...]]] = {
    "int": tuple(map(str, range(8))),
    "str": ("'a'", "'x'", "'A title 1'", "'A title 2'", "'A folder 2'", "'A note 1'", "'A-uid-1'", "'memo'", "'NZ'"),
    "date": ("date(2020, 1, 1)", "date(2020, 2, 1)", "date(2020, 3, 1)"),
}
AIMED: Final[dict[str, tuple[str, ...]]] = {
    "int": ("51", "52", "900_001", "-900_002", "900_003", "-900_006", "900_051"),
    "str": ("'b'", f"'{CANARY}'", f"'{CANARY} title 1'", f"'{CANARY} folder 51'", f"'{CANARY}-uid-1'", f"'{CANARY} tag 1'"),
    "date": ("date(2999, 1, 2)", "date(1900, 1, 3)"),
}  # fmt: skip


class Column(NamedTuple):
    """A column that an expression may name: its source, and its kind."""

    source: str
    kind: str


class Source(NamedTuple):
    """An element of a FROM list.

    Args:
        name: the variable that holds it.
        columns: what it offers.
        key: columns by which its rows are in a total order.
        model: the mapped class, if it is an entity.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    model: str | None = None


class Query(NamedTuple):
    """A SELECT.

    Args:
        source: the expression that makes it.
        kinds: of its columns, which are labelled c0, c1 and so on.
        total: whether it orders its rows totally.
    """

    source: str
    kinds: tuple[str, ...]
    total: bool


def kind_of(column: Any) -> str:
    """Return the kind of a table's column."""
    kind = column.type.python_type
    return "int" if issubclass(kind, int) else "date" if issubclass(kind, date) else "str"


def columns_of(name: str, table: str, model: Any = None) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Return the columns and the key of a table under a variable's name, or those of a mapped class."""
    if model is None:
        found = tuple(Column(f"{name}.c.{one.key}", kind_of(one)) for one in TABLES[table].columns)
        keys = tuple(Column(f"{name}.c.{one.key}", kind_of(one)) for one in TABLES[table].primary_key)
        return found, keys
    mapper = model.__mapper__
    attributes = {one.key: one.columns[0] for one in mapper.column_attrs if one.columns[0].table is not None}
    found = tuple(Column(f"{name}.{key}", kind_of(one)) for key, one in attributes.items())
    keys = tuple(Column(f"{name}.{mapper.get_property_by_column(one).key}", kind_of(one)) for one in mapper.primary_key)
    return found, keys


class ExpressionWriter(ABC):
    """Writes expressions. `lines` holds the statements that must run before the expression is evaluated.

    Args:
        random: where all choices come from.
        dialect: ``"sqlite"`` or ``"postgresql"``.
        fallible: whether expressions may fail on b's values (never on a's).
    """

    models: Final = {model.__name__: model for model in MODELS}

    def __init__(self, random: Random, dialect: str, *, fallible: bool = True) -> None:
        self.random = random
        self.postgres = dialect == "postgresql"
        self.fallible = fallible
        self.lines: list[str] = []
        self._names = 0

    @abstractmethod
    def query(self, depth: int, outer: Sequence[Source] = (), kinds: Sequence[str] | None = None) -> Query:
        """Write a SELECT."""

    @abstractmethod
    def scalar(self, scope: Sequence[Source], kind: str) -> str:
        """Write a scalar subquery: an aggregate, or the first of a total order."""

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.random.random() < probability

    def pick(self, **weights: float) -> str:
        """Return one of the names, by weight."""
        return self.random.choices(list(weights), list(weights.values()))[0]

    def name(self, letter: str) -> str:
        """Return a new variable's name."""
        self._names += 1
        return f"{letter}{self._names}"

    def let(self, letter: str, source: str) -> str:
        """Write an assignment and return the variable's name."""
        name = self.name(letter)
        self.lines.append(f"{name} = {source.replace('{name}', name)}")
        return name

    def literal(self, kind: str, aimed: float = 0.4) -> str:
        """Return a value as Python source, perhaps one of b's."""
        return self.random.choice((AIMED if self.chance(aimed) else _OWN)[kind])

    def column(self, scope: Sequence[Source], kind: str | None = None) -> Column | None:
        """Return a column of a kind, or ``None`` if there is none. The sources that come first are preferred."""
        for source in sorted(scope, key=lambda _: self.random.random() ** 2):
            found = [one for one in source.columns if kind in (None, one.kind)]
            if found:
                return self.random.choice(found)
        return None

    def expression(self, scope: Sequence[Source], kind: str, depth: int) -> str:
        """Return an expression of a kind. It has a column of the scope in it, where one fits."""
        column = self.column(scope, kind)
        if column is None:
            return f"literal({self.literal(kind)})"
        if depth <= 0 or self.chance(0.55):
            return column.source
        one, other = column.source, self.expression(scope, kind, depth - 1)
        shape = self.pick(case=2, coalesce=2, special=3, subquery=1.5, nullif=0.5)
        if shape == "case":
            return f"case(({self.condition(scope, depth - 1)}, {one}), else_={other})"
        if shape == "coalesce":
            return f"func.coalesce({one}, {other}, {self.literal(kind)})"
        if shape == "nullif":
            return f"func.nullif({one}, {self.literal(kind)})"
        if shape == "subquery":
            return self.scalar(scope, kind)
        if kind == "int":
            text = self.column(scope, "str")
            choices = [f"({one} + {other})", f"({one} - {self.literal('int')})", f"func.abs({one})", f"({one} * 2)"]
            return self.random.choice([*choices, f"func.length({text.source})"] if text else choices)
        if kind == "str":
            return self.random.choice(
                [f"func.upper({one})", f"({one} + {other})", f"func.substr({one}, 1, 4)", f"func.lower({one})"]
            )
        return f"case(({one} > {self.literal('date')}, {one}), else_=None)"

    def aggregate(self, scope: Sequence[Source], kind: str, depth: int) -> str:
        """Return an aggregate function of a kind, whose value does not depend on the order of rows."""
        if kind != "int":
            return f"func.{self.random.choice(('max', 'min'))}({self.expression(scope, kind, depth)})"
        shape = self.pick(count=3, column=2, distinct=1, sum=3, max=2, min=1, filter=1, total=1, text=1)
        if shape == "count":
            return "func.count()"
        if shape == "filter":
            return f"func.count().filter({self.condition(scope, depth - 1)})"
        if shape in {"column", "distinct"}:
            column = self.column(scope)
            assert column is not None
            return f"func.count({column.source if shape == 'column' else f'distinct({column.source})'})"
        text = self.column(scope, "str")
        if shape == "text" and text:
            joined = f"func.string_agg({text.source}, ',')" if self.postgres else f"func.group_concat({text.source})"
            return f"func.length({joined})"
        return f"func.{shape if shape in {'max', 'min'} else 'sum'}({self.expression(scope, 'int', depth)})"

    def condition(self, scope: Sequence[Source], depth: int) -> str:
        """Return a condition."""
        shape = self.pick(
            compare=6, columns=3, isin=2, null=1, like=1, constant=0.7, between=0.5, tuple=0.3,
            **({"all": 2.5, "any": 2.5, "negate": 1, "exists": 1.5, "inquery": 1.5, "scalar": 1} if depth > 0 else {}),
            **({"fallible": 0.3} if self.fallible else {}),
        )  # fmt: skip
        written: str | None = getattr(self, f"_{shape}")(scope, depth)
        return written or "true()"

    def _compare(self, scope: Sequence[Source], depth: int) -> str:
        kind = self.pick(int=4, str=3, date=1)
        operator = self.random.choice(("==", "!=", "<", ">", "<=", ">="))
        return f"({self.expression(scope, kind, depth - 1)} {operator} {self.literal(kind)})"

    def _columns(self, scope: Sequence[Source], depth: int) -> str | None:
        kind = self.pick(int=4, str=3, date=1)
        one, other = self.column(scope, kind), self.column(scope, kind)
        if one is None or other is None:
            return None
        return f"({one.source} {self.random.choice(('==', '==', '!=', '<', '>='))} {other.source})"

    def _isin(self, scope: Sequence[Source], depth: int) -> str:
        kind = self.pick(int=4, str=3, date=1)
        listed = ", ".join(self.literal(kind) for _ in range(self.random.randint(0, 3)))
        operator = self.random.choice(("in_", "in_", "not_in"))
        return f"{self.expression(scope, kind, depth - 1)}.{operator}([{listed}])"

    def _null(self, scope: Sequence[Source], depth: int) -> str | None:
        column = self.column(scope)
        return column and f"{column.source}.{self.random.choice(('is_', 'is_not'))}(None)"

    def _like(self, scope: Sequence[Source], depth: int) -> str | None:
        column = self.column(scope, "str")
        pattern = self.random.choice(
            ("like('A%')", f"like('{CANARY}%')", "contains('title')", "startswith('B-')", "ilike('%b%')")
        )
        return column and f"{column.source}.{pattern}"  # fmt: skip

    def _constant(self, scope: Sequence[Source], depth: int) -> str:
        return self.random.choice(("true()", "true()", "false()", "(literal(1) == 1)"))

    def _between(self, scope: Sequence[Source], depth: int) -> str | None:
        column = self.column(scope, "int")
        return column and f"{column.source}.between({self.literal('int')}, {self.literal('int')})"

    def _tuple(self, scope: Sequence[Source], depth: int) -> str | None:
        one, other = self.column(scope, "int"), self.column(scope, "str")
        if one is None or other is None:
            return None
        pairs = ", ".join(f"({self.literal('int')}, {self.literal('str')})" for _ in range(2))
        return f"tuple_({one.source}, {other.source}).in_([{pairs}])"

    def _all(self, scope: Sequence[Source], depth: int) -> str:
        return f"and_({self.condition(scope, depth - 1)}, {self.condition(scope, depth - 1)})"

    def _any(self, scope: Sequence[Source], depth: int) -> str:
        return f"or_({self.condition(scope, depth - 1)}, {self.condition(scope, depth - 1)})"

    def _negate(self, scope: Sequence[Source], depth: int) -> str:
        return f"not_({self.condition(scope, depth - 1)})"

    def _exists(self, scope: Sequence[Source], depth: int) -> str:
        entity = [one for one in scope if one.model and self._relationships(one)]
        if entity and self.chance(0.4):
            source = self.random.choice(entity)
            key, target, many = self.random.choice(self._relationships(source))
            columns, keys = columns_of(target, "", self.models[target])
            inner = self.condition([Source(target, columns, keys, None)], 0)
            return f"{source.name}.{key}.{'any' if many else 'has'}({inner})"
        return f"{self.query(0, scope).source}.exists()"

    def _relationships(self, source: Source) -> list[tuple[str, str, bool]]:
        model: Any = self.models[str(source.model)]
        return [
            (one.key, one.mapper.class_.__name__, bool(one.uselist))
            for one in model.__mapper__.relationships
            if one.mapper.class_ is not model and one.key not in {"dynamic", "write_only"}
        ]

    def _inquery(self, scope: Sequence[Source], depth: int) -> str:
        kind = self.pick(int=4, str=3, date=1)
        operator = self.random.choice(("in_", "in_", "not_in"))
        return f"{self.expression(scope, kind, 0)}.{operator}({self.query(0, scope, [kind]).source})"

    def _scalar(self, scope: Sequence[Source], depth: int) -> str:
        kind = self.pick(int=4, str=3, date=1)
        one = self.expression(scope, kind, 0)
        return f"({one} {self.random.choice(('==', '<', '>='))} {self.scalar(scope, kind)})"

    def _fallible(self, scope: Sequence[Source], depth: int) -> str | None:
        """What fails on values that only b has: an error would tell of them."""
        if self.postgres:
            column = self.column(scope, "int")
            aimed = self.random.choice(AIMED["int"][2:])
            return column and f"(100 // ({column.source} - {aimed}) != 7)"
        column = next((one for source in scope for one in source.columns if one.source.endswith(".meta")), None)
        return column and f"(func.json_extract({column.source}, '$.n') >= {self.literal('int')})"
