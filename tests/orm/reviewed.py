"""Tables with everything that a review finds fault with, once each, and how they are put into a real database."""

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
    func,
    text,
)

from tenantguard.orm import owned_through, shared, stamp_tenant, tenant_key

LONG = "measurements_of_the_laboratories_of_the_northern_districts"


def key(*, index: bool = True, **options: object) -> "Column[str]":
    options = {"default": stamp_tenant, "nullable": False, **options}
    return Column("tenant_id", String(40), index=index, info=tenant_key(), **options)


def number(name: str = "id") -> "Column[int]":
    return Column(name, Integer, primary_key=True)


def faulty(schema: str | None = None, *, cascades: bool = True) -> MetaData:
    """Make the tables.

    Args:
        schema: where they are.
        cascades: with foreign keys that empty or change; MySQL refuses those that are faulty there.
    """
    metadata = MetaData(schema=schema)
    countries = Table(
        "countries", metadata, Column("code", String(2), primary_key=True), info=shared("countries: reference data")
    )
    people = Table(
        "people",
        metadata,
        number(),
        key(),
        Column("email", String(60), unique=True),
        Column("badge", String(20)),
        Column("nick", String(20), index=True),
        Column("country", ForeignKey(countries.c.code, ondelete="CASCADE")),
        Index("people badge", "badge", unique=True),
        UniqueConstraint("nick", "country", name="uq_nick"),
    )
    Table(
        "Order",  # a reserved word, and in need of quotes
        metadata,
        number(),
        key(index=False),
        Column("label 100%", String(20)),
        Column("lead_id", ForeignKey(people.c.id, ondelete="SET NULL" if cascades else None)),
        Column("parent_id", Integer),
        ForeignKeyConstraint(["parent_id"], [f"{schema}.Order.id" if schema else "Order.id"], name="to parent"),
        Index("by label", "label 100%"),
    )
    Table("audits", metadata, number(), key(nullable=True), Column("what", String(20)))
    Table("defaults", metadata, number(), key(server_default="acme"))
    Table("slugs", metadata, Column("slug", String(40), primary_key=True), key())
    Table(
        LONG,
        metadata,
        number(),
        key(),
        Column("kind", String(20)),
        Column("value", Integer),
        Index(None, "kind", "value"),
    )
    tasks = Table(
        "tasks",
        metadata,
        number(),
        Column("person_id", ForeignKey(people.c.id), nullable=False),
        Column("helper_id", ForeignKey(people.c.id)),
        Column("code", String(20), unique=True),
        info=owned_through("person_id"),
    )
    Table(
        "notes",
        metadata,
        number(),
        Column("task_id", ForeignKey(tasks.c.id), nullable=False, index=True),
        info=owned_through("tasks"),
    )
    Table(
        "settings",
        metadata,
        Column("name", String(20), primary_key=True),
        Column("person_id", ForeignKey(people.c.id)),
        info=shared("settings: the same for all"),
    )
    Table("forgotten", metadata, number())
    return metadata


def add_partial_indexes(metadata: MetaData) -> None:
    """Add what PostgreSQL and SQLite have, and MySQL does not."""
    people = next(table for table in metadata.tables.values() if table.name == "people")
    present = text("nick IS NOT NULL")
    Index("uq_lower", func.lower(people.c.nick), unique=True, postgresql_where=present, sqlite_where=present)
    Index("ix_down", people.c.badge.desc())


def reflected(connection: Connection, models: MetaData) -> MetaData:
    """Return the tables as the database has them now, with the marks of the models."""
    found = MetaData()
    for model in models.tables.values():
        table = Table(model.name, found, schema=model.schema, autoload_with=connection)
        table.info.update(model.info)
        for column in model.columns:
            table.columns[column.name].info.update(column.info)
            table.columns[column.name].default = column.default
    return found
