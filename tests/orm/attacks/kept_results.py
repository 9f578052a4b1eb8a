"""Results that are half read, kept or frozen, and caches of results and of compiled statements."""

import pickle
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine, insert, lambda_stmt, select, update
from sqlalchemy.orm import (
    Session,
    joinedload,
)
from sqlalchemy.orm.loading import merge_frozen_result

from tenantguard import bind, system
from tests.orm.attacks.harness import FIRST_OF_B, Attack, B
from tests.orm.attacks.leavings import (
    NEW,
    OPEN,
    PER_ONE,
    PER_TWO,
    STATEMENT,
    as_b,
    begun,
    engine_of_session,
    from_cache,
    one_read,
    partly,
)
from tests.orm.attacks.oddities import Note
from tests.orm.attacks.world import Document, Folder, Label


def opened_by_b(start: Callable[[Session], Any], read: Callable[[Any], Any]) -> Attack:
    """Read on in what b has begun to read."""

    def attack(db: Session) -> Any:
        other = Session(engine_of_session(db))
        kept = as_b(other, start)
        try:
            return read(kept)
        finally:
            for one in OPEN:
                if hasattr(one, "close"):
                    one.close()
            OPEN.clear()
            other.close()

    return attack


def generated(db: Session) -> Any:
    def generate() -> Any:
        for document in db.scalars(select(Document)):
            yield document.title, document.folder and document.folder.name

    return begun(generate())


RESULTS: dict[str, Attack] = {
    "entities": opened_by_b(lambda s: s.scalars(select(Document)), lambda r: r.all()),
    "entities, begun": opened_by_b(lambda s: begun(s.scalars(select(Document))), list),
    "entities, one read": opened_by_b(lambda s: one_read(s.execute(select(Document))), lambda r: r.all()),
    "entities, some read": opened_by_b(lambda s: partly(s.execute(select(Document))), lambda r: r.fetchmany(2)),
    "entities, some read, then the first": opened_by_b(
        lambda s: partly(s.execute(select(Document))), lambda r: r.first()
    ),
    "entities, one by one": opened_by_b(lambda s: one_read(s.execute(select(Document))), lambda r: r.fetchone()),
    "entities per one": opened_by_b(lambda s: begun(s.scalars(select(Document), execution_options=PER_ONE)), list),
    "entities per two": opened_by_b(lambda s: begun(s.scalars(select(Document), execution_options=PER_TWO)), next),
    "entities per two, to the end": opened_by_b(
        lambda s: begun(s.scalars(select(Document), execution_options=PER_TWO)), list
    ),
    "entities in partitions": opened_by_b(lambda s: begun(s.execute(select(Document)).partitions(2)), list),
    "entities, unique": opened_by_b(
        lambda s: begun(s.scalars(select(Folder).options(joinedload(Folder.documents))).unique()), list
    ),
    "entities, mappings": opened_by_b(lambda s: begun(s.execute(select(Document)).mappings()), list),
    "entities, tuples": opened_by_b(lambda s: begun(s.execute(select(Document, Document.title)).tuples()), list),
    "entities, columns": opened_by_b(lambda s: begun(s.execute(select(Document.id, Document.title)).columns(1)), list),
    "query": opened_by_b(lambda s: begun(s.query(Document)), list),
    "query per one": opened_by_b(lambda s: begun(s.query(Document).yield_per(1)), list),
    "query per two": opened_by_b(lambda s: begun(s.query(Document).yield_per(2)), next),
    "columns": opened_by_b(lambda s: begun(s.execute(select(Document.title))), list),
    "core": opened_by_b(lambda s: begun(s.connection().execute(select(Document.__table__))), list),
    "core, begun, fetchall": opened_by_b(
        lambda s: one_read(s.connection().execute(select(Document.__table__))), lambda r: r.fetchall()
    ),
    "core, some read": opened_by_b(
        lambda s: partly(s.connection().execute(select(Document.__table__))), lambda r: r.fetchmany(2)
    ),
    "core, mappings": opened_by_b(lambda s: begun(s.connection().execute(select(Document.__table__)).mappings()), list),
    "core, scalars": opened_by_b(lambda s: begun(s.connection().execute(select(Document.title)).scalars()), list),
    "core, stream": opened_by_b(
        lambda s: begun(s.connection().execute(select(Document.title), execution_options={"stream_results": True})),
        list,
    ),
    "core, buffered stream": opened_by_b(
        lambda s: begun(
            s.connection().execute(
                select(Document.title), execution_options={"stream_results": True, "max_row_buffer": 2}
            )
        ),
        list,
    ),
    "returning": opened_by_b(
        lambda s: begun(s.execute(update(Document).values(size=1).returning(Document.title))), list
    ),
    "returning, entities": opened_by_b(
        lambda s: begun(s.scalars(update(Document).values(size=1).returning(Document))), list
    ),
    "returned defaults": opened_by_b(
        lambda s: s.connection().execute(
            insert(Document.__table__).values(id=FIRST_OF_B + 50, title="B-CANARY").return_defaults()
        ),
        lambda r: r.fetchall() if r.returns_rows else None,
    ),
    "merged": opened_by_b(
        lambda s: s.execute(select(Document.title)).merge(s.execute(select(Folder.name))), lambda r: r.all()
    ),
    "frozen, entities": opened_by_b(lambda s: s.execute(select(Document)).freeze(), lambda f: f().all()),
    "frozen, columns": opened_by_b(lambda s: s.execute(select(Document.title)).freeze(), lambda f: f().all()),
    "frozen, core": opened_by_b(
        lambda s: s.connection().execute(select(Document.title)).freeze(), lambda f: f().scalars().all()
    ),
    "frozen, scalars": opened_by_b(lambda s: s.execute(select(Document)).freeze(), lambda f: list(f().scalars())),
    "frozen, pickled": opened_by_b(
        lambda s: pickle.dumps(s.execute(select(Document.title)).freeze()), lambda p: pickle.loads(p)().all()
    ),
    "generator": opened_by_b(generated, list),
    "generator, next": opened_by_b(generated, next),
}


