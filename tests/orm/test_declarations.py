"""What a table is declared to be: declarations that say nothing, contradict each other or change are refused."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.pool import StaticPool

from tenantguard import bind, service_identity
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm import owned_through, protect, scope_key, shared, tenant_key, wide
from tenantguard.orm.classify import Owned, belongs_to_tenants, classify_alone
from tenantguard.orm.lifts import move_rows, read_across, write_across
from tenantguard.orm.marks import classify_by, owned

A = service_identity("test", tenant="a")
NUMBERS = count()


def table(*columns: Any, of: MetaData | None = None, name: str | None = None, **options: Any) -> Table:
    """Return a table of a name that no other has."""
    name = name or f"declared_{next(NUMBERS)}"
    return Table(name, of or MetaData(), Column("id", Integer, primary_key=True), *columns, **options)


def tenant(**options: Any) -> Column[Any]:
    return Column("tenant", String(128), info=tenant_key(), nullable=options.pop("nullable", False), **options)


def owned_table(*columns: Any, **options: Any) -> Table:
    return table(tenant(), *columns, **options)


# --- marks ---------------------------------------------------------------------------------------------------

EMPTY: dict[str, Callable[[], Any]] = {
    "owned_through": lambda: owned_through(),
    "owned_through an empty name": lambda: owned_through("documents", ""),
    "owned_through no name": lambda: owned_through("documents", None),  # type: ignore[arg-type]
    "owned_through a number": lambda: owned_through(7),  # type: ignore[arg-type]
    "wide": lambda: wide(reason="a test"),
    "wide in an empty name": lambda: wide("workspace", "", reason="a test"),
    "wide in a number": lambda: wide(7, reason="a test"),  # type: ignore[arg-type]
    "wide without a reason": lambda: wide("workspace", reason=" "),
    "shared": lambda: shared(""),
    "shared for a blank": lambda: shared(" \t"),
    "shared for no reason": lambda: shared(None),  # type: ignore[arg-type]
    "shared for a number": lambda: shared(7),  # type: ignore[arg-type]
    "scope_key of the tenant": lambda: scope_key("tenant"),
    "scope_key of an empty name": lambda: scope_key(""),
    "scope_key of a number": lambda: scope_key(7),  # type: ignore[arg-type]
    "classify_by what can't be called": lambda: classify_by("rule", MetaData()),  # type: ignore[arg-type]
    "classify_by for nothing": lambda: classify_by(lambda table: None),
    "classify_by for a table": lambda: classify_by(lambda table: None, MetaData(), owned_table()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_declaration_that_says_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        EMPTY[name]()
    assert refused.value.mend


def test_a_table_that_is_open_is_read_and_not_written() -> None:
    for writable, given in ((False, {}), (True, {"writable": True})):
        kind = classify_alone(owned_table(info=wide("workspace", reason="a test", **given)))
        assert isinstance(kind, Owned)
        assert kind.wide is not None
        assert kind.wide.writable is writable


@pytest.mark.parametrize("door", [read_across, write_across, move_rows])
def test_a_door_is_for_a_table_or_an_alias_of_one(door: Any) -> None:
    boxes = owned_table()
    for wrong in (select(boxes), select(boxes).subquery(), boxes.join(owned_table(), boxes.c.id == 1), boxes.c.id, 7):
        with pytest.raises(ConfigurationError, match="a mapped class, a Table"):
            door(wrong, reason="a test")
    for right in (boxes, boxes.alias(), boxes.alias("x").alias("y")):
        assert door(right, reason="a test")


# --- classes -------------------------------------------------------------------------------------------------


def through(parent: Table, *more: Any, column: Any = None, **options: Any) -> Table:
    own = Column("parent_id", ForeignKey(parent.c.id), nullable=False) if column is None else column
    return table(own, *more, of=parent.metadata, info=owned_through(parent.name), **options)


def circle() -> Table:
    metadata = MetaData()
    first, second = f"declared_{next(NUMBERS)}", f"declared_{next(NUMBERS)}"
    for name, parent in ((first, second), (second, first)):
        own = Column("parent_id", ForeignKey(f"{parent}.id"), nullable=False)
        table(own, of=metadata, name=name, info=owned_through(parent))
    return metadata.tables[first]


def twice_through() -> Table:
    parent = owned_table()
    return through(parent, Column("other_id", ForeignKey(parent.c.id), nullable=False))


WRONG: dict[str, tuple[str, Callable[[], Table]]] = {
    "two tenant keys": (
        "several keys",
        lambda: owned_table(Column("other", String(9), info=tenant_key(), nullable=False)),
    ),
    "two keys of one dimension": (
        "several keys",
        lambda: owned_table(Column("x", String(9), info=scope_key("w")), Column("y", String(9), info=scope_key("w"))),
    ),
    "owned and with a key": ("owned", lambda: owned_table(info=owned("id"))),
    "shared and with a key": ("shared", lambda: owned_table(info=shared("a test"))),
    "shared and narrower": (
        "shared",
        lambda: table(Column("x", String(9), info=scope_key("w")), info=shared("a test")),
    ),
    "a key that may be NULL": ("may be NULL", lambda: table(tenant(nullable=True))),
    "owned by no column": ("no column 'nothing'", lambda: table(info=owned("nothing"))),
    "owned through itself": ("through itself", circle),
    "owned through one of two": ("2 foreign keys", twice_through),
    "owned through what may be NULL": (
        "may be NULL",
        lambda: through(p := owned_table(), column=Column("parent_id", ForeignKey(p.c.id))),
    ),
    "owned through a shared table": ("belongs to no tenant", lambda: through(table(info=shared("a test")))),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_declaration_that_can_not_hold_is_refused(name: str) -> None:
    match, declared = WRONG[name]
    wrong = declared()
    with pytest.raises(ConfigurationError, match=match):
        classify_alone(wrong)
    assert belongs_to_tenants(wrong)


def test_a_table_that_has_changed_its_class_is_refused() -> None:
    for before, after in ((shared("a test"), owned("id")), (owned("id"), shared("a test")), (owned("id"), owned("x"))):
        changing = table(Column("x", Integer, nullable=False), info=dict(before))
        classify_alone(changing)
        changing.info.update(after)
        with pytest.raises(ConfigurationError, match="changed its class"):
            classify_alone(changing)


def test_an_owned_table_is_narrowed_through_its_parent() -> None:
    kind = classify_alone(through(owned_table(), tenant()))
    assert isinstance(kind, Owned)
    assert kind.through is not None


class Prefixed(TypeDecorator[str]):
    """Stores a longer text than it is given."""

    impl = String(4)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return value if value is None else f"t-{value}"

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return value if value is None else value.removeprefix("t-")


def test_an_id_that_is_stored_longer_than_its_column_is_no_key() -> None:
    kind = classify_alone(table(Column("tenant", Prefixed, info=tenant_key(), nullable=False)))
    assert isinstance(kind, Owned)
    assert kind.convert("ab") == "ab"
    with pytest.raises(ValueError, match="give it back"):
        kind.convert("abc")


def test_an_engine_of_another_database_is_not_protected() -> None:
    engine = create_engine("sqlite://")
    engine.dialect.name = "oracle"
    with pytest.raises(ConfigurationError, match="does not know the SQL of 'oracle'"):
        protect(engine)


# --- tables of one name --------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [str, str.upper, str.title])
def test_a_shared_table_is_no_way_to_an_owned_one_of_its_name(other: Callable[[str], str]) -> None:
    name = f"declared_{next(NUMBERS)}"
    first = table(name=name, info=shared("a test"))
    engine = protect(create_engine("sqlite://"))
    with bind(A):
        select(first).compile(engine)
        second = owned_table(name=other(name))
        with pytest.raises(ConfigurationError, match="Two tables are named"):
            select(first).compile(engine)
    assert belongs_to_tenants(second)


# --- what the database does by itself ------------------------------------------------------------------------


def replacing(kind: str) -> Table:
    if kind == "a unique column":
        return owned_table(Column("code", Integer, unique=True, sqlite_on_conflict_unique="REPLACE"))
    if kind == "a constraint":
        return owned_table(Column("code", Integer), UniqueConstraint("code", sqlite_on_conflict="REPLACE"))
    if kind == "the primary key":
        key = Column("id", Integer, primary_key=True, sqlite_on_conflict_primary_key="REPLACE")
        return Table(f"declared_{next(NUMBERS)}", MetaData(), key, tenant())
    return through(owned_table(), Column("code", Integer, unique=True, sqlite_on_conflict_unique="REPLACE"))


@pytest.mark.parametrize("kind", ["a unique column", "a constraint", "the primary key", "a child"])
def test_a_write_that_replaces_rows_is_refused(kind: str) -> None:
    engine = protect(create_engine("sqlite://"))
    target = replacing(kind)
    for statement in (insert(target).values(id=1), update(target).values(id=1)):
        with bind(A), pytest.raises(StatementRefused, match="ON CONFLICT REPLACE"):
            statement.compile(engine)


def chain(*ways: dict[str, str | None]) -> Table:
    """Return a shared table to which another shared one points, and to that one an owned one."""
    metadata = MetaData()
    first = table(of=metadata, info=shared("a test"))
    above = first
    for way in ways[:-1]:
        above = table(
            Column("above_id", ForeignKey(above.c.id, **way), unique=True),
            of=metadata,
            info=shared("a test"),  # type: ignore[arg-type]
        )
    owned_table(Column("above_id", ForeignKey(above.c[above.c.keys()[-1]], **ways[-1])), of=metadata)  # type: ignore[arg-type]
    return first


CASCADE, RESTRICT = "CASCADE", "RESTRICT"
ACTIONS: list[tuple[tuple[dict[str, str | None], ...], bool, bool]] = [
    (({"ondelete": CASCADE},), True, False),
    (({"onupdate": CASCADE},), False, True),
    (({"ondelete": "SET NULL"},), True, False),
    (({"onupdate": "SET NULL"},), False, True),
    (({"ondelete": "SET DEFAULT", "onupdate": RESTRICT},), True, False),
    (({"ondelete": "no action", "onupdate": "restrict"},), False, False),
    (({},), False, False),
    (({"ondelete": CASCADE}, {"ondelete": CASCADE}), True, False),
    (({"onupdate": CASCADE}, {"onupdate": CASCADE}), False, True),
    (({"ondelete": CASCADE}, {}), False, False),
    (({}, {"ondelete": CASCADE}), False, False),
]
"""What foreign keys say, and whether a DELETE and an UPDATE of the key are then refused."""


@pytest.mark.parametrize(("ways", "deletes", "updates"), ACTIONS)
def test_a_change_of_shared_rows_that_goes_on_to_tenants_rows_is_refused(
    ways: Any, deletes: bool, updates: bool
) -> None:
    engine = protect(create_engine("sqlite://", poolclass=StaticPool))
    first = chain(*ways)
    for statement, refused in ((first.delete(), deletes), (update(first).values(id=1), updates)):
        with bind(A):
            if refused:
                with pytest.raises(StatementRefused, match="rows of every tenant"):
                    statement.compile(engine)
            else:
                statement.compile(engine)
