"""UPDATE and DELETE by Core and ORM, with other tables, and inside of CTEs."""

from sqlalchemy import (
    bindparam,
    case,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    text,
    true,
    update,
)
from sqlalchemy.orm import aliased

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import (
    Computed,
    Membership,
    Moving,
    MovingBySQL,
    Named,
    Note,
    Region,
    ReplacingKey,
    Turning,
    Versioned,
    twins,
)
from tests.orm.attacks.shortcuts import NEW, OF_B, STOLEN, C, D, F, K, L, N, P, R, core, cte, doc, run
from tests.orm.attacks.world import Document, Report, document_labels

X = D.alias("x")

CHANGES: dict[str, Attack] = {
    "all": core(D.update().values(STOLEN)),
    "by key": core(D.update().where(D.c.id == FIRST_OF_B).values(STOLEN)),
    "where or": core(D.update().where((D.c.id == 1) | OF_B | true()).values(STOLEN)),
    "where text": core(D.update().where(text("1=1) OR (1=1")).values(STOLEN)),
    "where tenant": core(D.update().where(D.c.tenant_id == "b").values(STOLEN)),
    "tenant": core(D.update().values(tenant_id="b")),
    "tenant by column": core(D.update().values({D.c.tenant_id: "b"})),
    "tenant by a bare column": core(D.update().values({column("tenant_id"): "b"})),
    "tenant by an alias's column": core(D.update().values({D.alias("x").c.tenant_id: "b"})),
    "tenant by parameters": core(D.update(), {"tenant_id": "b"}),
    "tenant by many parameters": core(
        D.update().where(D.c.id == bindparam("i")), [{"i": 1, "tenant_id": "a"}, {"i": 2, "tenant_id": "b"}]
    ),
    "tenant as an expression": core(D.update().values(tenant_id=D.c.title)),
    "tenant as a case": core(D.update().values(tenant_id=case((D.c.id == 1, "b"), else_=D.c.tenant_id))),
    "tenant in order": core(D.update().ordered_values((D.c.title, "x"), (D.c.tenant_id, "b"))),
    "tenant in order by name": core(D.update().ordered_values(("title", "x"), ("tenant_id", "b"))),
    "foreign key in order": core(D.update().ordered_values((D.c.folder_id, FIRST_OF_B), (D.c.title, "x"))),
    "tenant in another case": core(D.update().values({"TENANT_ID": "b"})),
    "tenant, ORM": run(update(Document).values(tenant_id="b")),
    "tenant, ORM, by synonym": run(update(Named).values(landlord="b")),
    "tenant, ORM, by hybrid": run(update(Named).values({Named.holder: "b"})),
    "tenant, ORM, by another name": run(update(Named).values(owner="b")),
    "tenant, ORM, by key": run(update(Document), [{"id": 1, "tenant_id": "b"}]),
    "tenant, Core, by another attribute": core(N.update().values({Named.owner: "b"})),
    "tenant, a query": lambda db: db.query(Document).update({"tenant_id": "b"}),
    "tenant, a query by attribute": lambda db: db.query(Document).update({Document.tenant_id: "b"}),
    "tenant of a child": core(R.update().where(R.c.id == 12).values(id=FIRST_OF_B)),
    "onupdate": lambda db: (
        core(Moving.__table__.insert().values(id=NEW, title="x"))(db),
        core(Moving.__table__.update().values(title="y"))(db),
    ),
    "onupdate in SQL": lambda db: (
        core(MovingBySQL.__table__.insert().values(id=NEW, title="x"))(db),
        core(MovingBySQL.__table__.update().values(title="y"))(db),
    ),
    "onupdate, ORM": lambda db: (
        run(insert(Moving).values(id=NEW, title="x"))(db),
        run(update(Moving).values(title="y"))(db),
    ),
    "onupdate of a foreign key": lambda db: (
        core(Turning.__table__.insert().values(id=NEW, title="x"))(db),
        core(Turning.__table__.update().values(title="y"))(db),
    ),
    "foreign key": core(D.update().values(folder_id=FIRST_OF_B)),
    "foreign key as arithmetic": core(D.update().values(folder_id=D.c.folder_id + FIRST_OF_B - 1)),
    "foreign key as a case": core(D.update().values(folder_id=case((true(), FIRST_OF_B), else_=D.c.folder_id))),
    "foreign key as coalesce": core(D.update().values(folder_id=func.coalesce(None, FIRST_OF_B))),
    "foreign key as a subquery": core(D.update().values(folder_id=select(literal(FIRST_OF_B)).scalar_subquery())),
    "foreign key of another column": core(
        D.update().where(D.c.id == 1).values(size=FIRST_OF_B - 1, folder_id=D.c.size)
    ),
    "foreign key by another name": core(N.update().values(folder_key=FIRST_OF_B)),
    "foreign key by an attribute": core(N.update().values({Named.folder_number: FIRST_OF_B})),
    "foreign key of a twin": core(D.update().where(twins.c.id == D.c.id).values(folder_id=twins.c.pointer)),
    "set a twin's column": core(D.update().where(twins.c.id == D.c.id).values({twins.c.lookalike: "b"})),
    "set another table's tenant": core(D.update().where(F.c.id == D.c.folder_id).values({F.c.tenant_id: "b"})),
    "set another table's title": core(D.update().where(F.c.id == D.c.folder_id).values({F.c.name: "stolen"})),
    "an alias": core(update(D.alias("x")).values(STOLEN)),
    "an alias with the table's column": core(update(D.alias("x")).values({D.c.tenant_id: "b"})),
    "an alias's tenant": core(update(X).values({X.c.tenant_id: "b"})),
    "an alias's tenant by name": core(update(X).values(tenant_id="b")),
    "an alias's tenant as a parameter": core(update(X).values(tenant_id=bindparam("t")), {"t": "b"}),
    "an alias's foreign key": core(update(X).where(X.c.id == 1).values({X.c.folder_id: FIRST_OF_B})),
    "an alias's foreign key by name": core(update(X).where(X.c.id == 1).values(folder_id=FIRST_OF_B)),
    "an alias's foreign key as a subquery": core(
        update(X).values(folder_id=select(literal(FIRST_OF_B)).scalar_subquery())
    ),
    "an alias with the table's foreign key": core(update(X).where(X.c.id == 1).values({D.c.folder_id: FIRST_OF_B})),
    "an alias of an alias": core(update(X.alias("y")).values(folder_id=FIRST_OF_B)),
    "an ORM alias's foreign key": run(update(aliased(Document)).values(folder_id=FIRST_OF_B)),
    "an ORM alias": run(update(aliased(Document)).values(title="stolen")),
    "a join": core(update(D.join(F, true())).values({D.c.title: "stolen"})),
    "from another": core(D.update().where(F.c.id != D.c.id).values(title=F.c.name)),
    "from b's": core(D.update().where(F.c.id >= FIRST_OF_B).values(title=F.c.name).returning(D.c.title)),
    "from an alias of itself": core(
        D.update().where((d2 := D.alias("d2")).c.id != D.c.id).values(title=d2.c.title).returning(D.c.title)
    ),
    "from a child": core(D.update().where(C.c.id != D.c.id).values(title=C.c.text).returning(D.c.title)),
    "from a CTE": core(
        D.update()
        .where(D.c.id == (c2 := select(D.c.id, D.c.title).cte("c2")).c.id)
        .values(title=c2.c.title)
        .returning(D.c.title)
    ),
    "from a subquery of a bare table": core(
        D.update().values(title=select(column("title")).select_from(table("documents")).limit(1).scalar_subquery())
    ),
    "correlated": core(
        D.update()
        .values(title=select(func.max(F.c.name)).where(F.c.id >= D.c.folder_id).scalar_subquery())
        .returning(D.c.title)
    ),
    "correlated to itself": core(
        D.update().values(title=select(func.max(D.c.title)).correlate(None).scalar_subquery()).returning(D.c.title)
    ),
    "where exists": core(
        D.update()
        .where(exists().where(F.c.id >= FIRST_OF_B))
        .values(title=literal("B") + literal("-CANARY"))
        .returning(D.c.title)
    ),
    "where exists of a bare table": core(
        D.update().where(exists(select(literal(1)).select_from(table("folders")))).values(title="x")
    ),
    "returning": core(D.update().values(STOLEN).returning(D.c.id, D.c.tenant_id)),
    "returning a subquery": core(D.update().values(size=1).returning(select(func.max(F.c.id)).scalar_subquery())),
    "returning a literal": core(
        D.update().values(size=1).returning(literal_column("(SELECT max(title) FROM documents)"))
    ),
    "a child": core(C.update().values(text="stolen")),
    "a child where or": core(C.update().where((C.c.id == 1) | true()).values(text="stolen")),
    "a child's parent": core(C.update().values(document_id=FIRST_OF_B)),
    "a grandchild": core(Note.__table__.update().values(text="stolen")),
    "an association": core(document_labels.update().values(label_id=FIRST_OF_B)),
    "a joined row": core(R.update().values(pages=1)),
    "a joined row with its parent": core(R.update().where(D.c.id != R.c.id).values(pages=1)),
    "a schema": core(P.update().values(STOLEN)),
    "a schema's foreign key": core(P.update().values(above_id=FIRST_OF_B)),
    "a shared row that b's go with": core(Region.__table__.update().values(code="south")),
    "a shared row that b's go with, by an alias": core(update(Region.__table__.alias("x")).values(code="south")),
    "a shared row that b's go with, by an ORM alias": run(update(aliased(Region)).values(code="south")),
    "a replacing constraint by an alias": core(update(K.alias("x")).values(code=FIRST_OF_B)),
    "a replacing constraint": core(K.update().where(K.c.id == 1).values(code=FIRST_OF_B)),
    "a replacing key": core(ReplacingKey.__table__.update().where(ReplacingKey.id == 1).values(id=FIRST_OF_B)),
    "prefix": core(D.update().prefix_with("OR REPLACE").where(D.c.id == 1).values(id=FIRST_OF_B)),
    "hint": core(D.update().with_hint("AS x SET title = 1 --").values(STOLEN)),
    "only": core(D.update().with_hint("ONLY", dialect_name="postgresql").values(STOLEN)),
    "a bare table": core(update(table("documents", column("title"))).values(STOLEN)),
    "ORM by key": run(update(Document), [{"id": FIRST_OF_B, "title": "stolen"}]),
    "ORM versioned by key": run(update(Versioned), [{"id": FIRST_OF_B, "version": 1, "title": "stolen"}]),
    "ORM fetch": run(update(Document).where(OF_B).values(STOLEN), None)
    and (
        lambda db: (
            db.execute(update(Document).values(STOLEN).execution_options(synchronize_session="fetch"))
            and [d.id for d in db.identity_map.values()]
        )
    ),
    "ORM evaluate": lambda db: (
        db.get(Document, 1),
        db.execute(
            update(Document).where(Document.id > 0).values(size=FIRST_OF_B - 1, folder_id=1),
            execution_options={"synchronize_session": "evaluate"},
        ).rowcount,
    )[1],
    "ORM with criteria": run(update(Report).values(pages=1)),
    "ORM from_statement": run(select(Document).from_statement(update(Document).values(STOLEN).returning(Document))),
    "a query": lambda db: (
        db.query(Document).filter(text("1=1 OR 1=1")).update({"title": "stolen"}, synchronize_session=False)
    ),
}

