"""What another tenant left behind in sessions, results, caches, threads and tasks shows and changes nothing of its."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.orm.attacks import state
from tests.orm.attacks.harness import engine_of, verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    # A server-side cursor whose reading was refused is left to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = engine_of(request, tmp_path_factory.mktemp("state"))
    yield made
    made.dispose()


@pytest.mark.parametrize("name", state.ATTACKS)
def test_what_was_left_behind_is_scoped_or_refused(engine: Engine, name: str) -> None:
    assert verdict(engine, state.ATTACKS[name]).startswith(("scoped", "refused"))


@pytest.mark.parametrize("name", state.OWN)
def test_own_state_lives_on(engine: Engine, name: str) -> None:
    attack, own = state.OWN[name]
    assert verdict(engine, attack, own=own) == "scoped"
