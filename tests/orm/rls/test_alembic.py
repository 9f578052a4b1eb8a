"""Migrations of Alembic with row-level security: what autogenerate writes makes the database right, and back again."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine

from tenantguard import system
from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard.orm import owned_through, protect, shared, tenant_key
from tests.orm.rls.alembic_lab import WORLD, AlembicLab
from tests.orm.rls.conftest import ROWS


@pytest.fixture
def alembic(tmp_path: Path, postgres_url: str) -> Iterator[AlembicLab]:
    lab = AlembicLab(tmp_path, postgres_url)
    yield lab
    lab.drop_roles()


def key(length: int = 128) -> Column[str]:
    return Column("tenant_id", String(length), nullable=False, index=True, info=tenant_key())


def number(name: str = "id") -> Column[int]:
    return Column(name, Integer, primary_key=True)


def notes(*more: str, length: int = 128) -> MetaData:
    """Notes with lines, and what else is asked for."""
    metadata = MetaData()
    columns = [Column("author", String(20))] if "author" in more else []
    Table("notes", metadata, number(), key(length), *columns)
    if "lines" in more:
        Table(
            "lines",
            metadata,
            number(),
            Column("note_id", ForeignKey("notes.id"), nullable=False),
            Column("after_id", ForeignKey("notes.id")),
            info=owned_through("note_id"),
        )
    if "kinds" in more:
        Table("kinds", metadata, number(), info=shared("the same for all"))
    return metadata


# --- the first migration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_the_first_migration_makes_it_right_and_the_way_back_leaves_nothing(
    tmp_path: Path, postgres_url: str, driver: str
) -> None:
    lab = AlembicLab(tmp_path, postgres_url, driver=driver)
    before = lab.catalogue()
    lab.revise(WORLD)
    assert lab.catalogue() == before, "autogenerate changes nothing"
    lab.upgrade()
    lab.put_key()
    with lab.admin() as admin:
        admin.execute(ROWS)
    assert lab.findings(WORLD) == set()
    assert lab.is_right(WORLD)
    lab.downgrade()
    assert lab.catalogue() == before
    lab.drop_roles()


def test_tables_that_are_there_already_get_it_without_anything_else_being_changed(alembic: AlembicLab) -> None:
    engine = create_engine(alembic.url.replace(":", "+psycopg:", 1))
    WORLD.create_all(engine)
    engine.dispose()
    with alembic.admin() as admin:
        admin.execute(ROWS)
        admin.execute(
            f"CREATE ROLE {alembic.role}; GRANT SELECT, INSERT, UPDATE, DELETE ON documents TO {alembic.role}"
        )
        admin.execute(f"CREATE ROLE {alembic.role}_reader; GRANT SELECT ON documents TO {alembic.role}_reader")
    before = alembic.catalogue()
    script = alembic.revise(WORLD)
    assert "create_table" not in script
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(WORLD) == set()
    assert alembic.is_right(WORLD)
    alembic.downgrade()
    assert alembic.catalogue() == before
    alembic.drop_roles(f"{alembic.role}_reader")


def test_policies_of_somebody_elses_making_stay_and_are_not_switched_off_by_the_way_back(alembic: AlembicLab) -> None:
    with alembic.admin() as admin:
        admin.execute("CREATE TABLE notes (id serial PRIMARY KEY, tenant_id varchar(128) NOT NULL)")
        admin.execute("CREATE INDEX ix_notes_tenant_id ON notes (tenant_id)")
        admin.execute("CREATE POLICY old ON notes AS RESTRICTIVE USING (id < 99)")
        admin.execute("ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    before = alembic.catalogue()
    alembic.revise(notes())
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(notes()) == set()
    alembic.downgrade()
    after = alembic.catalogue()
    for query in before:
        if "FROM pg_policy" in query or "FROM pg_proc" in query or "FROM pg_trigger" in query:
            assert after[query] == before[query]
    with alembic.admin() as admin:
        state = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'notes'"
        assert admin.execute(state).fetchone() == (True, True)


def test_what_everybody_might_do_is_given_back_by_the_way_back(alembic: AlembicLab) -> None:
    with alembic.admin() as admin:
        admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    before = alembic.catalogue()
    alembic.revise(notes())
    alembic.upgrade()
    assert alembic.catalogue() != before
    alembic.downgrade()
    assert alembic.catalogue() == before


def test_a_migration_needs_no_superuser(tmp_path: Path, postgres_url: str) -> None:
    lab = AlembicLab(tmp_path, postgres_url)
    owner = f"{lab.role}_owner"
    with lab.admin() as admin:
        admin.execute(f"CREATE ROLE {lab.role}; CREATE ROLE {owner} LOGIN")
        (name,) = admin.execute("SELECT current_database()").fetchone()
        admin.execute(f'ALTER DATABASE "{name}" OWNER TO {owner}')
    lab.config.attributes["url"] = lab.config.attributes["url"].replace("//postgres", f"//{owner}")
    before = lab.catalogue()
    lab.revise(WORLD)
    lab.upgrade()
    lab.put_key()
    assert lab.findings(WORLD) == set()
    assert lab.is_right(WORLD)
    lab.downgrade()
    assert lab.catalogue() == before
    with lab.admin() as admin:
        admin.execute(f'ALTER DATABASE "{name}" OWNER TO postgres')
    lab.drop_roles(owner)


def test_the_plain_setting_has_migrations_too(tmp_path: Path, postgres_url: str) -> None:
    lab = AlembicLab(tmp_path, postgres_url, sealed=False)
    lab.revise(notes("lines"))
    lab.upgrade()
    assert lab.findings(notes("lines")) == set()
    lab.sealed = lab.config.attributes["sealed"] = True
    assert "set_up_tenant_rls" in lab.revise(notes("lines"))
    lab.upgrade()
    lab.put_key()
    assert lab.findings(notes("lines")) == set()
    lab.drop_roles()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_names_in_need_of_quotes_are_quoted(tmp_path: Path, postgres_url: str, driver: str) -> None:
    metadata = MetaData()
    odd = Table(
        'odd "name"\'s %s',
        metadata,
        Column("I :d", Integer, primary_key=True, autoincrement=False),
        Column('the "te%nant:x"', String(9), nullable=False),
    )
    odd.c['the "te%nant:x"'].info.update(tenant_key())
    Table("Links$", metadata, number(), key(), Column("To\\it", ForeignKey(odd.c["I :d"])))
    lab = AlembicLab(tmp_path, postgres_url, driver=driver)
    before = lab.catalogue()
    engine = create_engine(postgres_url.replace(":", "+psycopg:", 1))
    metadata.create_all(engine)
    engine.dispose()
    lab.revise(metadata)
    lab.upgrade()
    lab.put_key()
    assert lab.findings(metadata) == set()
    assert lab.is_right(metadata)
    lab.downgrade()
    with lab.admin() as admin:
        admin.execute("""DROP TABLE "Links$"; DROP TABLE "odd ""name""'s %s" """)
    assert lab.catalogue() == before
    lab.drop_roles()


def regions(**actions: str) -> MetaData:
    """A shared table with columns of its own, to which shops of tenants point."""
    metadata = MetaData()
    Table("regions", metadata, Column("code", String(9), primary_key=True), Column("name", String(9)), info=shared("x"))
    Table("shops", metadata, number(), key(), Column("region", ForeignKey("regions.code", name="of_region", **actions)))
    return metadata


def test_what_foreign_keys_carry_from_a_shared_table_to_every_tenant_is_not_given(alembic: AlembicLab) -> None:
    cascading = regions(ondelete="CASCADE", onupdate="CASCADE")
    assert """rights=['SELECT', 'INSERT', 'UPDATE ("name")']""" in alembic.revise(cascading)
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(cascading) == set()
    assert alembic.is_right(cascading)
    with alembic.admin() as admin:
        admin.execute(f"GRANT UPDATE, DELETE ON regions TO {alembic.role}")
    assert alembic.findings(cascading) == {("too-many-rights", "regions")}
    assert not alembic.is_right(cascading)
    alembic.revise(cascading)
    alembic.upgrade()
    assert alembic.findings(cascading) == set()
    alembic.revise(regions())
    alembic.upgrade()
    assert alembic.findings(regions()) == set()
    assert alembic.is_right(regions())


def test_partitions_are_held_by_the_policies_of_the_whole(alembic: AlembicLab) -> None:
    metadata = MetaData()
    Table("notes", metadata, number(), key())
    Table(
        "logs",
        metadata,
        Column("tenant_id", String(9), primary_key=True, info=tenant_key()),
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("note_id", ForeignKey("notes.id")),
        postgresql_partition_by="LIST (tenant_id)",
    )
    alembic.config.attributes["options"] = {
        "include_name": lambda name, kind, parents: not str(name).startswith("logs_"),
        # Alembic does not find the foreign keys of partitioned tables again.
        "include_object": lambda thing, name, kind, reflected, other: kind != "foreign_key_constraint",
    }
    before = alembic.catalogue()
    alembic.revise(metadata)
    alembic.upgrade()
    alembic.put_key()
    with alembic.admin() as admin:
        admin.execute("CREATE TABLE logs_a PARTITION OF logs FOR VALUES IN ('a'); INSERT INTO logs VALUES ('a', 1)")
        admin.execute("CREATE TABLE logs_other PARTITION OF logs DEFAULT; INSERT INTO logs VALUES ('b', 2)")
    assert alembic.findings(metadata) == set()
    assert alembic.is_right(metadata)
    with alembic.admin() as admin:
        admin.execute("ALTER TABLE logs_a DISABLE TRIGGER USER")
    assert alembic.findings(metadata) == {("changed-link-check", "logs")}
    assert not alembic.is_right(metadata)
    alembic.revise(metadata)
    alembic.upgrade()
    assert alembic.findings(metadata) == set()
    alembic.downgrade()
    assert alembic.catalogue() == before


def test_the_oldest_postgresql_of_the_tests_takes_migrations_too(tmp_path: Path, debian_postgres_url: str) -> None:
    lab = AlembicLab(tmp_path, debian_postgres_url)
    before = lab.catalogue()
    lab.revise(notes("lines", "kinds"))
    lab.upgrade()
    lab.put_key()
    assert lab.findings(notes("lines", "kinds")) == set()
    assert lab.is_right(notes("lines", "kinds"))
    with lab.admin() as admin:
        admin.execute("CREATE PUBLICATION every FOR ALL TABLES")
        assert lab.findings(notes("lines", "kinds")) == {("published-table", "lines"), ("published-table", "notes")}
        admin.execute("DROP PUBLICATION every")
    lab.downgrade()
    assert lab.catalogue() == before
    with lab.admin() as admin:
        admin.execute("DROP TABLE alembic_version")
    lab.drop_roles()


# --- later ones ----------------------------------------------------------------------------------------------------


def test_a_new_table_gets_it_in_the_migration_that_makes_the_table(alembic: AlembicLab) -> None:
    alembic.revise(notes())
    alembic.upgrade()
    alembic.put_key()
    before = alembic.catalogue()
    script = alembic.revise(notes("lines", "kinds"))
    upgrade, _, downgrade = script.partition("def downgrade")
    assert upgrade.index("create_table('lines'") < upgrade.index("op.enable_tenant_rls(\n        'lines'")
    assert upgrade.index("create_table('kinds'") < upgrade.index("op.open_shared_table(\n        'kinds'")
    assert downgrade.index("op.disable_tenant_rls(\n        'lines'") < downgrade.index("drop_table('lines'")
    assert "info=" not in upgrade
    assert "'notes'," not in upgrade
    alembic.upgrade()
    assert alembic.findings(notes("lines", "kinds")) == set()
    alembic.downgrade("-1")
    assert alembic.catalogue() == before


def test_a_table_that_is_dropped_takes_its_functions_along_and_comes_back_protected(alembic: AlembicLab) -> None:
    alembic.revise(notes("lines"))
    alembic.upgrade()
    alembic.put_key()
    before = alembic.catalogue()
    assert any("link_" in row[0] for row in before[next(query for query in before if "prosrc" in query)])
    alembic.revise(notes())
    alembic.upgrade()
    assert not [row for rows in alembic.catalogue().values() for row in rows if "link_" in str(row)]
    assert alembic.findings(notes()) == set()
    assert alembic.is_right(notes())
    alembic.downgrade("-1")
    assert alembic.catalogue() == before


def test_a_child_gets_a_key_of_its_own_and_its_parent_is_dropped(alembic: AlembicLab) -> None:
    """PostgreSQL refuses to drop a column, or a table, that a policy names: the child's policy goes first."""
    own, alone = notes(), MetaData()
    for metadata in (own, alone):
        Table("lines", metadata, number(), key())
    steps = (notes("lines"), own, alone)
    for metadata in steps:
        alembic.revise(metadata)
        alembic.upgrade()
        alembic.put_key()
        assert alembic.findings(metadata) == set()
        assert alembic.is_right(metadata)
    for metadata in steps[1::-1]:
        alembic.downgrade("-1")
        assert alembic.findings(metadata) == set()


