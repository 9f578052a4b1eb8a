"""No read shows another tenant's row, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.orm.attacks.harness import engine_of, verdict
from tests.orm.attacks.reads import ATTACKS, COUNTS


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, postgres_module_url: str) -> Iterator[Engine]:
    made = engine_of(request.param, postgres_module_url)
    yield made
    made.dispose()


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.parametrize("name", ATTACKS)
def test_a_read_is_scoped_or_refused(engine: Engine, name: str) -> None:
    assert verdict(engine, ATTACKS[name]).startswith(("scoped", "refused"))


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_of_own_rows(engine: Engine, name: str) -> None:
    statement, own = COUNTS[name]

    def count(db: Any) -> int:
        return int(db.scalar(statement))

    assert verdict(engine, count, own=own) == "scoped"
