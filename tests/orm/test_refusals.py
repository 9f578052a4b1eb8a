"""What the barrier can't vouch for is refused, with the way to mend it."""

import pytest
from sqlalchemy import Engine, MetaData, Table, column, create_engine, func, literal_column, select, table, text, update
from sqlalchemy.exc import ObjectNotExecutableError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.expression import ColumnElement

from tenantguard import bind, service_identity, system
from tenantguard.errors import (
    BarrierError,
    ConfigurationError,
    NotBound,
    StatementRefused,
    TenantMismatch,
    UnclassifiedTable,
)
from tenantguard.orm import check_metadata, protect
from tests.orm.conftest import A, B
from tests.orm.models import Base, Document, Folder, Forgotten


class Evil(ColumnElement[str]):
    inherit_cache = False


@compiles(Evil)
def _evil(element, compiler, **kw):
    return "(SELECT max(title) FROM documents)"


REFUSED = {
    "text": lambda db: db.execute(text("SELECT title FROM documents")),
    "text in where": lambda db: db.execute(select(Document.title).where(text("1=1) OR (1=1"))),
    "text from": lambda db: db.execute(select(text("title")).select_from(text("documents"))),
    "text columns": lambda db: db.execute(select(text("(SELECT max(title) FROM documents)"))),
    "from statement": lambda db: db.scalars(select(Document).from_statement(text("SELECT * FROM documents"))),
    "textual select": lambda db: db.execute(text("SELECT title FROM documents").columns(column("title"))),
    "literal column": lambda db: db.execute(select(literal_column("(SELECT max(title) FROM documents)"))),
    "quoted literal column": lambda db: db.execute(select(literal_column("'x', (SELECT 1), 'y'"))),
    "quote within": lambda db: db.execute(select(literal_column("'x''y'"))),
    "order by": lambda db: db.execute(select(Document.title).order_by(text("(SELECT 1 FROM documents)"))),
    "prefix": lambda db: db.execute(select(Document.title).prefix_with("(SELECT 1 FROM documents),")),
    "suffix": lambda db: db.execute(select(Document.title).suffix_with("UNION SELECT title FROM documents")),
    "hint": lambda db: db.execute(select(Document.title).with_statement_hint("UNION SELECT title FROM documents")),
    "operator": lambda db: db.execute(select(Document.title).where(Document.title.op("= '' OR 1 =")(1))),
    "function": lambda db: db.execute(select(func.query_to_xml("SELECT * FROM documents", True, True, ""))),
    "packaged function": lambda db: db.execute(select(func.pg_catalog.lower("x"))),
    "own construct": lambda db: db.execute(select(Evil())),
    "own construct in where": lambda db: db.execute(select(Document.title).where(Evil() == "b4")),
    "driver sql": lambda db: db.connection().exec_driver_sql("SELECT title FROM documents"),
    "ddl": lambda db: Base.metadata.drop_all(db.connection()),
    "lightweight table": lambda db: db.execute(select(table("documents", column("title")).c.title)),
    "unclassified": lambda db: db.execute(select(Forgotten)),
    "unclassified in subquery": lambda db: db.execute(
        select(Document.title).where(Document.id.in_(select(Forgotten.id)))
    ),
    "bind name taken": lambda db: db.execute(select(Document.title), {"tenantguard_tenant_1": "b"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unvouched_statement_is_refused(name: str, db: Session) -> None:
    with pytest.raises(BarrierError) as caught:
        REFUSED[name](db)
        pytest.fail(f"{name} was let through")
    assert caught.value.mend


def test_compiled_objects_are_not_executed(engine: Engine, db: Session) -> None:
    for compiled in (
        select(Document.title).compile(create_engine("sqlite://")),
        select(Document.title).compile(engine, compile_kwargs={"literal_binds": True}),
    ):
        with pytest.raises(ObjectNotExecutableError):
            db.connection().execute(compiled)  # type: ignore[call-overload]


def test_system_contexts_may_do_these_and_their_right_ends(engine: Engine) -> None:
    with system("look"), Session(engine) as db:
        assert len(db.execute(text("SELECT title FROM documents")).all()) == 8
        assert len(db.scalars(select(Document)).all()) == 8
    with bind(A), Session(engine) as db:
        assert len(db.scalars(select(Document)).all()) == 4


def test_nothing_runs_where_nobody_is_bound(engine: Engine) -> None:
    with Session(engine) as db, pytest.raises(NotBound):
        db.scalars(select(Document)).all()
    with engine.connect() as connection, pytest.raises(NotBound):
        connection.execute(update(Document).values(title="x"))


def test_an_identity_without_tenant_reaches_no_row(engine: Engine) -> None:
    import msgspec

    with bind(msgspec.structs.replace(A, tenant=None)), Session(engine) as db, pytest.raises(NotBound):
        db.scalars(select(Document)).all()


def test_a_session_does_not_cross_tenants(sessions: "sessionmaker[Session]") -> None:
    db = sessions()
    with bind(A):
        folder = db.scalars(select(Folder)).one()
        key = folder.id
    with bind(B):
        with pytest.raises(TenantMismatch):
            db.get(Folder, key)
        with pytest.raises(TenantMismatch):
            db.scalars(select(Folder)).all()
    db.close()
    with bind(B):
        assert [folder.name for folder in db.scalars(select(Folder))] == ["b-folder"]
    db.close()


def test_a_committed_session_stays_with_its_tenant(sessions: "sessionmaker[Session]") -> None:
    db = sessions()
    with bind(A):
        folder = db.scalars(select(Folder)).one()
        db.commit()
        assert folder.name == "a-folder"
        db.commit()
    with bind(B), pytest.raises(TenantMismatch):
        _ = db.scalars(select(Folder)).all()
    db.close()


def test_a_transaction_does_not_cross_tenants(engine: Engine) -> None:
    with engine.connect() as connection:
        with bind(A):
            connection.execute(select(Document.title))
        with bind(B), pytest.raises(TenantMismatch):
            connection.execute(select(Document.title))
        connection.rollback()
        with bind(B):
            assert {row[0][0] for row in connection.execute(select(Document.title))} == {"b"}


def test_one_cached_statement_serves_every_tenant(engine: Engine) -> None:
    counts = []
    for number in range(50):
        with bind(service_identity("t", tenant=f"tenant-{number}")), Session(engine) as db:
            assert db.scalars(select(Document.title).where(Document.size > number)).all() == []
        counts.append(len(engine._compiled_cache))
    assert counts[0] == counts[-1]


def test_engines_without_or_with_a_cache_of_their_own_are_scoped(engine: Engine) -> None:
    for options in ({"compiled_cache": None}, {"compiled_cache": {}}):
        variant = engine.execution_options(**options)
        with bind(A), variant.connect() as connection:
            assert len(connection.execute(select(Document.title)).all()) == 4
        with bind(B), variant.connect() as connection:
            assert {title[0] for title in connection.execute(select(Document.title)).scalars()} == {"b"}


def test_a_cache_of_ones_own_does_not_carry_statements_between_tenants_and_system_contexts(engine: Engine) -> None:
    variant = engine.execution_options(compiled_cache={})
    with system("look"), variant.connect() as connection:
        assert len(connection.execute(select(Document.title)).all()) == 8
    with bind(A), variant.connect() as connection, pytest.raises(StatementRefused):
        connection.execute(select(Document.title))


def test_savepoints_and_nested_transactions_work(db: Session) -> None:
    with db.begin_nested():
        db.add(Document(title="kept"))
    nested = db.begin_nested()
    db.add(Document(title="dropped"))
    db.flush()
    nested.rollback()
    assert "kept" in db.scalars(select(Document.title)).all()
    assert "dropped" not in db.scalars(select(Document.title)).all()


def test_unclassified_tables_are_found_at_start() -> None:
    with pytest.raises(ConfigurationError, match="forgotten"):
        check_metadata(Base.metadata)


def test_only_known_databases_can_be_protected() -> None:
    with pytest.raises(ConfigurationError, match="Engine"):
        protect("sqlite://")  # type: ignore[type-var]


def test_protecting_twice_adds_functions_only(engine: Engine) -> None:
    with bind(A), Session(engine) as db, pytest.raises(StatementRefused, match="my_rank"):
        db.execute(select(func.my_rank(1)))
    compiler = engine.dialect.statement_compiler
    protect(engine, functions=["MD5", "my_rank"])
    assert engine.dialect.statement_compiler is compiler
    assert "my_rank" in compiler.allowed_functions


def test_a_reflected_table_is_unclassified(engine: Engine) -> None:
    with system("reflect"), engine.connect() as connection:
        reflected = Table("documents", MetaData(), autoload_with=connection)
    with bind(A), Session(engine) as db, pytest.raises(UnclassifiedTable, match="documents"):
        db.execute(select(reflected))
