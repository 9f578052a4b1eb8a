"""What only MySQL and MariaDB have: their upsert, statements of several tables, hints, comments, backslashes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    String,
    bindparam,
    column,
    create_engine,
    delete,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column
from sqlalchemy.sql import quoted_name

from tenantguard import bind, system
from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm import TenantOwned, owned_through, protect, shared
from tests.orm.attacks.harness import FIRST_OF_B, A, B, seed, verdict
from tests.orm.attacks.world import Base as World
from tests.orm.attacks.world import Comment, Country, Document, Folder
from tests.support.engines import protected_engine

D, F, C = Document.__table__, Folder.__table__, Comment.__table__


class Base(DeclarativeBase):
    type_annotation_map = {str: String(200)}


class Page(TenantOwned, Base):
    """Its slug is unique without the tenant key, so a row of another tenant can be in the way."""

    __tablename__ = "pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    text: Mapped[str] = mapped_column(default="")
    views: Mapped[int] = mapped_column(default=0)


class Part(Base):
    __tablename__ = "parts"
    __table_args__ = {"info": owned_through("pages")}

    id: Mapped[int] = mapped_column(primary_key=True)
    page_id: Mapped[int] = mapped_column(ForeignKey("pages.id"))
    slug: Mapped[str] = mapped_column(unique=True)
    text: Mapped[str] = mapped_column(default="")


class Word(Base):
    __tablename__ = "words"
    __table_args__ = {"info": shared("words: the same for all")}

    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str] = mapped_column(unique=True)
    uses: Mapped[int] = mapped_column(default=0)


P, Q = Page.__table__, Part.__table__


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with protected_engine(request, "mariadb", [World.metadata, Base.metadata]) as made:
        seed(made)
        make_pages(made)
        yield made


def make_pages(engine: Engine) -> None:
    with system("make the pages"):
        Base.metadata.create_all(engine)


@pytest.fixture
def db(engine: Engine, request: pytest.FixtureRequest) -> Session:
    """A session while tenant a is bound; the pages are b1 (id 900) and b2 of b, and a1 (id 1) of a."""
    with system("empty the tables"), Session(engine) as every, every.begin():
        for table in (Q, P, Word.__table__):
            every.execute(delete(table))
    for identity, name, first in ((A, "a", 1), (B, "b", 900)):
        with bind(identity), Session(engine) as own, own.begin():
            own.add_all([Page(id=first + n, slug=f"{name}{n + 1}", text=f"{name}-text") for n in range(2)])
            own.flush()
            own.add(Part(id=first, page_id=first, slug=f"{name}1", text=f"{name}-text"))
    block = bind(A)
    block.__enter__()
    session = Session(engine)

    def close() -> None:
        session.close()
        block.__exit__(None, None, None)

    request.addfinalizer(close)
    return session


def of_b(engine: Engine) -> list[tuple[Any, ...]]:
    with system("look"), Session(engine) as every:
        pages = every.execute(select(P).where(P.c.id >= 900, P.c.tenant_id == "b").order_by(P.c.id)).all()
        return [tuple(row) for row in [*pages, *every.execute(select(Q).where(Q.c.id >= 900)).all()]]


def put(*rows: dict[str, Any], **set_: Any) -> Any:
    return mysql.insert(P).values(list(rows)).on_duplicate_key_update(**set_)


# --- ON DUPLICATE KEY UPDATE -------------------------------------------------------------------------------

STOLEN = {"slug": "b1", "text": "stolen"}


def from_select(**set_: Any) -> Any:
    chosen = select(literal("b1").label("slug"), literal("stolen").label("text"))
    return mysql.insert(P).from_select(["slug", "text"], chosen).on_duplicate_key_update(**set_)


def with_new(row: dict[str, Any], make: Callable[[Any], Any]) -> Any:
    statement = mysql.insert(P).values(row)
    return statement.on_duplicate_key_update(make(statement.inserted))


UPSERTS: dict[str, Callable[[Session], Any]] = {
    "constant": lambda db: db.execute(put(STOLEN, text="stolen")),
    "new value": lambda db: db.execute(with_new(STOLEN, lambda new: {"text": new.text})),
    "all new values": lambda db: db.execute(with_new(STOLEN, lambda new: dict(new))),
    "ordered": lambda db: db.execute(with_new(STOLEN, lambda new: [("views", 7), ("text", new.text)])),
    "expression": lambda db: db.execute(put(STOLEN, views=P.c.views + 1)),
    "of an old and a new value": lambda db: db.execute(
        with_new(STOLEN, lambda new: {"text": func.concat(P.c.text, new.text)})
    ),
    "null": lambda db: db.execute(put(STOLEN, text=null())),
    "the unique key": lambda db: db.execute(put(STOLEN, slug="taken")),
    "the primary key": lambda db: db.execute(put(STOLEN, id=5)),
    "the tenant's own key": lambda db: db.execute(with_new(STOLEN, lambda new: {"tenant_id": new.tenant_id})),
    "by primary key": lambda db: db.execute(put({"id": 900, "slug": "x", "text": "stolen"}, text="stolen")),
    "own and foreign": lambda db: db.execute(put({"slug": "a1"}, STOLEN, {"slug": "a2"}, text="mine")),
    "foreign and new": lambda db: db.execute(put(STOLEN, {"slug": "n1"}, text="mine")),
    "two foreign": lambda db: db.execute(put(STOLEN, {"slug": "b2"}, text="mine")),
    "from select": lambda db: db.execute(from_select(text="stolen")),
    "from select of own rows": lambda db: db.execute(
        mysql.insert(P)
        .from_select(["slug", "text"], select(func.replace((o := P.alias()).c.slug, "a", "b"), o.c.text))
        .on_duplicate_key_update(text="stolen")
    ),
    "orm": lambda db: db.execute(mysql.insert(Page).values(STOLEN).on_duplicate_key_update(text="stolen")),
    "orm attributes": lambda db: db.execute(
        mysql.insert(Page).values(STOLEN).on_duplicate_key_update({"text": "x", "views": Page.views + 1})
    ),
    "as a parameter": lambda db: db.execute(put(STOLEN, text=bindparam("what", "stolen"))),
    "one row of parameters": lambda db: db.execute(mysql.insert(P).on_duplicate_key_update(text="stolen"), STOLEN),
    "child": lambda db: db.execute(
        mysql.insert(Q).values(page_id=1, slug="b1", text="stolen").on_duplicate_key_update(text="stolen")
    ),
    "child, its parent first": lambda db: db.execute(
        mysql.insert(Q)
        .values(page_id=1, slug="b1")
        .on_duplicate_key_update([("page_id", 1), ("text", "stolen")])  # the condition must not see the new parent
    ),
    "child by primary key": lambda db: db.execute(
        mysql.insert(Q).values(id=900, page_id=1, slug="x").on_duplicate_key_update(page_id=1, text="stolen", id=5)
    ),
}


@pytest.mark.parametrize("name", UPSERTS)
def test_an_upsert_changes_nothing_of_a_foreign_row_in_the_way(engine: Engine, db: Session, name: str) -> None:
    before = of_b(engine)
    result = UPSERTS[name](db)
    assert result.lastrowid < 900 or db.get(Page, result.lastrowid) is not None
    db.commit()
    assert of_b(engine) == before


def test_an_upsert_inserts_and_updates_own_rows(engine: Engine, db: Session) -> None:
    result = db.execute(
        with_new({"slug": "a1", "text": "changed"}, lambda new: {"text": new.text, "views": P.c.views + 2})
    )
    assert (result.rowcount, result.lastrowid) == (2, 1)
    assert db.execute(select(P.c.text, P.c.views).where(P.c.slug == "a1")).one() == ("changed", 2)
    result = db.execute(with_new({"slug": "new"}, lambda new: {"text": new.text}))
    assert result.rowcount == 1
    assert db.get(Page, result.lastrowid).slug == "new"  # type: ignore[union-attr]
    statement = mysql.insert(P)
    statement = statement.on_duplicate_key_update(text=statement.inserted.text)
    db.execute(statement, {"slug": "a2", "text": "by parameters"})
    assert db.scalar(select(P.c.text).where(P.c.slug == "a2")) == "by parameters"
    many = [{"slug": "a1", "text": "x"}, {"slug": "a3", "text": "y"}, {"slug": "b1", "text": "z"}]
    db.execute(put(*many, text=literal("many")))
    assert db.execute(select(P.c.slug, P.c.text).order_by(P.c.slug)).all() == [
        ("a1", "many"),
        ("a2", "by parameters"),
        ("a3", "y"),
        ("new", ""),
    ]
    db.execute(mysql.insert(Q).values(page_id=2, slug="a1").on_duplicate_key_update(page_id=2, text="moved"))
    assert db.execute(select(Q.c.page_id, Q.c.text)).all() == [(2, "moved")]
    db.execute(with_new({"slug": "a1"}, lambda new: {"text": select(func.count()).select_from(P).scalar_subquery()}))


@pytest.mark.parametrize("other", [P, F.alias("pages"), select(F).subquery("pages")], ids=range(3))
def test_an_upsert_from_a_table_of_the_same_name_is_not_taken_for_the_target(
    engine: Engine, db: Session, other: Any
) -> None:
    before = of_b(engine)
    statement = mysql.insert(P).from_select(["slug"], select(literal("b1")).select_from(other))
    with pytest.raises(OperationalError, match="ambiguous"):
        db.execute(statement.on_duplicate_key_update(text="stolen"))
    assert of_b(engine) == before


def test_the_key_of_a_foreign_row_in_the_way_is_not_told(db: Session) -> None:
    # Without more, MariaDB tells the key of the last row that was in the way, updated or not.
    for rows in (
        [{"slug": "a1"}, {"slug": "b1"}],
        [{"slug": "b1"}, {"slug": "a1"}, {"slug": "b2"}],
        [{"slug": "b1"}],
        [{"slug": "b2"}, {"slug": "b1"}],
    ):
        result = db.execute(put(*rows, text="x" + str(rows)[:20]))
        assert result.lastrowid in (0, 1)
        assert result.rowcount >= 1
        db.rollback()


REFUSED: dict[str, Callable[[Session], Any]] = {
    "tenant key": lambda db: db.execute(put(STOLEN, tenant_id="b")),
    "own tenant key": lambda db: db.execute(put({"slug": "a1"}, tenant_id=P.c.tenant_id)),
    "tenant key by a function": lambda db: db.execute(put(STOLEN, tenant_id=func.lower("B"))),
    "tenant key of a namesake": lambda db: db.execute(put(STOLEN, tenant_id=P.alias("inserted").c.tenant_id)),
    "foreign row": lambda db: db.execute(put({"slug": "z", "tenant_id": "b"}, text="x")),
    "returning": lambda db: db.execute(put(STOLEN, text="x").returning(P.c.text)),
    "returning many": lambda db: db.execute(
        mysql.insert(Page).on_duplicate_key_update(text="x").returning(Page), [STOLEN, {"slug": "b2", "text": "y"}]
    ),
    "last insert id": lambda db: db.execute(put(STOLEN, id=func.last_insert_id(P.c.id))),
    "values by hand": lambda db: db.execute(put(STOLEN, text=func.values(P.c.text))),
    "text": lambda db: db.execute(put(STOLEN, text=literal_column("(SELECT max(text) FROM pages)"))),
    "a foreign parent": lambda db: db.execute(
        mysql.insert(Q).values(page_id=1, slug="a1").on_duplicate_key_update(page_id=900)
    ),
    "a computed parent": lambda db: db.execute(
        mysql.insert(Q).values(page_id=1, slug="a1").on_duplicate_key_update(page_id=Q.c.page_id + 899)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_upsert_that_can_not_be_scoped_is_refused(engine: Engine, db: Session, name: str) -> None:
    before = of_b(engine)
    with pytest.raises((ForeignTenantWrite, StatementRefused)):
        REFUSED[name](db)
    db.rollback()
    assert of_b(engine) == before


def test_a_value_that_is_read_in_an_upsert_is_the_tenants(db: Session) -> None:
    statement = mysql.insert(P).values(slug="a1")
    counted = select(func.count()).select_from(P).scalar_subquery()
    seen = select(func.count()).select_from(statement.inserted_alias).scalar_subquery()
    db.execute(statement.on_duplicate_key_update(views=counted + 100 * seen))
    assert db.scalar(select(P.c.views).where(P.c.slug == "a1")) == 202


def test_many_rows_of_parameters_touch_own_rows_only(engine: Engine, db: Session) -> None:
    before = of_b(engine)
    statement = mysql.insert(P)
    statement = statement.on_duplicate_key_update(text=statement.inserted.text)
    rows = [{"slug": slug, "text": "many"} for slug in ("a1", "b1", "n1")]
    db.execute(statement, rows)
    db.commit()
    assert of_b(engine) == before
    assert db.scalars(select(P.c.slug).where(P.c.text == "many").order_by(P.c.slug)).all() == ["a1", "n1"]


def test_shared_tables_are_upserted_as_they_are(db: Session) -> None:
    for expected in (0, 1, 2):
        statement = mysql.insert(Word).values(word="x")
        db.execute(statement.on_duplicate_key_update(uses=Word.uses + 1, word=statement.inserted.word))
        assert db.scalar(select(Word.uses)) == expected


def test_the_dialect_of_mysql_is_scoped_on_mariadb_and_refuses_the_upsert_where_it_was_not_proven(
    engine: Engine, db: Session
) -> None:
    assert db.scalar(select(func.count()).select_from(P)) == 2
    db.rollback()
    other = protect(create_engine(engine.url.set(drivername="mysql+pymysql")), metadata=Base.metadata)
    with pytest.raises(StatementRefused, match="DUPLICATE"):
        put(STOLEN, text="x").compile(other)  # it has not met a server, which might be MySQL's own
    with Session(other) as own:
        assert own.scalars(select(P.c.slug).order_by(P.c.slug)).all() == ["a1", "a2"]
        own.execute(put(STOLEN, {"slug": "a1"}, text="mine"))
        assert own.scalars(select(P.c.text).order_by(P.c.slug)).all() == ["mine", "a-text"]
    other.dispose()


# --- statements of several tables, hints, comments ---------------------------------------------------------

EVIL = "x`\n) OR (1=1 /*! FROM documents */ -- "
G = aliased(Folder)

ATTACKS: dict[str, Callable[[Session], Any]] = {
    "update of two tables": lambda db: db.execute(
        update(D).where(D.c.id >= 0, F.c.id >= 0).values({D.c.title: "x", F.c.name: "y"})
    ),
    "update of two tables, the other alone": lambda db: db.execute(
        update(D).where(D.c.id >= 0).values({F.c.name: "y"})
    ),
    "update of two tables, foreign key of the other": lambda db: db.execute(
        update(F).where(F.c.id >= 0).values({D.c.folder_id: FIRST_OF_B})
    ),
    "update of two tables, tenant of the other": lambda db: db.execute(
        update(D).where(D.c.id >= 0, F.c.id >= 0).values({F.c.tenant_id: "b"})
    ),
    "update of two tables, tenant": lambda db: db.execute(
        update(D).where(D.c.id >= 0, F.c.id >= 0).values({D.c.tenant_id: "a"})
    ),
    "update of a join": lambda db: db.execute(update(D.join(F, true())).values({F.c.name: "y", D.c.title: "x"})),
    "update of an outer join": lambda db: db.execute(
        update(D.outerjoin(F, true())).values({F.c.name: "y", D.c.title: "x"})
    ),
    "update of a join, tenant": lambda db: db.execute(update(D.join(F, true())).values({F.c.tenant_id: "b"})),
    "update of a join from a shared table": lambda db: db.execute(
        update(Country.__table__.join(D, true())).values({D.c.title: "x"})
    ),
    "update of a child through its parent": lambda db: db.execute(
        update(C).where(C.c.document_id == D.c.id).values({C.c.text: "x", D.c.title: "y"})
    ),
    "update of an alias": lambda db: db.execute(update(aliased(Document)).values(title="x")),
    "update from a subquery": lambda db: db.execute(
        update(D).where(D.c.id == (s := select(F.c.id, F.c.name).subquery()).c.id).values(title=s.c.name)
    ),
    "update limited": lambda db: db.execute(update(D).values(title="x").with_dialect_options(mariadb_limit=100)),
    "update limited by the extension": lambda db: db.execute(update(D).values(title="x").ext(mysql.limit(100))),
    "delete using": lambda db: db.execute(delete(D).where(D.c.id >= F.c.id, D.c.id > FIRST_OF_B)),
    "delete using an alias": lambda db: db.execute(delete(C).where(C.c.document_id >= G.id)),
    "delete limited": lambda db: db.execute(delete(C).with_dialect_options(mariadb_limit=100)),
    "delete returning": lambda db: db.execute(delete(C).returning(C.c.text)).all(),
    "insert returning": lambda db: db.execute(
        insert(D).returning(D.c.title, D.c.id), [{"id": 700, "title": "x"}, {"id": 701, "title": "y"}]
    ).all(),
    "insert returning a subquery": lambda db: db.execute(
        insert(D).values(id=702, title="x").returning(select(func.max(F.c.name)).scalar_subquery())
    ).all(),
    "insert ignore": lambda db: db.execute(insert(D).prefix_with("IGNORE").values(id=FIRST_OF_B, title="x")),
    "replace": lambda db: db.execute(insert(D).prefix_with("IGNORE INTO documents SELECT * FROM documents #")),
    "low priority": lambda db: db.execute(insert(D).prefix_with("LOW_PRIORITY").values(title="x")),
    "update ignore": lambda db: db.execute(update(D).prefix_with("IGNORE").values(id=FIRST_OF_B)),
    "delete quick": lambda db: db.execute(delete(C).prefix_with("QUICK")),
    "straight join": lambda db: db.execute(select(D.c.title).prefix_with("STRAIGHT_JOIN")).all(),
    "no cache": lambda db: db.execute(select(D.c.title).prefix_with("SQL_NO_CACHE")).all(),
    "found rows": lambda db: db.execute(select(D.c.title).prefix_with("SQL_CALC_FOUND_ROWS").limit(1)).all(),
    "found rows function": lambda db: db.scalar(select(func.found_rows())),
    "executable comment": lambda db: db.execute(select(D.c.title).prefix_with("/*! title FROM documents -- */")).all(),
    "optimizer hint": lambda db: db.execute(select(D.c.title).prefix_with("/*+ NO_ICP(documents) */")).all(),
    "mariadb comment": lambda db: db.execute(select(D.c.title).prefix_with("/*M! 1 FROM documents -- */")).all(),
    "use index": lambda db: db.execute(select(D.c.title).with_hint(D, "USE INDEX (x)")).all(),
    "use index and more": lambda db: db.execute(select(D.c.title).with_hint(D, "IGNORE INDEX () #")).all(),
    "hint of another dialect": lambda db: db.execute(select(D.c.title).with_hint(D, "evil #", "postgresql")).all(),
    "update hint": lambda db: db.execute(update(D).with_hint("USE INDEX (x)").values(title="x")),
    "delete hint": lambda db: db.execute(delete(C).with_hint("PARTITION (p0)", selectable=C)),
    "statement hint": lambda db: db.execute(select(D.c.title).with_statement_hint("INTO OUTFILE '/dev/null'")).all(),
    "only": lambda db: db.execute(select(D.c.title).with_hint(D, "ONLY")).all(),
    "distinct text": lambda db: db.execute(_distinct("title FROM documents UNION SELECT")).all(),
    "alias with a comment": lambda db: db.execute(select(D.alias(EVIL).c.title)).all(),
    "label with a comment": lambda db: db.execute(select(D.c.title.label(EVIL)).order_by(EVIL)).all(),
    "cte with a comment": lambda db: db.execute(select(select(D.c.title).cte(EVIL))).all(),
    "parameter with a comment": lambda db: db.execute(select(D.c.title).where(bindparam(EVIL, 1) == 1)).all(),
    "unquoted": lambda db: db.execute(select(D.alias(quoted_name("x/*!*/", quote=False)).c.title)).all(),
    "hash operator": lambda db: db.execute(select(D.c.title).where(D.c.id.op(">#")(column("x\n0) OR 1=1 -- ")))).all(),
    "hash operator before a label": lambda db: db.execute(
        select(D.c.title.op("=#")(literal(1)).label("x\n FROM documents #")).where(D.c.id > 0)
    ).all(),
    "hash operator and a literal": lambda db: db.execute(
        select(D.c.title).where(D.c.id.op(">#")(literal("\n0) OR 1=1 -- ", literal_execute=True)))
    ).all(),
    "pipes": lambda db: db.execute(select(D.c.title).where(D.c.id.op("||")(literal(1)))).all(),
    "ampersands": lambda db: db.execute(select(D.c.title).where(D.c.id.op("&&")(literal(1)))).all(),
    "assignment": lambda db: db.execute(select(literal_column("@x").op(":=")(D.c.title))).all(),
    "null-safe": lambda db: db.execute(select(D.c.title).where(D.c.tenant_id.op("<=>")("b"))).all(),
    "xor": lambda db: db.execute(select(D.c.title).where(D.c.id.op("xor")(literal(1)))).all(),
    "sounds like": lambda db: db.execute(select(D.c.title).where(D.c.tenant_id.op("SOUNDS LIKE")("b"))).all(),
    "match": lambda db: db.execute(select(D.c.title).where(D.c.title.match("B*"))).all(),
    "mysql match": lambda db: db.execute(select(D.c.title).where(mysql.match(D.c.title, against="B"))).all(),
    "regexp": lambda db: db.execute(select(D.c.title).where(D.c.title.regexp_match(".*", flags="i"))).all(),
    "regexp flags": lambda db: db.execute(
        select(D.c.title).where(D.c.title.regexp_match(".*", flags="' OR 1=1 #"))
    ).all(),
    "group_concat": lambda db: db.execute(select(func.aggregate_strings(D.c.title, ","))).all(),
    "group_concat separator": lambda db: db.execute(
        select(func.aggregate_strings(D.c.title, "\\' ) FROM documents # "))
    ).all(),
    "rollup": lambda db: db.execute(select(D.c.tenant_id, func.count()).group_by(func.rollup(D.c.tenant_id))).all(),
    "load_file": lambda db: db.scalar(select(func.load_file("/etc/passwd"))),
    "sleep": lambda db: db.scalar(select(func.sleep(0))),
    "user variable": lambda db: db.scalar(select(literal_column("@@datadir"))),
    "other database": lambda db: db.execute(select(literal_column("schema_name")).select_from(column("x"))).all(),
    "for share": lambda db: db.execute(select(D.c.title).with_for_update(read=True, skip_locked=True)).all(),
    "lock of": lambda db: db.execute(select(D.c.title).with_for_update(of=F.alias(EVIL))).all(),
    "collate": lambda db: db.execute(select(D.c.title.collate("utf8mb4_bin#"))).all(),
    "collate with a comment": lambda db: db.execute(
        select(D.c.title).where(D.c.title.collate("utf8mb4_bin-- ") == "x", or_(true(), D.c.id == 1))
    ).all(),
    "cast with a character set": lambda db: db.execute(
        select(D.c.title.cast(mysql.VARCHAR(5, charset="utf8 ) FROM documents #")))
    ).all(),
}


def _distinct(words: str) -> Any:
    statement = select(D.c.title).where(D.c.id != -1)
    statement._distinct = words  # type: ignore[assignment] - MySQL's compiler writes it as it is
    return statement


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.parametrize("name", ATTACKS)
def test_what_only_mysql_has_is_scoped_or_refused(engine: Engine, name: str) -> None:
    assert verdict(engine, ATTACKS[name]).startswith(("scoped", "refused"))


@pytest.mark.parametrize(
    "name",
    [
        "distinct text",
        "executable comment",
        "found rows",
        "found rows function",
        "group_concat separator",
        "hash operator",
        "hash operator and a literal",
        "insert ignore",
        "mariadb comment",
        "optimizer hint",
        "replace",
        "update ignore",
        "use index",
        "statement hint",
        "update hint",
        "unquoted",
    ],
)
def test_what_could_be_read_otherwise_is_refused_by_the_barrier_itself(engine: Engine, name: str) -> None:
    assert verdict(engine, ATTACKS[name]) == "refused"


# --- backslashes -------------------------------------------------------------------------------------------

TEXTS = [
    "\\",
    "\\' OR 1=1 -- ",
    "' OR 1=1 -- ",
    "\\\\' OR 1=1 #",
    "x\n'",
    '"',
    '\\" OR 1=1',
    "縗' OR 1=1 -- ",
    "\0",
    "%s%(x)s",
]


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PIPES_AS_CONCAT"])
@pytest.mark.parametrize("charset", ["utf8mb4", "gbk"])
def test_values_stay_values_whatever_a_backslash_means(engine: Engine, mode: str, charset: str) -> None:
    url = engine.url.update_query_dict({"charset": charset, "sql_mode": f"STRICT_ALL_TABLES,{mode}"})
    other = protect(create_engine(url), metadata=World.metadata)
    with bind(A), Session(other) as db:
        for number, value in enumerate(TEXTS):
            db.execute(insert(D), {"id": 500 + number, "title": value})
            assert db.scalars(select(D.c.id).where(D.c.title == value)).all() == [500 + number]
            as_literal = literal(value, String, literal_execute=True)
            assert db.scalars(select(D.c.id).where(D.c.title == as_literal)).all() == [500 + number]
            assert db.scalars(
                select(D.c.id).where(D.c.title.in_(bindparam("x", [value], expanding=True, literal_execute=True)))
            ).all()
        db.rollback()
    other.dispose()


def test_a_connection_with_another_mode_than_the_first_reads_no_literal_as_sql(engine: Engine) -> None:
    other = protect(
        create_engine(engine.url.update_query_dict({"sql_mode": "NO_BACKSLASH_ESCAPES"}), pool_size=1),
        metadata=World.metadata,
    )
    with system("change the mode of the connection"), other.begin() as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
    with bind(A), Session(other) as db:
        sneaky = literal("\\' OR 1=1) -- ", String, literal_execute=True)
        assert db.scalars(select(D.c.title).where(D.c.title == sneaky)).all() == []
        assert "DUAL" not in db.scalar(select(sneaky))  # type: ignore[operator]
    other.dispose()