DELETES: dict[str, Attack] = {
    "all": lambda db: [core(t.delete())(db) for t in (Note.__table__, C, document_labels, R, D)],
    "by key": core(C.delete().where(C.c.id == FIRST_OF_B)),
    "where or": core(document_labels.delete().where((document_labels.c.label_id == 0) | true())),
    "where text": core(C.delete().where(text("1=1) OR (1=1"))),
    "using": core(delete(document_labels).where(document_labels.c.label_id != L.c.id)),
    "using b's": core(delete(document_labels).where(D.c.id >= FIRST_OF_B)),
    "using a child": core(delete(Note).where(Note.__table__.c.comment_id != C.c.id)),
    "using a bare table": core(delete(Note).where(table("comments", column("id")).c.id > 0)),
    "returning": core(document_labels.delete().returning(document_labels)),
    "returning a subquery": core(document_labels.delete().returning(select(func.max(D.c.title)).scalar_subquery())),
    "a child": core(Note.__table__.delete()),
    "an alias": core(delete(document_labels.alias("x"))),
    "a schema": core(P.delete()),
    "an association object": run(delete(Membership)),
    "a shared row that b's go with": core(Region.__table__.delete()),
    "a shared row, ORM": run(delete(Region).where(Region.code == "north")),
    "a shared row by an alias": core(delete(Region.__table__.alias("x"))),
    "a shared row by an ORM alias": run(delete(aliased(Region))),
    "a bare table": core(delete(table("documents"))),
    "prefix": core(D.delete().prefix_with("FROM documents; --")),
    "ORM": run(delete(Versioned)),
    "ORM fetch": run(delete(Versioned).returning(Versioned.id)),
    "a query": lambda db: db.query(Versioned).filter(Versioned.id >= FIRST_OF_B).delete(),
    "correlated": core(Note.__table__.delete().where(exists().where(D.c.id >= FIRST_OF_B))),
    "truncate": core(text("TRUNCATE documents CASCADE")),
}


