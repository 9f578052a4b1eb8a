"""Attempts of a session that is bound to one tenant to reach another tenant's schema or database.

Each must be refused, or answer with nothing of the other. The other's place is looked at byte for byte afterwards.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.exc import InvalidRequestError, ObjectNotExecutableError, StatementError
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql import quoted_name

from tenantguard import allow_raw, read_tenants, system
from tenantguard.errors import BarrierError, ConfigurationError, NotBound
from tenantguard.orm import tenant_key
from tenantguard.orm.placement import Placement, Placements
from tenantguard.orm.placement.places import PlaceMap
from tests.orm.placement.conftest import Lab, as_tenant, lab_on, make_place
from tests.orm.placement.models import Customer, Order

OTHER = Table(
    "customers",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("tenant_id", String(128), nullable=False, info=tenant_key()),
    Column("name", String),
    Column("country", String(2)),
    schema="t_b",
)
C: Any = Customer.__table__
TO_B = {"schema_translate_map": {None: "t_b"}}
NAMES = select(C.c.name)


class Shifting(dict[Any, Any]):
    """A map that says one thing when it is looked at and another when it is used."""

    def get(self, key: Any, default: Any = None) -> Any:
        return "t_a"

    def __getitem__(self, key: Any) -> Any:
        return "t_b"


def _mutated(db: Session) -> Any:
    options = db.connection().get_execution_options()
    options["schema_translate_map"][None] = "t_b"
    return db.execute(NAMES).all()


def _emptied(db: Session) -> Any:
    db.connection().get_execution_options()["schema_translate_map"].clear()
    return db.execute(NAMES).all()


def _forced(db: Session) -> Any:
    given = db.connection().get_execution_options()["schema_translate_map"]
    dict.__setitem__(given, None, "t_b")
    try:
        return db.execute(NAMES).all()
    finally:
        dict.__setitem__(given, None, "t_a")


def _on_dialect(db: Session, statement: Any) -> Any:
    engine = db.get_bind().engine  # type: ignore[union-attr]
    return statement.compile(engine, schema_translate_map={None: "t_b"}, render_schema_translate=True)


def _cached(db: Session, compiled: Callable[[Any], Any]) -> Any:
    """A text for another place in the compiled cache, where A's is looked for."""
    cache: dict[Any, Any] = {}
    connection = db.connection(execution_options={"compiled_cache": cache})
    connection.execute(NAMES).all()
    for key in cache:
        cache[key] = compiled(db.get_bind().engine)  # type: ignore[union-attr]
    return connection.execute(NAMES).all()


def _retouched(engine: Any) -> Any:
    compiled = NAMES.compile(engine, schema_translate_map={None: "t_a"})
    compiled.string = compiled.string.replace("__[SCHEMA__none]", "t_b")
    return compiled


def _after_a_good_one(db: Session) -> Any:
    db.scalars(select(Customer.name)).all()
    db.scalars(select(Customer.name)).all()
    return db.scalars(select(Customer.name), execution_options=TO_B).all()


def _on_connection(db: Session, **options: Any) -> Any:
    return db.connection().execution_options(**options).execute(NAMES).all()


def _engine_of_other(placements: Placements) -> Any:
    with as_tenant("b"):
        return placements.lease("b").engine


def _raw(db: Session, statement: str) -> Any:
    with allow_raw("attempt"):
        return db.connection().execute(text(statement)).all()


def _raw_fragment(db: Session) -> Any:
    with allow_raw("attempt"):
        return db.execute(select(literal_column("(SELECT max(name) FROM t_b.customers)")).select_from(C)).all()


def _search_path(db: Session) -> Any:
    with allow_raw("attempt"):
        db.connection().exec_driver_sql("SET search_path TO t_b")
    return db.execute(NAMES).all()


def _reads(db: Session) -> Any:
    with read_tenants(["b"], reason="attempt"):
        return Session.scalars(db, select(Customer.name)).all()


