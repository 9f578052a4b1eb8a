"""Contexts that outlive their block, threads, and transactions that change hands."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import (
    Session,
    scoped_session,
    sessionmaker,
)

from tenantguard import bind, system
from tests.orm.attacks.harness import FIRST_OF_B, Attack, B
from tests.orm.attacks.leavings import (
    NEW,
    as_b,
    copy_context_of,
    engine_of_session,
    everything,
    in_thread,
    left_by_b,
    left_by_system,
    load,
)
from tests.orm.attacks.world import Document, Folder


def leaked_system() -> Any:
    with system("leaks"):
        return copy_context()


def _later(db: Session) -> Any:
    """Run in a pool's thread, after the block, what was handed over inside of it."""
    gate = threading.Event()

    def work() -> Any:
        gate.wait(10)
        with Session(engine_of_session(db)) as s:
            return everything(s)

    with ThreadPoolExecutor(1) as pool:
        with system("start work"):
            context = copy_context()
            future = pool.submit(context.run, work)
        gate.set()
        return future.result(timeout=20)


def _suspended(db: Session) -> Any:
    def generate() -> Any:
        with Session(engine_of_session(db)) as s:
            yield None
            yield everything(s)

    with system("start a generator"):
        iterator = generate()
        next(iterator)
    return next(iterator)


def _held_open(db: Session) -> Any:
    def generate() -> Any:
        with system("held open by a generator"):
            yield None

    iterator = generate()
    next(iterator)
    try:
        with Session(engine_of_session(db)) as s:
            return everything(s)
    finally:
        iterator.close()


def _b_held_open(db: Session) -> Any:
    def generate() -> Any:
        with bind(B):
            yield None

    iterator = generate()
    next(iterator)
    try:
        with Session(engine_of_session(db)) as s:
            return everything(s)
    finally:
        iterator.close()


def _closed_object(db: Session) -> Any:
    block = system("used and left")
    with block:
        pass
    context = copy_context()
    return context.run(everything, db)


def _raised(db: Session) -> Any:
    try:
        with bind(B):
            raise ValueError("out of the block")
    except ValueError:
        return everything(db)


def _connection_of_system(db: Session) -> Any:
    with engine_of_session(db).connect() as connection:
        with system("look"):
            connection.execute(text("SELECT 1"))
        return connection.execute(select(Document.title)).all()


CONTEXTS: dict[str, Attack] = {
    "a context that was copied in a system block": lambda db: leaked_system().run(
        lambda: everything(Session(engine_of_session(db)))
    ),
    "raw SQL in such a context": lambda db: leaked_system().run(
        lambda: Session(engine_of_session(db)).execute(text("SELECT title FROM documents")).all()
    ),
    "raw SQL in such a context, in a thread": lambda db: in_thread(
        lambda: leaked_system().run(
            lambda: Session(engine_of_session(db)).execute(text("SELECT title FROM documents")).all()
        )
    ),
    "work that is done after the block": _later,
    "a generator that is resumed after the block": _suspended,
    "a system block that a generator holds open": _held_open,
    "a block of b's that a generator holds open": _b_held_open,
    "a block that was left": _closed_object,
    "a block that was left by an exception": _raised,
    "a connection of a system context": _connection_of_system,
    "a session of a system context, kept": left_by_system(lambda s, kept: s.get(Document, FIRST_OF_B)),
    "a session of a system context, selected": left_by_system(lambda s, kept: everything(s)),
    "a session of a system context, lazy": left_by_system(lambda s, kept: [d.folder.name for d in kept if d.folder]),
    "a session of a system context, changed": left_by_system(
        lambda s, kept: ([setattr(d, "title", "stolen") for d in kept], s.commit())
    ),
    "a session of a system context, its savepoint": left_by_system(
        lambda s, kept: (s.begin_nested(), s.execute(select(Document.title)).all())
    ),
    "a bare thread": lambda db: in_thread(lambda: everything(Session(engine_of_session(db)))),
    "a bare thread with a's session": lambda db: in_thread(lambda: everything(db)),
    "a bare thread with an object of a's": lambda db: (
        (d := db.get_one(Document, 1)) and in_thread(lambda: d.folder.name)
    ),
    "a thread of b's with a's session": lambda db: (everything(db), in_thread(lambda: as_b(db, everything)))[1],
    "a thread of b's with an object of a's": lambda db: (
        (d := db.get_one(Document, 1)) and in_thread(lambda: as_b(db, lambda s: d.folder.name))
    ),
    "a thread of a's with b's session": left_by_b(lambda s, kept: in_thread(copy_context_of(lambda: everything(s)))),
    "b inside of a's transaction": lambda db: (everything(db), as_b(db, everything)),
    "system inside of a's transaction": lambda db: (everything(db), _system_on(db)),
    "a savepoint that b rolls back": lambda db: _b_rolls_back(db),
    "a savepoint that b releases": lambda db: _b_releases(db),
    "a key remembered before a savepoint": lambda db: _remembered(db),
    "a session maker that is configured anew": lambda db: _configured(db),
    "a scoped session that was not removed": lambda db: _scoped(db),
    "a scoped session's query property": lambda db: _query_property(db),
}


def _system_on(db: Session) -> Any:
    with system("within a's transaction"):
        return db.execute(text("SELECT title FROM documents")).all()


def _b_rolls_back(db: Session) -> Any:
    everything(db)
    nested = db.begin_nested()
    with bind(B):
        nested.rollback()
        return everything(db)


def _b_releases(db: Session) -> Any:
    everything(db)
    nested = db.begin_nested()
    with bind(B):
        nested.commit()
        return everything(db)


def _remembered(db: Session) -> None:
    """What a link look-up found must not be taken for there once it was rolled back."""
    if engine_of_session(db).dialect.name == "sqlite":
        nested = db.begin_nested()
        db.add(Folder(id=FIRST_OF_B + 60, name="x"))
        db.flush()
        nested.rollback()
        db.add(Document(id=NEW, title="x", folder_id=FIRST_OF_B + 60))
        db.flush()
        return
    nested = db.begin_nested()
    db.add_all([Folder(id=60, name="x"), Document(id=NEW, title="x", folder_id=60)])
    db.flush()
    nested.rollback()
    with bind(B), Session(engine_of_session(db)) as other, other.begin():
        other.add(Folder(id=60, name="B-CANARY"))
    try:
        db.add(Document(id=NEW, title="x", folder_id=60))
        db.flush()
        raise AssertionError("B-CANARY: planted")
    finally:
        db.rollback()
        with bind(B), Session(engine_of_session(db)) as other, other.begin():
            other.delete(other.get_one(Folder, 60))


def _configured(db: Session) -> Any:
    plain = create_engine(engine_of_session(db).url)
    made = sessionmaker(engine_of_session(db))
    made.configure(bind=plain)
    try:
        with made() as s:
            return everything(s)
    finally:
        plain.dispose()


def _scoped(db: Session) -> Any:
    registry = scoped_session(sessionmaker(engine_of_session(db)))
    try:
        as_b(registry(), load)
        return registry.get(Document, FIRST_OF_B), registry.scalars(select(Document)).all()
    finally:
        registry.remove()


def _query_property(db: Session) -> Any:
    registry = scoped_session(sessionmaker(engine_of_session(db)))

    class Holder:
        query = registry.query_property()

    try:
        as_b(registry(), load)
        return registry.query(Document).all()
    finally:
        registry.remove()


ATTACKS: dict[str, Attack] = {f"a context: {name}": attack for name, attack in CONTEXTS.items()}
