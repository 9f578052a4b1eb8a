"""The review of the models: what each table is, and each rule by itself."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import StaticPool

from tenantguard import bind, service_identity, system
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm import owned_through, protect, shared, tenant_key
from tenantguard.orm.review import Review, Severity, review_metadata
from tests.orm import family
from tests.orm.reviewed import faulty, key, number

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))


def kinds(review: Review) -> dict[str, tuple[str, str]]:
    return {table.name: (table.kind, table.detail) for table in review.tables}


def found(metadata: MetaData, dialect: str = "postgresql") -> set[tuple[str, str]]:
    return {(finding.id, finding.table) for finding in review_metadata(metadata, dialect=dialect).findings}


# --- what each table is ------------------------------------------------------------------------------------------


def test_every_table_is_listed_with_its_class_and_the_path_to_the_tenant_key() -> None:
    assert kinds(review_metadata(family.Base.metadata)) == {
        "campaigns": ("child", "campaigns.id -> projects.tenant_id"),
        "task_comments": ("child", "task_comments.task_id -> tasks.project_id -> projects.tenant_id"),
        "invoices": ("owned", "invoices.tenant_id"),
        "lines": ("owned", "lines.tenant_id"),
        "people": ("owned", "people.tenant_id"),
        "projects": ("owned", "projects.tenant_id"),
        "settings": ("shared", "settings: the same for all"),
        "tasks": ("child", "tasks.project_id -> projects.tenant_id"),
        "watchers": ("child", "watchers.project_id -> projects.tenant_id"),
    }


def test_tables_that_can_not_be_used_are_errors_and_say_why() -> None:
    metadata = MetaData()
    Table("forgotten", metadata, number())
    Table("both", metadata, number(), key(), info=shared("both"))
    Table(
        "circle_a", metadata, number(), Column("b", ForeignKey("circle_b.id"), nullable=False), info=owned_through("b")
    )
    Table(
        "circle_b", metadata, number(), Column("a", ForeignKey("circle_a.id"), nullable=False), info=owned_through("a")
    )
    Table("float", metadata, number(), Column("tenant", UUID(), info=tenant_key(), nullable=True))
    review = review_metadata(metadata)
    assert {(finding.table, finding.id) for finding in review.at_least(Severity.ERROR)} == {
        ("forgotten", "unclassified-table"),
        ("both", "misconfigured-table"),
        ("circle_a", "misconfigured-table"),
        ("circle_b", "misconfigured-table"),
        ("float", "nullable-tenant-key"),
    }
    assert "shared() and has the key" in kinds(review)["both"][1]
    assert "owned through itself" in kinds(review)["circle_a"][1]


def test_several_metadata_are_reviewed_together() -> None:
    one, other = MetaData(), MetaData()
    Table("b", one, number(), key())
    Table("a", other, number(), key())
    assert [table.name for table in review_metadata(one, other, one).tables] == ["a", "b"]


def test_a_foreign_key_to_a_table_that_is_not_there_is_said() -> None:
    metadata = MetaData()
    Table("notes", metadata, number(), key(), Column("task_id", ForeignKey("tasks.id")))
    assert ("unresolved-foreign-key", "notes") in found(metadata)


def test_another_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mysql, postgresql, sqlite"):
        review_metadata(MetaData(), dialect="oracle")


# --- the rules, one by one -----------------------------------------------------------------------------------------


def test_what_is_in_order_is_no_finding() -> None:
    metadata = MetaData()
    parents = Table(
        "parents",
        metadata,
        Column("tenant_id", String(40), primary_key=True, info=tenant_key(), default=lambda: "a"),
        number(),
        Column("email", String(60)),
        UniqueConstraint("email", "tenant_id"),
        Index("ix_parents_email", "tenant_id", "email"),
    )
    Table(
        "children",
        metadata,
        Column("tenant_id", String(40), primary_key=True, info=tenant_key(), default=lambda: "a"),
        number(),
        Column("parent_id", Integer),
        ForeignKeyConstraint(["tenant_id", "parent_id"], [parents.c.tenant_id, parents.c.id], ondelete="CASCADE"),
    )
    Table("countries", metadata, Column("code", String(2), primary_key=True, unique=True), info=shared("reference"))
    assert review_metadata(metadata).findings == ()


def test_a_key_that_contains_a_foreign_key_to_a_tenants_row_is_confined_to_that_tenant() -> None:
    metadata = MetaData()
    Table("people", metadata, number(), key())
    Table(
        "badges",
        metadata,
        Column("person_id", ForeignKey("people.id"), primary_key=True),
        Column("number", Integer, primary_key=True),
        key(),
        Column("colour", String(10)),
        UniqueConstraint("person_id", "colour"),
    )
    Table(
        "notes",
        metadata,
        Column("person_id", ForeignKey("people.id"), primary_key=True),
        Column("number", Integer, primary_key=True),
        info=owned_through("people"),
    )
    assert not {name for name, table in found(metadata) if "key-without-tenant" in name and table != "people"} - {
        "foreign-key-without-tenant"
    }
    nulls = Table(
        "nulls",
        metadata,
        number(),
        key(),
        Column("person_id", ForeignKey("people.id")),
        UniqueConstraint("person_id", postgresql_nulls_not_distinct=True),
    )
    assert ("key-without-tenant", nulls.name) in found(metadata), "two tenants' rows without a person would clash"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (number(), "generated-key-without-tenant"),
        (Column("id", UUID(), primary_key=True, default=uuid.uuid4), "generated-key-without-tenant"),
        (
            Column("id", UUID(), primary_key=True, server_default=text("gen_random_uuid()")),
            "generated-key-without-tenant",
        ),
        (Column("slug", String(20), primary_key=True), "key-without-tenant"),
        (Column("slug", String(20), primary_key=True, default="x"), "key-without-tenant"),
    ],
    ids=["serial", "uuid", "server uuid", "natural", "natural with a constant"],
)
def test_a_primary_key_that_people_choose_is_worse_than_one_that_is_generated(
    column: "Column[Any]", expected: str
) -> None:
    metadata = MetaData()
    Table("rows", metadata, column, key())
    (finding,) = review_metadata(metadata).findings
    assert (finding.id, finding.severity) == (
        expected,
        Severity.ADVICE if expected.startswith("generated") else Severity.WARNING,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"default": "acme"}, "tenant-key-with-fixed-default"),
        ({"server_default": "acme"}, "server-default-on-tenant-key"),
        ({"nullable": True}, "nullable-tenant-key"),
        ({"index": False}, "no-tenant-index"),
        ({}, None),
    ],
    ids=str,
)
def test_the_tenant_key_itself_is_examined(options: dict[str, Any], expected: str | None) -> None:
    metadata = MetaData()
    Table("rows", metadata, number(), key(**options))
    assert {name for name, _ in found(metadata)} - {"generated-key-without-tenant"} == ({expected} - {None})


def test_a_unique_key_of_an_expression_does_not_contain_its_columns() -> None:
    metadata = MetaData()
    Table("rows", metadata, number(), key(), Index("uq", text("lower(tenant_id)"), unique=True))
    assert ("key-without-tenant", "rows") in found(metadata)


def test_a_partial_index_does_not_serve_every_statement() -> None:
    metadata = MetaData()
    Table("rows", metadata, number(), key(index=False), Index("ix", "tenant_id", postgresql_where=text("id > 5")))
    assert ("no-tenant-index", "rows") in found(metadata)


def test_indexes_of_other_kinds_are_left_alone() -> None:
    metadata = MetaData()
    Table("rows", metadata, number(), key(), Column("words", String), Index("ix", "words", postgresql_using="gin"))
    assert ("index-without-tenant", "rows") not in found(metadata)


def test_a_unique_index_with_the_tenant_key_at_another_place_is_started_with_it() -> None:
    metadata = MetaData()
    Table("rows", metadata, number(), key(), Column("x", Integer), Index("ux", "x", "tenant_id", unique=True))
    finding = next(one for one in review_metadata(metadata).findings if one.id == "index-without-tenant")
    assert finding.ddl == (
        "CREATE UNIQUE INDEX CONCURRENTLY uq_rows_tenant_id_x ON rows (tenant_id, x)",
        "DROP INDEX CONCURRENTLY ux",
    )


def test_only_foreign_keys_with_both_tenant_keys_side_by_side_are_held_by_the_database() -> None:
    metadata = MetaData()
    code = Column("code", String(40))
    people = Table("people", metadata, number(), key(), code, UniqueConstraint("tenant_id", "id"))
    good = Table("good", metadata, number(), key(), Column("p", Integer))
    good.append_constraint(ForeignKeyConstraint(["tenant_id", "p"], [people.c.tenant_id, people.c.id]))
    crossed = Table("crossed", metadata, number(), key(), Column("other", String(40)), Column("p", Integer))
    crossed.append_constraint(ForeignKeyConstraint(["other", "p"], [people.c.tenant_id, people.c.id]))
    Table("plain", metadata, number(), key(), Column("p", ForeignKey(people.c.id)))
    swapped = Table("swapped", metadata, number(), key(), Column("other", String(40)))
    swapped.append_constraint(ForeignKeyConstraint(["other", "tenant_id"], [people.c.tenant_id, people.c.code]))
    flagged = {
        finding.table: bool(finding.ddl)
        for finding in review_metadata(metadata).findings
        if finding.id == "foreign-key-without-tenant"
    }
    assert flagged == {"crossed": False, "swapped": False, "plain": True}


def test_the_foreign_key_that_makes_a_child_is_no_finding_and_its_others_are() -> None:
    metadata = MetaData()
    Table("people", metadata, number(), key())
    person = Column("person_id", ForeignKey("people.id", ondelete="CASCADE"), nullable=False, index=True)
    Table("notes", metadata, number(), person, info=owned_through("person_id"))
    assert found(metadata) == {("generated-key-without-tenant", "notes"), ("generated-key-without-tenant", "people")}
    Table(
        "tasks",
        metadata,
        number(),
        Column("person_id", ForeignKey("people.id"), nullable=False, index=True),
        Column("helper_id", ForeignKey("people.id", ondelete="SET NULL")),
        info=owned_through("person_id"),
    )
    assert {name for name, table in found(metadata) if table == "tasks"} == {
        "generated-key-without-tenant",
        "foreign-key-without-tenant",
        "cascade-across-tenants",
    }


def test_an_integer_key_and_a_string_key_can_not_be_one_foreign_key() -> None:
    metadata = MetaData()
    Table("people", metadata, number(), Column("org", Integer, info=tenant_key(), nullable=False))
    Table("plain", metadata, number(), key(), Column("p", ForeignKey("people.id")))
    finding = next(one for one in review_metadata(metadata).findings if one.id == "foreign-key-without-tenant")
    assert finding.ddl == ()
    assert "of different types" in finding.mend


def test_a_composite_foreign_key_must_not_empty_the_tenant_key() -> None:
    metadata = MetaData()
    people = Table("people", metadata, number(), key(), UniqueConstraint("tenant_id", "id"))
    for name, action in (("faulty", "SET NULL"), ("good", "SET NULL (p)")):
        table = Table(name, metadata, number(), key(), Column("p", Integer))
        table.append_constraint(
            ForeignKeyConstraint(["tenant_id", "p"], [people.c.tenant_id, people.c.id], ondelete=action, name="fk")
        )
    (finding,) = [one for one in review_metadata(metadata).findings if one.id == "set-null-on-tenant-key"]
    assert finding.table == "faulty"
    assert finding.ddl[0].endswith("ON DELETE SET NULL (p) NOT VALID")


# --- what the database does behind the barrier's back: the findings are real -------------------------------------


def names_after(metadata: MetaData, table: Table, act: Callable[[Connection], object]) -> set[str]:
    """Return the names in tenant b's rows after tenant a did something."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys=ON"))
    protect(engine, metadata=metadata)
    with system("create the test's tables"):
        metadata.create_all(engine)
    with bind(B), engine.begin() as connection:
        for shared_table in (one for one in metadata.tables.values() if one is not table):
            connection.execute(insert(shared_table).values(code="NZ"))
        connection.execute(insert(table).values({"name": "bob", **({"country": "NZ"} if "country" in table.c else {})}))
    with bind(A), engine.begin() as connection:
        act(connection)
    with bind(B), engine.begin() as connection:
        names = set(connection.scalars(select(table.c.name)))
    engine.dispose()
    return names