@pytest.mark.parametrize("more", [(), ("lines",)])
def test_a_key_changes_its_type_while_the_tables_stay_closed(alembic: AlembicLab, more: tuple[str, ...]) -> None:
    alembic.revise(notes(*more))
    alembic.upgrade()
    alembic.put_key()
    before = alembic.catalogue()
    with alembic.admin() as admin:
        admin.execute("INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
    script = alembic.revise(notes(*more, length=64))
    upgrade = script.partition("def downgrade")[0]
    for table in ("notes", *more):
        at = [upgrade.index(f"op.{one}_tenant_rls(\n        '{table}'") for one in ("suspend", "enable")]
        assert at[0] < upgrade.index("alter_column") < at[1]
    alembic.upgrade()
    assert alembic.findings(notes(*more, length=64)) == set()
    alembic.downgrade("-1")
    assert alembic.catalogue() == before


def test_a_changed_policy_of_the_models_replaces_the_old_one_and_the_way_back_brings_it_again(
    alembic: AlembicLab,
) -> None:
    wide = MetaData()
    Table("notes", wide, number(), Column("tenant_id", String(128), index=True, info=tenant_key(global_rows=True)))
    alembic.revise(notes())
    alembic.upgrade()
    alembic.put_key()
    before = alembic.catalogue()
    alembic.revise(wide)
    alembic.upgrade()
    assert alembic.findings(wide) == set()
    changed = alembic.catalogue()
    assert changed != before
    alembic.downgrade("-1")
    assert alembic.catalogue() == before
    alembic.upgrade()
    assert alembic.catalogue() == changed


def test_a_table_of_tenants_becomes_shared_and_one_that_is_shared_becomes_of_tenants(alembic: AlembicLab) -> None:
    open_notes = MetaData()
    Table("notes", open_notes, number(), Column("tenant_id", String(128), nullable=False, index=True), info=shared("x"))
    alembic.revise(notes())
    alembic.upgrade()
    alembic.put_key()
    closed = alembic.catalogue()
    alembic.revise(open_notes)
    alembic.upgrade()
    assert alembic.findings(open_notes) == set()
    opened = alembic.catalogue()
    alembic.revise(notes())
    alembic.upgrade()
    assert alembic.catalogue() == closed
    alembic.downgrade("-1")
    assert alembic.catalogue() == opened
    alembic.downgrade("-1")
    assert alembic.catalogue() == closed


# --- what somebody did by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        "DROP POLICY {own} ON documents",
        "ALTER POLICY {own} ON documents USING (true)",
        "ALTER POLICY {own} ON documents TO {app}",
        "ALTER POLICY {own} ON documents RENAME TO tenantguard_own_of_last_year",
        "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE documents NO FORCE ROW LEVEL SECURITY",
        "DROP TRIGGER {trigger} ON documents",
        "ALTER TABLE documents DISABLE TRIGGER USER",
        "CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON documents FOR EACH ROW WHEN (false) EXECUTE FUNCTION {function}()",
        "ALTER FUNCTION {function}() SECURITY DEFINER",
        "GRANT TRUNCATE ON documents TO {app}",
        "REVOKE SELECT ON documents FROM {app}",
        "GRANT SELECT ON documents TO PUBLIC",
        "REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {app}",
        "CREATE OR REPLACE FUNCTION tenantguard.current_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 'a' $$",
        "ALTER FUNCTION tenantguard.bound() IMMUTABLE",
        "DROP FUNCTION tenantguard.current_scope_uuid",
        "REVOKE EXECUTE ON FUNCTION tenantguard.bound() FROM {app}, PUBLIC",
        "REVOKE USAGE ON SCHEMA tenantguard FROM {app}",
        "GRANT SELECT ON tenantguard.seal_keys TO {app}",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "GRANT CREATE ON SCHEMA public TO {app}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {app}",
        "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', current_database()); END $$",
        'CREATE VIEW "all titles" AS SELECT title FROM documents',
        "DROP OWNED BY {app}; DROP ROLE {app}",
    ],
)
def test_what_was_changed_by_hand_is_noticed_and_mended_and_stays_mended(alembic: AlembicLab, fault: str) -> None:
    alembic.revise(WORLD)
    alembic.upgrade()
    alembic.put_key()
    with alembic.admin() as admin:
        admin.execute(ROWS)
        (own,) = admin.execute("SELECT polname FROM pg_policy WHERE polrelid = 'documents'::regclass").fetchone()
        trigger, function = admin.execute(
            "SELECT quote_ident(tgname), tgfoid::regproc::text FROM pg_trigger WHERE tgrelid = 'documents'::regclass "
            "AND tgname LIKE '0_tenantguard%_update'"
        ).fetchone()
        right = alembic.catalogue()
        admin.execute(fault.format(own=own, trigger=trigger, function=function, app=alembic.role))
        changed = alembic.catalogue()
        assert changed != right
    assert not alembic.is_right(WORLD)
    alembic.revise(WORLD)
    assert alembic.catalogue() == changed, "autogenerate changes nothing"
    alembic.upgrade()
    assert alembic.findings(WORLD) == set()
    assert alembic.is_right(WORLD)
    if "VIEW" not in fault:
        mended = alembic.catalogue()
        assert {query: sorted(map(str, rows)) for query, rows in mended.items() if "acl" not in query} == {
            query: sorted(map(str, rows)) for query, rows in right.items() if "acl" not in query
        }
    alembic.downgrade("-1")
    found = alembic.findings(WORLD)
    if "RENAME" in fault:  # it is taken for a policy of other models, and made again
        assert {id_ for id_, _ in found} == {"outdated-policy"}
    elif "DROP ROLE" in fault:  # shared tables are nobody's again
        assert found == {("missing-rights", "countries")}
    else:
        assert found == set()


