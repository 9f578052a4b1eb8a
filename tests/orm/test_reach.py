"""Who reaches how far: everybody's rows, dimensions inside the tenant, sets of tenants, whole schemas by a rule."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, func, insert, null, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import StaticPool

from tenantguard import Identity, bind, read_tenants, service_identity, system
from tenantguard.errors import (
    BindingError,
    ConfigurationError,
    ForeignTenantWrite,
    InvalidTenantId,
    StatementRefused,
    TenantGuardError,
    TenantMismatch,
    UnclassifiedTable,
)
from tenantguard.orm import protect, tenant_key
from tests.orm.reach import (
    Base,
    Issue,
    Letter,
    Member,
    Part,
    Part2,
    Project,
    Rate,
    Remark,
    Secret,
    Template,
    Watch,
    Workspace,
    lines,
    lookups,
    old,
    orders,
    strangers,
)

A, B, C = (service_identity("test", tenant=tenant) for tenant in ("a", "b", "c"))
W1 = service_identity("test", tenant="a", dimensions={"workspace": "a-w1"})
P1 = service_identity("test", tenant="a", dimensions={"workspace": "a-w1", "project": "a-w1-p1"})


@contextmanager
def used_by(identity: Identity, engine: Engine) -> Any:
    block = bind(identity)
    block.__enter__()
    try:
        with Session(engine) as db:
            yield db
    finally:
        block.__exit__(None, None, None)


def seed(engine: Engine) -> None:
    with system("create the test's tables"), Session(engine) as db, db.begin():
        Base.metadata.create_all(db.connection())
        old.create_all(db.connection())
        db.add(Template(id=1, org=null(), name="all", parts=[Part(id=1, text="all-part")]))
        db.add(Rate(org="*", code="eur", value=1))
    for identity, first in ((A, 100), (B, 200), (C, 300)):
        assert identity.tenant is not None
        name = identity.tenant.id
        with bind(identity), Session(engine) as db, db.begin():
            db.add(Template(id=first, name=name, parts=[Part(id=first, text=f"{name}-part")]))
            db.add(Rate(code="usd", value=first))
            db.add(Member(id=first, name=f"{name}-member"))
            db.add(Secret(id=first, value=f"{name}-secret"))
            number = first
            for w in ("w1", "w2"):
                workspace = f"{name}-{w}"
                db.add(Workspace(id=workspace, name=workspace))
                db.flush()
                for p in ("p1", "p2"):
                    project = f"{workspace}-{p}"
                    db.add(Project(id=project, workspace_id=workspace, name=project))
                    db.flush()
                    db.add(Issue(id=number, workspace_id=workspace, project_id=project, title=project))
                    db.flush()
                    db.add(Remark(id=number, issue_id=number, text=project))
                    db.add(Watch(id=number, issue_id=number, who=project))
                    number += 1


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def seeded(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = create_engine("sqlite://", poolclass=StaticPool)
    else:
        url: str = request.getfixturevalue("postgres_module_url")
        made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    protect(made, metadata=[Base.metadata])
    # Of the old schema one table is unclassified, so it is named once the first connection has been made.
    seed_engine(made)
    yield made
    made.dispose()


def seed_engine(engine: Engine) -> None:
    with system("connect"), engine.connect():
        pass
    protect(engine, metadata=[old])
    seed(engine)


@pytest.fixture
def engine(seeded: Engine) -> Iterator[Engine]:
    """The engine, with every change of the test rolled back by hand: tests commit nothing unless they say so."""
    return seeded


# --- rows for everybody --------------------------------------------------------------------------------------


def test_own_rows_and_those_of_everybody_are_read(engine: Engine) -> None:
    with used_by(A, engine) as db:
        assert sorted(db.scalars(select(Template.name))) == ["a", "all"]
        assert sorted(db.scalars(select(Part.text))) == ["a-part", "all-part"]
        assert sorted(db.scalars(select(Rate.code))) == ["eur", "usd"]
        assert db.get(Template, 1) is not None
        assert db.get(Template, 200) is None
        assert db.scalar(select(func.count()).select_from(Template)) == 2
        assert sorted(part.text for t in db.scalars(select(Template)) for part in t.parts) == ["a-part", "all-part"]


def make(model: Any, **values: Any) -> Callable[[Session], Any]:
    return lambda db: (db.add(model(**values)), db.flush())


def change(model: Any, key: Any, **values: Any) -> Callable[[Session], Any]:
    def run(db: Session) -> None:
        found = db.get(model, key)
        assert found is not None
        for name, value in values.items():
            setattr(found, name, value)
        db.flush()

    return run


EVERYBODYS: dict[str, Callable[[Session], Any]] = {
    "change": change(Template, 1, name="mine"),
    "take": change(Template, 1, org="a"),
    "give": change(Template, 100, org=None),
    "make": make(Template, id=9, org=null(), name="x"),
    "make by value": make(Rate, org="*", code="x", value=1),
    "values": lambda db: db.execute(insert(Rate).values(org="*", code="x", value=1)),
    "part of everybody's": make(Part, id=9, template_id=1, text="x"),
    "part by select": lambda db: db.execute(
        insert(Part).from_select(["id", "template_id", "text"], select(Template.id + 50, Template.id, Template.name))
    ),
    "move a part": change(Part, 100, template_id=1),
    "change a part": change(Part, 1, text="x"),
}


@pytest.mark.parametrize("name", EVERYBODYS)
def test_rows_for_everybody_are_written_in_system_contexts_alone(engine: Engine, name: str) -> None:
    with used_by(A, engine) as db:
        with pytest.raises((TenantGuardError, StaleDataError)):
            EVERYBODYS[name](db)
        db.rollback()
    with used_by(B, engine) as db:
        assert sorted(db.scalars(select(Template.name))) == ["all", "b"]
        assert sorted(db.scalars(select(Part.text))) == ["all-part", "b-part"]


def test_changes_without_a_filter_leave_everybodys_rows_alone(engine: Engine) -> None:
    with used_by(A, engine) as db:
        assert db.execute(update(Template).values(name="x")).rowcount == 1
        assert db.execute(update(Part).values(text="x")).rowcount == 1
        assert db.execute(update(Rate).values(value=0)).rowcount == 1
        assert db.execute(delete(Part)).rowcount == 1
        assert db.execute(delete(Rate)).rowcount == 1
        db.rollback()


def test_a_link_may_point_to_everybodys_row_and_not_to_anothers(engine: Engine) -> None:
    with used_by(A, engine) as db:
        db.add_all([Letter(id=1, template_id=1), Letter(id=2, template_id=100)])
        db.flush()
        with pytest.raises(ForeignTenantWrite):
            db.execute(insert(Letter).values(id=3, template_id=200))
        db.rollback()


def test_a_row_for_everybody_is_not_made_by_oversight(engine: Engine) -> None:
    with system("import"), Session(engine) as db:
        for forget in (
            make(Template, id=9, name="x"),
            lambda db: db.execute(insert(Template).values(id=9, name="x")),
            lambda db: db.execute(insert(Template), [{"id": 9, "name": "x"}, {"id": 10, "name": "y"}]),
            lambda db: db.execute(insert(Template).values([{"id": 9, "name": "x"}, {"id": 10, "name": "y"}])),
            lambda db: db.execute(insert(Template).from_select(["id", "name"], select(Template.id + 5, Template.name))),
        ):
            with pytest.raises(ForeignTenantWrite, match="everybody"):
                forget(db)
            db.rollback()
        db.execute(insert(Template).values(id=9, name="x", org=None))
        db.rollback()


def test_the_value_of_everybodys_rows_is_nobodys_id(engine: Engine) -> None:
    from sqlalchemy import Column, Integer, MetaData, Table

    from tenantguard.orm.classify import Owned, classify_alone

    table = Table("reach_numbers", MetaData(), Column("org", Integer, nullable=False, info=tenant_key(global_rows=0)))
    kind = classify_alone(table)
    assert isinstance(kind, Owned)
    with pytest.raises(ValueError, match="everybody"):
        kind.convert("0")
    assert kind.convert("7") == 7
    with pytest.raises(ConfigurationError, match="may not be NULL"):
        classify_alone(
            Table("reach_no", MetaData(), Column("org", Integer, nullable=False, info=tenant_key(global_rows=True)))
        )


# --- dimensions inside the tenant ------------------------------------------------------------------------------

NARROWED: dict[str, Any] = {
    "entities": lambda db: [one.title for one in db.scalars(select(Issue))],
    "core": lambda db: list(db.scalars(select(Issue.__table__.c.title))),
    "child": lambda db: list(db.scalars(select(Remark.text))),
    "through its issue": lambda db: list(db.scalars(select(Watch.who))),
    "join": lambda db: list(db.scalars(select(Issue.title).join(Project, Project.id == Issue.project_id))),
}


@pytest.mark.parametrize("name", NARROWED)
def test_the_narrowest_right_is_the_filter(engine: Engine, name: str) -> None:
    for identity, expected in (
        (A, ["a-w1-p1", "a-w1-p2", "a-w2-p1", "a-w2-p2"]),
        (W1, ["a-w1-p1", "a-w1-p2"]),
        (P1, ["a-w1-p1"]),
        (A, ["a-w1-p1", "a-w1-p2", "a-w2-p1", "a-w2-p2"]),
    ):
        with used_by(identity, engine) as db:
            assert sorted(NARROWED[name](db)) == expected


def test_the_row_of_the_dimension_itself_is_narrowed(engine: Engine) -> None:
    with used_by(W1, engine) as db:
        assert list(db.scalars(select(Workspace.name))) == ["a-w1"]
        assert sorted(db.scalars(select(Project.name))) == ["a-w1-p1", "a-w1-p2"]
    with used_by(P1, engine) as db:
        assert list(db.scalars(select(Project.name))) == ["a-w1-p1"]
        # A workspace has no project's key, and nothing says that projects may see it.
        with pytest.raises(StatementRefused, match="project"):
            db.scalars(select(Workspace)).all()


def test_a_table_that_says_nothing_of_the_dimension_is_refused_and_a_wide_one_is_read(engine: Engine) -> None:
    for identity in (W1, P1):
        with used_by(identity, engine) as db:
            assert list(db.scalars(select(Member.name))) == ["a-member"]
            for refused in (
                lambda db: db.scalars(select(Secret)).all(),
                lambda db: db.execute(update(Secret).values(value="x")),
                make(Secret, id=9, value="x"),
                make(Member, id=9, name="x"),
                lambda db: db.execute(update(Member).values(name="x")),
                lambda db: db.execute(delete(Member)),
            ):
                with pytest.raises(StatementRefused, match="narrowed"):
                    refused(db)
                db.rollback()
    with used_by(A, engine) as db:
        assert list(db.scalars(select(Secret.value))) == ["a-secret"]


def test_new_rows_of_a_narrowed_identity_are_stamped(engine: Engine) -> None:
    with used_by(P1, engine) as db:
        db.add(Issue(id=50, title="new"))
        db.execute(insert(Issue).values(id=51, title="new"))
        db.execute(insert(Issue), [{"id": 52, "title": "new"}, {"id": 53, "title": "new"}])
        db.execute(insert(Issue).values([{"id": 54, "title": "new"}, {"id": 55, "title": "new"}]))
        rows = db.execute(
            select(Issue.tenant_id, Issue.workspace_id, Issue.project_id).where(Issue.title == "new").distinct()
        ).all()
        assert [tuple(row) for row in rows] == [("a", "a-w1", "a-w1-p1")]
        db.rollback()


ACROSS: dict[str, Callable[[Session], Any]] = {
    "another project": make(Issue, id=9, title="x", workspace_id="a-w1", project_id="a-w1-p2"),
    "another workspace": make(Issue, id=9, title="x", workspace_id="a-w2", project_id="a-w2-p1"),
    "values": lambda db: db.execute(insert(Issue).values(id=9, title="x", project_id="a-w1-p2")),
    "move": change(Issue, 100, project_id="a-w1-p2"),
    "update": lambda db: db.execute(update(Issue).values(workspace_id="a-w2")),
    "link": change(Issue, 100, duplicate_of=101),
    "child": make(Remark, id=9, issue_id=101, text="x"),
    "through": make(Watch, id=9, issue_id=101, who="x"),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_narrowed_identity_writes_nothing_beyond(engine: Engine, name: str) -> None:
    with used_by(P1, engine) as db:
        with pytest.raises(ForeignTenantWrite):
            ACROSS[name](db)
        db.rollback()


def test_changes_of_a_narrowed_identity_touch_its_rows_only(engine: Engine) -> None:
    with used_by(P1, engine) as db:
        assert db.execute(update(Issue).values(title="x")).rowcount == 1
        assert db.execute(update(Remark).values(text="x")).rowcount == 1
        assert db.execute(delete(Watch)).rowcount == 1
        db.rollback()
    with used_by(W1, engine) as db:
        assert db.execute(update(Issue).values(title="x")).rowcount == 2
        db.rollback()


def test_a_session_does_not_cross_reaches(engine: Engine) -> None:
    db = Session(engine)
    with bind(A):
        assert db.get(Issue, 102) is not None
    with bind(P1):
        for use in (lambda: db.get(Issue, 102), lambda: db.scalars(select(Issue)).all()):
            with pytest.raises(TenantMismatch):
                use()
    db.close()


def test_a_key_that_holds_the_tenants_alone_is_looked_up_for_narrowed_identities(engine: Engine) -> None:
    with used_by(A, engine) as db:
        db.add(Part2(id=1, rate="usd"))
        db.flush()
        db.rollback()
        with pytest.raises(IntegrityError):
            db.execute(insert(Part2).values(id=1, rate="nothing"))
            if db.get_bind().dialect.name == "sqlite":  # does not enforce foreign keys unless told
                raise IntegrityError("", {}, ValueError())
        db.rollback()


def test_identities_are_narrowed_by_texts_only() -> None:
    for wrong in ({"workspace": ""}, {"workspace": 0}, {"workspace": None}, {"tenant": "b"}, {"": "x"}):
        with pytest.raises((TypeError, InvalidTenantId)):
            service_identity("x", tenant="a", dimensions=wrong)  # type: ignore[arg-type]


# --- a set of tenants for reading ------------------------------------------------------------------------------


def test_a_set_of_tenants_is_read_and_one_is_written(engine: Engine) -> None:
    with bind(A):
        with read_tenants(["b"], reason="group report"), Session(engine) as db:
            assert sorted(db.scalars(select(Template.name))) == ["a", "all", "b"]
            assert sorted(db.scalars(select(Secret.value))) == ["a-secret", "b-secret"]
            assert db.scalar(select(func.count()).select_from(Issue)) == 8
            assert sorted(db.scalars(select(Part.text))) == ["a-part", "all-part", "b-part"]
            assert db.get(Secret, 300) is None
            assert db.execute(update(Secret).values(value="x")).rowcount == 1
            assert db.execute(update(Part).values(text="x")).rowcount == 1
            db.rollback()
            for plant in (
                make(Secret, id=9, value="x", tenant_id="b"),
                make(Letter, id=9, template_id=200),
                make(Part, id=9, template_id=200, text="x"),
                change(Issue, 100, duplicate_of=200),
                lambda db: db.execute(
                    insert(Letter).from_select(["id", "template_id"], select(Template.id, Template.id))
                ),
                lambda db: db.execute(
                    insert(Letter).values(id=9, template_id=select(func.max(Template.id)).scalar_subquery())
                ),
            ):
                with pytest.raises(ForeignTenantWrite):
                    plant(db)
                db.rollback()
        with Session(engine) as db:
            assert list(db.scalars(select(Secret.value))) == ["a-secret"]


def test_one_cached_statement_serves_every_set(engine: Engine) -> None:
    sizes = []
    for others in (["b"], ["c"], ["b", "c"]):
        with bind(A), read_tenants(others, reason="report"), Session(engine) as db:
            assert db.scalar(select(func.count(Secret.id))) == 1 + len(others)
        sizes.append(len(engine._compiled_cache))
    assert sizes[0] == sizes[-1]


def test_what_was_read_for_a_set_does_not_answer_for_one(engine: Engine) -> None:
    with bind(A):
        db = Session(engine)
        with read_tenants(["b"], reason="report"):
            kept = db.get(Secret, 200)
            assert kept is not None
            result = db.execute(select(Secret.value))
        with pytest.raises(TenantMismatch):
            db.get(Secret, 200)
        with pytest.raises(TenantMismatch):
            result.all()
        db.close()


def test_nothing_never_means_all_tenants(engine: Engine) -> None:
    with bind(A):
        for wrong in ([], set(), "", None, 0, "b", [""], [None], [0]):
            with pytest.raises((BindingError, InvalidTenantId)):
                read_tenants(wrong, reason="report")  # type: ignore[arg-type]
        with pytest.raises(BindingError, match="reason"):
            read_tenants(["b"], reason=" ")
    with pytest.raises(BindingError, match="tenant is bound"), read_tenants(["b"], reason="report"):
        pass
    with bind(P1), pytest.raises(BindingError, match="narrowed"), read_tenants(["b"], reason="report"):
        pass


# --- whole schemas by a rule -----------------------------------------------------------------------------------


def test_a_rule_classifies_the_tables_of_a_schema(engine: Engine) -> None:
    one, two = (service_identity("t", tenant=tenant) for tenant in ("1", "2"))
    for identity, key in ((one, 1), (two, 2)):
        with used_by(identity, engine) as db:
            db.execute(insert(orders).values(id=key))
            db.execute(insert(lines).values(id=key, order_id=key))
            db.commit()
    with used_by(one, engine) as db:
        assert db.execute(select(orders.c.id, orders.c.org_id)).all() == [(1, 1)]
        assert list(db.scalars(select(lines.c.id))) == [1]
        assert list(db.scalars(select(lookups.c.name))) == []
        with pytest.raises(UnclassifiedTable, match="old_strangers"):
            db.scalars(select(strangers.c.id)).all()
        with pytest.raises(ForeignTenantWrite):
            db.execute(insert(lines).values(id=9, order_id=2))
