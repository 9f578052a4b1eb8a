"""The doors in the barrier: raw SQL by name, one table of one statement, moved rows. Each opens no wider than it says."""

import asyncio
import contextvars
import logging
import pickle
import threading
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session, aliased, sessionmaker
from sqlalchemy.pool import StaticPool

from tenantguard import allow_raw, bind, service_identity, system
from tenantguard.binding import current_binding
from tenantguard.errors import (
    BarrierError,
    BindingError,
    ConfigurationError,
    ForeignTenantWrite,
    NotBound,
    StatementRefused,
    TenantGuardError,
    UnclassifiedTable,
)
from tenantguard.orm import move_rows, protect, read_across, shared, tenant_key, write_across
from tenantguard.orm.classify import classify
from tests.orm.conftest import A, B
from tests.orm.models import Base, Country, Document, Folder, Tag, tags

# --- raw SQL ---------------------------------------------------------------------------------------------------

RAW = "SELECT title FROM documents WHERE tenant_id = 'a' ORDER BY title"


def test_raw_sql_runs_in_its_block_and_nowhere_else(db: Session) -> None:
    for _ in range(2):  # once more with what was compiled in the block in the cache
        with pytest.raises(StatementRefused, match="allow_raw"):
            db.execute(text(RAW))
        with allow_raw("ranking of the search"):
            assert list(db.scalars(text(RAW))) == ["a1", "a2", "a3", "a4"]
            assert list(db.connection().exec_driver_sql(RAW).scalars()) == ["a1", "a2", "a3", "a4"]
            assert db.scalar(select(literal_column("1 + 1"))) == 2
    with pytest.raises(StatementRefused):
        db.execute(select(literal_column("1 + 1")))


def test_what_is_made_of_tables_stays_scoped_beside_raw_parts(db: Session) -> None:
    with allow_raw("ranking of the search"):
        assert sorted(db.scalars(select(Document.title).where(text("size > 0")))) == ["a1", "a2", "a3", "a4"]
        assert db.execute(update(Document).where(text("size > 0")).values(size=5)).rowcount == 4
        with pytest.raises(ForeignTenantWrite):
            db.execute(insert(Document).values(title="x", tenant_id="b"))
        assert len(db.scalars(select(Document)).all()) == 4


@pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
def test_raw_parts_give_columns_and_never_entities(db: Session) -> None:
    with allow_raw("ranking of the search"):
        for statement in (
            select(Document).from_statement(text("SELECT * FROM documents")),
            select(Document).where(text("1=1) OR (1=1")),
            select(Document, literal_column("(SELECT max(title) FROM documents)")),
            select(Folder, Document).where(text("1=1")),
        ):
            with pytest.raises(StatementRefused, match="columns"):
                db.scalars(statement).all()
        with pytest.raises(StatementRefused, match="columns"):
            db.query(Document).filter(text("1=1) OR (1=1")).all()


def test_writes_past_the_barrier_return_no_entities_either(db: Session) -> None:
    across = write_across(Document, reason="new default size")
    with allow_raw("correction"):
        for statement in (
            update(Document).where(text("1=1) OR (1=1")).values(size=1).returning(Document),
            delete(Document).where(text("1=1) OR (1=1")).returning(Document),
            update(Document).values(size=1).options(across).returning(Document),
            update(Document).values(size=1).options(across).returning(Document.title, Document),
            delete(Document).options(across).returning(Document),
        ):
            with pytest.raises(StatementRefused, match="columns"):
                db.scalars(statement).all()
            db.rollback()


