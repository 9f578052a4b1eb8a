"""``CitusPlan``: what Citus would refuse is found and mended, which PostgreSQL's own catalogue confirms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from tenantguard.errors import ConfigurationError
from tenantguard.orm import owned_through, shared, tenant_key
from tenantguard.orm.citus import CitusPlan
from tenantguard.orm.review import Severity, review_metadata

RULES = (Path(__file__).parent / "citus_rules.sql").read_text()


def key(type_: Any = None, **options: Any) -> Column[Any]:
    return Column("tenant_id", type_ or String(40), nullable=False, index=True, info=tenant_key(**options))


def number() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def estate(*, children: bool = False, schema: str | None = None) -> MetaData:
    """Models as an app has that never thought of Citus. Their names are of this test alone."""
    metadata = MetaData(schema=schema)
    Table("estate_kinds", metadata, Column("code", String(9), primary_key=True), info=shared("reference data"))
    houses = Table(
        "estate_houses",
        metadata,
        number(),
        key(),
        Column("address", String(60), unique=True),
        Column("kind", ForeignKey("estate_kinds.code" if schema is None else f"{schema}.estate_kinds.code")),
    )
    flats = Table(
        "estate flats",
        metadata,
        number(),
        key(),
        Column("house_id", ForeignKey(houses.c.id, ondelete="CASCADE"), nullable=False),
        Column("over_id", Integer),
        Column("label", String(20)),
        Index("uq flat", "label", unique=True),
    )
    flats.append_constraint(ForeignKeyConstraint(["over_id"], [flats.c.id]))
    if children:
        rooms = Table(
            "estate_rooms",
            metadata,
            number(),
            Column("flat_id", ForeignKey(flats.c.id), nullable=False),
            info=owned_through("flat_id"),
        )
        Table(
            "estate_lamps",
            metadata,
            Column("room_id", ForeignKey(rooms.c.id), primary_key=True),
            Column("at", Integer, primary_key=True),
            info=owned_through("room_id"),
        )
    return metadata


ROWS = """
    INSERT INTO estate_kinds VALUES ('old');
    INSERT INTO estate_houses (tenant_id, address, kind) VALUES ('a', 'x', 'old'), ('b', 'y', 'old');
    INSERT INTO "estate flats" (tenant_id, house_id, label) VALUES ('a', 1, 'f'), ('b', 2, 'g');
