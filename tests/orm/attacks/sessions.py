"""Sessions that were not closed, and objects that were loaded by another tenant."""

import pickle
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import (
    Session,
    make_transient,
    make_transient_to_detached,
    object_session,
    selectinload,
)
from sqlalchemy.orm.attributes import set_committed_value

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.leavings import (
    NEW,
    Use,
    added,
    as_b,
    as_b_loads,
    changed,
    engine_of_session,
    everything,
    key_of,
    left_by_b,
    left_by_system,
    load,
    removed,
)
from tests.orm.attacks.world import Document, Folder, Label

SESSIONS: dict[str, tuple[Use, Callable[[Session], Any]]] = {
    "get": (lambda s, kept: s.get(Document, FIRST_OF_B), load),
    "get_one": (lambda s, kept: s.get_one(Document, FIRST_OF_B), load),
    "get what is not there": (lambda s, kept: s.get(Document, 1), load),
    "get with populate_existing": (lambda s, kept: s.get(Document, FIRST_OF_B, populate_existing=True), load),
    "query get": (lambda s, kept: s.query(Document).get(FIRST_OF_B), load),
    "select": (lambda s, kept: everything(s), load),
    "select of a's own": (lambda s, kept: s.scalars(select(Document).where(Document.tenant_id == "a")).all(), load),
    "count": (lambda s, kept: s.scalar(select(func.count()).select_from(Document)), load),
    "refresh": (lambda s, kept: (s.refresh(kept[0]), kept[0].title), load),
    "refresh of an attribute": (lambda s, kept: (s.refresh(kept[0], ["body"]), kept[0].body, kept[0].title), load),
    "expire": (lambda s, kept: (s.expire(kept[0]), kept[0].title), load),
    "expire all": (lambda s, kept: (s.expire_all(), kept[0].title), load),
    "deferred": (lambda s, kept: (kept[0].body, "B-CANARY"), load),
    "lazy many to one": (lambda s, kept: kept[0].folder.name, load),
    "lazy many to one in the map": (
        lambda s, kept: kept[0].folder.name,
        lambda s: (load(s), s.scalars(select(Folder)).all())[0],
    ),
    "lazy collection": (lambda s, kept: [label.name for label in kept[0].labels], load),
    "dynamic": (
        lambda s, kept: kept[0].dynamic.all(),
        lambda s: list(s.scalars(select(Folder))),
    ),
    "dynamic kept": (lambda s, kept: kept.all(), lambda s: s.get_one(Folder, FIRST_OF_B).dynamic),
    "write only kept": (
        lambda s, kept: s.scalars(kept.select()).all(),
        lambda s: s.get_one(Folder, FIRST_OF_B).write_only,
    ),
    "query kept": (lambda s, kept: kept.all(), lambda s: s.query(Document)),
    "association proxy": (lambda s, kept: list(kept[0].titles), lambda s: list(s.scalars(select(Folder)))),
    "map get": (lambda s, kept: s.identity_map.get(key_of(kept)), load),
    "map item": (lambda s, kept: s.identity_map[key_of(kept)], load),
    "map values": (lambda s, kept: s.identity_map.values(), load),
    "map items": (lambda s, kept: s.identity_map.items(), load),
    "map keys": (lambda s, kept: list(s.identity_map.keys()), load),
    "map iteration": (lambda s, kept: list(s.identity_map), load),
    "map contains": (lambda s, kept: (key_of(kept) in s.identity_map) and "B-CANARY", load),
    "map has_key": (lambda s, kept: s.identity_map.has_key(key_of(kept)) and "B-CANARY", load),
    "iteration": (lambda s, kept: list(s), load),
    "dirty": (lambda s, kept: list(s.dirty), changed),
    "new": (lambda s, kept: list(s.new), added),
    "deleted": (lambda s, kept: list(s.deleted), removed),
    "flush of b's changes": (lambda s, kept: s.flush(), changed),
    "commit of b's changes": (lambda s, kept: s.commit(), changed),
    "flush of b's new object": (lambda s, kept: s.flush(), added),
    "flush of b's deletion": (lambda s, kept: s.flush(), removed),
    "change by a": (lambda s, kept: (setattr(kept[0], "title", "stolen"), s.commit()), load),
    "delete by a": (lambda s, kept: (s.delete(kept[4]), s.commit()), load),
    "add by a": (lambda s, kept: (s.add(Document(id=NEW, title="x")), s.commit()), load),
    "merge": (lambda s, kept: s.merge(Document(id=FIRST_OF_B)).title, load),
    "merge without loading": (lambda s, kept: s.merge(kept[0], load=False).title, load),
    "merge of a's object": (lambda s, kept: s.merge(Document(id=NEW, title="x")) and s.commit(), load),
    "bulk": (lambda s, kept: s.bulk_save_objects([Document(id=NEW, title="x")]), load),
    "connection": (lambda s, kept: s.connection().execute(select(Document.title)).all(), load),
    "after rollback": (lambda s, kept: (s.rollback(), kept[0].title), load),
    "after commit": (lambda s, kept: (s.commit(), kept[0].title), load),
    "after commit by b": (lambda s, kept: kept[0].title, lambda s: (load(s), s.commit())[0]),
    "after commit by b, get": (lambda s, kept: s.get(Document, FIRST_OF_B), lambda s: (load(s), s.commit())),
    "after commit by b, select": (lambda s, kept: everything(s), lambda s: (load(s), s.commit())),
    "after expunge_all": (lambda s, kept: (s.expunge_all(), s.get(Document, FIRST_OF_B)), load),
    "after expunge of one": (lambda s, kept: (s.expunge(kept[0]), s.get(Document, FIRST_OF_B)), load),
    "a savepoint": (lambda s, kept: (s.begin_nested(), everything(s)), load),
    "a savepoint rolled back": (lambda s, kept: (s.begin_nested().rollback(), everything(s)), load),
    "no_autoflush": (lambda s, kept: _without_autoflush(s), changed),
    "get with an identity token": (lambda s, kept: s.get(Document, FIRST_OF_B, identity_token="x"), load),
    "session of an object": (lambda s, kept: object_session(kept[0]).get(Document, FIRST_OF_B), load),
    "a second session on its connection": (lambda s, kept: everything(Session(kept)), lambda s: s.connection()),
    "its connection": (lambda s, kept: kept.execute(select(Document.title)).all(), lambda s: s.connection()),
    "bound to its connection, after commit": (
        lambda s, kept: (s.commit(), Session(engine_of_session(s)).get(Document, FIRST_OF_B)),
        load,
    ),
}


