"""Constructs that render themselves are refused wherever they stand, also where ``@compiles`` did not make them.

Such a construct has a rendering of its own, in its class or in one object, and nothing that compiles asks which
compiler it is for. So each statement is searched for them; SQLAlchemy does not count all parts of a statement as its
children.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    TextClause,
    case,
    column,
    create_engine,
    func,
    insert,
    literal,
    literal_column,
    select,
    union,
    update,
    values,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import Select

from tenantguard import bind, service_identity, system
from tenantguard.errors import StatementRefused
from tenantguard.orm import protect, stamp_tenant, tenant_key

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
SQL = "(SELECT max(name) FROM rendered_boxes)"


class Own:
    """Renders itself without ``@compiles``."""

    def _compiler_dispatch(self, visitor: Any, **kw: Any) -> str:
        return SQL


class OwnColumn(Own, ColumnElement[str]):
    inherit_cache = False
    type = String()


class OwnText(Own, TextClause):
    inherit_cache = False


class OwnSelect(Own, Select[Any]):
    inherit_cache = False


class Standing:
    """Stands for another element, as the attributes of entities do."""

    def __clause_element__(self) -> Any:
        return OwnColumn()


metadata = MetaData()


def boxes_named(name: str, **options: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False),
        Column("name", String(99), **options),
    )


boxes = boxes_named("rendered_boxes")
by_default = boxes_named("rendered_by_default", default=OwnColumn())
by_onupdate = boxes_named("rendered_by_onupdate", onupdate=func.lower(OwnColumn()))


def in_one_object() -> Any:
    element = literal("x")
    element.__dict__["_compiler_dispatch"] = lambda visitor, **kw: SQL
    return element


E = OwnColumn
NAME = boxes.c.name
PUT = sqlite.insert(boxes).values(id=1, name="x")
ON_ID = {"index_elements": ["id"], "set_": {"name": "x"}}
STATEMENTS: dict[str, Any] = {
    "SELECT": select(E()),
    "SELECT, by one object": select(in_one_object()),
    "SELECT, in the WHEN of a CASE": select(case((boxes.c.id == 1, E()))),
    "SELECT, prefix": select(NAME).prefix_with(OwnText("DISTINCT")),
    "SELECT, suffix": select(NAME).suffix_with(OwnText("DISTINCT")),
    "a CTE": select(OwnSelect(NAME).cte()),
    "a CTE beside": select(NAME).add_cte(OwnSelect(NAME).cte()),
    "a CTE, prefix": select(select(NAME).cte().prefix_with(OwnText("MATERIALIZED"))),
    "a subquery": select(OwnSelect(NAME).subquery()),
    "a scalar subquery": select(OwnSelect(NAME).scalar_subquery()),
    "a UNION": union(select(NAME), OwnSelect(NAME)),
    "a UNION, ORDER BY": union(select(NAME), select(by_default.c.name)).order_by(E()),
    "a UNION, LIMIT": union(select(NAME), select(by_default.c.name)).limit(E()),
    "VALUES": select(values(column("x", String), name="v").data([("x",), (E(),)])),
    "VALUES in a CTE": select(values(column("x", String), name="v").data([("x",), (E(),)]).cte()),
    "VALUES as a scalar": select(values(column("x", String)).data([(E(),)]).scalar_values()),
    "VALUES, by what stands for it": select(values(column("x", String)).data([(Standing(),)]).scalar_values()),
    "UPDATE, SET": update(boxes).values(name=E()),
    "UPDATE, ordered SET": update(boxes).ordered_values((NAME, E())),
    "UPDATE, WHERE": update(boxes).where(E() == NAME).values(name="x"),
    "UPDATE, RETURNING": update(boxes).values(name="x").returning(E()),
    "UPDATE, onupdate": update(by_onupdate).values(id=9),
    "DELETE, WHERE": boxes.delete().where(E() == NAME),
    "DELETE, RETURNING": boxes.delete().returning(E()),
    "INSERT, VALUES": insert(boxes).values(id=9, name=E()),
    "INSERT, VALUES, by what stands for it": insert(boxes).values(id=9, name=Standing()),
    "INSERT, first of many rows": insert(boxes).values([{"id": 8, "name": E()}, {"id": 9, "name": "x"}]),
    "INSERT, last of many rows": insert(boxes).values([{"id": 8, "name": "x"}, {"id": 9, "name": E()}]),
    "INSERT, many rows, by what stands for it": insert(boxes).values([{"id": 8, "name": Standing()}]),
    "INSERT, default": insert(by_default).values(id=9),
    "INSERT, default of many rows": insert(by_default).values([{"id": 8}, {"id": 9}]),
    "INSERT, default of one row": insert(by_default).values([{"id": 8, "name": "x"}, {"id": 9}]),
    "INSERT, SELECT": insert(boxes).from_select(["name"], OwnSelect(NAME)),
    "INSERT, default beside a SELECT": insert(by_default).from_select(["id"], select(boxes.c.id)),
    "INSERT, RETURNING": insert(boxes).values(id=9, name="x").returning(E()),
    "an upsert, SET": PUT.on_conflict_do_update(index_elements=["id"], set_={"name": E()}),
    "an upsert, WHERE": PUT.on_conflict_do_update(**ON_ID, where=E() != NAME),
    "an upsert, index": PUT.on_conflict_do_update(index_elements=[E()], set_={"name": "x"}),
    "an upsert, condition of the index": PUT.on_conflict_do_update(**ON_ID, index_where=E() != NAME),
    "an upsert that does nothing": PUT.on_conflict_do_nothing(index_elements=[E()]),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=metadata)
    prepare(made)
    yield made
    made.dispose()


def prepare(engine: Engine) -> None:
    with system("make the tables"):
        metadata.create_all(engine)
    for identity in (A, B):
        with bind(identity), engine.begin() as connection:
            assert identity.tenant is not None
            connection.execute(insert(boxes).values(name=f"{identity.tenant.id}-box"))


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_renders_itself_is_refused(engine: Engine, name: str) -> None:
    with bind(A), engine.connect() as connection, pytest.raises(StatementRefused, match="renders SQL of its own"):
        connection.execute(STATEMENTS[name])


ELSEWHERE: dict[str, tuple[str, Any]] = {
    "postgresql's distinct on": ("postgresql+psycopg://", select(NAME).ext(postgresql.distinct_on(E()))),
    "postgresql's index of an upsert": (
        "postgresql+psycopg://",
        postgresql.insert(boxes).values(id=1).on_conflict_do_nothing(index_elements=[E()]),
    ),
    "postgresql's order of an aggregate": (
        "postgresql+psycopg://",
        select(func.array_agg(postgresql.aggregate_order_by(NAME, E()))),
    ),
    "mysql's limit of an UPDATE": ("mysql+pymysql://", update(boxes).ext(mysql.limit(E())).values(name="x")),
    "mysql's upsert": ("mysql+pymysql://", mysql.insert(boxes).values(id=1).on_duplicate_key_update(name=E())),
    "mysql's match": ("mysql+pymysql://", select(mysql.match(NAME, against=E()))),
}


@pytest.mark.parametrize("name", [name.replace("postgresql", "pg") for name in ELSEWHERE])
def test_what_renders_itself_is_refused_in_what_a_dialect_adds(name: str) -> None:
    url, statement = ELSEWHERE[name.replace("pg", "postgresql")]
    engine = protect(create_engine(url), metadata=metadata)
    with bind(A), pytest.raises(StatementRefused, match="renders SQL of its own"):
        statement.compile(engine)


def test_a_default_that_is_not_used_is_let_be(engine: Engine) -> None:
    with bind(A), engine.connect() as connection:
        connection.execute(insert(by_default).values(id=1, name="given"))
        connection.execute(insert(by_default), [{"id": 2, "name": "given"}, {"id": 3, "name": "given"}])
        connection.execute(insert(by_default).values([{"id": 4, "name": "given"}, {"id": 5, "name": "given"}]))
        connection.execute(insert(by_onupdate).values(id=1))
        connection.execute(update(by_onupdate).values(name="given"))
        named = select(literal_column("name")).select_from(by_default)
        assert connection.scalars(named).all() == ["given"] * 5
