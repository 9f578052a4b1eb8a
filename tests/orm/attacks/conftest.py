"""The engines that are attacked: one of each database for a module, with the rows of both tenants."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.orm.attacks.harness import engine_of
from tests.support.engines import DATABASES


@pytest.fixture(scope="module", params=DATABASES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = engine_of(request, request.param)
    yield made
    made.dispose()
