"""Where API keys are kept: what a store must do, a store in memory, and one in a SQL database.

Each change is one statement that holds its own condition, so that two processes that rotate and revoke at once leave no
key longer than either of them meant. Records are never deleted: a revoked key stays known as revoked.
"""

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, final

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Dialect,
    Engine,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    Update,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeDecorator

from tenantguard.errors import ConfigurationError
from tenantguard.identity import ActorType
from tenantguard.tokens.api_key_records import HASH_LENGTH, ID_LENGTH, ApiKey, KeyHash
from tenantguard.tokens.blocking_database import BlockingDatabase

__all__ = ["ApiKeyStore", "InMemoryApiKeyStore", "SqlApiKeyStore"]

_MEND: Final = (
    "Check that the database is up and that the table was made: await store.create_table(), or "
    "tenantguard api-keys create-table."
)


class ApiKeyStore(Protocol):
    """Where API keys are kept. All methods must end in bounded time, and fail with `StoreUnavailable`."""

    async def get(self, key_id: str, /) -> ApiKey | None:
        """Return the key of exactly this id, or ``None``."""
        ...

    async def add(self, key: ApiKey, /) -> None:
        """Keep a new key.

        Raises:
            ValueError: there is one with its id.
        """
        ...

    async def list(
        self, *, tenant: str | UnsetType | None = UNSET, service: str | UnsetType = UNSET
    ) -> tuple[ApiKey, ...]:
        """Return keys, the oldest first: of one tenant (``None``: of no tenant), of one service; left out: of all."""
        ...

    async def revoke(self, key_id: str, at: int, /) -> bool:
        """Revoke a key for good; one that is revoked keeps its time. False if there is no key of this id."""
        ...

    async def shorten(self, key_id: str, expires_at: int, /) -> bool:
        """Let a key end at a time, unless it ends earlier. False if there is no such key or it is revoked."""
        ...

    async def touch(self, key_id: str, at: int, /) -> None:
        """Note when a key was last used."""
        ...


@final
class InMemoryApiKeyStore:
    """Keys in this process alone, for tests and for apps that mint them at the start. Thread-safe."""

    __slots__ = ("_keys", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, ApiKey] = {}

    async def get(self, key_id: str, /) -> ApiKey | None:
        """See `ApiKeyStore`."""
        return self._keys.get(key_id)

    async def add(self, key: ApiKey, /) -> None:
        """See `ApiKeyStore`."""
        with self._lock:
            if key.id in self._keys:
                raise _taken()
            self._keys[key.id] = key

    async def list(
        self, *, tenant: str | UnsetType | None = UNSET, service: str | UnsetType = UNSET
    ) -> tuple[ApiKey, ...]:
        """See `ApiKeyStore`."""
        with self._lock:
            keys = [
                key
                for key in self._keys.values()
                if (tenant is UNSET or key.tenant == tenant) and (service is UNSET or key.service == service)
            ]
        return tuple(sorted(keys, key=lambda key: (key.created_at, key.id)))

    async def revoke(self, key_id: str, at: int, /) -> bool:
        """See `ApiKeyStore`."""
        return self._change(key_id, lambda key: {} if key.revoked_at is not None else {"revoked_at": at})

    async def shorten(self, key_id: str, expires_at: int, /) -> bool:
        """See `ApiKeyStore`."""

        def earlier(key: ApiKey) -> dict[str, int] | None:
            if key.revoked_at is not None:
                return None
            return {"expires_at": expires_at if key.expires_at is None else min(key.expires_at, expires_at)}

        return self._change(key_id, earlier)

    async def touch(self, key_id: str, at: int, /) -> None:
        """See `ApiKeyStore`."""
        self._change(key_id, lambda key: {"last_used_at": max(key.last_used_at or at, at)})

    def _change(self, key_id: str, changes: Callable[[ApiKey], dict[str, int] | None]) -> bool:
        with self._lock:
            key = self._keys.get(key_id)
            changed = changes(key) if key is not None else None
            if key is None or changed is None:
                return False
            self._keys[key_id] = msgspec.structs.replace(key, **changed)
            return True

    def __repr__(self) -> str:
        return f"InMemoryApiKeyStore({len(self._keys)} keys)"


def _taken() -> ValueError:
    return ValueError("There is an API key with this id. Mint another.")


# --- SQL -------------------------------------------------------------------------------------------------


class _KeyHashColumn(TypeDecorator[KeyHash]):
    """A digest that stays a `KeyHash` on the way in and out, so that the logs of an engine with echo don't show it."""

    impl = LargeBinary(HASH_LENGTH)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> KeyHash | None:  # noqa: ARG002 - SQLAlchemy's hook
        return None if value is None else KeyHash(value)


