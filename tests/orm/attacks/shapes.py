"""Reading in less usual shapes: laterals, grouping sets, nested joins, correlation, concrete tables, legacy queries."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    Integer,
    String,
    case,
    cast,
    column,
    distinct,
    exists,
    false,
    func,
    lambda_stmt,
    literal,
    not_,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
    values,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import (
    Mapped,
    Session,
    aliased,
    mapped_column,
    polymorphic_union,
    registry,
    selectinload,
    with_loader_criteria,
    with_polymorphic,
)

from tenantguard.orm import TenantOwned
from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import Invoice, Membership, Named, Note, Placed, Team, Topic
from tests.orm.attacks.queries import by_closure
from tests.orm.attacks.shortcuts import C, D, F, L, N, R, core, run
from tests.orm.attacks.world import Comment, Country, Document, Folder, Label, Memo, Report

T = D.c.title
K = Country.__table__
again = registry()


class Beast(AbstractConcreteBase, again.generate_base()):  # type: ignore[misc]
    """Concrete tables that go by the names of known ones, in another MetaData: of unknown class."""

    strict_attrs = True
    title: Mapped[str]


class Cat(Beast):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "cat", "concrete": True}


again.configure()
UNION = polymorphic_union(
    {"d": select(D.c.id, T).subquery(), "f": select(F.c.id, F.c.name.label("title")).subquery()}, "kind", "u"
)
SIDE = select(T).where(D.c.folder_id == F.c.id).correlate(F).lateral("side")
OPEN_SIDE = select(T, D.c.id).lateral("open")
GREATEST = select(func.max(T)).scalar_subquery()

SHAPES: dict[str, Any] = {
    "lateral": select(F.c.name, SIDE.c.title).join(SIDE, true()),
    "lateral outer": select(F.c.name, SIDE.c.title).outerjoin(SIDE, true()),
    "lateral open": select(K.c.code, OPEN_SIDE.c.title).join(OPEN_SIDE, true()),
    "lateral of an aggregate": select(select(func.max(T).label("x")).lateral("l").c.x),
    "lateral in a lateral": select(select(select(T).lateral("in").c.title).lateral("out").c.title),
    "lateral of a child": select(D.c.id, (x := select(C.c.text).lateral("x")).c.text).join(x, true()),
    "grouping sets": select(T, func.count(D.c.id)).group_by(func.grouping_sets(tuple_(T), tuple_())),
    "cube": select(D.c.tenant_id, func.max(T)).group_by(func.cube(D.c.tenant_id)),
    "rollup": select(D.c.tenant_id, func.max(T)).group_by(func.rollup(D.c.tenant_id)),
    "percentile": select(func.percentile_disc(0.99).within_group(T)),
    "mode": select(func.mode().within_group(T.desc())),
    "aggregate order": select(func.string_agg(T, postgresql.aggregate_order_by(literal(","), T))),
    "array of a subquery": select(func.array(select(T).scalar_subquery())),
    "array agg": select(func.array_agg(T)),
    "array of tables": select(postgresql.array([GREATEST, select(func.max(F.c.name)).scalar_subquery()])),
    "unnest": select(func.unnest(select(func.array_agg(T, type_=ARRAY(String))).scalar_subquery()).column_valued("x")),
    "json of a row": select(func.row_to_json(D.table_valued())),
    "json of an alias's row": select(func.to_jsonb(D.alias("x").table_valued())),
    "json object agg": select(func.json_object_agg(D.c.id, T)),
    "json each": select(
        func.json_each(select(func.json_group_array(T)).scalar_subquery()).table_valued("value").c.value
    ),
    "frames": select(func.max(T).over(order_by=D.c.id, rows=(None, None))),
    "range frames": select(func.last_value(T).over(order_by=D.c.id, range_=(None, None))),
    "lag": select(func.lag(T, 1, GREATEST).over(order_by=D.c.id)),
    "ntile": select(func.ntile(2).over(partition_by=D.c.tenant_id), T),
    "two windows": select(func.first_value(T).over(order_by=D.c.id), func.nth_value(T, 2).over(order_by=D.c.id.desc())),
    "full text": select(T).where(T.match("canary")),
    "regexp": select(T).where(T.regexp_match(".*CANARY.*")),
    "icontains": select(T).where(or_(T.icontains("canary"), T.istartswith("b-"), T.iendswith("0"))),
    "distinct on": select(D).ext(postgresql.distinct_on(D.c.tenant_id)).order_by(D.c.tenant_id.desc()),
    "fetch with ties": select(T).order_by(D.c.id.desc()).fetch(1, with_ties=True),
    "tablesample": select(D.tablesample(100).c.title),
    "tablesample of an alias": select(aliased(Document, D.tablesample(func.system(100), seed=func.random())).title),
    "only": select(T).with_hint(D, "ONLY", "postgresql"),
    "right-nested": select(K.c.code, T, F.c.name).select_from(K.outerjoin(D.join(F.join(L, true()), true()), true())),
    "right-nested outer": select(K.c.code, T, F.c.name, L.c.name).select_from(
        K.outerjoin(D.outerjoin(F.outerjoin(L, true()), true()), true())
    ),
    "right-nested children": select(K.c.code, C.c.text, T).select_from(K.outerjoin(C.outerjoin(D, true()), true())),
    "full with a child": select(C.c.text, F.c.name).select_from(C.join(F, C.c.id == F.c.id, full=True)),
    "full of children": select(C.c.text, Note.text).select_from(C.join(Note.__table__, false(), full=True)),
    "full of a joined table": select(R.c.pages, T).select_from(R.join(D, false(), full=True)),
    "full of aliases of children": select((c1 := C.alias("c1")).c.text, (c2 := C.alias("c2")).c.text).select_from(
        c1.join(c2, false(), full=True)
    ),
    "full below an outer": select(K.c.code, T, F.c.name).select_from(
        K.outerjoin(D.join(F, false(), full=True), true())
    ),
    "outer below a full": select(K.c.code, T, F.c.name).select_from(K.join(D.outerjoin(F, true()), false(), full=True)),
    "full with a subquery": select(T, (s := select(F.c.name).subquery()).c.name).select_from(
        D.join(s, false(), full=True)
    ),
    "full in a schema": select(Placed.title, T).select_from(
        Placed.__table__.join(D, Placed.__table__.c.id == D.c.id, full=True)
    ),
    "full of odd names": select(Named.text, T).select_from(N.join(D, N.c.id_key == D.c.id, full=True)),
    "full by ORM": select(Document.title, Folder.name).join(Folder, Document.id == Folder.id, full=True),
    "outer on or": select(F.c.name, T).select_from(F.outerjoin(D, or_(D.c.folder_id == F.c.id, true()))),
    "outer with a subquery's condition": select(F.c.name, T).select_from(
        F.outerjoin(D, exists(select(literal(1)).select_from(L).where(L.c.id >= FIRST_OF_B)))
    ),
    "join using an OR of texts": select(T).join(F, or_(text("1"), true())),
    "natural": select(T).join(F, D.c.tenant_id == F.c.tenant_id),
    "correlated without a FROM": select(F.c.name, select(F.c.name).select_from(K).correlate(F).scalar_subquery()),
    "correlated except": select(F.c.name, select(func.max(T)).correlate_except(D).scalar_subquery()),
    "correlated to nothing": select(T, select(func.max(T)).correlate(None).scalar_subquery()),
    "correlated to what is not around it": select(K.c.code, select(func.max(T)).correlate(F).scalar_subquery()),
    "correlated two deep": select(
        F.c.name,
        select(select(func.max(T)).where(D.c.folder_id == F.c.id).correlate(F).scalar_subquery())
        .select_from(L)
        .correlate(F)
        .scalar_subquery(),
    ),
    "correlated child": select(
        T, select(func.max(C.c.text)).where(C.c.document_id >= D.c.id).correlate(D).scalar_subquery()
    ),
    "correlated in a CTE": select(F.c.name, select(select(func.max(T).label("t")).cte("w").c.t).scalar_subquery()),
    "correlated in HAVING": select(func.count(F.c.id)).having(
        exists(select(D.c.id).where(D.c.id >= FIRST_OF_B)).correlate(F)
    ),
    "correlated in ORDER BY": select(F.c.name).order_by(
        select(func.max(T)).where(D.c.folder_id == F.c.id).scalar_subquery()
    ),
    "exists with another FROM": select(literal("B-CANARY")).where(
        exists(literal(1)).select_from(D).where(D.c.id >= FIRST_OF_B)
    ),
    "not exists": select(literal("B-CANARY")).where(
        not_(exists().where(D.c.id < FIRST_OF_B)), exists().where(F.c.id > 0)
    ),
    "all": select(literal("B-CANARY")).where(
        literal(FIRST_OF_B) <= func.coalesce(select(func.max(D.c.id)).scalar_subquery(), 0)
    ),
    "any of": select(literal("B-CANARY")).where(literal(FIRST_OF_B) == D.c.id.label("x")),
    "in with a union": select(T).where(D.c.id.in_(union_all(select(D.c.id), select(F.c.id)))),
    "union with orders": union_all(select(T).order_by(D.c.id).limit(1).subquery().select(), select(F.c.name)).order_by(
        "title"
    ),
    "union of unions": union(union_all(select(T), select(F.c.name)), union_all(select(L.c.name), select(C.c.text))),
    "except of own": select(T).except_(select(T).where(D.c.tenant_id == "a")),
    "intersect": select(T).intersect_all(select(T)),
    "union in a CTE in a union": union_all(select(union_all(select(T), select(F.c.name)).cte("w")), select(L.c.name)),
    "recursive over all": select(
        (w := select(F.c.id, F.c.name).cte("w", recursive=True)).union_all(
            select(F.c.id, F.c.name).where(F.c.id > w.c.id)
        )
    ).limit(50),
    "recursive over a child": select(
        (v := select(C.c.id, C.c.text).where(C.c.id == 1).cte("v", recursive=True)).union(
            select(C.c.id, C.c.text).where(C.c.id > v.c.id)
        )
    ),
    "CTE twice": select((e := select(T).cte("e")).c.title, (e2 := e.alias("e2")).c.title).select_from(
        e.join(e2, true())
    ),
    "nested CTEs": select(select(select(T).cte("i", nesting=True).c.title).cte("o", nesting=True).c.title),
    "a CTE beside": select(K.c.code).add_cte(select(T).cte("unused")),
    "materialized CTE": select(select(T).cte("m").prefix_with("MATERIALIZED").c.title),
    "values joined": select(
        (vs := values(column("n", Integer), name="vs").data([(FIRST_OF_B,)])).c.n - FIRST_OF_B, T
    ).join(D, D.c.id == vs.c.n),
    "scalar values": select(T).where(D.c.id.in_(values(column("n", Integer)).data([(FIRST_OF_B,)]).scalar_values())),
    "polymorphic union": select(UNION.c.title),
    "concrete tables": select(Cat),
    "concrete base": select(Beast),
    "with_polymorphic concrete": select(with_polymorphic(Beast, "*")),
    "flat joined inheritance": select(aliased(Report, flat=True).title),
    "flat with_polymorphic": select(with_polymorphic(Document, [Report, Memo], flat=True, aliased=True).title),
    "a joined table alone, outer": select(F.c.name, R.c.pages).outerjoin(R, true()),
    "of a subclass": select(Folder.name).where(Folder.documents.of_type(Report).any(Report.pages >= FIRST_OF_B)),
    "has": select(Comment.text).where(Comment.document.has(or_(Document.id >= FIRST_OF_B, true()))),
    "association proxy": select(Topic.name, Membership.note).join(Topic.memberships),
    "association proxy any": select(literal("B-CANARY")).where(Topic.labels.any(Label.id >= FIRST_OF_B)),
    "association proxy of titles": select(Folder.name).where(Folder.titles.contains("B-CANARY-document-0")),
    "criteria for all": select(Document, Folder)
    .join(Folder, true())
    .options(with_loader_criteria(TenantOwned, lambda cls: or_(cls.tenant_id == "b", true()), include_aliases=True)),
    "criteria of b": select(Folder).options(with_loader_criteria(Folder, Folder.tenant_id == "b")),
    "join with an alias of a subquery": select(aliased(Folder, select(F).where(F.c.id > 0).subquery()).name),
    "join to a filtered alias": select(
        Document.title, (a := aliased(Folder, select(F).subquery(), adapt_on_names=True)).name
    ).join(a, true()),
    "case of tables": select(case((exists().where(D.c.id >= FIRST_OF_B), "B-CANARY"), else_="A")),
    "cast of a scalar": select(cast(GREATEST, String).label("x")).order_by("x"),
    "select of a FROM": D.select(),
    "select of a join": D.join(F, true()).select(),
    "select of an alias": D.alias("z").select(),
    "select of a subquery": select(T).subquery().select(),
    "outerjoin by ORM": select(Country.code, Document.title).outerjoin(Document, true()),
    "composite key": select(Invoice.title).where(Invoice.number == 7),
    "a team and its captain": select(Team.name, (captain := aliased(Team)).name).join(captain, true()),
    "count distinct": select(func.count(distinct(tuple_(D.c.id, D.c.tenant_id)))).where(false()),
    "lambda with a table": lambda_stmt(lambda: select(D.c.title, D.c.tenant_id)),
    "bare exists": select(exists(select(D.c.id).where(D.c.tenant_id == "b")).label("x")).where(
        exists(select(D.c.id).where(D.c.tenant_id == "b"))
    ),
}


ATTACKS: dict[str, Attack] = {f"shape {name}": run(statement) for name, statement in SHAPES.items()}

OWN: dict[str, tuple[Attack, Any]] = {
    "a right-nested outer join": (
        core(
            select(K.c.code, func.count(D.c.id))
            .select_from(K.outerjoin(D.join(F, D.c.folder_id == F.c.id), true()))
            .group_by(K.c.code)
        ),
        [("NZ", 4)],
    ),
    "a full join": (
        core(select(func.count()).select_from(D.alias("x").join(F.alias("y"), literal(1) == 2, full=True))),
        [(7,)],
    ),
    "a correlated count": (
        core(
            select(F.c.name, select(func.count(D.c.id)).where(D.c.folder_id == F.c.id).scalar_subquery()).order_by(
                F.c.id
            )
        ),
        [("A-folder", 3), ("A-child", 1)],
    ),
    "a tree": (
        core(
            select(
                func.count(
                    (
                        t := (r := select(F.c.id).where(F.c.parent_id.is_(None)).cte("t", recursive=True)).union_all(
                            select(F.c.id).join(r, F.c.parent_id == r.c.id)
                        )
                    ).c.id
                )
            )
        ),
        [(2,)],
    ),
    "a window": (
        core(select(func.row_number().over(order_by=D.c.id)).order_by(D.c.id)),
        [(1,), (2,), (3,), (4,), (5,)],
    ),
    "a union with order": (
        core(union_all(select(L.c.name), select(C.c.text)).order_by("name")),
        [("A-comment-0",), ("A-comment-1",), ("A-comment-2",), ("A-label",)],
    ),
    "polymorphic union": (core(select(func.count()).select_from(UNION)), [(7,)]),
    "words in a text": (
        core(
            select(D.c.id).where(
                T.contains("memo"), T.startswith("A"), T.icontains("MEMO"), T.endswith("o"), T.like("%m%")
            )
        ),
        [(11,)],
    ),
    "polymorphic columns": (
        core(select(UNION.c.kind, func.count()).group_by(UNION.c.kind).order_by(UNION.c.kind)),
        [("d", 5), ("f", 2)],
    ),
    "the table alone": (core(select(func.count(D.c.id)).with_hint(D, "ONLY", "postgresql")), [(5,)]),
    "a lock": (core(select(D.c.id).where(D.c.id == 1).with_for_update(of=D)), [(1,)]),
    "an association": (lambda db: db.scalars(select(Topic.id).where(Topic.labels.any(Label.id == 1))).all(), [1]),
    "titles": (
        lambda db: db.scalars(select(Folder.id).where(Folder.titles.contains("A-memo"))).all(),
        [2],
    ),
    "through ORM": (
        lambda db: [
            (f.name, sorted(d.title for d in f.documents))
            for f in db.scalars(select(Folder).options(selectinload(Folder.documents)).order_by(Folder.id))
        ],
        [("A-folder", ["A-document-0", "A-document-1", "A-document-2"]), ("A-child", ["A-memo"])],
    ),
    "legacy query": (lambda db: db.query(Document).filter(Document.size > 1).count(), 4),
    "lambda statements": (
        lambda db: [sorted(set(db.execute(by_closure(name)).scalars())) for name in ("documents", "folders")],
        [["a"], ["a"]],
    ),
    "labels": (lambda db: sorted(label.name for label in db.get_one(Document, 1).labels), ["A-label"]),
    "session": (lambda db: isinstance(db, Session) and db.scalar(select(func.max(Label.id))), 1),
}
