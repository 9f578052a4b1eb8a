"""No way to the driver, no construct, type or name, and no shape of a statement shows or changes rows of another tenant."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.orm.attacks import connections
from tests.orm.attacks.harness import engine_of, verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    # A server-side cursor whose reading was refused is left to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = engine_of(request, tmp_path_factory.mktemp("connections"))
    yield made
    made.dispose()


@pytest.mark.parametrize("name", connections.ATTACKS)
def test_a_way_round_is_scoped_or_refused(engine: Engine, name: str) -> None:
    assert verdict(engine, connections.ATTACKS[name]).startswith(("scoped", "refused"))


@pytest.mark.parametrize("name", connections.OWN)
def test_own_statements_of_that_kind_work(engine: Engine, name: str) -> None:
    attack, own = connections.OWN[name]
    assert verdict(engine, attack, own=own) == "scoped"