def _table(name: str) -> Table:
    return Table(
        name,
        MetaData(),
        Column("id", String(ID_LENGTH), primary_key=True),
        Column("secret_hash", _KeyHashColumn, nullable=False),
        Column("service", String(255), nullable=False),
        Column("tenant", String(128), index=True),
        Column("scopes", Text, nullable=False),
        Column("actor_type", String(16), nullable=False),
        Column("name", String(255)),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger),
        Column("revoked_at", BigInteger),
        Column("last_used_at", BigInteger),
        Column("replaces", String(ID_LENGTH)),
    )


@final
class SqlApiKeyStore:
    """Keys in a table of a SQL database: SQLite (a file) or PostgreSQL.

    Args:
        engine: a synchronous engine that tenantguard does not protect, or a database's URL, from which the store makes
            an engine of its own, for example ``"postgresql+psycopg://app@db/app"`` or ``"sqlite:///keys.sqlite3"``.
        table_name: the table, in the database's default schema; `create_table` makes it.
        timeout: most seconds that a request waits for the database.

    Raises:
        ConfigurationError: it is no such engine or URL, or the driver is not installed.
    """

    __slots__ = ("_database", "table")

    def __init__(
        self, engine: Engine | URL | str, *, table_name: str = "tenantguard_api_keys", timeout: float = 5.0
    ) -> None:
        if not isinstance(table_name, str) or not table_name.isidentifier():
            raise ConfigurationError("table_name is not a plain name.", mend="Leave table_name out.")
        self._database = BlockingDatabase(engine, name="API key store", mend=_MEND, timeout=timeout)
        self.table = _table(table_name)

    async def create_table(self) -> None:
        """Make the table with its index, where it is not there. Apps with migrations make it there, like `table`."""
        await self._database.run(self.table.metadata.create_all)

    async def get(self, key_id: str, /) -> ApiKey | None:
        """See `ApiKeyStore`."""
        statement = select(self.table).where(self.table.c.id == key_id)

        def work(connection: Connection) -> ApiKey | None:
            row = connection.execute(statement).one_or_none()
            return None if row is None else _read(row)

        return await self._database.run(work)

    async def add(self, key: ApiKey, /) -> None:
        """See `ApiKeyStore`."""
        values = msgspec.structs.asdict(key) | {
            "scopes": " ".join(sorted(key.scopes)),
            "actor_type": key.actor_type.value,
        }

        def work(connection: Connection) -> bool:
            try:
                connection.execute(insert(self.table), values)
            except IntegrityError:
                return False
            return True

        if not await self._database.run(work):
            raise _taken()

    async def list(
        self, *, tenant: str | UnsetType | None = UNSET, service: str | UnsetType = UNSET
    ) -> tuple[ApiKey, ...]:
        """See `ApiKeyStore`."""
        columns = self.table.c
        statement = select(self.table).order_by(columns.created_at, columns.id)
        if tenant is not UNSET:
            statement = statement.where(columns.tenant == tenant)
        if service is not UNSET:
            statement = statement.where(columns.service == service)
        return await self._database.run(lambda connection: tuple(_read(row) for row in connection.execute(statement)))

    async def revoke(self, key_id: str, at: int, /) -> bool:
        """See `ApiKeyStore`."""
        columns = self.table.c
        return await self._update(
            update(self.table).where(columns.id == key_id).values(revoked_at=func.coalesce(columns.revoked_at, at))
        )

    async def shorten(self, key_id: str, expires_at: int, /) -> bool:
        """See `ApiKeyStore`."""
        columns = self.table.c
        earlier = case((columns.expires_at < expires_at, columns.expires_at), else_=expires_at)
        return await self._update(
            update(self.table).where(columns.id == key_id, columns.revoked_at.is_(None)).values(expires_at=earlier)
        )

    async def touch(self, key_id: str, at: int, /) -> None:
        """See `ApiKeyStore`."""
        columns = self.table.c
        await self._update(
            update(self.table)
            .where(columns.id == key_id, or_(columns.last_used_at.is_(None), columns.last_used_at < at))
            .values(last_used_at=at)
        )

    async def aclose(self) -> None:
        """Close the store, and the engine if it is its own. Nobody is let in by it afterwards."""
        await self._database.aclose()

    async def _update(self, statement: Update) -> bool:
        return await self._database.run(lambda connection: connection.execute(statement).rowcount == 1)

    def __repr__(self) -> str:
        return f"SqlApiKeyStore({self._database.dialect!r}, {self.table.name!r})"


def _read(row: Any) -> ApiKey:
    values = row._asdict()
    values["scopes"] = frozenset(values["scopes"].split())
    values["actor_type"] = ActorType(values["actor_type"])
    return ApiKey(**values)
