"""Random programs: a list of steps that one tenant runs in a session, made from a number alone.

A program is Python source. What it prepares (statements) is evaluated once; what it runs is run on each database, in a
namespace of its own, with the session as ``db``. Each step leaves what it found in ``result``.
"""

import datetime as dt
import pickle
import random
from types import CodeType
from typing import Any, Final, NamedTuple

import sqlalchemy
import sqlalchemy.orm
from sqlalchemy.dialects import postgresql, sqlite

from tests.orm.silo.units import SessionWriter
from tests.orm.silo.world import MODELS, TABLES

__all__ = ["NAMESPACE", "Ordered", "Program", "Step", "namespace", "program"]

MOST_STEPS: Final = 8
_STEPS: Final = {
    "read": 34, "stream": 5, "load_entities": 12, "eager_joined": 4, "legacy_query": 6, "get": 5, "side_collections": 3,
    "insert_statement": 8, "upsert_statement": 5, "update_statement": 8, "delete_statement": 6, "add_objects": 5,
    "change_object": 6, "change_other": 5, "delete_object": 3, "merge": 3, "bulk": 3, "state": 7, "savepoint": 4,
}  # fmt: skip


class Step(NamedTuple):
    """One step.

    Args:
        kind: the name of the method that wrote it.
        prepare: source that is evaluated once for all databases.
        run: source that runs on each.
    """

    kind: str
    prepare: str
    run: str

    @property
    def source(self) -> str:
        """The whole step, as one would type it."""
        return f"{self.prepare}\n{self.run}".strip()

    def compiled(self) -> tuple[CodeType, CodeType]:
        """Return both parts as code."""
        return compile(self.prepare, f"<{self.kind}>", "exec"), compile(self.run, f"<{self.kind}>", "exec")


class Program(NamedTuple):
    """A program, known by its number and its dialect."""

    number: int
    dialect: str
    steps: tuple[Step, ...]

    @property
    def source(self) -> str:
        """All steps."""
        return "\n\n".join(f"# step {at}: {step.kind}\n{step.source}" for at, step in enumerate(self.steps, start=1))


class Ordered(list[Any]):
    """Rows whose order counts."""


def namespace(dialect: str) -> dict[str, Any]:
    """Return the names that programs know."""
    names: dict[str, Any] = {}
    for module in (sqlalchemy, sqlalchemy.orm):
        names |= {name: value for name, value in vars(module).items() if not name.startswith("_")}
    names |= {model.__name__: model for model in MODELS} | TABLES
    names["upsert"] = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return names | {"date": dt.date, "pickle": pickle, "ordered": Ordered}


NAMESPACE: Final = {dialect: namespace(dialect) for dialect in ("sqlite", "postgresql")}


class ProgramWriter(SessionWriter):
    """Writes the steps of a program."""

    def read(self) -> str:
        """Select columns, and fetch them in one of many ways."""
        query = self.statement(self.random.choices((0, 1, 2), (5, 4, 1))[0])
        name = self.let("w", query.source)
        execute = f"{self.pick(**{'db': 9, 'db.connection()': 1})}.execute({name})"
        if query.total:
            return f"result = {self.pick(**{f'ordered({execute}.all())': 4, f'{execute}.first()': 1})}"
        return "result = " + self.random.choices((
            f"{execute}.all()", f"{execute}.mappings().all()", f"db.scalars({name}).all()", f"{execute}.one_or_none()",
            f"{execute}.unique().all()", f"db.scalar(select(func.count()).select_from({name}.subquery()))",
            f"db.scalar(select({name}.exists()))", f"len({execute}.freeze()().all())",
        ), (6, 1, 1, 1, 1, 2, 1 if name and not query.source.startswith(("union", "inter", "except")) else 0, 1))[0]  # fmt: skip

    def stream(self) -> str:
        """Fetch rows in parts, with a server-side cursor where there is one."""
        query = self.statement(1)
        option = self.random.choice(("yield_per=2", "stream_results=True, max_row_buffer=2"))
        name = self.let("w", f"{query.source}.execution_options({option})")
        rows = f"[tuple(row) for part in db.execute({name}).partitions(2) for row in part]"
        return f"result = {f'ordered({rows})' if query.total else rows}"

    def savepoint(self) -> str:
        """Do a step within a savepoint that is kept or rolled back."""
        inner = self.random.choice((
            self.insert_statement, self.update_statement, self.delete_statement, self.add_objects, self.change_object,
            self.delete_object, self.upsert_statement,
        ))()  # fmt: skip
        return f"point = db.begin_nested()\n{inner}\npoint.{self.pick(rollback=3, commit=1)}()"


def program(number: int, dialect: str) -> Program:
    """Return a program.

    Args:
        number: any integer; the same one gives the same program.
        dialect: ``"sqlite"`` or ``"postgresql"``.
    """
    source = random.Random(number)
    steps = []
    for _ in range(source.choices(range(1, MOST_STEPS + 1), (8, 7, 6, 5, 4, 3, 2, 1))[0]):
        writer = ProgramWriter(source, dialect)
        kind = source.choices(list(_STEPS), list(_STEPS.values()))[0]
        run: str = getattr(writer, kind)()
        steps.append(Step(kind, "\n".join(writer.lines), run))
    return Program(number, dialect, tuple(steps))
