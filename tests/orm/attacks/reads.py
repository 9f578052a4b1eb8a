"""Reading: every way to name a table, at every depth; every loader; every count and question."""

from typing import Any

from sqlalchemy import (
    String,
    and_,
    bindparam,
    case,
    cast,
    column,
    distinct,
    exists,
    extract,
    false,
    func,
    lambda_stmt,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    table,
    text,
    true,
    tuple_,
    type_coerce,
    union,
    union_all,
    values,
)
from sqlalchemy.orm import (
    Bundle,
    Query,
    Session,
    aliased,
    contains_eager,
    defaultload,
    immediateload,
    joinedload,
    lazyload,
    raiseload,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    with_loader_criteria,
    with_polymorphic,
)

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.world import Base, Comment, Country, Document, Folder, Label, Memo, Report, document_labels

D, F, C, L = Document.__table__, Folder.__table__, Comment.__table__, Label.__table__
R = Report.__table__


def rows(statement: Any) -> Attack:
    return lambda db: [tuple(row) for row in db.execute(statement).unique().all()]


def entities(statement: Any) -> Attack:
    return lambda db: db.scalars(statement).unique().all()


FROM_SHAPES: dict[str, Any] = {
    "entity": select(Document),
    "columns": select(Document.id, Document.title),
    "core": select(D),
    "alias": select(aliased(Document)),
    "core alias": select(D.alias("x")),
    "alias of alias": select(D.alias("x").alias("y")),
    "subquery": select(select(Document).subquery()),
    "nested subquery": select(select(select(Document).subquery()).subquery()),
    "aliased subquery": select(aliased(Document, select(Document).subquery())),
    "cte": select(select(Document).cte()),
    "nested cte": select(select(select(Document).cte("one")).cte("two")),
    "recursive cte": select(
        (base := select(F.c.id, F.c.name).where(F.c.parent_id.is_(None)).cte("tree", recursive=True)).union_all(
            select(F.c.id, F.c.name).join(base, F.c.parent_id == base.c.id)
        )
    ),
    "recursive cte over all": select(
        (every := select(F.c.id, F.c.name).cte("every", recursive=True)).union(
            select(F.c.id, F.c.name).join(every, true())
        )
    ),
    "union": union(select(D.c.title), select(F.c.name)),
    "union all of entities": union_all(select(Document.title), select(Folder.name), select(Label.name)),
    "intersect": select(D.c.id).intersect(select(D.c.id)),
    "except": select(D.c.id).except_(select(D.c.id).where(D.c.id < FIRST_OF_B)),
    "union in subquery": select(union_all(select(D.c.title), select(F.c.name)).subquery()),
    "scalar subquery": select(select(func.max(D.c.title)).scalar_subquery()),
    "scalar subquery of all": select(select(func.max(D.c.id)).where(D.c.id > 0).scalar_subquery()),
    "correlated": select(
        Folder.name, select(func.max(D.c.title)).where(D.c.folder_id != F.c.id).correlate(F).scalar_subquery()
    ),
    "exists": select(literal(1)).where(exists().where(D.c.id >= FIRST_OF_B)),
    "exists entity": select(literal("B-CANARY")).where(select(Document).where(Document.id >= FIRST_OF_B).exists()),
    "in": select(Folder.name).where(literal(FIRST_OF_B).in_(select(D.c.id))),
    "any": select(Folder.name).where(literal(FIRST_OF_B) == select(func.max(D.c.id)).scalar_subquery()),
    "cross join": select(D.c.title, F.c.name),
    "join on true": select(Folder.name, Document.title).join(Document, true()),
    "join on false or": select(Folder.name, Document.title).join(Document, or_(false(), literal(1) == 1)),
    "left join on true": select(Folder.name, Document.title).outerjoin(Document, true()),
    "left join from one": select(Country.code, Document.title).select_from(Country).outerjoin(Document, true()),
    "right side nested": select(Country.code, D.c.title).select_from(
        Country.__table__.outerjoin(D.join(F, D.c.folder_id == F.c.id), true())
    ),
    "full join": select(F.c.name, D.c.title).select_from(F.join(D, F.c.id == D.c.id, full=True)),
    "full join of aliases": select((f := F.alias("f")).c.name, (d := D.alias("d")).c.title).select_from(
        f.join(d, f.c.id == d.c.id, full=True)
    ),
    "full join of a child": select(C.c.text, D.c.title).select_from(C.join(D, C.c.id == D.c.id, full=True)),
    "join through association": select(Document.title, Label.name).join(Document.labels),
    "association": select(document_labels),
    "association joined": select(L.c.name, D.c.title).select_from(L.join(document_labels, true()).join(D, true())),
    "self join": select((p := aliased(Folder)).name, Folder.name).join(p, true()),
    "shared joined": select(Country.code, D.c.title).join(D, true()),
    "or true": select(Document).where(or_(Document.id == 1, true())),
    "or in the author's words": select(Document.title).where(or_(Document.tenant_id == "b", Document.tenant_id != "b")),
    "not": select(Document.title).where(not_(and_(Document.tenant_id == "a", false()))),
    "tenant b": select(Document.title).where(Document.tenant_id == "b"),
    "tenant in": select(Document.title).where(Document.tenant_id.in_(["a", "b"])),
    "case": select(case((exists().where(D.c.id >= FIRST_OF_B), "B-CANARY"), else_="none")),
    "group by": select(D.c.tenant_id, func.count()).group_by(D.c.tenant_id),
    "having": select(func.count(D.c.id)).having(func.max(D.c.id) >= FIRST_OF_B),
    "having exists": select(func.count(D.c.id)).having(exists().where(F.c.id >= FIRST_OF_B)),
    "distinct": select(distinct(D.c.tenant_id)),
    "order by subquery": select(D.c.title).order_by(select(func.count()).select_from(F).scalar_subquery()),
    "window": select(D.c.title, func.row_number().over(order_by=D.c.id, partition_by=D.c.tenant_id)),
    "window over all": select(func.max(D.c.title).over()),
    "aggregate filter": select(func.max(D.c.title).filter(D.c.id > 0)),
    "limit by subquery": select(D.c.title).limit(select(func.count()).select_from(D).scalar_subquery()),
    "child": select(Comment),
    "child core": select(C.c.text),
    "child joined on true": select(Comment.text, Document.title).join(Document, true()),
    "child alias": select(aliased(Comment).text),
    "child left join": select(Country.code, C.c.text).select_from(Country.__table__.outerjoin(C, true())),
    "single inheritance": select(Memo),
    "joined inheritance": select(Report),
    "joined inheritance, own table": select(R),
    "joined inheritance, own table alias": select(R.alias()),
    "joined inheritance, join by hand": select(R.c.pages, D.c.title).select_from(R.join(D, true())),
    "with_polymorphic": select(with_polymorphic(Document, "*")),
    "with_polymorphic aliased": select(with_polymorphic(Document, [Report], aliased=True)),
    "with_polymorphic flat": select(with_polymorphic(Document, "*", flat=True)),
    "of_type": select(Folder.name, (r := with_polymorphic(Document, [Report])).title).join(Folder.documents.of_type(r)),
    "bundle": select(Bundle("x", Document.title, Folder.name)).join(Folder, true()),
    "column property": select(Folder.name, Folder.all_titles),
    "hybrid": select(Document.title).where(Document.big),
    "tuple in": select(Document.title).where(tuple_(Document.id, Document.id).in_(select(D.c.id, D.c.id))),
    "values": select(D.c.title, (v := values(column("n", String), name="v").data([("x",)])).c.n).join(v, true()),
    "lateral": select(Folder.name, (side := select(D.c.title).where(D.c.folder_id >= 0).lateral("l")).c.title).join(
        side, true()
    ),
    "tablesample": select(func.max(D.tablesample(func.bernoulli(100), name="s").c.title)),
    "array of subquery": select(func.array_agg(select(D.c.title).scalar_subquery())),
    "group_concat": select(func.group_concat(D.c.title)),
    "string_agg": select(func.string_agg(D.c.title, literal(","))),
    "json of rows": select(func.json_agg(D.c.title)),
    "cast of subquery": select(cast(select(func.max(D.c.title)).scalar_subquery(), String)),
    "type_coerce of subquery": select(type_coerce(select(func.max(D.c.title)).scalar_subquery(), String)),
    "lambda": lambda_stmt(lambda: select(Document)),
    "lambda core": lambda_stmt(lambda: select(D.c.title)),
    "with_only_columns": select(Country).with_only_columns(D.c.title),
    "select_from swap": select(Country.code).select_from(D),
    "add_columns": select(Country.code).add_columns(D.c.title),
    "for update": select(Document).with_for_update(),
    "for update of": select(Document, Folder).join(Folder).with_for_update(of=Folder),
    "autoflush off": select(Document).execution_options(autoflush=False, populate_existing=True),
    "criteria option": select(Document).options(with_loader_criteria(Document, Document.tenant_id == "b")),
    "criteria true": select(Document).options(with_loader_criteria(Document, true(), include_aliases=True)),
    "text predicate": select(Document).where(text("1=1")),
    "text or": select(Document).where(text("1=1) OR (1=1")),
    "text closes": select(Document).where(text("1=1 OR tenant_id = 'b'")),
    "text comment": select(Document).where(text("1=1 --")),
    "literal column": select(literal_column("(SELECT max(title) FROM documents)")),
    "literal column where": select(Document).where(literal_column("1=1 OR 1=1")),
    "literal column from": select(literal_column("title")).select_from(text("documents")),
    "text columns": text("SELECT id, title FROM documents").columns(D.c.id, D.c.title),
    "text statement": text("SELECT title FROM documents"),
    "from_statement": select(Document).from_statement(text("SELECT * FROM documents")),
    "from_statement core": select(Document).from_statement(select(D)),
    "text order by": select(Document).order_by(text("(SELECT 1)")),
    "text group by": select(func.count()).select_from(Document).group_by(text("tenant_id")),
    "prefix": select(Document).prefix_with("title FROM documents --"),
    "suffix": select(Document).suffix_with("UNION SELECT title FROM documents"),
    "hint": select(Document).with_hint(Document, "CROSS JOIN documents"),
    "statement hint": select(Document).with_statement_hint("UNION ALL SELECT title FROM documents"),
    "lightweight table": select(table("documents", column("title"))),
    "lightweight alias": select(table("documents", column("title")).alias("x")),
    "lightweight schema": select(table("documents", column("title"), schema="main")),
    "lightweight in subquery": select(select(table("documents", column("title"))).subquery()),
    "lightweight in exists": select(literal("B-CANARY")).where(
        exists(select(literal(1)).select_from(table("documents", column("id"))).where(column("id") >= FIRST_OF_B))
    ),
    "lightweight case": select(table("DOCUMENTS", column("title"))),
    "operator": select(Document.title.op("|| (SELECT max(title) FROM documents) ||")("x")),
    "bool operator": select(Document).where(Document.id.bool_op("= 1 OR 1 =")(1)),
    "function": select(func.query_to_xml("select title from documents", True, False, "")),
    "function text": select(func.coalesce(text("(SELECT max(title) FROM documents)"))),
    "function in from": select(func.dblink("x", "select title from documents").table_valued("title")),
    "function readfile": select(func.readfile("/etc/hostname")),
    "function eval": select(func.load_extension("x")),
    "collate": select(Document.title.collate('C" FROM documents --')),
    "extract": select(extract("year FROM now()) FROM documents --", func.now())),
    "cast to text type": select(cast(literal(1), String(collation='x" FROM documents --'))),
    "label": select(literal(1).label("x FROM documents --")),
    "bind as sql": select(Document).where(Document.id == bindparam("tenantguard_tenant_1", value="b")),
    "null trick": select(Document.title).where(or_(Document.tenant_id.is_not(null()), true())),
}
LOADERS: dict[str, Any] = {
    "joined": joinedload(Folder.documents),
    "joined inner": joinedload(Folder.documents, innerjoin=True),
    "selectin": selectinload(Folder.documents),
    "subquery": subqueryload(Folder.documents),
    "immediate": immediateload(Folder.documents),
    "lazy": lazyload(Folder.documents),
    "raise": raiseload(Folder.documents),
    "nested": selectinload(Folder.documents).joinedload(Document.labels).subqueryload(Label.documents),
    "nested children": selectinload(Folder.documents).selectinload(Document.comments).joinedload(Comment.document),
    "and_": selectinload(Folder.documents.and_(true())),
    "and_ or": joinedload(Folder.documents.and_(or_(Document.id > 0, true()))),
    "parent": joinedload(Folder.parent).selectinload(Folder.children),
    "selectin_polymorphic": selectinload(Folder.documents).options(selectin_polymorphic(Document, [Report])),
    "load_only": selectinload(Folder.documents).load_only(Document.title),
    "defer": defaultload(Folder.documents).defer(Document.title),
    "undefer": selectinload(Folder.documents).undefer(Document.body),
    "own criteria": with_loader_criteria(Document, Document.tenant_id == "b"),
}


