"""DDL, reflection and compiled statements, outside of a system context."""

import pickle
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    DDL,
    Column,
    Index,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema, CreateTable, DropTable, SetTableComment

from tenantguard import bind
from tests.orm.attacks.harness import Attack, B
from tests.orm.attacks.world import Base, Document, Folder

D, F = Document.__table__, Folder.__table__
TITLES = "SELECT title FROM documents"
new_table = Table("of_attacks", MetaData(), Column("id", Integer, primary_key=True), Column("name", String))
DDLS: dict[str, Attack] = {
    "create_all": lambda db: Base.metadata.create_all(db.connection()),
    "create_all unchecked": lambda db: new_table.metadata.create_all(db.connection(), checkfirst=False),
    "create_all on the engine": lambda db: new_table.metadata.create_all(db.get_bind()),
    "drop_all": lambda db: Base.metadata.drop_all(db.connection()),
    "drop_all unchecked": lambda db: Base.metadata.drop_all(db.connection(), checkfirst=False),
    "create": lambda db: new_table.create(db.connection(), checkfirst=False),
    "drop": lambda db: D.drop(db.connection(), checkfirst=False),
    "CreateTable": lambda db: db.execute(CreateTable(new_table)),
    "DropTable": lambda db: db.execute(DropTable(F)),
    "CreateSchema": lambda db: db.execute(CreateSchema("attacks")),
    "SetTableComment": lambda db: db.execute(SetTableComment(D)),
    "DDL": lambda db: db.execute(DDL("DROP TABLE documents")),
    "DDL that reads": lambda db: db.execute(DDL("SELECT title FROM documents")).all(),
    # Of a copy of the table: an index stays with its table, and would be made with it for the next engine.
    "index": lambda db: Index("attack", D.to_metadata(MetaData()).c.title).create(db.connection(), checkfirst=False),
    "a view": lambda db: db.execute(_view("CreateView")),
    "a table as a select": lambda db: db.execute(_view("CreateTableAs")),
    "into": lambda db: db.execute(select(D.c.title).into("attack")),
    "sequence": lambda db: Sequence("attack").create(db.connection(), checkfirst=False),
    "next value": lambda db: db.scalar(Sequence("documents_id_seq")) and None,
    "next value in a select": lambda db: db.scalar(select(Sequence("documents_id_seq").next_value())) and None,
    "inspect": lambda db: inspect(db.connection()).get_table_names(),
    "inspect columns": lambda db: inspect(db.connection()).get_columns("documents"),
    "inspect the engine": lambda db: inspect(db.get_bind()).get_view_names(),
    "reflect": lambda db: MetaData().reflect(db.connection()),
    "autoload": lambda db: db.execute(select(Table("documents", MetaData(), autoload_with=db.connection()))).all(),
    "has_table": lambda db: inspect(db.connection()).has_table("documents") and None,
    "create_all while compiling": lambda db: (
        event.listen(new_table, "after_create", lambda *args, **kwargs: None),
        new_table.create(db.connection()),
    ),
}


def _view(name: str) -> Any:
    from sqlalchemy import schema

    return getattr(schema, name)(select(D.c.title), "attack")


def compiled(use: Callable[[Session, Any], Any]) -> Attack:
    return lambda db: use(db, select(D.c.title).compile(db.get_bind()))


COMPILED: dict[str, Attack] = {
    "executed": compiled(lambda db, made: db.connection().execute(made).all()),
    "its text": compiled(
        lambda db, made: db.connection().exec_driver_sql(str(made), {"tenantguard_tenant_1": "b"}).all()
    ),
    "its text by text()": compiled(lambda db, made: db.execute(text(str(made).replace("?", "'b'"))).all()),
    "its text without a predicate": lambda db: db.execute(text(str(select(D.c.title)))).all(),
    "with literals": lambda db: db.execute(
        text(str(select(D.c.title).compile(db.get_bind(), compile_kwargs={"literal_binds": True})))
    ).all(),
    "pickled statement": lambda db: db.execute(pickle.loads(pickle.dumps(select(D.c.title)))).all(),
    "changed after it was made": lambda db: _mutated_cache(db),
    "of b's in a cache": lambda db: _cache_of_b(db),
}


class Lying(dict[Any, Any]):
    """A compiled cache that gives another statement than the one it is asked for."""

    lie: Any = None

    def get(self, key: Any, default: Any = None) -> Any:
        return self.lie or default


def _mutated_cache(db: Session) -> Any:
    cache: dict[Any, Any] = {}
    connection = db.connection().execution_options(compiled_cache=cache)
    connection.execute(select(D.c.title)).all()
    for made in cache.values():
        made.string = TITLES
    return connection.execute(select(D.c.title)).all()


def _cache_of_b(db: Session) -> Any:
    cache = Lying()
    with bind(B), db.get_bind().connect() as connection:
        connection.execution_options(compiled_cache=cache).execute(select(D.c.title)).all()
    cache.lie = next(iter(cache.values()))
    return db.connection().execution_options(compiled_cache=cache).execute(select(F.c.name)).all()


ATTACKS: dict[str, Attack] = {
    **{f"ddl: {name}": attack for name, attack in DDLS.items()},
    **{f"compiled: {name}": attack for name, attack in COMPILED.items()},
}