def test_ddl_and_unclassified_tables_stay_refused_beside_raw_sql(db: Session) -> None:
    with allow_raw("ranking of the search"):
        for sql in (
            "DROP TABLE documents",
            "  drop table documents",
            "/* x */ -- y\n ALTER TABLE documents ADD x int",
            "CREATE TABLE x (y int)",
            "TRUNCATE documents",
            "GRANT ALL ON documents TO x",
        ):
            for run in (lambda sql=sql: db.execute(text(sql)), lambda sql=sql: db.connection().exec_driver_sql(sql)):
                with pytest.raises(StatementRefused, match="DDL"):
                    run()
        with pytest.raises(BarrierError):
            Base.metadata.drop_all(db.connection())
        with pytest.raises(UnclassifiedTable):
            db.execute(select(Table("documents", MetaData(), Column("title", String))))


def test_raw_needs_a_tenant_and_a_reason() -> None:
    for reason in ("", "  ", None, 0):
        with pytest.raises(BindingError, match="reason"):
            allow_raw(reason)  # type: ignore[arg-type]
    with pytest.raises(BindingError, match="no tenant is bound"), allow_raw("x"):
        pass
    with system("x"), pytest.raises(BindingError, match="no tenant is bound"), allow_raw("x"):
        pass


def test_the_right_can_not_be_carried_out_of_its_block(engine: Engine) -> None:
    def attempt() -> str:
        try:
            with Session(engine) as db:
                return str(len(db.execute(text("SELECT title FROM documents")).all()))
        except (StatementRefused, NotBound) as error:
            return type(error).__name__

    for door, after in (
        (allow_raw, lambda: current_binding().raw is None),
        (system, lambda: current_binding() is None),
    ):
        copied: contextvars.Context | None = None
        threads: list[bool] = []
        with bind(A):
            with door("a reason"):
                assert attempt() == "8"
                copied = contextvars.copy_context()
                binding = current_binding()
                assert binding is not None
                for permit in binding.permits:
                    with pytest.raises(TypeError):
                        pickle.dumps(permit)
            assert copied.run(attempt) == "StatementRefused"
            assert copied.run(after)
            thread = threading.Thread(target=lambda c=copied, f=after, t=threads: t.append(c.run(f)))
            thread.start()
            thread.join()
            assert threads == [True]
            assert attempt() == "StatementRefused"
    # A block that is opened inside of another one counts for nothing once the outer one has ended.
    with bind(A):
        outer = allow_raw("outer")
        outer.__enter__()
        inner_context = contextvars.copy_context()
        inner_context.run(lambda: allow_raw("inner").__enter__())
        outer.__exit__(None, None, None)
        assert inner_context.run(attempt) == "StatementRefused"


def test_a_task_that_outlives_the_block_has_no_right(engine: Engine) -> None:
    async def main() -> str:
        async def late() -> str:
            await asyncio.sleep(0.05)
            with Session(engine) as db:
                try:
                    db.execute(text("SELECT title FROM documents"))
                except StatementRefused:
                    return ",".join(sorted(db.scalars(select(Document.title))))
            return "ran"

        async with bind(A):
            async with allow_raw("ranking"):
                task = asyncio.create_task(late())
            return await task

    assert asyncio.run(main()) == "a1,a2,a3,a4"


