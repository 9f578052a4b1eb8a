"""Engines on every database that the barrier is tested on, each with an empty database of its own."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, create_engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.pool import StaticPool

from tenantguard.orm import protect

__all__ = ["DATABASES", "protected_engine", "upsert"]

DATABASES = ("sqlite", "postgresql", "mariadb")


@contextmanager
def protected_engine(
    request: pytest.FixtureRequest, database: str, metadata: MetaData | Iterable[MetaData] | None = None
) -> Iterator[Engine]:
    """Make a protected engine, for as long as the fixture lives that asks for it.

    Args:
        request: of a fixture of function or module scope.
        database: one of `DATABASES`.
        metadata: which tables it holds, where other tests have others of their names.
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
    protect(made, metadata=metadata)
    try:
        yield made
    finally:
        made.dispose()


def upsert(
    dialect: str, table: Any, rows: Any, set_: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] | None
) -> Any:
    """Return an upsert by the primary key ``id``, as the database has it.

    Args:
        dialect: the dialect's name.
        table: the target.
        rows: what to insert.
        set_: what to set where the row is there, or a function of the new row that returns it; ``None`` for nothing.
    """
    if dialect in ("mysql", "mariadb"):
        made = mysql.insert(table).values(rows)
        if set_ is None:
            set_ = {"id": made.inserted.id}
        return made.on_duplicate_key_update(set_(made.inserted) if callable(set_) else dict(set_))
    other = (postgresql if dialect == "postgresql" else sqlite).insert(table).values(rows)
    if set_ is None:
        return other.on_conflict_do_nothing()
    return other.on_conflict_do_update(
        index_elements=["id"], set_=set_(other.excluded) if callable(set_) else dict(set_)
    )
