"""The DDL of a review, run on real databases until the findings are gone, and its names and script."""

from collections.abc import Iterable

import psycopg
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
)
from sqlalchemy.pool import StaticPool

from tenantguard.orm import shared, tenant_key
from tenantguard.orm.review import Finding, Review, Severity, review_metadata
from tests.orm.reviewed import LONG, add_partial_indexes, faulty, key, number, reflected

# --- the DDL, on real databases ------------------------------------------------------------------------------------


def statements(review: Review) -> Iterable[str]:
    return dict.fromkeys(statement for finding in review.findings for statement in finding.ddl)


def identities(findings: Iterable[Finding], *, mended: bool) -> set[tuple[str, str, str]]:
    return {(one.id, one.table, one.message) for one in findings if bool(one.ddl) is mended}


@pytest.mark.parametrize("schema", [None, "My schema"])
def test_the_ddl_for_postgresql_mends_what_it_says(postgres_url: str, schema: str | None) -> None:
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    models = faulty(schema)
    add_partial_indexes(models)
    with engine.begin() as connection:
        if schema:
            connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
        models.create_all(connection)
        people = f'"{schema}".people' if schema else "people"
        connection.exec_driver_sql(f"INSERT INTO {people} (tenant_id, email) VALUES ('a', 'x'), ('b', 'y')")
    before = review_metadata(models)
    assert len(identities(before.findings, mended=True)) == 20
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        for statement in statements(before):
            operator.execute(statement.encode())
        invalid = operator.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone()
        not_valid = operator.execute("SELECT count(*) FROM pg_constraint WHERE NOT convalidated").fetchone()
    assert (invalid, not_valid) == ((0,), (0,))
    with engine.connect() as connection:
        after = review_metadata(reflected(connection, models))
    engine.dispose()
    left = identities(after.findings, mended=True) | identities(after.findings, mended=False)
    assert not left & identities(before.findings, mended=True)
    assert identities(before.findings, mended=False) == left, "and nothing else has changed"


def test_the_ddl_of_each_finding_runs_without_that_of_others(postgres_url: str) -> None:
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    plain = faulty()
    add_partial_indexes(plain)
    for at, finding in enumerate(review_metadata(plain).findings):
        schema = f"s{at}"
        models = faulty(schema)
        add_partial_indexes(models)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
            models.create_all(connection)
        same = review_metadata(models).findings[at]
        assert (same.id, same.table) == (finding.id, f"{schema}.{finding.table}")
        with psycopg.connect(postgres_url, autocommit=True) as operator:
            for statement in same.ddl:
                operator.execute(statement.encode())
    engine.dispose()


def test_the_foreign_key_that_is_proposed_keeps_rows_apart_and_empties_only_its_own_column(postgres_url: str) -> None:
    models = faulty()
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    models.create_all(engine)
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        for statement in statements(review_metadata(models)):
            operator.execute(statement.encode())
        operator.execute("INSERT INTO people (id, tenant_id) VALUES (1, 'a'), (2, 'b')")
        operator.execute("""INSERT INTO "Order" (id, tenant_id, lead_id) VALUES (1, 'a', 1)""")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            operator.execute("""INSERT INTO "Order" (id, tenant_id, lead_id) VALUES (2, 'a', 2)""")
        operator.execute("DELETE FROM people WHERE id = 1")
        assert operator.execute('SELECT tenant_id, lead_id FROM "Order"').fetchall() == [("a", None)]


