"""No write changes, moves, deletes or plants a row of another tenant, on any database."""

import pytest
from sqlalchemy import Engine

from tests.orm.attacks import writes
from tests.orm.attacks.harness import verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


ON_MARIADB = {
    **dict.fromkeys(
        (
            "statement an alias",
            "statement foreign key by a subquery",
            "statement foreign key that correlates",
            "statement update from",
        ),
        "refused (ProgrammingError)",  # its SQL has no UPDATE with RETURNING
    ),
    # With RETURNING, the row in the way would be shown.
    **dict.fromkeys(("statement upsert", "statement upsert of all columns"), "refused"),
}


@pytest.mark.parametrize("name", writes.ATTACKS)
def test_a_write_is_scoped_or_refused(engine: Engine, name: str) -> None:
    assert verdict(engine, writes.ATTACKS[name]).startswith(("scoped", "refused"))


@pytest.mark.parametrize("name", writes.OWN)
def test_own_rows_are_written(engine: Engine, name: str) -> None:
    attack, own = writes.OWN[name]
    expected = ON_MARIADB.get(name, "scoped") if engine.dialect.name == "mariadb" else "scoped"
    assert verdict(engine, attack, own=own) == expected
