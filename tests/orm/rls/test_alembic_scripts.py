"""Migration scripts by themselves: they do the same whatever the models are, as SQL too, and open nothing on the way."""

import shutil
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
)
from sqlalchemy.exc import DBAPIError

import tenantguard.orm.rls.alembic  # noqa: F401 - registers the operations
from tenantguard.errors import ConfigurationError
from tenantguard.orm import tenant_key
from tenantguard.orm.review import Severity, review_metadata
from tests.orm.rls import frozen_migration
from tests.orm.rls.alembic_lab import WORLD, AlembicLab
from tests.orm.rls.conftest import ROWS
from tests.orm.rls.lab import Lab


@pytest.fixture
def alembic(tmp_path: Path, postgres_url: str) -> Iterator[AlembicLab]:
    lab = AlembicLab(tmp_path, postgres_url)
    yield lab
    lab.drop_roles("frozen_app")


def rows(lab: AlembicLab, query: str) -> list[tuple[object, ...]]:
    with lab.admin() as admin:
        return admin.execute(query).fetchall()


def test_a_script_of_long_ago_does_what_it_did(alembic: AlembicLab) -> None:
    """Every word of it is compared: a change here would change what migrations of users do."""
    shutil.copy(frozen_migration.__file__, alembic.versions)
    with alembic.admin() as admin:
        admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    before = alembic.catalogue()
    alembic.config.attributes["metadata"] = MetaData()
    alembic.upgrade()
    assert rows(
        alembic,
        "SELECT polname, polcmd::text, polpermissive, polroles::text, pg_get_expr(polqual, polrelid), "
        "pg_get_expr(polwithcheck, polrelid) FROM pg_policy ORDER BY 1",
    ) == [
        (
            "tenantguard_own_1",
            "*",
            True,
            "{0}",
            "(tenant_id = ( SELECT tenantguard.current_tenant() AS current_tenant))",
            "(tenant_id = ( SELECT tenantguard.current_tenant() AS current_tenant))",
        ),
        ("tenantguard_read_1", "r", True, "{0}", "(tenant_id = 'every:one %'::text)", None),
    ]
    assert rows(
        alembic, "SELECT pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname"
    ) == [
        (
            (
                'CREATE CONSTRAINT TRIGGER "0_tenantguard_1_insert" AFTER INSERT ON public.notes DEFERRABLE INITIALLY '
                "DEFERRED FOR EACH ROW EXECUTE FUNCTION tenantguard.link_1()"
            ),
            "O",
        ),
        (
            (
                'CREATE CONSTRAINT TRIGGER "0_tenantguard_1_update" AFTER UPDATE ON public.notes DEFERRABLE INITIALLY '
                "DEFERRED FOR EACH ROW WHEN (((old.after_id IS DISTINCT FROM new.after_id) OR (old.id IS DISTINCT FROM "
                "new.id))) EXECUTE FUNCTION tenantguard.link_1()"
            ),
            "O",
        ),
    ]
    assert rows(
        alembic,
        "SELECT p.oid::regprocedure::text, length(prosrc), prosecdef, provolatile::text, proconfig FROM pg_proc AS p "
        "WHERE pronamespace = 'tenantguard'::regnamespace ORDER BY 1",
    ) == [
        ("tenantguard.bound()", 59, False, "s", ["search_path=pg_catalog, pg_temp"]),
        ("tenantguard.current_tenant()", 41, False, "s", ["search_path=pg_catalog, pg_temp"]),
        ("tenantguard.link_1()", 187, False, "v", ["search_path=pg_catalog, pg_temp"]),
    ]
    assert rows(
        alembic,
        "SELECT relname, relrowsecurity, relforcerowsecurity, reloptions, ARRAY (SELECT privilege_type FROM "
        "aclexplode(relacl) WHERE grantee = 'frozen_app'::regrole ORDER BY 1) FROM pg_class WHERE relnamespace = "
        "'public'::regnamespace AND relkind IN ('r', 'v', 'S') AND relname <> 'alembic_version' ORDER BY 1",
    ) == [
        ("kinds", False, False, None, ["DELETE", "INSERT", "SELECT", "UPDATE"]),
        ("kinds_id_seq", False, False, None, ["USAGE"]),
        ("note_ids", False, False, ["security_invoker=true"], []),
        ("notes", True, True, None, ["DELETE", "INSERT", "SELECT", "UPDATE"]),
    ]
    alembic.downgrade()
    assert alembic.catalogue() == before


def test_an_upgrade_and_a_downgrade_as_sql_do_the_same(alembic: AlembicLab) -> None:
    alembic.revise(WORLD)
    empty = alembic.catalogue()
    alembic.upgrade()
    online = alembic.catalogue()
    alembic.downgrade()
    with alembic.admin() as admin:
        admin.execute("DROP TABLE alembic_version")
        admin.execute(alembic.offline("upgrade", "head"))
        assert alembic.catalogue() == online
        alembic.put_key()
        admin.execute(ROWS)
        assert alembic.findings(WORLD) == set()
        admin.execute(alembic.offline("downgrade", "head:base"))
    assert alembic.catalogue() == empty