def test_tables_that_the_environment_leaves_out_are_left_alone(alembic: AlembicLab) -> None:
    alembic.config.attributes["options"] = {
        "include_object": lambda thing, name, kind, reflected, other: name != "lines"
    }
    script = alembic.revise(notes("lines"))
    assert "'notes'" in script
    assert "'lines'" not in script


def test_the_keys_of_the_seal_stay_where_all_schemas_are_looked_at(alembic: AlembicLab) -> None:
    metadata = notes()
    Table("labels", metadata, number(), key(), schema="other")
    with alembic.admin() as admin:
        admin.execute("CREATE SCHEMA other")
    alembic.config.attributes["options"] = {"include_schemas": True}
    alembic.revise(metadata)
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(metadata) == set()
    assert alembic.is_right(metadata)
    alembic.downgrade()


def test_a_table_is_dropped_though_the_role_is_gone(alembic: AlembicLab) -> None:
    alembic.revise(notes("lines"))
    alembic.upgrade()
    alembic.drop_roles()
    alembic.revise(notes())
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(notes()) == set()


def test_a_table_that_nobody_classified_ends_it_before_there_is_a_script(alembic: AlembicLab) -> None:
    metadata = notes()
    Table("forgotten", metadata, number())
    with pytest.raises(ConfigurationError, match="'forgotten' is neither owned"):
        alembic.revise(metadata)
    assert alembic.scripts() == []


def test_models_of_several_metadata_are_looked_at_together(alembic: AlembicLab) -> None:
    other = MetaData()
    Table("labels", other, number(), key())
    alembic.revise([notes(), other])
    alembic.upgrade()
    alembic.put_key()
    assert alembic.findings(notes(), other) == set()
    assert alembic.is_right([notes(), other])


def test_an_engine_with_the_barrier_migrates_in_a_system_context_alone(alembic: AlembicLab) -> None:
    engine = protect(create_engine(alembic.url.replace(":", "+psycopg:", 1)))
    alembic.config.attributes["engine"] = engine
    with pytest.raises(UnclassifiedTable, match="'pg_class'"):
        alembic.revise(notes())
    with system("migrations"):
        alembic.revise(notes())
        alembic.upgrade()
        alembic.put_key()
        assert alembic.is_right(notes())
    engine.dispose()
    assert alembic.findings(notes()) == set()


def test_the_rest_of_tenantguard_does_not_need_alembic() -> None:
    program = (
        "import sys; sys.modules['alembic'] = None\n"
        "import tenantguard.orm.rls, tenantguard.cli.main\n"
        "try:\n    import tenantguard.orm.rls.alembic\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "Migrations need Alembic: pip install 'tenantguard[alembic]'.\n"
