"""The databases of the tests that reach rows: SQLite, and PostgreSQL with psycopg."""

from collections.abc import Iterator

import pytest

from tests.django.orm.conftest import postgres_settings
from tests.django.orm.world import database as made_database


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, django_tables: None) -> Iterator[str]:
    """The alias of a database with the tables of all apps, to which everything without ``using()`` goes."""
    if request.param == "sqlite":
        yield "default"
        return
    url: str = request.getfixturevalue("postgres_module_url")
    with made_database("web_postgresql", postgres_settings(url)) as alias:
        yield alias