CTES: dict[str, Attack] = {
    "insert": cte(D.insert().values(doc(tenant_id="b")).returning(D.c.id)),
    "insert by its default": cte(
        Computed.__table__.insert().values(id=NEW, title="x", folder_id=1).returning(Computed.id)
    ),
    "insert a foreign key": cte(D.insert().values(doc(folder_id=FIRST_OF_B)).returning(D.c.id)),
    "insert a foreign key by its default": cte(
        Computed.__table__.insert().values(id=NEW, title="x", tenant="a").returning(Computed.id)
    ),
    "insert from select": cte(
        D.insert().from_select(["id", "title"], select(literal(NEW), literal("x"))).returning(D.c.id)
    ),
    "insert many": cte(D.insert().values([doc(), doc(NEW + 1, tenant_id="b")]).returning(D.c.id)),
    "insert a child": cte(C.insert().values(id=NEW, text="x", document_id=FIRST_OF_B).returning(C.c.id)),
    "update": cte(D.update().values(STOLEN).returning(D.c.id, D.c.title)),
    "update tenant": cte(D.update().values(tenant_id="b").returning(D.c.id)),
    "update foreign key": cte(D.update().values(folder_id=FIRST_OF_B).returning(D.c.id)),
    "update onupdate": cte(Moving.__table__.update().values(title="y").returning(Moving.id)),
    "delete": cte(document_labels.delete().returning(document_labels)),
    "delete a shared row": cte(Region.__table__.delete().returning(Region.code)),
    "two that do not know each other": core(
        select(D.update().values(STOLEN).returning(D.c.id).cte("u")).add_cte(
            document_labels.delete().returning(document_labels.c.label_id).cte("d")
        )
    ),
    "nested": core(select(D.update().values(STOLEN).returning(D.c.id).cte("u", nesting=True).select().cte("v"))),
    "in an update": core(
        F.update()
        .where(F.c.id == (w := D.update().values(STOLEN).returning(D.c.folder_id).cte("w")).c.folder_id)
        .values(name="x")
    ),
    "in an insert": core(
        L.insert().from_select(
            ["id", "name"],
            select((w3 := D.update().values(title="x").returning(D.c.id, D.c.title).cte("w3")).c.id + 1000, w3.c.title),
        )
    ),
    "recursive": core(
        select(
            (r := select(literal(1).label("n")).cte("r", recursive=True)).union_all(
                select(r.c.n + 1).where(exists(select(literal(1)).select_from(D).where(OF_B)), r.c.n < 3)
            )
        )
        .where(literal_column("n") > 1)
        .add_columns(literal("B-CANARY"))
    ),
}


ATTACKS: dict[str, Attack] = {
    f"{kind} {name}": attack
    for kind, attacks in {"update": CHANGES, "delete": DELETES, "cte": CTES}.items()
    for name, attack in attacks.items()
}
