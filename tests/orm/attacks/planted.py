"""Objects that look as if they had been loaded: made by hand, detached, pickled or merged; and the bulk methods."""

import pickle

from sqlalchemy.orm import make_transient
from sqlalchemy.orm.attributes import set_committed_value

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import (
    Invoice,
    Named,
    Team,
    Versioned,
)
from tests.orm.attacks.shortcuts import (
    NEW,
    edit,
    into,
    of_b,
    planted,
    then_flush,
)
from tests.orm.attacks.world import Comment, Document, Folder, Label, Report

PLANTED: dict[str, Attack] = {
    "changed": planted(Document, lambda db, made: (edit(made, title="stolen"), db.flush(), None)[-1]),
    "changed with its tenant given": planted(
        Document, lambda db, made: (edit(made, title="stolen"), db.flush(), None)[-1], tenant_id="b"
    ),
    "moved to a": planted(Document, lambda db, made: (edit(made, tenant_id="a"), db.flush(), None)[-1], tenant_id="b"),
    "deleted": planted(Document, lambda db, made: (db.delete(made), db.flush(), None)[-1]),
    "deleted with its children": planted(Folder, lambda db, made: (db.delete(made), db.flush(), None)[-1]),
    "deleted with planted children": planted(
        Folder, lambda db, made: (db.delete(made), db.flush(), None)[-1], documents=[]
    ),
    "child changed": planted(Comment, lambda db, made: (edit(made, text="stolen"), db.flush(), None)[-1]),
    "child deleted": planted(Comment, lambda db, made: (db.delete(made), db.flush(), None)[-1]),
    "child moved to a's parent": planted(
        Comment, lambda db, made: (edit(made, document_id=1), db.flush(), None)[-1], document_id=FIRST_OF_B
    ),
    "child taken by a's parent": planted(
        Comment, lambda db, made: (into(db.get_one(Document, 1), "comments", made), db.flush(), None)[-1]
    ),
    "document taken by a's folder": planted(
        Document, lambda db, made: (into(db.get_one(Folder, 1), "documents", made), db.flush(), None)[-1]
    ),
    "orphan": planted(
        Document,
        lambda db, made: (
            into(folder := db.get_one(Folder, 1), "documents", made),
            folder.documents.remove(made),
            db.flush(),
            None,
        )[-1],
    ),
    "label removed from b's document": planted(
        Document,
        lambda db, made: (
            set_committed_value(made, "labels", [label := db.get_one(Label, 1)]),
            made.labels.remove(label),
            db.flush(),
            None,
        )[-1],
    ),
    "players let go": planted(Team, lambda db, made: (db.delete(made), db.flush(), None)[-1]),
    "versioned row changed": planted(
        Versioned, lambda db, made: (edit(made, title="stolen"), db.flush(), None)[-1], version=1
    ),
    "versioned row deleted": planted(Versioned, lambda db, made: (db.delete(made), db.flush(), None)[-1], version=1),
    "joined row changed": planted(
        Report, lambda db, made: (edit(made, pages=1, title="stolen"), db.flush(), None)[-1], FIRST_OF_B + 11
    ),
    "joined row deleted": planted(Report, lambda db, made: (db.delete(made), db.flush(), None)[-1], FIRST_OF_B + 11),
    "made transient and added again": lambda db: (
        make_transient(d := of_b(db, Document)),
        edit(d, title="stolen"),
        db.add(d),
        db.flush(),
        None,
    )[-1],
    "detached": then_flush(lambda db: (db.add(d := of_b(db, Document)), edit(d, title="stolen"))),
    "detached and deleted": then_flush(lambda db: db.delete(of_b(db, Document))),
    "detached with cascades": then_flush(lambda db: db.delete(of_b(db, Folder))),
    "pickled": then_flush(
        lambda db: (db.add(d := pickle.loads(pickle.dumps(of_b(db, Document)))), edit(d, title="stolen"))
    ),
    "merged": then_flush(lambda db: db.merge(Document(id=FIRST_OF_B, title="stolen")) and None),
    "merged child": then_flush(lambda db: db.merge(Comment(id=FIRST_OF_B, text="stolen")) and None),
    "merged from b": then_flush(lambda db: edit(db.merge(of_b(db, Document)), title="stolen")),
    "merged without loading": then_flush(lambda db: edit(db.merge(of_b(db, Document), load=False), title="stolen")),
    "merged without loading and deleted": then_flush(lambda db: db.delete(db.merge(of_b(db, Document), load=False))),
    "merged folder with its documents": then_flush(lambda db: db.merge(of_b(db, Folder)) and None),
    "merged with a tenant": then_flush(lambda db: db.merge(Document(id=1, title="x", tenant_id="b")) and None),
    "merged with a foreign key": then_flush(lambda db: db.merge(Document(id=1, folder_id=FIRST_OF_B)) and None),
    "merged with a foreign parent": then_flush(
        lambda db: db.merge(Document(id=1, folder=Folder(id=FIRST_OF_B, name="stolen"))) and None
    ),
    "merged composite key": then_flush(lambda db: db.merge(Invoice(tenant_id="b", number=7, title="s")) and None),
}

