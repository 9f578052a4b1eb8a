"""The engines that are attacked: one of each database for a module, with the rows of both tenants."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.orm.attacks.harness import engine_of


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = engine_of(request)
    yield made
    made.dispose()
