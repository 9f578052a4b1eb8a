"""Revocations that reach every worker: published to those that listen, kept for those that start later.

Publishing alone would lose what is sent while a worker is starting or its connection is broken. So each revocation is
also kept in a sorted set until it ends, and a worker subscribes first and then reads the set: what comes in between is
seen twice, and that does no harm. A thread of its own listens, so it serves every event loop and sync apps as well, and
a heartbeat tells a broken connection from a quiet one. Workers put back what they know and Redis lost.
"""

import logging
import threading
from collections.abc import Callable
from time import monotonic, time
from typing import Any, Final, final

import msgspec
import redis

from tenantguard.errors import ConfigurationError, StoreUnavailable
from tenantguard.tokens import Revocation
from tenantguard_redis.connections import RedisConnections

__all__ = ["RedisRevocations"]

logger = logging.getLogger("tenantguard.redis")

HEARTBEAT_SECONDS: Final = 0.25
SILENCE_SECONDS: Final = 0.75
"""Without an answer for so long, contact counts as lost."""
RETRY_SECONDS: Final = 0.1
_FAULTS: Final = (redis.RedisError, OSError)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Revocation).decode


@final
class RedisRevocations:
    """A feed of revocations for `Revocations`: ``Revocations(feed=RedisRevocations("redis://..."))``. Thread-safe.

    Args:
        url: for example ``"redis://redis.internal:6379/0"``; ``rediss://`` for TLS, ``unix://`` for a socket.
        name: the key of the sorted set, and the channel. Workers of one app share it; apps that trust the same
            issuers may.
        timeout: seconds after which a command has failed.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = ("_client", "_connected", "_known", "_name", "_receive", "_stopped")

    def __init__(self, url: str, *, name: str = "tenantguard:revocations", timeout: float = 1.0) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("RedisRevocations needs a name.", mend='For example "tenantguard:revocations".')
        self._client: Any = RedisConnections(url, timeout=timeout).new_sync_client()
        self._name = name
        self._known: dict[bytes, float] = {}
        self._stopped = threading.Event()
        self._receive: Callable[[Revocation], None] = lambda _: None
        self._connected: Callable[[bool], None] = lambda _: None

    def publish(self, revocation: Revocation, *, until: float) -> None:
        """Keep a revocation, and send it to all workers that listen, in one transaction. Blocks for a round trip.

        Raises:
            StoreUnavailable: Redis can't be reached, did not answer in time, or refused.
        """
        payload = _encode(revocation)
        try:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.zadd(self._name, {payload: until})
                pipe.zremrangebyscore(self._name, "-inf", time())
                pipe.publish(self._name, msgspec.json.encode({"until": until, "revocation": payload.decode()}))
                pipe.execute()
        except _FAULTS as fault:
            raise StoreUnavailable(
                f"Redis could not take a revocation ({type(fault).__name__}).",
                mend="Revoke again once it can be reached: it holds in this process only.",
            ) from None

    def start(self, receive: Callable[[Revocation], None], connected: Callable[[bool], None]) -> None:
        """Begin to listen in a daemon thread. See `RevocationFeed`."""
        self._receive, self._connected = receive, connected
        self._stopped.clear()
        threading.Thread(target=self._listen, name="tenantguard-revocations", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._stopped.set()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow()
            except _FAULTS as fault:
                logger.warning("Contact with the feed of revocations is lost (%s).", type(fault).__name__)
            self._connected(False)
            self._stopped.wait(RETRY_SECONDS)
        self._client.close()

    def _follow(self) -> None:
        """Receive revocations until contact is lost or `close` is called."""
        with self._client.pubsub() as channel:
            channel.subscribe(self._name)
            self._await_subscription(channel)
            self._catch_up()
            self._connected(True)
            heard = asked = monotonic()
            while not self._stopped.is_set():
                message = channel.get_message(timeout=HEARTBEAT_SECONDS)
                now = monotonic()
                if message is not None:
                    heard = now
                    if message["type"] == "message":
                        self._take_message(message["data"])
                elif now - heard > SILENCE_SECONDS:
                    raise redis.TimeoutError
                if now - asked >= HEARTBEAT_SECONDS:
                    channel.ping()
                    asked = now

    def _await_subscription(self, channel: Any) -> None:
        deadline = monotonic() + SILENCE_SECONDS
        while monotonic() < deadline:
            message = channel.get_message(timeout=HEARTBEAT_SECONDS)
            if message is not None and message["type"] == "subscribe":
                return
        raise redis.TimeoutError

    def _catch_up(self) -> None:
        """Take what was kept, and put back what this worker knows and Redis does not, say after it restarted."""
        now = time()
        kept = dict(self._client.zrangebyscore(self._name, now, "+inf", withscores=True))
        for payload, until in kept.items():
            self._take(payload, until)
        self._known = {payload: until for payload, until in self._known.items() if until > now}
        lost = {payload: until for payload, until in self._known.items() if payload not in kept}
        if lost:
            logger.warning("The store of revocations lost %d, which are put back.", len(lost))
            self._client.zadd(self._name, lost)

    def _take_message(self, data: bytes) -> None:
        try:
            message = msgspec.json.decode(data, type=_Message)
        except (msgspec.DecodeError, ValueError):
            logger.error("The feed of revocations carried something else than a revocation.")
            return
        self._take(message.revocation.encode(), message.until)

    def _take(self, payload: bytes, until: float) -> None:
        try:
            revocation = _decode(payload)
        except (msgspec.DecodeError, ValueError):
            logger.error("The store of revocations holds something else than a revocation.")
            return
        self._known[payload] = until
        self._receive(revocation)

    def __repr__(self) -> str:
        return f"RedisRevocations(name={self._name!r})"


class _Message(msgspec.Struct):
    until: float
    revocation: str
