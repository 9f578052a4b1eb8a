"""A synchronous SQLAlchemy engine behind an async door, for the stores that a check asks.

The work runs in daemon threads of its own, so that one implementation serves asyncio and trio and any number of event
loops, and a database that hangs is given up after a time: whoever needed it is refused with 503. The engine is not the
app's protected one: what a check asks is asked before anybody is bound. No error of the driver leaves the thread, since
its text and its chain hold the values of the statement.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar, final

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool

from tenantguard.errors import ConfigurationError, StoreUnavailable
from tenantguard.tokens.background import DaemonThreads, wait_for

__all__ = ["BlockingDatabase"]

T = TypeVar("T")

_THREADS: Final = 10
_EXAMPLE: Final = 'For example "postgresql+psycopg://app@db/app" or "sqlite:////var/lib/app/keys.sqlite3".'


@final
class BlockingDatabase:
    """Transactions in threads. Thread-safe; usable from any number of event loops.

    Args:
        engine: a synchronous engine that tenantguard does not protect, or a database's URL, from which an engine is
            made.
        name: what is kept there, as errors call it: ``"API key store"``.
        mend: what to do when the database fails.
        timeout: most seconds that a caller waits, from 0.01 to 300.

    Raises:
        ConfigurationError: it is no such engine or URL, or its driver is not installed.
    """

    __slots__ = ("_engine", "_mend", "_name", "_own", "_pid", "_threads", "_timeout")

    def __init__(self, engine: Engine | URL | str, *, name: str, mend: str, timeout: float) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0.01 <= timeout <= 300:
            raise ConfigurationError("timeout is not a number from 0.01 to 300.", mend="Leave timeout out.")
        self._name = name
        self._mend = mend
        self._own = isinstance(engine, URL | str)
        self._engine = _make_engine(engine, name, timeout) if isinstance(engine, URL | str) else engine
        _check_engine(self._engine, name)
        self._timeout = timeout
        self._threads = DaemonThreads(limit=_THREADS)
        self._pid = os.getpid()

    @property
    def dialect(self) -> str:
        """The name of the database's dialect, for example ``"postgresql"``."""
        return self._engine.dialect.name

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do the work in a transaction, which is committed if the work returns, and return what it returned.

        Args:
            work: blocking, runs in another thread, without the caller's context.

        Raises:
            StoreUnavailable: the database failed, or did not answer in time; a change may have been made or not.
            ConfigurationError: the engine has been protected since.
        """
        future = self._begin(work)
        try:
            done = await wait_for(future, self._timeout)
        except TimeoutError:
            raise self._unavailable("did not answer in time") from None
        except CancelledError:
            raise self._unavailable("is closed") from None
        finally:
            future.cancel()  # what nobody waits for any more need not begin
        return self._done(done)

    def run_blocking(self, work: Callable[[Connection], T]) -> T:
        """Do the same for a caller that is not async, whose thread waits.

        Raises:
            StoreUnavailable: see `run`.
            ConfigurationError: see `run`.
        """
        future = self._begin(work)
        try:
            done = future.result(self._timeout)
        except TimeoutError:
            raise self._unavailable("did not answer in time") from None
        except CancelledError:
            raise self._unavailable("is closed") from None
        finally:
            future.cancel()
        return self._done(done)

    def _begin(self, work: Callable[[Connection], T]) -> "Future[T | _Failed]":
        _refuse_protected(self._engine, self._name)
        if self._own and self._pid != os.getpid():
            self._pid = os.getpid()
            self._engine.dispose(close=False)  # two processes on one connection would read each other's answers
        return self._threads.submit(lambda: self._attempt(work))

    def _done(self, done: "T | _Failed") -> T:
        if isinstance(done, _Failed):
            raise self._unavailable(f"failed ({done.kind})")
        return done

    def _attempt(self, work: Callable[[Connection], T]) -> "T | _Failed":
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except Exception as fault:  # noqa: BLE001 - fails closed: run() refuses
            return _Failed(_kind(fault))

    def _unavailable(self, how: str) -> StoreUnavailable:
        return StoreUnavailable(f"The {self._name} {how}.", mend=self._mend)

    async def aclose(self) -> None:
        """End the threads, and close the engine if it was made here. Whoever asks afterwards is refused."""
        self.close()

    def close(self) -> None:
        """Do the same for a caller that is not async."""
        self._threads.close()
        if self._own:
            self._engine.dispose()


class _Failed(msgspec.Struct, frozen=True):
    """What kind of error it was. The error itself stays in the thread."""

    kind: str


def _kind(fault: Exception) -> str:
    original = getattr(fault, "orig", None) or fault
    state = getattr(original, "sqlstate", None)
    return type(original).__name__ + (f", SQLSTATE {state}" if isinstance(state, str) else "")


# --- engines ---------------------------------------------------------------------------------------------


def _make_engine(url: URL | str, name: str, timeout: float) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its text may hold parts of the URL
        raise ConfigurationError(f"The database URL of the {name} can't be read.", mend=_EXAMPLE) from None
    if parsed.drivername == "postgres":
        parsed = parsed.set(drivername="postgresql")
    backend = parsed.get_backend_name()
    if backend == "sqlite" and (parsed.database in (None, "", ":memory:") or parsed.query.get("mode") == "memory"):
        raise _in_memory(name)
    waits: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": timeout},
        "postgresql": {"connect_timeout": max(2, math.ceil(timeout))},
    }
    try:
        if parsed.get_dialect().is_async:
            raise _asynchronous(name)
        return create_engine(
            parsed,
            connect_args=waits.get(backend, {}),
            hide_parameters=True,
            pool_pre_ping=True,
            poolclass=QueuePool,
            pool_size=_THREADS,
            max_overflow=0,
            pool_timeout=timeout,
        )
    except (ArgumentError, ImportError):
        raise ConfigurationError(
            f"There is no driver for the database URL of the {name} here: {parsed.drivername}.",
            mend=f"Install it, or use another. {_EXAMPLE}",
        ) from None


def _check_engine(engine: object, name: str) -> None:
    if isinstance(engine, AsyncEngine) or (isinstance(engine, Engine) and engine.dialect.is_async):
        raise _asynchronous(name)
    if not isinstance(engine, Engine):
        raise ConfigurationError(
            f"The {name} takes a database URL or an Engine, not a {type(engine).__name__}.", mend=_EXAMPLE
        )
    if isinstance(engine.pool, SingletonThreadPool | StaticPool):
        raise _in_memory(name)
    _refuse_protected(engine, name)


def _refuse_protected(engine: Engine, name: str) -> None:
    if hasattr(engine.dialect, "tenantguard_protected"):
        raise ConfigurationError(
            f"The engine of the {name} is one that tenantguard protects, and is asked before a tenant is bound.",
            mend="Give the database URL instead, or an engine of its own.",
        )


def _asynchronous(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"The engine of the {name} is asynchronous; a synchronous one is run in threads.",
        mend=f"Give the database URL with a synchronous driver. {_EXAMPLE}",
    )


def _in_memory(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"The database of the {name} is in memory: each thread would see another one, or all share one transaction.",
        mend="Use a file, or the store in memory.",
    )