Attack = Callable[[Session], Any]
READS: dict[str, Attack] = {
    "map of the statement's call": lambda db: db.execute(NAMES, execution_options=TO_B).all(),
    "map of the statement": lambda db: db.execute(NAMES.execution_options(**TO_B)).all(),
    "map of the ORM statement": lambda db: db.scalars(select(Customer.name).execution_options(**TO_B)).all(),
    "map of the connection": lambda db: _on_connection(db, **TO_B),
    "map of the session's connection": lambda db: db.connection(execution_options=TO_B).execute(NAMES).all(),
    "no map": lambda db: _on_connection(db, schema_translate_map=None),
    "an empty map": lambda db: _on_connection(db, schema_translate_map={}),
    "the default schema": lambda db: _on_connection(db, schema_translate_map={None: None}),
    "the public schema": lambda db: _on_connection(db, schema_translate_map={None: "public"}),
    "its own map, made by the caller": lambda db: _on_connection(db, schema_translate_map={None: "t_a"}),
    "a map for more": lambda db: _on_connection(db, schema_translate_map={None: "t_a", "public": "t_b"}),
    "a map that shifts": lambda db: _on_connection(db, schema_translate_map=Shifting({None: "t_b"})),
    "a place map of the other": lambda db: _on_connection(db, schema_translate_map=PlaceMap("t_b")),
    "an evil schema": lambda db: _on_connection(
        db, schema_translate_map={None: quoted_name('t_b".customers --', quote=False)}
    ),
    "the map changed in place": _mutated,
    "the map emptied": _emptied,
    "the map forced": _forced,
    "the map on the engine": lambda db: (
        db.get_bind().execution_options(**TO_B).connect().execute(NAMES).all()  # type: ignore[union-attr]
    ),
    "the map after statements without one": _after_a_good_one,
    "a compiled statement with the schema in it": lambda db: db.connection().execute(_on_dialect(db, NAMES)).all(),
    "a compiled statement with the schema in the cache": lambda db: _cached(
        db, lambda e: NAMES.compile(e, schema_translate_map={None: "t_b"}, render_schema_translate=True)
    ),
    "a compiled statement without a schema in the cache": lambda db: _cached(db, NAMES.compile),
    "a compiled statement for other schemas in the cache": lambda db: _cached(
        db, lambda e: NAMES.compile(e, schema_translate_map={"x": "y"})
    ),
    "a compiled statement that was changed in the cache": lambda db: _cached(db, _retouched),
    "a table of the other's schema": lambda db: db.execute(select(OTHER.c.name)).all(),
    "a subquery in the other's schema": lambda db: db.execute(
        select(C.c.name).where(C.c.id.in_(select(OTHER.c.id)))
    ).all(),
    "a copy of the table": lambda db: db.execute(select(C.to_metadata(MetaData(), schema="t_b").c.name)).all(),
    "a copy in the same metadata": lambda db: db.execute(
        select(Table("customers", C.metadata, Column("id", Integer), schema="t_b", extend_existing=True).c.id)
    ).all(),
    "text": lambda db: db.execute(text("SELECT name FROM t_b.customers")).all(),
    "text in allow_raw": lambda db: _raw(db, "SELECT name FROM t_b.customers"),
    "text in allow_raw without a schema": lambda db: _raw(db, "SELECT name FROM customers"),
    "a textual fragment in allow_raw": _raw_fragment,
    "search_path in allow_raw": _search_path,
    "set_config": lambda db: db.execute(select(func.set_config("search_path", "t_b", False))).all(),
    "driver SQL": lambda db: db.connection().exec_driver_sql("SELECT name FROM t_b.customers").all(),
    "a bind argument": lambda db: db.execute(NAMES, bind_arguments={"bind": create_engine("sqlite://")}).all(),
    "read_tenants": _reads,
    "an alias": lambda db: db.execute(
        select(aliased(Customer).name), execution_options={"schema_translate_map": {None: "t_b"}}
    ).all(),
    "a child table": lambda db: db.execute(select(Order.total), execution_options=TO_B).all(),
    "a lazy load": lambda db: db.get(Customer, 1, execution_options=TO_B),
    "autocommit": lambda db: (
        db.get_bind()
        .execution_options(isolation_level="AUTOCOMMIT", **TO_B)  # type: ignore[union-attr]
        .connect()
        .execute(NAMES)
        .all()
    ),
    "a stream": lambda db: db.execute(NAMES, execution_options={"yield_per": 1, **TO_B}).all(),
}
WRITES: dict[str, Attack] = {
    "insert": lambda db: db.execute(insert(C), [{"id": 9, "name": "x"}], execution_options=TO_B),
    "insert many with returning": lambda db: db.execute(
        insert(C).returning(C.c.id), [{"id": 8, "name": "x"}, {"id": 9, "name": "y"}], execution_options=TO_B
    ).all(),
    "update": lambda db: db.execute(update(C).values(name="x"), execution_options=TO_B),
    "delete": lambda db: db.execute(delete(C), execution_options=TO_B),
    "insert of the ORM": lambda db: (
        db.connection(execution_options=TO_B),
        db.add(Customer(id=9, name="x")),
        db.flush(),
    ),
    "insert into the other's table": lambda db: db.execute(insert(OTHER), [{"id": 9, "name": "x"}]),
    "insert from the other's table": lambda db: db.execute(
        insert(C).from_select(["name"], select(OTHER.c.name), include_defaults=True)
    ),
    "compiled insert": lambda db: db.connection().execute(_on_dialect(db, insert(C).values(id=9, name="x"))),
    "drop": lambda db: db.connection().exec_driver_sql("DROP SCHEMA t_b CASCADE"),
    "create": lambda db: C.metadata.create_all(db.connection(execution_options=TO_B), checkfirst=False),
}


