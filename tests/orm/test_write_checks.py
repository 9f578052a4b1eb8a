"""Each check of an INSERT, UPDATE or DELETE by itself, on tables where nothing else stands behind it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    FetchedValue,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from tenantguard import bind, service_identity, system
from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm import move_rows, owned_through, protect, shared, stamp_tenant, tenant_key
from tenantguard.orm.marks import scope_key

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
W1 = service_identity("test", tenant="a", dimensions={"workspace": "w1"})

metadata = MetaData()


def key(**options: Any) -> Column[Any]:
    return Column("tenant", String(128), info=tenant_key(**options), default=stamp_tenant, nullable=bool(options))


boxes = Table("checked_boxes", metadata, Column("id", Integer, primary_key=True), key(), Column("name", String(99)))
items = Table(
    "checked_items",
    metadata,
    Column("id", Integer, primary_key=True),
    key(),
    Column("name", String(99)),
    Column("box_id", ForeignKey("checked_boxes.id")),
)
labels = Table(
    "checked_labels",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(99)),
    Column("box_id", ForeignKey("checked_boxes.id"), nullable=False),
    info=owned_through("checked_boxes"),
)
templates = Table(
    "checked_templates",
    metadata,
    Column("id", Integer, primary_key=True),
    key(global_rows=True),
    Column("name", String(99)),
)
"""Its rows without a tenant are for everybody, so that a key that nothing fills would do harm."""
unfilled = Table(
    "checked_unfilled",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant", String(128), info=tenant_key(), nullable=False, server_default="b"),
)
fetched = Table(
    "checked_fetched",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant", String(128), info=tenant_key(), nullable=False, server_onupdate=FetchedValue()),
    Column("name", String(99)),
)
notes = Table(
    "checked_notes",
    metadata,
    Column("id", Integer, primary_key=True),
    key(),
    Column("workspace", String(99), info=scope_key("workspace")),
    Column("box_id", ForeignKey("checked_boxes.id"), nullable=False),
    info=owned_through("checked_boxes"),
)
words = Table(
    "checked_words", metadata, Column("tenant", String(128), primary_key=True), info=shared("words that are alike")
)


def seed(engine: Engine) -> None:
    with system("make the tables"):
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(templates).values(id=1, tenant=None, name="everybody's"))
    for identity, name, first in ((A, "a", 1), (B, "b", 900_000)):
        with bind(identity), engine.begin() as connection:
            connection.execute(insert(boxes).values(id=first, name=f"{name}-box"))
            connection.execute(insert(items).values(id=first, name=f"{name}-item", box_id=first))
            connection.execute(insert(labels).values(id=first, name=f"{name}-label", box_id=first))
            connection.execute(insert(templates).values(id=first + 1, name=f"{name}-template"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=metadata)
    seed(made)
    yield made
    made.dispose()


@pytest.fixture
def db(engine: Engine, request: pytest.FixtureRequest) -> Session:
    """A session of tenant a, whose changes are rolled back."""
    block = bind(A)
    block.__enter__()
    session = Session(engine)

    def close() -> None:
        session.close()
        block.__exit__(None, None, None)

    request.addfinalizer(close)
    return session


def on_mysql(statement: Any) -> str:
    """Return what a protected engine makes of a statement, without a database."""
    engine = protect(create_engine("mysql+pymysql://"), metadata=metadata)
    with bind(A):
        return str(statement.compile(engine))


# --- the tenant key ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        insert(templates).from_select(["id", "name"], select(boxes.c.id + 50, boxes.c.name), include_defaults=False),
        insert(unfilled).from_select(["id"], select(boxes.c.id + 50)),
        select(
            insert(templates)
            .from_select(["id", "name"], select(boxes.c.id, boxes.c.name))
            .returning(templates.c.id)
            .cte()
        ),
    ],
    ids=["without defaults", "without a default", "in a CTE"],
)
def test_an_insert_from_a_select_whose_key_nothing_fills_is_refused(db: Session, statement: Any) -> None:
    with pytest.raises(StatementRefused, match="can't fill the tenant key"):
        db.connection().execute(statement)


def test_a_key_from_a_select_is_refused(db: Session) -> None:
    for tenant in (literal("a"), boxes.c.tenant):
        with pytest.raises(ForeignTenantWrite, match="from an SQL expression"):
            db.connection().execute(insert(templates).from_select(["tenant"], select(tenant).select_from(boxes)))


def test_an_insert_whose_statement_moves_rows_is_refused(db: Session) -> None:
    with pytest.raises(StatementRefused, match="across tenants"):
        db.connection().execute(insert(boxes).values(id=9, name="x").options(move_rows(boxes, reason="a test")))


def test_a_key_that_the_database_changes_is_refused(db: Session) -> None:
    with pytest.raises(ForeignTenantWrite, match="onupdate"):
        db.connection().execute(update(fetched).values(name="x"))


def test_an_update_of_several_tables_sets_no_key(db: Session) -> None:
    statement = update(items).where(items.c.box_id == boxes.c.id).values(tenant="a")
    with pytest.raises(StatementRefused, match="several tables sets the tenant key"):
        db.connection().execute(statement)


MOVED = update(items).values(tenant="b", box_id=None).options(move_rows(items, reason="a test"))
MOVES: dict[str, Any] = {
    "a child": update(labels).values(name="x").options(move_rows(labels, reason="a test")),
    "an alias": (lambda x: update(x).values(tenant="b", box_id=None).options(move_rows(x, reason="a test")))(
        items.alias()
    ),
    "with another table": MOVED.where(items.c.box_id == boxes.c.id),
}


@pytest.mark.parametrize("name", MOVES)
def test_rows_are_moved_in_one_table_with_a_key_of_its_own(db: Session, name: str) -> None:
    with pytest.raises(ForeignTenantWrite, match="can't be moved so"):
        db.connection().execute(MOVES[name])


# --- upserts -------------------------------------------------------------------------------------------------


def test_an_upserts_own_condition_is_beside_the_predicate(engine: Engine, db: Session) -> None:
    # The subquery has the tenant's parameter in the text, so that nothing but the predicate keeps b's row.
    statement = sqlite.insert(boxes).values(id=900_000, name="x")
    newest = select(func.max(boxes.c.name)).scalar_subquery()
    db.connection().execute(
        statement.on_conflict_do_update(index_elements=["id"], set_={"name": newest}, where=boxes.c.id > 0)
    )
    with system("look"):
        assert db.connection().connection.driver_connection.execute(
            "SELECT name, tenant FROM checked_boxes WHERE id = 900000"
        ).fetchall() == [("b-box", "b")]


def test_an_upsert_leaves_a_row_for_everybody_as_it_is(db: Session) -> None:
    statement = sqlite.insert(templates).values(id=1, name="mine")
    db.connection().execute(statement.on_conflict_do_update(index_elements=["id"], set_={"name": "mine"}))
    assert db.scalar(select(templates.c.name).where(templates.c.id == 1)) == "everybody's"


SET_KEY: dict[str, Callable[[Any], Any]] = {
    "the old row's": lambda new: boxes.c.tenant,
    "of another column": lambda new: new.excluded.name,
    "of another table": lambda new: words.c.tenant,
}


@pytest.mark.parametrize("name", SET_KEY)
def test_an_upsert_sets_the_key_to_that_of_the_new_row_alone(db: Session, name: str) -> None:
    new = sqlite.insert(boxes).values(id=1, name="b")
    with pytest.raises(ForeignTenantWrite, match="SQL expression"):
        db.connection().execute(new.on_conflict_do_update(index_elements=["id"], set_={"tenant": SET_KEY[name](new)}))


# --- MySQL's UPDATE of several tables ------------------------------------------------------------------------

JOINED = update(items.join(boxes, items.c.box_id == boxes.c.id))


def test_a_key_of_a_further_table_is_not_set_by_mysqls_update() -> None:
    with pytest.raises(ForeignTenantWrite, match="tenant key of 'checked_boxes'"):
        on_mysql(update(labels).where(labels.c.box_id == boxes.c.id).values({boxes.c.tenant: "b"}))


def test_a_foreign_key_of_a_further_table_is_not_set_by_mysqls_update() -> None:
    for statement in (
        update(boxes).where(items.c.box_id == boxes.c.id).values({items.c.box_id: 900_000}),
        JOINED.values({items.c.box_id: 900_000}),
    ):
        with pytest.raises(ForeignTenantWrite, match="UPDATE of several tables"):
            on_mysql(statement)


def test_a_further_table_is_changed_in_own_rows_alone_by_mysqls_update() -> None:
    reads = update(items).where(items.c.id == templates.c.id)
    assert "checked_templates.tenant IS NULL" in on_mysql(reads.values(name="x"))
    assert "checked_templates.tenant IS NULL" not in on_mysql(reads.values({templates.c.name: "x"}))
