"""What the compiler for MySQL and MariaDB refuses by itself, without a server."""

from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    cast,
    create_engine,
    insert,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.sql.elements import ColumnElement

from tenantguard import bind, service_identity
from tenantguard.errors import BarrierError, ForeignTenantWrite, StatementRefused
from tenantguard.orm import protect, shared, stamp_tenant, tenant_key

A = service_identity("test", tenant="a")
metadata = MetaData()


def table(name: str, *columns: Any, **options: Any) -> Table:
    return Table(
        name, metadata, Column("id", Integer, primary_key=True), Column("name", String(99)), *columns, **options
    )


def tenant() -> Column[Any]:
    return Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False)


boxes = table("mysql_boxes", tenant(), Column("box_id", ForeignKey("mysql_boxes.id")))
words = table("mysql_words", info=shared("a test"))
spoken = table("mysql_spoken", tenant(), Column("word_id", ForeignKey("mysql_words.id", onupdate="CASCADE")))


class OwnRendering(ColumnElement[str]):
    inherit_cache = False
    type = String()

    def _compiler_dispatch(self, visitor: Any, **kw: Any) -> str:
        return "(SELECT max(name) FROM mysql_boxes)"


def engine_of(name: str) -> Engine:
    return protect(create_engine(f"{name}+pymysql://"), metadata=metadata)


MARIADB, MYSQL = engine_of("mariadb"), engine_of("mysql")


def sent(statement: Any, engine: Engine = MARIADB) -> str:
    with bind(A):
        return str(statement.compile(engine))


def put(target: Table, **set_: Any) -> Any:
    made: Any = mysql.insert(target).values(id=1)
    return made.on_duplicate_key_update({k: v(made.inserted) if callable(v) else v for k, v in set_.items()})


def distinct_by_text() -> Any:
    made: Any = select(boxes.c.name)
    made._distinct = "DISTINCT (SELECT 1),"
    return made


REFUSED: dict[str, tuple[type[BarrierError], str, Any]] = {
    "a construct that renders itself": (StatementRefused, "OwnRendering", put(boxes, name=OwnRendering())),
    "what is no column": (StatementRefused, "no column's key", put(boxes, nothing=1)),
    "a key that others' rows go with": (StatementRefused, "rows of every tenant", put(words, id=2)),
    "the tenant key": (ForeignTenantWrite, "sets the tenant key", put(boxes, tenant="b")),
    "the tenant key of the old row": (ForeignTenantWrite, "sets the tenant key", put(boxes, tenant=boxes.c.tenant)),
    "the tenant key of another column": (
        ForeignTenantWrite,
        "sets the tenant key",
        put(boxes, tenant=lambda new: new.name),
    ),
    "a foreign key by an expression": (ForeignTenantWrite, "from an SQL expression", put(boxes, box_id=boxes.c.id + 1)),
    "a row that is returned": (StatementRefused, "RETURNING", put(boxes, name="x").returning(boxes.c.name)),
    "a DISTINCT that is a text": (StatementRefused, "DISTINCT", distinct_by_text()),
    "an operator that begins a comment": (StatementRefused, "begins a comment", select(boxes.c.name.op("#")(1))),
    "an operator of words": (StatementRefused, "a custom operator", select(boxes.c.name.op("= '' OR 1 =")(1))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_upsert_or_select_that_is_not_vouched_for_is_refused(name: str) -> None:
    kind, match, statement = REFUSED[name]
    with pytest.raises(kind, match=match):
        sent(statement)


@pytest.mark.filterwarnings("ignore:Datatype .* does not support CAST")
def test_a_cast_that_the_database_does_not_have_is_left_out_as_ever() -> None:
    assert sent(select(cast(boxes.c.name, Boolean))).startswith("SELECT mysql_boxes.name")


def test_a_criterion_that_claims_to_bind_tighter_stays_beside_the_predicate() -> None:
    # MySQL takes these signs for OR, unless it is told otherwise.
    statement = select(boxes.c.name).where(boxes.c.name.op("||", precedence=100)("x"))
    assert " AND (mysql_boxes.name || " in sent(statement)


def test_an_upsert_is_sent_where_it_can_be_scoped() -> None:
    with pytest.raises(StatementRefused, match="a row of another tenant"):
        sent(put(boxes, name="x"), MYSQL)
    assert "ON DUPLICATE KEY UPDATE name = " in sent(put(words, name="x"), MYSQL)
    own = sent(put(boxes, name="x", tenant=lambda new: new.tenant))
    assert "name = CASE WHEN (mysql_boxes.tenant = " in own
    assert "ELSE mysql_boxes.name END" in own
    assert "RETURNING" in sent(insert(boxes).values(id=1).returning(boxes.c.name))
    assert "RETURNING" in sent(put(words, name="x").returning(words.c.name))
