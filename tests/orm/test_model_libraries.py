"""Models of SQLModel and of advanced-alchemy through a protected engine: they do their work, and nothing crosses over."""

import uuid
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from advanced_alchemy.base import UUIDBase
from advanced_alchemy.exceptions import DuplicateKeyError, NotFoundError, RepositoryError
from advanced_alchemy.filters import LimitOffset, OrderBy, SearchFilter
from advanced_alchemy.operations import OnConflictUpsert
from sqlalchemy import Engine, create_engine, func, text
from sqlalchemy import select as sqlalchemy_select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session as PlainSession
from sqlalchemy.pool import StaticPool
from sqlmodel import Session, SQLModel, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from tenantguard import bind, service_identity, system
from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm import async_sessionmaker, check_metadata, protect
from tenantguard.orm.review import review_metadata
from tests.orm.library_models import (
    AsyncAuthorService,
    Author,
    AuthorService,
    Book,
    BookRepository,
    Deed,
    Gadget,
    Hero,
    Planet,
    Team,
)

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated method 'list")  # advanced-alchemy's older names
METADATA = (SQLModel.metadata, UUIDBase.metadata)


def seed(engine: Engine) -> None:
    with system("create the test's tables"):
        for metadata in METADATA:
            metadata.create_all(engine)
        with Session(engine) as db:
            db.add(Planet(name="Earth"))
            db.commit()
    for identity, name in ((A, "a"), (B, "b")):
        with bind(identity), Session(engine) as db:
            db.add(Team(name=f"{name}-team", heroes=[Hero(name=f"{name}1", age=1), Hero(name=f"{name}2", age=2)]))
            db.add(Gadget(name=f"{name}-gadget"))
            db.add(Author(name=f"{name}1", books=[Book(title=f"{name}-book")]))
            db.add(Author(name=f"{name}2"))
            db.commit()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = create_engine("sqlite://", poolclass=StaticPool)
    else:
        url: str = request.getfixturevalue("postgres_url")
        made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    seed(protect(made))
    yield made
    made.dispose()


def rows_of(engine: Engine, tenant: str) -> list[list[Any]]:
    """Return everything that a tenant has, as it is in the database."""
    with system("look at the outcome"), engine.connect() as connection:
        return [
            sorted(map(repr, connection.execute(sqlalchemy_select(table).where(key == tenant))))
            for metadata in METADATA
            for table in metadata.sorted_tables
            for key in [table.c.get("tenant_id", table.c.get("organisation"))]
            if key is not None
        ]


@pytest.fixture
def untouched(engine: Engine) -> Iterator[None]:
    """Whatever tenant a does in the test, tenant b's rows stay as they were."""
    before = rows_of(engine, "b")
    assert sum(map(len, before)) == 7
    yield
    assert rows_of(engine, "b") == before


def of_b(engine: Engine, model: Any) -> Any:
    with bind(B), PlainSession(engine) as db:
        return db.scalars(sqlalchemy_select(model.id).order_by(model.id)).first()


def test_every_model_is_classified_and_reviewed_without_errors() -> None:
    for metadata in METADATA:
        check_metadata(metadata)
    models = (Author, Book, Deed, Gadget, Hero, Planet, Team)
    own = {model.__tablename__ for model in models}  # beside those of other tests: both libraries have one MetaData
    tables = [table for table in review_metadata(*METADATA).tables if table.name in own]
    assert {table.name: table.kind for table in tables} == {
        "authors": "owned",
        "books": "owned",
        "deeds": "child",
        "gadgets": "owned",
        "heroes": "owned",
        "planets": "shared",
        "teams": "owned",
    }
    assert {finding.id for table in tables for finding in table.findings} == {
        "foreign-key-without-tenant",
        "generated-key-without-tenant",
        "index-without-tenant",
        "no-tenant-index",
    }


