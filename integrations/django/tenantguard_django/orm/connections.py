"""Protecting Django's connections: their compilers, their cursors, their transactions.

`protect` puts a mixin before the class of a connection, of those that exist and of those that other threads will open
under the same alias. Everything that uses the alias then passes the barrier: managers, ``using()``, routers, commands.
Django's own machinery (connecting, savepoints, finding out what the database can do, making test databases) is let
through by name.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import IntegrityError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler
from django.utils.functional import cached_property

from tenantguard.binding import current_binding
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.permits import system
from tenantguard_django.orm.commands import in_test_environment, install_system_commands
from tenantguard_django.orm.drivers import (
    guard_driver,
    guarded_cursor,
    psycopg2_factory,
    release_driver,
    sqlite_factory,
)
from tenantguard_django.orm.guard import Guard
from tenantguard_django.orm.lifts import install_lifts
from tenantguard_django.orm.names import names_of
from tenantguard_django.orm.results import install_result_pins
from tenantguard_django.orm.write_compilers import scoped_compiler

__all__ = ["GuardedWrapper", "is_protected", "machinery", "protect", "settings_of_aliases"]

_VENDORS: Final = frozenset({"sqlite", "postgresql"})
_aliases: Final[set[str]] = set()
settings_of_aliases: Final[dict[str, Any]] = {}
"""What tells PostgreSQL whose transaction it is, by alias (`tenantguard_django.orm.rls`)."""
_classes: Final[dict[type, type]] = {}
_EVERY: Final = "*"
_SAVEPOINT: Final = re.compile(r"[\w-]+")
_lock: Final = threading.Lock()


class _Blocks(list[Any]):
    """The connection's stack of atomic blocks, which tells the guard what is left."""

    def __init__(self, guard: Guard, blocks: list[Any]) -> None:
        super().__init__(blocks)
        self._guard = guard

    def pop(self, *args: Any) -> Any:
        block = super().pop(*args)
        self._guard.left(block)
        return block


class GuardedWrapper:
    """Mixin before a backend's ``DatabaseWrapper``."""

    Database: Any
    connection: Any
    ops: Any
    features: Any
    vendor: str
    alias: str
    atomic_blocks: list[Any]
    execute_wrappers: list[Any]
    tenantguard: Guard
    _tenantguard_cursors: dict[type, type]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _install(self)

    # --- connecting ----------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, and let what Django and receivers of its signal set up through."""
        self.tenantguard.forget()
        with self.tenantguard.opened():
            super().connect()  # type: ignore[misc]
        self.atomic_blocks = _Blocks(self.tenantguard, self.atomic_blocks)

    def get_new_connection(self, conn_params: Any) -> Any:
        """Open the driver's connection."""
        if self.vendor == "sqlite":
            factory = sqlite_factory(conn_params.get("factory"), self.tenantguard, self._tenantguard_cursors)
            conn_params = {**conn_params, "factory": factory}
        elif self.vendor == "postgresql" and self.Database.__name__ == "psycopg2":
            wanted = conn_params.get("connection_factory")
            made = psycopg2_factory(wanted, self.tenantguard, self._tenantguard_cursors)
            conn_params = {**conn_params, "connection_factory": made}
        with self.tenantguard.opened():
            driver = super().get_new_connection(conn_params)  # type: ignore[misc]
        if self.vendor == "postgresql":
            guard_driver(driver, self.tenantguard, self._tenantguard_cursors)
        return driver

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor of the driver's that asks the guard."""
        cursor = super().create_cursor(name)  # type: ignore[misc]
        cls = cursor.__class__
        if getattr(cls, "tenantguard_guard", None) is not self.tenantguard:
            cursor.__class__ = guarded_cursor(cls, self.tenantguard, self._tenantguard_cursors)
        return cursor

    def _close(self) -> Any:
        if self.vendor == "postgresql" and self.connection is not None:
            release_driver(self.connection)
        return super()._close()  # type: ignore[misc]

    def is_usable(self) -> bool:
        """Ask the database whether it is there."""
        with self.tenantguard.opened():
            return bool(super().is_usable())  # type: ignore[misc]

    # --- transactions --------------------------------------------------------------------------------------

    def _commit(self) -> Any:
        try:
            return super()._commit()  # type: ignore[misc]
        finally:
            self.tenantguard.forget()

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]
        finally:
            self.tenantguard.forget()

    def _savepoint(self, sid: str) -> None:
        _check_savepoint(sid)
        if self.tenantguard.setting is not None:
            self.tenantguard.setting.before_untold(self)
        with self.tenantguard.opened():
            super()._savepoint(sid)  # type: ignore[misc]

    def _savepoint_rollback(self, sid: str) -> None:
        _check_savepoint(sid)
        self.tenantguard.rolled_back()
        with self.tenantguard.opened():
            super()._savepoint_rollback(sid)  # type: ignore[misc]

    def _savepoint_commit(self, sid: str) -> None:
        _check_savepoint(sid)
        with self.tenantguard.opened():
            super()._savepoint_commit(sid)  # type: ignore[misc]

    def check_constraints(self, table_names: Any = None) -> Any:
        """Check foreign keys now."""
        if self.tenantguard.setting is not None and self.connection is not None:
            self.tenantguard.setting.before_untold(self)
        binding = current_binding()
        try:
            with self.tenantguard.opened():
                return super().check_constraints(table_names)  # type: ignore[misc]
        except IntegrityError:
            if binding is None or binding.system is not None:
                raise
            # SQLite looks at the rows of everybody, and Django says what is in the one that it finds.
            raise IntegrityError("A foreign key points to no row.") from None

    def disable_constraint_checking(self) -> Any:
        """Stop checking foreign keys, where the database can."""
        with self.tenantguard.opened():
            return super().disable_constraint_checking()  # type: ignore[misc]

    def enable_constraint_checking(self) -> Any:
        """Check foreign keys again."""
        with self.tenantguard.opened():
            return super().enable_constraint_checking()  # type: ignore[misc]


