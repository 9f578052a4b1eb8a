"""Legacy queries, lambda statements, loaders with expressions, and errors that could show what they failed on."""

from typing import Any

from sqlalchemy import (
    Integer,
    case,
    cast,
    exists,
    func,
    lambda_stmt,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import (
    aliased,
    defer,
    joinedload,
    query_expression,
    registry,
    selectinload,
    with_expression,
)

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import Note
from tests.orm.attacks.shortcuts import C, D, F, L, R, core, run
from tests.orm.attacks.world import Comment, Document, Folder, document_labels

T = D.c.title


def number(value: Any) -> Any:
    """Return an expression that is 1 for a's texts, and an error, with the text in it, for others."""
    return cast(case((value.like("A%"), "1"), else_=value), Integer)


TABLES = {"documents": D, "folders": F}


def by_closure(name: str) -> Any:
    """Return a lambda statement of a table that it closes over."""
    table = TABLES[name]
    return lambda_stmt(lambda: select(table.c.tenant_id), track_closure_variables=True)


def tracked(value: Any) -> Any:
    found = lambda_stmt(lambda: select(D.c.title, D.c.tenant_id))
    found += lambda s: s.where(D.c.tenant_id == value)
    return found


QUERIES: dict[str, Attack] = {
    "with_entities": lambda db: db.query(Folder).with_entities(Document.title).all(),
    "select_from": lambda db: db.query(Folder.name).select_from(Document).join(Folder, true()).all(),
    "update": lambda db: db.query(Document).filter(Document.id >= FIRST_OF_B).update({"title": "stolen"}),
    "update evaluate": lambda db: db.query(Document).update({"title": "stolen"}, synchronize_session="evaluate"),
    "update fetch": lambda db: db.query(Comment).update({"text": "stolen"}, synchronize_session="fetch"),
    "delete": lambda db: db.query(Note).delete(synchronize_session="fetch"),
    "count": lambda db: db.query(Document).filter(or_(Document.id > 0, true())).count() > 5 and "B-CANARY",
    "first": lambda db: db.query(Document).order_by(Document.id.desc()).first(),
    "one_or_none": lambda db: db.query(Document).filter_by(id=FIRST_OF_B).one_or_none(),
    "scalar": lambda db: db.query(func.max(Document.title)).scalar(),
    "value": lambda db: db.query(Document).order_by(Document.id.desc()).values(Document.title).__next__(),
    "slice": lambda db: db.query(Document)[0:10],
    "exists": lambda db: (
        db.query(literal("B-CANARY")).filter(db.query(Document).filter_by(id=FIRST_OF_B).exists()).all()
    ),
    "subquery": lambda db: db.query(db.query(Document).subquery()).all(),
    "cte": lambda db: db.query(db.query(Document).cte("q")).all(),
    "union": lambda db: db.query(Document).union(db.query(Document)).all(),
    "from_self": lambda db: db.query(aliased(Document, db.query(Document).subquery())).all(),
    "filter text": lambda db: db.query(Document).filter(text("1=1")).all(),
    "from_statement": lambda db: db.query(Document).from_statement(select(D)).all(),
    "from_statement of a text": lambda db: db.query(Document).from_statement(text("SELECT * FROM documents")).all(),
    "get with options": lambda db: db.query(Document).options(joinedload(Document.folder)).get(FIRST_OF_B),
    "enable_assertions": lambda db: db.query(Document).limit(1).enable_assertions(False).filter(true()).all(),
    "reset_joinpoint": lambda db: db.query(Folder, Document).join(Document, true()).reset_joinpoint().all(),
    "with_labels": lambda db: db.execute(db.query(Document).with_labels().statement).all(),
    "statement": lambda db: db.execute(db.query(Document).statement).all(),
    "populate_existing": lambda db: db.query(Document).populate_existing().with_for_update().all(),
    "merge_result": lambda db: list(db.query(Document).merge_result([], load=False)),
    "lambda of a closure": lambda db: [
        list(db.execute(by_closure(name)).scalars()) for name in ("documents", "folders")
    ],
    "lambda of a value": lambda db: [db.execute(tracked(value)).all() for value in ("a", "b")],
    "lambda with a text": lambda db: db.execute(
        lambda_stmt(lambda: select(text("title")).select_from(text("documents")))
    ).all(),
    "with_expression": lambda db: db.scalars(
        select(Expressive).options(with_expression(Expressive.extra, select(func.max(T)).scalar_subquery()))
    ).all(),
    "selectin of deferred": lambda db: [
        d.body
        for f in db.scalars(select(Folder).options(selectinload(Folder.documents).options(defer(Document.title))))
        for d in f.documents
    ],
    "dynamic with a filter": lambda db: (
        db.get_one(Folder, 1).dynamic.filter(or_(Document.id >= FIRST_OF_B, true())).all()
    ),
    "dynamic of b": lambda db: db.query(Document).filter(Document.folder_id == FIRST_OF_B).all(),
    "labels through the association": lambda db: db.execute(
        select(L.c.name, document_labels.c.document_id).join(document_labels, true())
    ).all(),
    "returning through ORM": lambda db: db.scalars(
        select(Document).from_statement(update(Document).values(size=1).returning(Document))
    ).all(),
    # Not of a child's cast: on PostgreSQL its condition may be evaluated before it is known whose the row is (SECURITY.md).
    "error of a cast": run(select(D.c.id).where(number(T) == 1)),
    "error of a joined row's cast": run(select(R.c.id).where(1 / (R.c.pages - FIRST_OF_B - 11) > 0)),
    "error of a child's cast, selected": run(select(number(C.c.text))),
    "error of a division": run(select(D.c.id).where(1 / (D.c.id - FIRST_OF_B) > 0)),
    "error of a pattern": run(select(D.c.id).where(literal("x").regexp_match(func.replace(T, "B-CANARY", "(")))),
    "error in a join": run(select(F.c.id).join(D, number(T) == F.c.id)),
    "error in an outer join": run(select(F.c.id).outerjoin(D, number(T) == F.c.id)),
    "error in a full join": run(select(F.c.id).select_from(F.join(D, number(T) == F.c.id, full=True))),
    "error in a case": run(select(case((number(T) == 1, 1), else_=2))),
    "error in an order": run(select(D.c.id).order_by(number(T))),
    "error in an aggregate": run(select(func.max(number(T)))),
    "error in a subquery": run(select(select(D.c.id).where(number(T) == 1).subquery())),
    "error in exists": run(select(F.c.id).where(exists(select(D.c.id).where(number(T) == F.c.id)))),
    "error in an update": core(D.update().where(number(T) == 1).values(size=1)),
    "error in an update from another": core(F.update().where(number(T) == F.c.id).values(name="x")),
    "error of one function": run(select(D.c.id).where(func.to_number(T, "999") > 0)),
}


class Expressive:
    """An entity with an expression that each query gives."""


again_mapped = registry(metadata=D.metadata)
again_mapped.map_imperatively(Expressive, F, properties={"extra": query_expression()})


ATTACKS: dict[str, Attack] = {f"query {name}": attack for name, attack in QUERIES.items()}
