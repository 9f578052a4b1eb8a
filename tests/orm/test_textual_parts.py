"""Every textual part of a statement is held to its grammar, on each dialect that renders it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    bindparam,
    column,
    create_engine,
    extract,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ColumnElement, Grouping, TString, UnaryExpression, _TStringText
from sqlalchemy.types import UserDefinedType

from tenantguard import bind, service_identity
from tenantguard.errors import StatementRefused
from tenantguard.orm import protect, stamp_tenant, tenant_key

A = service_identity("test", tenant="a")
URLS = {"sqlite": "sqlite://", "pg": "postgresql+psycopg://", "mysql": "mysql+pymysql://"}
SQL = "(SELECT max(name) FROM textual_boxes)"

metadata = MetaData()
boxes = Table(
    "textual_boxes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False),
    Column("name", String(99)),
)
NAME = boxes.c.name


class EvilType(UserDefinedType[Any]):
    cache_ok = True
    render_bind_cast = True

    def get_col_spec(self, **kw: Any) -> str:
        return f"text || {SQL}"


class Compiled(ColumnElement[str]):
    inherit_cache = False


@compiles(Compiled)
def _compiled(element: Any, compiler: Any, **kw: Any) -> str:
    return SQL


class Fickle(TypeDecorator[str]):
    """Shows another expression when it is looked at than when it is rendered."""

    impl = String
    cache_ok = True
    asked = 0

    def bind_expression(self, bindvalue: Any) -> Any:
        self.asked += 1
        return bindvalue if self.asked == 1 else Compiled()


class Hint:
    """Looks like the one word that may be a hint."""

    def upper(self) -> str:
        return "ONLY"

    def __mod__(self, names: object) -> Any:
        return self


def template(sql: str) -> Any:
    """Return what ``tstring(t"...")`` makes, which needs Python 3.14."""
    made = TString.__new__(TString)
    made.parts = [_TStringText(sql)]
    return made


REFUSED: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "a text that is one word": ("sqlite", r"a text\(\) part", lambda: text("checkpoint")),
    "a SELECT of a text": (
        "sqlite",
        "a SELECT made of text",
        lambda: select(text("textual_boxes").columns(column("name")).subquery()),
    ),
    "a template": ("sqlite", "has a template string", lambda: template(SQL)),
    "a template in a SELECT": ("sqlite", "has a template string", lambda: select(Grouping(template(SQL)))),
    "a part of a template": ("sqlite", "a part of a template", lambda: select(Grouping(_TStringText(SQL)))),
    "an operator before one operand": (
        "sqlite",
        "a custom operator",
        lambda: select(UnaryExpression(NAME, operator=operators.custom_op(f"{SQL} ||"))),
    ),
    "an operator after one operand": (
        "sqlite",
        "a custom operator",
        lambda: select(UnaryExpression(NAME, modifier=operators.custom_op(f"|| {SQL}"))),
    ),
    "a construct of a type that had another": (
        "sqlite",
        "the construct Compiled",
        lambda: select(literal("x", Fickle())),
    ),
    "a prefix of one word": ("sqlite", "a prefix or suffix", lambda: select(NAME).prefix_with("IGNORE")),
    "a suffix of one word": ("sqlite", "a prefix or suffix", lambda: select(NAME).suffix_with("IGNORE")),
    "a prefix that is no text": ("sqlite", "a prefix", lambda: select(NAME).prefix_with(literal_column("DISTINCT"))),
    "a prefix of a CTE": ("sqlite", "a prefix", lambda: select(select(NAME).cte().prefix_with("IGNORE"))),
    "a hint of a table that is not read": ("sqlite", "a hint", lambda: select(literal(1)).with_hint(boxes, "x")),
    "a hint where it is left out": ("sqlite", "a hint", lambda: select(NAME).with_hint(boxes, "x")),
    "a hint of a SELECT": ("mysql", "a hint", lambda: select(NAME).with_hint(boxes, "AS x, textual_boxes")),
    "a hint of an UPDATE": ("mysql", "a hint", lambda: update(boxes).values(name="x").with_hint("AS x")),
    "a hint of a DELETE": ("mysql", "a hint", lambda: boxes.delete().with_hint("AS x")),
    "a hint of an INSERT": ("mysql", "a hint", lambda: insert(boxes).with_hint("AS x")),
    "a hint that is no text": ("mysql", "a hint", lambda: update(boxes).values(name="x").with_hint(Hint())),  # type: ignore[arg-type]
    "the field of an EXTRACT": ("pg", "an EXTRACT", lambda: select(extract(f"year FROM now()), {SQL}", NAME))),
    "the type of a parameter": ("pg", "a type", lambda: select(literal("x", EvilType()))),
    "the type of an empty set": (
        "pg",
        "a type",
        lambda: select(func.lower(bindparam("x", [], expanding=True, type_=EvilType()))),
    ),
    "the type of an empty array": ("pg", "a type", lambda: select(postgresql.array([], type_=EvilType()))),
    "the type of a column of a function": (
        "pg",
        "a type",
        lambda: select(func.unnest("x").table_valued(column("x", EvilType())).render_derived(with_types=True)),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_textual_part_that_is_not_plain_is_refused(name: str) -> None:
    dialect, match, statement = REFUSED[name]
    engine = protect(create_engine(URLS[dialect]), metadata=metadata)
    with bind(A), pytest.raises(StatementRefused, match=match):
        statement().compile(engine, compile_kwargs={"render_postcompile": True})


PLAIN: dict[str, tuple[str, Callable[[], Any], str]] = {
    "a known prefix": ("sqlite", lambda: select(NAME).prefix_with("ALL"), "SELECT ALL "),
    "PostgreSQL's one hint": ("pg", lambda: select(NAME).with_hint(boxes, "ONLY"), "FROM ONLY textual_boxes"),
    "a field": ("pg", lambda: select(extract("year", func.now())), "EXTRACT(year FROM now())"),
    "a unary operator": ("pg", lambda: select(UnaryExpression(NAME, operator=operators.custom_op("@"))), "@ textual"),
    "the type of an empty array": ("pg", lambda: select(postgresql.array([], type_=Integer())), "ARRAY[]::INTEGER[]"),
}


@pytest.mark.parametrize("name", [name.replace("PostgreSQL", "pg") for name in PLAIN])
def test_a_plain_part_is_let_through(name: str) -> None:
    dialect, statement, expected = PLAIN[name.replace("pg", "PostgreSQL")]
    engine = protect(create_engine(URLS[dialect]), metadata=metadata)
    with bind(A):
        assert expected in str(statement().compile(engine))
