"""Ways to the driver that go round SQLAlchemy's statements.

A pooled connection hands out cursors and the driver's own connection; a result and its context lead to the cursor in
use. All take any SQL. On a protected engine they are for SQLAlchemy alone, except where raw SQL may run. A cursor is of
a class made from the driver's own, in which what takes SQL is guarded and everything else is as fast as before.
"""

import sys
from contextvars import ContextVar
from sqlite3 import Cursor as SQLiteCursor
from types import CodeType
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.pool.base import _ConnectionFairy

from tenantguard.binding import current_binding
from tenantguard.errors import ConfigurationError, StatementRefused

__all__ = [
    "HANDED_OUT",
    "RAN_RAW",
    "SQLITE_CURSOR",
    "GuardedConnection",
    "GuardedCursor",
    "driver_connection_of",
    "driver_cursor",
    "driver_execute",
    "enforce_foreign_keys",
    "executing",
    "guard_cursor",
    "guard_pool",
    "may_run_anything",
    "raw_cursors",
    "refuse_driver",
    "starting_up",
]

starting_up: Final[ContextVar[bool]] = ContextVar("tenantguard.orm.starting_up", default=False)
"""True while a dialect finds out on its first connection what the server can do."""

_OF_CONNECTIONS: Final = frozenset("autocommit closed commit in_transaction info isolation_level rollback".split())
"""What may be asked of a pooled connection: nothing that takes SQL."""
_OF_CURSORS: Final = frozenset(
    """
    adapt_connection await_ connection copy copy_expert copy_from copy_to callproc execute execute_async executemany
    executescript fetch mogrify nextset prepare query scroll stream _adapt_connection _async_soft_close _connection
    _cursor _conn
    """.split()
)
"""What a cursor takes SQL by, or leads to what does."""
_TAKES_SQL: Final = frozenset("callproc copy copy_expert execute execute_async executemany executescript".split())
"""Of these SQLAlchemy asks in the dialect's last steps alone: its functions take a cursor and any text from anybody."""
executing: Final[ContextVar[bool]] = ContextVar("tenantguard.orm.executing", default=False)
"""True while a dialect executes what was vouched for in a way of its own."""


def may_run_anything() -> bool:
    """True in blocks of ``system`` and ``allow_raw``, and while a dialect starts."""
    binding = current_binding()
    return starting_up.get() or (binding is not None and (binding.system is not None or binding.raw is not None))


def refuse_driver(what: str) -> StatementRefused:
    """Return the refusal of a way to the driver."""
    return StatementRefused(
        f"{what} of a protected engine takes any SQL, which the barrier can't vouch for.",
        mend='Execute statements through the session or connection, or work in a block of allow_raw("why") or '
        'system("why").',
    )


def _called_by_libraries(depth: int = 2) -> bool:
    """True if SQLAlchemy, the driver or the barrier itself asks for what the caller guards.

    A driver asks for its own connection a dozen times in a statement, so what code was found to be theirs is kept.
    """
    frame = sys._getframe(depth)
    code = frame.f_code
    if _known_code.get(id(code)) is code:
        return True
    name = str(frame.f_globals.get("__name__", ""))
    known = name.partition(".")[0] in _LIBRARIES or name.startswith("tenantguard.orm.")
    if known and len(_known_code) < _MOST_KNOWN:
        _known_code[id(code)] = code
    return known


def _called_by_driver() -> bool:
    """True if the driver itself asks, whose functions take a cursor from nobody."""
    name = str(sys._getframe(2).f_globals.get("__name__", "")).partition(".")[0]
    return name in _LIBRARIES and name != "sqlalchemy"


_MOST_KNOWN: Final = 1000
_known_code: Final[dict[int, CodeType]] = {}
"""Kept by their ids, since a code's hash is that of all that it holds; it is held, so that its id stays its own."""
_LIBRARIES: Final = frozenset(
    "sqlalchemy sqlite3 psycopg psycopg2 asyncpg aiosqlite pymysql aiomysql asyncmy MySQLdb mariadb mysql".split()
)
_slot: Final[Any] = _ConnectionFairy.__dict__["dbapi_connection"]


driver_connection_of: Final[Any] = _slot.__get__
"""Returns the driver's connection of a pooled one."""


# --- cursors -------------------------------------------------------------------------------------------------


class GuardedCursor:
    """Stands before a driver's cursor whose class can't be extended."""

    __slots__ = ("__weakref__", "_driver_cursor")

    def __init__(self, driver_cursor: Any) -> None:
        object.__setattr__(self, "_driver_cursor", driver_cursor)

    # What every statement asks for goes the short way.

    @property
    def description(self) -> Any:
        return self._driver_cursor.description

    def fetchall(self) -> Any:
        return self._driver_cursor.fetchall()

    def close(self) -> Any:
        return self._driver_cursor.close()

    def __getattr__(self, key: str) -> Any:
        if key in _OF_CURSORS and (key in _TAKES_SQL or not _called_by_libraries()):
            if not may_run_anything():
                raise refuse_driver("A cursor")
            raw_cursors[0] += 1
        return getattr(self._driver_cursor, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self._driver_cursor, key, value)

    def __iter__(self) -> Any:
        return iter(self._driver_cursor)


