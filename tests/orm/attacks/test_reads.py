"""No read shows another tenant's row, on any database."""

from typing import Any

import pytest
from sqlalchemy import Engine

from tests.orm.attacks.harness import verdict
from tests.orm.attacks.reads import ATTACKS, COUNTS


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

    found = verdict(engine, count, own=own)
    if name == "count full" and engine.dialect.name == "mariadb":
        assert found == "refused (ProgrammingError)"  # its SQL has no FULL JOIN
    else:
        assert found == "scoped"
