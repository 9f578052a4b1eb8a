"""What is decided when a statement runs holds for every statement of a transaction, also where a cache brought it."""

import logging
from typing import Any

import pytest
from sqlalchemy import (
    ColumnDefault,
    Connection,
    Engine,
    Executable,
    bindparam,
    create_engine,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ClauseElement

from tenantguard import bind, system
from tenantguard.errors import (
    ForeignTenantWrite,
    NotBound,
    StatementRefused,
    TenantMismatch,
)
from tenantguard.orm import protect, read_across
from tenantguard.permits import allow_raw
from tests.orm.conftest import A, B
from tests.orm.models import Country, Document, Folder

TITLES = select(Document.title).order_by(Document.title)


class Itself(Executable, ClauseElement):
    """A statement that is its own SQL, without a word from SQLAlchemy's compiler extension."""

    inherit_cache = False

    def _compiler_dispatch(self, visitor: Any, **kw: Any) -> str:
        return "SELECT title FROM documents"


def begin(connection: Connection) -> Connection:
    """Run a statement first, so that the next ones of the transaction are decided on the short way."""
    assert len(connection.execute(TITLES).all()) == 4
    return connection


def test_a_statement_that_renders_itself_is_refused(db: Session) -> None:
    with pytest.raises(StatementRefused, match="Itself"):
        db.execute(Itself())


@pytest.mark.parametrize("first", [False, True])
def test_raw_sql_does_not_leave_its_block_by_a_cache(engine: Engine, first: bool) -> None:
    raw = select(Document.title).where(text("1 = 1 OR 1 = 1"))
    with bind(A), engine.execution_options(compiled_cache={}).connect() as connection:
        if not first:
            begin(connection)
        with allow_raw("to fill the cache"):
            connection.execute(raw)
        with pytest.raises(StatementRefused):
            connection.execute(raw)


def test_a_statement_of_a_tenant_does_not_run_in_a_system_context_by_a_cache(engine: Engine) -> None:
    variant = engine.execution_options(compiled_cache={})
    with bind(A), variant.connect() as connection:
        begin(connection)
    with system("look"), variant.connect() as connection, pytest.raises(StatementRefused, match="system context"):
        connection.execute(TITLES)


class Given(dict):
    """A cache that answers every question with one compiled statement."""

    answer: Any = None

    def get(self, key: object, default: Any = None) -> Any:
        return self.answer


@pytest.mark.parametrize("first", [False, True])
def test_a_statement_that_another_engine_compiled_is_refused(engine: Engine, first: bool) -> None:
    other = protect(create_engine("sqlite://"), functions=["my_rank"])
    cache = Given()
    with bind(A), engine.execution_options(compiled_cache=cache).connect() as connection:
        if not first:
            begin(connection)
        cache.answer = select(func.my_rank(Document.id)).compile(other)
        with pytest.raises(StatementRefused, match="past the barrier"):
            connection.execute(TITLES)
    other.dispose()


@pytest.mark.parametrize("first", [False, True])
def test_a_statement_whose_text_was_changed_in_the_cache_is_refused(engine: Engine, first: bool) -> None:
    cache: dict[Any, Any] = {}
    with bind(A), engine.execution_options(compiled_cache=cache).connect() as connection:
        begin(connection)
        for compiled in cache.values():
            compiled.string = "SELECT title FROM documents"
        if first:
            connection.rollback()
        with pytest.raises(StatementRefused, match="other rights"):
            connection.execute(TITLES)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("first", [False, True])
def test_a_tenant_that_stands_in_the_text_is_refused(engine: Engine, first: bool) -> None:
    # SQLAlchemy's compiler for SQLite renders the criteria of an index with their values.
    statement = (
        sqlite.insert(Document.__table__)
        .values(title="x")
        .on_conflict_do_nothing(index_elements=["id"], index_where=Document.id.in_(select(Document.id)))
    )
    with bind(A), engine.connect() as connection:
        if not first:
            begin(connection)
        with pytest.raises(StatementRefused, match="written into its text"):
            connection.execute(statement)


def test_every_execution_with_a_lifted_barrier_is_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    lifted = select(func.count()).select_from(Document).options(read_across(Document, reason="status page"))
    with bind(A), engine.connect() as connection:
        begin(connection)
        caplog.set_level(logging.WARNING)
        assert [connection.scalar(lifted) for _ in range(3)] == [8, 8, 8]
    assert [record.getMessage() for record in caplog.records] == ["read_across of documents: status page"] * 3


def test_nobody_goes_on_with_the_transaction_of_a_tenant(engine: Engine) -> None:
    countries = select(Country.code).order_by(Country.code)
    with engine.connect() as connection:
        with bind(A):
            begin(connection)
            assert connection.scalars(countries).all() == ["FR", "NZ"]
        with pytest.raises(NotBound):
            connection.execute(countries)
        with bind(B), pytest.raises(TenantMismatch):
            connection.execute(countries)


@pytest.mark.parametrize("first", [False, True])
def test_each_row_of_parameters_is_compared_with_the_tenant(engine: Engine, first: bool) -> None:
    statement = update(Document.__table__).where(Document.title == bindparam("old")).values(size=99)
    rows = [{"old": "b1"}, {"old": "b1", "tenantguard_tenant_1": "b"}]
    with bind(A), engine.connect() as connection:
        if not first:
            begin(connection)
        with pytest.raises(StatementRefused):
            connection.execute(statement, rows)


def test_a_row_that_was_rolled_back_is_not_pointed_to(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        inner = db.begin_nested()
        db.execute(insert(Folder).values(id=70, name="for a while"))
        db.execute(insert(Document).values(title="in it", folder_id=70))
        inner.rollback()
        with pytest.raises(ForeignTenantWrite):
            db.execute(insert(Document).values(title="in nothing", folder_id=70))


def test_a_row_that_was_deleted_is_not_pointed_to(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        db.execute(insert(Folder).values(id=70, name="for a while"))
        db.execute(insert(Document).values(id=71, title="in it", folder_id=70))
        db.execute(Document.__table__.delete().where(Document.id == 71))
        db.execute(insert(Document).values(id=72, title="in it", folder_id=70))
        db.execute(update(Document).where(Document.id == 72).values(folder_id=None))
        db.execute(Folder.__table__.delete().where(Folder.id == 70))
        with pytest.raises(ForeignTenantWrite):
            db.execute(insert(Document).values(title="in nothing", folder_id=70))


def test_what_was_found_in_one_transaction_is_looked_up_in_the_next(engine: Engine) -> None:
    pointing = insert(Document.__table__)
    with bind(A), engine.connect() as connection:
        connection.execute(insert(Folder.__table__).values(id=70, name="for a while"))
        connection.execute(pointing, {"id": 71, "title": "in it", "folder_id": 70})
        connection.commit()
        with system("another one deletes it"), engine.begin() as other:
            other.execute(Document.__table__.delete().where(Document.id == 71))
            other.execute(Folder.__table__.delete().where(Folder.id == 70))
        with pytest.raises(ForeignTenantWrite):
            connection.execute(pointing, {"id": 72, "title": "in nothing", "folder_id": 70})


def test_the_dialect_executes_nothing_else_with_the_context_of_a_statement(engine: Engine) -> None:
    with bind(A), engine.connect() as connection:
        context: Any = connection.execute(TITLES).context
        with pytest.raises(StatementRefused):
            engine.dialect.do_execute(context.cursor, "SELECT title FROM documents", (), context)


@pytest.mark.parametrize(
    "word",
    "ALTER ATTACH CLUSTER COMMENT CREATE DETACH DROP GRANT IMPORT REASSIGN REINDEX RENAME REVOKE SECURITY TRUNCATE".split(),
)
def test_ddl_is_refused_as_text_where_raw_sql_may_run(db: Session, word: str) -> None:
    with allow_raw("to see what is refused"):
        for sent in (f"{word} x", f" /* a note */ -- another\n (\n{word.lower()} x"):
            with pytest.raises(StatementRefused, match="DDL"):
                db.execute(text(sent))
            with pytest.raises(StatementRefused, match="DDL"):
                db.connection().exec_driver_sql(sent)


def test_a_default_is_not_executed_by_itself(engine: Engine) -> None:
    with bind(A), engine.connect() as connection, pytest.raises(StatementRefused, match="by itself"):
        connection.scalar(ColumnDefault(select(func.max(Document.size)).scalar_subquery()))
    with engine.connect() as connection, pytest.raises((StatementRefused, NotBound)):
        connection.scalar(ColumnDefault(select(func.max(Document.size)).scalar_subquery()))
