"""Policies of every kind of table: keys of other types, rows for everybody, dimensions inside the tenant."""

import uuid
from typing import Any

import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Column, Integer, MetaData, String, Table, TypeDecorator, Uuid

from tenantguard.errors import ConfigurationError
from tenantguard.orm import owned, scope_key, tenant_key, wide
from tenantguard.orm.rls import RlsPlan
from tests.orm.rls.lab import Lab, made_lab


def number() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def other_world() -> MetaData:
    metadata = MetaData()
    Table("plans", metadata, number(), Column("tenant_id", String(128), info=tenant_key(global_rows=True)))
    Table(
        "prices",
        metadata,
        number(),
        Column("org", String(128), nullable=False),
        info=owned("org", global_rows="every"),
    )
    Table("counts", metadata, number(), Column("tenant_id", Integer, nullable=False, info=tenant_key()))
    Table("keys", metadata, number(), Column("tenant_id", Uuid, nullable=False, info=tenant_key()))
    Table(
        "folk",
        metadata,
        number(),
        Column("tenant_id", String(99, collation="und-x-icu"), nullable=False, info=tenant_key()),
    )
    Table(
        "notes",
        metadata,
        number(),
        Column("tenant_id", String(128), nullable=False, info=tenant_key()),
        Column("workspace_id", String(9), nullable=False, info=scope_key("workspace")),
    )
    Table("bills", metadata, number(), Column("tenant_id", String(128), nullable=False, info=tenant_key()))
    Table(
        "rules",
        metadata,
        number(),
        Column("tenant_id", String(128), nullable=False, info=tenant_key()),
        info=wide("workspace", reason="rules: all workspaces see them"),
    )
    return metadata


OTHER_ROWS = f"""
    INSERT INTO plans VALUES (1, 'a'), (2, 'b'), (3, NULL);
    INSERT INTO prices VALUES (1, 'a'), (2, 'b'), (3, 'every');
    INSERT INTO counts VALUES (1, 1), (2, 2);
    INSERT INTO keys VALUES (1, '{uuid.UUID(int=1)}'), (2, '{uuid.UUID(int=2)}');
    INSERT INTO notes VALUES (1, 'a', 'w1'), (2, 'a', 'w2'), (3, 'b', 'w1');
    INSERT INTO bills VALUES (1, 'a'), (2, 'b');
    INSERT INTO rules VALUES (1, 'a'), (2, 'b');
"""


@pytest.fixture(scope="module")
def other(postgres_module_url: str) -> Any:
    metadata = other_world()
    metadata.remove(metadata.tables["folk"])  # the test server has no ICU
    with made_lab(postgres_module_url, metadata) as made:
        with made.admin() as admin:
            admin.execute(OTHER_ROWS)
        yield made


@pytest.mark.parametrize("table", ["plans", "prices"])
def test_rows_for_everybody_are_read_by_all_and_changed_by_none(other: Lab, table: str) -> None:
    with other.app("a") as app:
        assert app.execute(f"SELECT id FROM {table} ORDER BY id").fetchall() == [(1,), (3,)]
        assert app.execute(f"DELETE FROM {table}").rowcount == 1
    key = "tenant_id" if table == "plans" else "org"
    with other.app("a") as app:
        assert app.execute(f"UPDATE {table} SET {key} = 'a'").rowcount == 1
    everyone = "NULL" if table == "plans" else "'every'"
    with other.app("a") as app, pytest.raises(InsufficientPrivilege):
        app.execute(f"INSERT INTO {table} VALUES (9, {everyone})")


def test_the_value_that_marks_rows_for_everybody_is_no_tenant(other: Lab) -> None:
    with other.app("every") as app:
        assert app.execute("DELETE FROM prices").rowcount == 0
        with pytest.raises(InsufficientPrivilege):
            app.execute("INSERT INTO prices VALUES (9, 'every')")


@pytest.mark.parametrize(
    ("table", "tenant", "other_form"),
    [("counts", "1", "01"), ("keys", str(uuid.UUID(int=1)), str(uuid.UUID(int=1)).replace("-", ""))],
)
def test_keys_of_other_types_are_compared_with_the_one_way_to_write_an_id(
    other: Lab, table: str, tenant: str, other_form: str
) -> None:
    with other.app(tenant) as app:
        assert app.execute(f"SELECT id FROM {table}").fetchall() == [(1,)]
    with other.app(other_form) as app, pytest.raises(InsufficientPrivilege, match="canonical"):
        app.execute(f"SELECT id FROM {table}")


def test_whoever_is_narrowed_to_a_workspace_sees_its_rows_alone(other: Lab) -> None:
    with other.app("a") as app:
        assert app.execute("SELECT id FROM notes ORDER BY id").fetchall() == [(1,), (2,)]
        assert app.execute("SELECT id FROM bills").fetchall() == [(1,)]
    with other.app("a", workspace="w1") as app:
        assert app.execute("SELECT id FROM notes").fetchall() == [(1,)]
        assert app.execute("SELECT id FROM bills").fetchall() == []  # says nothing of workspaces
        assert app.execute("SELECT id FROM rules").fetchall() == [(1,)]  # declared open
        assert app.execute("DELETE FROM rules").rowcount == 0
        with pytest.raises(InsufficientPrivilege):
            app.execute("INSERT INTO notes VALUES (9, 'a', 'w2')")


def test_a_collation_that_takes_unequal_ids_for_equal_is_not_relied_on() -> None:
    plan = RlsPlan(other_world(), role="app")
    (policy,) = plan.policies(next(table for table in plan.tables if table.name == "folk"))
    assert '"folk"."tenant_id"::text COLLATE "C" = (SELECT tenantguard.current_tenant())' in policy.using


def test_the_plan_of_a_table_that_nobody_classified_is_refused() -> None:
    metadata = MetaData()
    Table("rows", metadata, Column("id", Integer, primary_key=True))
    with pytest.raises(ConfigurationError, match="'rows' is neither owned"):
        RlsPlan(metadata, role="app")


def test_a_key_whose_stored_value_only_python_knows_is_refused() -> None:
    class Reversed(TypeDecorator[str]):
        impl = String(128)
        cache_ok = True

        def process_bind_param(self, value: Any, dialect: Any) -> Any:
            return value and value[::-1]

        def process_result_value(self, value: Any, dialect: Any) -> Any:
            return value and value[::-1]

    metadata = MetaData()
    Table("rows", metadata, Column("tenant_id", Reversed, nullable=False, info=tenant_key()))
    with pytest.raises(ConfigurationError, match="stores another value than the id"):
        RlsPlan(metadata, role="app")