def test_doors_are_logged_with_their_reason(db: Session, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with allow_raw("ranking of the search"):
        pass
    db.execute(select(func.count()).select_from(Document).options(read_across(Document, reason="status page")))
    assert [record.getMessage() for record in caplog.records] == [
        "allow_raw entered: ranking of the search",
        "allow_raw left: ranking of the search",
        "read_across of documents: status page",
    ]
    assert getattr(caplog.records[0], "tenantguard.tenant") == "a"


# --- one table of one statement --------------------------------------------------------------------------------

ALL = read_across(Document, reason="total on the status page")


def test_one_table_of_one_statement_is_read_across(db: Session) -> None:
    for _ in range(2):
        assert db.scalar(select(func.count()).select_from(Document).options(ALL)) == 8
        assert db.scalar(select(func.count()).select_from(Document)) == 4
        assert db.scalar(select(func.count()).select_from(Document.__table__).options(ALL)) == 8
        counts = select(
            select(func.count()).select_from(Document).scalar_subquery(),
            select(func.count()).select_from(Folder).scalar_subquery(),
        )
        assert tuple(db.execute(counts.options(ALL)).one()) == (8, 1)
        assert tuple(db.execute(counts).one()) == (4, 1)
    assert max(db.scalars(select(Document.title, Folder.name).outerjoin(Document.folder).options(ALL))) == "b4"
    assert {row[1] for row in db.execute(select(Document.title, Folder.name).outerjoin(Folder).options(ALL))} == {
        "a-folder",
        None,
    }


def test_one_alias_is_read_across_and_the_other_is_not(db: Session) -> None:
    every = aliased(Document, name="every")
    statement = select(func.count(every.id.distinct()), func.count(Document.id.distinct())).join(every, every.id > 0)
    assert tuple(db.execute(statement.options(read_across(every, reason="rank among all"))).one()) == (8, 4)
    assert tuple(db.execute(statement).one()) == (4, 4)
    table = Document.__table__.alias("core")
    counted = select(func.count()).select_from(table)
    assert db.scalar(counted.options(read_across(table, reason="x"))) == 8
    assert db.scalar(counted.options(read_across(every, reason="x"))) == 4


def test_entities_are_not_read_across(db: Session) -> None:
    for run in (
        lambda: db.scalars(select(Document).options(ALL)).all(),
        lambda: db.execute(select(Document.title, Document).options(ALL)).all(),
        lambda: db.scalars(select(aliased(Document)).options(ALL)).all(),
        lambda: db.query(Document).options(ALL).all(),
        lambda: db.get(Document, 5, options=[ALL]),
        lambda: db.scalars(select(Document).from_statement(select(Document.__table__)).options(ALL)).all(),
    ):
        with pytest.raises(StatementRefused, match="columns"):
            run()
    assert len(db.scalars(select(Document)).all()) == 4


def test_a_right_to_read_is_none_to_write_and_the_other_way_round(engine: Engine, db: Session) -> None:
    across = write_across(Document, reason="new default size")
    assert db.execute(update(Document).values(size=7).options(ALL)).rowcount == 4
    assert db.execute(delete(tags).options(read_across(tags, reason="x"))).rowcount == 2
    assert db.scalar(select(func.count()).select_from(Document).options(across)) == 4
    assert db.execute(update(Document).values(size=7).options(across)).rowcount == 8
    assert db.execute(update(Document.__table__).values(size=7).options(across)).rowcount == 8
    assert db.execute(update(Document).values(size=7)).rowcount == 4
    assert (
        db.execute(
            delete(Document.__table__).where(Document.size == 7).options(write_across(Folder, reason="x"))
        ).rowcount
        == 4
    )
    db.rollback()
    assert db.execute(delete(Document.__table__).where(Document.folder_id.is_(None)).options(across)).rowcount == 2
    db.rollback()


def test_who_writes_across_moves_nothing_and_links_nothing(db: Session) -> None:
    across = write_across(Document, reason="new default size")
    alias = Document.__table__.alias()
    for statement in (
        update(Document).values(tenant_id="b"),
        update(Document).values(tenant_id="a"),
        update(Document.__table__).values({Document.__table__.c.tenant_id: "a"}),
        update(Document).values(tenant_id=Document.tenant_id),
        update(Document).values(tenant_id=func.lower("B")),
        update(Document).values(folder_id=1),
        update(alias).values(folder_id=1),
        update(alias).values(tenant_id="b"),
        update(Document).values(folder_id=select(func.max(Folder.id)).scalar_subquery()),
        insert(Document).values(title="x", tenant_id="b"),
        insert(Document).values(title="x"),
    ):
        with pytest.raises(BarrierError):
            db.execute(statement.options(across))
    with pytest.raises(BarrierError):
        db.execute(update(alias).values(folder_id=1).options(write_across(alias, reason="x")))
    assert db.execute(update(Document).values(folder_id=None).options(across)).rowcount == 8
    # The same statement from the cache, with another value.
    with pytest.raises(ForeignTenantWrite):
        db.execute(update(Document).values(folder_id=1).options(across))


def test_rows_are_moved_to_another_tenant_by_name(engine: Engine, db: Session) -> None:
    move = move_rows(Document, reason="ticket 4711: acme becomes two")
    statement = update(Document.__table__).where(Document.title == "a4")
    with pytest.raises(ForeignTenantWrite, match="point back"):
        db.execute(statement.values(tenant_id="b").options(move))
    with pytest.raises(ForeignTenantWrite):
        db.execute(statement.values(tenant_id="b", folder_id=None))
    for wrong in ({"tenant_id": func.lower("B"), "folder_id": None}, {"tenant_id": "b", "folder_id": 1}):
        with pytest.raises(ForeignTenantWrite):
            db.execute(statement.values(**wrong).options(move))
    for nobody in (None, "", "*", " "):
        with pytest.raises(TenantGuardError):
            db.execute(statement.values(tenant_id=nobody, folder_id=None).options(move))
    assert db.execute(statement.values(tenant_id="b", folder_id=null()).options(move)).rowcount == 1
    assert db.execute(statement.values(tenant_id="b", folder_id=None).options(move)).rowcount == 0
    db.commit()
    assert sorted(db.scalars(select(Document.title))) == ["a1", "a2", "a3"]
    with bind(B), Session(engine) as other:
        assert "a4" in other.scalars(select(Document.title)).all()
        # Only own rows are moved.
        every = update(Document.__table__).values(tenant_id="c", folder_id=None).options(move)
        assert other.execute(every).rowcount == 5
        other.rollback()


def test_what_was_read_across_makes_no_links(db: Session) -> None:
    every = select(Folder.id, Folder.name).where(Folder.name == "b-folder")
    for statement in (
        insert(Document).from_select(["folder_id", "title"], every),
        update(Document).values(folder_id=select(func.max(Folder.id)).scalar_subquery()),
    ):
        with pytest.raises(ForeignTenantWrite):
            db.execute(statement.options(read_across(Folder, reason="x")))


def test_doors_name_what_they_open_and_why() -> None:
    for door in (read_across, write_across, move_rows):
        for reason in ("", " ", None):
            with pytest.raises(ConfigurationError, match="reason"):
                door(Document, reason=reason)
        for wrong in ("documents", None, select(Document), 5):
            with pytest.raises(ConfigurationError):
                door(wrong, reason="x")


def test_a_lift_needs_a_bound_tenant(engine: Engine) -> None:
    with Session(engine) as db, pytest.raises(NotBound):
        db.execute(select(func.count()).select_from(Document).options(ALL))


# --- names that are not what they say --------------------------------------------------------------------------


def test_a_second_table_of_the_same_name_is_no_way_round() -> None:
    engine = protect(create_engine("sqlite://", poolclass=StaticPool))
    first = MetaData()
    real = Table("twins", first, Column("org", String, info=tenant_key(), nullable=False), Column("title", String))
    with system("tables"):
        first.create_all(engine)
    with bind(A), engine.connect() as connection:
        assert connection.execute(select(real)).all() == []
        for name, schema, column in (
            ("twins", None, Column("title", String)),
            ("TWINS", None, Column("title", String)),
            ("twins", "main", Column("title", String)),
            ("twins", None, Column("title", String, nullable=False, info=tenant_key())),
        ):
            info = {} if column.info else shared("nothing to see here")
            with pytest.raises(ConfigurationError, match="Two tables"):
                connection.execute(select(Table(name, MetaData(), column, schema=schema, info=info)))
    engine.dispose()


def test_an_engine_that_was_told_its_tables_takes_no_others() -> None:
    engine = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=[Tag.metadata, MetaData()])
    other = MetaData()
    stranger = Table("stranger", other, Column("title", String), info=shared("x"))
    removed = Table("removed_from_metadata", other, Column("title", String), info=shared("x"))
    other.remove(removed)
    with bind(A), pytest.raises(ConfigurationError, match="forgotten"), engine.connect():
        pass
    kept = MetaData()
    mine = Table("only_mine", kept, Column("title", String), info=shared("x"))
    engine = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=kept)
    with system("tables"):
        kept.create_all(engine)
    with bind(A), engine.connect() as connection:
        assert connection.execute(select(mine)).all() == []
        for table in (stranger, removed, Country.__table__):
            with pytest.raises(UnclassifiedTable, match="MetaData"):
                connection.execute(select(table))
    engine.dispose()
    for wrong in ([], "x", [1]):
        with pytest.raises(ConfigurationError, match="metadata"):
            protect(create_engine("sqlite://"), metadata=wrong)  # type: ignore[arg-type]


