"""A criterion that fails on another tenant's row would tell of that row; it is evaluated on the tenant's rows alone.

PostgreSQL chooses freely in which order it applies criteria, and turns the predicate of a child table into a join. Its
planner is told here to read whole tables, as it does when they are large, so that the author's criteria come first
wherever they may.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from tenantguard import bind
from tenantguard.orm import scoping
from tests.orm.conftest import A
from tests.orm.silo.databases import BESIDE, Databases, postgresql, sqlite
from tests.orm.silo.oracle import Difference, Oracle
from tests.orm.silo.programs import Program, Step
from tests.orm.silo.world import TABLES, Note

READS_WHOLE_TABLES = (
    "SET enable_nestloop = off; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off"
)
# Each fails on a row of b's, and on none of a's.
CHILDREN = {
    "where": "select(notes.c.text).where(100 // (notes.c.stars + 900_002) != 7)",
    "entity": "select(Note).where(100 // (Note.stars + 900_002) != 7)",
    "alias": "select((n := notes.alias('n')).c.text).where(100 // (n.c.stars + 900_002) != 7)",
    "cast that shows the value": "select(notes.c.position).where(cast(case((notes.c.text.like('B%'), notes.c.text), else_='1'), Integer) == 1)",
    "another key": "select(watchers.c.since).where(100 // (watchers.c.since - 900_001) != 7)",
    "child of a child": "select(replies.c.text).where(100 // (replies.c.number - 51) != 7)",
    "inherited": "select(contracts.c.worth).where(100 // (contracts.c.worth - 900_005) != 7)",
    "joined inheritance": "select(Contract.title).where(100 // (Contract.worth - 900_005) != 7)",
    "outer join": "select(Folder.id, Note.text).outerjoin(Note, 100 // (Note.stars + 900_002) != 7)",
    "inner join": "select(Folder.id, Note.text).join(Note, 100 // (Note.stars + 900_002) != 7)",
    "around a subquery": "select((s := select(notes.c.stars).subquery()).c.stars).where(100 // (s.c.stars + 900_002) != 7)",
    "around an expression": "select((s := select((100 // (notes.c.stars + 900_002)).label('x')).subquery()).c.x).where(s.c.x != 7)",
    "around a cte": "select((s := select(notes.c.stars).cte()).c.stars).where(100 // (s.c.stars + 900_002) != 7)",
    "in exists": "select(Folder.id).where(select(notes).where(100 // (notes.c.stars + 900_002) == 7).exists())",
    "in a union": "union_all(select(tags.c.id), select(notes.c.stars).where(100 // (notes.c.stars + 900_002) != 7))",
    "regular expression": "select(notes.c.text).where(literal('x').regexp_match(func.replace(notes.c.text, 'B-CANARY', '[')))",
    "two rows of a scalar subquery": "select(notes.c.text).where(select(documents.c.id).where(notes.c.stars < 0).scalar_subquery() == 1)",
    "update": "update(notes).where(100 // (notes.c.stars + 900_002) != 7).values(stars=1)",
    "update of an entity": "update(Note).where(100 // (Note.stars + 900_002) != 7).values(stars=1)",
    "update from a child": "update(tags).where(tags.c.id == notes.c.position, 100 // (notes.c.stars + 900_002) != 7).values(label='x')",
    "delete": "delete(notes).where(100 // (notes.c.stars + 900_002) != 7)",
    "insert from select": "insert(ledger).from_select(['number', 'account'], select(notes.c.stars + 500, notes.c.text).where(100 // (notes.c.stars + 900_002) != 7))",
}  # fmt: skip
OWNED = {
    "where": "select(documents.c.title).where(100 // (documents.c.size + 900_006) != 7)",
    "cast that shows the value": "select(documents.c.title).where(cast(case((documents.c.title.like('B%'), documents.c.title), else_='1'), Integer) == 1)",
    "outer join": "select(Folder.id, Document.id).outerjoin(Document, 100 // (Document.size + 900_006) != 7)",
    "full join": "select(folders.c.id, documents.c.id).select_from(folders.join(documents, folders.c.id == documents.c.id, full=True)).where(100 // (documents.c.size + 900_006) != 7)",
    "around a subquery": "select((s := select(documents.c.size).subquery()).c.size).where(100 // (s.c.size + 900_006) != 7)",
    "delete": "delete(documents).where(100 // (documents.c.size + 900_006) != 7)",
}  # fmt: skip


@pytest.fixture(scope="module")
def postgres(postgres_module_url: str) -> Iterator[Databases]:
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    with ExitStack() as stack:
        databases = stack.enter_context(postgresql(postgres_module_url))
        for raw in databases.raw.values():
            raw.execute(READS_WHOLE_TABLES)
            raw.commit()
        yield databases


def judged(databases: Databases, statement: str) -> tuple[Difference | None, Oracle]:
    oracle = Oracle(databases)
    run = "done = db.execute(w)\nresult = done.all() if getattr(done, 'returns_rows', True) else done.rowcount"
    return oracle.judge(Program(1, databases.dialect, (Step("step", f"w = {statement}", run),))), oracle


@pytest.mark.parametrize("name", CHILDREN)
def test_a_criterion_is_not_evaluated_on_others_rows_of_a_child_table(postgres: Databases, name: str) -> None:
    difference, oracle = judged(postgres, CHILDREN[name])
    assert difference is None, str(difference)
    assert oracle.statistics.fraction == 1, oracle.statistics.errors


@pytest.mark.parametrize("name", OWNED)
def test_a_criterion_is_not_evaluated_on_others_rows_of_an_owned_table(postgres: Databases, name: str) -> None:
    difference, oracle = judged(postgres, OWNED[name])
    assert difference is None, str(difference)
    assert oracle.statistics.fraction == 1, oracle.statistics.errors


def test_without_the_fence_the_rows_of_others_would_show(postgres: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoping, "can_fail", lambda parts: False)
    postgres.engine.clear_compiled_cache()
    try:
        unnoticed = {name for name, statement in CHILDREN.items() if judged(postgres, statement)[0] is None}
    finally:
        postgres.engine.clear_compiled_cache()
    assert unnoticed == set()


def test_a_statement_without_such_criteria_keeps_its_plain_form(postgres: Databases) -> None:
    with postgres.session(BESIDE, A) as db:
        for plain in (
            select(Note).where(Note.position == 1, Note.text.in_(["A", "B"]), Note.stars.between(1, 2)),
            select(func.lower(Note.text), func.count()).where(Note.stars.is_(None)).group_by(Note.text),
            select(cast(Note.stars, String)).order_by(func.lower(Note.text)),
        ):
            assert "OFFSET" not in str(plain.compile(db.get_bind()))
        assert "OFFSET 0" in str(select(Note).where(func.lower(Note.text) == "x").compile(db.get_bind()))


def test_sqlite_evaluates_criteria_in_their_order() -> None:
    fails = "func.json_extract(documents.c.meta, '$.n') == 1"
    with sqlite() as databases:
        for statement in (
            "select(Event).where(Event.uid == 'B-CANARY-event-1', func.json_extract(Event.meta, '$.n') == 1)",
            f"select(documents.c.id).where(documents.c.uid == 'B-CANARY-uid-1', {fails})",
            f"select(tags.c.id).outerjoin(documents, and_(documents.c.uid == 'B-CANARY-uid-1', {fails}))",
            f"update(documents).where(documents.c.uid == 'B-CANARY-uid-1', {fails}).values(size=1)",
            f"delete(documents).where(documents.c.uid == 'B-CANARY-uid-1', {fails})",
            "select(notes.c.text).where(notes.c.document_uid == 'B-CANARY-uid-1', func.json_extract(notes.c.text, '$.n') == 1)",
        ):
            difference, oracle = judged(databases, statement)
            assert difference is None, str(difference)
            assert oracle.statistics.fraction == 1, oracle.statistics.errors


def test_locks_and_samples_of_fenced_tables_work(postgres: Databases) -> None:
    with postgres.session(BESIDE, A) as db:
        assert isinstance(db, Session)
        statement = select(Note).where(func.length(Note.text) > 1).with_for_update()
        assert len(db.scalars(statement).all()) == 5
        sample = TABLES["notes"].tablesample(func.bernoulli(100), name="s")
        assert len(db.execute(select(sample.c.text).where(func.length(sample.c.text) > 1)).all()) == 5
    with bind(A):
        assert "FOR UPDATE" in str(statement.compile(postgres.engine))