def walk(folders: Any) -> list[Any]:
    seen: list[Any] = []
    for folder in folders:
        seen += [folder.name, folder.all_titles, folder.count]
        for document in [*(folder.documents or []), *folder.dynamic.all()]:
            seen += [document.title, document.size, document.body, document.folder and document.folder.name]
            seen += [label.name for label in document.labels] + [c.text for c in document.comments]
            seen += [other.title for label in document.labels for other in label.documents]
        seen += [child.name for child in folder.children] + list(folder.titles)
    return seen


ATTACKS: dict[str, Attack] = {
    **{f"select {name}": rows(statement) for name, statement in FROM_SHAPES.items()},
    **{
        f"scalars {name}": entities(statement)
        for name, statement in FROM_SHAPES.items()
        if name in ("entity", "alias", "cte")
    },
    **{
        f"load {name}": lambda db, o=option: walk(db.scalars(select(Folder).options(o)).unique())
        for name, option in LOADERS.items()
    },
    "load contains_eager": lambda db: walk(
        db.scalars(select(Folder).join(Document, true()).options(contains_eager(Folder.documents))).unique()
    ),
    "load contains_eager of an alias": lambda db: walk(
        db.scalars(
            select(Folder).join(d := aliased(Document), true()).options(contains_eager(Folder.documents.of_type(d)))
        ).unique()
    ),
    "get": lambda db: db.get(Document, FIRST_OF_B),
    "get child": lambda db: db.get(Comment, FIRST_OF_B),
    "get joined": lambda db: db.get(Report, FIRST_OF_B + 11),
    "get with options": lambda db: db.get(
        Document, FIRST_OF_B, options=[joinedload(Document.folder)], populate_existing=True
    ),
    "get for update": lambda db: db.get(Document, FIRST_OF_B, with_for_update=True),
    "get_one": lambda db: db.get_one(Document, FIRST_OF_B),
    "query": lambda db: db.query(Document).all(),
    "query columns": lambda db: db.query(Document.title, Folder.name).all(),
    "query get": lambda db: db.query(Document).get(FIRST_OF_B),
    "query filter text": lambda db: db.query(Document).filter(text("1=1 OR 1=1")).all(),
    "query from_statement": lambda db: db.query(Document).from_statement(text("SELECT * FROM documents")).all(),
    "query with_entities": lambda db: db.query(Country).with_entities(Document.title).all(),
    "query union": lambda db: db.query(Document.title).union(db.query(Folder.name)).all(),
    "query exists": lambda db: (
        db.query(db.query(Document).filter(Document.id >= FIRST_OF_B).exists()).all() == [(True,)] and "B-CANARY"
    ),
    "query select_entity_from": lambda db: db.query(Document).select_from(Folder).join(Document, true()).all(),
    "query enable_assertions": lambda db: Query([Document], session=db).enable_assertions(False).all(),
    "query params": lambda db: db.query(Document).params(tenantguard_tenant_1="b").all(),
    "params": lambda db: [tuple(r) for r in db.execute(select(D), {"tenantguard_tenant_1": "b"}).all()],
    "partitions": lambda db: [row for part in db.execute(select(D.c.title)).partitions(2) for row in part],
    "yield_per": lambda db: [d.title for d in db.scalars(select(Document).execution_options(yield_per=1))],
    "stream": lambda db: [tuple(r) for r in db.connection().execution_options(stream_results=True).execute(select(D))],
    "dynamic": lambda db: [d.title for d in db.get(Folder, 1).dynamic.filter(or_(Document.id > 0, true()))],
    "write only": lambda db: db.scalars(db.get(Folder, 1).write_only.select().where(true())).all(),
    "refresh": lambda db: (d := db.get(Document, 1), db.refresh(d), d.title),
    "expire": lambda db: (d := db.get(Document, 1), db.expire_all(), d.title, d.folder.name),
    "deferred": lambda db: db.get(Document, 1).body,
    "relationship comparison": lambda db: db.scalars(select(Document).where(Document.folder.has(true()))).all(),
    "any": lambda db: (
        db.scalars(select(Folder.name).where(Folder.documents.any(Document.id >= FIRST_OF_B))).all() and "B-CANARY"
    ),
    "contains": lambda db: db.scalars(select(Folder).where(Folder.documents.contains(Document(id=FIRST_OF_B)))).all(),
    "with_parent": lambda db: db.scalars(select(Document).where(Document.folder == Folder(id=FIRST_OF_B))).all(),
    "automap": lambda db: _reflected(db),
    "pickled statement": lambda db: db.execute(_pickled(db)).all(),
}
COUNTS: dict[str, tuple[Any, int]] = {
    "count": (select(func.count()).select_from(Document), 5),
    "count column": (select(func.count(Document.id)), 5),
    "count core": (select(func.count()).select_from(D), 5),
    "count alias": (select(func.count()).select_from(D.alias()), 5),
    "count subquery": (select(func.count()).select_from(select(Document).subquery()), 5),
    "count distinct": (select(func.count(distinct(D.c.tenant_id))), 1),
    "count child": (select(func.count()).select_from(Comment), 3),
    "count joined": (select(func.count()).select_from(Report), 1),
    "count joined core": (select(func.count()).select_from(R), 1),
    "count cross": (select(func.count()).select_from(D.join(F, true())), 10),
    "count left": (select(func.count()).select_from(F.outerjoin(D, true())), 10),
    "count full": (select(func.count()).select_from(F.join(D, F.c.id == D.c.id, full=True)), 5),
    "count association": (select(func.count()).select_from(document_labels), 3),
    "count group": (select(func.count()).select_from(select(D.c.tenant_id).group_by(D.c.tenant_id).subquery()), 1),
    "sum": (select(func.sum(D.c.size)), 1 + 2 + 3 + 11 + 12),
    "max": (select(func.max(D.c.id)), 12),
    "window count": (select(func.count().over()).select_from(D).limit(1), 5),
}


def _reflected(db: Session) -> Any:
    from sqlalchemy import MetaData, Table

    other = Table("documents", MetaData(), autoload_with=db.connection())
    return [tuple(row) for row in db.execute(select(other)).all()]


def _pickled(db: Session) -> Any:
    from sqlalchemy.ext.serializer import dumps, loads

    return loads(dumps(select(D)), Base.metadata, lambda: db, db.get_bind())