def _without_autoflush(s: Session) -> Any:
    with s.no_autoflush:
        return everything(s)


def moved_object(use: Use) -> Attack:
    """Use an object of b's in a's session."""

    def attack(db: Session) -> Any:
        other = Session(engine_of_session(db))
        found = as_b(other, lambda s: s.get_one(Document, FIRST_OF_B))
        other.expunge_all()
        other.close()
        return use(db, found)

    return attack


OBJECTS: dict[str, Attack] = {
    "added": moved_object(lambda db, d: (db.add(d), db.get(Document, FIRST_OF_B))),
    "added, then its folder": moved_object(lambda db, d: (db.add(d), d.folder and d.folder.name)),
    "added, then its labels": moved_object(lambda db, d: (db.add(d), [label.name for label in d.labels])),
    "added, then refreshed": moved_object(lambda db, d: (db.add(d), db.refresh(d), d.title)),
    "added, then expired": moved_object(lambda db, d: (db.add(d), db.expire(d), d.title)),
    "added, then in the map": moved_object(lambda db, d: (db.add(d), db.identity_map.values())),
    "merged": moved_object(lambda db, d: db.merge(d) and db.commit()),
    "merged without loading": moved_object(lambda db, d: (db.merge(d, load=False), db.get(Document, FIRST_OF_B))),
    "merged without loading, then read": moved_object(lambda db, d: db.merge(d, load=False).title),
    "pickled and merged": moved_object(
        lambda db, d: (db.merge(pickle.loads(pickle.dumps(d)), load=False), db.get(Document, FIRST_OF_B))
    ),
    "pickled and added": moved_object(
        lambda db, d: (db.add(pickle.loads(pickle.dumps(d))), db.get(Document, FIRST_OF_B))
    ),
    "made transient": moved_object(
        lambda db, d: (make_transient(d), make_transient_to_detached(d), db.add(d), db.get(Document, FIRST_OF_B))
    ),
    "merged inside of another": moved_object(
        lambda db, d: (
            set_committed_value(mine := db.get_one(Document, 11), "folder", d.__dict__.get("folder")),
            set_committed_value(mine, "labels", as_b_loads(db)),
            db.expunge_all(),
            db.merge(mine, load=False),
            db.get(Label, FIRST_OF_B),
        )[-1]
    ),
    "of another session": lambda db: db.add(
        as_b(Session(engine_of_session(db)), lambda s: s.get_one(Document, FIRST_OF_B))
    ),
    "by hand": lambda db: (
        make_transient_to_detached(d := Document(id=FIRST_OF_B)),
        db.add(d),
        d.title,
    ),
    "by hand, get": lambda db: (
        make_transient_to_detached(d := Document(id=FIRST_OF_B)),
        db.add(d),
        db.get(Document, FIRST_OF_B).size,
    ),
    "by hand, selectin": lambda db: (
        make_transient_to_detached(f := Folder(id=FIRST_OF_B)),
        db.add(f),
        db.scalars(select(Folder).options(selectinload(Folder.documents))).all(),
        f.__dict__,
    )[2],
    "by hand, populated": lambda db: (
        make_transient_to_detached(f := Folder(id=FIRST_OF_B)),
        db.add(f),
        db.scalars(
            select(Folder).options(selectinload(Folder.documents)).execution_options(populate_existing=True)
        ).all(),
        [d.title for d in f.documents],
    ),
}


ATTACKS: dict[str, Attack] = {
    **{f"a session of b's: {name}": left_by_b(use, fill) for name, (use, fill) in SESSIONS.items()},
    **{f"a session of a system context: {name}": left_by_system(use, fill) for name, (use, fill) in SESSIONS.items()},
    **{f"an object of b's: {name}": attack for name, attack in OBJECTS.items()},
}
