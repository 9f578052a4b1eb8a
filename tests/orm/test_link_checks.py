"""Each check of a foreign key by itself, in every form in which it is written."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    LABEL_STYLE_NONE,
    Column,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    column,
    create_engine,
    func,
    insert,
    literal,
    null,
    select,
    text,
    update,
    values,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.selectable import Subquery

from tenantguard import bind, service_identity, system
from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm import move_rows, protect, shared, stamp_tenant, tenant_key
from tenantguard.orm.links import MOST_AT_ONCE, links_of
from tenantguard.permits import allow_raw

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
UPPER = service_identity("test", tenant="A")
OF_B = 900_000

metadata = MetaData()
apart = MetaData()


def table(name: str, *more: Any, of: MetaData = metadata) -> Table:
    """Return a table with a key and a tenant key."""
    return Table(
        name,
        of,
        Column("id", Integer, primary_key=True),
        Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False),
        *more,
    )


class Inventing(TypeDecorator[int]):
    """Stores a number where it is given none."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int:
        return OF_B


folders = table("linked_folders", Column("name", String(99)), Column("parent_id", ForeignKey("linked_folders.id")))
documents = table("linked_documents", Column("name", String(99)), Column("folder_id", ForeignKey("linked_folders.id")))
by_default = table("linked_by_default", Column("folder_id", ForeignKey("linked_folders.id"), default=lambda: OF_B))
by_server = table("linked_by_server", Column("folder_id", ForeignKey("linked_folders.id"), server_default=str(OF_B)))
inventive = table("linked_inventive", Column("folder_id", Inventing, ForeignKey("linked_folders.id")))
places = Table(
    "linked_places",
    metadata,
    Column("x", Integer, primary_key=True),
    Column("y", Integer, primary_key=True),
    Column("tenant", String(128), info=tenant_key(), default=stamp_tenant, nullable=False),
)
visits = table(
    "linked_visits",
    Column("x", Integer),
    Column("y", Integer),
    ForeignKeyConstraint(["x", "y"], ["linked_places.x", "linked_places.y"]),
)
astray = table("linked_astray", Column("folder_id", ForeignKey("linked_nowhere.id")), of=apart)
numbers = Table("linked_numbers", metadata, Column("id", Integer, primary_key=True), info=shared("a test"))


def keyed(name: str, type_: Any, *more: Any) -> Table:
    """Return a table whose number is unique in its tenant."""
    return Table(
        name,
        metadata,
        Column("tenant", type_, info=tenant_key(), default=stamp_tenant, primary_key=True),
        Column("number", Integer, primary_key=True),
        *more,
    )


LOOSE, EXACT = String(128, collation="NOCASE"), String(128)
keyed("linked_loose", LOOSE)
keyed("linked_exact", EXACT)


def pointing(name: str, type_: Any, target: str) -> Table:
    return keyed(name, type_, ForeignKeyConstraint(["tenant", "number"], [f"{target}.tenant", f"{target}.number"]))


loose_to_exact = pointing("linked_loose_to_exact", LOOSE, "linked_exact")
exact_to_loose = pointing("linked_exact_to_loose", EXACT, "linked_loose")
exact_to_exact = pointing("linked_exact_to_exact", EXACT, "linked_exact")


def seed(engine: Engine) -> None:
    with system("make the tables"):
        metadata.create_all(engine)
    for identity, name, first in ((A, "a", 1), (B, "b", OF_B)):
        with bind(identity), engine.begin() as connection:
            connection.execute(insert(folders).values(id=first, name=f"{name}-folder"))
            connection.execute(insert(documents).values(id=first, name=f"{name}-document", folder_id=first))
            connection.execute(insert(places).values(x=first, y=first))
            connection.execute(insert(visits).values(id=first, x=first, y=first))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = protect(create_engine("sqlite://", poolclass=StaticPool), metadata=[metadata, apart])
    seed(made)
    yield made
    made.dispose()


def refused(engine: Engine, statement: Any, match: str, *parameters: Any) -> None:
    with bind(A), engine.connect() as connection, pytest.raises(ForeignTenantWrite, match=match):
        connection.execute(statement, *parameters)


# --- which foreign keys are looked up ------------------------------------------------------------------------


def test_a_foreign_key_that_contains_keys_which_are_compared_loosely_is_looked_up(engine: Engine) -> None:
    assert links_of(exact_to_exact) == ()
    assert len(links_of(loose_to_exact)) == len(links_of(exact_to_loose)) == 1
    with bind(UPPER), engine.begin() as connection:
        connection.execute(insert(metadata.tables["linked_loose"]).values(number=7))
    refused(engine, insert(exact_to_loose).values(number=7), "does not have")


