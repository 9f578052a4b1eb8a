"""What PostgreSQL itself refuses, with no barrier in Python: the bare driver, as the app's role."""

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table

from tenantguard.orm import shared, tenant_key
from tests.orm.attacks.world import Base
from tests.orm.rls.lab import Lab, made_lab

SHARED = {"countries", "featured", "regions", "twins"}
PROTECTED = ("folders", "documents", "reports", "comments", "labels", "document_labels")


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", PROTECTED)
@pytest.mark.parametrize(
    "query", ["SELECT * FROM {}", "SELECT count(*) FROM {}", "TABLE {}", "SELECT * FROM {} FOR UPDATE"]
)
def test_a_tenant_sees_its_own_rows_alone(any_lab: Lab, table: str, query: str) -> None:
    seen = {}
    for tenant in ("a", "b"):
        with any_lab.app(tenant) as app:
            seen[tenant] = app.execute(query.format(table)).fetchall()
    with any_lab.app("c") as app:
        nothing = app.execute(query.format(table)).fetchall()
    with any_lab.admin() as admin:
        everything = admin.execute(f"SELECT count(*) FROM {table}").fetchone()
    if "count" in query:
        assert seen["a"][0][0] + seen["b"][0][0] == everything[0]
        assert nothing == [(0,)]
    else:
        assert seen["a"]
        assert not {row[0] for row in seen["a"]} & {row[0] for row in seen["b"]}
        assert len(seen["a"]) + len(seen["b"]) == everything[0]
        assert nothing == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT title FROM documents UNION ALL SELECT text FROM comments UNION ALL SELECT name FROM folders",
        "SELECT d.title FROM folders f FULL JOIN documents d ON true",
        "SELECT (SELECT string_agg(title, ' ') FROM documents)",
        "WITH x AS MATERIALIZED (SELECT title FROM documents) SELECT * FROM x",
        "SELECT row_to_json(d)::text FROM documents d",
        "SELECT title FROM documents WHERE tenant_id = 'b' OR true",
        "SELECT title FROM ONLY documents TABLESAMPLE SYSTEM (100)",
    ],
)
def test_no_shape_of_query_shows_a_row_of_another_tenant(any_lab: Lab, query: str) -> None:
    with any_lab.app("a") as app:
        found = repr(app.execute(query).fetchall())
    assert "a doc" in found or "None" in found
    assert "b doc" not in found
    assert "of b" not in found
    assert "b folder" not in found


def test_copy_shows_a_tenant_its_own_rows_alone(any_lab: Lab) -> None:
    with any_lab.app("a") as app, app.cursor().copy("COPY (SELECT title FROM documents) TO STDOUT") as copy:
        assert sorted(bytes(row) for row in copy) == [b"a doc\n", b"a report\n"]


def test_shared_tables_are_for_everybody_without_a_tenant(any_lab: Lab) -> None:
    with any_lab.app(None) as app:
        assert app.execute("SELECT code FROM countries").fetchall() == [("NZ",)]


@pytest.mark.parametrize("table", PROTECTED)
@pytest.mark.parametrize("query", ["SELECT * FROM {}", "DELETE FROM {}"])
def test_without_a_tenant_every_table_of_tenants_raises(any_lab: Lab, table: str, query: str) -> None:
    with any_lab.app(None) as app:
        with pytest.raises(InsufficientPrivilege, match="no tenant is set"):
            app.execute(query.format(table))
        app.rollback()
        app.execute("SET LOCAL tenantguard.tenant = ''")
        with pytest.raises(InsufficientPrivilege, match="no tenant is set"):
            app.execute(query.format(table))


def test_the_tenant_is_gone_with_the_transaction(any_lab: Lab) -> None:
    with any_lab.app("a") as app:
        assert app.execute("SELECT count(*) FROM documents").fetchone() == (2,)
        app.commit()
        with pytest.raises(InsufficientPrivilege, match="no tenant is set"):
            app.execute("SELECT count(*) FROM documents")


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE documents SET title = 'x' WHERE id = 2",
        "UPDATE comments SET text = 'x' WHERE id = 2",
        "DELETE FROM comments WHERE id = 2",
        "DELETE FROM document_labels WHERE label_id = 2",
        "UPDATE documents d SET title = 'x' FROM folders f WHERE f.id = d.folder_id AND d.tenant_id = 'b'",
        "MERGE INTO documents d USING (VALUES (2)) v(id) ON d.id = v.id WHEN MATCHED THEN UPDATE SET title = 'x'",
    ],
)
def test_rows_of_another_tenant_are_not_there_to_be_changed(any_lab: Lab, statement: str) -> None:
    with any_lab.app("a") as app:
        assert app.execute(statement).rowcount == 0
    with any_lab.app("b") as app:
        assert app.execute(statement).rowcount >= 1


