"""What PostgreSQL is sent where a criterion can fail: child tables stand behind a fence, and nothing else does.

What it then does with such a statement, `tests.orm.test_failing_criteria` asks the server itself.
"""

from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine, select, update

from tenantguard import bind, service_identity
from tenantguard.errors import StatementRefused
from tenantguard.orm import owned_through, protect, stamp_tenant, tenant_key

A = service_identity("test", tenant="a")
metadata = MetaData()


def boxes_in(schema: str | None) -> tuple[Table, Table]:
    boxes = Table(
        "fenced_boxes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False),
        schema=schema,
    )
    labels = Table(
        "fenced_labels",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(99)),
        Column("box_id", ForeignKey(boxes.c.id), nullable=False),
        info=owned_through("box_id"),
        schema=schema,
    )
    return boxes, labels


boxes, labels = boxes_in(None)
placed_boxes, placed_labels = boxes_in("side")
FAILS = 100 // labels.c.id == 1
ENGINE = protect(create_engine("postgresql+psycopg://"), metadata=metadata)
INNER = select((100 // labels.c.id).label("x")).subquery()
AROUND = select(labels.c.id).subquery()
FENCED: dict[str, Any] = {
    "where": select(labels.c.name).where(FAILS),
    "beside another": select(labels.c.name).where(labels.c.id == 1, FAILS),
    "join": select(boxes.c.id).join(labels, FAILS),
    "outer join": select(boxes.c.id).outerjoin(labels, FAILS),
    "an alias": select((x := labels.alias()).c.name).where(100 // x.c.id == 1),
    "around a subquery": select(AROUND.c.id).where(100 // AROUND.c.id == 1),
    "column of a subquery": select(INNER.c.x).where(INNER.c.x == 1),
    "child of an UPDATE": update(boxes).where(boxes.c.id == labels.c.box_id, FAILS).values(id=1),
}
GUARDED: dict[str, Any] = {
    "UPDATE": update(labels).where(FAILS).values(name="x"),
    "DELETE": labels.delete().where(FAILS),
}
PLAIN: dict[str, Any] = {
    "comparison": select(labels.c.name).where(labels.c.id == 1),
    "outermost column": select(100 // labels.c.id),
    "owned by its key": select(boxes.c.id).where(100 // boxes.c.id == 1),
    "UPDATE": update(labels).where(labels.c.id == 1).values(name="x"),
    "owned by its key, UPDATE": update(boxes).where(100 // boxes.c.id == 1).values(id=1),
}


def sent(statement: Any) -> str:
    with bind(A):
        return " ".join(str(statement.compile(ENGINE)).split())


@pytest.mark.parametrize("name", FENCED)
def test_a_child_table_is_fenced_beside_a_criterion_that_can_fail(name: str) -> None:
    assert "FROM fenced_boxes AS fenced_boxes_1 WHERE" in sent(FENCED[name])
    assert " OFFSET 0) AS " in sent(FENCED[name])


@pytest.mark.parametrize("name", GUARDED)
def test_the_rows_of_a_child_table_are_changed_by_a_criterion_that_looks_at_own_rows_alone(name: str) -> None:
    assert "WHERE CASE WHEN (fenced_labels.box_id IN (SELECT" in sent(GUARDED[name])
    assert "ELSE false END" in sent(GUARDED[name])


@pytest.mark.parametrize("name", PLAIN)
def test_other_statements_keep_their_form(name: str) -> None:
    assert "OFFSET" not in sent(PLAIN[name])
    assert "CASE" not in sent(PLAIN[name])


def test_a_table_with_a_schema_that_no_derived_table_can_stand_for_is_refused() -> None:
    full = placed_boxes.join(boxes, placed_boxes.c.id == boxes.c.id, full=True)
    for statement in (select(placed_labels.c.name).where(100 // placed_labels.c.id == 1), select(full)):
        with pytest.raises(StatementRefused, match="a table with a schema"):
            sent(statement)
    named = placed_labels.alias("x")
    assert "OFFSET 0) AS x" in sent(select(named.c.name).where(100 // named.c.id == 1))