# --- SQLModel ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untouched")
def test_sqlmodel_reads_this_tenants_rows_alone(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        assert [hero.name for hero in db.exec(select(Hero).order_by(Hero.name))] == ["a1", "a2"]
        assert db.exec(select(func.count()).select_from(Hero)).one() == 2
        assert db.exec(select(Hero.name).where(Hero.name == "b1")).first() is None
        assert db.get(Hero, of_b(engine, Hero)) is None
        assert [(h.name, t.name) for h, t in db.exec(select(Hero, Team).join(Team).order_by(Hero.name))] == [
            ("a1", "a-team"),
            ("a2", "a-team"),
        ]
        assert [hero.name for hero in db.exec(select(Team)).one().heroes] == ["a1", "a2"]
        assert [gadget.name for gadget in db.exec(select(Gadget))] == ["a-gadget"]
        assert [planet.name for planet in db.exec(select(Planet))] == ["Earth"]


@pytest.mark.usefixtures("untouched")
def test_sqlmodel_writes_this_tenants_rows_alone(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        hero = Hero.model_validate({"name": "a3"})
        db.add(hero)
        db.commit()
        db.refresh(hero)
        assert hero.tenant_id == "a"
        assert "tenant_id" not in Hero(name="x").model_dump(exclude_unset=True)
        hero.sqlmodel_update({"name": "a3 renamed"})
        db.add(hero)
        db.add(Deed(what="flew", hero_id=hero.id))
        db.commit()
        assert db.exec(update(Hero).values(age=9)).rowcount == 3
        db.delete(db.exec(select(Team)).one())
        db.exec(delete(Deed))
        db.exec(delete(Hero))
        db.commit()
        assert db.exec(select(Hero)).all() == []


@pytest.mark.usefixtures("untouched")
def test_sqlmodel_can_neither_write_nor_point_to_another_tenants_rows(engine: Engine) -> None:
    foreign_team, foreign_hero = of_b(engine, Team), of_b(engine, Hero)
    for row in (
        Hero(name="x", tenant_id="b"),
        Gadget(name="x", organisation="b"),
        Hero(name="x", team_id=foreign_team),
        Deed(what="x", hero_id=foreign_hero),
    ):
        with bind(A), Session(engine) as db:
            db.add(row)
            with pytest.raises(ForeignTenantWrite):
                db.commit()


@pytest.mark.usefixtures("untouched")
def test_raw_sql_of_sqlmodel_is_refused(engine: Engine) -> None:
    with bind(A), Session(engine) as db, pytest.raises(StatementRefused):
        db.exec(text("SELECT name FROM heroes"))


def test_tenant_owned_is_no_mixin_for_sqlmodel_and_it_says_so_at_once() -> None:
    """pydantic reads every annotation of a SQLModel; see docs/doctor.md for the mixin to use."""
    from tenantguard.orm import TenantOwned

    with pytest.raises(Exception, match="Mapped"):
        type("Wrong", (TenantOwned, SQLModel), {"__module__": __name__}, table=True)


# --- advanced-alchemy: repositories and services ------------------------------------------------------------------


def names(rows: Any) -> list[str]:
    return sorted(row.name for row in rows)


@pytest.mark.usefixtures("untouched")
def test_a_service_lists_counts_and_finds_this_tenants_rows_alone(engine: Engine) -> None:
    with bind(A), PlainSession(engine) as db:
        service = AuthorService(session=db)
        assert names(service.list()) == ["a1", "a2"]
        rows, count = service.list_and_count(LimitOffset(limit=1, offset=0), OrderBy("name", "asc"))
        assert (names(rows), count) == (["a1"], 2)
        rows, count = service.get_many_and_count()
        assert (names(rows), count) == (["a1", "a2"], 2)
        assert names(service.get_many()) == ["a1", "a2"]
        rows, count = service.repository.list_and_count(count_with_window_function=False)
        assert (names(rows), count) == (["a1", "a2"], 2)
        assert service.count() == 2
        assert not service.exists(name="b1")
        assert service.get_one_or_none(name="b1") is None
        assert names(service.list(SearchFilter("name", "b"))) == []
        with pytest.raises(NotFoundError):
            service.get(of_b(engine, Author))
        assert [book.author.name for book in BookRepository(session=db).list()] == ["a1"]


@pytest.mark.usefixtures("untouched")
def test_a_service_creates_updates_and_deletes_this_tenants_rows(engine: Engine) -> None:
    with bind(A), PlainSession(engine) as db:
        service = AuthorService(session=db)
        one = service.create({"name": "a3"})
        more = service.create_many([{"name": "a4"}, {"name": "a5"}])
        assert {author.tenant_id for author in (one, *more)} == {"a"}
        assert service.update({"name": "a3x"}, item_id=one.id).name == "a3x"
        assert names(service.update_many([{"id": author.id, "name": author.name + "x"} for author in more])) == [
            "a4x",
            "a5x",
        ]
        assert service.upsert({"id": one.id, "name": "a3y"}).name == "a3y"
        new = uuid.uuid4()
        assert service.upsert({"id": new, "name": "a6"}).tenant_id == "a"
        assert names(service.upsert_many([{"id": new, "name": "a6x"}, {"name": "a7"}])) == ["a6x", "a7"]
        assert service.get_or_upsert(name="a7")[1] is False
        assert service.get_or_upsert(name="a8")[1] is True
        db.commit()
        assert service.delete(one.id).name == "a3y"
        assert names(service.delete_many([author.id for author in more])) == ["a4x", "a5x"]
        assert names(service.delete_where(name="a8")) == ["a8"]
        db.commit()
        assert names(service.list()) == ["a1", "a2", "a6x", "a7"]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        (lambda service, key: service.update({"name": "taken"}, item_id=key), NotFoundError),
        (lambda service, key: service.update_many([{"id": key, "name": "taken"}]), RepositoryError),
        (lambda service, key: service.delete(key), NotFoundError),
        (lambda service, key: service.delete_many([key]), 0),
        (lambda service, key: service.delete_where(name="b1"), 0),
        (lambda service, key: service.upsert({"id": key, "name": "taken"}), DuplicateKeyError),
        (lambda service, key: service.upsert({"name": "taken"}, item_id=key), DuplicateKeyError),
        (lambda service, key: service.upsert_many([{"id": key, "name": "taken"}]), RepositoryError),
        (lambda service, key: service.get_and_update(name="b1", match_fields=["name"]), NotFoundError),
        (lambda service, key: service.create({"name": "x", "tenant_id": "b"}), ForeignTenantWrite),
        (lambda service, key: service.create_many([{"name": "x", "tenant_id": "b"}]), ForeignTenantWrite),
    ],
    ids=[
        "update",
        "update_many",
        "delete",
        "delete_many",
        "delete_where",
        "upsert",
        "upsert by id",
        "upsert_many",
        "get_and_update",
        "create",
        "create_many",
    ],
)
def test_a_service_can_not_reach_another_tenants_row(engine: Engine, attempt: Any, outcome: Any) -> None:
    key = of_b(engine, Author)
    before = rows_of(engine, "a")
    with bind(A), PlainSession(engine) as db:
        service = AuthorService(session=db)
        if outcome == 0:
            assert len(attempt(service, key)) == 0
        else:
            with pytest.raises(outcome):
                attempt(service, key)
            db.rollback()
        db.commit()
    assert rows_of(engine, "a") == before


