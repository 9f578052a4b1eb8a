"""The driver's own cursors and connections, which can be had from Django's: they ask wall two before they run anything.

``connection.connection`` and ``cursor.cursor`` are public names in Django, and both reach the database below its
execute wrappers. So the cursor classes of a protected connection are subclasses that belong to it and hold its guard;
for SQLite, whose connection object runs SQL itself, the connection's class is one as well.
"""

import sqlite3
from importlib import import_module
from typing import Any, Final

from tenantguard.errors import StatementRefused
from tenantguard_django.orm.guard import Guard

__all__ = ["guard_driver", "guarded_cursor", "psycopg2_factory", "release_driver", "sqlite_factory"]

_STATEMENTS: Final = ("execute", "executemany", "executescript", "stream", "copy_expert", "mogrify_and_execute")
_OTHERS: Final = ("copy", "copy_from", "copy_to", "callproc")
_SQLITE_WHOLE: Final = ("backup", "blobopen", "deserialize", "iterdump", "serialize", "load_extension")


def guarded_cursor(base: type, guard: Guard, known: dict[type, type]) -> type:
    """Return the subclass of a driver's cursor class that asks a guard.

    Args:
        base: the class.
        guard: the connection's guard.
        known: those that the connection has already.
    """
    made = known.get(base)
    if made is None:
        if getattr(base, "tenantguard_guard", None) is guard:
            return base
        members: dict[str, Any] = {"tenantguard_guard": guard, "__module__": __name__, "__slots__": ()}
        for name in (*_STATEMENTS, *_OTHERS):
            original = getattr(base, name, None)
            if original is not None:
                members[name] = _asking(original, guard, statement=name in _STATEMENTS)
        made = known[base] = type(base.__name__, (base,), members)
    return made


def _asking(original: Any, guard: Guard, *, statement: bool) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not statement:
            guard.check_cursor()
        elif len(args) != 2 or args[0] is not guard.passing or args[1] is not guard.given:
            given = [*args, *kwargs.values(), None, None]
            guard.check_cursor(given[0], given[1])
        return original(self, *args, **kwargs)

    return method


def sqlite_factory(base: Any, guard: Guard, known: dict[type, type]) -> type:
    """Return the class of SQLite connections for a guard.

    Args:
        base: the class that the project wants, or ``None``.
        guard: the connection's guard.
        known: the cursor classes that the connection has already.
    """
    base = base or sqlite3.Connection
    plain = base.cursor

    def cursor(self: Any, factory: Any = sqlite3.Cursor) -> Any:
        if not isinstance(factory, type):
            guard.check_cursor()  # what a function makes can't be told to ask
            return plain(self, factory)
        return plain(self, known.get(factory) or guarded_cursor(factory, guard, known))

    members: dict[str, Any] = {"cursor": cursor, "__module__": __name__}
    for name in ("execute", "executemany", "executescript"):
        members[name] = _asking(getattr(base, name), guard, statement=True)
    for name in _SQLITE_WHOLE:
        original = getattr(base, name, None)
        if original is not None:
            members[name] = _whole(original, guard)
    return type("Connection", (base,), members)


def psycopg2_factory(base: Any, guard: Guard, known: dict[type, type]) -> type:
    """Return the class of psycopg2's connections for a guard: there, each call may name the cursor's class.

    Args:
        base: the class that the project wants, or ``None``.
        guard: the connection's guard.
        known: the cursor classes that the connection has already.
    """
    extensions: Any = import_module("psycopg2.extensions")
    base = base or extensions.connection

    def cursor(self: Any, name: Any = None, cursor_factory: Any = None, *args: Any, **kwargs: Any) -> Any:
        factory = cursor_factory or self.cursor_factory or extensions.cursor
        if isinstance(factory, type):
            factory = guarded_cursor(factory, guard, known)
        else:
            guard.check_cursor()  # as above
        return base.cursor(self, name, factory, *args, **kwargs)

    def lobject(self: Any, *args: Any, **kwargs: Any) -> Any:
        guard.check_cursor()
        return base.lobject(self, *args, **kwargs)

    return type("Connection", (base,), {"cursor": cursor, "lobject": lobject, "__module__": __name__})


def _whole(original: Any, guard: Guard) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            guard.check_cursor("create")  # as DDL: for system contexts alone
        except StatementRefused:
            raise StatementRefused(
                "The whole database is read or written.", mend='Run it in a block of system("why").'
            ) from None
        return original(self, *args, **kwargs)

    return method


def release_driver(driver: Any) -> None:
    """Give a driver's connection its own cursors back, before it is closed or goes back to a pool.

    Args:
        driver: the connection of psycopg or psycopg2.
    """
    for name in ("cursor_factory", "server_cursor_factory"):
        base = getattr(getattr(driver, name, None), "tenantguard_base", None)
        if base is not None:
            setattr(driver, name, base)


def guard_driver(driver: Any, guard: Guard, known: dict[type, type]) -> None:
    """Give a driver's connection cursors that ask.

    Args:
        driver: the connection of psycopg or psycopg2.
        guard: the guard.
        known: the cursor classes that the connection has already.
    """
    for name in ("cursor_factory", "server_cursor_factory"):
        factory = getattr(driver, name, None)
        if isinstance(factory, type):
            base = getattr(factory, "tenantguard_base", factory)  # a pool gives the same one to many
            made = guarded_cursor(base, guard, known)
            made.tenantguard_base = base
            setattr(driver, name, made)
