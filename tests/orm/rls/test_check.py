"""``check_database``: a database as applied has no finding, and each thing that can be wrong, planted, is one."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Column, MetaData, String, Table, create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from tenantguard.errors import ConfigurationError
from tenantguard.orm import tenant_key
from tenantguard.orm.review import Severity
from tenantguard.orm.rls import RlsPlan
from tenantguard.orm.rls.check import check_database
from tenantguard.orm.rls.seal import BoundTo
from tests.orm.attacks.oddities import SIDE
from tests.orm.attacks.world import Base
from tests.orm.rls.conftest import ROWS
from tests.orm.rls.lab import Lab, made_lab

PROTECTED = [one.fullname for one in RlsPlan(Base.metadata, role="app").protected]
LEAKY = "CREATE FUNCTION seen(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
TRIGGER = "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"


@pytest.fixture(scope="module")
def planted_lab(lab: Lab) -> Iterator[Lab]:
    """One database for all tests, each of which plants its fault in a transaction that is rolled back."""
    with lab.admin() as admin:
        admin.execute(f"DROP ROLE IF EXISTS {lab.role}_other")
        admin.execute(f"CREATE ROLE {lab.role}_other")
    yield lab
    with lab.admin() as admin:
        admin.execute(f"DROP ROLE {lab.role}_other")


def found(
    lab: Lab, *faults: str, tenants: tuple[str, str] | None = None, plan: RlsPlan | None = None
) -> set[tuple[str, str]]:
    plan = plan or lab.plan
    (guard,) = lab.plan.link_guards(Base.metadata.tables["documents"])
    engine = create_engine(lab.engine_of("psycopg", role="postgres"), poolclass=NullPool)
    with engine.connect() as connection:
        for fault in faults:
            connection.exec_driver_sql(
                fault.format(
                    app=lab.role,
                    login=lab.login,
                    other=f"{lab.role}_other",
                    own=own(lab, Base.metadata.tables["documents"]),
                    labels=own(lab, Base.metadata.tables["labels"]),
                    link=f"tenantguard.{guard.function}",
                    trigger=f'"{guard.names[1]}"',
                ),
                execution_options={"no_parameters": True},
            )
        findings = check_database(connection, plan, tenants=tenants)
    return {
        (one.id, one.table.replace(lab.login, "{login}").replace(lab.role, "{app}").replace(guard.function, "{link}"))
        for one in findings
    }


def own(lab: Lab, table: Table) -> str:
    return lab.plan.policies(table)[0].name


def test_what_was_applied_is_as_it_should_be(planted_lab: Lab) -> None:
    assert found(planted_lab, tenants=("a", "b")) == set()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (["ALTER TABLE documents DISABLE ROW LEVEL SECURITY"], {("rls-off", "documents")}),
        (["ALTER TABLE documents NO FORCE ROW LEVEL SECURITY"], {("force-off", "documents")}),
        (["DROP POLICY {own} ON documents"], {("missing-policy", "documents")}),
        (["ALTER POLICY {own} ON documents RENAME TO tenantguard_own_0"], {("outdated-policy", "documents")}),
        (
            ["ALTER POLICY {own} ON documents USING (title = (SELECT tenantguard.current_tenant()))"],
            {("changed-policy", "documents")},
        ),
        (["ALTER POLICY {own} ON documents WITH CHECK (true)"], {("changed-policy", "documents")}),
        (["ALTER POLICY {own} ON documents TO {other}"], {("changed-policy", "documents")}),
        (["CREATE POLICY wide ON documents FOR SELECT USING (true)"], {("other-policy", "documents")}),
        (["CREATE POLICY wide ON documents TO {app} USING (true)"], {("other-policy", "documents")}),
        (["CREATE POLICY wide ON documents TO {login} USING (true)"], {("other-policy", "documents")}),
        (
            ["CREATE POLICY wide ON documents TO {other} USING (true)", "GRANT {other} TO {login}"],
            {("other-policy", "documents")},
        ),
        (["CREATE POLICY narrow ON documents AS RESTRICTIVE USING (true)"], set()),
        (["CREATE POLICY of_others ON documents TO {other} USING (true)"], set()),
        (["ALTER TABLE documents ALTER tenant_id DROP NOT NULL"], {("nullable-key", "documents")}),
        (["DROP TABLE reports"], {("missing-table", "reports")}),
        (["CREATE TABLE fresh (id int)"], {("unclassified-table", "fresh")}),
        (["CREATE TABLE fresh (id int)", "GRANT SELECT (id) ON fresh TO PUBLIC"], {("unclassified-table", "fresh")}),
        (["CREATE TABLE part () INHERITS (folders)"], {("unclassified-table", "part")}),
        (
            ["CREATE TABLE part () INHERITS (folders)", "GRANT SELECT ON part TO {app}"],
            {("unclassified-table", "part"), ("open-partition", "part")},
        ),
        (
            ["CREATE TABLE part () INHERITS (folders)", "GRANT SELECT (name) ON part TO {login}"],
            {("unclassified-table", "part"), ("open-partition", "part")},
        ),
        (["ALTER TABLE documents DISABLE TRIGGER USER"], {("changed-link-check", "documents")}),
        (["ALTER ROLE {app} BYPASSRLS"], {("bypass-role", "{app}"), ("bypass-role", "{login}")}),
        (["ALTER ROLE {login} BYPASSRLS"], {("bypass-role", "{login}")}),
        (["ALTER ROLE {login} SUPERUSER"], {("superuser-role", "{login}")}),
        (["ALTER ROLE {login} CREATEROLE"], {("powerful-role", "{login}")}),
        (["ALTER ROLE {other} BYPASSRLS", "GRANT {other} TO {login}"], {("bypass-role", "{login}")}),
        (
            ["GRANT pg_read_all_data TO {login}"],
            {("powerful-role", "{login}"), ("readable-key", "tenantguard.seal_keys")},
        ),
        (["ALTER TABLE labels OWNER TO {login}"], {("owner-role", "labels"), ("too-many-rights", "labels")}),
        (
            ["ALTER TABLE labels OWNER TO {other}", "GRANT {other} TO {login}"],
            {("owner-role", "labels"), ("too-many-rights", "labels")},
        ),
        (["GRANT TRUNCATE ON labels TO {app}"], {("too-many-rights", "labels")}),
        (["GRANT TRUNCATE ON labels TO {login}"], {("too-many-rights", "labels")}),
        (["GRANT DELETE ON regions TO {app}"], {("too-many-rights", "regions")}),
        (["GRANT UPDATE (code), DELETE ON regions TO {login}"], {("too-many-rights", "regions")}),
        (["GRANT UPDATE (code) ON regions TO {login}"], {("too-many-rights", "regions")}),
        (["GRANT UPDATE (code) ON regions TO {app}"], {("too-many-rights", "regions")}),
        (["GRANT UPDATE ON regions TO PUBLIC"], {("too-many-rights", "regions")}),
        (["REVOKE UPDATE ON labels FROM {app}"], {("missing-rights", "labels")}),
        (["GRANT CREATE ON SCHEMA public TO {app}"], {("may-create", "public")}),
        (["GRANT CREATE ON SCHEMA tenantguard TO PUBLIC"], {("may-create", "tenantguard")}),
        (["GRANT CREATE ON SCHEMA public TO {login}"], {("may-create", "public")}),
        (["CREATE SCHEMA beside", "GRANT CREATE ON SCHEMA beside TO PUBLIC"], {("may-create", "beside")}),
        (
            ["CREATE SCHEMA beside AUTHORIZATION {app}", "REVOKE CREATE ON SCHEMA beside FROM {app}"],
            {("may-create", "beside")},
        ),
        (["CREATE SCHEMA beside AUTHORIZATION {other}"], set()),
        (
            [
                "GRANT {app} TO {other} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
                "ALTER TABLE labels OWNER TO {other}",
            ],
            set(),
        ),
        (["ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {app}"], {("default-rights", "postgres")}),
        (
            ["ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC"],
            {("default-rights", "postgres")},
        ),
        (
            ["CREATE OR REPLACE FUNCTION tenantguard.current_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'a' $$"],
            {("changed-function", "tenantguard.current_tenant")},
        ),
        (["ALTER FUNCTION tenantguard.bound() RESET search_path"], {("changed-function", "tenantguard.bound")}),
        (["ALTER FUNCTION tenantguard.bound() IMMUTABLE"], {("changed-function", "tenantguard.bound")}),
        (["ALTER FUNCTION tenantguard.bound() OWNER TO {app}"], {("owned-function", "tenantguard.bound")}),
        (["DROP FUNCTION tenantguard.current_scope_uuid"], {("missing-function", "tenantguard.current_scope_uuid")}),
        (
            ["GRANT SELECT ON tenantguard.seal_keys TO {login}", "GRANT SELECT ON tenantguard.seal_keys TO {app}"],
            {("readable-key", "tenantguard.seal_keys")},
        ),
        (["GRANT SELECT ON tenantguard.seal_keys TO {login}"], {("readable-key", "tenantguard.seal_keys")}),
        (["GRANT SELECT (inside) ON tenantguard.seal_keys TO {app}"], {("readable-key", "tenantguard.seal_keys")}),
        (
            ["GRANT SELECT ON tenantguard.seal_keys TO {other}", "GRANT {other} TO {login} WITH INHERIT FALSE"],
            {("readable-key", "tenantguard.seal_keys")},
        ),
        (["DELETE FROM tenantguard.seal_keys"], {("missing-key-of-seal", "tenantguard.seal_keys")}),
        (["CREATE VIEW all_titles AS SELECT title FROM documents"], {("owners-view", "all_titles")}),
        (["CREATE VIEW all_titles WITH (security_invoker = on) AS SELECT title FROM documents"], set()),
        (
            [
                "CREATE VIEW inner_view WITH (security_invoker) AS SELECT title FROM documents",
                "CREATE VIEW outer_view AS TABLE inner_view",
            ],
            {("owners-view", "outer_view")},
        ),
        (["CREATE MATERIALIZED VIEW kept AS SELECT title FROM documents"], set()),
        (
            ["CREATE MATERIALIZED VIEW kept AS SELECT title FROM documents", "GRANT SELECT ON kept TO {app}"],
            {("materialised-view", "kept")},
        ),
        (
            ["CREATE MATERIALIZED VIEW kept AS SELECT title FROM documents", "GRANT SELECT ON kept TO {login}"],
            {("materialised-view", "kept")},
        ),
        (
            [
                "CREATE FUNCTION count_all() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM documents'"
            ],
            {("definer-function", "count_all()")},
        ),
        (["ALTER ROLE {login} REPLICATION"], {("powerful-role", "{login}")}),
        (["GRANT pg_monitor TO {login}"], {("powerful-role", "{login}")}),
        (["REVOKE USAGE ON SCHEMA tenantguard FROM {app}"], {("missing-rights", "tenantguard")}),
        (["ALTER FUNCTION {link}() OWNER TO {app}"], {("owned-function", "tenantguard.{link}")}),
        (["ALTER FUNCTION {link}() SECURITY DEFINER"], {("changed-link-check", "documents")}),
        (["ALTER FUNCTION {link}() RESET ALL"], {("changed-link-check", "documents")}),
        (
            ["CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION {link}()"],
            {("changed-link-check", "documents")},
        ),
        (
            [
                "CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON documents FOR EACH ROW WHEN (false) EXECUTE FUNCTION {link}()"
            ],
            {("changed-link-check", "documents")},
        ),
        (
            [
                "CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE OF title ON documents FOR EACH ROW WHEN (OLD.folder_id IS DISTINCT FROM NEW.folder_id) EXECUTE FUNCTION {link}()"
            ],
            {("changed-link-check", "documents")},
        ),
        (["ALTER TABLE documents ENABLE ALWAYS TRIGGER {trigger}"], set()),
        (
            [LEAKY, "ALTER FUNCTION seen(text) LEAKPROOF"],
            {("leakproof-function", "seen(text)")},
        ),
        (
            [
                LEAKY,
                "ALTER FUNCTION seen(text) LEAKPROOF",
                "REVOKE EXECUTE ON FUNCTION seen FROM PUBLIC",
            ],
            set(),
        ),
        (["CREATE PUBLICATION few FOR TABLE documents"], {("published-table", "documents")}),
        (["CREATE PUBLICATION few FOR TABLE countries"], set()),
        (
            ["CREATE PUBLICATION every FOR ALL TABLES"],
            {("published-table", f'"{one}"' if " " in one else one) for one in PROTECTED},
        ),
        ([TRIGGER, "CREATE TRIGGER t BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION touch()"], set()),
        (
            [
                TRIGGER,
                "ALTER FUNCTION touch() SECURITY DEFINER",
                "CREATE TRIGGER t BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION touch()",
            ],
            {("definer-trigger", "documents")},
        ),
        (
            [
                TRIGGER,
                "ALTER FUNCTION touch() OWNER TO {app}",
                "CREATE TRIGGER t BEFORE INSERT ON countries FOR EACH ROW EXECUTE FUNCTION touch()",
            ],
            {("owned-trigger", "countries")},
        ),
        (["CREATE RULE r AS ON DELETE TO documents DO ALSO SELECT 1"], {("table-rule", "documents")}),
        (
            ["ALTER TABLE documents DISABLE TRIGGER ALL"],
            {("changed-link-check", "documents")}
            | {("unenforced-foreign-key", one) for one in ("comments", "document_labels", "documents", "reports")},
        ),
        (
            ["ALTER TABLE documents ADD FOREIGN KEY (size) REFERENCES folders NOT VALID"],
            {("unenforced-foreign-key", "documents")},
        ),
        (["GRANT SELECT ON SEQUENCE documents_id_seq TO {app}"], {("open-sequence", "documents_id_seq")}),
        (["GRANT UPDATE ON SEQUENCE documents_id_seq TO PUBLIC"], {("open-sequence", "documents_id_seq")}),
        (["ALTER TABLE notes SET UNLOGGED"], {("unlogged-table", "notes")}),
        (
            ["ALTER TABLE documents ALTER CONSTRAINT documents_folder_id_fkey DEFERRABLE INITIALLY DEFERRED"],
            {("deferred-link", "documents")},
        ),
        (["ALTER TABLE documents ALTER CONSTRAINT documents_folder_id_fkey DEFERRABLE INITIALLY IMMEDIATE"], set()),
        (["ALTER TABLE tenantguard.seal_keys SET UNLOGGED"], {("unlogged-table", "tenantguard.seal_keys")}),
        (["SELECT lo_create(4711)", "GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC"], {("large-objects", "{app}")}),
        (["SELECT lo_create(4711)"], set()),
        (["CREATE UNIQUE INDEX mine ON documents (title)"], {("unique-without-tenant", "documents")}),
        (["CREATE UNIQUE INDEX mine ON documents (lower(title))"], {("unique-without-tenant", "documents")}),
        (["CREATE UNIQUE INDEX mine ON comments (text)"], {("unique-without-tenant", "comments")}),
        (["CREATE UNIQUE INDEX mine ON comments (text, document_id)"], set()),
        (["CREATE UNIQUE INDEX mine ON documents (title, tenant_id)"], set()),
        (
            ["CREATE UNIQUE INDEX mine ON documents (title) INCLUDE (tenant_id)"],
            {("unique-without-tenant", "documents")},
        ),
        (["DROP INDEX ix_documents_tenant_id"], {("missing-index", "documents")}),
        (
            ["UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_documents_tenant_id'::regclass"],
            {("missing-index", "documents")},
        ),
        (
            ["DROP INDEX ix_documents_tenant_id", "CREATE INDEX other ON documents (tenant_id, title)"],
            set(),
        ),
        (
            ["DROP POLICY {labels} ON labels", "ALTER TABLE labels ALTER tenant_id TYPE char(128)"],
            {("missing-policy", "labels"), ("changed-key-type", "labels")},
        ),
        (
            ["DROP POLICY {labels} ON labels", "ALTER TABLE labels ALTER tenant_id TYPE text"],
            {("missing-policy", "labels")},
        ),
        (["ALTER ROLE {login} SET tenantguard.tenant = 'a'"], {("preset-setting", "{login}")}),
        (["ALTER ROLE {app} SET session_replication_role = replica"], {("preset-setting", "{app}")}),
        (["ALTER ROLE {other} SET tenantguard.tenant = 'a'"], set()),
        (["SET tenantguard.tenant = 'a'"], {("preset-setting", "the server")}),
        (
            ["GRANT SET ON PARAMETER session_replication_role TO {app}"],
            {("may-skip-triggers", "{app}")},
        ),
        (
            ["GRANT SET ON PARAMETER session_replication_role TO {login}"],
            {("may-skip-triggers", "{app}")},
        ),
        (
            ["DROP TABLE reports", "CREATE VIEW reports WITH (security_invoker) AS SELECT 1 AS id"],
            {("unprotectable-table", "reports")},
        ),
    ],
    ids=lambda value: "; ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_found(planted_lab: Lab, faults: list[str], expected: set[tuple[str, str]]) -> None:
    assert found(planted_lab, *faults) == expected


def test_nothing_of_a_check_stays(planted_lab: Lab) -> None:
    found(planted_lab, tenants=("a", "b"))
    with planted_lab.admin() as admin:
        assert admin.execute("SELECT count(*) FROM documents").fetchone() == (4,)
        assert admin.execute("SELECT count(*) FROM pg_class WHERE relpersistence = 't'").fetchone() == (0,)


def test_rights_to_temporary_tables_are_found(planted_lab: Lab) -> None:
    with planted_lab.admin() as admin:
        (name,) = admin.execute("SELECT current_database()").fetchone()
    assert found(planted_lab, f"GRANT TEMPORARY ON DATABASE {name} TO PUBLIC") == {("may-create-temporary", "{app}")}
    assert found(planted_lab, f"GRANT TEMPORARY ON DATABASE {name} TO {planted_lab.login}") == {
        ("may-create-temporary", "{app}")
    }


def test_rights_to_make_schemas_are_found(planted_lab: Lab) -> None:
    with planted_lab.admin() as admin:
        (name,) = admin.execute("SELECT current_database()").fetchone()
    for role in (planted_lab.role, planted_lab.login):
        assert found(planted_lab, f"GRANT CREATE ON DATABASE {name} TO {role}") == {("may-create", "{app}")}


def test_a_role_that_is_not_there_is_found(planted_lab: Lab) -> None:
    plan = RlsPlan(Base.metadata, role="nobody_of_that_name")
    assert found(planted_lab, plan=plan) == {("missing-role", "nobody_of_that_name")}


def test_a_collation_of_the_database_that_takes_unequal_ids_for_equal_is_found(debian_postgres_url: str) -> None:
    metadata = MetaData()
    Table("folk", metadata, Column("tenant_id", String(128), nullable=False, info=tenant_key()))
    with made_lab(debian_postgres_url, metadata) as lab:
        loose = "CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false)"
        change = "ALTER TABLE folk ALTER tenant_id TYPE varchar(128) COLLATE loose"
        drop = "DROP POLICY {own} ON folk"
        found_there = found(lab, loose, drop.format(own=own(lab, metadata.tables["folk"])), change)
        assert {("inexact-key", "folk"), ("missing-policy", "folk")} <= found_there
        with lab.admin() as admin:
            admin.execute(lab.plan.script(down=True) + "DROP TABLE folk")


def test_a_database_in_which_nothing_was_applied_has_everything_missing(postgres_url: str) -> None:
    engine = create_engine(postgres_url.replace(":", "+psycopg:", 1))
    with engine.connect() as connection:
        connection.execute(CreateSchema(SIDE))
        Base.metadata.create_all(connection)
        findings = check_database(connection, RlsPlan(Base.metadata, role="postgres"))
    engine.dispose()
    ids = {one.id for one in findings}
    assert {"rls-off", "force-off", "missing-policy", "missing-link-check", "missing-function", "superuser-role"} <= ids
    assert findings[0].severity is Severity.ERROR


# --- trying it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("ALTER TABLE comments DISABLE ROW LEVEL SECURITY", {"comments"}),
        ("CREATE POLICY wide ON labels USING (true)", {"labels"}),
        ("CREATE POLICY wide ON folders FOR INSERT WITH CHECK (true)", {"folders"}),
        ("CREATE POLICY wide ON comments FOR INSERT WITH CHECK (true)", {"comments"}),
        ("CREATE POLICY wide ON reports FOR INSERT WITH CHECK (true)", {"reports"}),
    ],
)
def test_what_a_tenant_can_do_to_another_is_tried(planted_lab: Lab, fault: str, expected: set[str]) -> None:
    everything = found(planted_lab, fault, tenants=("a", "b"))
    assert {table for id_, table in everything if id_ == "attempt-succeeded"} == expected


def test_a_role_that_bypasses_policies_is_seen_to_reach_the_rows_of_others_everywhere(planted_lab: Lab) -> None:
    everything = found(planted_lab, "ALTER ROLE {app} BYPASSRLS", tenants=("a", "b"))
    reached = {table for id_, table in everything if id_ == "attempt-succeeded"}
    assert reached >= {"comments", "document_labels", "documents", "folders", "labels", "reports"}


def test_a_table_that_shows_a_tenant_nothing_of_its_own_is_not_taken_for_a_safe_one(planted_lab: Lab) -> None:
    fault = "REVOKE SELECT ON labels FROM {app}"
    assert ("untried-table", "labels") in found(planted_lab, fault, tenants=("a", "b"))


@pytest.mark.parametrize("bound_to", ["transaction", "time"])
def test_tenants_are_tried_whatever_their_seals_are_bound_to(postgres_url: str, bound_to: BoundTo) -> None:
    with made_lab(postgres_url, Base.metadata, bound_to=bound_to) as lab:
        with lab.admin() as admin:
            admin.execute(ROWS)
        assert found(lab, tenants=("a", "b")) == set()


def test_two_tenants_are_needed_to_try(planted_lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="are one"):
        found(planted_lab, tenants=("a", "a"))
