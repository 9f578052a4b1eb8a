"""Streaming responses run as whom the request runs as, though they are made after its middleware has returned.

The server asks for part after part, in whatever thread or task it likes, so the identity is bound for the making of
each part and never beyond. A stream of server-sent events ends when its token's time is over or it is revoked, as it
does behind the core's own middleware: a browser then connects again, and is refused.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from time import time
from typing import Any, Self

from django.http import FileResponse

from tenantguard.binding import Binding, enter_binding, leave_binding
from tenantguard.errors import TenantGuardError
from tenantguard.identity import Identity
from tenantguard.lifetimes import Watch
from tenantguard.tokens.revocation import Revocations

__all__ = ["bind_stream"]

logger = logging.getLogger("tenantguard.middleware")


def bind_stream(
    response: Any,
    binding: Binding,
    *,
    revocations: Revocations,
    recheck: Callable[[], Awaitable[None]],
) -> None:
    """Let a response's parts be made as whom its request runs as.

    A response that sends a file is left alone: reading a file needs nobody's right, and the server may read it by
    itself.

    Args:
        response: the response, a ``StreamingHttpResponse``.
        binding: what was bound for the request.
        revocations: looked at by event streams.
        recheck: raises if the token of an open event stream is not good any more.
    """
    if isinstance(response, FileResponse) and response.file_to_stream is not None:
        return
    identity = binding.identity
    ends = identity is not None and response.headers.get("Content-Type", "").lower().startswith("text/event-stream")
    closers = response._resource_closers  # noqa: SLF001 - what Django calls at the end, which may use the database
    parts: Any = response._iterator  # noqa: SLF001 - the public property would encode each part twice
    stream: _Parts | _AsyncParts
    if response.is_async:
        stream = _AsyncParts(parts, binding)
        if ends and identity is not None:
            stream = _EndingAsyncParts(parts, binding, identity, revocations, recheck)
            closers.append(stream.stop_from_thread)
    else:
        stream = _Parts(parts, binding)
        if ends and identity is not None:
            stream = _EndingParts(parts, binding, identity, revocations)
    bound = [partial(_run_bound, binding, closer) for closer in closers]
    response.streaming_content = stream
    response._resource_closers[:] = bound  # noqa: SLF001


def _run_bound(binding: Binding, work: Callable[[], object]) -> None:
    token = enter_binding(binding)
    try:
        work()
    finally:
        leave_binding(token)


class _Parts:
    """Makes each part of a sync stream with the binding."""

    __slots__ = ("_binding", "_parts")

    def __init__(self, parts: Iterable[Any], binding: Binding) -> None:
        self._parts: Iterator[Any] = iter(parts)
        self._binding = binding

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        token = enter_binding(self._binding)
        try:
            return next(self._parts)
        finally:
            leave_binding(token)


class _EndingParts(_Parts):
    """A sync stream of events, which ends between two of them."""

    __slots__ = ("_identity", "_revocations")

    def __init__(self, parts: Iterable[Any], binding: Binding, identity: Identity, revocations: Revocations) -> None:
        super().__init__(parts, binding)
        self._identity = identity
        self._revocations = revocations

    def __next__(self) -> Any:
        expires_at = self._identity.expires_at
        if (expires_at is not None and expires_at <= time()) or self._revocations.revoked(self._identity):
            logger.info("event stream ended: its token is not good any more")
            raise StopIteration
        return super().__next__()


class _AsyncParts:
    """Makes each part of an async stream with the binding."""

    __slots__ = ("_binding", "_parts")

    def __init__(self, parts: AsyncIterable[Any], binding: Binding) -> None:
        self._parts: AsyncIterator[Any] = aiter(parts)
        self._binding = binding

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        token = enter_binding(self._binding)
        try:
            return await anext(self._parts)
        finally:
            leave_binding(token)


class _EndingAsyncParts(_AsyncParts):
    """An async stream of events, which ends also while it waits for the next one.

    The watch is made by who reads it first: below a middleware that is only sync, the stream is bound in a thread
    that has no event loop.
    """

    __slots__ = ("_loop", "_made", "_over", "_task", "_watch")

    def __init__(
        self,
        parts: AsyncIterable[Any],
        binding: Binding,
        identity: Identity,
        revocations: Revocations,
        recheck: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(parts, binding)
        self._made = partial(Watch, identity, revocations, recheck, self._end)
        self._watch: Watch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._over = False

    async def __anext__(self) -> Any:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._watch = self._made()
            self._watch.start()
        if self._is_over():
            raise StopAsyncIteration
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            return await super().__anext__()
        except asyncio.CancelledError:
            if self._is_over() and task.uncancel() == 0:
                raise StopAsyncIteration from None
            self._stop()
            raise
        except BaseException:
            self._stop()
            raise
        finally:
            self._task = None

    def _is_over(self) -> bool:
        return self._over

    async def _end(self, reason: TenantGuardError) -> None:
        self._over = True
        logger.info("event stream ended: %s", reason)
        if self._task is not None:
            self._task.cancel()

    def stop_from_thread(self) -> None:
        """Stop watching. Django closes responses in a thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
