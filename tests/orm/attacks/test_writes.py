"""No write changes, moves, deletes or plants a row of another tenant, on SQLite and on PostgreSQL."""

import pytest
from sqlalchemy import Engine

from tests.orm.attacks import writes
from tests.orm.attacks.harness import verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


@pytest.mark.parametrize("name", writes.ATTACKS)
def test_a_write_is_scoped_or_refused(engine: Engine, name: str) -> None:
    assert verdict(engine, writes.ATTACKS[name]).startswith(("scoped", "refused"))


@pytest.mark.parametrize("name", writes.OWN)
def test_own_rows_are_written(engine: Engine, name: str) -> None:
    attack, own = writes.OWN[name]
    assert verdict(engine, attack, own=own) == "scoped"
