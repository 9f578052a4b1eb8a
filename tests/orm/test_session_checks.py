"""Each look at whose a session, an object or a result is, at the moment in which it is used."""

import contextvars
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, Table, create_engine, select, text
from sqlalchemy.ext.compiler import compiles, deregister
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import quoted_name

from tenantguard import Identity, bind, read_tenants, service_identity, system
from tenantguard.errors import StatementRefused, TenantMismatch, UnprotectedEngine
from tenantguard.orm import protect
from tenantguard.orm.connections import GuardedCursor
from tenantguard.permits import allow_raw
from tests.orm.small_world import FIRST_OF_B, A, B, Base, Document, seed


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://", poolclass=StaticPool)
    protect(made, metadata=Base.metadata)
    seed(made)
    yield made
    made.dispose()


def of_b(engine: Engine) -> Document:
    """Return an object that b loaded."""
    with bind(B), Session(engine) as db:
        found = db.get_one(Document, FIRST_OF_B)
        db.expunge_all()
        return found


# --- sessions ------------------------------------------------------------------------------------------------


def test_what_waits_in_a_session_that_has_not_begun_is_its_tenants_own(engine: Engine) -> None:
    with Session(engine) as db:
        with bind(A):
            db.add(Document(title="of a"))
            assert len(db.new) == 1
        with bind(B), pytest.raises(TenantMismatch):
            _ = db.new


def test_an_object_is_not_added_to_a_session_of_another(engine: Engine) -> None:
    with Session(engine) as db:
        with bind(A):
            db.get_one(Document, 1)
        with bind(B), pytest.raises(TenantMismatch):
            db.add(Document(title="of b"))


@pytest.mark.parametrize("last", [A, B])
def test_a_session_into_which_two_put_objects_begins_for_neither(engine: Engine, last: Identity) -> None:
    with Session(engine) as db:
        for identity in (A, B):
            with bind(identity):
                db.add(Document(title="of one"))
        with bind(last), pytest.raises(TenantMismatch):
            db.flush()


def test_what_was_read_for_a_set_of_tenants_is_not_had_after_its_block(engine: Engine) -> None:
    with Session(engine) as db, bind(A):
        with read_tenants(["b"], reason="a test"):
            kept = [db.get_one(Document, FIRST_OF_B), db.get_one(Document, FIRST_OF_B)]
            inside = contextvars.copy_context()
        with pytest.raises(TenantMismatch):
            inside.run(db.get, Document, FIRST_OF_B)
        assert len(kept) == 2


def test_what_the_whole_tenant_read_is_not_had_by_a_narrowed_identity(engine: Engine) -> None:
    with Session(engine) as db:
        with bind(A):
            kept = db.get_one(Document, 1)
        with bind(service_identity("test", tenant="a", dimensions={"workspace": "w"})), pytest.raises(TenantMismatch):
            db.get(Document, 1)
        assert kept in db


def test_a_refused_object_does_not_stay_in_the_session(engine: Engine) -> None:
    theirs = of_b(engine)
    with bind(A), Session(engine) as db:
        with pytest.raises(TenantMismatch) as caught:  # whose frames keep what was merged alive
            db.merge(theirs, load=False)
        assert db.get(Document, FIRST_OF_B) is None
        assert caught.tb is not None


def test_what_a_mapper_compiled_in_a_system_context_is_compiled_anew_for_a_tenant(engine: Engine) -> None:
    for number in (1, 2):
        with system("a test"), Session(engine) as db, db.begin():
            db.add(Document(id=50 + number, title="x", tenant_id="a"))
            db.flush()
            db.get_one(Document, 50 + number).title = "y"
        with bind(A), Session(engine) as db, db.begin():
            db.add(Document(id=60 + number, title="x"))
            db.flush()
            db.get_one(Document, 60 + number).title = "y"


# --- results -------------------------------------------------------------------------------------------------


