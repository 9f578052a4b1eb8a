"""Constructs, types and names that render SQL of their author's, in every place in which a statement may have one."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    case,
    cast,
    column,
    distinct,
    exists,
    extract,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
    values,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles, deregister
from sqlalchemy.orm import Bundle, Session, with_loader_criteria
from sqlalchemy.sql import Executable
from sqlalchemy.sql.elements import BindParameter, ClauseElement, ColumnClause, ColumnElement, TextClause
from sqlalchemy.sql.functions import FunctionElement, GenericFunction
from sqlalchemy.sql.selectable import CTE, Alias, FromClause, Select

from tenantguard.orm import shared
from tests.orm.attacks.harness import Attack
from tests.orm.attacks.oddities import Note
from tests.orm.attacks.shortcuts import NEW, C, D, F, doc, run, upsert
from tests.orm.attacks.world import Document

ALL = "(SELECT max(title) FROM documents)"


class Evil(ColumnElement[str]):
    inherit_cache = False
    type = String()


class EvilFrom(FromClause):
    inherit_cache = False
    named_with_column = False


class EvilStatement(Executable, ClauseElement):
    inherit_cache = False


class EvilSelect(Select[Any]):
    inherit_cache = True


class EvilColumn(ColumnClause[Any]):
    inherit_cache = True


class EvilBind(BindParameter[Any]):
    inherit_cache = False


class EvilText(TextClause):
    inherit_cache = False


class EvilFunction(FunctionElement[Any]):
    inherit_cache = True
    name = "lower"


class EvilNamed(GenericFunction[Any]):
    inherit_cache = True
    name = "upper"
    identifier = "attack_upper"
    type = String()


class EvilTable(Table):
    pass


class EvilAlias(Alias):
    inherit_cache = True


class EvilCTE(CTE):
    inherit_cache = True


class ByItself(ColumnElement[str]):
    """Renders itself without ``@compiles``."""

    inherit_cache = False
    type = String()

    def _compiler_dispatch(self, visitor: Any, **kw: Any) -> str:
        return ALL


class OnlyHere(ColumnElement[str]):
    """Has a rendering for the two dialects alone."""

    inherit_cache = False
    type = String()


for kind in (Evil, EvilBind, EvilText, EvilFunction, EvilNamed, EvilColumn):
    compiles(kind)(lambda element, compiler, **kw: ALL)
for kind in (EvilStatement, EvilSelect, EvilAlias):
    compiles(kind)(lambda element, compiler, **kw: "SELECT title FROM documents WHERE id > 900")
for kind in (EvilFrom, EvilTable, EvilCTE):
    compiles(kind)(lambda element, compiler, **kw: "documents")
for dialect in ("sqlite", "postgresql"):
    compiles(OnlyHere, dialect)(lambda element, compiler, **kw: ALL)

T, E = D.c.title, Evil
STATEMENTS: dict[str, Any] = {
    "a column": select(E()),
    "a label": select(E().label("x")),
    "where": select(T).where(E() == "x"),
    "where in and": select(T).where(and_(true(), or_(E() == "x", true()))),
    "in": select(T).where(T.in_([E()])),
    "in of it": select(T).where(E().in_(["x"])),
    "between": select(T).where(T.between(E(), E())),
    "like": select(T).where(T.like(E())),
    "order by": select(T).order_by(E()),
    "order by desc": select(T).order_by(E().desc().nulls_last()),
    "group by": select(func.count(D.c.id)).group_by(E()),
    "having": select(func.count(D.c.id)).group_by(T).having(E() == "x"),
    "distinct": select(distinct(E())),
    "distinct on": select(T).ext(postgresql.distinct_on(E())),
    "limit": select(T).limit(E()),
    "offset": select(T).limit(1).offset(E()),
    "function": select(func.lower(E())),
    "filter": select(func.max(T).filter(E() == "x")),
    "over": select(func.max(T).over(order_by=E())),
    "over partition": select(func.max(T).over(partition_by=[E()])),
    "within group": select(func.percentile_cont(0.5).within_group(E())),
    "case": select(case((E() == "x", "y"), else_=E())),
    "case of": select(case({"x": E()}, value=T)),
    "cast": select(cast(E(), String)),
    "coerced": select(type_coerce(E(), Integer)),
    "collate": select(E().collate("C")),
    "extract": select(extract("year", E())),
    "tuple": select(T).where(tuple_(D.c.id, E()).in_([(1, "x")])),
    "operator": select(T.op("||")(E())),
    "negated": select(T).where(~(E() == "x")),
    "array": select(postgresql.array([E()])),
    "aggregate order": select(func.array_agg(postgresql.aggregate_order_by(T, E()))),
    "scalar subquery": select(select(E()).scalar_subquery()),
    "subquery": select(select(E().label("x")).subquery().c.x),
    "cte": select(select(E().label("x")).cte("w").c.x),
    "exists": select(literal(1)).where(exists(select(E()))),
    "union": union_all(select(T), select(E())),
    "union order": union_all(select(T), select(F.c.name)).order_by(E()),
    "union limit": union_all(select(T), select(F.c.name)).limit(E()),
    "union group": union_all(select(T), select(F.c.name)).group_by(E()),
    "join": select(T).join(F, E() == "x"),
    "outer join": select(T).outerjoin(F, E() == "x"),
    "lateral": select(select(E().label("x")).lateral("l").c.x),
    "values": select(values(column("x", String), name="v").data([(E(),)]).c.x),
    "entity": select(Document).where(E() == "x"),
    "bundle": select(Bundle("b", E().label("x"))),
    "criteria": select(Document).options(with_loader_criteria(Document, E() == "x")),
    "lock": select(T).with_for_update(of=E()),
    "insert": D.insert().values(doc(title=E())).returning(T),
    "insert from select": D.insert().from_select(["id", "title"], select(literal(NEW), E())).returning(T),
    "insert returning": D.insert().values(doc()).returning(E()),
    "update": D.update().where(D.c.id == 1).values(title=E()).returning(T),
    "update where": D.update().where(E() == "x").values(title="stolen"),
    "update ordered": D.update().where(D.c.id == 1).ordered_values((T, E())).returning(T),
    "update returning": D.update().values(size=1).returning(E()),
    "delete": C.delete().where(E() == "x"),
    "delete returning": Note.__table__.delete().returning(E()),
    "a CTE's update": select(D.update().values(title=E()).returning(T).cte("u")),
    "table-valued": select(func.json_each(E()).table_valued("value").c.value),
    "for two dialects": select(OnlyHere()),
    "for two dialects in a union": union_all(select(T)).order_by(OnlyHere()),
    "by itself": select(ByItself()),
    "by itself in a union": union_all(select(T), select(T)).order_by(ByItself()),
    "annotated": select(Evil()._annotate({"x": 1})),
    "a statement": EvilStatement(),
    "a SELECT": EvilSelect(T),
    "a SELECT in a subquery": select(EvilSelect(T).subquery().c.title),
    "a SELECT in exists": select(literal("B-CANARY")).where(EvilSelect(T).exists()),
    "a SELECT in a union": union_all(EvilSelect(T), select(T)),
    "a FROM": select(literal(1)).select_from(EvilFrom()),
    "a column clause": select(EvilColumn("title")),
    "a bind": select(EvilBind("x", "y")),
    "a text": select(EvilText("title")),
    "a function": select(EvilFunction(T)),
    "a function that is named like another": select(EvilNamed(T)),
    "a table": select(EvilTable("countries", MetaData(), Column("title", String), info=shared("an attack"))),
    "an alias": select(EvilAlias._construct(D, name="x")),
    "a CTE": select(EvilCTE._construct(select(T), name="x")),
}


def put(build: Callable[[Any], Any]) -> Attack:
    return upsert(D, lambda i: build(i.values(doc(1))))


def globally(kind: Any, statement: Any, rendering: str = ALL, *names: str) -> Attack:
    """Register a rendering for one of SQLAlchemy's own constructs while the attack runs."""

    def attack(db: Session) -> Any:
        compiles(kind, *names)(lambda element, compiler, **kw: rendering)
        try:
            return run(statement())(db)
        finally:
            deregister(kind)

    return attack