def test_the_sql_of_a_migration_is_as_it_is_whatever_the_driver_does_to_percent_signs(alembic: AlembicLab) -> None:
    env = Path(alembic.config.get_main_option("script_location")) / "env.py"
    env.write_text(env.read_text().replace('dialect_opts={"paramstyle": "named"}, ', ""))
    alembic.revise(WORLD)
    assert "%%" not in alembic.offline("upgrade", "head")


def test_the_script_holds_no_key_of_the_seal_and_needs_no_models(alembic: AlembicLab) -> None:
    script = alembic.revise(WORLD)
    assert "INSERT INTO tenantguard.seal_keys" not in script
    assert "import tests" not in script
    assert "tenantguard.orm.rls.alembic" in script
    alembic.config.attributes["metadata"] = MetaData()
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(WORLD) == set()


def test_the_set_up_is_not_removed_while_a_policy_needs_it(alembic: AlembicLab) -> None:
    alembic.revise(WORLD)
    alembic.upgrade()
    with alembic.admin() as admin:
        admin.execute("CREATE TABLE mine (id text); CREATE POLICY p ON mine USING (id = tenantguard.current_tenant())")
    with pytest.raises(DBAPIError, match="other objects depend on it"):
        alembic.downgrade()
    assert len(rows(alembic, "SELECT FROM pg_policy")) == 7


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("enable_tenant_rls", {"policies": [{"name": "p", "using": "true"}]}),
        ("enable_tenant_rls", {"policies": [{"name": "tenantguard_p", "command": "DELETE", "using": "true"}]}),
        ("open_shared_table", {"link_checks": [{"function": "bound", "columns": ["id"], "body": ""}]}),
    ],
)
def test_what_is_none_of_ours_is_refused(postgres_url: str, operation: str, arguments: dict[str, object]) -> None:
    engine = create_engine(postgres_url.replace(":", "+psycopg:", 1))
    with (
        engine.connect() as connection,
        pytest.raises(ConfigurationError, match="that a migration of tenantguard makes"),
    ):
        getattr(Operations(MigrationContext.configure(connection)), operation)("documents", role="app", **arguments)
    engine.dispose()


# --- on the way ----------------------------------------------------------------------------------------------------


def operations_of(lab: Lab, connection: object) -> Operations:
    return Operations(MigrationContext.configure(connection))  # type: ignore[arg-type]


def texts(lab: Lab, table: str, suffix: str) -> dict[str, list[dict[str, object]]]:
    """What a script says of a table, with other names of the same."""
    found = WORLD.tables[table]
    return {
        "policies": [
            {"name": one.name + suffix, "command": one.command, "using": one.using} for one in lab.plan.policies(found)
        ],
        "link_checks": [
            {"function": one.function + suffix, "columns": list(one.columns), "body": one.body}
            for one in lab.plan.link_guards(found)
        ],
    }


def test_no_row_of_another_tenant_is_seen_while_policies_are_replaced_and_taken_away(new_lab: Lab) -> None:
    """In AUTOCOMMIT, where each statement is seen by others at once."""
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(new_lab.url.replace("//postgres", f"//{new_lab.login}")) as app:
            while not stop.is_set():
                try:
                    new_lab.set(app, "a")
                    seen.add(str(sorted(app.execute("SELECT id FROM documents").fetchall())))
                except InsufficientPrivilege:
                    seen.add("refused")
                app.rollback()

    engine = create_engine(new_lab.engine_of("psycopg", role="postgres"), isolation_level="AUTOCOMMIT")
    reader = threading.Thread(target=read)
    reader.start()
    try:
        with engine.connect() as connection:
            op = operations_of(new_lab, connection)
            for step in range(40):
                op.enable_tenant_rls("documents", role=new_lab.role, **texts(new_lab, "documents", f"_{step}"))
            assert seen == {"[(1,), (3,)]"}, "neither open nor dark"
            for step in range(20):
                op.suspend_tenant_rls("documents")
                op.enable_tenant_rls("documents", role=new_lab.role, **texts(new_lab, "documents", f"_{step}"))
                op.disable_tenant_rls("documents", role=new_lab.role)
                op.enable_tenant_rls("documents", role=new_lab.role, **texts(new_lab, "documents", f"_{step}"))
    finally:
        stop.set()
        reader.join(timeout=30)
        engine.dispose()
    assert seen <= {"[(1,), (3,)]", "[]", "refused"}


