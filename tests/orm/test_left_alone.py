"""What SQLAlchemy promises its users and the barrier leaves as it is, found with SQLAlchemy's own test-suite."""

from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, select

from tenantguard import bind, service_identity, system
from tenantguard.orm import classify_by, protect, shared


def test_items_without_an_info_are_given_none() -> None:
    table = Table("plain_items", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))
    assert not any("info" in item.__dict__ for item in (table, table.metadata, *table.columns))


def test_an_info_that_is_no_mapping_holds_no_mark() -> None:
    metadata = MetaData()
    classify_by(lambda table: shared("words"), metadata)
    words = Table("words", metadata, Column("id", Integer, primary_key=True, info="number"), info="of the app")
    engine = protect(create_engine("sqlite://"))
    with system("make tables"):
        metadata.create_all(engine)
    with bind(service_identity("x", tenant="a")), engine.begin() as connection:
        connection.execute(words.insert().values(id=1))
        assert connection.scalars(select(words.c.id)).all() == [1]
    engine.dispose()
