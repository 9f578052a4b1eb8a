"""The dialect's last steps execute the text and the parameters that were vouched for, in each of the three ways."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, create_engine, event, insert, literal, select, text, update
from sqlalchemy.pool import StaticPool

from tenantguard import bind, system
from tenantguard.errors import StatementRefused
from tenantguard.orm import protect
from tenantguard.permits import allow_raw
from tests.orm.small_world import CANARY, A, Base, Document, seed

D = Document.__table__
TITLES = select(D.c.title)
MANY = update(D).where(D.c.id == bindparam("number")).values(title="x")
ROWS = [{"number": 1}, {"number": 2}]
ALL = "SELECT title FROM small_documents"


@pytest.fixture(scope="module", params=["qmark", "named"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = create_engine("sqlite://", poolclass=StaticPool, paramstyle=request.param)
    protect(made, metadata=Base.metadata)
    seed(made)
    yield made
    made.dispose()


@contextmanager
def listening(engine: Engine, listener: Callable[..., Any]) -> Iterator[None]:
    event.listen(engine, "before_cursor_execute", listener, retval=True)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", listener)


def another_text(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
    return f"{statement} -- of another tenant", parameters


def other_parameters(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
    if isinstance(parameters, list):
        return statement, [*parameters]
    return statement, dict(parameters) if isinstance(parameters, dict) else ("b", *parameters[1:])


def other_rows(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
    last = parameters[-1]
    parameters[-1] = dict.fromkeys(last, "b") if isinstance(last, dict) else ("b",) * len(last)
    return statement, parameters


def other_values(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
    for row in parameters if isinstance(parameters, list) else [parameters]:
        row.update(dict.fromkeys(row, "b"))
    return statement, parameters


def refused(engine: Engine, listener: Callable[..., Any], rows: list[dict[str, int]] | None) -> None:
    statement = MANY if rows else select(D.c.title).where(D.c.id == literal(1))
    with (
        bind(A),
        engine.connect() as connection,
        listening(engine, listener),
        pytest.raises(StatementRefused, match="listener"),
    ):
        connection.execute(statement, rows)


@pytest.mark.parametrize("listener", [another_text, other_parameters])
@pytest.mark.parametrize("rows", [None, ROWS], ids=["one row", "many rows"])
def test_what_a_listener_replaces_is_refused(engine: Engine, listener: Any, rows: Any) -> None:
    refused(engine, listener, rows)


def test_rows_that_a_listener_changes_where_they_stand_are_refused(engine: Engine) -> None:
    refused(engine, other_rows, ROWS)


@pytest.mark.parametrize("engine", ["named"], indirect=True)
@pytest.mark.parametrize("rows", [None, ROWS], ids=["one row", "many rows"])
def test_values_that_a_listener_changes_where_they_stand_are_refused(engine: Engine, rows: Any) -> None:
    refused(engine, other_values, rows)


def test_a_text_without_parameters_that_a_listener_replaces_is_refused(engine: Engine) -> None:
    def replaced(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
        return ALL, parameters

    with bind(A), allow_raw("a test"), engine.connect() as connection:
        alone = connection.execution_options(no_parameters=True)
        assert alone.execute(text("SELECT 1")).all() == [(1,)]
        with listening(engine, replaced), pytest.raises(StatementRefused, match="listener"):
            alone.execute(text("SELECT 1"))


@pytest.mark.parametrize("engine", ["named"], indirect=True)
def test_a_batch_has_the_rows_that_were_vouched_for(engine: Engine) -> None:
    def later_ones(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
        for row in context.parameters:
            row.update({name: "b" for name, value in row.items() if value == "a"})
        return statement, parameters

    rows = [{"id": 50 + number, "title": "x"} for number in range(3)]
    with bind(A), engine.connect() as connection:
        in_pages = connection.execution_options(insertmanyvalues_page_size=1)
        with listening(engine, later_ones):
            assert in_pages.scalars(insert(D).returning(D.c.tenant_id), rows).all() == ["a"] * 3


STEPS: dict[str, tuple[Any, ...]] = {
    "do_execute": (ALL, ()),
    "do_executemany": ("DELETE FROM small_documents", [()]),
    "do_execute_no_params": (ALL,),
}


@pytest.mark.parametrize("step", STEPS)
def test_the_dialect_executes_nothing_on_a_cursor_by_itself(engine: Engine, step: str) -> None:
    def by_itself(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
        getattr(engine.dialect, step)(cursor, *STEPS[step])
        pytest.fail(f"{CANARY} could be read")

    with (
        bind(A),
        engine.connect() as connection,
        listening(engine, by_itself),
        pytest.raises(StatementRefused, match="any SQL"),
    ):
        connection.execute(TITLES)


@pytest.mark.parametrize("step", STEPS)
def test_the_dialect_executes_nothing_else_with_the_context_of_a_statement(engine: Engine, step: str) -> None:
    with bind(A), engine.connect() as connection:
        context: Any = connection.execute(TITLES).context
        with pytest.raises(StatementRefused, match="listener"):
            getattr(engine.dialect, step)(context.cursor, *STEPS[step], context)


def test_transactions_that_were_left_behind_are_recovered_in_system_contexts_alone(engine: Engine) -> None:
    dialect: Any = engine.dialect
    for recover in (
        lambda c: dialect.do_recover_twophase(c),
        lambda c: dialect.do_commit_twophase(c, "x", recover=True),
        lambda c: dialect.do_commit_twophase(c, "x", True, True),
        lambda c: dialect.do_rollback_twophase(c, "x", recover=True),
        lambda c: dialect.do_rollback_twophase(c, "x", True, True),
    ):
        with bind(A), engine.connect() as connection, pytest.raises(StatementRefused, match="left behind"):
            recover(connection)
        with system("a test"), engine.connect() as connection, pytest.raises(NotImplementedError):
            recover(connection)
    with bind(A), engine.connect() as connection, pytest.raises(NotImplementedError):
        dialect.do_commit_twophase(connection, "x", True, False)  # one's own
