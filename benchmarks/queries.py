"""What the barrier costs a query: the same rows with a filter written by hand, and scoped."""

from collections.abc import Callable
from contextlib import ExitStack

from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from benchmarks.harness import compare
from tenantguard import bind, service_identity, system
from tenantguard.orm import TenantOwned, protect


class Base(DeclarativeBase):
    pass


class Note(TenantOwned, Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class ByHand(DeclarativeBase):
    pass


class PlainNote(ByHand):
    """The same table for the engine without the barrier."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    tenant_id: Mapped[str] = mapped_column(index=True)


def query_costs() -> dict[str, float]:
    """Microseconds of a query with a handwritten filter, and of the scoped one."""
    plain = create_engine("sqlite://", poolclass=StaticPool)
    scoped = protect(create_engine("sqlite://", poolclass=StaticPool))
    runs: dict[str, Callable[[], object]] = {}
    with bind(service_identity("bench", tenant="a")), ExitStack() as stack:
        for engine, model in ((plain, PlainNote), (scoped, Note)):
            with system("set up the benchmark"):
                model.metadata.create_all(engine)
            with Session(engine) as db, db.begin():
                db.add_all([model(text=str(number), tenant_id="a") for number in range(50)])
            connection = stack.enter_context(engine.connect())
            statement = select(model.__table__)
            if engine is plain:
                statement = statement.where(PlainNote.tenant_id == "a")
            name = "filter by hand" if engine is plain else "scoped"
            runs[name] = lambda c=connection, s=statement: c.execute(s).all()
        return compare(runs)