def with_replace(replace: bool) -> Table:
    options = {"sqlite_on_conflict_unique": "REPLACE"} if replace else {}
    return Table("people", MetaData(), number(), key(), Column("name", String(20), unique=True, **options))


def test_replace_on_a_key_of_all_tenants_is_an_error_since_an_insert_deletes_anothers_row() -> None:
    table = with_replace(True)
    (finding,) = review_metadata(table.metadata, dialect="sqlite").at_least(Severity.ERROR)
    assert (finding.id, finding.table) == ("replace-across-tenants", "people")

    def act(connection: Connection) -> None:
        connection.execute(insert(table).values(name="bob"))

    with pytest.raises(StatementRefused, match="REPLACE"):
        names_after(table.metadata, table, act)
    plain = with_replace(False)
    assert not review_metadata(plain.metadata, dialect="sqlite").at_least(Severity.ERROR)
    with pytest.raises(IntegrityError):
        names_after(plain.metadata, plain, lambda connection: connection.execute(insert(plain).values(name="bob")))


@pytest.mark.parametrize(
    "constraint",
    [
        lambda: UniqueConstraint("name", "size", sqlite_on_conflict="REPLACE"),
        lambda: UniqueConstraint("name", sqlite_on_conflict="replace"),
    ],
    ids=["of two columns", "of one"],
)
def test_replace_is_found_on_constraints_as_well(constraint: Callable[[], UniqueConstraint]) -> None:
    metadata = MetaData()
    Table("rows", metadata, number(), key(), Column("name", String(20)), Column("size", Integer), constraint())
    assert ("replace-across-tenants", "rows") in found(metadata, "sqlite")


