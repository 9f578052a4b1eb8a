"""Names that mean something else to the database, and texts in places that take a name."""

from sqlalchemy import (
    JSON,
    Column,
    MetaData,
    String,
    Table,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql import quoted_name

from tenantguard.orm import shared
from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import Note
from tests.orm.attacks.shortcuts import NEW, C, D, F, doc, run
from tests.orm.attacks.world import Comment, Country, Report

T = D.c.title
QUOTE = quoted_name('x" FROM documents --', quote=False)
SHADOW = select(literal(FIRST_OF_B).label("id"), literal("a").label("tenant_id")).cte("documents")
SHADOW_CASE = select(literal(FIRST_OF_B).label("id"), literal("a").label("tenant_id")).cte("DOCUMENTS")
NAMES: dict[str, Attack] = {
    "a CTE in the place of a child's parent": run(select(C.c.text).add_cte(SHADOW)),
    "a CTE in the place of a child's parent, other case": run(select(C.c.text).add_cte(SHADOW_CASE)),
    "a CTE in the place of a child's parent, joined": run(
        select(C.c.text).join(SHADOW, SHADOW.c.id == C.c.document_id)
    ),
    "a CTE in the place of a child's parent, nested": run(
        select(select(C.c.text).add_cte(SHADOW, nest_here=True).subquery().c.text)
    ),
    "a CTE in the place of a child's parent, counted": lambda db: (
        db.scalar(select(func.count()).select_from(Comment).add_cte(SHADOW)) == 6 and "B-CANARY"
    ),
    "a CTE in the place of a grandchild's parent": run(
        select(Note.text).add_cte(
            select(literal(FIRST_OF_B).label("id"), literal(1).label("document_id")).cte("comments")
        )
    ),
    "a CTE in the place of a joined row's parent": run(
        select(Report.__table__.c.pages).add_cte(
            select(literal(FIRST_OF_B + 11).label("id"), literal("a").label("tenant_id")).cte("documents")
        )
    ),
    "a CTE in the place of a child's parent, updated": run(update(C).values(text="stolen").add_cte(SHADOW)),
    "a CTE in the place of a child's parent, deleted": run(
        Note.__table__.delete().add_cte(
            select(literal(FIRST_OF_B).label("id"), literal(1).label("document_id")).cte("comments")
        )
    ),
    "a recursive CTE in the place of a child's parent": run(
        select(C.c.text).add_cte(
            (
                one := select(literal(FIRST_OF_B).label("id"), literal("a").label("tenant_id")).cte(
                    "documents", recursive=True
                )
            ).union(select(one.c.id + 1, literal("a")).where(one.c.id < FIRST_OF_B + 3))
        )
    ),
    "a CTE in the place of a table": run(
        select(D.c.title).add_cte(select(F.c.name.label("title"), F.c.tenant_id).cte("documents"))
    ),
    "two CTEs of one name": run(
        select((c1 := select(T).cte("w")).c.title, (c2 := select(F.c.name).cte("w")).c.name).join(c2, true())
    ),
    "a CTE with an evil name": run(select(select(T).cte(QUOTE))),
    "a label": run(select(T.label(QUOTE))),
    "an alias": run(select(D.alias(QUOTE).c.title)),
    "an alias that is named like a table": run(select(F.alias("documents").c.name, C.c.text).join(C, true())),
    "an alias that is named like the predicate's": run(select(C.alias("documents_1").c.text)),
    "an alias of a CTE that is named like a table": run(
        select(select(T).cte("w").alias("documents"), C.c.text).join(C, true())
    ),
    "a subquery that is named like a table": run(
        select(C.c.text).join(
            select(literal(FIRST_OF_B).label("id"), literal("a").label("tenant_id")).subquery("documents"), true()
        )
    ),
    "a bind": run(select(T).where(bindparam("x) OR (1=1", "y") == T)),
    "a bind with brackets": run(select(T).where(D.c.id.in_(bindparam("x]__ OR 1=1 --", [1], expanding=True)))),
    "a bind like the barrier's": run(select(T).where(bindparam("tenantguard_tenant", "b") == T)),
    "a bind like the barrier's, with a value": run(
        select(T).where(bindparam("tenantguard_tenant_1") == T), {"tenantguard_tenant_1": "b"}
    ),
    "a bind like the tenant key": run(insert(D).values({**doc(), "title": bindparam("tenant_id", "b")})),
    "a bind like the foreign key": run(
        insert(D).values({**doc(), "title": "x", "size": bindparam("folder_id", FIRST_OF_B), "folder_id": 1})
    ),
    "an expanded parameter's name": run(
        insert(D).values([doc(), doc(NEW + 1)]), {"tenant_id_m1": "b", "tenant_id_1": "b", "tenant_id": "b"}
    ),
    "a schema": run(select(Table("documents", MetaData(), Column("title", String), schema=QUOTE, info=shared("x")))),
    "a schema in brackets": run(
        select(column(quoted_name("__[SCHEMA_x] FROM documents --", quote=False))).select_from(D)
    ),
    "a column": run(select(column(quoted_name("title FROM documents --", quote=False))).select_from(F)),
    "a table with quotes": run(select(Table('documents" --', MetaData(), Column("title", String), info=shared("x")))),
    "a function": run(select(getattr(func, "lower(title) FROM documents --")(1))),
    "a function in a package": run(select(func.pg_catalog.query_to_xml("SELECT 1", True, True, ""))),
    "a function with a quoted name": run(select(func.lower(T)._with_binary_element_type(String()))),
    "a collation": run(select(T.collate('C" FROM documents --'))),
    "a savepoint": lambda db: db.connection().begin_nested() and db.connection().execute(text("SAVEPOINT x; SELECT 1")),
    "a text as a whole row": run(select(text("documents")).select_from(F)),
    "a text in values": run(select(T).where(text("tenant_id") == T)),
    "a time zone": run(select(func.timezone(text("(SELECT max(title) FROM documents)"), func.now()))),
    "a match": run(select(T).where(T.match("x", postgresql_regconfig="english') OR (1=1"))),
    "a regexp's flags": run(select(T).where(T.regexp_match("x", flags="i') OR (1=1"))),
    "a replacement's flags": run(select(T.regexp_replace("x", "y", flags="g') || (SELECT max(title) FROM documents"))),
    "a like's escape": run(select(T).where(T.like("x", escape="' OR 1=1 --"))),
    "a JSON path": run(select(cast(T, JSON)[("a'", "b') OR (1=1")])),
    "an order's name": run(select(T).order_by("title FROM documents --")),
    "a group's name": run(select(T).group_by("(SELECT max(title) FROM documents)")),
    "an operator with spaces": run(select(T.op("|| (SELECT max(title) FROM documents) ||")("x"))),
    "an operator that comments": run(select(T).where(D.c.id.op("/*")(1))),
    "an operator of a precedence": run(select(T).where(D.c.id.op("=", precedence=100)(or_(D.c.id == 1, true())))),
    "an alias of an entity": run(select(aliased(Country, name=QUOTE).code)),
}

ATTACKS: dict[str, Attack] = {f"name of {name}": attack for name, attack in NAMES.items()}
