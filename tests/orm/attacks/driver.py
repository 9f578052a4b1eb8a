"""Ways from sessions, connections, results and engines to the driver; options, events and other engines; DDL."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from sqlalchemy import (
    create_engine,
    event,
    func,
    select,
    text,
    update,
)
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.orm import Query, Session
from sqlalchemy.sql import quoted_name

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import SIDE, Placed
from tests.orm.attacks.world import Base, Document, Folder

D, F = Document.__table__, Folder.__table__
TITLES = "SELECT title FROM documents"


def rows(cursor: Any, statement: str = TITLES) -> Any:
    """Execute on a cursor of the driver's."""
    cursor.execute(statement)
    return cursor.fetchall()


def fairy(db: Session) -> Any:
    return db.connection().connection


def raw(use: Callable[[Any], Any]) -> Attack:
    """Use a raw connection of the engine's."""

    def attack(db: Session) -> Any:
        with closing(db.get_bind().raw_connection()) as connection:
            return use(connection)

    return attack


def pooled(use: Callable[[Any], Any]) -> Attack:
    """Use a connection of the pool's."""

    def attack(db: Session) -> Any:
        with closing(db.get_bind().pool.connect()) as connection:
            return use(connection)

    return attack


def streaming(db: Session) -> Any:
    return db.connection().execution_options(stream_results=True, max_row_buffer=1).execute(select(D.c.title))


def streamed(use: Callable[[Any], Any]) -> Attack:
    """Use a result that still has its cursor."""

    def attack(db: Session) -> Any:
        result = streaming(db)
        try:
            return use(result)
        finally:
            result.close()

    return attack


PATHS: dict[str, Attack] = {
    "exec_driver_sql": lambda db: db.connection().exec_driver_sql(TITLES).all(),
    "exec_driver_sql with parameters": lambda db: (
        db.connection().exec_driver_sql("SELECT title FROM documents WHERE 1 = 1", ()).all()
    ),
    "exec_driver_sql that begins with a comment": lambda db: db.connection().exec_driver_sql("/* x */ " + TITLES).all(),
    "exec_driver_sql that commits": lambda db: db.connection().exec_driver_sql("COMMIT"),
    "text on the connection": lambda db: db.connection().execute(text(TITLES)).all(),
    "scalar text": lambda db: db.connection().scalar(text("SELECT max(title) FROM documents")),
    "engine.connect": lambda db: _on_engine(db, lambda c: c.execute(text(TITLES)).all()),
    "engine.begin": lambda db: _on_engine(db, lambda c: c.exec_driver_sql("DELETE FROM notes")),
    "fairy.cursor": lambda db: rows(fairy(db).cursor()),
    "fairy.driver_connection": lambda db: rows(fairy(db).driver_connection.cursor()),
    "fairy.dbapi_connection": lambda db: rows(fairy(db).dbapi_connection.cursor()),
    "fairy.connection": lambda db: rows(fairy(db).connection.cursor()),
    "fairy.execute": lambda db: list(fairy(db).execute(TITLES)),
    "fairy.iterdump": lambda db: list(fairy(db).iterdump()),
    "fairy.backup": lambda db: fairy(db).backup(fairy(db)),
    "fairy.serialize": lambda db: fairy(db).serialize(),
    "fairy.pgconn": lambda db: fairy(db).pgconn.exec_(TITLES.encode()).get_value(0, 0),
    "fairy.wait": lambda db: fairy(db).wait(None),
    "fairy.transaction": lambda db: rows(fairy(db).transaction().connection.cursor()),
    "fairy.pipeline": lambda db: fairy(db).pipeline(),
    "fairy.set_trace_callback": lambda db: fairy(db).set_trace_callback(print),
    "fairy.create_function": lambda db: fairy(db).create_function("lower", 1, lambda value: value),
    "fairy.set_authorizer": lambda db: fairy(db).set_authorizer(None),
    "fairy.row_factory": lambda db: fairy(db).row_factory,
    "fairy.cursor_factory": lambda db: rows(fairy(db).cursor_factory(fairy(db))),
    "fairy.info": lambda db: dict(fairy(db).info) and None,
    "fairy.detach": lambda db: _on_engine(db, lambda c: (c.detach(), rows(c.connection.cursor()))),
    "raw_connection": raw(lambda c: rows(c.cursor())),
    "raw_connection.driver_connection": raw(lambda c: rows(c.driver_connection.cursor())),
    "raw_connection.dbapi_connection": raw(lambda c: rows(c.dbapi_connection.cursor())),
    "raw_connection.dbapi_connection.execute": raw(lambda c: list(c.dbapi_connection.execute(TITLES))),
    "raw_connection.execute": raw(lambda c: list(c.execute(TITLES))),
    "raw_connection, detached": raw(lambda c: (c.detach(), rows(c.cursor()))),
    "raw_connection, detached, dbapi_connection": raw(lambda c: (c.detach(), rows(c.dbapi_connection.cursor()))),
    "pool.connect": pooled(lambda c: rows(c.cursor())),
    "pool.connect.dbapi_connection": pooled(lambda c: rows(c.dbapi_connection.cursor())),
    "connection.get_raw": lambda db: rows(db.connection().engine.raw_connection().cursor()),
    "connection.dialect.do_execute": lambda db: db.connection().dialect.do_execute(fairy(db).cursor(), TITLES, ()),
    "dialect.do_ping": lambda db: db.connection().dialect.do_ping(fairy(db)),
    "result.cursor": streamed(lambda r: rows(r.cursor)),
    "result.cursor.connection": streamed(lambda r: rows(r.cursor.connection.cursor())),
    "result.context.cursor": streamed(lambda r: rows(r.context.cursor)),
    "result.context.create_cursor": streamed(lambda r: rows(r.context.create_cursor())),
    "result.context.root_connection": streamed(lambda r: rows(r.context.root_connection.connection.cursor())),
    "result.context.cursor by do_execute": streamed(
        lambda r: (r.context.dialect.do_execute(r.cursor, TITLES, ()), r.cursor.fetchall())[1]
    ),
    "result.cursor by the dialect's class": streamed(
        lambda r: (DefaultDialect.do_execute(r.context.dialect, r.cursor, TITLES, ()), r.cursor.fetchall())[1]
    ),
    "result.cursor by the dialect's class, without parameters": streamed(
        lambda r: (DefaultDialect.do_execute_no_params(r.context.dialect, r.cursor, TITLES), r.cursor.fetchall())[1]
    ),
    "result.cursor by what do_execute wraps": streamed(
        lambda r: (r.context.dialect.do_execute.__wrapped__(r.cursor, TITLES, ()), r.cursor.fetchall())[1]
    ),
    "result.cursor by the driver's execute": streamed(
        lambda r: (r.cursor.driver_execute(TITLES, ()), r.cursor.fetchall())[1]
    ),
    "result.connection": streamed(lambda r: r.connection.exec_driver_sql(TITLES).all()),
    "session.bind.raw_connection": lambda db: rows(db.bind.raw_connection().cursor()),
    "connection.default_isolation_level": lambda db: db.connection().default_isolation_level and None,
    "recover_twophase": lambda db: db.connection().recover_twophase(),
    "commit_prepared": lambda db: _on_engine(db, lambda c: c.commit_prepared("x", recover=True)),
    "rollback_prepared": lambda db: _on_engine(db, lambda c: c.rollback_prepared("x'; SELECT 1 --", recover=True)),
    "begin_twophase": lambda db: _on_engine(db, lambda c: c.begin_twophase("x").prepare()),
}


