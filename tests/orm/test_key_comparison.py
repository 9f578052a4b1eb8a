"""A tenant's id is its rows' key character by character, whatever the database or the key's type takes for equal."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Engine,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    create_engine,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.exc import IntegrityError

from tenantguard import bind, read_tenants, service_identity, system
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, StatementRefused
from tenantguard.identity import MAX_TENANT_ID_LENGTH
from tenantguard.orm import owned_through, protect, stamp_tenant, tenant_key
from tenantguard.orm.classify import classify
from tenantguard.orm.key_types import TENANT_ID_TYPE
from tests.support.engines import DATABASES, protected_engine

LOOKALIKES = ("a", "A", "á", "Á", "à", "a ", "\uff41")
IDS = ("a", "A", "á", "Á", "à")


class FoldedComparison(String):
    """A string whose == compares without regard to case, as many apps have one."""

    cache_ok = True

    class comparator_factory(String.Comparator):
        def __eq__(self, other: object) -> Any:  # type: ignore[override]
            return func.lower(self.expr) == func.lower(other)


# The database, the type in the model, and, where it is another, the type of the column that is really there.
KEYS: dict[str, tuple[str, Any, str | None]] = {
    "sqlite plain": ("sqlite", String(50), None),
    "sqlite nocase": ("sqlite", String(50, collation="NOCASE"), None),
    "sqlite rtrim": ("sqlite", String(50, collation="RTRIM"), None),
    "sqlite nocase that the model does not know": ("sqlite", String(50), "VARCHAR(50) COLLATE NOCASE"),
    "sqlite text": ("sqlite", Text(), None),
    "sqlite comparator": ("sqlite", FoldedComparison(50), None),
    "postgresql plain": ("postgresql", String(50), None),
    "postgresql comparator": ("postgresql", FoldedComparison(50), None),
    "icu nondeterministic": ("icu", String(50, collation="folded"), None),
    "icu citext": ("icu", postgresql.CITEXT(), None),
    "icu citext as a variant": ("icu", String(50).with_variant(postgresql.CITEXT(), "postgresql"), None),
    "icu citext that the model does not know": ("icu", String(50), "CITEXT"),
    "psycopg2 citext": ("psycopg2", postgresql.CITEXT(), None),
    "psycopg2 citext that the model does not know": ("psycopg2", String(50), "CITEXT"),
    "mariadb default": ("mariadb", String(50), None),
    "mariadb unicode": ("mariadb", String(50, collation="utf8mb4_unicode_ci"), None),
    "mariadb binary collation": ("mariadb", String(50, collation="utf8mb4_bin"), None),
    "mariadb latin1": ("mariadb", mysql.VARCHAR(50, charset="latin1"), None),
    "mariadb mixin": ("mariadb", TENANT_ID_TYPE, None),
    "mariadb mixin, column made earlier": ("mariadb", TENANT_ID_TYPE, "VARCHAR(128)"),
    "mariadb comparator": ("mariadb", FoldedComparison(50), None),
}


NUMBERS = itertools.count()


def tables(type_: Any, **key_options: Any) -> tuple[Table, Table]:
    """Return a table with such a key, and a child of it. Their names are new: tables of one name are of one kind."""
    metadata, name = MetaData(), f"notes_{next(NUMBERS)}"
    key = Column("tenant", type_, nullable=False, index=True, info=tenant_key(**key_options))
    notes = Table(name, metadata, Column("id", Integer, primary_key=True), key, Column("title", String(50)))
    lines = Table(
        f"{name}_lines",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("note_id", ForeignKey(f"{name}.id"), nullable=False),
        info=owned_through(name),
    )
    return notes, lines


@contextmanager
def comparing_engine(request: pytest.FixtureRequest, database: str) -> Iterator[Engine]:
    if database in DATABASES:
        with protected_engine(request, database) as engine:
            yield engine
        return
    url = request.getfixturevalue("debian_postgres_url")
    engine = protect(create_engine(url.replace(":", f"+{'psycopg' if database == 'icu' else database}:", 1)))
    try:
        make_types(engine)
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def keyed(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Table, Table]]:
    database, type_, real = KEYS[request.param]
    with comparing_engine(request, database) as engine:
        notes, lines = fill(engine, type_, real)
        yield engine, notes, lines
        drop(engine, notes)


def make_types(engine: Engine) -> None:
    with system("what the types need"), engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS citext"))
        options = "provider = icu, locale = 'und-u-ks-level1', deterministic = false"
        connection.execute(text(f"CREATE COLLATION IF NOT EXISTS folded ({options})"))


def fill(engine: Engine, type_: Any, real: str | None, **key_options: Any) -> tuple[Table, Table]:
    notes, lines = tables(type_, **key_options)
    with system("make and fill the tables"), engine.begin() as connection:
        if real is not None:
            serial = {"sqlite": "INTEGER", "postgresql": "SERIAL"}.get(engine.dialect.name, "INTEGER AUTO_INCREMENT")
            connection.execute(
                text(f"CREATE TABLE {notes.name} (id {serial} PRIMARY KEY, tenant {real} NOT NULL, title VARCHAR(50))")
            )
            connection.execute(text(f"CREATE INDEX ix_{notes.name}_tenant ON {notes.name} (tenant)"))
        notes.metadata.create_all(connection)
        latin = getattr(type_, "charset", None) == "latin1"
        for number, key in enumerate(LOOKALIKES, 1):
            if latin and key == "\uff41":
                continue
            row = {"id": number, "tenant": key, "title": f"of <{key}>"}
            connection.execute(text(f"INSERT INTO {notes.name} (id, tenant, title) VALUES (:id, :tenant, :title)"), row)
            connection.execute(insert(lines).values(id=number, note_id=number))
    return notes, lines


def drop(engine: Engine, table: Table) -> None:
    with system("drop the tables"), engine.begin() as connection:
        table.metadata.drop_all(connection)


@pytest.mark.parametrize("keyed", KEYS, indirect=True)
def test_no_statement_reaches_the_rows_of_a_tenant_whose_id_only_looks_alike(
    keyed: tuple[Engine, Table, Table],
) -> None:
    engine, notes, lines = keyed
    other = notes.alias("other")
    for number, tenant in enumerate(LOOKALIKES, 1):
        if tenant not in IDS:
            continue
        with bind(service_identity("t", tenant=tenant)), engine.connect() as db:
            own = [f"of <{tenant}>"]
            assert list(db.scalars(select(notes.c.title))) == own
            assert list(db.scalars(select(select(other.c.title).subquery().c.title))) == own
            assert list(db.scalars(select(other.c.title).select_from(notes.outerjoin(other, true())))) == own
            assert list(db.scalars(select(lines.c.id))) == [number]
            assert db.scalar(select(func.count()).select_from(notes)) == 1
            assert db.scalar(select(literal(1)).where(select(notes.c.id).where(notes.c.id != number).exists())) is None
            assert db.execute(update(notes).values(title="changed")).rowcount == 1
            assert db.execute(delete(lines)).rowcount == 1
            assert db.execute(delete(notes)).rowcount == 1
            db.rollback()
            db.execute(insert(notes).values(id=100, title="new"))
            assert db.scalar(select(func.count()).select_from(notes)) == 2
            db.rollback()


@pytest.mark.parametrize("keyed", KEYS, indirect=True)
def test_a_set_of_tenants_is_read_without_those_that_look_alike(keyed: tuple[Engine, Table, Table]) -> None:
    engine, notes, lines = keyed
    with (
        bind(service_identity("t", tenant="a")),
        read_tenants(["á", "other"], reason="compare"),
        engine.connect() as db,
    ):
        assert set(db.scalars(select(notes.c.title))) == {"of <a>", "of <á>"}
        assert set(db.scalars(select(lines.c.id))) == {1, 3}
        assert db.scalar(select(func.count()).select_from(notes)) == 2
        assert db.execute(update(notes).values(title="changed")).rowcount == 1
        assert db.execute(delete(lines)).rowcount == 1
        db.rollback()


@pytest.mark.parametrize("name", [name for name in KEYS if name != "mariadb latin1"])
def test_the_rows_of_a_tenant_that_looks_like_everybody_are_not_everybodys(
    request: pytest.FixtureRequest, name: str
) -> None:
    database, type_, real = KEYS[name]
    with comparing_engine(request, database) as engine:
        notes, lines = fill(engine, type_, real, global_rows="a")
        try:
            with bind(service_identity("t", tenant="other")), engine.connect() as db:
                assert list(db.scalars(select(notes.c.title))) == ["of <a>"]
                assert list(db.scalars(select(lines.c.id))) == [1]
                assert db.execute(update(notes).values(title="changed")).rowcount == 0
        finally:
            drop(engine, notes)


class FoldedSearch(String):
    """A string whose IN compares without regard to case."""

    cache_ok = True

    class comparator_factory(String.Comparator):
        def in_(self, other: Any) -> Any:
            return func.lower(self.expr).in_(other)


def test_a_child_is_not_found_by_a_comparison_of_the_apps_own(engine: Engine) -> None:
    metadata, name = MetaData(), f"parents_{next(NUMBERS)}"
    key = mysql.VARCHAR(20, collation="utf8mb4_bin")
    parents = Table(
        name,
        metadata,
        Column("code", String(20).with_variant(key, "mysql", "mariadb"), primary_key=True),
        Column("tenant", TENANT_ID_TYPE, nullable=False, info=tenant_key()),
    )
    code = FoldedSearch(20).with_variant(key, "mysql", "mariadb")
    children = Table(
        f"{name}_children",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("code", code, ForeignKey(f"{name}.code"), nullable=False),
        info=owned_through(name),
    )
    with system("make the tables"), engine.begin() as db:
        metadata.create_all(db)
        db.execute(insert(parents), [{"code": "x", "tenant": "a"}, {"code": "X", "tenant": "b"}])
        db.execute(insert(children), [{"id": 1, "code": "x"}, {"id": 2, "code": "X"}])
    for tenant, expected in (("a", [1]), ("b", [2])):
        with bind(service_identity("t", tenant=tenant)), engine.begin() as db:
            assert list(db.scalars(select(children.c.id))) == expected


@pytest.mark.parametrize(
    "keyed",
    ["sqlite nocase", "icu nondeterministic", "icu citext", "psycopg2 citext", "mariadb default", "mariadb unicode"],
    indirect=True,
)
def test_the_databases_do_take_these_ids_for_equal(keyed: tuple[Engine, Table, Table]) -> None:
    engine, notes, _ = keyed
    with system("compare as the database does"), engine.connect() as db:
        found = db.scalars(select(notes.c.tenant).where(notes.c.tenant == "a")).all()
    assert {"a", "A"} <= set(found)


# A column whose collation or type the model does not know is searched, rightly, without its index.
INDEXED = [name for name in KEYS if "does not know" not in name]


@pytest.mark.parametrize("keyed", INDEXED, indirect=True)
def test_the_comparison_uses_the_index_of_the_key(keyed: tuple[Engine, Table, Table]) -> None:
    engine, notes, _ = keyed
    name = engine.dialect.name
    with bind(service_identity("t", tenant="a")):
        compiled = select(notes.c.title).compile(engine)
    with system("look at the plan"), engine.begin() as db:
        db.execute(insert(notes), [{"id": n, "tenant": f"other-{n % 500}", "title": str(n)} for n in range(100, 3000)])
        if name == "mariadb":
            db.exec_driver_sql(f"ANALYZE TABLE {notes.name}").all()
        else:
            db.exec_driver_sql("ANALYZE")
        values: Any = {"tenantguard_tenant_1": "a"}
        if name == "sqlite":
            values = ("a",) * str(compiled).count("?")
        explain = "EXPLAIN QUERY PLAN" if name == "sqlite" else "EXPLAIN"
        assert f"ix_{notes.name}_tenant" in str(db.exec_driver_sql(f"{explain} {compiled}", values).all())


# --- ids that become one value -----------------------------------------------------------------------------


class Lowered(TypeDecorator[str]):
    """Puts two ids into one value."""

    impl = String(50)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return value.lower() if value else value


class Guid(TypeDecorator[uuid.UUID]):
    """The well-known recipe."""

    impl = CHAR(32)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else (value if isinstance(value, uuid.UUID) else uuid.UUID(value)).hex

    def process_result_value(self, value: Any, dialect: Any) -> uuid.UUID | None:
        return None if value is None else uuid.UUID(value)


class Prefixed(TypeDecorator[str]):
    impl = String(50)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return f"org:{value}"

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return value and value.removeprefix("org:")


ONE = "00000000-0000-0000-0000-00000000abcd"
VALUES: dict[str, tuple[Any, str, list[str]]] = {
    "integer": (Integer(), "1", ["01", "1_0", "1.0", "1e0", "0x1", "1-", "\u0661", "2147483648", "1" * 30]),
    "small integer": (SmallInteger(), "1", ["32768", "001"]),
    "big integer": (BigInteger(), "9223372036854775807", ["9223372036854775808"]),
    "tiny integer": (Integer().with_variant(mysql.TINYINT(), "mysql", "mariadb"), "1", ["128", "01"]),
    "uuid": (Uuid(), ONE, [ONE.upper(), ONE.replace("-", ""), f"urn:uuid:{ONE}", "a"]),
    "uuid as text": (Uuid(as_uuid=False), ONE, [ONE.upper(), ONE.replace("-", ""), f"urn:uuid:{ONE}", "a"]),
    "short string": (String(3), "abc", ["abcd", "abc-other"]),
    "char": (CHAR(3), "abc", ["abcd"]),
    "char without a length": (CHAR(), "a", ["abc"]),
    "short variant": (String(50).with_variant(String(3), "postgresql", "mariadb"), "abc", ["abcd"]),
    "decorator that lowers": (Lowered(), "acme", ["Acme", "ACME"]),
    "decorator of a uuid": (Guid(), ONE, [ONE.upper(), ONE.replace("-", ""), "no-uuid"]),
    "decorator that gives back": (Prefixed(), "acme", []),
    "enum": (Enum("acme", "globex", name="orgs"), "acme", ["Acme"]),
}


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with protected_engine(request, request.param) as made:
        yield made


@pytest.mark.parametrize("name", VALUES)
def test_an_id_that_is_not_the_one_way_to_write_its_value_is_refused(engine: Engine, name: str) -> None:
    type_, good, bad = VALUES[name]
    notes, _ = tables(type_)
    with system("make the tables"), engine.begin() as connection:
        notes.metadata.create_all(connection)
    with bind(service_identity("t", tenant=good)), engine.begin() as db:
        db.execute(insert(notes).values(title="own"))
        assert list(db.scalars(select(notes.c.title))) == ["own"]
    for tenant in bad:
        with bind(service_identity("t", tenant=tenant)), engine.connect() as db:
            for statement in (
                select(notes.c.title),
                insert(notes).values(title="planted"),
                update(notes).values(title="changed"),
                delete(notes),
            ):
                with pytest.raises((StatementRefused, ForeignTenantWrite, LookupError)) as refused:
                    db.execute(statement)
                assert tenant not in str(refused.value) or len(tenant) < 4
    with system("look"), engine.begin() as db:
        assert list(db.scalars(select(notes.c.title))) == ["own"]
        notes.metadata.drop_all(db)


class LoweredByTheDatabase(String):
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.lower(bindvalue)


@pytest.mark.parametrize(
    "type_",
    [
        LoweredByTheDatabase(50),
        String(50).with_variant(LoweredByTheDatabase(50), "sqlite"),
        String(50).with_variant(Integer(), "sqlite"),
        Numeric(),
        Integer().with_variant(String(50), "mysql"),
    ],
    ids=range(5),
)
def test_types_that_may_take_two_ids_for_one_are_refused(type_: Any) -> None:
    notes, _ = tables(type_)
    with pytest.raises(ConfigurationError, match="string, an integer or a UUID"):
        classify(notes)


def test_a_column_that_holds_every_id_takes_every_id() -> None:
    for type_ in (String(MAX_TENANT_ID_LENGTH), Text(), String(), TENANT_ID_TYPE, postgresql.CITEXT()):
        owned: Any = classify(tables(type_)[0])
        assert owned.convert is str


# --- foreign keys that contain the tenant keys -------------------------------------------------------------


def _pair(type_: Any) -> tuple[Table, Table]:
    metadata = MetaData()

    def key(*, primary: bool) -> Column[str]:
        return Column("tenant", type_, primary_key=primary, nullable=False, default=stamp_tenant, info=tenant_key())

    name = f"bills_{next(NUMBERS)}"
    bills = Table(name, metadata, key(primary=True), Column("number", Integer, primary_key=True, autoincrement=False))
    items = Table(
        f"{name}_items",
        metadata,
        Column("id", Integer, primary_key=True),
        key(primary=False),
        Column("number", Integer, nullable=False),
        ForeignKeyConstraint(["tenant", "number"], [f"{name}.tenant", f"{name}.number"], ondelete="CASCADE"),
    )
    return bills, items


FOLDING: dict[str, Callable[[], Any]] = {
    "sqlite": lambda: String(50, collation="NOCASE"),
    "mariadb": lambda: String(50, collation="utf8mb4_general_ci"),
    "mariadb mixin": lambda: TENANT_ID_TYPE,
}


@pytest.mark.parametrize("name", FOLDING)
def test_a_foreign_key_with_both_tenant_keys_does_not_point_to_a_tenant_that_looks_alike(
    request: pytest.FixtureRequest, name: str
) -> None:
    bills, items = _pair(FOLDING[name]())
    with protected_engine(request, name.split()[0]) as engine:
        with system("make the tables"), engine.begin() as connection:
            bills.metadata.create_all(connection)
        with bind(service_identity("t", tenant="A")), engine.begin() as db:
            db.execute(insert(bills).values(number=7))
            db.execute(insert(items).values(number=7))
        with bind(service_identity("t", tenant="a")), engine.begin() as db:
            # Refused by the barrier, or, where the collation is a binary one, by the database.
            expected = IntegrityError if "mixin" in name else ForeignTenantWrite
            with pytest.raises(expected):
                db.execute(insert(items).values(number=7))
        with bind(service_identity("t", tenant="a")), engine.begin() as db:
            db.execute(insert(bills).values(number=8))
            db.execute(insert(items).values(number=8))
            assert db.execute(delete(items)).rowcount == 1


@pytest.mark.parametrize("name", [name for name in KEYS if name != "mariadb latin1"])
def test_a_key_points_to_no_row_of_a_tenant_that_looks_like_the_one_that_writes(
    request: pytest.FixtureRequest, name: str
) -> None:
    database, type_, real = KEYS[name]
    with comparing_engine(request, database) as engine:
        notes, _ = fill(engine, type_, real, global_rows="á")
        pins = Table(
            f"{notes.name}_pins",
            notes.metadata,
            Column("id", Integer, primary_key=True),
            Column("owner", TENANT_ID_TYPE, nullable=False, info=tenant_key()),
            Column("note_id", ForeignKey(f"{notes.name}.id"), nullable=False),
        )
        with system("make the table"), engine.begin() as db:
            pins.create(db)
        try:
            # What may be read as well is not pointed to: neither A's row, nor that of one who looks like everybody.
            for others, number, passes in ((["A"], 2, False), (["Á"], 4, False), ([], 1, True), ([], 3, True)):
                with bind(service_identity("t", tenant="a")), engine.connect() as db:
                    block = read_tenants(others or ["other"], reason="compare")
                    with block, nullcontext() if passes else pytest.raises(ForeignTenantWrite):
                        db.execute(insert(pins).values(id=1, note_id=number))
                    db.rollback()
        finally:
            drop(engine, notes)
