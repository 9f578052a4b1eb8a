"""Engines on every database that the barrier is tested on, each with an empty database of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from tenantguard.orm import protect

__all__ = ["DATABASES", "protected_engine"]

DATABASES = ("sqlite", "postgresql", "mariadb")


@contextmanager
def protected_engine(request: pytest.FixtureRequest, database: str) -> Iterator[Engine]:
    """Make a protected engine, for as long as the fixture lives that asks for it.

    Args:
        request: of a fixture of function or module scope.
        database: one of `DATABASES`.
    """
    scope = "_module" if request.scope == "module" else ""
    if database == "sqlite":
        made = create_engine("sqlite://", poolclass=StaticPool)
    elif database == "postgresql":
        url: str = request.getfixturevalue(f"postgres{scope}_url")
        made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    else:
        url = request.getfixturevalue(f"mariadb{scope}_url")
        made = create_engine(url.replace("mariadb://", "mariadb+pymysql://"))
    protect(made)
    try:
        yield made
    finally:
        made.dispose()
