"""Each part of the condition that a row is the bound tenant's, on tables where nothing else stands behind it."""

import contextvars
from collections.abc import Iterator
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
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session, registry
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.selectable import Subquery

from tenantguard import bind, read_tenants, service_identity, system
from tenantguard.errors import StatementRefused, TenantMismatch, UnprotectedEngine
from tenantguard.orm import owned_through, protect, scope_key, stamp_tenant, tenant_key, wide

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
W1 = service_identity("test", tenant="a", dimensions={"workspace": "w1"})

metadata = MetaData()
mapped = registry(metadata=metadata)


def table(name: str, *more: Any, **options: Any) -> Table:
    """Return a table with a tenant key and a name."""
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False),
        Column("name", String(99)),
        *more,
        **options,
    )


def child(name: str, parent: str, *more: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(99)),
        Column("parent_id", ForeignKey(f"{parent}.id"), nullable=False),
        *more,
        info=owned_through("parent_id"),
    )


boxes = table("Scoped_Boxes")
labels = child("scoped_labels", "Scoped_Boxes")
elsewhere = table("scoped_elsewhere", info=wide("project", reason="a test"))
members = table("scoped_members", info=wide("workspace", reason="a test"))
cards = child("scoped_cards", "scoped_members")
badges = child("scoped_badges", "scoped_members", Column("workspace", String(99), info=scope_key("workspace")))


class Box:
    id: int
    name: str


mapped.map_imperatively(Box, boxes)


def seed(engine: Engine) -> None:
    with system("make the tables"):
        metadata.create_all(engine)
    for identity, name, first in ((A, "a", 1), (B, "b", 900_000)):
        with bind(identity), engine.begin() as connection:
            connection.execute(insert(boxes).values(id=first, name=f"{name}-box"))
            connection.execute(insert(labels).values(id=first, name=f"{name}-label", parent_id=first))
            connection.execute(insert(members).values(id=first, name=f"{name}-member"))
            connection.execute(insert(cards).values(id=first, name=f"{name}-card", parent_id=first))
            for number, workspace in enumerate(("w1", "w2")):
                row = {"id": first + number, "name": f"{name}-{workspace}", "parent_id": first, "workspace": workspace}
                connection.execute(insert(badges).values(row))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=metadata)
    seed(made)
    yield made
    made.dispose()


def test_a_table_that_is_open_in_another_dimension_is_refused(engine: Engine) -> None:
    with bind(W1), engine.connect() as connection, pytest.raises(StatementRefused, match="narrowed to one workspace"):
        connection.execute(select(elsewhere.c.name))


def test_a_child_of_rows_that_are_only_read_is_only_read(engine: Engine) -> None:
    with bind(W1), engine.connect() as connection:
        assert connection.scalars(select(cards.c.name)).all() == ["a-card"]
        for statement in (update(cards).values(name="x"), cards.delete()):
            with pytest.raises(StatementRefused, match="only read"):
                connection.execute(statement)


def test_a_child_is_narrowed_by_a_key_of_its_own(engine: Engine) -> None:
    with bind(A), engine.connect() as connection:
        assert connection.scalars(select(badges.c.name).order_by(badges.c.id)).all() == ["a-w1", "a-w2"]
    with bind(W1), engine.connect() as connection:
        assert connection.scalars(select(badges.c.name)).all() == ["a-w1"]


def test_the_set_of_tenants_is_no_parameter_of_the_authors(engine: Engine) -> None:
    with bind(A), read_tenants(["c"], reason="a test"), engine.connect() as connection:
        assert connection.scalars(select(boxes.c.name)).all() == ["a-box"]
        with pytest.raises(StatementRefused, match="another value"):
            connection.execute(select(boxes.c.name), {"tenantguard_tenants_1": ["b"]})


def test_who_reads_for_a_set_no_longer_takes_objects_of_it(engine: Engine) -> None:
    with bind(A), read_tenants(["b"], reason="a test"):
        inside = contextvars.copy_context()
        with Session(engine) as db:
            theirs = db.get_one(Box, 900_000)
            db.expunge_all()

    def add() -> None:
        with Session(engine) as db, pytest.raises(TenantMismatch):
            db.add(theirs)

    inside.run(add)


def test_a_cte_does_not_go_by_a_tables_name_in_another_case(engine: Engine) -> None:
    other = select(literal(900_000).label("id"), literal("a").label("tenant")).cte("scoped_boxes")
    with bind(A), engine.connect() as connection, pytest.raises(StatementRefused, match="name of a table"):
        connection.execute(select(labels.c.name).where(labels.c.parent_id == other.c.id))


def test_a_table_that_stands_where_none_is_expected_is_refused(engine: Engine) -> None:
    within = Subquery._construct(boxes, name="x")
    with bind(A):
        with engine.connect() as connection, pytest.raises(StatementRefused, match="unexpected place"):
            connection.execute(select(literal(1)).select_from(within))
        with pytest.raises(StatementRefused, match="unexpected place"):
            boxes.compile(engine, compile_kwargs={"asfrom": True})


def test_an_alias_of_an_alias_is_scoped(engine: Engine) -> None:
    twice = boxes.alias("x").alias("y")
    with bind(A), engine.connect() as connection:
        assert connection.scalars(select(twice.c.name)).all() == ["a-box"]


def test_a_dialect_whose_executions_are_none_of_sqlalchemys_is_not_protected() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.execution_ctx_cls = dict  # type: ignore[assignment]
    with pytest.raises(UnprotectedEngine, match="execution context"):
        protect(engine)