OWN = {"map of the statement": [("of a",)], "map of the ORM statement": ["of a"]}
"""What SQLAlchemy itself takes no notice of answers with the tenant's own rows."""


@pytest.fixture(scope="module")
def dump_statement() -> str:
    return (
        "SELECT 'c', id, tenant_id, name FROM t_b.customers UNION ALL SELECT 'o', id, '', total::text FROM t_b.orders"
    )


@pytest.fixture(scope="module")
def world(postgres_module_url: str) -> Iterator[tuple[Lab, Placements]]:
    with lab_on(postgres_module_url) as lab:
        placements = Placements(lab.directory, lab.databases)
        fill(lab, placements)
        yield lab, placements
        placements.close()


def fill(lab: Lab, placements: Placements) -> None:
    for tenant in "ab":
        make_place(lab, Placement(schema=f"t_{tenant}"))
        lab.directory.add(tenant, placement=Placement(schema=f"t_{tenant}"))
    for tenant in "ab":
        with as_tenant(tenant), placements.sessionmaker().begin() as db:
            db.add(Customer(id=1, name=f"of {tenant}"))
            db.flush()
            db.add(Order(id=1, customer_id=1, total=1 if tenant == "a" else 4711))
    # Rows that say they are a's stand in b's schema too: the predicate alone would let them through.
    bare = create_engine(lab.databases.shared_url)
    with bare.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t_b.customers (id, tenant_id, name) VALUES (2, 'a', 'of b, posing')")
        connection.exec_driver_sql("INSERT INTO t_b.orders (id, customer_id, total) VALUES (2, 2, 4712)")
        connection.exec_driver_sql("INSERT INTO customers (id, tenant_id, name) VALUES (3, 'a', 'of nobody')")
    bare.dispose()


def dump(lab: Lab, statement: str) -> list[Any]:
    bare = create_engine(lab.databases.shared_url)
    with bare.connect() as connection:
        rows = sorted(map(tuple, connection.exec_driver_sql(statement)))
    bare.dispose()
    return rows


@pytest.fixture(scope="module", autouse=True)
def _foreign_copies_do_not_outlive_the_module() -> Iterator[None]:
    yield
    C.metadata.remove(C.metadata.tables["t_b.customers"]) if "t_b.customers" in C.metadata.tables else None


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_a_session_of_one_tenant_does_not_reach_the_schema_of_another(
    name: str, world: tuple[Lab, Placements], dump_statement: str
) -> None:
    lab, placements = world
    before = dump(lab, dump_statement)
    attack = {**READS, **WRITES}[name]
    with as_tenant("a"), placements.sessionmaker()() as db:
        try:
            answer = attack(db)
            db.commit()
        except (BarrierError, ConfigurationError, ObjectNotExecutableError):
            answer = "refused"
        except StatementError as error:  # SQLAlchemy itself refuses to render the text
            answer = "refused" if isinstance(error.orig, InvalidRequestError) else error
        assert answer in ("refused", OWN.get(name))
    C.metadata.remove(C.metadata.tables["t_b.customers"]) if "t_b.customers" in C.metadata.tables else None
    assert dump(lab, dump_statement) == before
    with as_tenant("a"), placements.sessionmaker()() as db:
        assert db.scalars(select(Customer.name)).all() == ["of a"]


