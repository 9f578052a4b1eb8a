"""The verdict on an attack: a function that runs as tenant a against a database that holds tenant b's rows as well.

B's rows are canaries: every text of theirs begins with ``B-CANARY``, and every number is 900,000 or more. An attack has
leaked if a canary, or a count that includes one, comes back or stands in the text of an error; or if afterwards a row of
B's is changed, moved or gone, a row of A's stands in B, or a key of A's points to B's. It may be scoped or refused.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from tenantguard import bind, service_identity, system
from tenantguard.errors import TenantGuardError
from tests.orm.attacks.world import Base, Comment, Country, Document, Folder, Label, Memo, Report

__all__ = ["A", "Attack", "B", "seed", "snapshot", "verdict"]

A, B = (service_identity("attack", tenant=tenant) for tenant in ("a", "b"))
CANARY = "B-CANARY"
FIRST_OF_B = 900_000
Attack = Callable[[Session], Any]


def seed(engine: Engine) -> None:
    """Make the tables and the rows of both tenants: three documents, a memo and a report each."""
    with system("create the attacks' tables"):
        Base.metadata.create_all(engine)
        with Session(engine) as db, db.begin():
            db.add(Country(code="NZ"))
    for identity, text, first in ((A, "a", 1), (B, CANARY, FIRST_OF_B)):
        with bind(identity), Session(engine) as db, db.begin():
            label = Label(id=first, name=f"{text}-label")
            folder = Folder(id=first, name=f"{text}-folder")
            child = Folder(id=first + 1, name=f"{text}-child", parent=folder)
            db.add_all([folder, child, label])
            for number in range(3):
                db.add(
                    Document(
                        id=first + number,
                        title=f"{text}-document-{number}",
                        size=first + number,
                        folder=folder,
                        labels=[label],
                        comments=[Comment(id=first + number, text=f"{text}-comment-{number}")],
                    )
                )
            db.add(Memo(id=first + 10, title=f"{text}-memo", size=first + 10, folder=child))
            db.add(Report(id=first + 11, title=f"{text}-report", size=first + 11, pages=first + 11))


def snapshot(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables."""
    with system("look at all rows"), Session(engine) as db:
        return {
            table.name: sorted((tuple(row) for row in db.execute(select(table)).all()), key=repr)
            for table in Base.metadata.sorted_tables
        }


def _of_b(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    return {name: [row for row in table if _is_canary(row)] for name, table in rows.items()}


def _is_canary(value: Any) -> bool:
    if isinstance(value, str):
        return CANARY in value or value == "b"
    if isinstance(value, bool | float | None.__class__):
        return False
    if isinstance(value, int):
        return value >= FIRST_OF_B
    if isinstance(value, bytes):
        return CANARY.encode() in value
    if isinstance(value, Engine | Session):
        return False
    if hasattr(value, "_sa_instance_state"):
        return any(_is_canary(part) for name, part in vars(value).items() if name != "_sa_instance_state")
    if isinstance(value, dict):
        return any(_is_canary(part) for part in (*value.keys(), *value.values()))
    try:
        return any(_is_canary(part) for part in value)
    except TypeError:
        return CANARY in repr(value)


def verdict(engine: Engine, attack: Attack, *, own: int | None = None) -> str:
    """Run an attack and return ``"scoped"``, ``"refused"``, ``"leaked: ..."`` or ``"broken: ..."``.

    Args:
        engine: the protected engine, seeded.
        attack: what to run, as tenant a; its result is looked at.
        own: if the result is a number: what it is for a alone.
    """
    before = snapshot(engine)
    outcome = "scoped"
    with bind(A), Session(engine) as db:
        try:
            result = attack(db)
            if isinstance(result, int) and not isinstance(result, bool) and own is not None and result != own:
                outcome = f"leaked: {result} instead of {own}"
            elif _is_canary(result):
                outcome = f"leaked: {result!r}"
            db.commit()
        except TenantGuardError as error:
            outcome = "refused" if not _is_canary(str(error)) else f"leaked: {error}"
        except Exception as error:  # noqa: BLE001 - any error refuses; what it says is looked at
            outcome = "refused" if CANARY not in str(error) else f"leaked: {error}"
            if not isinstance(error, TenantGuardError):
                outcome = f"{outcome} ({type(error).__name__})"
        finally:
            db.rollback()
    after = snapshot(engine)
    if _of_b(before) != _of_b(after):
        changed = {name: rows for name, rows in _of_b(after).items() if rows != _of_b(before)[name]}
        return f"leaked: rows of b are now {changed!r}"
    return outcome
