"""Random programs of one tenant do not notice another's rows; and the oracle that says so would say otherwise too."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import ColumnElement, true

from tenantguard.orm import classify, execution, froms, predicates, scoping
from tests.orm.silo.databases import postgresql, sqlite
from tests.orm.silo.oracle import Difference, Oracle
from tests.orm.silo.programs import Program, Step, program

PROGRAMS = {"sqlite": 300, "postgresql": 120}


@pytest.fixture(params=["sqlite", "postgresql"])
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            databases = stack.enter_context(sqlite())
        else:
            logging.getLogger("psycopg").setLevel(logging.ERROR)
            databases = stack.enter_context(postgresql(request.getfixturevalue("postgres_url")))
        yield Oracle(databases)


def first_difference(oracle: Oracle, programs: int, first: int = 0) -> Difference | None:
    for number in range(first, first + programs):
        difference = oracle.judge(program(number, oracle.databases.dialect))
        if difference is not None:
            return oracle.smallest(difference)
    return None


def test_random_programs_do_not_notice_another_tenants_rows(oracle: Oracle) -> None:
    difference = first_difference(oracle, PROGRAMS[oracle.databases.dialect])
    assert difference is None, str(difference)
    assert oracle.statistics.fraction > 0.9, oracle.statistics.errors.most_common(10)


def test_the_same_number_gives_the_same_program() -> None:
    assert program(17, "sqlite").source == program(17, "sqlite").source
    assert program(17, "sqlite").source != program(18, "sqlite").source


def without_predicates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(predicates.Predicates, "predicate", lambda self, owned, element, *rest, **more: true())


def without_predicates_of_children(patch: pytest.MonkeyPatch) -> None:
    original = predicates.Predicates.predicate

    def predicate(self: Any, owned: Any, element: Any, *rest: Any, **more: Any) -> ColumnElement[bool]:
        return true() if isinstance(owned, classify.Child) else original(self, owned, element, *rest, **more)

    patch.setattr(predicates.Predicates, "predicate", predicate)


def without_predicates_in_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(froms.FromPlan, "on", lambda self, join: [])


def without_derived_tables(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(froms.FromPlan, "derived", lambda self, element: None)


def with_criteria_not_in_parentheses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scoping.ScopingMixin, "scope_where", lambda self, criteria, predicates: criteria or tuple(predicates))


FAULTS = [
    without_predicates,
    without_predicates_of_children,
    without_predicates_in_on,
    without_derived_tables,
    with_criteria_not_in_parentheses,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_barrier_is_noticed(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with sqlite() as databases:
        assert first_difference(Oracle(databases), 400) is not None


def test_the_values_of_writes_are_checked_or_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution.ScopedExecution, "_check_link", lambda self, *args: None)
    with sqlite() as databases:
        assert first_difference(Oracle(databases), 600) is not None


@pytest.mark.parametrize(
    "step",
    [
        "result = db.scalars(select(Document.title)).all()",
        "result = db.scalar(select(func.count()).select_from(Document))",
        "result = db.scalar(select(func.min(Document.size)))",
        "result = db.scalar(select(func.max(Entry.amount)))",
        "result = db.scalar(select(select(notes).where(notes.c.stars > 9).exists()))",
        "db.execute(update(Document).where(Document.id == 52).values(size=1))\ndb.commit()",
        "db.execute(delete(watchers).where(watchers.c.document_uid.startswith('B')))\ndb.commit()",
        "raise ValueError(str(db.scalars(select(Tag.label)).all()))",
        "db.add(Tag(tenant_id='b', id=77, label='x'))\ndb.commit()",
    ],
)
def test_a_program_that_leaves_the_tenant_is_noticed(step: str) -> None:
    """The program enters a system context, which is a way round the barrier by its very meaning."""
    leave = "from tenantguard import system\ndb.rollback()\nwith system('leave'), Session(db.get_bind()) as db:\n    "
    run = leave + "\n    ".join(step.splitlines())
    with sqlite() as databases:
        difference = Oracle(databases).judge(Program(1, "sqlite", (Step("left", "", run),)))
    assert difference is not None