def test_the_new_constraints_have_what_the_old_ones_had(postgres_url: str) -> None:
    metadata = MetaData()
    Table("people", metadata, number(), key(), Column("n", Integer))
    countries = Table("countries", metadata, Column("code", String(2), primary_key=True), info=shared("reference"))
    later = {"deferrable": True, "initially": "DEFERRED"}
    Table(
        "tasks",
        metadata,
        number(),
        key(),
        Column("p", ForeignKey("people.id", onupdate="SET NULL", ondelete="CASCADE", match="FULL", **later)),
        Column("n", Integer),
        Column("country", ForeignKey(countries.c.code, ondelete="CASCADE", match="FULL")),
        UniqueConstraint("n", postgresql_nulls_not_distinct=True, postgresql_include=["p"], **later),
    )
    review = review_metadata(metadata)
    mends = {finding.id: finding.mend for finding in review.findings if finding.table == "tasks"}
    assert "ON UPDATE SET NULL is left out" in mends["foreign-key-without-tenant"]
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    metadata.create_all(engine)
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        for statement in statements(review):
            operator.execute(statement.encode())
        made = operator.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'tasks'::regclass AND contype IN ('f', 'u')"
        ).fetchall()
    assert {text for (text,) in made} == {
        "FOREIGN KEY (tenant_id, p) REFERENCES people(tenant_id, id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
        "FOREIGN KEY (country) REFERENCES countries(code) MATCH FULL",
        "UNIQUE NULLS NOT DISTINCT (tenant_id, n) INCLUDE (p) DEFERRABLE INITIALLY DEFERRED",
    }