def test_a_table_does_not_change_its_class_or_name_at_run_time() -> None:
    metadata = MetaData()
    for number, tamper in enumerate(
        (
            lambda table: table.info.update(shared("x")),
            lambda table: setattr(table, "name", "elsewhere"),
            lambda table: setattr(table, "schema", "elsewhere"),
            lambda table: setattr(table.c.org, "name", "title"),
        )
    ):
        table = Table(
            f"tampered_{number}",
            metadata,
            Column("org", String, nullable=False, info=tenant_key()),
            Column("title", String),
        )
        classify(table)
        tamper(table)
        with pytest.raises(ConfigurationError):
            classify(table)
            if number == 3:  # the key's column is found by its name, which is now another's
                raise ConfigurationError("changed")


def test_a_translated_schema_does_not_lead_to_an_owned_table() -> None:
    metadata = MetaData()
    Table("translated", metadata, Column("org", String, nullable=False, info=tenant_key()), schema="app")
    reference = Table("translated", metadata, Column("title", String), schema="ref", info=shared("reference data"))
    engine = protect(create_engine("sqlite://", poolclass=StaticPool))
    with bind(A), engine.connect() as connection:
        translated = connection.execution_options(schema_translate_map={"ref": "app"})
        with pytest.raises(StatementRefused, match="translated schema"):
            translated.execute(select(reference))
    engine.dispose()


