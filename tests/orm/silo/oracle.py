"""The silo oracle: a program of tenant a must not notice whether b's rows are there.

It runs a program as a on both databases, and compares what every step gave or how it failed, and a's rows after it.
B's rows must stand as they were, no text of theirs may come back, and nothing may be written where a alone lives that
is b's. Every eighth program is run by b first, so that a meets statements that were compiled for b.
"""

import gc
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import CircularDependencyError, SADeprecationWarning, SAWarning
from sqlalchemy.orm import Session

from tenantguard import service_identity
from tenantguard.errors import TenantGuardError
from tests.orm.silo.databases import ALONE, BESIDE, Databases, Rows, split
from tests.orm.silo.programs import NAMESPACE, Ordered, Program
from tests.orm.silo.world import CANARY, TABLES

__all__ = ["Difference", "Oracle", "Statistics", "quiet"]

A, B = (service_identity("silo", tenant=tenant) for tenant in ("a", "b"))
_ADDRESS: Final = re.compile(r"\b0x[0-9a-f]{6,}\b")
_CANARIES: Final = re.compile(rf"{CANARY}[a-z0-9 -]*", re.IGNORECASE)
_DEEPEST: Final = 3


class Outcome(NamedTuple):
    """What a program did to one database."""

    steps: tuple[Any, ...]
    own: Rows
    foreign: Rows


class Difference(NamedTuple):
    """How a program noticed b's rows, or changed them."""

    program: Program
    what: str
    alone: Any
    beside: Any

    def __str__(self) -> str:
        number, dialect = self.program.number, self.program.dialect
        return (
            f"Program {number} on {dialect}: {self.what}.\n"
            f"  with a's rows alone:    {self.alone!r}\n"
            f"  with b's beside them:   {self.beside!r}\n"
            f"Again: python -m tests.orm.silo --database {dialect} --first {number} --programs 1\n\n{self.program.source}"
        )


class Statistics:
    """What became of the steps, so that one sees whether the programs do enough to be worth their time."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, int] = {}

    def note(self, program: Program, outcomes: tuple[Any, ...]) -> None:
        """Count the outcomes of a program's steps."""
        for step, outcome in zip(program.steps, outcomes, strict=True):
            self.steps[step.kind] += 1
            if outcome[0] == "error":
                name = f"{outcome[1]}: {outcome[2].partition(chr(10))[0][:110]}"
                self.errors[name] += 1
                self.examples.setdefault(name, program.number)
            else:
                self.ran[step.kind] += 1

    def add(self, other: "Statistics") -> None:
        """Add another's counts."""
        self.steps += other.steps
        self.ran += other.ran
        self.errors += other.errors
        self.examples = other.examples | self.examples

    @property
    def fraction(self) -> float:
        """The part of the steps that ran without an error."""
        return self.ran.total() / max(1, self.steps.total())


