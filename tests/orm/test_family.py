"""Children, links and composite keys: nothing is read, planted or moved across tenants."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, delete, exists, func, insert, literal, select, update
from sqlalchemy.orm import Session, aliased, joinedload, selectinload

from tenantguard import bind, system
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, StatementRefused, TenantGuardError
from tenantguard.orm import owned_through
from tenantguard.orm.classify import Child, classify_alone
from tests.orm.conftest import A, B
from tests.orm.family import Base, Campaign, Comment, Invoice, Line, Person, Project, Setting, Task, watchers
from tests.support.engines import DATABASES, protected_engine, upsert


def seed(engine: Engine) -> None:
    with system("create the test's tables"):
        Base.metadata.create_all(engine)
    for identity, name, first in ((A, "a", 1), (B, "b", 101)):
        with bind(identity), Session(engine) as db, db.begin():
            person = Person(id=first, name=f"{name}-person")
            db.add(person)
            db.add(
                Project(
                    id=first,
                    name=f"{name}-project",
                    lead=person,
                    watchers=[person],
                    tasks=[Task(id=first, title=f"{name}-task", comments=[Comment(id=first, text=f"{name}-comment")])],
                )
            )
            db.add(Campaign(id=first + 1, name=f"{name}-campaign", budget=first))
            db.add(Invoice(number=7, total=first, lines=[Line(id=first, amount=first)]))


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with protected_engine(request, request.param, Base.metadata) as made:
        seed(made)
        yield made


@pytest.fixture
def db(engine: Engine, request: pytest.FixtureRequest) -> Session:
    block = bind(A)
    block.__enter__()
    session = Session(engine)

    def close() -> None:
        session.close()
        block.__exit__(None, None, None)

    request.addfinalizer(close)
    return session


def test_what_each_table_is() -> None:
    for table in (Task.__table__, Comment.__table__, Campaign.__table__, watchers):
        assert isinstance(classify_alone(table), Child)


# --- reading -----------------------------------------------------------------------------------------------

TASKS = Task.__table__
READS: dict[str, Callable[[Session], Any]] = {
    "entities": lambda db: [task.title for task in db.scalars(select(Task))],
    "core": lambda db: list(db.execute(select(TASKS.c.title)).scalars()),
    "alias": lambda db: list(db.scalars(select(aliased(Task).title))),
    "subquery": lambda db: list(db.scalars(select(select(Task.title).subquery().c.title))),
    "cte": lambda db: list(db.scalars(select(select(Task.title).cte().c.title))),
    "union": lambda db: list(db.scalars(select(Task.title).union(select(Task.title)))),
    "join": lambda db: list(db.scalars(select(Task.title).join(Project))),
    "from the parent": lambda db: list(db.scalars(select(Task.title).select_from(Project).join(Task))),
    "by a join that matches all": lambda db: list(
        db.scalars(select(Task.title).join(Project, literal(1) == 1).distinct())
    ),
    "in": lambda db: list(db.scalars(select(Task.title).where(Task.id.in_(select(Task.id))))),
    "or true": lambda db: list(db.scalars(select(Task.title).where((Task.id == 0) | (literal(1) == 1)))),
    "lazy": lambda db: [task.title for task in db.get(Project, 1).tasks],  # type: ignore[union-attr]
    "selectin": lambda db: [
        t.title for p in db.scalars(select(Project).options(selectinload(Project.tasks))) for t in p.tasks
    ],
    "joined": lambda db: [
        t.title for p in db.scalars(select(Project).options(joinedload(Project.tasks))).unique() for t in p.tasks
    ],
    "back": lambda db: [db.scalars(select(Comment)).one().task.title],
}


@pytest.mark.parametrize("name", READS)
def test_children_are_read_through_their_parent(db: Session, name: str) -> None:
    assert READS[name](db) == ["a-task"]


def test_children_are_counted_and_asked_for_through_their_parent(db: Session) -> None:
    assert db.scalar(select(func.count()).select_from(Task)) == 1
    assert db.scalar(select(func.count()).select_from(Comment)) == 1
    assert db.scalar(select(func.count()).select_from(watchers)) == 1
    assert db.scalar(select(exists().where(Comment.text == "b-comment"))) is False
    assert db.get(Task, 101) is None
    assert db.get(Comment, 101) is None
    assert [campaign.name for campaign in db.scalars(select(Campaign))] == ["a-campaign"]
    assert list(db.scalars(select(Campaign.__table__.c.budget))) == [1]
    assert {project.name for project in db.scalars(select(Project))} == {"a-project", "a-campaign"}


def test_outer_joins_keep_their_unmatched_rows(db: Session) -> None:
    db.add(Project(id=5, name="empty"))
    db.flush()
    rows = db.execute(select(Project.name, Task.title).outerjoin(Task).order_by(Project.id)).all()
    assert [tuple(row) for row in rows] == [("a-project", "a-task"), ("a-campaign", None), ("empty", None)]
    pairs = db.execute(select(Person.name, Task.title).outerjoin(Task, literal(1) == 1)).all()
    assert [tuple(row) for row in pairs] == [("a-person", "a-task")]


# --- writing -----------------------------------------------------------------------------------------------


def put(db: Session, table: Any, rows: Any, set_: Any) -> Any:
    return db.execute(upsert(db.get_bind().dialect.name, table, rows, set_))


def relate(db: Session, **changes: Any) -> None:
    task = db.get(Task, 1)
    assert task is not None
    for name, value in changes.items():
        setattr(task, name, value)
    db.flush()


PLANTS: dict[str, Callable[[Session], Any]] = {
    "a child of a foreign parent": lambda db: (db.add(Task(title="x", project_id=101)), db.flush()),
    "a grandchild": lambda db: (db.add(Comment(text="x", task_id=101)), db.flush()),
    "a link by column": lambda db: (db.add(Project(name="x", lead_id=101)), db.flush()),
    "a link of a child": lambda db: (db.add(Task(title="x", project_id=1, assignee_id=101)), db.flush()),
    "a changed link": lambda db: relate(db, assignee_id=101),
    "a changed parent": lambda db: relate(db, project_id=101),
    "core insert": lambda db: db.execute(insert(Task).values(title="x", project_id=101)),
    "core parameters": lambda db: db.execute(insert(TASKS), {"title": "x", "project_id": 101}),
    "core many": lambda db: db.execute(
        insert(TASKS), [{"title": "x", "project_id": 1}, {"title": "y", "project_id": 101}]
    ),
    "core multi-values": lambda db: db.execute(
        insert(TASKS).values([{"title": "x", "project_id": 1}, {"title": "y", "project_id": 101}])
    ),
    "core expression": lambda db: db.execute(insert(TASKS).values(title="x", project_id=literal(100) + 1)),
    "core from select": lambda db: db.execute(
        insert(TASKS).from_select(["title", "project_id"], select(Project.name, literal(101)))
    ),
    "core from arithmetic": lambda db: db.execute(
        insert(TASKS).from_select(["title", "project_id"], select(Project.name, Project.id + 100))
    ),
    "orm bulk": lambda db: db.execute(insert(Task), [{"title": "x", "project_id": 101}]),
    "bulk mappings": lambda db: db.bulk_insert_mappings(Task, [{"title": "x", "project_id": 101}]),  # type: ignore[arg-type]
    "bulk objects": lambda db: db.bulk_save_objects([Task(title="x", project_id=101)]),
    "update": lambda db: db.execute(update(Project).values(lead_id=101)),
    "update expression": lambda db: db.execute(update(Project).values(lead_id=Project.id + 100)),
    "update parameters": lambda db: db.execute(update(TASKS), {"assignee_id": 101}),
    "update by key": lambda db: db.execute(update(Task), [{"id": 1, "assignee_id": 101}]),
    "update child's parent": lambda db: db.execute(update(Task).values(project_id=101)),
    "association": lambda db: db.execute(insert(watchers).values(project_id=1, person_id=101)),
    "association, other side": lambda db: db.execute(insert(watchers).values(project_id=101, person_id=1)),
    "upsert": lambda db: put(db, TASKS, {"id": 1, "title": "x", "project_id": 1}, {"assignee_id": 101}),
    "upsert expression": lambda db: put(
        db, TASKS, {"id": 1, "title": "x", "project_id": 1}, {"assignee_id": TASKS.c.id + 100}
    ),
    "upsert row": lambda db: put(db, TASKS, {"id": 1, "title": "x", "project_id": 101}, None),
    "self": lambda db: (db.add(Project(name="x", parent_id=101)), db.flush()),
    "self in one statement with do nothing": lambda db: put(
        db,
        Project.__table__,
        [{"id": 101, "name": "x", "parent_id": None}, {"id": 9, "name": "y", "parent_id": 101}],
        None,
    ),
    "shared table": lambda db: (db.add(Setting(name="x", owner_id=101)), db.flush()),
    "joined inheritance": lambda db: db.execute(insert(Campaign.__table__).values(id=101, budget=1)),
}


@pytest.mark.parametrize("name", PLANTS)
def test_no_key_is_planted_that_points_to_a_foreign_row(engine: Engine, db: Session, name: str) -> None:
    with pytest.raises(ForeignTenantWrite) as refused:
        PLANTS[name](db)
    assert "101" not in str(refused.value)
    db.rollback()
    with bind(B), Session(engine) as other:
        assert [task.title for task in other.scalars(select(Task))] == ["b-task"]
        assert other.scalar(select(func.count()).select_from(watchers)) == 1


def test_a_foreign_object_is_not_linked(engine: Engine, db: Session) -> None:
    with bind(B), Session(engine) as other:
        person = other.get(Person, 101)
        project = other.get(Project, 101)
        assert person is not None
        other.expunge_all()
    task = db.get(Task, 1)
    mine = db.get(Project, 1)
    assert task is not None
    assert mine is not None
    for plant in (
        lambda: setattr(mine, "lead", person),
        lambda: mine.watchers.append(person),
        lambda: setattr(task, "project", project),
    ):
        with pytest.raises((TenantGuardError, Exception)) as refused:
            plant()
            db.flush()
        assert "b-" not in str(refused.value)
        db.rollback()


@pytest.mark.parametrize(
    "change",
    [
        lambda: update(Task).values(title="stolen"),
        lambda: update(TASKS).where(TASKS.c.id == 101).values(title="stolen"),
        lambda: delete(Comment),
        lambda: delete(TASKS).where(TASKS.c.id == 101),
        lambda: delete(watchers),
        lambda: update(Campaign.__table__).values(budget=0),
    ],
    ids=range(6),
)
def test_changes_touch_own_children_only(engine: Engine, db: Session, change: Callable[[], Any]) -> None:
    with system("look"), Session(engine) as all_rows:
        before = _rows(all_rows)
    assert db.execute(change()).rowcount <= 1  # type: ignore[attr-defined]
    db.commit()
    with system("look"), Session(engine) as all_rows:
        after = _rows(all_rows)
    assert [row for row in after if "b-" in str(row) or 101 in row] == [
        row for row in before if "b-" in str(row) or 101 in row
    ]


def _rows(db: Session) -> list[tuple[Any, ...]]:
    tables = (Task.__table__, Comment.__table__, watchers, Campaign.__table__)
    return [tuple(row) for table in tables for row in db.execute(select(table).order_by(*table.primary_key)).all()]


def test_what_is_right_passes(engine: Engine, db: Session) -> None:
    db.add(Project(id=10, name="new", lead_id=1, parent_id=1, tasks=[Task(id=10, title="t", assignee_id=1)]))
    db.flush()
    db.execute(
        insert(TASKS), [{"id": 1000 + n, "title": str(n), "project_id": 10, "assignee_id": None} for n in range(1200)]
    )
    db.execute(
        insert(TASKS).from_select(["id", "title", "project_id"], select(Project.id + 3000, Project.name, Project.id))
    )
    db.execute(
        insert(TASKS).from_select(
            ["id", "title", "project_id"], select(Task.id + 5000, Task.title, Task.project_id).where(Task.id == 1)
        )
    )
    db.execute(update(Task).values(project_id=select(Project.id).where(Project.name == "new").scalar_subquery()))
    db.execute(update(Project).values(lead_id=None))
    db.execute(
        insert(Project.__table__),
        [{"id": 20, "name": "p", "parent_id": None}, {"id": 21, "name": "q", "parent_id": 20}],
    )
    put(db, TASKS, {"id": 1, "title": "again", "project_id": 1}, {"title": "again", "assignee_id": 1})
    db.add(Campaign(id=30, name="c", budget=1))
    db.commit()
    assert db.scalar(select(func.count()).select_from(Task)) == 1206
    task = db.get(Task, 1)
    assert task is not None
    assert (task.title, task.assignee_id) == ("again", 1)


def test_an_upsert_leaves_a_foreign_child_in_the_way_as_it_is(engine: Engine, db: Session) -> None:
    put(db, TASKS, {"id": 101, "title": "stolen", "project_id": 1}, {"title": "stolen", "project_id": 1})
    db.commit()
    with bind(B), Session(engine) as other:
        assert other.get(Task, 101).title == "b-task"  # type: ignore[union-attr]


def test_a_rolled_back_parent_is_looked_up_again(db: Session) -> None:
    savepoint = db.begin_nested()
    db.execute(insert(Person.__table__).values(id=50, name="gone"))
    db.execute(insert(TASKS).values(id=60, title="x", project_id=1, assignee_id=50))
    savepoint.rollback()
    with pytest.raises(ForeignTenantWrite):
        db.execute(insert(TASKS).values(id=60, title="x", project_id=1, assignee_id=50))


def test_the_same_key_in_two_tenants_is_two_rows(engine: Engine, db: Session) -> None:
    invoice = db.get(Invoice, ("a", 7))
    assert invoice is not None
    assert [line.amount for line in invoice.lines] == [1]
    assert db.get(Invoice, ("b", 7)) is None
    invoice.total = 5
    db.add(Line(id=2, number=7, amount=2))
    db.flush()
    assert db.execute(update(Invoice).where(Invoice.number == 7).values(total=6)).rowcount == 1  # type: ignore[attr-defined]
    db.execute(delete(Line))
    assert db.execute(delete(Invoice).where(Invoice.number == 7)).rowcount == 1  # type: ignore[attr-defined]
    db.commit()
    with bind(B), Session(engine) as other:
        assert other.scalars(select(Invoice)).one().total == 101
        assert other.scalar(select(func.count()).select_from(Line)) == 1


def test_declarations_that_can_not_hold_are_refused() -> None:
    from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

    with pytest.raises(ConfigurationError):
        owned_through()
    metadata = MetaData()
    Table("parents", metadata, Column("id", Integer, primary_key=True), Column("tenant", Integer, nullable=False))
    for info, column in (
        (owned_through("nothing"), Column("parent_id", ForeignKey("parents.id"), nullable=False)),
        (owned_through("parents"), Column("parent_id", ForeignKey("parents.id"))),
        (owned_through("parents"), Column("parent_id", ForeignKey("parents.id"), nullable=False)),
    ):
        table = Table(
            "children", metadata, Column("id", Integer, primary_key=True), column, info=info, extend_existing=True
        )
        with pytest.raises((ConfigurationError, StatementRefused)):
            classify_alone(table)
        metadata.remove(table)