def test_errors_tell_the_statement_by_its_kind_and_tables(db: Session) -> None:
    with pytest.raises(StatementRefused) as refused:
        db.execute(select(Document.title).join(Folder).where(text("secret = 'value'")))
    assert refused.value.shape == "SELECT of documents, folders"
    assert "SELECT of documents, folders" in str(refused.value)
    assert "value" not in str(refused.value)


# --- keys of one's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tenants"),
    [(Integer, ("1", "2")), (String(40), ("a", "b"))],
)
def test_rows_are_filled_without_a_default_in_the_declaration(kind: Any, tenants: tuple[str, str]) -> None:
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

    class Own(DeclarativeBase):
        pass

    class Order(Own):
        __tablename__ = f"own_orders_{tenants[0]}"
        id: Mapped[int] = mapped_column(primary_key=True)
        org: Mapped[Any] = mapped_column(kind, nullable=False, info=tenant_key())
        lines: Mapped[list["Line"]] = relationship()

    class Line(Own):
        __tablename__ = f"own_lines_{tenants[0]}"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[Any] = mapped_column(kind, nullable=False, info=tenant_key())
        order_id: Mapped[int] = mapped_column(ForeignKey(Order.id))

    engine = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=Own.metadata)
    with system("tables"):
        Own.metadata.create_all(engine)
    for tenant in tenants:
        with bind(service_identity("x", tenant=tenant)), sessionmaker(engine)() as db, db.begin():
            order = Order(lines=[Line(), Line()])
            db.add(order)
            db.flush()
            assert str(order.org) == str(order.lines[0].owner) == tenant
            db.execute(insert(Line).from_select(["order_id"], select(Order.id)))
            assert db.scalar(select(func.count()).select_from(Line)) == 3
    engine.dispose()
