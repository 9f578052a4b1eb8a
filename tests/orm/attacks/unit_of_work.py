"""Flushing: new and changed objects, links between objects, and what event listeners and defaults make of them."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event, func, literal, select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified, set_committed_value

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import (
    Computed,
    ComputedBySQL,
    Invoice,
    Loose,
    Membership,
    Moving,
    MovingBySQL,
    Named,
    Note,
    Placed,
    Player,
    Point,
    Region,
    Replacing,
    ReplacingKey,
    Shop,
    Team,
    Topic,
    Turning,
    Versioned,
    listening,
)
from tests.orm.attacks.shortcuts import NEW, change, edit, flush, into, of_b, planted, then_flush
from tests.orm.attacks.world import Comment, Document, Folder, Label, Memo, Report, document_labels

INSERTS: dict[str, Attack] = {
    "tenant of b": flush(lambda: Document(id=NEW, title="x", tenant_id="b")),
    "tenant as an expression": flush(lambda: Document(id=NEW, title="x", tenant_id=literal("b"))),
    "tenant as a subquery": flush(
        lambda: Document(id=NEW, title="x", tenant_id=select(literal("b")).scalar_subquery())
    ),
    "tenant by synonym": flush(lambda: Named(ident=NEW, landlord="b")),
    "tenant by another attribute": flush(lambda: Named(ident=NEW, owner="b")),
    "tenant by hybrid": flush(lambda: Named(ident=NEW, owner="b")),
    "tenant by composite": flush(lambda: Loose(id=NEW, point=Point(1, "b"))),
    "tenant empty": flush(lambda: Document(id=NEW, title="x", tenant_id="")),
    "tenant null": flush(lambda: Document(id=NEW, title="x", tenant_id=None)),
    "tenant null in SQL": flush(lambda: Document(id=NEW, title="x", tenant_id=func.nullif("b", "a"))),
    "second of two": flush(lambda: Document(id=NEW, title="x"), lambda: Document(id=NEW + 1, title="y", tenant_id="b")),
    "key of b's row": flush(lambda: Document(id=FIRST_OF_B, title="x")),
    "key of b's row in a replacing column": flush(lambda: ReplacingKey(id=FIRST_OF_B, title="x")),
    "unique value of b's row in a replacing constraint": flush(lambda: Replacing(id=NEW, code=FIRST_OF_B, title="x")),
    "number of b's row": flush(lambda: Invoice(number=FIRST_OF_B - 1, title="x", tenant_id="b")),
    "child": flush(lambda: Comment(id=NEW, text="x", document_id=FIRST_OF_B)),
    "grandchild": flush(lambda: Note(id=NEW, text="x", comment_id=FIRST_OF_B)),
    "joined inheritance": flush(lambda: Report(id=FIRST_OF_B, title="x", pages=1)),
    "single inheritance": flush(lambda: Memo(id=NEW, title="x", folder_id=FIRST_OF_B)),
    "foreign key": flush(lambda: Document(id=NEW, title="x", folder_id=FIRST_OF_B)),
    "foreign key by another name": flush(lambda: Named(ident=NEW, folder_number=FIRST_OF_B)),
    "foreign key as an expression": flush(lambda: Document(id=NEW, title="x", folder_id=literal(FIRST_OF_B) + 0)),
    "foreign key as a subquery": flush(
        lambda: Document(id=NEW, title="x", folder_id=select(literal(FIRST_OF_B)).scalar_subquery())
    ),
    "foreign key as a scoped subquery": flush(
        lambda: Document(
            id=NEW, title="x", folder_id=select(Folder.id).where(Folder.id >= FIRST_OF_B).scalar_subquery()
        )
    ),
    "foreign key as a text": flush(lambda: Document(id=NEW, title="x", folder_id=text(str(FIRST_OF_B)))),
    "foreign key as a string": flush(lambda: Document(id=NEW, title="x", folder_id=str(FIRST_OF_B))),
    "foreign key to itself": flush(lambda: Folder(id=NEW, name="x", parent_id=FIRST_OF_B)),
    "foreign key to itself in a schema": flush(lambda: Placed(id=NEW, title="x", above_id=FIRST_OF_B)),
    "self reference in one flush": flush(
        lambda: Folder(id=NEW, name="x", children=[Folder(id=NEW + 1, name="y", parent_id=FIRST_OF_B)])
    ),
    "association object": flush(lambda: Membership(topic_id=1, label_id=FIRST_OF_B)),
    "association object, other side": flush(lambda: Membership(topic_id=FIRST_OF_B, label_id=1)),
    "default of the tenant key": flush(lambda: Computed(id=NEW, title="x", folder_id=1)),
    "default of the foreign key": flush(lambda: Computed(id=NEW, title="x", tenant="a")),
    "default in SQL of both": flush(lambda: ComputedBySQL(id=NEW, title="x")),
    "default in SQL of the tenant key": flush(lambda: ComputedBySQL(id=NEW, title="x", folder_id=None)),
    "post_update to b's row": flush(lambda: Team(id=NEW, name="x", captain_id=FIRST_OF_B)),
    "made into a table of a's by b's discriminator": flush(
        lambda: Document(id=NEW, title="x", kind="report", tenant_id="b")
    ),
}

CHANGES: dict[str, Attack] = {
    "tenant": change(Document, tenant_id="b"),
    "tenant, in two steps": lambda db: (
        edit(d := db.get_one(Document, 1), tenant_id="c"),
        edit(d, tenant_id="b"),
        db.flush(),
        None,
    )[-1],
    "tenant as an expression": change(Document, tenant_id=lambda db: literal("b")),
    "tenant as a subquery": change(Document, tenant_id=lambda db: select(func.lower("B")).scalar_subquery()),
    "tenant by another attribute": change(Named, owner="b"),
    "tenant by synonym": change(Named, landlord="b"),
    "tenant by composite": change(Loose, point=lambda db: Point(1, "b")),
    "tenant of a joined row": change(Report, 12, tenant_id="b"),
    "tenant of a versioned row": change(Versioned, tenant_id="b"),
    "tenant in the primary key": change(Invoice, ("a", 7), tenant_id="b"),
    "tenant back dated": lambda db: (
        set_committed_value(d := db.get_one(Document, 1), "tenant_id", "b"),
        flag_modified(d, "tenant_id"),
        edit(d, title="x"),
        db.flush(),
        None,
    )[-1],
    "key to b's": change(Document, id=FIRST_OF_B),
    "key to b's in a replacing column": change(ReplacingKey, id=FIRST_OF_B),
    "unique value to b's in a replacing constraint": change(Replacing, code=FIRST_OF_B),
    "key of a joined row to b's": change(Report, 12, id=FIRST_OF_B),
    "foreign key": change(Document, folder_id=FIRST_OF_B),
    "foreign key by another name": change(Named, folder_number=FIRST_OF_B),
    "foreign key as an expression": change(Document, folder_id=lambda db: Document.folder_id + FIRST_OF_B - 1),
    "foreign key of a child": change(Comment, document_id=FIRST_OF_B),
    "foreign key by a key that was changed too": lambda db: (
        edit(db.get_one(Folder, 2), id=FIRST_OF_B + 5),
        edit(db.get_one(Document, 1), folder_id=FIRST_OF_B),
        db.flush(),
        None,
    )[-1],
    "foreign key of a grandchild": change(Note, comment_id=FIRST_OF_B),
    "foreign key of an association object": change(Membership, (1, 1), label_id=FIRST_OF_B),
    "foreign key of a schema": change(Placed, above_id=FIRST_OF_B),
    "shared row that b's rows go with": lambda db: (db.delete(db.get_one(Region, "north")), db.flush(), None)[-1],
    "key of a shared row that b's rows go with": change(Region, "north", code="south"),
}


LINKS: dict[str, Attack] = {
    "many to one": lambda db: change(Document, folder=lambda db: of_b(db, Folder))(db),
    "many to one by backref": then_flush(lambda db: into(of_b(db, Folder), "documents", db.get_one(Document, 1))),
    "one to many": then_flush(lambda db: into(db.get_one(Folder, 1), "documents", of_b(db, Document))),
    "one to many, replaced": then_flush(lambda db: edit(db.get_one(Folder, 1), documents=[of_b(db, Document)])),
    "many to many": then_flush(lambda db: into(db.get_one(Document, 1), "labels", of_b(db, Label))),
    "many to many, other side": then_flush(lambda db: into(db.get_one(Label, 1), "documents", of_b(db, Document))),
    "child's parent": change(Comment, document=lambda db: of_b(db, Document)),
    "self reference": change(Folder, parent=lambda db: of_b(db, Folder)),
    "self reference, other side": then_flush(lambda db: into(db.get_one(Folder, 1), "children", of_b(db, Folder))),
    "association object": then_flush(
        lambda db: into(db.get_one(Topic, 1), "memberships", Membership(label=of_b(db, Label)))
    ),
    "association proxy": then_flush(lambda db: into(db.get_one(Topic, 1), "labels", of_b(db, Label))),
    "association proxy of numbers": then_flush(lambda db: into(db.get_one(Topic, 1), "label_ids", FIRST_OF_B)),
    "association proxy, replaced": then_flush(lambda db: edit(db.get_one(Topic, 1), label_ids=[FIRST_OF_B])),
    "by another name": change(Named, folder=lambda db: of_b(db, Folder)),
    "post_update": change(Team, captain=lambda db: of_b(db, Player)),
    "post_update of a planted row": lambda db: planted(
        Player, lambda db, made: (edit(db.get_one(Team, 1), captain=made), db.flush(), None)[-1]
    )(db),
    "planted parent": planted(
        Folder, lambda db, made: (db.add(Document(id=NEW, title="x", folder=made)), db.flush(), None)[-1]
    ),
    "planted parent of a child": planted(
        Document, lambda db, made: (db.add(Comment(id=NEW, text="x", document=made)), db.flush(), None)[-1]
    ),
    "planted label": planted(
        Label, lambda db, made: (into(db.get_one(Document, 1), "labels", made), db.flush(), None)[-1]
    ),
    "planted team": planted(Team, lambda db, made: (edit(db.get_one(Player, 1), team=made), db.flush(), None)[-1]),
}


def _during_flush(name: str, target: Any, function: Callable[..., Any]) -> Attack:
    attack = flush(lambda: Document(id=NEW, title="x"))
    return listening(target, name, function)(attack)


def _execute(statement: Any) -> Callable[..., Any]:
    return lambda mapper, connection, target: connection.execute(statement)


EVENTS: dict[str, Attack] = {
    "before_flush changes the tenant": _during_flush(
        "before_flush", Session, lambda db, *rest: [edit(new, tenant_id="b") for new in db.new]
    ),
    "before_flush changes the foreign key": _during_flush(
        "before_flush", Session, lambda db, *rest: [edit(new, folder_id=FIRST_OF_B) for new in db.new]
    ),
    "before_flush adds another": _during_flush(
        "before_flush", Session, lambda db, *rest: db.add(Document(id=NEW + 1, title="y", tenant_id="b"))
    ),
    "before_insert changes the tenant": _during_flush(
        "before_insert", Document, lambda mapper, connection, target: edit(target, tenant_id="b")
    ),
    "before_insert changes the foreign key": _during_flush(
        "before_insert", Document, lambda mapper, connection, target: edit(target, folder_id=FIRST_OF_B)
    ),
    "before_insert updates b's": _during_flush(
        "before_insert", Document, _execute(update(Document).where(Document.id >= FIRST_OF_B).values(title="stolen"))
    ),
    "before_insert runs text": _during_flush(
        "before_insert", Document, _execute(text("UPDATE documents SET title = 'stolen'"))
    ),
    "after_insert inserts a link": _during_flush(
        "after_insert", Document, _execute(document_labels.insert().values(document_id=1, label_id=FIRST_OF_B))
    ),
    "after_insert runs driver SQL": _during_flush(
        "after_insert",
        Document,
        lambda mapper, connection, target: connection.exec_driver_sql("UPDATE documents SET tenant_id = 'b'"),
    ),
    "after_flush adds and flushes": _during_flush(
        "after_flush",
        Session,
        lambda db, context: db.execute(update(Document).values(folder_id=FIRST_OF_B)),
    ),
    "an attribute event changes the tenant": lambda db: listening(
        Document.title, "set", lambda target, *rest: edit(target, tenant_id="b")
    )(change(Document, title="y"))(db),
    "an attribute event changes the foreign key": lambda db: listening(
        Document.title, "set", lambda target, *rest: edit(target, folder_id=FIRST_OF_B)
    )(change(Document, title="y"))(db),
    "an attribute event replaces the value": lambda db: _replacing(Document.folder_id, FIRST_OF_B)(
        change(Document, folder_id=2)
    )(db),
    "before_update changes the tenant": lambda db: listening(
        Document, "before_update", lambda mapper, connection, target: edit(target, tenant_id="b")
    )(change(Document, title="y"))(db),
    "before_commit adds": lambda db: listening(
        Session, "before_commit", lambda session: session.add(Document(id=NEW, title="x", tenant_id="b"))
    )(lambda db: db.commit())(db),
    "do_orm_execute puts another statement in its place": lambda db: listening(
        Session, "do_orm_execute", lambda state: state.invoke_statement(text("SELECT title FROM documents"))
    )(lambda db: db.scalars(select(Document.title)).all())(db),
    "do_orm_execute changes the parameters": lambda db: listening(
        Session,
        "do_orm_execute",
        lambda state: state.invoke_statement(params={"tenantguard_tenant_1": "b"}),
    )(lambda db: db.scalars(select(Document.title)).all())(db),
}


def _replacing(attribute: Any, value: Any) -> Any:
    def run(attack: Attack) -> Attack:
        def attacked(db: Session) -> Any:
            def put(target: Any, given: Any, old: Any, initiator: Any) -> Any:
                return value

            event.listen(attribute, "set", put, retval=True)
            try:
                return attack(db)
            finally:
                event.remove(attribute, "set", put)

        return attacked

    return run


def _moving(model: Any) -> Attack:
    return lambda db: (
        db.add(made := model(id=NEW, title="x")),
        db.flush(),
        edit(made, title="y"),
        db.flush(),
        None,
    )[-1]


LEFT: dict[str, Attack] = {
    "onupdate of the tenant key": _moving(Moving),
    "onupdate in SQL of the tenant key": _moving(MovingBySQL),
    "onupdate of a foreign key": _moving(Turning),
    "viewonly": then_flush(lambda db: db.get_one(Folder, 1).write_only.add(of_b(db, Document))),
    "write to a shared row with b's tenant in it": flush(lambda: Shop(id=NEW, title="x", tenant_id="b")),
    "refresh what was planted": planted(Document, lambda db, made: (db.refresh(made), made.title)),
    "read what was planted": planted(Document, lambda db, made: made.title),
    "read what hangs on what was planted": planted(Folder, lambda db, made: [d.title for d in made.documents]),
    "read what a planted child hangs on": planted(
        Comment, lambda db, made: made.document and made.document.title, document_id=FIRST_OF_B
    ),
    "flush what was planted, then read": planted(
        Folder, lambda db, made: (db.expire(made), made.name, made.count, made.all_titles)
    ),
    "load with a planted key": lambda db: (
        (d := db.get_one(Document, 1)),
        set_committed_value(d, "folder_id", FIRST_OF_B),
        d.folder and d.folder.name,
    )[-1],
    "load a collection of a changed key": lambda db: (
        (f := db.get_one(Folder, 2)),
        set_committed_value(f, "id", FIRST_OF_B),
        [d.title for d in f.documents],
    )[-1],
    "load without a foreign key": lambda db: (
        (one := db.get_one(Loose, 1)),
        edit(one, folder_ref=FIRST_OF_B),
        db.flush(),
        db.expire(one),
        one.folder and one.folder.name,
        edit(one, folder_ref=1),
        None,
    )[2],
}


ATTACKS: dict[str, Attack] = {
    f"{kind} {name}": attack
    for kind, attacks in {"insert": INSERTS, "change": CHANGES, "link": LINKS, "event": EVENTS, "other": LEFT}.items()
    for name, attack in attacks.items()
}