def driver_cursor(cursor: Any) -> Any:
    """Return the driver's own cursor of one that stands before it."""
    return cursor._driver_cursor if cursor.__class__ is GuardedCursor else cursor


def _guarded(cls: type[Any], name: str) -> Any:
    original: Any = getattr(cls, name)

    takes_sql = name in _TAKES_SQL

    def get(self: Any) -> Any:
        trusted = executing.get() or _called_by_driver() if takes_sql else _called_by_libraries()
        if not trusted:
            if not may_run_anything():
                raise refuse_driver("A cursor")
            raw_cursors[0] += 1
        return original.__get__(self, cls)

    def set_(self: Any, value: Any) -> None:
        original.__set__(self, value)

    return property(get, set_ if hasattr(original, "__set__") else None)


driver_execute: Final[dict[type[Any], Any]] = {}
"""The driver's own ``execute`` of each guarded class: no attribute of the cursor, which results hand out."""
_classes: Final[dict[type[Any], type[Any]]] = {}


def _class_for(cls: type[Any]) -> type[Any]:
    known = _classes.get(cls)
    if known is None:
        names = [name for name in _OF_CURSORS if hasattr(getattr(cls, name, None), "__get__")]
        members: dict[str, Any] = {name: _guarded(cls, name) for name in names}
        members |= {"__slots__": (), "__module__": __name__}
        known = _classes[cls] = type(f"Guarded{cls.__name__}", (cls,), members)
        _classes[known] = known
        driver_execute[known] = cls.execute
    return known


def guard_cursor(cursor: Any) -> Any:
    """Return a cursor, guarded: itself where its class can be extended."""
    try:
        cursor.__class__ = _class_for(type(cursor))
    except TypeError:
        return GuardedCursor(cursor)
    return cursor


SQLITE_CURSOR: Final[Any] = _class_for(SQLiteCursor)
"""SQLite's driver makes cursors of a given class, and lets none change its class later."""


# --- connections ---------------------------------------------------------------------------------------------

RAN_RAW: Final = "tenantguard_ran_raw"
"""In the ``info`` of a pooled connection that was handed out for raw SQL, until its session is reset."""
HANDED_OUT: Final = "tenantguard_handed_out"
"""In the ``info`` of one whose driver was handed out, until it goes back to the pool."""
raw_cursors: Final = [0]
"""How often a cursor of a result has run raw SQL."""


class GuardedConnection(_ConnectionFairy):
    """A pooled connection whose cursors and driver connection are for SQLAlchemy, except where raw SQL may run."""

    __slots__ = ()

    @property
    def dbapi_connection(self) -> Any:
        if not _called_by_libraries():
            self._hand_out("The driver's connection")
        return driver_connection_of(self)

    @dbapi_connection.setter
    def dbapi_connection(self, value: Any) -> None:
        _slot.__set__(self, value)

    @property
    def connection(self) -> Any:
        return self.driver_connection

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        self._hand_out("A cursor")
        return super().cursor(*args, **kwargs)

    @property
    def driver_connection(self) -> Any:
        self._hand_out("The driver's connection")
        return super().driver_connection

    def __getattr__(self, key: str) -> Any:
        if key == "commit":
            self._check_commit()
        elif key not in _OF_CONNECTIONS and not _called_by_libraries():
            self._hand_out(f"The driver's {key}()")
        return super().__getattr__(key)

    def _hand_out(self, what: str) -> None:
        if not may_run_anything():
            raise refuse_driver(what)
        self.info[HANDED_OUT] = True
        dialect: Any = self._pool._dialect
        if dialect.tenantguard_setting is not None and not starting_up.get():
            dialect.tenantguard_setting.before_raw(self)

    def _check_commit(self) -> None:
        """Where the dialect looks before it commits (`tenantguard.orm.placement.places`), it is not gone round."""
        dialect: Any = self._pool._dialect
        if getattr(dialect, "tenantguard_placement", None) is None or _called_by_libraries(3):
            return
        binding = current_binding()
        if binding is None or binding.system is None:
            raise StatementRefused(
                "The driver's commit() does not look where the tenant is now.", mend="Commit the session or connection."
            )


def guard_pool(pool: Any, dialect: object) -> None:
    """Have every connection of a pool be a guarded one.

    Args:
        pool: SQLAlchemy's.
        dialect: the engine's. What a connection is known to be used for is known of one engine.

    Raises:
        ConfigurationError: the pool is another protected engine's.
    """
    if any(getattr(one, "tenantguard_dialect", dialect) is not dialect for one in pool.dispatch.checkout):
        raise ConfigurationError(
            "The pool belongs to another protected engine: what one leaves on a connection, the other would not see.",
            mend="Give each engine a pool of its own, or use engine.execution_options() of the first.",
        )

    def checkout(_dbapi_connection: Any, record: Any, fairy: Any) -> None:
        record.info.pop(HANDED_OUT, None)
        fairy.__class__ = GuardedConnection

    checkout.tenantguard_dialect = dialect  # type: ignore[attr-defined]
    event.listen(pool, "checkout", checkout)


def enforce_foreign_keys(pool: Any) -> None:
    """Have SQLite enforce foreign keys on every new connection of a pool."""

    def connect(driver_connection: Any, _record: Any) -> None:
        cursor = driver_connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    event.listen(pool, "connect", connect)
