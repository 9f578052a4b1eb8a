"""The engines that are attacked: one of each database for a module, with the rows of both tenants."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.orm.attacks.harness import seed
from tests.support.engines import DATABASES, protected_engine


@pytest.fixture(scope="module", params=DATABASES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with protected_engine(request, request.param) as made:
        seed(made)
        yield made
