"""Types that render SQL of their author's: their names, their literals, and the expressions around values."""

from typing import Any

from sqlalchemy import (
    JSON,
    Date,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    TypeDecorator,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    select,
    text,
    true,
    type_coerce,
    update,
    values,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

from tests.orm.attacks.constructs import ALL, ByItself, Evil
from tests.orm.attacks.harness import Attack
from tests.orm.attacks.shortcuts import D, doc, run

T = D.c.title


class EvilType(UserDefinedType[Any]):
    cache_ok = True
    spec = "INTEGER)))) OR 1=1 --"

    def get_col_spec(self, **kw: Any) -> str:
        return self.spec


class CastType(EvilType):
    spec = "text) || (SELECT max(title) FROM documents"


class BindCastType(EvilType):
    render_bind_cast = True
    spec = "text || (SELECT max(title) FROM documents)"


class LiteralType(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "INTEGER"

    def literal_processor(self, dialect: Any) -> Any:
        return lambda value: "1) OR (1=1"


class Decorated(TypeDecorator[Any]):
    impl = String
    cache_ok = True

    def process_literal_param(self, value: Any, dialect: Any) -> str:
        return "x' OR '1'='1"


class DecoratedBytes(TypeDecorator[Any]):
    impl = LargeBinary
    cache_ok = True

    def process_literal_param(self, value: Any, dialect: Any) -> str:
        return "1) OR (1=1"


class BindExpression(TypeDecorator[Any]):
    impl = String
    cache_ok = True
    made: Any = staticmethod(lambda value: Evil())

    def bind_expression(self, bindvalue: Any) -> Any:
        return self.made(bindvalue)


class BindText(BindExpression):
    cache_ok = True
    made = staticmethod(lambda value: text(ALL))


class BindFunction(BindExpression):
    cache_ok = True
    made = staticmethod(lambda value: func.query_to_xml("SELECT title FROM documents", True, True, ""))


class BindSelect(BindExpression):
    cache_ok = True
    made = staticmethod(lambda value: select(func.max(D.c.title)).scalar_subquery())


class BindByItself(BindExpression):
    cache_ok = True
    made = staticmethod(lambda value: ByItself())


class ColumnExpression(TypeDecorator[Any]):
    impl = String
    cache_ok = True
    made: Any = staticmethod(lambda column: Evil())

    def column_expression(self, column: Any) -> Any:
        return self.made(column)


class ColumnText(ColumnExpression):
    cache_ok = True
    made = staticmethod(lambda column: text(ALL))


class ColumnSelect(ColumnExpression):
    cache_ok = True
    made = staticmethod(lambda column: select(func.max(D.c.title)).scalar_subquery())


class ColumnByItself(ColumnExpression):
    cache_ok = True
    made = staticmethod(lambda column: ByItself())


class Comparing(String):
    class comparator_factory(String.Comparator[Any]):
        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            return Evil()


class Isoformat:
    def isoformat(self, *args: Any) -> str:
        return "x' OR '1'='1"


def lit(type_: Any, value: Any = "1) OR (1=1") -> Any:
    return bindparam("x", value, type_=type_, literal_execute=True)


TYPES: dict[str, Attack] = {
    "of a cast": run(select(cast(literal(1), CastType()))),
    "of a cast in where": run(select(T).where(cast(D.c.id, EvilType()) == 1)),
    "of an array": run(select(cast(literal(1), postgresql.ARRAY(CastType())))),
    "of an empty list": run(select(T).where(D.c.id.in_(bindparam("x", [], expanding=True, type_=EvilType())))),
    "of an empty list, other": run(select(T).where(type_coerce(D.c.id, EvilType()).in_([]))),
    "of an empty array": run(select(postgresql.array([], type_=CastType()))),
    "of a bind": run(select(literal("x", BindCastType()))),
    "of a bind in where": run(select(T).where(literal("x", BindCastType()) == T)),
    "of a list": run(select(T).where(T.in_(bindparam("x", ["y"], expanding=True, type_=BindCastType())))),
    "of a table-valued column": run(
        select(func.json_to_recordset("[]").table_valued(column("a", CastType())).render_derived(with_types=True))
    ),
    "of an insert": run(insert(D).values(doc(title=literal("x", BindCastType()))).returning(T)),
    "literal of one's own": run(select(T).where(D.c.id == lit(LiteralType()))),
    "literal of a number": run(select(T).where(D.c.size == lit(Numeric()))),
    "literal of a float": run(select(T).where(D.c.size == lit(Float()))),
    "literal of an integer": run(select(T).where(D.c.size == lit(Integer()))),
    "literal of a string": run(select(T).where(lit(String(), "x' OR '1'='1") == T)),
    "literal of a string with a backslash": run(select(T).where(lit(String(), "\\' OR 1=1 --") == T)),
    "literal of a decorator": run(select(T).where(lit(Decorated()) == T)),
    "literal of decorated bytes": run(select(T).where(D.c.id == lit(DecoratedBytes()))),
    "literal of a date": run(select(T).where(lit(Date(), Isoformat()) == T)),
    "literal of a UUID": run(select(T).where(lit(Uuid(as_uuid=False), "x' OR '1'='1") == T)),
    "literal of JSON": run(select(T).where(cast(T, String) == lit(JSON(), "x' OR '1'='1"))),
    "literal of an enum": run(select(T).where(lit(Enum("x' OR '1'='1", native_enum=False), "x' OR '1'='1") == T)),
    "literal of an interval": run(select(T).where(lit(Interval(), Isoformat()) == T)),
    "literal list of numbers": run(
        select(T).where(
            D.c.size.in_(bindparam("x", ["1) OR (1=1"], expanding=True, literal_execute=True, type_=Numeric()))
        )
    ),
    "literal list of one's own": run(
        select(T).where(D.c.id.in_(bindparam("x", [1], expanding=True, literal_execute=True, type_=LiteralType())))
    ),
    "literal values": run(
        select(values(column("x", LiteralType()), name="v", literal_binds=True).data([(1,)]).c.x, T).join(D, true())
    ),
    "literal values of numbers": run(
        select(values(column("x", Numeric()), name="v", literal_binds=True).data([("1), (2",)]).c.x)
    ),
    "literal in an update": run(update(D).where(D.c.size == lit(Numeric())).values(title="stolen")),
    "bind expression": run(select(literal("x", BindExpression()))),
    "bind expression in where": run(select(T).where(literal("x", BindExpression()) == "x")),
    "bind expression of a text": run(select(literal("x", BindText()))),
    "bind expression of a function": run(select(literal("x", BindFunction()))),
    "bind expression of a SELECT": run(select(literal("x", BindSelect()))),
    "bind expression by itself": run(select(literal("x", BindByItself()))),
    "bind expression in a list": run(
        select(T).where(T.in_(bindparam("x", ["y"], expanding=True, type_=BindExpression())))
    ),
    "bind expression in an insert": run(insert(D).values(doc(title=literal("x", BindExpression()))).returning(T)),
    "bind expression in an update": run(update(D).values(title=literal("x", BindText())).returning(T)),
    "column expression": run(select(type_coerce(T, ColumnExpression()))),
    "column expression of a text": run(select(type_coerce(T, ColumnText()))),
    "column expression of a SELECT": run(select(type_coerce(T, ColumnSelect()))),
    "column expression by itself": run(select(type_coerce(T, ColumnByItself()))),
    "column expression in returning": run(update(D).values(size=1).returning(type_coerce(T, ColumnExpression()))),
    "comparator": run(select(type_coerce(T, Comparing()) + "x")),
    "comparator in where": run(select(T).where(type_coerce(T, Comparing()) == "x")),
}

ATTACKS: dict[str, Attack] = {f"type {name}": attack for name, attack in TYPES.items()}

OWN: dict[str, tuple[Attack, Any]] = {
    "literals": (
        run(
            select(D.c.id).where(
                T.in_(bindparam("x", ["A-memo", "it's"], expanding=True, literal_execute=True)),
                D.c.size >= bindparam("y", 1.5, type_=Numeric(), literal_execute=True),
                D.c.size > bindparam("z", -5, type_=Integer(), literal_execute=True),
            )
        ),
        [(11,)],
    ),
    "an empty list": (run(select(T).where(D.c.id.in_([]))), []),
    "a cast": (run(select(cast(D.c.id, String(20))).where(D.c.id == 1)), [("1",)]),
    "a CTE of another name": (run(select(select(D.c.id).where(D.c.id == 1).cte("docs").c.id)), [(1,)]),
}