def test_a_table_in_use_makes_the_migration_wait_and_fail_soon_and_changes_nothing(new_lab: Lab) -> None:
    before = "SELECT polname FROM pg_policy ORDER BY 1"
    engine = create_engine(new_lab.engine_of("psycopg", role="postgres"))
    with new_lab.app("a") as app, new_lab.admin() as admin:
        app.execute("SELECT FROM documents")
        names = admin.execute(before).fetchall()
        with engine.connect() as connection:
            connection.exec_driver_sql("SET lock_timeout = '100ms'")
            with pytest.raises(DBAPIError, match="lock timeout"):
                operations_of(new_lab, connection).enable_tenant_rls(
                    "documents", role=new_lab.role, **texts(new_lab, "documents", "_new")
                )
            connection.rollback()
            with pytest.raises(DBAPIError, match="lock timeout"):  # without one of the session: three seconds
                operations_of(new_lab, connection).suspend_tenant_rls("documents")
        assert admin.execute(before).fetchall() == names
    engine.dispose()


def test_the_time_to_wait_for_locks_is_left_as_it_was(new_lab: Lab) -> None:
    engine = create_engine(new_lab.engine_of("psycopg", role="postgres"))
    with engine.connect() as connection:
        for wait in ("0", "7s"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{wait}'")
            operations_of(new_lab, connection).suspend_tenant_rls("documents")
            assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == wait
    engine.dispose()


def test_nobody_reaches_a_row_of_a_table_whose_policies_are_suspended(new_lab: Lab) -> None:
    engine = create_engine(new_lab.engine_of("psycopg", role="postgres"))
    with engine.begin() as connection:
        operations_of(new_lab, connection).suspend_tenant_rls("documents")
    engine.dispose()
    with new_lab.app("a") as app:
        assert app.execute("SELECT * FROM documents").fetchall() == []
        with pytest.raises(InsufficientPrivilege):
            app.execute("INSERT INTO documents (id, title, size, body, kind, tenant_id) VALUES (9, '', 1, '', '', 'a')")


# --- keys that contain the tenant ----------------------------------------------------------------------------------


def pair(*, composite: bool) -> MetaData:
    """Notes, and lines that point to them, before and after the doctor's DDL."""
    metadata = MetaData()
    tenant = {"nullable": False, "index": True, "info": tenant_key()}
    more = [UniqueConstraint("tenant_id", "id", name="uq_notes_tenant_id_id")] if composite else []
    Table("notes", metadata, Column("id", Integer, primary_key=True), Column("tenant_id", String(40), **tenant), *more)
    links = [] if composite else [ForeignKey("notes.id", name="fk_note")]
    lines = Table(
        "lines",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", String(40), **tenant),
        Column("note_id", Integer, *links),
    )
    if composite:
        name = "fk_lines_tenant_id_note_id"
        columns = ["tenant_id", "note_id"]
        lines.append_constraint(ForeignKeyConstraint(columns, ["notes.tenant_id", "notes.id"], name=name))
    return metadata


BY_THE_DOCTOR = """
    from alembic import op

    revision = "doctor"
    down_revision = "r0"


    def upgrade():
        with op.get_context().autocommit_block():
            op.execute("SET lock_timeout = '3s'")
            for statement in STATEMENTS:
                op.execute(statement)
            op.execute("RESET lock_timeout")
"""


def test_the_ddl_of_the_doctor_runs_in_a_migration_and_link_checks_go_where_keys_contain_the_tenant(
    alembic: AlembicLab,
) -> None:
    before, after = pair(composite=False), pair(composite=True)
    alembic.revise(before)
    alembic.upgrade()
    alembic.put_key()
    with alembic.admin() as admin:
        admin.execute("INSERT INTO notes VALUES (1, 'a'), (2, 'b'); INSERT INTO lines VALUES (1, 'a', 1), (2, 'b', 2)")
    statements = [
        statement
        for finding in review_metadata(before).at_least(Severity.WARNING)
        for statement in finding.ddl
        if finding.id == "foreign-key-without-tenant"
    ]
    assert any("CONCURRENTLY" in one for one in statements)
    assert any("NOT VALID" in one for one in statements)
    script = textwrap.dedent(BY_THE_DOCTOR).replace("STATEMENTS", repr(tuple(statements)))
    (alembic.versions / "doctor.py").write_text(script)
    alembic.upgrade()
    assert alembic.findings(before) == set()
    script = alembic.revise(after)
    assert "create_foreign_key" not in script
    assert "create_unique_constraint" not in script
    assert script.partition("def downgrade")[0].count("op.enable_tenant_rls(") == 1
    alembic.upgrade()
    assert alembic.findings(after) == set()
    assert rows(alembic, "SELECT FROM pg_trigger WHERE NOT tgisinternal") == []
    assert alembic.is_right(after)
    alembic.downgrade("-1")
    assert len(rows(alembic, "SELECT FROM pg_trigger WHERE NOT tgisinternal")) == 2
    assert alembic.findings(before) == set()