def test_a_frozen_result_is_thawed_by_its_own_tenant_alone(engine: Engine) -> None:
    with bind(B), Session(engine) as db:
        frozen = db.execute(select(Document.title)).freeze()
        assert len(frozen().all()) == 3
    with bind(A):
        for thaw in (frozen, lambda: frozen.with_new_rows([("x",)])):
            with pytest.raises(TenantMismatch):
                thaw()


def test_a_thawed_result_is_read_by_its_own_tenant_alone(engine: Engine) -> None:
    with bind(B), Session(engine) as db:
        frozen = db.execute(select(Document.title)).freeze()
        kept = [frozen(), frozen.with_new_rows([("x",)])]
        assert len(frozen.with_new_rows([("x",)])().all()) == 1
    with bind(A):
        with pytest.raises(TenantMismatch):
            kept[0].all()
        with pytest.raises(TenantMismatch):
            kept[1]()


# --- raw SQL beside a set of tenants -------------------------------------------------------------------------


def test_raw_sql_does_not_leave_its_block_beside_a_set_of_tenants(engine: Engine) -> None:
    raw = select(Document.title).where(text("1 = 1 OR 1 = 1"))
    with bind(A), read_tenants(["b"], reason="a test"), engine.connect() as connection:
        with allow_raw("a test"):
            assert len(connection.execute(raw).all()) == 6
        with pytest.raises(StatementRefused, match="text"):
            connection.execute(raw)


# --- ways to the driver --------------------------------------------------------------------------------------

WORDS = (
    "adapt_connection await_ connection copy copy_expert copy_from copy_to callproc execute execute_async executemany "
    "executescript fetch mogrify nextset prepare query scroll stream _adapt_connection _connection _cursor _conn"
).split()


@pytest.mark.parametrize("word", WORDS)
def test_what_stands_before_a_cursor_gives_no_way_to_run_sql(word: str) -> None:
    connection = sqlite3.connect(":memory:")
    cursor = GuardedCursor(connection.execute("SELECT 1"))
    with bind(A), pytest.raises(StatementRefused, match="A cursor"):
        getattr(cursor, word)
    assert cursor.rowcount == -1
    assert cursor.fetchall() == [(1,)]
    with system("a test"):
        assert cursor.execute("SELECT 2").fetchall() == [(2,)]
    cursor.close()
    connection.close()


def test_a_statement_has_one_cursor(engine: Engine) -> None:
    with bind(A), engine.connect() as connection:
        context: Any = connection.execute(select(Document.title)).context
        with pytest.raises(StatementRefused, match="A second cursor"):
            context.create_cursor()


def test_a_name_that_looks_translated_and_goes_on_is_refused(engine: Engine) -> None:
    evil = quoted_name("__[SCHEMA_x] FROM small_documents --", quote=False)
    with bind(A), engine.connect() as connection, pytest.raises(StatementRefused, match="without quotes"):
        connection.execute(select(Document.title.label(evil)))


def test_a_preparer_that_the_dialect_makes_anew_is_guarded(engine: Engine) -> None:
    anew = engine.dialect.preparer(engine.dialect)
    assert anew.quote("plain") == "plain"
    with bind(A), pytest.raises(StatementRefused, match="without quotes"):
        anew.quote(quoted_name("x FROM y --", quote=False))


# --- engines without the barrier -----------------------------------------------------------------------------


def test_a_statement_that_is_refused_on_another_engine_is_not_kept_by_it() -> None:
    plain: Any = create_engine("sqlite://")
    with bind(A), plain.connect() as connection, pytest.raises(UnprotectedEngine):
        connection.execute(select(Document.title))
    assert not plain._compiled_cache
    plain.dispose()


def test_another_engine_is_noticed_after_a_rendering_of_tables_was_taken_back() -> None:
    plain = create_engine("sqlite://")
    compiles(Table, "oracle")(lambda element, compiler, **kw: "x")
    deregister(Table)
    with bind(A), plain.connect() as connection, pytest.raises(UnprotectedEngine):
        connection.execute(select(Document.title))
    plain.dispose()