@contextmanager
def quiet() -> Iterator[None]:
    """SQLAlchemy's advice on strange statements is not asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        warnings.simplefilter("ignore", SADeprecationWarning)
        yield


class Oracle:
    """Runs programs on both databases and compares.

    Args:
        databases: both databases.
    """

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.statistics = Statistics()
        self._namespace = NAMESPACE[databases.dialect]
        seeded = {name: self._seeded(name) for name in (ALONE, BESIDE)}
        self._of_b = {name: split(rows)[1] for name, rows in seeded.items()}
        assert any(self._of_b[BESIDE].values())
        assert not any(self._of_b[ALONE].values())

    def _seeded(self, name: str) -> Rows:
        with self.databases.session(name, A) as db:
            db.connection()
            return {table: sorted(rows, key=repr) for table, rows in self.databases.rows(name).items()}

    def judge(self, program: Program) -> Difference | None:
        """Run a program on both databases, and return what differs, or ``None``."""
        with quiet():
            prepared = [self._prepared(step) for step in program.steps]
            if program.number % 8 == 0:
                self._run(prepared, BESIDE, B)
            alone, beside = (self._run(prepared, name, A) for name in (ALONE, BESIDE))
        self.statistics.note(program, alone.steps)
        return self._difference(program, alone, beside)

    def smallest(self, difference: Difference) -> Difference:
        """Leave steps out of a program for as long as it still differs."""
        at = 0
        while at < len(difference.program.steps) and len(difference.program.steps) > 1:
            steps = difference.program.steps
            smaller = self.judge(difference.program._replace(steps=(*steps[:at], *steps[at + 1 :])))
            difference, at = (smaller, at) if smaller else (difference, at + 1)
        return difference

    def _prepared(self, step: Any) -> tuple[Any, dict[str, Any]] | tuple[None, tuple[str, ...]]:
        prepare, run = step.compiled()
        names = dict(self._namespace)
        try:
            exec(prepare, names)
        except Exception as error:  # noqa: BLE001 - an outcome like any other
            return None, _failed(error)
        return run, names

    def _run(self, prepared: list[Any], name: str, identity: Any) -> Outcome:
        gc.disable()  # an identity map holds objects weakly: what is still in it must not be a matter of memory
        try:
            return self._run_steps(prepared, name, identity)
        finally:
            gc.enable()

    def _run_steps(self, prepared: list[Any], name: str, identity: Any) -> Outcome:
        steps = []
        kept: list[Any] = []
        with self.databases.session(name, identity) as db:
            db.connection()
            for run, names in prepared:
                if run is None:
                    steps.append(names)
                    continue
                names = {**names, "db": db, "kept": kept, "result": None}
                try:
                    exec(run, names)
                    steps.append(("ran", plain(names["result"])))
                except Exception as error:  # noqa: BLE001 - an outcome like any other
                    steps.append(_failed(error))
                    db.rollback()
                kept = names["kept"]
            db.rollback()
            db.connection()  # on PostgreSQL, so that rows() looks within the transaction
            own, foreign = split(self.databases.rows(name))
        return Outcome(
            tuple(steps), *({table: sorted(rows, key=repr) for table, rows in one.items()} for one in (own, foreign))
        )

    def _difference(self, program: Program, alone: Outcome, beside: Outcome) -> Difference | None:
        for at, (one, other) in enumerate(zip(alone.steps, beside.steps, strict=True), start=1):
            if one != other:
                return Difference(program, f"step {at} ({program.steps[at - 1].kind}) differs", one, other)
        for table in TABLES:
            if alone.own[table] != beside.own[table]:
                return Difference(
                    program, f"a's rows of {table} differ", *_without_common(alone.own[table], beside.own[table])
                )
            if alone.foreign[table]:
                return Difference(program, f"a row of b's was written to {table}", alone.foreign[table], ())
            seeded = self._of_b[BESIDE][table]
            if beside.foreign[table] != seeded:
                return Difference(
                    program, f"b's rows of {table} were changed", *_without_common(seeded, beside.foreign[table])
                )
        known = _canaries(program.source) | _canaries(repr(alone))
        strange = {
            one for one in _canaries(repr(beside.steps) + repr(beside.own)) if not any(one in it for it in known)
        }
        return Difference(program, "b's texts came back", (), sorted(strange)) if strange else None


def _canaries(text: str) -> set[str]:
    return {found.casefold() for found in _CANARIES.findall(text)}


def _without_common(one: list[Any], other: list[Any]) -> tuple[list[Any], list[Any]]:
    return [row for row in one if row not in other], [row for row in other if row not in one]


def _failed(error: Exception) -> tuple[str, ...]:
    name = type(error).__name__
    if isinstance(error, CircularDependencyError):
        return "error", name, ""  # it names the objects in the order of a set
    if isinstance(error, TenantGuardError):
        name = f"refused: {name}"
    return "error", name, _ADDRESS.sub("0x", str(error))


def plain(value: Any, depth: int = 0, seen: frozenset[int] = frozenset()) -> Any:
    """Return a result as something that can be compared: entities by what is loaded of them, lists as bags."""
    if hasattr(value, "_sa_instance_state"):
        if id(value) in seen or depth > _DEEPEST:
            return type(value).__name__
        attributes = value._sa_instance_state.manager
        loaded = {key: one for key, one in vars(value).items() if key in attributes}
        return type(value).__name__, *(
            (key, plain(one, depth + 1, seen | {id(value)})) for key, one in sorted(loaded.items())
        )
    if isinstance(value, Ordered):
        return "ordered", *(plain(one, depth, seen) for one in value)
    if isinstance(value, Mapping):
        return tuple((key, plain(one, depth, seen)) for key, one in sorted(value.items()))
    if isinstance(value, list | set | frozenset):
        return "bag", *sorted((plain(one, depth, seen) for one in value), key=repr)
    if isinstance(value, tuple):
        return tuple(plain(one, depth, seen) for one in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _ADDRESS.sub("0x", repr(value)) if not isinstance(value, Session | Engine) else type(value).__name__
