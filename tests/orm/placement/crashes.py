"""Operations that die at a step, and what a place has then."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tenantguard.orm.placement import (
    Placement,
    operations,
)
from tests.orm.placement.conftest import Lab

QUICK: dict[str, Any] = {"grace": 0.0}


class Crash(BaseException):
    """Ends an operation as if the process had died there."""


def crash_after(monkeypatch: pytest.MonkeyPatch, step: str, *, written: bool) -> None:
    """Die when a step is done: after it was written down, or just before."""
    original = operations.Operation.step

    def stepped(self: Any, name: str, work: Callable[[], Any]) -> Any:
        if name != step or name in self.done:
            return original(self, name, work)
        if written:
            original(self, name, work)
        else:
            work()
        raise Crash

    monkeypatch.setattr(operations.Operation, "step", stepped)


def titles(lab: Lab, placement: Placement) -> list[str]:
    engine = create_engine(lab.databases.url(placement.database))
    with engine.connect() as connection:
        found = list(connection.exec_driver_sql("SELECT title FROM notes ORDER BY id").scalars())
    engine.dispose()
    return found


def relations(lab: Lab, placement: Placement) -> int:
    with lab.databases.bare_connection(Placement(database=placement.database)) as connection:
        return int(
            connection.scalar(
                text("SELECT count(*) FROM information_schema.tables WHERE table_schema = :s"),
                {"s": placement.schema or "public"},
            )
        )
