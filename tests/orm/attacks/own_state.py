"""What must keep working: sessions over many requests, own results and objects, savepoints, threads."""

import pickle
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import (
    Session,
)
from sqlalchemy.orm.loading import merge_frozen_result

from tenantguard import bind, system
from tests.orm.attacks.harness import Attack
from tests.orm.attacks.leavings import (
    NEW,
    PER_TWO,
    as_b,
    copy_context_of,
    engine_of_session,
    everything,
    from_cache,
    in_thread,
    load,
)
from tests.orm.attacks.world import Document, Folder, Label


def _closed_and_used(db: Session) -> Any:
    with Session(engine_of_session(db)) as other:
        as_b(other, load)
        other.close()
        return len(everything(other))


def _requests(db: Session) -> Any:
    with Session(engine_of_session(db)) as other:
        seen = 0
        for number in range(3):
            seen += len(load(other))
            other.add(Label(id=NEW + number, name="x"))
            other.commit()
        return seen


def _frozen(db: Session) -> Any:
    frozen = db.execute(select(Document)).freeze()
    merged = merge_frozen_result(db, select(Document), pickle.loads(pickle.dumps(frozen)), load=False)
    return len(frozen().all()), len(merged().all()), len(pickle.loads(pickle.dumps(merged))().all())


def _moved(db: Session) -> Any:
    with Session(engine_of_session(db)) as other:
        found = other.get_one(Document, 1)
        other.expunge(found)
    db.add(found)
    copied = pickle.loads(pickle.dumps(db.get_one(Folder, 1)))
    with Session(engine_of_session(db)) as third:
        return found.folder.name, third.merge(copied, load=False).name, len(third.merge(copied).documents)


def _nested(db: Session) -> Any:
    with db.begin_nested():
        db.add(Label(id=NEW, name="kept"))
    nested = db.begin_nested()
    db.add(Label(id=NEW + 1, name="dropped"))
    db.flush()
    nested.rollback()
    return sorted(db.scalars(select(Label.name)))


def _thread_of_own(db: Session) -> Any:
    return in_thread(copy_context_of(lambda: len(everything(Session(engine_of_session(db))))))


def _system_then_tenant(db: Session) -> Any:
    from tests.orm.attacks.harness import A

    with system("for each tenant"), bind(A), Session(engine_of_session(db)) as other:
        return len(everything(other))


OWN: dict[str, tuple[Attack, Any]] = {
    "a session that was closed": (_closed_and_used, 5),
    "a session over many requests": (_requests, 15),
    "frozen results": (_frozen, (5, 5, 5)),
    "objects between sessions": (_moved, ("A-folder", "A-folder", 3)),
    "savepoints": (_nested, ["A-label", "kept"]),
    "a thread with a copied context": (_thread_of_own, 5),
    "a tenant inside of a system block": (_system_then_tenant, 5),
    "streams": (
        lambda db: [d.id for d in db.scalars(select(Document).order_by(Document.id), execution_options=PER_TWO)],
        [1, 2, 3, 11, 12],
    ),
    "a query in pages": (lambda db: [len(part) for part in db.execute(select(Document)).partitions(2)], [2, 2, 1]),
    "a cached result": (
        lambda db: from_cache(
            lambda state: (str(state.statement), "a" if everything_of(state) else "b"), lambda state, frozen: frozen()
        )(db),
        ["A-document-0", "A-document-1", "A-document-2", "A-memo", "A-report"],
    ),
}


def everything_of(state: Any) -> bool:
    from tenantguard import current_tenant

    return current_tenant().id == "a"