def test_a_foreign_key_that_contains_the_tenants_keys_alone_is_looked_up_for_narrowed_identities() -> None:
    assert len(links_of(exact_to_exact, frozenset({"workspace"}))) == 1


def test_a_foreign_key_of_a_type_that_makes_values_of_none_is_not_written(engine: Engine) -> None:
    for statement in (insert(inventive).values(folder_id=None), update(inventive).values(folder_id=None)):
        refused(engine, statement, "makes values of none")


def test_a_foreign_key_to_a_table_that_is_not_known_is_not_written(engine: Engine) -> None:
    for statement in (insert(astray).values(folder_id=1), update(astray).values(folder_id=1)):
        refused(engine, statement, "a table that its MetaData lacks")
    with bind(A):
        insert(astray).values(id=1).compile(engine)
        update(astray).values(id=1).compile(engine)


# --- from defaults -------------------------------------------------------------------------------------------


def test_a_default_of_a_foreign_key_is_refused_beside_a_select(engine: Engine) -> None:
    for target in (by_default, by_server):
        refused(engine, insert(target).from_select(["id"], select(folders.c.id + 50)), "by a default")


def test_a_default_of_a_foreign_key_that_would_not_be_filled_is_refused(engine: Engine) -> None:
    with bind(A):
        compiled: Any = insert(by_default).values(id=1).compile(engine)
        (link,) = links_of(by_default)
        compiled.noted_links = [(link, [by_default.c.folder_id], [])]
        with pytest.raises(ForeignTenantWrite, match="by a default"):
            compiled.name_prefetched([by_default.c.id])


# --- of several columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "set_",
    [{"x": 1}, {"y": OF_B}, {"x": 1, "y": null()}, {"x": null(), "y": 1}],
    ids=["first", "second", "first and NULL", "NULL and second"],
)
def test_a_foreign_key_of_several_columns_is_set_as_a_whole(engine: Engine, set_: dict[str, Any]) -> None:
    refused(engine, update(visits).values(set_), "in parts")


def test_a_foreign_key_of_several_columns_is_not_computed(engine: Engine) -> None:
    x = select(places.c.x).scalar_subquery()
    refused(engine, update(visits).values(x=x, y=1), "from an SQL expression")
    refused(engine, insert(visits).from_select(["x", "y"], select(places.c.x, places.c.y)), "from a SELECT")


def test_a_foreign_key_of_several_columns_is_looked_up_as_a_whole(engine: Engine) -> None:
    refused(engine, update(visits).values(x=OF_B, y=OF_B), "does not have")
    refused(engine, insert(visits), "does not have", [{"id": 8, "x": 1, "y": 1}, {"id": 9, "x": 1, "y": OF_B}])
    with bind(A), engine.connect() as connection:
        connection.execute(update(visits).values(x=1, y=1))


# --- computed ------------------------------------------------------------------------------------------------


def renamed() -> Any:
    """Return a column of a subquery that says another key than its name."""
    made: Any = column("n")
    made.key, made.table = "k", select(folders.c.id.label("k"), literal(OF_B).label("n")).subquery()
    return made


