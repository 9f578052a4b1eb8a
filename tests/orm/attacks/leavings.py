"""What the attacks on state have in common: sessions, objects and results that b, or a system context, left behind."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from sqlalchemy import Engine, event, inspect, select
from sqlalchemy.orm import (
    Session,
)

from tenantguard import bind, system
from tests.orm.attacks.harness import FIRST_OF_B, Attack, B
from tests.orm.attacks.world import Document, Label

NEW = 50
PER_ONE = {"yield_per": 1}
PER_TWO = {"yield_per": 2}
STATEMENT = select(Document.title, Document.tenant_id)
Use = Callable[[Session, Any], Any]


def engine_of_session(db: Session) -> Engine:
    found = db.get_bind()
    assert isinstance(found, Engine)
    return found


def everything(db: Session) -> list[Any]:
    return [d.title for d in db.scalars(select(Document))]


def load(db: Session) -> list[Any]:
    return list(db.scalars(select(Document).order_by(Document.id)))


def as_b(db: Session, step: Callable[[Session], Any]) -> Any:
    with bind(B):
        return step(db)


def left_by_b(use: Use, fill: Callable[[Session], Any] = load) -> Attack:
    """Use a session that b has used and not closed."""

    def attack(db: Session) -> Any:
        other = Session(engine_of_session(db))
        try:
            return use(other, as_b(other, fill))
        finally:
            other.close()

    return attack


def left_by_system(use: Use, fill: Callable[[Session], Any] = load) -> Attack:
    """Use a session that was used in a system context."""

    def attack(db: Session) -> Any:
        other = Session(engine_of_session(db))
        try:
            with system("fill a session"):
                kept = fill(other)
            return use(other, kept)
        finally:
            other.close()

    return attack


def changed(db: Session) -> Any:
    found = load(db)
    found[0].title = "B-CANARY-changed"
    return found


def added(db: Session) -> Any:
    load(db)
    db.add(made := Document(id=FIRST_OF_B + 99, title="B-CANARY-new"))
    return made


def removed(db: Session) -> Any:
    found = load(db)
    db.delete(found[3])
    return found


def as_b_loads(db: Session) -> list[Any]:
    """Return labels of b's, detached."""
    with bind(B), Session(engine_of_session(db)) as other:
        found = list(other.scalars(select(Label)))
        other.expunge_all()
        return found


def key_of(kept: Any) -> Any:
    return inspect(kept[0]).identity_key


OPEN: list[Any] = []
"""Results and iterators that are to be closed after the attack."""


def begun(result: Any) -> Any:
    iterator = iter(result)
    OPEN.extend((iterator, result))
    next(iterator)
    return iterator


def one_read(result: Any) -> Any:
    OPEN.append(result)
    result.fetchone() if hasattr(result, "fetchone") else result.first()
    return result


def partly(result: Any) -> Any:
    OPEN.append(result)
    result.fetchmany(2)
    return result


def from_cache(key: Callable[[Any], Any], answer: Callable[[Any, Any], Any]) -> Attack:
    """Let b fill a cache of results, in do_orm_execute, that a's statement hits."""

    def attack(db: Session) -> Any:
        cache: dict[Any, Any] = {}

        def cached(state: Any) -> Any:
            if not state.is_select or state.is_relationship_load:
                return None
            at = key(state)
            if at not in cache:
                cache[at] = state.invoke_statement().freeze()
            return answer(state, cache[at])

        event.listen(Session, "do_orm_execute", cached)
        try:
            as_b(Session(engine_of_session(db)), everything)
            return everything(db)
        finally:
            event.remove(Session, "do_orm_execute", cached)

    return attack


def in_thread(target: Callable[[], Any]) -> Any:
    """Run in a bare thread, and return what it returns or raise what it raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(target).result(timeout=20)


def copy_context_of(target: Callable[[], Any]) -> Callable[[], Any]:
    context = copy_context()
    return lambda: context.run(target)