def _on_engine(db: Session, use: Callable[[Any], Any], **options: Any) -> Any:
    with db.get_bind().execution_options(**options).begin() as connection:
        return use(connection)


def titles(connection: Any) -> Any:
    return connection.execute(select(D.c.title)).all()


def option(**options: Any) -> Attack:
    """Read with execution options on the engine."""
    return lambda db: _on_engine(db, titles, **options)


EVIL_SCHEMA = quoted_name('main".documents UNION SELECT title FROM "main', quote=False)
OPTIONS: dict[str, Attack] = {
    "no cache": option(compiled_cache=None),
    "a cache of one's own": option(compiled_cache={}),
    "schema translated to one that is there": lambda db: _on_engine(
        db, lambda c: c.execute(select(D.c.title)).all(), schema_translate_map={None: SIDE}
    ),
    "schema translated to an evil one": option(schema_translate_map={None: EVIL_SCHEMA}),
    "schema translated by a name with quotes": option(schema_translate_map={None: 'main".documents --'}),
    "schema of a placed table translated away": lambda db: _on_engine(
        db, lambda c: c.execute(select(Placed.__table__)).all(), schema_translate_map={SIDE: None}
    ),
    "schema of the catalogue": option(schema_translate_map={None: "information_schema"}),
    "autocommit": option(isolation_level="AUTOCOMMIT"),
    "an evil isolation level": option(isolation_level="READ UNCOMMITTED; SELECT title FROM documents"),
    "no parameters": option(no_parameters=True),
    "preserved row counts": option(preserve_rowcount=True),
    "stream": option(stream_results=True),
    "yield per": option(yield_per=1),
    "buffer": option(stream_results=True, max_row_buffer=1),
    "logging token": option(logging_token="x' UNION SELECT title FROM documents --"),
    "read only": option(postgresql_readonly=True, postgresql_deferrable=True),
    "raw column names": option(sqlite_raw_colnames=True),
    "an unknown option": option(tenantguard=False, unscoped=True),
    "of the session": lambda db: db.scalars(
        select(Document.title), execution_options={"compiled_cache": None, "schema_translate_map": {"x": "y"}}
    ).all(),
    "of the statement": lambda db: db.scalars(
        select(Document.title).execution_options(compiled_cache=None, schema_translate_map={None: SIDE})
    ).all(),
    "of a connection's copy": lambda db: titles(db.connection().execution_options(compiled_cache={})),
    "insert in pages": lambda db: (
        db.connection()
        .execution_options(insertmanyvalues_page_size=1)
        .execute(D.insert().returning(D.c.id), [{"id": 50, "title": "x"}, {"id": 51, "title": "y", "tenant_id": "b"}])
        .all()
    ),
}


