"""The end of connections that outlive their token: WebSockets and event streams.

A token is looked at when a request begins. A connection that stays open for hours would go on after its token expired
or was revoked, so a small task watches it from beside and ends it with the protocol's own means. The task belongs to
the event loop and not to the app's own task, because an ASGI app may be waiting anywhere when the time comes.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from time import time
from typing import Any, Final, TypeAlias, cast, final

import anyio
import sniffio
from anyio.lowlevel import current_token
from starlette.types import Message, Receive, Send

from tenantguard.errors import ExpiredToken, RevokedToken, TenantGuardError, Unavailable
from tenantguard.identity import Identity
from tenantguard.tokens.revocation import Revocations

__all__ = ["ConnectionEnded", "EventStream", "Watch", "WatchedSocket"]

logger = logging.getLogger("tenantguard.middleware")

RECHECK_SECONDS: Final = 30.0
"""Seconds after which a token is looked at as if it had just come: an opaque token or an API key may have been revoked
where it was issued, a tenant suspended, and the clock set."""
POLICY_VIOLATION: Final = 1008
"""RFC 6455, section 7.4.1."""


class ConnectionEnded(OSError):
    """Raised to an app that sends on a connection that was ended, as ASGI has it for lost connections."""


Recheck: TypeAlias = Callable[[], Awaitable[None]]

_tasks: Final[set[asyncio.Task[None]]] = set()


@final
class Watch:
    """Waits until an identity's time is over, and then calls ``end`` once, in the event loop that started it.

    Args:
        identity: whose time.
        revocations: looked at after each change.
        recheck: raises if the token or its tenant is not good any more.
        end: ends the connection; told why.
    """

    __slots__ = ("_end", "_event", "_identity", "_recheck", "_revocations", "_scope", "_unwatch")

    def __init__(
        self,
        identity: Identity,
        revocations: Revocations,
        recheck: Recheck,
        end: Callable[[TenantGuardError], Awaitable[None]],
    ) -> None:
        self._identity = identity
        self._revocations = revocations
        self._recheck = recheck
        self._end = end
        self._event = anyio.Event()
        self._scope = anyio.CancelScope()
        self._unwatch: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to watch."""
        native = cast(Any, current_token().native_token)
        call_soon: Callable[..., Any] = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                call_soon(self._wake)

        self._unwatch = self._revocations.watch(wake)
        if sniffio.current_async_library() == "trio":
            import trio

            trio.lowlevel.spawn_system_task(self._run, name="tenantguard-watch")
        else:
            task = asyncio.get_running_loop().create_task(self._run(), name="tenantguard-watch")
            _tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(_tasks.discard)

    def stop(self) -> None:
        """Stop watching: the connection has ended by itself."""
        self._unwatch()
        self._scope.cancel()

    def _wake(self) -> None:
        self._event.set()

    async def _run(self) -> None:
        with self._scope:
            reason = await self._wait()
            self._unwatch()
            try:
                await self._end(reason)
            except Exception:
                logger.debug("A connection was gone before it could be ended.", exc_info=True)

    async def _wait(self) -> TenantGuardError:
        """Return why the time is over, once it is."""
        while True:
            self._event = anyio.Event()
            if self._revocations.revoked(self._identity):
                return RevokedToken()
            expires_at = self._identity.expires_at
            left = RECHECK_SECONDS if expires_at is None else expires_at - time()
            if left <= 0:
                return ExpiredToken()
            with anyio.move_on_after(min(left, RECHECK_SECONDS)):
                await self._event.wait()
            if self._event.is_set() or (expires_at is not None and left <= RECHECK_SECONDS):
                continue
            try:
                await self._recheck()
            except TenantGuardError as error:
                return error
            except Exception:
                logger.exception("Looking at the token of an open connection failed.")
                return Unavailable("The token of an open connection can't be looked at.")


@final
class EventStream:
    """A response of server-sent events that ends when its identity's time is over.

    The stream ends as a complete response does; a browser's EventSource then connects again, and is refused.

    Args:
        identity: whose stream.
        revocations: see `Watch`.
        recheck: see `Watch`.
        send: the server's ``send``.
    """

    __slots__ = ("_send", "_watch", "ended")

    def __init__(self, identity: Identity, revocations: Revocations, recheck: Recheck, send: Send) -> None:
        self._send = send
        self.ended = False
        self._watch = Watch(identity, revocations, recheck, self._end)

    async def start(self, message: Message) -> None:
        """Pass on the start of the response, and begin to watch."""
        await self._send(message)
        self._watch.start()

    async def send(self, message: Message) -> None:
        """Pass on what the app sends, until the end.

        Raises:
            ConnectionEnded: it has ended.
        """
        if self.ended:
            raise ConnectionEnded("The event stream was ended, since its token is not good any more.")
        await self._send(message)

    async def _end(self, reason: TenantGuardError) -> None:
        self.ended = True
        logger.info("event stream ended: %s", reason)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def stop(self) -> None:
        """Stop watching."""
        self._watch.stop()


@final
class WatchedSocket:
    """A WebSocket that closes with code 1008 when its identity's time is over.

    Args:
        revocations: see `Watch`.
        receive: the server's ``receive``.
        send: the server's ``send``.
    """

    __slots__ = ("_receive", "_revocations", "_send", "_watch", "accepted", "closed", "ended")

    def __init__(self, revocations: Revocations, receive: Receive, send: Send) -> None:
        self._revocations = revocations
        self._receive = receive
        self._send = send
        self.accepted = False
        self.closed = False
        self.ended = False
        self._watch: Watch | None = None

    def watch(self, identity: Identity, recheck: Recheck) -> None:
        """Say whose connection it is. Its time is watched from when the connection is accepted."""
        self._watch = Watch(identity, self._revocations, recheck, self._end)

    async def send(self, message: Message) -> None:
        """Pass on what the app sends, until the end.

        Raises:
            ConnectionEnded: it has ended.
        """
        if self.ended:
            raise ConnectionEnded("The WebSocket was closed, since its token is not good any more.")
        kind = message["type"]
        if kind in ("websocket.close", "websocket.http.response.start"):
            self.closed = True
        await self._send(message)
        if kind == "websocket.accept" and not self.accepted:
            self.accepted = True
            if self._watch is not None:
                self._watch.start()

    async def receive(self) -> Message:
        """Pass on what the client sends, until the end; then that it is gone."""
        message: Message = {} if self.ended else await self._receive()
        if self.ended:
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": ""}
        return message

    async def _end(self, reason: TenantGuardError) -> None:
        if self.closed:
            return
        self.ended = self.closed = True
        logger.info("WebSocket closed: %s", reason)
        await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason.title})

    def stop(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.stop()
