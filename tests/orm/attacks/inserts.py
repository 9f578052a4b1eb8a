"""INSERT by Core and ORM, in every form that SQLAlchemy gives it."""

from sqlalchemy import (
    Integer,
    String,
    bindparam,
    case,
    cast,
    column,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    table,
    text,
    true,
    type_coerce,
    union_all,
    values,
)

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import (
    Computed,
    ComputedBySQL,
    Named,
    Note,
    ReplacingKey,
    apart,
    twins,
)
from tests.orm.attacks.shortcuts import NEW, OF_B, PAIR, C, D, F, K, L, N, P, R, core, doc, run
from tests.orm.attacks.world import Document, Memo, Report, document_labels

INSERTS: dict[str, Attack] = {
    "values": core(D.insert().values(doc(tenant_id="b"))),
    "values by column": core(D.insert().values({**doc(), D.c.tenant_id: "b"})),
    "values by an alias's column": core(D.insert().values({**doc(), D.alias().c.tenant_id: "b"})),
    "values by a bare column": core(D.insert().values({**doc(), column("tenant_id"): "b"})),
    "values by attribute": run(
        insert(Document).values({Document.id: NEW, Document.title: "x", Document.tenant_id: "b"})
    ),
    "values as a tuple": core(D.insert().values((NEW, "x", 1, "", "document", None, "b"))),
    "values as tuples": core(D.insert().values([(NEW, "x", 1, "", "document", FIRST_OF_B)])),
    "two calls of values": core(D.insert().values(doc()).values(tenant_id="b")),
    "parameters": core(D.insert(), doc(tenant_id="b")),
    "many parameters": core(D.insert(), [doc(tenant_id="a"), doc(NEW + 1, tenant_id="b")]),
    "many parameters, the later ones have more": core(D.insert(), [doc(), doc(NEW + 1, tenant_id="b")]),
    "many parameters, foreign key": core(D.insert(), [doc(folder_id=1), doc(NEW + 1, folder_id=FIRST_OF_B)]),
    "multi-values": core(D.insert().values([doc(tenant_id="a"), doc(NEW + 1, tenant_id="b")])),
    "multi-values of which the first has none": core(D.insert().values([doc(), doc(NEW + 1, tenant_id="b")])),
    "multi-values, foreign key": core(D.insert().values([doc(folder_id=1), doc(NEW + 1, folder_id=FIRST_OF_B)])),
    "multi-values, foreign key as expression": core(
        D.insert().values([doc(folder_id=1), doc(NEW + 1, folder_id=literal(FIRST_OF_B))])
    ),
    "a parameter of another name": core(D.insert().values(doc(tenant_id=bindparam("x"))), {"x": "b"}),
    "a parameter with a callable": core(D.insert().values(doc(tenant_id=bindparam("x", callable_=lambda: "b")))),
    "a parameter with a value": core(D.insert().values(doc(tenant_id=bindparam("x", "b")))),
    "a parameter of another type": core(D.insert().values(doc(tenant_id=bindparam("x", "b", type_=Integer)))),
    "a literal parameter": core(D.insert().values(doc(tenant_id=bindparam("x", "b", literal_execute=True)))),
    "an expanding parameter": core(D.insert().values(doc(tenant_id=bindparam("x", ["b"], expanding=True)))),
    "a typed literal": core(D.insert().values(doc(tenant_id=literal("b", String())))),
    "a coerced literal": core(D.insert().values(doc(tenant_id=type_coerce("b", String)))),
    "a cast": core(D.insert().values(doc(tenant_id=cast("b", String)))),
    "a literal column": core(D.insert().values(doc(tenant_id=literal_column("'b'")))),
    "a text": core(D.insert().values(doc(tenant_id=text("'b'")))),
    "a null": core(D.insert().values(doc(tenant_id=null()))),
    "a case": core(D.insert().values(doc(tenant_id=case((true(), "b"), else_="a")))),
    "a subquery": core(D.insert().values(doc(tenant_id=select(literal("b")).scalar_subquery()))),
    "a subquery of b's": core(D.insert().values(doc(title=select(func.max(D.c.title)).scalar_subquery()))),
    "inline": core(D.insert().inline().values(doc(tenant_id="b"))),
    "inline, foreign key": core(D.insert().inline().values(doc(folder_id=FIRST_OF_B))),
    "inline, by its default": core(Computed.__table__.insert().inline().values(id=NEW, title="x", folder_id=1)),
    "default": core(Computed.__table__.insert().values(id=NEW, title="x", folder_id=1)),
    "default of the foreign key": core(Computed.__table__.insert().values(id=NEW, title="x", tenant="a")),
    "default, many": core(Computed.__table__.insert(), [{"id": NEW, "title": "x"}, {"id": NEW + 1, "title": "y"}]),
    "default, multi-values": core(Computed.__table__.insert().values(PAIR)),
    "default in SQL": core(ComputedBySQL.__table__.insert().values(id=NEW, title="x")),
    "default in SQL, many": core(ComputedBySQL.__table__.insert(), PAIR),
    "default in SQL, multi-values": core(ComputedBySQL.__table__.insert().values(PAIR)),
    "default in SQL, from select": core(
        ComputedBySQL.__table__.insert().from_select(["id", "title"], select(literal(NEW), literal("x")))
    ),
    "no values": core(D.insert()),
    "default values": core(ComputedBySQL.__table__.insert().values({})),
    "from select with a tenant": core(
        D.insert().from_select(["id", "title", "tenant_id"], select(literal(NEW), literal("x"), literal("b")))
    ),
    "from select with b's rows": core(
        D.insert().from_select(
            ["id", "title", "size", "body", "kind"],
            select(D.c.id - 1000, D.c.title, D.c.size, D.c.body, D.c.kind).where(OF_B),
        )
    ),
    "from select of b's rows by a bare table": core(
        D.insert().from_select(
            ["id", "title"], select(column("id") - 1000, column("title")).select_from(table("documents", column("id")))
        )
    ),
    "from select with a foreign key": core(
        D.insert().from_select(["id", "title", "folder_id"], select(literal(NEW), literal("x"), literal(FIRST_OF_B)))
    ),
    "from select with a foreign key of a subquery": core(
        D.insert().from_select(
            ["id", "title", "folder_id"],
            select(literal(NEW), literal("x"), select(literal(FIRST_OF_B)).scalar_subquery()),
        )
    ),
    "from select of values": core(
        D.insert().from_select(
            ["id", "title", "folder_id"],
            select(
                values(column("a", Integer), column("t", String), column("f", Integer), name="v").data(
                    [(NEW, "x", FIRST_OF_B)]
                )
            ),
        )
    ),
    "from select with columns in another order": core(
        D.insert().from_select(["folder_id", "id", "title"], select(F.c.id + FIRST_OF_B - 1, literal(NEW), F.c.name))
    ),
    "from a union": core(
        D.insert().from_select(
            ["id", "title", "folder_id"],
            union_all(
                select(literal(NEW), literal("x"), F.c.id).where(F.c.id == 1),
                select(literal(NEW + 1), literal("y"), literal(FIRST_OF_B)),
            ),
        )
    ),
    "from select with a CTE": core(
        D.insert().from_select(
            ["id", "title", "folder_id"],
            select((c := select(literal(FIRST_OF_B).label("f")).cte("c")).c.f, literal("x"), c.c.f),
        )
    ),
    "from select without defaults": core(
        D.insert().from_select(["id", "title"], select(literal(NEW), literal("x")), include_defaults=False)
    ),
    "from select of a key that only looks like it": core(
        D.insert().from_select(["id", "title", "folder_id"], select(literal(NEW), literal("x"), twins.c.pointer))
    ),
    "returning": core(D.insert().values(doc(tenant_id="b")).returning(D.c.id)),
    "returning a subquery": core(D.insert().values(doc()).returning(select(func.max(D.c.title)).scalar_subquery())),
    "returning a bare table": core(
        D.insert().values(doc()).returning(select(column("title")).select_from(table("documents")).scalar_subquery())
    ),
    "returning a text": core(D.insert().values(doc()).returning(text("(SELECT max(title) FROM documents)"))),
    "returning in the order of the parameters": run(
        insert(Document).returning(Document.id, sort_by_parameter_order=True),
        [{"id": NEW, "title": "x"}, {"id": NEW + 1, "title": "y", "tenant_id": "b"}],
    ),
    "returning many with a foreign key": run(
        insert(Document).returning(Document),
        [{"id": NEW, "title": "x", "folder_id": 1}, {"id": NEW + 1, "title": "y", "folder_id": FIRST_OF_B}],
    ),
    "in pages": core(
        D.insert().returning(D.c.id).execution_options(insertmanyvalues_page_size=1),
        [doc(), doc(NEW + 1, tenant_id="b"), doc(NEW + 2)],
    ),
    "prefix": core(D.insert().prefix_with("OR REPLACE").values(doc(FIRST_OF_B))),
    "prefix of another word": core(D.insert().prefix_with("OR IGNORE").values(doc(FIRST_OF_B))),
    "replace": core(text("REPLACE INTO documents (id, title, tenant_id) VALUES (900000, 'x', 'a')")),
    "replacing column": core(ReplacingKey.__table__.insert().values(id=FIRST_OF_B, title="x")),
    "replacing column, many": core(
        ReplacingKey.__table__.insert(), [{"id": NEW, "title": "x"}, {"id": FIRST_OF_B, "title": "y"}]
    ),
    "replacing constraint": core(K.insert().values(id=NEW, code=FIRST_OF_B, title="x")),
    "replacing constraint, from select": core(
        K.insert().from_select(["id", "code", "title"], select(literal(NEW), literal(FIRST_OF_B), literal("x")))
    ),
    "a bare table": core(insert(table("documents", column("id"), column("title"))).values(id=NEW, title="x")),
    "other names, by key": core(N.insert().values(id_key=NEW, owner_key="b")),
    "other names, by column": core(N.insert().values({N.c.id_key: NEW, N.c.owner_key: "b"})),
    "other names, by attribute": core(N.insert().values({Named.ident: NEW, Named.owner: "b"})),
    "other names, by name": core(N.insert().values({"id_key": NEW, "TenantKey": "b"})),
    "other names, ORM": run(insert(Named).values(ident=NEW, owner="b")),
    "other names, ORM, parameters": run(insert(Named), [{"ident": NEW, "owner": "b"}]),
    "other names, ORM, by synonym": run(insert(Named).values(ident=NEW, landlord="b")),
    "other names, foreign key": core(N.insert().values(id_key=NEW, folder_key=FIRST_OF_B)),
    "other names, foreign key, ORM": run(insert(Named), [{"ident": NEW, "folder_number": FIRST_OF_B}]),
    "other names, foreign key by attribute": core(
        N.insert().values({Named.ident: NEW, Named.folder_number: FIRST_OF_B})
    ),
    "a schema": core(P.insert().values(id=NEW, title="x", tenant_id="b")),
    "a schema, foreign key": core(P.insert().values(id=NEW, title="x", above_id=FIRST_OF_B)),
    "a child": core(C.insert().values(id=NEW, text="x", document_id=FIRST_OF_B)),
    "a grandchild": core(Note.__table__.insert().values(id=NEW, text="x", comment_id=FIRST_OF_B)),
    "a joined row": core(R.insert().values(id=FIRST_OF_B + 1, pages=1)),
    "a joined row from select": core(
        R.insert().from_select(["id", "pages"], select(literal(FIRST_OF_B + 1), literal(1)))
    ),
    "an association": core(document_labels.insert().values(document_id=1, label_id=FIRST_OF_B)),
    "an association from select": core(
        document_labels.insert().from_select(["document_id", "label_id"], select(D.c.id, L.c.id + FIRST_OF_B - 1))
    ),
    "a foreign key whose table is not known": core(apart.insert().values(id=NEW, folder_id=FIRST_OF_B)),
    "a foreign key that the row itself is about to satisfy": core(
        F.insert().values(
            [{"id": NEW, "name": "x", "parent_id": NEW + 1}, {"id": FIRST_OF_B, "name": "y", "parent_id": NEW}]
        )
    ),
    "ORM inheritance": run(insert(Report), [{"id": FIRST_OF_B, "title": "x", "pages": 1}]),
    "ORM single inheritance": run(insert(Memo), [{"id": NEW, "title": "x", "tenant_id": "b"}]),
    "ORM bulk with an expression": run(
        insert(Document).values(folder_id=literal(FIRST_OF_B) + 0), [{"id": NEW, "title": "x"}]
    ),
    "ORM bulk with a subquery": run(
        insert(Document).values(tenant_id=select(func.lower("B")).scalar_subquery()), [{"id": NEW, "title": "x"}]
    ),
    "ORM with dml_strategy": run(
        insert(Document).execution_options(dml_strategy="raw"), [{"id": NEW, "title": "x", "tenant_id": "b"}]
    ),
    "ORM with nulls": run(
        insert(Document).execution_options(render_nulls=True), [{"id": NEW, "title": "x", "tenant_id": None}]
    ),
}


ATTACKS: dict[str, Attack] = {f"insert {name}": attack for name, attack in INSERTS.items()}