def with_plain(use: Callable[[Any], Any], **options: Any) -> Attack:
    """Use an engine without the barrier on the same URL."""

    def attack(db: Session) -> Any:
        plain = create_engine(db.get_bind().url, **options)
        try:
            return use(plain)
        finally:
            plain.dispose()

    return attack


def on_plain(use: Callable[[Session], Any], **options: Any) -> Attack:
    def with_session(plain: Any) -> Any:
        with Session(plain) as session:
            return use(session)

    return with_plain(with_session, **options)


def _pool_shared(db: Session) -> Any:
    shared = db.get_bind().pool
    plain = create_engine(db.get_bind().url, pool=shared)
    with plain.connect() as connection:
        return connection.execute(text(TITLES)).all()


def _binds(db: Session) -> Any:
    plain = create_engine(db.get_bind().url)
    try:
        with Session(binds={Document: plain, D: plain, Base: plain}) as session:
            return [d.title for d in session.scalars(select(Document))]
    finally:
        plain.dispose()


class Rerouting(Session):
    """A session that gets its engine by itself."""

    other: Any = None

    def get_bind(self, mapper: Any = None, **kwargs: Any) -> Any:
        return self.other


def _rerouted(db: Session) -> Any:
    plain = create_engine(db.get_bind().url)
    try:
        with Rerouting() as session:
            session.other = plain
            return [d.title for d in session.scalars(select(Document))]
    finally:
        plain.dispose()


ENGINES: dict[str, Attack] = {
    "a plain session": on_plain(lambda s: s.scalars(select(Document.title)).all()),
    "a plain session's get": on_plain(lambda s: s.get(Document, FIRST_OF_B)),
    "a plain session's count": on_plain(lambda s: s.scalar(select(func.count(D.c.id)))),
    "a plain session's flush": on_plain(lambda s: (s.add(Document(id=50, title="x", tenant_id="b")), s.commit())[1]),
    "a plain session's update": on_plain(lambda s: (s.execute(update(Document).values(title="stolen")), s.commit())[1]),
    "a plain session's delete": on_plain(lambda s: (s.execute(D.delete()), s.commit())[1]),
    "a plain session's insert": on_plain(
        lambda s: (s.execute(D.insert(), {"id": 50, "title": "x", "tenant_id": "b"}), s.commit())[1]
    ),
    "a plain session's insert from select": on_plain(
        lambda s: (s.execute(D.insert().from_select(["id"], select(F.c.id))), s.commit())[1]
    ),
    "a plain session's subquery": on_plain(lambda s: s.execute(select(select(D).subquery())).all()),
    "a plain session's alias": on_plain(lambda s: s.execute(select(D.alias("x").c.title)).all()),
    "a plain session's exists": on_plain(lambda s: s.scalar(select(select(D.c.id).exists())) and "B-CANARY"),
    "a plain session's query": on_plain(lambda s: Query([Document], s).all()),
    "a plain engine without linting": on_plain(
        lambda s: s.scalars(select(Document.title)).all(), enable_from_linting=False
    ),
    "a plain engine without a cache": on_plain(lambda s: s.scalars(select(Document.title)).all(), query_cache_size=0),
    "a plain engine with future options": on_plain(
        lambda s: s.scalars(select(Document.title)).all(), execution_options={"schema_translate_map": {"x": "y"}}
    ),
    "a plain engine's copy": with_plain(
        lambda plain: Session(plain.execution_options(x=1)).scalars(select(Document.title)).all()
    ),
    "binds": _binds,
    "get_bind": _rerouted,
    "bind arguments": lambda db: with_plain(
        lambda plain: db.scalars(select(Document.title), bind_arguments={"bind": plain}).all()
    )(db),
    "a copy of the engine": lambda db: titles(db.get_bind().execution_options(x=1).connect()),
    "the engine after dispose": lambda db: db.get_bind().execution_options(x=1).dialect and None,
}