"""


def as_it_is(engine: Engine, models: MetaData) -> MetaData:
    """The tables as the database has them, classified by whether they have a tenant key."""
    found = MetaData()
    with engine.connect() as connection:
        for model in models.sorted_tables:
            table = Table(model.name, found, schema=model.schema, autoload_with=connection)
            if "tenant_id" in table.columns:
                table.columns["tenant_id"].info.update(tenant_key())
            else:
                table.info.update(model.info)
    return found


def mend(engine: Engine, url: str, models: MetaData, ddl_of: Callable[[MetaData], list[str]]) -> MetaData:
    """Run the DDL that is proposed until none is, three times at most."""
    for _ in range(3):
        found = as_it_is(engine, models)
        statements = list(dict.fromkeys(ddl_of(found)))
        if not statements:
            return found
        with psycopg.connect(url, autocommit=True) as operator:
            for statement in statements:
                operator.execute(statement.encode())
    return as_it_is(engine, models)


def of_citus(models: MetaData) -> list[str]:
    return [statement for finding in CitusPlan(models).findings() for statement in finding.ddl]


def of_the_doctor(models: MetaData) -> list[str]:
    return [statement for finding in review_metadata(models).findings for statement in finding.ddl]


@pytest.fixture
def engine(postgres_url: str) -> Any:
    made = create_engine(postgres_url.replace(":", "+psycopg:", 1))
    yield made
    made.dispose()


@pytest.mark.parametrize("schema", [None, "My estate"])
@pytest.mark.parametrize("children", [False, True])
def test_models_are_mended_until_every_rule_of_citus_is_kept(
    engine: Engine, postgres_url: str, children: bool, schema: str | None
) -> None:
    models = estate(children=children, schema=schema)
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        if schema:
            operator.execute(f'CREATE SCHEMA "{schema}"; SET search_path = "{schema}", public')
        models.create_all(engine)
        operator.execute(ROWS)
        if children:
            operator.execute(
                "INSERT INTO estate_rooms (flat_id) VALUES (1), (2); INSERT INTO estate_lamps VALUES (1, 1)"
            )
        operator.execute("SET search_path = public;" + RULES)
        with pytest.raises(psycopg.errors.RaiseException):
            operator.execute(CitusPlan(as_it_is(engine, models)).script())
        found = mend(engine, postgres_url, models, of_citus)
        plan = CitusPlan(found)
        assert plan.findings() == ()
        operator.execute(plan.script())
        assert operator.execute("SELECT count(*), count(DISTINCT colocation) FROM citus.tables").fetchone() == (
            len(models.tables),
            1,
        )
        if children:
            name = f'"{schema}".estate_rooms' if schema else "estate_rooms"
            assert operator.execute(f"SELECT tenant_id FROM {name} ORDER BY id").fetchall() == [("a",), ("b",)]


def test_the_keys_that_the_doctor_proposes_keep_the_rules_of_citus(engine: Engine, postgres_url: str) -> None:
    models = estate()
    models.create_all(engine)
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        operator.execute(ROWS)
        found = mend(engine, postgres_url, models, of_the_doctor)
        assert review_metadata(found).at_least(Severity.ADVICE) == ()
        assert CitusPlan(found).findings() == ()
        operator.execute(RULES)
        operator.execute(CitusPlan(found).script())


def ids(metadata: MetaData) -> list[tuple[str, str]]:
    return [(one.id, one.table) for one in CitusPlan(metadata).findings()]


def house(*columns: Any, **options: Any) -> MetaData:
    """A table that Citus takes, and what is added to it."""
    metadata = MetaData()
    Table("estate_kinds", metadata, number(), info=shared("reference data"))
    Table(
        "estate_barns",
        metadata,
        Column("tenant_id", String(40), primary_key=True, info=tenant_key()),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("barn_id", Integer),
        Column("kind_id", Integer),
        *columns,
        **options,
    )
    return metadata


BARN = ["estate_barns.tenant_id", "estate_barns.id"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], []),
        ([ForeignKeyConstraint(["tenant_id", "barn_id"], BARN, ondelete="CASCADE")], []),
        ([ForeignKeyConstraint(["kind_id"], ["estate_kinds.id"], ondelete="SET NULL")], []),
        ([UniqueConstraint("barn_id", "tenant_id")], []),
        ([ExcludeConstraint(("tenant_id", "="), ("barn_id", "="), name="apart")], []),
        ([UniqueConstraint("barn_id")], ["key-without-distribution-column"]),
        ([Index("mine", "barn_id", unique=True)], ["key-without-distribution-column"]),
        ([ExcludeConstraint(("barn_id", "="), name="apart")], ["key-without-distribution-column"]),
        ([ExcludeConstraint(("tenant_id", "&&"), name="apart")], ["key-without-distribution-column"]),
        (
            [ForeignKeyConstraint(["barn_id", "tenant_id"], BARN)],
            ["foreign-key-without-distribution-column"],
        ),
        (
            [ForeignKeyConstraint(["tenant_id", "barn_id"], BARN, ondelete="SET NULL (barn_id)")],
            ["action-on-distribution-column"],
        ),
        (
            [ForeignKeyConstraint(["tenant_id", "barn_id"], BARN, onupdate="CASCADE")],
            ["action-on-distribution-column"],
        ),
        ([ForeignKeyConstraint(["barn_id"], ["estate_elsewhere.id"])], ["foreign-key-to-local-table"]),
    ],
)
def test_what_citus_refuses_in_a_table_is_found(more: list[Any], expected: list[str]) -> None:
    assert ids(house(*more)) == [(one, "estate_barns") for one in expected]


def test_keys_of_other_types_and_rows_for_everybody_are_found() -> None:
    metadata = house()
    Table("estate_numbered", metadata, Column("id", Integer), key(Integer))
    Table("estate_open", metadata, Column("tenant_id", String(9), nullable=True, info=tenant_key(global_rows=True)))
    Table("estate_starred", metadata, Column("tenant_id", String(9), nullable=False, info=tenant_key(global_rows="*")))
    found = CitusPlan(metadata).findings()
    assert [(one.id, one.table, one.severity.value) for one in found] == [
        ("distribution-type", "estate_numbered", "error"),
        ("rows-for-everybody", "estate_open", "error"),
        ("rows-for-everybody", "estate_starred", "warning"),
    ]


def test_tables_that_no_cluster_could_take_are_found() -> None:
    metadata = house()
    Table("estate_forgotten", metadata, number())
    Table(
        "estate_registry",
        metadata,
        number(),
        Column("tenant", String(40)),
        Column("barn", Integer),
        ForeignKeyConstraint(["tenant", "barn"], BARN),
        info=shared("who has what"),
    )
    assert ids(metadata) == [
        ("unclassified-table", "estate_forgotten"),
        ("reference-to-distributed", "estate_registry"),
    ]


def test_a_circle_of_foreign_keys_is_found() -> None:
    metadata = MetaData()
    for name, other in (("estate_left", "estate_right"), ("estate_right", "estate_left")):
        Table(
            name,
            metadata,
            Column("tenant_id", String(40), primary_key=True, info=tenant_key()),
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("other", Integer),
            ForeignKeyConstraint(["tenant_id", "other"], [f"{other}.tenant_id", f"{other}.id"]),
        )
    assert {id_ for id_, _ in ids(metadata)} == {"foreign-key-circle"}


def test_a_plan_needs_models() -> None:
    with pytest.raises(ConfigurationError, match="needs a MetaData"):
        CitusPlan()