RETURNING = insert(folders).values(id=60, name="x")
TWICE = select(folders.c.id, documents.c.id).set_label_style(LABEL_STYLE_NONE).cte()
SUBQUERY = select(folders.c.id).subquery()
FROM_OTHER = update(documents).where(documents.c.id == SUBQUERY.c.id).values(name="x")
TEXTUAL = text("SELECT 900000 AS id").columns(folders.c.id)
COMPUTED: dict[str, Any] = {
    "two columns": select(folders.c.id, folders.c.name).scalar_subquery(),
    "VALUES": select(values(folders.c.id, name="v").data([(OF_B,)]).c.id).scalar_subquery(),
    "a function": select(func.json_each("[900000]").table_valued(folders.c.id, name="f").c.id).scalar_subquery(),
    "a table of another kind": select(Subquery._construct(numbers, name="x").c.id).scalar_subquery(),
    "an expression that is returned": select(
        RETURNING.returning((folders.c.id + OF_B).label("id")).cte().c.id
    ).scalar_subquery(),
    "a column of no table that is returned": select(
        RETURNING.returning(Column("id", Integer)).cte().c.id
    ).scalar_subquery(),
    "another column that is returned": select(
        RETURNING.returning(folders.c.name, folders.c.id).cte().c.name
    ).scalar_subquery(),
    "a column of another element that is returned": select(
        FROM_OTHER.returning(SUBQUERY.c.id).cte().c.id
    ).scalar_subquery(),
    "a column that says another key": select(renamed()).scalar_subquery(),
    "one of two columns of one name": select(list(TWICE.c)[1]).scalar_subquery(),
    "a text that is selected": select(TEXTUAL.subquery().c.id).scalar_subquery(),
    "a column of no table": select(column("id")).select_from(folders).scalar_subquery(),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_foreign_key_is_computed_of_ones_own_alone(engine: Engine, name: str) -> None:
    refused(engine, update(documents).values(folder_id=COMPUTED[name]), "from an SQL expression")


def test_a_foreign_key_is_computed_of_what_a_statement_changes() -> None:
    engine = protect(create_engine("postgresql+psycopg://"), metadata=metadata)
    for returned in (folders.c.id, folders.c.id.label("number")):
        (chosen,) = (update(folders).values(name="x").returning(returned).cte()).c
        with bind(A):
            statement = update(documents).values(folder_id=select(chosen).limit(1).scalar_subquery())
            assert "RETURNING linked_folders.id" in str(statement.compile(engine))


def test_a_foreign_key_is_not_computed_by_a_text_where_raw_sql_may_run(engine: Engine) -> None:
    with bind(A), allow_raw("a test"), engine.connect() as connection:
        for statement in (
            update(documents).values(folder_id=select(TEXTUAL.subquery().c.id).scalar_subquery()),
            insert(documents).from_select(["folder_id"], TEXTUAL),
        ):
            with pytest.raises(ForeignTenantWrite, match="written from"):
                connection.execute(statement)


def test_a_foreign_key_that_a_select_does_not_give_is_refused(engine: Engine) -> None:
    statement = insert(documents).from_select(["id", "name", "folder_id"], select(folders.c.id, folders.c.name))
    refused(engine, statement, "from a SELECT")
    more = insert(documents).from_select(["folder_id", "id"], select(folders.c.id, folders.c.id + 50, folders.c.name))
    refused(engine, more, "from a SELECT")


# --- many rows -----------------------------------------------------------------------------------------------


def test_a_row_that_an_upsert_may_leave_out_is_not_pointed_to(engine: Engine) -> None:
    statement = sqlite.insert(folders).on_conflict_do_nothing()
    rows = [{"id": OF_B, "name": "x", "parent_id": None}, {"id": 9, "name": "y", "parent_id": OF_B}]
    refused(engine, statement, "does not have", rows)


def test_rows_of_one_statement_may_point_to_each_other(engine: Engine) -> None:
    rows = [{"id": 8, "name": "x", "parent_id": None}, {"id": 9, "name": "y", "parent_id": 8}]
    with bind(A), engine.connect() as connection:
        connection.execute(insert(folders), rows)


def test_every_key_of_many_rows_is_looked_up(engine: Engine) -> None:
    several = [{"id": 1000 + n} for n in range(MOST_AT_ONCE + 10)]
    with bind(A), engine.connect() as connection:
        connection.execute(insert(folders), several)
        pointing = [{"id": row["id"], "folder_id": row["id"]} for row in several]
        connection.execute(insert(documents), pointing)
        with pytest.raises(ForeignTenantWrite, match="does not have"):
            connection.execute(
                update(documents).where(documents.c.id == literal(1)),
                [{"folder_id": row["id"] + 0} for row in several] + [{"folder_id": OF_B}],
            )
    with bind(A), engine.connect() as connection:
        connection.execute(insert(folders), several)
        with pytest.raises(ForeignTenantWrite, match="does not have"):
            connection.execute(insert(documents), [*pointing, {"id": 9000, "folder_id": OF_B}])


def test_a_cte_that_a_foreign_key_comes_from_is_rendered_as_it_is(engine: Engine) -> None:
    start = select(folders.c.id).cte("t")
    statement = insert(documents).from_select(
        ["folder_id"], select(start.c.id).add_cte(start.union_all(select(literal(OF_B))))
    )
    with bind(A), engine.connect() as connection, pytest.raises(StatementRefused, match="continued elsewhere"):
        connection.execute(statement)


def test_a_row_that_was_found_is_looked_up_again_once_rows_may_have_moved(engine: Engine) -> None:
    own = update(folders).where(folders.c.id == 8).values(tenant="b", parent_id=None)

    def by_lift(connection: Any) -> None:
        connection.execute(own.options(move_rows(folders, reason="a splits")))

    def by_text(connection: Any) -> None:
        with allow_raw("a splits"):
            connection.execute(text("UPDATE linked_folders SET tenant = 'b' WHERE id = 8"))

    def by_driver_sql(connection: Any) -> None:
        with allow_raw("a splits"):
            connection.exec_driver_sql("UPDATE linked_folders SET tenant = 'b' WHERE id = 8")

    for move in (by_lift, by_text, by_driver_sql):
        with bind(A), engine.connect() as connection:
            connection.execute(insert(folders), {"id": 8})
            connection.execute(insert(documents), {"id": 8, "folder_id": 8})
            move(connection)
            with pytest.raises(ForeignTenantWrite, match="does not have"):
                connection.execute(insert(documents), {"id": 9, "folder_id": 8})