def test_replace_is_found_on_the_primary_key() -> None:
    metadata = MetaData()
    Table("rows", metadata, Column("id", Integer, primary_key=True, sqlite_on_conflict_primary_key="REPLACE"), key())
    assert ("replace-across-tenants", "rows") in found(metadata, "sqlite")


def with_country(**actions: str) -> Table:
    metadata = MetaData()
    Table("countries", metadata, Column("code", String(2), primary_key=True), info=shared("reference data"))
    country = Column("country", ForeignKey("countries.code", **actions))
    return Table("people", metadata, number(), key(), Column("name", String(20)), country)


def test_a_cascade_from_a_shared_table_is_an_error_since_any_tenant_may_delete_there() -> None:
    table = with_country(ondelete="CASCADE")
    (finding,) = review_metadata(table.metadata).at_least(Severity.ERROR)
    assert finding.id == "cascade-from-shared"

    def act(connection: Connection) -> None:
        connection.execute(delete(table.metadata.tables["countries"]))

    with pytest.raises(StatementRefused, match="CASCADE"):
        names_after(table.metadata, table, act)
    for mended in (with_country(), with_country(ondelete="RESTRICT", onupdate="NO ACTION")):
        assert not review_metadata(mended.metadata).at_least(Severity.ERROR)


@pytest.mark.parametrize("actions", [{"ondelete": "set null"}, {"onupdate": "CASCADE"}, {"ondelete": "SET DEFAULT"}])
def test_every_action_that_changes_rows_is_found(actions: dict[str, str]) -> None:
    assert ("cascade-from-shared", "people") in found(with_country(**actions).metadata)


def test_shared_rows_may_go_together() -> None:
    metadata = MetaData()
    Table("countries", metadata, Column("code", String(2), primary_key=True), info=shared("reference data"))
    country = Column("country", ForeignKey("countries.code", ondelete="CASCADE"))
    Table("cities", metadata, number(), country, info=shared("reference data"))
    assert not found(metadata)


def test_a_shared_row_that_points_to_a_tenants_is_found_and_so_is_its_cascade() -> None:
    assert ("shared-row-of-tenant", "settings") in found(faulty())
    metadata = MetaData()
    Table("people", metadata, number(), key())
    Table("settings", metadata, number(), Column("p", ForeignKey("people.id", ondelete="CASCADE")), info=shared("all"))
    assert ("cascade-across-tenants", "settings") in found(metadata)