def test_the_engine_of_another_tenant_is_of_no_use(world: tuple[Lab, Placements]) -> None:
    _, placements = world
    with as_tenant("b"):
        engine = placements.lease("b").engine
    with as_tenant("a"), engine.connect() as connection, pytest.raises(BarrierError):
        connection.execute(NAMES)
    with as_tenant("a"), Session(engine) as db, pytest.raises(BarrierError):
        db.scalars(select(Customer)).all()
    with as_tenant("a"), placements._shared.connect() as connection, pytest.raises(BarrierError):
        connection.execute(NAMES)  # the shared tables are not a's place either
    with engine.connect() as connection, pytest.raises(NotBound):
        connection.execute(NAMES)


def test_the_drivers_own_commit_does_not_go_round_the_check(world: tuple[Lab, Placements]) -> None:
    lab, placements = world
    with as_tenant("a"), placements.sessionmaker()() as db:
        db.add(Customer(id=99, name="past the check"))
        db.flush()
        with pytest.raises(BarrierError, match="does not look"):
            db.connection().connection.commit()
        with allow_raw("attempt"), pytest.raises(BarrierError, match="does not look"):
            db.connection().connection.commit()
    assert dump(lab, "SELECT id FROM t_a.customers WHERE id = 99") == []


def test_a_session_takes_no_engine(world: tuple[Lab, Placements]) -> None:
    _, placements = world
    Session_ = placements.sessionmaker()
    plain = create_engine("sqlite://")
    with pytest.raises(ConfigurationError):
        Session_(bind=plain)
    with pytest.raises(ConfigurationError):
        Session_(binds={Customer: plain})
    with as_tenant("a"), Session_() as db:
        with pytest.raises(BarrierError):
            db.bind_mapper(Customer, plain)
        with pytest.raises(BarrierError):
            db.bind_table(C, plain)
        db.bind = plain
        assert db.scalars(select(Customer.name)).all() == ["of a"]
    plain.dispose()


def test_a_database_of_one_tenant_is_not_reached_by_another(sqlite_lab: Lab) -> None:
    from tests.orm.placement.models import Note

    for tenant in "ab":
        make_place(sqlite_lab, Placement(database=tenant))
        sqlite_lab.directory.add(tenant, placement=Placement(database=tenant))
    sqlite_lab.directory.add("s")
    placements = Placements(sqlite_lab.directory, sqlite_lab.databases)
    with as_tenant("b"):
        engine = placements.lease("b").engine
    for tenant in "as":
        with as_tenant(tenant), engine.connect() as connection:
            with pytest.raises(BarrierError):
                connection.execute(insert(Note), [{"title": "in the wrong place"}])
            with pytest.raises(BarrierError):
                connection.execute(select(Note.__table__.c.title))
    with as_tenant("b"), engine.connect() as connection:
        assert connection.execute(select(Note.__table__.c.title)).all() == []
    placements.close()


def test_a_prepared_transaction_is_refused_since_it_could_outlive_the_stay(world: tuple[Lab, Placements]) -> None:
    _, placements = world
    with as_tenant("a"), placements.lease("a").engine.connect() as connection:
        transaction = connection.begin_twophase()
        with pytest.raises(BarrierError):
            connection.execute(NAMES)
            transaction.prepare()


def test_a_system_context_on_an_engine_of_placements_is_what_it_says(world: tuple[Lab, Placements]) -> None:
    """It is the one door, and it is the operator's: nobody is bound in it."""
    _, placements = world

    def names(connection: Connection) -> list[str]:
        return sorted(connection.scalars(NAMES))

    with system("look"), placements._shared.connect() as connection:
        assert names(connection) == ["of nobody"]
