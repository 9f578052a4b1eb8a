"""Where the databases are, and the engines that operations use: of the tables' owner, one connection, never pooled.

The app's own engines are made by `Placements` from the same description, with another role in the URL.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, final

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from tenantguard.errors import ConfigurationError
from tenantguard.orm.classify import Shared, classify_alone
from tenantguard.orm.connections import driver_connection_of
from tenantguard.orm.placement.places import PlaceMap
from tenantguard.orm.placement.records import Placement
from tenantguard.orm.protect import protect

__all__ = ["DatabaseUrl", "Databases", "in_place", "options_of", "owner_engine", "url_options"]

DatabaseUrl: TypeAlias = URL | str | Callable[[str], URL | str]
"""A URL with ``{database}`` where the name goes, or a function that takes the name and returns the URL."""

_HOLE: Final = "{database}"
_LONGEST_NAME: Final = 63
_EXAMPLE: Final = 'For example "postgresql+psycopg://app@db/{database}" or "sqlite:////var/lib/app/{database}.sqlite3".'


@final
class Databases:
    """Where the shared tables and the tenants' own databases are.

    Args:
        metadata: the MetaData, one or several, whose tables the databases hold. Tables without a schema are those that
            stand in a tenant's own schema, where it has one; tables that name a schema stand where they say.
        shared: the URL of the database with the shared tables.
        tenants: the URL of a tenant's own database, with ``{database}`` for its name, or a function of the name.
            Without it no tenant has one.
        functions: see `protect`.
        configure: called with each protected engine before its first connection, for example
            ``lambda engine: guard_transactions(engine, seal=seal)``.

    Raises:
        ConfigurationError: a URL can't be read or has no place for the name; a shared table has no schema of its own,
            see `check_tables`.
    """

    def __init__(
        self,
        *metadata: MetaData,
        shared: URL | str,
        tenants: DatabaseUrl | None = None,
        functions: Iterable[str] = (),
        configure: Callable[[Any], object] | None = None,
    ) -> None:
        if not metadata or not all(isinstance(one, MetaData) for one in metadata):
            raise ConfigurationError("Databases() needs a MetaData.", mend="For example Base.metadata.")
        self.metadata = metadata
        self.functions = tuple(functions)
        self.configure = configure
        self.shared_url = _url(shared)
        self._tenants = tenants
        if isinstance(tenants, URL | str) and _HOLE not in (_url(tenants).database or ""):
            raise ConfigurationError("The URL of tenants' databases has no {database} in its name.", mend=_EXAMPLE)

    def url(self, database: str | None) -> URL:
        """Return the URL of a database.

        Args:
            database: its name in the control plane; ``None`` for the one with the shared tables.

        Raises:
            ConfigurationError: there is no URL for tenants' databases, or it can't be read; it leads to the shared
                database, or to a name that PostgreSQL would cut off.
        """
        if database is None:
            return self.shared_url
        if self._tenants is None:
            raise ConfigurationError(
                "A tenant has a database of its own, and no URL of such databases was given.",
                mend=f"Give Databases(tenants=...). {_EXAMPLE}",
            )
        if callable(self._tenants):
            made = _url(self._tenants(database))
        else:
            made = _url(self._tenants)
            made = made.set(database=(made.database or "").replace(_HOLE, database))
        self._check(made)
        return made

    def _check(self, made: URL) -> None:
        """Raise if a tenant's own database would be that of others."""

        def place(url: URL) -> object:
            return url.get_backend_name(), url.host, url.port, url.query, url.database

        if place(made) == place(self.shared_url):
            raise ConfigurationError(
                "The name of a tenant's own database leads to the one with the shared tables.",
                mend="Choose another name: it would be dropped with the tenant.",
            )
        if made.get_backend_name() == "postgresql" and len((made.database or "").encode()) > _LONGEST_NAME:
            raise ConfigurationError(
                f"The name of a tenant's database has more than {_LONGEST_NAME} bytes. PostgreSQL cuts it off there, "
                "and two tenants could get one database.",
                mend="Shorten what stands around {database} in the URL.",
            )

    @property
    def tables(self) -> list[Any]:
        """All tables."""
        return [table for one in self.metadata for table in one.tables.values()]

    def check_schema(self, placement: Placement) -> None:
        """Check that all rows of a tenant would stand in its schema, where the place has one.

        Tables of tenants that name a schema do not: the old and the new place of a move would be one table, in which
        the rows are deleted after they were compared with themselves, and dropping the schema would leave them.

        Raises:
            ConfigurationError: some tables name a schema.
        """
        if placement.schema is None:
            return
        names = sorted(
            table.fullname
            for table in self.tables
            if table.schema is not None and not isinstance(classify_alone(table), Shared)
        )
        if names:
            raise ConfigurationError(
                f"Tables of tenants name a schema, and would not stand in a tenant's own: {', '.join(names)}.",
                mend="Leave their schema out of the models, or give the tenant a database of its own.",
            )

    @contextmanager
    def engine(self, placement: Placement) -> Iterator[Engine]:
        """Give a protected engine of a place in a block, with the place's schema, for one connection at a time.

        It does not ask the directory: operations work where a tenant is not, or not yet.

        Raises:
            ConfigurationError: see `check_schema`.
        """
        self.check_schema(placement)
        engine = owner_engine(self.url(placement.database))
        protect(engine, metadata=self.metadata, functions=self.functions)
        if self.configure is not None:
            self.configure(engine)
        try:
            yield engine.execution_options(**options_of(placement))
        finally:
            engine.dispose()

    @contextmanager
    def bare_connection(self, placement: Placement, *, autocommit: bool = False) -> Iterator[Connection]:
        """Give a connection without the barrier in a block, as the owner: for DDL and migrations.

        The transaction is the caller's to commit.
        """
        engine = owner_engine(self.url(placement.database), snapshot=not autocommit)
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        try:
            with engine.connect().execution_options(**options) as connection:
                yield connection
        finally:
            engine.dispose()

    def sqlite_file(self, database: str | None) -> Path | None:
        """Return the file of an SQLite database; ``None`` for other databases."""
        url = self.url(database)
        return Path(url.database or "") if url.get_backend_name() == "sqlite" else None

    def __repr__(self) -> str:
        return f"Databases({self.shared_url.get_backend_name()!r}, own={self._tenants is not None})"