@pytest.mark.usefixtures("untouched")
def test_upsert_many_by_another_field_makes_rows_of_its_own(engine: Engine) -> None:
    with bind(A), PlainSession(engine) as db:
        made = AuthorService(session=db).upsert_many([{"name": "b1"}, {"name": "a2"}], match_fields=["name"])
        db.commit()
        assert {(author.name, author.tenant_id) for author in made} == {("b1", "a"), ("a2", "a")}
        assert AuthorService(session=db).count() == 3


@pytest.mark.usefixtures("untouched")
def test_its_on_conflict_upsert_leaves_the_row_of_another_tenant(engine: Engine) -> None:
    values = {"id": of_b(engine, Author), "name": "taken"}
    upsert = OnConflictUpsert.create_upsert(
        Author.__table__, values, conflict_columns=["id"], update_columns=["name"], dialect_name=engine.dialect.name
    )
    with bind(A), engine.begin() as connection:
        connection.execute(upsert)
    with bind(A), PlainSession(engine) as db:
        assert names(AuthorService(session=db).get_many()) == ["a1", "a2"]


@pytest.mark.usefixtures("untouched")
def test_its_raw_health_check_needs_a_system_block(engine: Engine) -> None:
    with bind(A), PlainSession(engine) as db, pytest.raises(StatementRefused):
        AuthorService(session=db).repository.check_health(db)
    with system("health check"), PlainSession(engine) as db:
        assert AuthorService(session=db).repository.check_health(db)


# --- both, asynchronous -------------------------------------------------------------------------------------------


def test_async_sessions_of_both_libraries_hold() -> None:
    async def work() -> None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        heroes, authors = async_sessionmaker(engine, class_=AsyncSession), async_sessionmaker(engine)
        with system("create the test's tables"):
            async with engine.begin() as connection:
                for metadata in METADATA:
                    await connection.run_sync(metadata.create_all)
        keys = {}
        for identity, name in ((A, "a"), (B, "b")):
            with bind(identity):
                async with heroes() as db:
                    db.add(Hero(name=f"{name}1"))
                    await db.commit()
                async with authors() as db:
                    keys[name] = (await AsyncAuthorService(session=db).create({"name": f"{name}1"})).id
                    await db.commit()
        with bind(A):
            async with heroes() as db:
                assert [hero.name for hero in await db.exec(select(Hero))] == ["a1"]
                db.add(Hero(name="x", tenant_id="b"))
                with pytest.raises(ForeignTenantWrite):
                    await db.commit()
            async with authors() as db:
                service = AsyncAuthorService(session=db)
                rows, count = await service.list_and_count()
                assert (names(rows), count) == (["a1"], 1)
                with pytest.raises(NotFoundError):
                    await service.get(keys["b"])
                with pytest.raises(NotFoundError):
                    await service.update({"name": "taken"}, item_id=keys["b"])
                assert names(await service.delete_many([keys["b"]])) == []
                assert names(await service.create_many([{"name": "a2"}, {"name": "a3"}])) == ["a2", "a3"]
                assert (await service.upsert({"id": keys["a"], "name": "a1x"})).name == "a1x"
                assert names(await service.upsert_many([{"id": keys["a"], "name": "a1y"}, {"name": "a4"}])) == [
                    "a1y",
                    "a4",
                ]
                await db.commit()
                with pytest.raises(DuplicateKeyError):
                    await service.upsert({"id": keys["b"], "name": "taken"})
                await db.rollback()
                with pytest.raises(ForeignTenantWrite):
                    await service.create({"name": "x", "tenant_id": "b"})
        with bind(B):
            async with heroes() as db:
                assert [hero.name for hero in await db.exec(select(Hero))] == ["b1"]
            async with authors() as db:
                assert names(await AsyncAuthorService(session=db).get_many()) == ["b1"]
        await engine.dispose()

    anyio.run(work)
