"""Put the barrier into an engine.

An engine has a dialect object of its own. The barrier replaces that object's compiler and execution context by
subclasses of them, and the engine's compiled cache by one that keeps scoped and unscoped statements apart. Sessions,
connections, sub-engines of ``execution_options()`` and async facades all work on that same dialect object, so
nothing that uses the engine goes round it.
"""

import functools
import logging
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.ext.asyncio import async_sessionmaker as sqlalchemy_async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.orm import sessionmaker as sqlalchemy_sessionmaker

from tenantguard.errors import ConfigurationError
from tenantguard.orm.attached import install_attachment_checks
from tenantguard.orm.caches import ModeCache, install_mode_caches
from tenantguard.orm.classify import check_metadata
from tenantguard.orm.compiler import scoped_compiler
from tenantguard.orm.connections import enforce_foreign_keys, guard_pool, starting_up
from tenantguard.orm.execution import scoped_execution
from tenantguard.orm.identifiers import guard_identifiers
from tenantguard.orm.last_steps import guard_last_steps
from tenantguard.orm.pins import install_session_pins
from tenantguard.orm.results import install_result_checks
from tenantguard.orm.strangers import install_stranger_check
from tenantguard.orm.vouching import install_construct_check

__all__ = ["async_sessionmaker", "is_protected", "protect", "sessionmaker"]

logger: Final = logging.getLogger("tenantguard.orm")

_DIALECTS: Final = {"sqlite", "postgresql", "mysql", "mariadb"}
_E = TypeVar("_E", Engine, AsyncEngine)

install_stranger_check()
install_mode_caches()
install_result_checks()
install_construct_check()


def is_protected(engine: Engine | AsyncEngine) -> bool:
    """True if the barrier is in the engine."""
    return hasattr(engine.dialect, "tenantguard_protected")


def protect(
    engine: _E,
    *,
    metadata: MetaData | Iterable[MetaData] | None = None,
    functions: Iterable[str] = (),
    sqlite_foreign_keys: bool = True,
) -> _E:
    """Put the barrier into an engine, for good: every statement through it is scoped or refused.

    Protecting an engine twice changes nothing but adds the functions and the MetaData.

    Args:
        engine: an `sqlalchemy.Engine` or `AsyncEngine` of SQLite, PostgreSQL, MySQL or MariaDB, best before its
            first connection.
        metadata: the MetaData, one or several, whose tables the database holds. Then they are checked when the engine
            first connects, and tables of another MetaData are refused. Without it, two tables of the process that have
            one name must be classified alike.
        functions: names of SQL functions of yours that only compute from their arguments, for example
            ``["my_rank", "geo.distance"]``. Others than these and the well-known ones are refused.
        sqlite_foreign_keys: SQLite enforces foreign keys only where it is told so, on each connection. Without that, a
            row that outlives its parent hangs on whoever gets the parent's key next, who may be another tenant.
            ``False`` leaves the setting to the app, and is logged.

    Returns:
        The same engine.

    Raises:
        ConfigurationError: it is no engine, one of another database, or one with a protected engine's pool.
    """
    sync_engine: Any = getattr(engine, "sync_engine", engine)
    if not isinstance(sync_engine, Engine):
        raise ConfigurationError(
            f"protect() takes an Engine or AsyncEngine, not {type(engine).__name__}.",
            mend="Make one with create_engine() or create_async_engine().",
        )
    dialect: Any = sync_engine.dialect
    if dialect.name not in _DIALECTS:
        raise ConfigurationError(
            f"The barrier does not know the SQL of {dialect.name!r}.", mend="Use SQLite, PostgreSQL, MySQL or MariaDB."
        )
    allowed = frozenset(name.lower() for name in functions)
    holds = _several(metadata)
    if is_protected(sync_engine):
        dialect.statement_compiler.allowed_functions |= allowed
        if holds:
            dialect.tenantguard_metadata = (dialect.tenantguard_metadata or []) + holds
        return engine
    dialect.tenantguard_metadata = holds
    dialect.tenantguard_setting = None
    dialect.tenantguard_placement = None
    install_session_pins()
    install_attachment_checks()
    starting: set[int] = set()
    dialect.statement_compiler = scoped_compiler(dialect.statement_compiler, allowed)
    dialect.execution_ctx_cls = scoped_execution(dialect, starting)
    dialect.initialize = _initialize(dialect.initialize, starting)
    guard_identifiers(dialect)
    guard_last_steps(dialect)
    guard_pool(sync_engine.pool, dialect)
    if dialect.name == "sqlite":
        if sqlite_foreign_keys:
            enforce_foreign_keys(sync_engine.pool)
        else:
            logger.warning("SQLite's foreign keys are left to the app: rows may outlive their parents.")
    dialect.tenantguard_protected = True
    cache: Any = sync_engine._compiled_cache
    if cache is not None:
        sync_engine._compiled_cache = ModeCache(cache.capacity)
    return engine


def _several(metadata: object) -> list[MetaData] | None:
    if metadata is None:
        return None
    given = [metadata] if isinstance(metadata, MetaData) else list(metadata) if isinstance(metadata, Iterable) else []
    if not given or not all(isinstance(one, MetaData) for one in given):
        raise ConfigurationError(
            "metadata is no MetaData, and no list of some.", mend="For example metadata=Base.metadata."
        )
    return given


def _initialize(original: Any, starting: set[int]) -> Any:
    """Let the dialect ask the server for its version on the first connection, when nobody is bound yet."""

    @functools.wraps(original)
    def initialize(connection: Any) -> None:
        check_metadata(*(connection.dialect.tenantguard_metadata or ()))
        starting.add(id(connection))
        token = starting_up.set(True)
        try:
            original(connection)
        finally:
            starting_up.reset(token)
            starting.discard(id(connection))

    return initialize


def sessionmaker(
    engine: Engine,
    *,
    metadata: MetaData | Iterable[MetaData] | None = None,
    functions: Iterable[str] = (),
    **options: Any,
) -> "sqlalchemy_sessionmaker[Session]":
    """Protect an engine and return SQLAlchemy's own ``sessionmaker`` bound to it.

    Args:
        engine: see `protect`.
        metadata: see `protect`.
        functions: see `protect`.
        options: of `sqlalchemy.orm.sessionmaker`.
    """
    return sqlalchemy_sessionmaker(bind=protect(engine, metadata=metadata, functions=functions), **options)


def async_sessionmaker(
    engine: AsyncEngine,
    *,
    metadata: MetaData | Iterable[MetaData] | None = None,
    functions: Iterable[str] = (),
    **options: Any,
) -> "sqlalchemy_async_sessionmaker[AsyncSession]":
    """Protect an engine and return SQLAlchemy's own ``async_sessionmaker`` bound to it.

    ``expire_on_commit`` is off unless said otherwise, as SQLAlchemy advises for async sessions.

    Args:
        engine: see `protect`.
        metadata: see `protect`.
        functions: see `protect`.
        options: of `sqlalchemy.ext.asyncio.async_sessionmaker`.
    """
    options.setdefault("expire_on_commit", False)
    return sqlalchemy_async_sessionmaker(bind=protect(engine, metadata=metadata, functions=functions), **options)