def options_of(placement: Placement) -> dict[str, Any]:
    """Return the execution options that lead to a place."""
    return {} if placement.schema is None else {"schema_translate_map": PlaceMap(placement.schema)}


def in_place(connection: Connection, placement: Placement) -> Connection:
    """Lead a bare connection to a place, for constructs by its options and for text by its transaction.

    Args:
        connection: of `Databases.bare_connection`, whose transaction has not begun.
        placement: the place.
    """
    if placement.schema is not None:
        name = connection.dialect.identifier_preparer.quote_identifier(placement.schema)
        connection.exec_driver_sql(f"SET LOCAL search_path TO {name}")
    return connection.execution_options(**options_of(placement))


def url_options(url: URL, pool_size: int) -> dict[str, Any]:
    """Return the options of an engine with a pool of a size, and no more."""
    if url.get_backend_name() == "sqlite" and (url.database in (None, "", ":memory:") or "mode" in url.query):
        raise ConfigurationError("A tenant's database in memory would be gone with its engine.", mend="Use a file.")
    return {"pool_size": pool_size, "max_overflow": 0, "hide_parameters": True}


def _url(url: object) -> URL:
    if not isinstance(url, URL | str):
        raise ConfigurationError(f"A database's URL is a {type(url).__name__}.", mend=_EXAMPLE)
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # its text may hold parts of the URL
        raise ConfigurationError("A database's URL can't be read.", mend=_EXAMPLE) from None


def owner_engine(url: URL, *, snapshot: bool = True) -> Engine:
    """Return an engine of one connection at a time, without the barrier.

    Args:
        url: of the database, with a synchronous driver.
        snapshot: SQLite's driver begins its transaction with the first statement, a read as well.

    Raises:
        ConfigurationError: the driver is asynchronous, or not installed.
    """
    try:
        if url.get_dialect().is_async:
            raise ConfigurationError(
                "Operations on tenants are synchronous, and the URL has an asynchronous driver.",
                mend="Give the URL with a synchronous driver, and run operations in a thread.",
            )
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
    except (ArgumentError, ImportError):
        raise ConfigurationError(
            f"There is no driver for a database's URL here: {url.drivername}.", mend="Install it, or use another."
        ) from None
    if engine.dialect.name == "sqlite" and snapshot:
        _begin_transactions(engine)
    return engine


def _begin_transactions(engine: Engine) -> None:
    """Have SQLite's driver begin a transaction with the first statement, whatever it is: DDL and reads as well."""

    def connect(driver_connection: Any, _record: Any) -> None:
        driver_connection.isolation_level = None

    def begin(connection: Any) -> None:
        driver_connection_of(connection.connection).execute("BEGIN")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
