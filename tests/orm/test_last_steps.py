"""Ways round the statements: names without quotes, listeners, the driver, another engine, results that are read late."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, column, create_engine, event, func, literal, select, text
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql import quoted_name

from tenantguard import bind, system
from tenantguard.errors import StatementRefused, TenantGuardError, TenantMismatch, UnprotectedEngine
from tests.orm.conftest import A, B
from tests.orm.models import Account, Country, Document

EVIL = quoted_name("x FROM documents AS y --", quote=False)


@pytest.mark.parametrize(
    "statement",
    [
        select(Document.title.label(EVIL)),
        select(literal(1).label(EVIL)),
        select(aliased(Document, name=EVIL).title),
        select(column(EVIL)).select_from(Document),
        select(Document.title).subquery(EVIL).select(),
        select(select(Document.title).cte(EVIL)),
        select(Document.title.collate('C" FROM documents --')),
        select(func.count().over(order_by=column(EVIL))),
    ],
    ids=range(8),
)
def test_names_without_quotes_are_plain_words(db: Session, statement: Any) -> None:
    with pytest.raises(TenantGuardError):
        db.execute(statement)


def test_plain_words_without_quotes_pass(db: Session) -> None:
    assert len(db.execute(select(Document.title.label(quoted_name("plain", quote=False)))).all()) == 4


@pytest.fixture
def listening(engine: Engine) -> Iterator[Callable[[str, Callable[..., Any]], None]]:
    added = []

    def listen(name: str, function: Callable[..., Any]) -> None:
        event.listen(engine, name, function, retval=True)
        added.append((name, function))

    yield listen
    for name, function in added:
        event.remove(engine, name, function)


def test_a_listener_can_not_put_another_text_in_the_place_of_a_statement(db: Session, listening: Any) -> None:
    def rewrite(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
        return "SELECT title FROM documents", ()

    listening("before_cursor_execute", rewrite)
    with pytest.raises(StatementRefused, match="listener"):
        db.execute(select(Document.title))


def test_a_listener_can_not_put_another_tenant_into_the_parameters(db: Session, listening: Any) -> None:
    def rewrite(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
        changed = dict.fromkeys(parameters, "b") if isinstance(parameters, dict) else ("b",) * len(parameters)
        return statement, changed

    listening("before_cursor_execute", rewrite)
    with pytest.raises(StatementRefused, match="listener"):
        db.execute(select(Document.title))
    with pytest.raises(StatementRefused, match="listener"):
        db.add_all([Document(title="x"), Document(title="y")])
        db.flush()


def test_listeners_that_only_look_do_no_harm_and_earlier_ones_are_scoped(db: Session, listening: Any) -> None:
    seen = []

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
        seen.append(statement)
        return statement, parameters

    def earlier(connection: Any, statement: Any, *rest: Any) -> Any:
        return select(Document.title), [], {}

    listening("before_cursor_execute", look)
    db.add_all([Document(title=f"x{number}") for number in range(5)])
    db.flush()
    assert len(db.scalars(select(Document)).all()) == 9
    assert len(seen) >= 2
    listening("before_execute", earlier)
    assert len(db.connection().execute(select(literal(1))).all()) == 9


def test_the_driver_is_not_handed_out(engine: Engine, db: Session) -> None:
    pooled, raw = db.connection().connection, engine.raw_connection()
    for reach in (
        lambda: raw.cursor(),
        lambda: pooled.cursor(),
        lambda: pooled.driver_connection,
        lambda: pooled.execute("SELECT title FROM documents"),  # type: ignore[attr-defined]
    ):
        with pytest.raises(StatementRefused, match="system"):
            reach()
    with system("look at the driver"):
        assert pooled.driver_connection is not None
        cursor = pooled.cursor()
        cursor.execute("SELECT count(*) FROM documents")
        assert cursor.fetchone()[0] == 8
        cursor.close()
    raw.close()


def test_a_second_engine_without_the_barrier_is_refused(engine: Engine) -> None:
    url = engine.url if engine.dialect.name == "postgresql" else "sqlite://"
    plain = create_engine(url)
    with bind(A):
        for use in (
            lambda db: db.scalars(select(Document)).all(),
            lambda db: db.get(Document, 1),
            lambda db: db.query(Document).all(),
            lambda db: db.connection().execute(select(Document.__table__)).all(),
            lambda db: db.connection().execute(Account.__table__.delete()),
            lambda db: db.execute(select(func.count()).select_from(Document)).all(),
            _flush,
        ):
            with Session(plain) as db, pytest.raises(UnprotectedEngine, match="protect"):
                use(db)
        if engine.dialect.name == "postgresql":
            with Session(plain) as db:
                assert len(db.scalars(select(Country)).all()) == 2
                with system("compare"):
                    assert len(db.scalars(select(Document)).all()) == 8
        assert "documents" in str(select(Document).compile(plain))
    plain.dispose()


def _flush(session: Session) -> None:
    session.add(Document(title="planted", tenant_id="b"))
    session.flush()


def test_a_result_is_read_by_the_tenant_alone_that_opened_it(engine: Engine) -> None:
    for read in (
        lambda result: result.all(),
        lambda result: result.first(),
        lambda result: result.fetchmany(2),
        lambda result: list(result.partitions(2)),
        list,
    ):
        with bind(A), Session(engine) as db:
            result = db.execute(select(Document.title))
            with bind(B), pytest.raises(TenantMismatch):
                read(result)
        with Session(engine) as db:
            with system("look"):
                result = db.execute(text("SELECT title FROM documents"))
            with bind(A), pytest.raises(TenantMismatch):
                read(result)
        with bind(A), Session(engine) as db:
            assert read(db.execute(select(Document.title)))


def test_a_stream_that_is_resumed_for_another_tenant_ends_with_an_error(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        result = db.scalars(select(Document).execution_options(yield_per=1))
        rows = iter(result)
        assert next(rows).tenant_id == "a"
        with bind(B), pytest.raises(TenantMismatch):
            next(rows)
        result.close()


def test_objects_that_were_added_for_one_tenant_are_not_flushed_for_another(engine: Engine) -> None:
    for begun in (False, True):
        with Session(engine) as db:
            with bind(A):
                if begun:
                    db.scalars(select(Document)).all()
                db.add(Document(title="of a"))
                if begun:
                    db.commit()
                    db.add(Document(title="of a, again"))
            with bind(B), pytest.raises(TenantMismatch):
                db.flush()
            db.rollback()
            with bind(B), pytest.raises(TenantMismatch):
                db.add(Document(title="of b"))
                db.flush()
        with bind(B), Session(engine) as db:
            assert not db.scalars(select(Document).where(Document.title.like("of a%"))).all()


def test_a_session_that_was_closed_serves_the_next_tenant(engine: Engine) -> None:
    with Session(engine) as db:
        for identity, title in ((A, "a1"), (B, "b1")):
            with bind(identity):
                db.add(Document(title="new"))
                assert db.scalars(select(Document.title).order_by(Document.id)).first() == title
                db.close()
