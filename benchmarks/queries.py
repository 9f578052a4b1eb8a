"""What the barrier costs a query: the same rows with a filter written by hand, and scoped. SQLite in memory."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

from benchmarks.harness import compare
from tenantguard import bind, service_identity, system
from tenantguard.orm import TenantOwned, protect

__all__ = ["compile_costs", "execution_costs", "tenants_share_statements"]

HAND, SCOPED = "filter by hand", "scoped"


class Base(DeclarativeBase):
    pass


class Author(TenantOwned, Base):
    __tablename__ = "bench_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Note(TenantOwned, Base):
    __tablename__ = "bench_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("bench_authors.id"))
    author: Mapped[Author] = relationship()
    remarks: Mapped[list["Remark"]] = relationship(back_populates="note")


class Remark(TenantOwned, Base):
    __tablename__ = "bench_remarks"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    note_id: Mapped[int] = mapped_column(ForeignKey("bench_notes.id"))
    note: Mapped[Note] = relationship(back_populates="remarks")


class ByHand(DeclarativeBase):
    """The same tables for the engine without the barrier, which would not be let near those above."""


class PlainAuthor(ByHand):
    __tablename__ = "bench_authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]


class PlainNote(ByHand):
    __tablename__ = "bench_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("bench_authors.id"))
    author: Mapped[PlainAuthor] = relationship()
    remarks: Mapped[list["PlainRemark"]] = relationship(back_populates="note")


class PlainRemark(ByHand):
    __tablename__ = "bench_remarks"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(index=True)
    text: Mapped[str]
    note_id: Mapped[int] = mapped_column(ForeignKey("bench_notes.id"))
    note: Mapped[PlainNote] = relationship(back_populates="remarks")


Models = tuple[Any, Any, Any]
BY_HAND: Models = (PlainAuthor, PlainNote, PlainRemark)
DECLARED: Models = (Author, Note, Remark)


def by_key(models: Models) -> Any:
    note = models[1]
    return select(note.id, note.text).where(note.id == 25)


def fifty_rows(models: Models) -> Any:
    return select(models[1].__table__)


def two_joins(models: Models) -> Any:
    author, note, remark = models
    return (
        select(remark.text, note.text, author.name)
        .join(note, remark.note_id == note.id)
        .join(author, note.author_id == author.id)
        .where(remark.id <= 20)
    )


SHAPES: dict[str, tuple[Callable[[Models], Any], tuple[int, ...]]] = {
    "by primary key": (by_key, (1,)),
    "50 rows": (fifty_rows, (1,)),
    "two joins": (two_joins, (2, 1, 0)),
}


def _statement(shape: str, models: Models, *, by_hand: bool) -> Any:
    make, tables = SHAPES[shape]
    statement = make(models)
    return statement.where(*(models[one].tenant_id == "a" for one in tables)) if by_hand else statement


def _filled(stack: ExitStack, *, scoped: bool) -> Any:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    stack.callback(engine.dispose)
    models = DECLARED if scoped else BY_HAND
    author, note, remark = models
    if scoped:
        protect(engine, metadata=Base.metadata)
    with system("set up the benchmark"), Session(engine) as db, db.begin():
        author.metadata.create_all(db.connection())
        for tenant, first in (("a", 0), ("b", 1000)):
            for number in range(first, first + 50):
                db.add(author(id=number, tenant_id=tenant, name=f"author {number}"))
                db.add(note(id=number, tenant_id=tenant, text=f"note {number}", author_id=number))
                db.add(remark(id=number, tenant_id=tenant, text=f"remark {number}", note_id=number))
    return engine


def execution_costs(*, rounds: int = 31) -> dict[str, dict[str, float]]:
    """Microseconds of an execution with a warm compiled cache, by the kind of query: Core, and ORM entities."""
    found = {}
    with ExitStack() as stack:
        stack.enter_context(bind(service_identity("bench", tenant="a")))
        engines = {HAND: _filled(stack, scoped=False), SCOPED: _filled(stack, scoped=True)}
        connections = {name: stack.enter_context(engine.connect()) for name, engine in engines.items()}
        for shape in SHAPES:
            runs: dict[str, Callable[[], object]] = {}
            for name, connection in connections.items():
                statement = _statement(shape, BY_HAND if name == HAND else DECLARED, by_hand=name == HAND)
                runs[name] = lambda c=connection, s=statement: c.execute(s).all()
            counts = {len(run()) for run in runs.values()}  # type: ignore[arg-type]
            assert len(counts) == 1, counts
            found[shape] = compare(runs, rounds=rounds)
        entities: dict[str, Callable[[], object]] = {}
        for name, engine in engines.items():
            model = (BY_HAND if name == HAND else DECLARED)[1]
            statement = select(model).where(model.tenant_id == "a") if name == HAND else select(model)
            session = stack.enter_context(Session(engine))
            entities[name] = lambda db=session, s=statement: db.scalars(s).all()
        found["50 entities in a session"] = compare(entities, rounds=rounds)
    return found


def compile_costs(*, rounds: int = 31) -> dict[str, dict[str, float]]:
    """Microseconds of executing a statement that was not seen before: it is compiled, and its rows are read."""
    found = {}
    with ExitStack() as stack:
        stack.enter_context(bind(service_identity("bench", tenant="a")))
        engines = {HAND: _filled(stack, scoped=False), SCOPED: _filled(stack, scoped=True)}
        connections = {
            name: stack.enter_context(engine.connect()).execution_options(compiled_cache=None)
            for name, engine in engines.items()
        }
        for shape in SHAPES:
            runs: dict[str, Callable[[], object]] = {}
            for name, connection in connections.items():
                statement = _statement(shape, BY_HAND if name == HAND else DECLARED, by_hand=name == HAND)
                runs[name] = lambda c=connection, s=statement: c.execute(s).all()
            found[shape] = compare(runs, rounds=rounds)
    return found


def tenants_share_statements(tenants: int = 10_000) -> tuple[int, int]:
    """Return how many statements were compiled for one query of so many tenants, and how many tenants there were."""
    compiled = 0
    with ExitStack() as stack:
        engine = _filled(stack, scoped=True)
        compiler = engine.dialect.statement_compiler
        original = compiler.__init__

        def counted(self: Any, *args: Any, **kwargs: Any) -> None:
            nonlocal compiled
            compiled += 1
            original(self, *args, **kwargs)

        compiler.__init__ = counted
        statement = _statement("by primary key", DECLARED, by_hand=False)
        for number in range(tenants):
            with bind(service_identity("bench", tenant=f"tenant-{number}")), engine.connect() as connection:
                connection.execute(statement).all()
    return compiled, tenants