def _check_savepoint(sid: Any) -> None:
    """Refuse a savepoint whose name would be read as SQL, since Django leaves what stands in quotes as it is."""
    if not isinstance(sid, str) or not _SAVEPOINT.fullmatch(sid):
        raise StatementRefused("A savepoint's name is no name.", mend="Use what transaction.savepoint() returns.")


def _install(connection: Any) -> None:
    """Give a connection its guard, and what asks it."""
    guard = Guard(connection)
    guard.setting = settings_of_aliases.get(connection.alias)
    connection.tenantguard = guard
    connection._tenantguard_cursors = {}
    connection.atomic_blocks = _Blocks(guard, connection.atomic_blocks)
    connection.execute_wrappers = [guard, *connection.execute_wrappers]
    ops = connection.ops
    original = type(ops).compiler

    scoped: dict[str, type] = {}

    def compiler(name: str) -> type:
        made = scoped.get(name)
        if made is None:
            made = scoped[name] = scoped_compiler(original(ops, name), name)
        return made

    ops.compiler = compiler
    ops.quote_name = names_of(ops.quote_name)
    last = ops.last_executed_query

    def last_executed_query(cursor: Any, sql: Any, params: Any) -> Any:
        with guard.opened():  # SQLite has its values quoted by a statement
            return last(cursor, sql, params)

    ops.last_executed_query = last_executed_query
    connection.features.__class__ = _looking(type(connection.features))
    connection.creation.__class__ = _creating(type(connection.creation))


def _looking(base: type) -> type:
    """Return a class of features whose looks at the database are let through."""
    if base in _classes.values():
        return base
    made = _classes.get(base)
    if made is None:
        members: dict[str, Any] = {"__module__": base.__module__}
        for cls in reversed(base.__mro__):
            for name, value in cls.__dict__.items():
                if isinstance(value, cached_property):
                    members[name] = _let_through(value)
        made = _classes[base] = type(base.__name__, (base,), members)
        for value in members.values():
            if isinstance(value, cached_property):
                value.__set_name__(made, next(name for name, one in members.items() if one is value))
    return made


def _let_through(value: Any) -> Any:
    original: Callable[[Any], Any] = value.func if hasattr(value, "func") else value.real_func

    def look(self: Any) -> Any:
        guard = getattr(self.connection, "tenantguard", None)
        if guard is None:
            return original(self)
        with guard.opened():
            return original(self)

    return cached_property(look)


_SYSTEM_CREATION: Final = ("create_test_db", "clone_test_db", "destroy_test_db", "serialize_db_to_string")
_SYSTEM_CREATION_TOO: Final = ("deserialize_db_from_string", "setup_worker_connection")


def _creating(base: type) -> type:
    """Return a class that makes and drops test databases in a system context, where nobody is bound."""
    if base in _classes.values():
        return base
    made = _classes.get(base)
    if made is None:
        members: dict[str, Any] = {"__module__": base.__module__}
        for name in (*_SYSTEM_CREATION, *_SYSTEM_CREATION_TOO):
            original = getattr(base, name, None)
            if original is not None:
                members[name] = _in_system(original, f"django's test databases: {name}")
        made = _classes[base] = type(base.__name__, (base,), members)
    return made