BULK: dict[str, Attack] = {
    "save new": lambda db: db.bulk_save_objects([Document(id=NEW, title="x", tenant_id="b")]),
    "save b's": lambda db: db.bulk_save_objects([of_b(db, Document)]),
    "save b's, changed": lambda db: (edit(d := of_b(db, Document), title="stolen"), db.bulk_save_objects([d]))[-1],
    "save b's, all columns": lambda db: (
        edit(d := of_b(db, Document), title="stolen"),
        db.bulk_save_objects([d], update_changed_only=False),
    )[-1],
    "save with defaults": lambda db: db.bulk_save_objects(
        [Document(id=NEW, title="x", folder_id=FIRST_OF_B)], return_defaults=True
    ),
    "save child": lambda db: db.bulk_save_objects([Comment(id=NEW, text="x", document_id=FIRST_OF_B)]),
    "save in any order": lambda db: db.bulk_save_objects(
        [Document(id=NEW, title="x"), Comment(id=NEW, text="x", document_id=FIRST_OF_B)], preserve_order=False
    ),
    "insert": lambda db: db.bulk_insert_mappings(Document, [{"id": NEW, "title": "x", "tenant_id": "b"}]),
    "insert with nulls": lambda db: db.bulk_insert_mappings(
        Document, [{"id": NEW, "title": "x", "tenant_id": None}], render_nulls=True
    ),
    "insert foreign key": lambda db: db.bulk_insert_mappings(
        Document, [{"id": NEW, "title": "x"}, {"id": NEW + 1, "title": "y", "folder_id": FIRST_OF_B}]
    ),
    "insert by other names": lambda db: db.bulk_insert_mappings(Named, [{"ident": NEW, "owner": "b"}]),
    "insert foreign key by another name": lambda db: db.bulk_insert_mappings(
        Named, [{"ident": NEW, "folder_number": FIRST_OF_B}]
    ),
    "insert joined": lambda db: db.bulk_insert_mappings(Report, [{"id": FIRST_OF_B, "title": "x", "pages": 1}]),
    "insert joined, returning": lambda db: db.bulk_insert_mappings(
        Report, [{"id": NEW, "title": "x", "pages": 1, "tenant_id": "b"}], return_defaults=True
    ),
    "update": lambda db: db.bulk_update_mappings(Document, [{"id": FIRST_OF_B, "title": "stolen"}]),
    "update tenant": lambda db: db.bulk_update_mappings(Document, [{"id": 1, "tenant_id": "b"}]),
    "update with b's tenant": lambda db: db.bulk_update_mappings(
        Document, [{"id": FIRST_OF_B, "tenant_id": "b", "title": "stolen"}]
    ),
    "update foreign key": lambda db: db.bulk_update_mappings(Document, [{"id": 1, "folder_id": FIRST_OF_B}]),
    "update child": lambda db: db.bulk_update_mappings(Comment, [{"id": FIRST_OF_B, "text": "stolen"}]),
    "update joined": lambda db: db.bulk_update_mappings(
        Report, [{"id": FIRST_OF_B + 11, "pages": 1, "title": "stolen"}]
    ),
    "update by other names": lambda db: db.bulk_update_mappings(Named, [{"ident": 1, "owner": "b"}]),
    "update composite key": lambda db: db.bulk_update_mappings(
        Invoice, [{"tenant_id": "b", "number": 7, "title": "stolen"}]
    ),
    "update versioned": lambda db: db.bulk_update_mappings(
        Versioned, [{"id": FIRST_OF_B, "version": 1, "title": "stolen"}]
    ),
}


ATTACKS: dict[str, Attack] = {
    f"{kind} {name}": attack
    for kind, attacks in {"planted": PLANTED, "bulk": BULK}.items()
    for name, attack in attacks.items()
}