def frozen_into(load_rows: bool) -> Attack:
    def attack(db: Session) -> Any:
        frozen = as_b(Session(engine_of_session(db)), lambda s: s.execute(select(Document)).freeze())
        merged = merge_frozen_result(db, select(Document), frozen, load=load_rows)
        return merged().all(), db.get(Document, FIRST_OF_B)

    return attack


CACHES: dict[str, Attack] = {
    "frozen into a session": frozen_into(load_rows=False),
    "frozen into a session, loaded again": frozen_into(load_rows=True),
    "results by the statement's key": from_cache(
        lambda state: state.statement._generate_cache_key().key, lambda state, frozen: frozen()
    ),
    "results by name": from_cache(lambda state: "documents", lambda state, frozen: frozen()),
    "results by name, merged": from_cache(
        lambda state: "documents",
        lambda state, frozen: merge_frozen_result(state.session, state.statement, frozen, load=False)(),
    ),
    "lambda statement": lambda db: (
        as_b(Session(engine_of_session(db)), lambda s: s.execute(lambda_stmt(_all_documents)).all()),
        db.execute(lambda_stmt(_all_documents)).all(),
    )[1],
    "lambda statement of a system context": lambda db: (
        _in_system(db, lambda s: s.execute(lambda_stmt(_all_folders)).all()),
        db.execute(lambda_stmt(_all_folders)).all(),
    )[1],
    "a statement of a system context": lambda db: (
        _in_system(db, lambda s: s.execute(STATEMENT).all()),
        db.execute(STATEMENT).all(),
    )[1],
    "a compiled cache of one's own": lambda db: _own_cache(db, as_system=False),
    "a compiled cache of one's own, of a system context": lambda db: _own_cache(db, as_system=True),
    "the unit of work's cache": lambda db: (
        _in_system(db, lambda s: (s.add(Document(id=NEW, title="x", tenant_id="a")), s.flush())),
        db.add(Document(id=NEW + 1, title="y", tenant_id="b")),
        db.flush(),
    )[1],
    "a plain engine's cache": lambda db: _plain_cache(db, lambda s: s.execute(STATEMENT).all()),
    "a plain engine's cache, flushed": lambda db: _plain_cache(
        db, lambda s: (s.add(Document(id=FIRST_OF_B + 70, title="x", tenant_id="b")), s.flush())[1]
    ),
    "a plain engine's cache, deleted": lambda db: _plain_cache(
        db, lambda s: s.execute(Note.__table__.delete()) and None
    ),
    "a plain engine's compiled statement": lambda db: _plain_cache(
        db, lambda s: s.scalars(lambda_stmt(_all_labels)).all()
    ),
}


def _all_documents() -> Any:
    return select(Document.title)


def _all_folders() -> Any:
    return select(Folder.name)


def _all_labels() -> Any:
    return select(Label.name)


def _in_system(db: Session, step: Callable[[Session], Any]) -> None:
    with system("fill a cache"), Session(engine_of_session(db)) as other:
        step(other)


def _own_cache(db: Session, *, as_system: bool) -> Any:
    variant = engine_of_session(db).execution_options(compiled_cache={})
    with system("fill") if as_system else bind(B), variant.connect() as connection:
        connection.execute(STATEMENT).all()
    with variant.connect() as connection:
        return [tuple(row) for row in connection.execute(STATEMENT)]


def _plain_cache(db: Session, step: Callable[[Session], Any]) -> Any:
    """Use a second engine, without the barrier, in a system context first."""
    plain = create_engine(engine_of_session(db).url)
    try:
        with system("a report"), Session(plain) as session:
            step(session)
            session.rollback()
        with Session(plain) as session:
            found = step(session)
            session.commit()
            return found
    finally:
        plain.dispose()


ATTACKS: dict[str, Attack] = {
    **{f"a result of b's: {name}": attack for name, attack in RESULTS.items()},
    **{f"a cache: {name}": attack for name, attack in CACHES.items()},
}
