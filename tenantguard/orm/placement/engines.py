"""Engines of many databases under two bounds: how many pools are open, and how many connections in all.

Each engine has an equal share of the connections and no overflow, so the sum can't be exceeded, whatever happens. The
engine that was not used for longest makes room for another one, and never one that is in use: whoever needs an engine
holds a lease on it. If all are in use, the next one waits its turn.

An engine that was closed to make room opens no connection any more, so that nobody who kept it works past the bounds.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, final

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard.errors import ConfigurationError, StoreUnavailable
from tenantguard.tokens.background import wait_for

__all__ = ["BoundedEngines", "Lease"]

_MOST_VIEWS: Final = 1000
_LOOK_AGAIN: Final = 0.5
logger: Final = logging.getLogger("tenantguard.orm.placement")


@final
class _Held:
    """An engine and who uses it."""

    __slots__ = ("closed", "engine", "idle_since", "leases", "name", "views")

    def __init__(self, name: str, engine: Any) -> None:
        self.name = name
        self.engine = engine
        self.leases = 0
        self.idle_since = time.monotonic()
        self.closed = False
        self.views: dict[str | None, Any] = {}
        """The engine with the options of a schema."""

    def is_idle(self) -> bool:
        return self.leases == 0 and _checked_out(self.engine) == 0


@final
class Lease:
    """The right to use an engine: it stays open until `release`, or until the lease is forgotten.

    Args:
        engine: the engine, or its view with the options of a schema.
        give_back: what ends the lease.
    """

    __slots__ = ("_give_back", "engine")

    def __init__(self, engine: Any, give_back: Callable[[], None] | None) -> None:
        self.engine = engine
        self._give_back = give_back

    def release(self) -> None:
        """End the lease. May be called again."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __del__(self) -> None:
        self.release()


