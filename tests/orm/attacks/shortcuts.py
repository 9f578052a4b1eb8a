"""What the attacks that write have in common: short names of tables, and the ways to run a statement or a flush."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sqlalchemy import (
    inspect,
    literal,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from tenantguard import bind
from tests.orm.attacks.harness import FIRST_OF_B, Attack, B
from tests.orm.attacks.oddities import (
    Named,
    Placed,
    Replacing,
)
from tests.orm.attacks.world import Comment, Document, Folder, Label, Report

D, F, C, L = Document.__table__, Folder.__table__, Comment.__table__, Label.__table__
R, N, P, K = Report.__table__, Named.__table__, Placed.__table__, Replacing.__table__
NEW = 50
PAIR = [{"id": NEW, "title": "x"}, {"id": NEW + 1, "title": "y"}]


def run(statement: Any, *parameters: Any) -> Attack:
    """Execute in the session, and return the rows or the count."""

    def attack(db: Session) -> Any:
        result: Any = db.execute(statement, *parameters)
        return [tuple(row) for row in result.all()] if getattr(result, "returns_rows", True) else None

    return attack


def core(statement: Any, *parameters: Any) -> Attack:
    """Execute on the connection."""

    def attack(db: Session) -> Any:
        result: Any = db.connection().execute(statement, *parameters)
        return [tuple(row) for row in result.all()] if getattr(result, "returns_rows", True) else None

    return attack


class InsertOrUpdate(mysql.Insert):
    """MySQL's upsert in the words of the others; it knows neither the key of the conflict nor a condition."""

    inherit_cache = True

    @property
    def excluded(self) -> Any:
        return self.inserted

    def on_conflict_do_update(self, *, set_: Any, where: Any = None, **_: Any) -> Any:
        if where is not None:
            raise TypeError("MySQL's upsert has no WHERE")
        return self.on_duplicate_key_update(set_)

    def on_conflict_do_nothing(self, **_: Any) -> Any:
        key = next(iter(inspect(self.table).primary_key))
        return self.on_duplicate_key_update({key.key: key})


def upsert(target: Any, build: Any, *parameters: Any) -> Attack:
    """Execute an upsert of the engine's dialect."""

    def attack(db: Session) -> Any:
        name = db.get_bind().dialect.name
        insert = InsertOrUpdate if name == "mariadb" else import_module(f"sqlalchemy.dialects.{name}").insert
        made = insert(target)
        return run(build(made), *parameters)(db)

    return attack


def doc(number: int = NEW, **more: Any) -> dict[str, Any]:
    return {"id": number, "title": "x", "size": 1, "body": "", "kind": "document", **more}


STOLEN = {"title": "stolen"}
OF_B = D.c.id >= FIRST_OF_B


def flush(*made: Callable[[], Any]) -> Attack:
    """Add new objects and flush."""
    return lambda db: (db.add_all([make() for make in made]), db.flush(), None)[-1]


def change(model: Any, key: Any = 1, **values: Any) -> Attack:
    """Change an object of a's."""

    def attack(db: Session) -> None:
        found = db.get_one(model, key)
        for name, value in values.items():
            setattr(found, name, value(db) if callable(value) else value)
        db.flush()

    return attack


def planted(model: Any, use: Callable[[Session, Any], Any], key: Any = FIRST_OF_B, **values: Any) -> Attack:
    """Use an object that was made by hand to look like a row of b's that was loaded."""

    def attack(db: Session) -> Any:
        made = model(**{inspect(model).primary_key[0].key: key}) if "id" not in dir(model) else model(id=key)
        for name, value in values.items():
            setattr(made, name, value)
        make_transient_to_detached(made)
        for name, value in values.items():
            set_committed_value(made, name, value)
        db.add(made)
        return use(db, made)

    return attack


def of_b(db: Session, model: Any, key: Any = FIRST_OF_B) -> Any:
    """Return an object that b loaded, as if it came out of a cache."""
    with bind(B), Session(db.get_bind()) as other:
        found = other.get_one(model, key)
        if isinstance(found, Folder):
            _ = found.documents
        other.expunge_all()
        return found


def then_flush(step: Callable[[Session], Any]) -> Attack:
    return lambda db: (step(db), db.flush(), None)[-1]


def edit(made: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(made, name, value)


def into(parent: Any, name: str, *items: Any) -> None:
    """Put objects into a collection, whose owner is kept alive meanwhile."""
    getattr(parent, name).extend(items)


def cte(statement: Any, name: str = "w") -> Attack:
    """Read what a writing CTE returns."""
    return core(select(statement.cte(name)))


def plant(statement: Any) -> Attack:
    """Insert a document whose foreign key is the one column of a SELECT."""
    return core(
        D.insert().from_select(["folder_id", "id", "title"], statement.add_columns(literal(NEW), literal("x")).limit(1))
    )


def put(value: Any) -> Attack:
    """Update a document's foreign key to an expression."""
    return core(D.update().where(D.c.id == 1).values(folder_id=value))
