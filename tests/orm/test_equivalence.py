"""A query through the barrier answers as the same query with handwritten filters does: neither more nor less.

Random query trees are written as source, and evaluated twice: with the models and tables through a protected engine,
as the tenant; and with each table replaced by a handwritten subquery of the tenant's rows, on an engine without the
barrier. Rows are compared as multisets, and in their order where the query orders them totally.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from tenantguard import bind, system
from tests.orm.conftest import A, B
from tests.orm.silo.databases import BESIDE, Databases, postgresql, sqlite
from tests.orm.silo.handwritten import handwritten_names
from tests.orm.silo.oracle import quiet
from tests.orm.silo.programs import NAMESPACE
from tests.orm.silo.queries import QueryWriter

EXAMPLES = 250


class Worlds:
    """The protected engine's connection, and an engine without a barrier on the same database."""

    def __init__(self, databases: Databases) -> None:
        self.dialect = databases.dialect
        self.protected = databases.connections[BESIDE]
        url = {"sqlite": "sqlite://", "postgresql": "postgresql+psycopg://"}[self.dialect]
        raw = databases.raw[BESIDE]
        self.plain: Engine = create_engine(url, creator=lambda: raw, poolclass=StaticPool, enable_from_linting=False)
        self.handwritten = {tenant: handwritten_names(self.dialect, tenant) for tenant in ("a", "b")}

    def query(self, random: Random, depth: int) -> tuple[str, bool]:
        """Return a random query as source, and whether it orders its rows totally."""
        writer = QueryWriter(random, self.dialect, fallible=False)
        writer.handwritten = True
        query = writer.statement(depth)
        return "\n".join([*writer.lines, f"query = {query.source}"]), query.total

    def scoped(self, source: str, identity: Any) -> Any:
        """Run it through the barrier."""
        with bind(identity), Session(self.protected) as db:
            return self._rows(db, source, NAMESPACE[self.dialect])

    def filtered(self, source: str, tenant: str) -> Any:
        """Run it with handwritten filters."""
        with system("compare with handwritten filters"), Session(self.plain) as db:
            return self._rows(db, source, self.handwritten[tenant])

    @staticmethod
    def _rows(db: Session, source: str, names: dict[str, Any]) -> Any:
        names = dict(names)
        with quiet():
            exec(source, names)
            try:
                return [tuple(row) for row in db.execute(names["query"]).all()]
            except DBAPIError as error:
                return type(error.orig).__name__  # of both, or of none


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def worlds(request: pytest.FixtureRequest) -> Iterator[Worlds]:
    logging.getLogger("tenantguard").setLevel(logging.ERROR)
    with ExitStack() as stack:
        if request.param == "sqlite":
            databases = stack.enter_context(sqlite())
        else:
            databases = stack.enter_context(postgresql(request.getfixturevalue("postgres_module_url")))
        yield Worlds(databases)
    logging.getLogger("tenantguard").setLevel(logging.NOTSET)


def test_a_scoped_query_answers_as_one_with_handwritten_filters(worlds: Worlds) -> None:
    answered = others = 0
    for number in range(EXAMPLES):
        source, total = worlds.query(Random(number), depth=number % 3)
        tenant = "b" if number % 5 == 0 else "a"
        scoped = worlds.scoped(source, {"a": A, "b": B}[tenant])
        filtered = worlds.filtered(source, tenant)
        others += number % 10 == 0 and scoped != worlds.filtered(source, "a" if tenant == "b" else "b")
        answered += isinstance(scoped, list) and any(value is not None for row in scoped for value in row)
        if not total and isinstance(scoped, list) and isinstance(filtered, list):
            scoped, filtered = Counter(scoped), Counter(filtered)
        assert scoped == filtered, f"query {number} of {tenant}:\n{source}"
    assert answered > EXAMPLES * 0.4
    assert others > EXAMPLES * 0.02, "the other tenant's filters give other answers"
