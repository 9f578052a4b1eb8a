"""The barrier put under SQLAlchemy's own tests, at as few places as it takes.

Every engine is protected and every table declared shared, so what the tests execute goes through the scoped compiler
and the checks before the cursor, for one bound tenant, and must come out as it went in. What an app would have to say
in its code is said here at the seams: creating tables and reflection run in `system`, and a statement that the barrier
refuses to vouch for, such as one with text(), is compiled again in a block of `allow_raw`. Both are counted, so that the
report shows how much of the suite took the ordinary way.
"""

import contextvars
import functools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from sqlalchemy import Engine, MetaData, Table, TextClause
from sqlalchemy.engine import Connection
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.sql.elements import ClauseElement

from tenantguard.binding import current_binding
from tenantguard.context import bind
from tenantguard.errors import StatementRefused
from tenantguard.identity import service_identity
from tenantguard.orm import classify_by, protect, shared
from tenantguard.orm.compiler import ScopedCompiler
from tenantguard.orm.execution import _DDL, _WORD, ScopedExecution
from tenantguard.orm.marks import INFO
from tenantguard.permits import allow_raw, system

__all__ = ["COUNTS", "VOUCHED", "install"]

REASON: Final = "SQLAlchemy's own tests"
DIALECTS: Final = {"sqlite", "postgresql", "mysql", "mariadb"}

COUNTS: Final[Counter[str]] = Counter()
"""How many statements were compiled and executed, by the right that they had."""
VOUCHED: Final[Counter[str]] = Counter()
"""What the barrier refused to vouch for, and how often."""

_vouching: Final[contextvars.ContextVar[ExitStack | None]] = contextvars.ContextVar("vouching", default=None)
_wrapped: Final = functools.WRAPPER_ASSIGNMENTS


def shared_by_all(_table: Table) -> dict[str, object]:
    """Declare every table shared. A function of the module, since MetaData is pickled together with its rule."""
    return shared(REASON)


def install() -> ExitStack:
    """Put the barrier under everything that SQLAlchemy's suite makes from now on; closing the stack unbinds."""
    logging.getLogger("tenantguard").setLevel(logging.ERROR)
    _replace(MetaData, "__init__", _declaring)
    _replace(MetaData, "__setstate__", _declaring_unpickled)
    _replace(Engine, "__init__", _protecting)
    for name in ("_run_ddl_visitor", "_execute_ddl"):
        _replace(Connection, name, _in_system)
    _replace(Inspector, "_operation_context", _reflecting)
    _replace(Connection, "_execute_clauseelement", _executing)
    for name in ("exec_driver_sql", "_execute_default"):
        _replace(Connection, name, _in_raw)
    _replace(ClauseElement, "_compile_w_cache", _compiling)
    _replace(threading.Thread, "start", _inheriting)
    _replace(ScopedCompiler, "_settle", _counting_compiled)
    _replace(ScopedExecution, "pre_exec", _counting_executed)
    stack = ExitStack()
    stack.enter_context(bind(service_identity("sqlalchemy-suite", tenant="suite")))
    return stack


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(wrap(original)))


def _declaring(original: Any) -> Any:
    def init(self: MetaData, *args: Any, **kw: Any) -> None:
        original(self, *args, **kw)
        classify_by(shared_by_all, self)

    return init


def _declaring_unpickled(original: Any) -> Any:
    def setstate(self: MetaData, state: Any) -> None:
        original(self, state)
        self.info[INFO] = shared_by_all  # its tables are not unpickled yet, so that classify_by() can't look at them

    return setstate


def _protecting(original: Any) -> Any:
    # create_engine() looks at the names of the arguments.
    def init(
        self: Engine,
        pool: Any,
        dialect: Any,
        url: Any,
        logging_name: Any = None,
        echo: Any = None,
        query_cache_size: int = 500,
        execution_options: Any = None,
        hide_parameters: bool = False,
    ) -> None:
        original(self, pool, dialect, url, logging_name, echo, query_cache_size, execution_options, hide_parameters)
        if self.dialect.name in DIALECTS:
            protect(self, sqlite_foreign_keys=False)  # the suite sets it itself where it wants it

    return init


@contextmanager
def _system_for(connection: Connection) -> Iterator[None]:
    """Work in a system context on a connection whose transaction is a tenant's.

    The barrier wants the two in transactions of their own. The suite creates tables and writes to them in one.
    """
    pinned, connection.tenantguard_pin = connection.tenantguard_pin, None
    try:
        with system(REASON):
            yield
    finally:
        connection.tenantguard_pin = pinned


def _in_system(original: Any) -> Any:
    def run(self: Connection, *args: Any, **kw: Any) -> Any:
        with _system_for(self):
            return original(self, *args, **kw)

    return run


def _reflecting(original: Any) -> Any:
    @contextmanager
    def context(self: Inspector) -> Iterator[Connection]:
        with original(self) as connection, _system_for(connection):
            yield connection

    return context


def _in_raw(original: Any) -> Any:
    def run(self: Connection, statement: Any, *args: Any, **kw: Any) -> Any:
        if isinstance(statement, str) and _is_ddl(statement):
            with _system_for(self):
                return original(self, statement, *args, **kw)
        if _in_a_system_context():
            return original(self, statement, *args, **kw)
        with allow_raw(REASON):
            return original(self, statement, *args, **kw)

    return run


def _executing(original: Any) -> Any:
    def execute(self: Connection, element: Any, *args: Any, **kw: Any) -> Any:
        if isinstance(element, TextClause) and _is_ddl(element.text):
            with _system_for(self):
                return original(self, element, *args, **kw)
        with ExitStack() as stack:
            token = _vouching.set(stack)
            try:
                return original(self, element, *args, **kw)
            finally:
                _vouching.reset(token)

    return execute


def _compiling(original: Any) -> Any:
    def compile_(self: ClauseElement, *args: Any, **kw: Any) -> Any:
        stack = _vouching.get()
        try:
            result = original(self, *args, **kw)
            if stack is not None and getattr(result[0], "used_raw", False):
                stack.enter_context(allow_raw(REASON))  # it comes from a cache of the test's own
            return result
        except StatementRefused as refused:
            if stack is None or "can't vouch for" not in str(refused):
                raise
            VOUCHED[str(refused).split(", which the barrier")[0].split(" of ")[0][:80]] += 1
        stack.enter_context(allow_raw(REASON))
        return original(self, *args, **kw)

    return compile_


def _inheriting(original: Any) -> Any:
    """Start threads in the context of the thread that starts them, as an app does that binds a tenant in its workers."""

    def start(self: threading.Thread) -> None:
        self.run = functools.partial(contextvars.copy_context().run, self.run)  # type: ignore[method-assign]
        original(self)

    return start


def _counting_compiled(original: Any) -> Any:
    def settle(self: Any, statement: Any) -> None:
        original(self, statement)
        COUNTS[f"compiled {_right(unscoped=self.unscoped)}"] += 1

    return settle


def _counting_executed(original: Any) -> Any:
    def pre_exec(self: Any) -> None:
        original(self)
        COUNTS[f"executed {_right(unscoped=self.vouched is None)}"] += 1

    return pre_exec


def _right(*, unscoped: bool) -> str:
    binding = current_binding()
    if binding is not None and binding.raw is not None:
        return "by allow_raw()"
    return "in system() or unscoped" if unscoped else "scoped"


def _in_a_system_context() -> bool:
    binding = current_binding()
    return binding is not None and binding.system is not None


def _is_ddl(text: str) -> bool:
    found = _WORD.match(text)
    return found is not None and found.group(1).lower() in _DDL