def fresh(number: int) -> Any:
    """Return a statement that no cache has."""
    return lambda: select(D.c.title, literal(number).label(f"fresh_{number}"))


OTHERS: dict[str, Attack] = {
    "upsert set": put(lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"title": E()}).returning(T)),
    "upsert set by itself": put(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"title": ByItself()}).returning(T)
    ),
    "upsert where": put(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"title": "x"}, where=E() == "x").returning(T)
    ),
    "upsert target": put(lambda i: i.on_conflict_do_update(index_elements=[E()], set_={"title": "x"}).returning(T)),
    "upsert target where": put(
        lambda i: i.on_conflict_do_update(index_elements=["id"], index_where=E() == "x", set_={"title": "x"})
    ),
    "all binds": globally(BindParameter, fresh(1)),
    "all binds, tenant left out": globally(BindParameter, fresh(2), "tenant_id"),
    "all columns": globally(Column, fresh(3)),
    "all columns of the dialects": globally(Column, fresh(4), ALL, "sqlite", "postgresql"),
    "all tables": globally(Table, fresh(5), "(SELECT * FROM documents) AS documents"),
    "all SELECTs": globally(Select, fresh(6), "SELECT title FROM documents"),
    "all binary expressions": globally(type(D.c.id == 1), fresh(7), "1 = 1"),
    "all columns of another dialect": globally(Column, fresh(8), ALL, "oracle"),
}


ATTACKS: dict[str, Attack] = {
    **{f"construct in {name}": run(statement) for name, statement in STATEMENTS.items()},
    **{f"construct in {name}": attack for name, attack in OTHERS.items()},
}