@pytest.mark.parametrize(("table", "column"), [("t" * 50, "c" * 20), ("t" * 20, "c" * 60), ("täble" * 9, "cölumn" * 8)])
def test_the_names_that_postgresql_gives_are_known(postgres_url: str, table: str, column: str) -> None:
    metadata = MetaData()
    Table("people", metadata, number(), key())
    Table(
        table,
        metadata,
        Column(column + "_id", Integer, primary_key=True),
        key(),
        Column(column, Integer, unique=True),
        Column(f"p_{column}", ForeignKey("people.id")),
    )
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    metadata.create_all(engine)
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        for statement in statements(review_metadata(metadata)):
            operator.execute(statement.encode())


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_sqlite_is_mended_where_it_can_be_and_says_where_not() -> None:
    engine = create_engine("sqlite://", isolation_level="AUTOCOMMIT", poolclass=StaticPool)
    models = faulty()
    add_partial_indexes(models)
    models.create_all(engine)
    before = review_metadata(models, dialect="sqlite")
    with engine.connect() as connection:
        for statement in statements(before):
            connection.exec_driver_sql(statement)
        after = review_metadata(reflected(connection, models), dialect="sqlite")
        unique = set(connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql LIKE '%lower%'").scalars())
    engine.dispose()
    assert unique == {
        "CREATE UNIQUE INDEX uq_people_tenant_id_expression ON people (tenant_id, lower(nick)) WHERE nick IS NOT NULL"
    }
    mended = identities(before.findings, mended=True)
    assert {name for name, _, _ in mended} == {"no-tenant-index", "key-without-tenant", "index-without-tenant"}
    assert not mended & (identities(after.findings, mended=True) | identities(after.findings, mended=False))
    for finding in before.findings:
        if finding.id in ("cascade-from-shared", "nullable-tenant-key", "server-default-on-tenant-key"):
            assert finding.ddl == ()
            assert "batch_alter_table" in finding.mend


def test_the_ddl_for_mysql_is_in_its_own_form() -> None:
    """The same statements were run on MariaDB 10.11 by hand; no test has a server of it."""
    review = review_metadata(faulty(cascades=False), dialect="mysql")
    ddl = list(statements(review))
    assert not [one for one in ddl if "CONCURRENTLY" in one or "NOT VALID" in one or '"' in one]
    for expected in (
        "ALTER TABLE audits MODIFY tenant_id VARCHAR(40) NOT NULL",
        "ALTER TABLE `Order` ADD CONSTRAINT `fk_Order_tenant_id_lead_id` FOREIGN KEY (tenant_id, lead_id) REFERENCES people (tenant_id, id)",
        "ALTER TABLE `Order` DROP FOREIGN KEY `Order_ibfk_1`",
        "ALTER TABLE `Order` DROP FOREIGN KEY `to parent`",
        "ALTER TABLE defaults DROP PRIMARY KEY, ADD PRIMARY KEY (tenant_id, id), ADD INDEX (id)",
        "ALTER TABLE slugs DROP PRIMARY KEY, ADD PRIMARY KEY (tenant_id, slug)",
        "ALTER TABLE defaults ALTER COLUMN tenant_id DROP DEFAULT",
        "DROP INDEX `people badge` ON people",
        "CREATE INDEX `ix_Order_tenant_id_label 100%` ON `Order` (tenant_id, `label 100%`)",
    ):
        assert expected in ddl


def test_mysql_keeps_an_index_that_its_foreign_key_needs() -> None:
    metadata = MetaData()
    Table("countries", metadata, Column("code", String(2), primary_key=True), info=shared("reference data"))
    country = Column("country", ForeignKey("countries.code"), index=True)
    Table(
        "people", metadata, number(), key(), country, Column("n", Integer), UniqueConstraint("country", "n", name="u")
    )
    ddl = {one.id: (one.ddl, one.mend) for one in review_metadata(metadata, dialect="mysql").findings}
    statements, mend = ddl["index-without-tenant"]
    assert not [one for one in statements if one.startswith("DROP")]
    assert "The old index stays" in mend
    assert ddl["key-without-tenant"][0][1:] == (
        "CREATE INDEX ix_people_country_2 ON people (country)",
        "DROP INDEX u ON people",
    )


# --- names, and what the review leaves alone -----------------------------------------------------------------------


def test_new_names_are_short_enough_and_differ(postgres_url: str) -> None:
    metadata = MetaData()
    columns = [Column(f"{'x' * 50}{at}", Integer) for at in range(3)]
    Table(LONG, metadata, number(), key(), *columns, *(Index(f"i{at}", column) for at, column in enumerate(columns)))
    created = [s for s in statements(review_metadata(metadata)) if s.startswith("CREATE INDEX")]
    names = [statement.split()[3] for statement in created]
    assert len(set(names)) == len(names) == 3
    assert max(len(name.encode()) for name in names) <= 63
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    metadata.create_all(engine)
    engine.dispose()
    with psycopg.connect(postgres_url, autocommit=True) as operator:
        for statement in created:
            operator.execute(statement.encode())


def test_names_of_a_naming_convention_are_used() -> None:
    metadata = MetaData(naming_convention={"uq": "unique_%(table_name)s_%(column_0_name)s"})
    Table("rows", metadata, number(), key(), Column("x", Integer, unique=True))
    assert "ALTER TABLE rows DROP CONSTRAINT unique_rows_x" in statements(review_metadata(metadata))


def test_the_models_stay_as_they_are() -> None:
    models = faulty()
    add_partial_indexes(models)

    def state() -> list[tuple[str, list[str], list[str]]]:
        return [
            (
                name,
                sorted(str(one.name) for one in table.indexes),
                sorted(map(str, (c.name for c in table.constraints))),
            )
            for name, table in models.tables.items()
        ]

    before = state()
    for dialect in ("postgresql", "sqlite", "mysql"):
        review_metadata(models, dialect=dialect)
    assert state() == before


def test_the_script_has_each_statement_once_and_nothing_of_the_models_leaves_its_comment() -> None:
    models = faulty()
    Table("line\nDROP TABLE people; --", models, number(), info=shared("because\nDROP TABLE people;"))
    Table("evil\nname", models, number())
    script = review_metadata(models).script()
    written = [line for line in script.splitlines() if line and not line.startswith("-- ")]
    assert written == [f"{statement};" for statement in statements(review_metadata(models))]
    assert len(set(written)) == len(written)


def test_partitioned_tables_are_left_to_people() -> None:
    metadata = MetaData()
    Table(
        "rows",
        metadata,
        number(),
        key(index=False),
        Column("x", Integer, unique=True),
        postgresql_partition_by="LIST (x)",
    )
    for finding in review_metadata(metadata).findings:
        assert finding.ddl == ()
        assert "partitioned" in finding.mend


def test_what_a_database_does_not_know_is_left_to_people() -> None:
    metadata = MetaData()
    Table("countries", metadata, Column("code", String(2), primary_key=True), info=shared("reference"))
    tenant = Column("tenant_id", String, info=tenant_key(), nullable=True)
    country = Column("country", ForeignKey("countries.code", ondelete="CASCADE", match="FULL"))
    Table("rows", metadata, number(), tenant, country)
    for finding in review_metadata(metadata, dialect="mysql").at_least(Severity.ERROR):
        assert finding.ddl == ()
        assert finding.mend.endswith("SQLAlchemy can't write it for mysql: change it by hand.")