DOCUMENT = "INSERT INTO documents (id, title, size, body, kind, tenant_id, folder_id) VALUES"


@pytest.mark.parametrize(
    "statement",
    [
        f"{DOCUMENT} (9, 'x', 1, '', 'document', 'b', NULL)",
        f"{DOCUMENT} (9, 'x', 1, '', 'document', 'b', NULL), (10, 'x', 1, '', 'document', 'a', NULL)",
        f"{DOCUMENT} (2, 'x', 1, '', 'document', 'a', NULL) ON CONFLICT (id) DO UPDATE SET title = 'x'",
        "UPDATE documents SET tenant_id = 'b' WHERE id = 1",
        "INSERT INTO comments (id, text, document_id) VALUES (9, 'x', 2)",
        "UPDATE comments SET document_id = 2 WHERE id = 1",
        "INSERT INTO reports (id, pages) VALUES (2, 1)",
        "INSERT INTO document_labels (document_id, label_id, tenant_id) VALUES (1, 2, 'b')",
        "TRUNCATE documents CASCADE",
    ],
)
def test_no_row_is_written_for_another_tenant(any_lab: Lab, statement: str) -> None:
    with any_lab.app("a") as app, pytest.raises(InsufficientPrivilege):
        app.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        f"{DOCUMENT} (9, 'x', 1, '', 'document', 'a', {{}})",
        "UPDATE documents SET folder_id = {} WHERE id = 1",
        "INSERT INTO folders (id, name, tenant_id, parent_id) VALUES (9, 'x', 'a', {})",
        "UPDATE folders SET parent_id = {} WHERE id = 1",
        "INSERT INTO document_labels (document_id, label_id, tenant_id) VALUES (1, {}, 'a')",
        "INSERT INTO comments (id, text, document_id) VALUES (9, 'x', {})",
    ],
)
def test_no_link_to_another_tenants_row_is_made_and_none_tells_that_it_is_there(any_lab: Lab, statement: str) -> None:
    said = []
    for target in (2, 999):  # of b, and of nobody
        with any_lab.app("a") as app, pytest.raises(InsufficientPrivilege) as caught:
            app.execute(statement.format(target))
        said.append((str(caught.value), caught.value.diag.message_detail))
    assert said[0] == said[1]
    with any_lab.app("b") as app:
        app.execute(statement.format(2).replace("'a'", "'b'").replace("VALUES (1,", "VALUES (4,"))


@pytest.mark.parametrize("before_the_end", ["SELECT 1", "SET CONSTRAINTS ALL IMMEDIATE", "SET tenantguard.tenant = ''"])
def test_a_deferred_link_to_another_tenants_row_is_never_kept(postgres_url: str, before_the_end: str) -> None:
    metadata = MetaData()
    key = {"nullable": False, "info": tenant_key()}
    Table("people", metadata, Column("id", Integer, primary_key=True), Column("tenant_id", String(128), **key))
    later = ForeignKey("people.id", deferrable=True, initially="DEFERRED")
    Table("posts", metadata, Column("person_id", later), Column("tenant_id", String(128), **key))
    with made_lab(postgres_url, metadata) as made:
        with made.admin() as admin:
            admin.execute("INSERT INTO people VALUES (2, 'b')")
        with made.app("a") as app, pytest.raises(InsufficientPrivilege):
            app.execute("INSERT INTO posts VALUES (2, 'a')")
            app.execute(before_the_end)
            app.commit()
        with made.admin() as admin:
            assert admin.execute("SELECT count(*) FROM posts").fetchone() == (0,)


def test_rows_that_point_to_each_other_are_written_in_one_statement(any_lab: Lab) -> None:
    with any_lab.app("a") as app:
        app.execute("INSERT INTO folders (id, name, tenant_id, parent_id) VALUES (7, 'x', 'a', 8), (8, 'y', 'a', 8)")
        assert app.execute("SELECT count(*) FROM folders").fetchone() == (3,)


# --- ways round ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON documents USING (true)",
        "DROP TRIGGER x ON documents",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION postgres",
        "CREATE TEMP TABLE documents (id int)",
        "CREATE TABLE mine (id int)",
        "CREATE FUNCTION tenantguard.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION tenantguard.current_tenant() RETURNS text LANGUAGE sql AS 'SELECT ''b'''",
        "SELECT * FROM tenantguard.seal_keys",
        "UPDATE tenantguard.seal_keys SET bound_to = 'time'",
        "SET session_replication_role = replica",
        "SET row_security = off; SELECT * FROM documents",
        "LOCK TABLE tenantguard.seal_keys",
    ],
)
def test_the_apps_role_can_not_switch_it_off(any_lab: Lab, statement: str) -> None:
    with any_lab.app("a") as app, pytest.raises(psycopg.errors.Error) as caught:
        app.execute(statement)
    assert caught.value.sqlstate in ("42501", "42704")  # no privilege; no such trigger for those who don't own it