def _in_system(original: Callable[..., Any], reason: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if current_binding() is not None and not in_test_environment():
            return original(self, *args, **kwargs)  # whoever is bound gets no further right by it
        with system(reason):
            return original(self, *args, **kwargs)

    return method


def _guarded_class(base: type) -> type:
    with _lock:
        made = _classes.get(base)
        if made is None:
            members = {"__module__": base.__module__, "__qualname__": base.__qualname__}
            made = _classes[base] = type(base.__name__, (GuardedWrapper, base), members)
        return made


def protect(database: Any = None) -> None:
    """Protect databases: every statement through them is scoped or refused from now on.

    Args:
        database: an alias, a connection, or ``None`` for all of ``DATABASES``, also those that are added later. An
            alias counts for the connections of all threads.

    Raises:
        ConfigurationError: it is none of Django's connections, or of a database that the barrier does not know.
    """
    install_result_pins()
    install_lifts()
    install_system_commands()
    _watch_new_connections()
    if database is None:
        _aliases.add(_EVERY)
        for alias in connections:
            protect(alias)
    elif isinstance(database, str):
        _protect_connection(connections[database])
        _aliases.add(database)
    else:
        if not isinstance(database, BaseDatabaseWrapper):
            own = getattr(database, "alias", None)  # Django's own proxy of the default connection
            database = connections[own] if isinstance(own, str) else database
        _protect_connection(database)


def _protect_connection(connection: Any) -> None:
    """Protect one connection.

    Raises:
        ConfigurationError: it can't be.
    """
    if isinstance(connection, GuardedWrapper):
        return
    if not isinstance(connection, BaseDatabaseWrapper):
        raise ConfigurationError("protect() takes an alias or a connection of Django's.", mend='protect("default")')
    if connection.vendor == "unknown":
        return  # the dummy of a project without a database, which runs nothing
    if connection.vendor not in _VENDORS:
        raise ConfigurationError(
            f"The database {connection.alias!r} is of the kind {connection.vendor!r}, which the barrier does not know.",
            mend="Use SQLite or PostgreSQL for the data of tenants.",
        )
    for name in ("SQLCompiler", "SQLAggregateCompiler", "SQLInsertCompiler", "SQLDeleteCompiler", "SQLUpdateCompiler"):
        scoped_compiler(connection.ops.compiler(name), name)
    if connection.connection is not None:
        if connection.in_atomic_block:
            raise ConfigurationError("A transaction runs on the connection.", mend="Call protect() at start.")
        if not (connection.vendor == "sqlite" and connection.is_in_memory_db()):
            connection.close()  # what is opened from now on asks
    connection.__class__ = _guarded_class(type(connection))
    _install(connection)
    if connection.connection is not None:
        _reopen_in_memory(connection)


def _reopen_in_memory(connection: Any) -> None:
    """Give a database in memory, which would be gone with its connection, a connection that asks."""
    before = connection.connection
    after = connection.get_new_connection(connection.get_connection_params())
    if "cache=shared" not in str(connection.settings_dict["NAME"]):
        before.backup(after)
    connection.connection = after
    connection._set_autocommit(connection.autocommit)
    before.close()


def is_protected(database: Any = None) -> bool:
    """True if a database is protected.

    Args:
        database: an alias, a connection, or ``None`` for all of ``DATABASES``.
    """
    if database is None:
        return all(is_protected(alias) for alias in connections)
    connection: Any = connections[database] if isinstance(database, str) else database
    if not isinstance(connection, BaseDatabaseWrapper):
        connection = connections[connection.alias]
    return isinstance(connection, GuardedWrapper)


def _watch_new_connections() -> None:
    original = ConnectionHandler.create_connection
    if getattr(original, "tenantguard", False):
        return

    def create_connection(self: Any, alias: str) -> Any:
        connection = original(self, alias)
        if alias in _aliases or _EVERY in _aliases:
            _protect_connection(connection)
        return connection

    create_connection.tenantguard = True
    ConnectionHandler.create_connection = create_connection


@contextmanager
def machinery(connection: Any) -> Iterator[None]:
    """Let Django's own machinery talk to a protected database, for a block.

    Args:
        connection: Django's.
    """
    guard = getattr(connection, "tenantguard", None)
    if guard is None:
        yield
    else:
        with guard.opened():
            yield