@final
class BoundedEngines:
    """Engines by name, made when they are needed and closed when others are. Thread-safe; async engines of one loop.

    Args:
        make: makes the engine of a name with a pool of the given size. It must open no connection.
        max_engines: most engines that are open at once.
        max_connections: most connections of all of them; each engine has an equal part of it, one at least.
        idle_seconds: an engine that was not used for so long is closed.
        timeout: most seconds that a caller waits for its turn.

    Raises:
        ConfigurationError: a bound is not usable.
    """

    def __init__(
        self,
        make: Callable[[str, int], Engine | AsyncEngine],
        *,
        max_engines: int = 16,
        max_connections: int = 64,
        idle_seconds: float = 300.0,
        timeout: float = 30.0,
    ) -> None:
        for name, value in (("max_engines", max_engines), ("max_connections", max_connections)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} is no number from 1 on.", mend=f"Leave {name} out.")
        if max_connections < max_engines:
            raise ConfigurationError(
                "max_connections is smaller than max_engines, so not every engine could have a connection.",
                mend="Raise max_connections, or lower max_engines.",
            )
        self._make = make
        self._max = max_engines
        self._idle_seconds = idle_seconds
        self._timeout = timeout
        self._lock = threading.RLock()  # a lease may be forgotten, and collected, while its own thread holds it
        self._engines: OrderedDict[str, _Held] = OrderedDict()
        self._closing = 0
        self._waiting: deque[tuple[str, Future[None]]] = deque()
        self._looked = time.monotonic()
        self.pool_size: Final = max_connections // max_engines
        """Connections of each engine."""

    # --- leases ----------------------------------------------------------------------------------------------

    def acquire(self, name: str, view: Callable[[Any], Any], schema: str | None) -> Lease:
        """Return a lease on the engine of a name, for a caller that may block.

        Args:
            name: of the database.
            view: makes the engine with the options of the schema from the engine.
            schema: the schema.

        Raises:
            StoreUnavailable: all engines were in use for too long.
        """
        deadline = time.monotonic() + self._timeout
        turn: Future[None] | None = None
        while True:
            lease, idle, turn = self._try(name, view, schema, waited=turn is not None)
            for held in idle:
                try:
                    held.engine.dispose()
                except Exception:
                    logger.warning("A connection to a tenant's database could not be closed.", exc_info=True)
                finally:
                    self._closed_one()
            if lease is not None:
                return lease
            if turn is not None:
                try:
                    turn.result(self._patience(deadline))
                except TimeoutError:
                    self._left(turn)
                    self._check_time(deadline)
                except BaseException:
                    self._left(turn)
                    raise

    async def acquire_async(self, name: str, view: Callable[[Any], Any], schema: str | None) -> Lease:
        """Do the same for async engines.

        Raises:
            StoreUnavailable: all engines were in use for too long.
        """
        deadline = time.monotonic() + self._timeout
        turn: Future[None] | None = None
        while True:
            lease, idle, turn = self._try(name, view, schema, waited=turn is not None)
            try:
                while idle:
                    held = idle.pop()
                    try:
                        await held.engine.dispose()
                    except Exception:
                        logger.warning("A connection to a tenant's database could not be closed.", exc_info=True)
                    finally:
                        self._closed_one()
                if lease is not None:
                    return lease
                if turn is not None:
                    await wait_for(turn, self._patience(deadline))
            except TimeoutError:
                self._left(turn)
                self._check_time(deadline)
            except BaseException:
                self._left(turn)
                if lease is not None:
                    lease.release()
                for _ in idle:  # their connections go with the garbage
                    self._closed_one()
                raise

    def _try(
        self, name: str, view: Callable[[Any], Any], schema: str | None, *, waited: bool
    ) -> tuple[Lease | None, list[_Held], "Future[None] | None"]:
        """Return a lease, or what is to be closed before the next attempt, or what is to be waited for."""
        with self._lock:
            held = self._engines.get(name)
            if held is None and len(self._engines) + self._closing >= self._max:
                victim = next((one for one in self._engines.values() if one.is_idle()), None)
                if victim is not None:
                    return None, [self._take_out(victim)], None
                turn: Future[None] = Future()
                # Who has waited and found its turn taken is the next one.
                (self._waiting.appendleft if waited else self._waiting.append)((name, turn))
                return None, [], turn
            if held is None:
                held = self._engines[name] = _Held(name, self._make(name, self.pool_size))
                _close_with(held)
                for _, turn in [one for one in self._waiting if one[0] == name]:
                    _wake(turn)
                self._waiting = deque(one for one in self._waiting if one[0] != name)
            self._engines.move_to_end(name)
            engine = held.views.get(schema)
            if engine is None:
                if len(held.views) >= _MOST_VIEWS:
                    held.views.clear()
                engine = held.views[schema] = view(held.engine)
            held.leases += 1
            return Lease(engine, lambda: self._release(held)), self._idle_too_long(), None

    def _release(self, held: _Held) -> None:
        with self._lock:
            held.leases -= 1
            held.idle_since = time.monotonic()
            if held.leases == 0:
                self._next()

    def _next(self) -> None:
        while self._waiting:
            _, turn = self._waiting.popleft()
            if _wake(turn):
                return

    def _left(self, turn: "Future[None] | None") -> None:
        """A caller goes without its turn: whoever is behind it gets it."""
        if turn is None:
            return
        with self._lock:
            self._waiting = deque(one for one in self._waiting if one[1] is not turn)
            if not turn.cancel():
                self._next()

    def _patience(self, deadline: float) -> float:
        """Look again now and then: a connection that outlived its lease comes back without a word."""
        return max(0.0, min(_LOOK_AGAIN, deadline - time.monotonic()))

    def _check_time(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise StoreUnavailable(
                f"All {self._max} engines of tenants' databases were in use for {self._timeout:g} seconds.",
                mend="Raise max_engines, or look for sessions that are not closed.",
            )

    # --- closing ---------------------------------------------------------------------------------------------

    def _take_out(self, held: _Held) -> _Held:
        del self._engines[held.name]
        held.closed = True
        self._closing += 1
        return held

    def _closed_one(self) -> None:
        with self._lock:
            self._closing -= 1
            self._next()

    def _idle_too_long(self) -> list[_Held]:
        now = time.monotonic()
        if now - self._looked < self._idle_seconds / 2:
            return []
        self._looked = now
        return [
            self._take_out(held)
            for held in list(self._engines.values())
            if now - held.idle_since >= self._idle_seconds and held.is_idle()
        ]

    def close(self, name: str | None = None) -> None:
        """Close the engines that are not in use: all, or that of one database."""
        for held in self._to_close(name):
            held.engine.dispose()
            self._closed_one()

    async def aclose(self, name: str | None = None) -> None:
        """Do the same for async engines."""
        for held in self._to_close(name):
            await held.engine.dispose()
            self._closed_one()

    def _to_close(self, name: str | None) -> list[_Held]:
        with self._lock:
            return [
                self._take_out(held)
                for held in list(self._engines.values())
                if name in (None, held.name) and held.is_idle()
            ]

    # --- what is there ---------------------------------------------------------------------------------------

    @property
    def engines(self) -> int:
        """How many engines are open now, those that are being closed included."""
        return len(self._engines) + self._closing

    @property
    def connections(self) -> int:
        """How many connections the open engines have now."""
        with self._lock:
            pools: list[Any] = [held.engine.pool for held in self._engines.values()]
        return sum(pool.checkedin() + pool.checkedout() for pool in pools)

    def __repr__(self) -> str:
        return f"BoundedEngines({len(self._engines)} of {self._max} open)"


def _checked_out(engine: Any) -> int:
    out: int = engine.pool.checkedout()
    return out


def _wake(turn: "Future[None]") -> bool:
    if not turn.set_running_or_notify_cancel():
        return False
    turn.set_result(None)
    return True


def _close_with(held: _Held) -> None:
    """Have an engine open no connection once it was closed."""
    dialect = held.engine.dialect
    original = dialect.connect

    def connect(*args: Any, **kwargs: Any) -> Any:
        if held.closed:
            raise StoreUnavailable(
                "This engine of a tenant's database was closed to make room for others.",
                mend="Get connections from the session, or from Placements, each time.",
            )
        return original(*args, **kwargs)

    dialect.connect = connect