# --- the plan ------------------------------------------------------------------------------------------------------


def test_the_script_may_run_again_and_an_outdated_policy_is_replaced(new_lab: Lab) -> None:
    with new_lab.admin() as admin:
        before = admin.execute("SELECT oid, polname FROM pg_policy ORDER BY 1").fetchall()
        admin.execute(new_lab.plan.script())
        assert admin.execute("SELECT oid, polname FROM pg_policy ORDER BY 1").fetchall() == before
        (name,) = admin.execute("SELECT polname FROM pg_policy WHERE polrelid = 'folders'::regclass").fetchone()
        admin.execute(f'ALTER POLICY "{name}" ON folders RENAME TO tenantguard_own_of_last_year')
        admin.execute("CREATE POLICY of_the_app ON folders AS RESTRICTIVE USING (true)")
        admin.execute(new_lab.plan.script())
        names = admin.execute("SELECT polname FROM pg_policy WHERE polrelid = 'folders'::regclass").fetchall()
    assert set(names) == {(name,), ("of_the_app",)}


def test_the_way_back_leaves_nothing_behind(new_lab: Lab) -> None:
    with new_lab.admin() as admin:
        admin.execute(new_lab.plan.script(down=True))
        assert admin.execute("SELECT count(*) FROM pg_policy").fetchone() == (0,)
        assert admin.execute(
            "SELECT count(*) FROM pg_class WHERE relrowsecurity OR relforcerowsecurity"
        ).fetchone() == (0,)
        assert admin.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)
        assert admin.execute("SELECT to_regnamespace('tenantguard')").fetchone() == (None,)
        new_lab.apply()
    with new_lab.app("a") as app:
        assert app.execute("SELECT id FROM folders").fetchall() == [(1,)]


def test_a_table_of_tomorrow_is_nobodys_until_it_has_policies(new_lab: Lab) -> None:
    with new_lab.admin() as admin:
        admin.execute("CREATE TABLE tomorrow (id serial, secret text)")
    with new_lab.app("a") as app, pytest.raises(InsufficientPrivilege):
        app.execute("SELECT * FROM tomorrow")


def test_views_show_what_their_reader_may_see(new_lab: Lab) -> None:
    with new_lab.admin() as admin:
        admin.execute("CREATE VIEW titles AS SELECT title FROM documents")
        admin.execute(f"GRANT SELECT ON titles TO {new_lab.role}")
        new_lab.apply()
    with new_lab.app("a") as app:
        assert app.execute("SELECT title FROM titles ORDER BY 1").fetchall() == [("a doc",), ("a report",)]


def test_names_in_need_of_quotes_are_quoted(postgres_url: str) -> None:
    metadata = MetaData()
    Table('odd "name"\'s', metadata, Column('the "tenant"', String(128), nullable=False, info=tenant_key()))
    Table("Shared%s", metadata, Column("Id", Integer, primary_key=True), info=shared("reference"))
    with made_lab(postgres_url, metadata) as made, made.app("a") as app:
        app.execute("""INSERT INTO "odd ""name""'s" VALUES ('a')""")
        with pytest.raises(InsufficientPrivilege):
            app.execute("""INSERT INTO "odd ""name""'s" VALUES ('b')""")


# --- speed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", ["SELECT * FROM documents", "SELECT * FROM documents WHERE title = 'x'", "SELECT count(*) FROM documents"]
)
def test_the_index_of_the_tenant_is_used_and_the_tenant_is_asked_for_once(new_lab: Lab, query: str) -> None:
    with new_lab.admin() as admin:
        admin.execute(
            "INSERT INTO documents (id, title, size, body, kind, tenant_id) "
            "SELECT 99 + i, 'x', 1, '', 'document', 't' || (i % 500) FROM generate_series(1, 20000) AS i"
        )
        admin.execute("ANALYZE documents")
    with new_lab.app("t7") as app:
        plan = "\n".join(line for (line,) in app.execute(f"EXPLAIN {query}").fetchall())
    assert "ix_documents_tenant_id" in plan
    assert "(InitPlan 1).col1" in plan
    assert "Seq Scan" not in plan


def test_every_table_of_the_models_is_protected(new_lab: Lab) -> None:
    lab = new_lab
    of_tenants = {table.name for table in Base.metadata.tables.values()} - SHARED
    assert {table.name for table in lab.plan.protected} == of_tenants > set(PROTECTED)
    with lab.admin() as admin:
        found = admin.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relrowsecurity AND relforcerowsecurity"
        ).fetchall()
    assert {name for (name,) in found} == of_tenants
    assert set(lab.plan.tables) == set(Base.metadata.tables.values())
