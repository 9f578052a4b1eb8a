"""What must keep working: own rows are written, linked and computed as without the barrier."""

from typing import Any

from sqlalchemy import (
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import aliased

from tests.orm.attacks.harness import Attack
from tests.orm.attacks.oddities import (
    Invoice,
    Named,
    Note,
    Placed,
    Player,
    Region,
    ReplacingOwn,
    Team,
    Topic,
    Versioned,
)
from tests.orm.attacks.shortcuts import NEW, D, F, L, N, core, doc, edit, run, upsert
from tests.orm.attacks.world import Comment, Country, Document, Folder, Label, Report, document_labels

X = D.alias("x")

FLUSHES: dict[str, tuple[Attack, Any]] = {
    "new rows of every kind": (
        lambda db: (
            db.add_all(
                [
                    folder := Folder(id=NEW, name="x", parent=db.get_one(Folder, 1)),
                    Document(id=NEW, title="x", folder=folder, labels=[db.get_one(Label, 1)]),
                    Report(id=NEW + 1, title="y", pages=1, folder_id=1, comments=[Comment(id=NEW, text="x")]),
                    Named(ident=NEW, folder=folder),
                    Placed(id=NEW, title="x", above_id=1),
                    Topic(id=NEW, name="x", labels=[db.get_one(Label, 1)]),
                    Invoice(number=8, title="x"),
                    Country(code="FR"),
                ]
            ),
            db.flush(),
            db.scalar(select(func.count()).select_from(Document)),
        )[-1],
        7,
    ),
    "a moved key with its children": (
        lambda db: (
            edit(db.get_one(Document, 11), id=NEW),
            db.flush(),
            db.scalars(select(Document.id).where(Document.id == NEW)).all(),
        )[-1],
        [NEW],
    ),
    "orphans": (
        lambda db: (
            edit(db.get_one(Document, 2), comments=[]),
            db.flush(),
            db.scalar(select(func.count()).select_from(Comment)),
        )[-1],
        2,
    ),
    "a versioned row": (
        lambda db: (
            edit(v := db.get_one(Versioned, 1), title="x"),
            db.flush(),
            edit(v, title="y"),
            db.flush(),
            v.version,
        )[-1],
        3,
    ),
    "post_update": (
        lambda db: (
            db.add(team := Team(id=NEW, name="x")),
            edit(team, captain=Player(id=NEW, name="x", team=team)),
            db.flush(),
            db.expire_all(),
            team.captain_id,
        )[-1],
        NEW,
    ),
    "merge": (
        lambda db: (
            db.merge(Document(id=1, title="merged", folder=Folder(id=2))),
            db.flush(),
            db.get_one(Document, 1).title,
        )[-1],
        "merged",
    ),
    "the tenant key given rightly": (
        lambda db: (db.add(d := Document(id=NEW, title="x", tenant_id="a")), db.flush(), d.tenant_id)[-1],
        "a",
    ),
    "replacing of own rows": (
        lambda db: (db.add(ReplacingOwn(id=NEW, code=8, title="x")), db.flush(), db.get_one(ReplacingOwn, NEW).title)[
            -1
        ],
        "x",
    ),
    "a shared row": (lambda db: (db.add(Region(code="west")), db.flush(), db.get_one(Region, "west").code)[-1], "west"),
}


STATEMENTS: dict[str, tuple[Attack, Any]] = {
    "insert and count": (
        lambda db: (
            core(D.insert(), [doc(), doc(NEW + 1, folder_id=1)])(db),
            core(D.insert().values([doc(NEW + 2, folder_id=None), doc(NEW + 3, tenant_id="a", folder_id=2)]))(db),
            core(D.insert().from_select(["id", "title", "folder_id"], select(D.c.id + 100, D.c.title, D.c.folder_id)))(
                db
            ),
            db.scalar(select(func.count()).select_from(D)),
        )[-1],
        18,
    ),
    "other names": (
        lambda db: (
            core(N.insert().values({N.c.id_key: NEW, Named.owner: "a", "folder_key": 1}))(db),
            run(update(Named).where(Named.ident == NEW).values(text="y", landlord="a"))(db),
            db.scalar(select(Named.text).where(Named.ident == NEW)),
        )[-1],
        "y",
    ),
    "upsert": (
        upsert(
            D,
            lambda i: (
                i.values([doc(1), doc(NEW)])
                .on_conflict_do_update(
                    index_elements=["id"], set_={"title": i.excluded.title, "tenant_id": i.excluded.tenant_id}
                )
                .returning(D.c.title)
            ),
        ),
        [("x",), ("x",)],
    ),
    "upsert of all columns": (
        upsert(
            L,
            lambda i: (
                i.values(id=1, name="y")
                .on_conflict_do_update(index_elements=["id"], set_={c.key: c for c in i.excluded})
                .returning(L.c.name)
            ),
        ),
        [("y",)],
    ),
    "update from": (
        core(D.update().where(D.c.folder_id == F.c.id, D.c.id == 11).values(title=F.c.name).returning(D.c.title)),
        [("A-child",)],
    ),
    "delete of what another table says": (
        core(
            delete(document_labels)
            .where(document_labels.c.label_id.in_(select(L.c.id)))
            .returning(document_labels.c.label_id)
        ),
        [(1,), (1,), (1,)],
    ),
    "foreign key by a CTE": (
        core(
            D.insert()
            .from_select(
                ["folder_id", "id", "title"],
                select((c3 := select(F.c.id, F.c.name).where(F.c.id == 2).cte("c3")).c.id, literal(NEW), c3.c.name),
            )
            .returning(D.c.folder_id)
        ),
        [(2,)],
    ),
    "foreign key by a tree": (
        core(
            D.insert()
            .from_select(
                ["folder_id", "id", "title"],
                select(
                    (
                        tree := (root := select(F.c.id).where(F.c.id == 1).cte("tree", recursive=True)).union_all(
                            select(F.c.id).join(root, F.c.parent_id == root.c.id)
                        )
                    ).c.id,
                    tree.c.id + NEW,
                    literal("x"),
                ),
            )
            .returning(D.c.folder_id)
        ),
        [(1,), (2,)],
    ),
    "foreign key by an alias, a union and ORM": (
        lambda db: (
            run(
                insert(Document).from_select(
                    ["folder_id", "id", "title"],
                    select(
                        union_all(
                            select((f1 := aliased(Folder)).id, f1.id + NEW, f1.name),
                            select(Document.folder_id, Document.id + 100, Document.title).where(Document.id == 1),
                        ).subquery()
                    ),
                )
            )(db),
            db.scalar(select(func.count()).select_from(Document)),
        )[-1],
        8,
    ),
    "foreign key that correlates": (
        core(
            D.update()
            .where(D.c.id == 1)
            .values(folder_id=select(F.c.id).where(F.c.id == D.c.id).scalar_subquery())
            .returning(D.c.folder_id)
        ),
        [(1,)],
    ),
    "foreign key by a subquery": (
        core(
            D.update()
            .where(D.c.id == 1)
            .values(folder_id=select(F.c.id).where(F.c.name == "A-child").scalar_subquery())
            .returning(D.c.folder_id)
        ),
        [(2,)],
    ),
    "an alias": (
        core(update(X).where(X.c.id == 1).values(title="x", folder_id=2).returning(X.c.title, X.c.folder_id)),
        [("x", 2)],
    ),
    "an ORM alias": (
        lambda db: (
            db.execute(update(one := aliased(Document)).where(one.id == 1).values(title="x")),
            db.get_one(Document, 1).title,
        )[-1],
        "x",
    ),
    "count of updated rows": (lambda db: db.execute(D.update().values(size=1)).rowcount, 5),
    "count of deleted rows": (lambda db: db.execute(delete(Note)).rowcount, 1),
    "replacing of own rows": (
        core(insert(ReplacingOwn).values(id=NEW, code=8, title="x").returning(ReplacingOwn.title)),
        [("x",)],
    ),
    "a shared table": (core(Region.__table__.insert().values(code="west").returning(Region.code)), [("west",)]),
}


OWN: dict[str, tuple[Attack, Any]] = {
    **{f"flush {name}": case for name, case in FLUSHES.items()},
    **{f"statement {name}": case for name, case in STATEMENTS.items()},
}