def listening(name: str, function: Callable[..., Any], *, retval: bool = False, on: Any = None) -> Attack:
    """Read while a listener is on the engine."""

    def attack(db: Session) -> Any:
        target = db.get_bind() if on is None else on(db)
        seen: list[Any] = []

        def listener(*args: Any) -> Any:
            return function(seen, *args)

        event.listen(target, name, listener, retval=retval)
        try:
            with Session(db.get_bind()) as other:
                found = [tuple(row) for row in other.execute(select(D.c.title, D.c.tenant_id))]
                other.execute(D.insert(), [{"id": 50, "title": "x"}, {"id": 51, "title": "y"}])
                other.commit()
                return found, seen
        finally:
            event.remove(target, name, listener)

    return attack


def into_b(seen: list[Any], connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> Any:
    """Put b into the parameters where they stand, as far as they can be changed."""
    for row in parameters if isinstance(parameters, list) else [parameters]:
        if isinstance(row, dict):
            row.update({key: "b" for key, value in row.items() if value == "a"})
    return statement, parameters


def into_b_in_context(
    seen: list[Any], connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> Any:
    for row in context.compiled_parameters:
        row.update({key: "b" for key, value in row.items() if value == "a"})
    context.parameters[:] = [
        {key: "b" if value == "a" else value for key, value in row.items()}
        if isinstance(row, dict)
        else tuple("b" if value == "a" else value for value in row)
        for row in context.parameters
    ]
    return statement, parameters


EVENTS: dict[str, Attack] = {
    "before_execute with a text": listening(
        "before_execute", lambda seen, c, clause, multi, params, options: (text(TITLES), multi, params), retval=True
    ),
    "before_execute with parameters": listening(
        "before_execute",
        lambda seen, c, clause, multi, params, options: (clause, [], {"tenantguard_tenant_1": "b"}),
        retval=True,
    ),
    "before_cursor_execute with a text": listening(
        "before_cursor_execute", lambda seen, c, cursor, statement, params, context, many: (TITLES, ()), retval=True
    ),
    "before_cursor_execute with a comment": listening(
        "before_cursor_execute",
        lambda seen, c, cursor, statement, params, context, many: (statement + " /* x */", params),
        retval=True,
    ),
    "before_cursor_execute with the same parameters, changed": listening("before_cursor_execute", into_b, retval=True),
    "before_cursor_execute, parameters of the context": listening(
        "before_cursor_execute", into_b_in_context, retval=True
    ),
    "before_cursor_execute with equal parameters": listening(
        "before_cursor_execute",
        lambda seen, c, cursor, statement, params, context, many: (statement, type(params)(params)),
        retval=True,
    ),
    "do_execute changes the parameters": listening(
        "do_execute",
        lambda seen, cursor, statement, params, context: into_b(seen, None, cursor, statement, params) and None,
        on=lambda db: db.get_bind(),
    ),
    "do_executemany changes the parameters": listening(
        "do_executemany",
        lambda seen, cursor, statement, params, context: into_b(seen, None, cursor, statement, params) and None,
        on=lambda db: db.get_bind(),
    ),
    "after_cursor_execute reads on": listening(
        "after_cursor_execute",
        lambda seen, c, cursor, statement, params, context, many: seen.extend(
            [] if statement == TITLES else c.exec_driver_sql(TITLES).all()
        ),
    ),
    "after_execute reads on": listening(
        "after_execute",
        lambda seen, c, clause, multi, params, options, result: seen.extend(c.execute(text(TITLES)).all()),
    ),
    "engine_connect runs a text": listening(
        "engine_connect", lambda seen, c: seen.extend(c.exec_driver_sql(TITLES).all())
    ),
    "begin runs a text": listening("begin", lambda seen, c: seen.extend(c.exec_driver_sql(TITLES).all())),
    "commit runs a text": listening("commit", lambda seen, c: seen.extend(c.exec_driver_sql(TITLES).all())),
    "set_connection_execution_options": listening(
        "set_connection_execution_options", lambda seen, c, options: options.update(compiled_cache=None)
    ),
    "compile event": listening(
        "before_compile",
        lambda seen, query: query.with_entities(text("(SELECT max(title) FROM documents)")),
        retval=True,
        on=lambda db: Query,
    ),
}


ATTACKS: dict[str, Attack] = {
    f"{kind}: {name}": attack
    for kind, attacks in {
        "path": PATHS,
        "option": OPTIONS,
        "engine": ENGINES,
        "event": EVENTS,
    }.items()
    for name, attack in attacks.items()
}
