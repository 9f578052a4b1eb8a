"""Blocks that bind: `with`, `async with` and decorator in one, always put back, never left behind in a caller."""

import functools
import inspect
import sys
from collections.abc import Callable
from contextvars import Token
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar, cast

from tenantguard.binding import Binding, enter_binding, leave_binding
from tenantguard.errors import BindingError
from tenantguard.frames import refuse_bare_generators

__all__ = ["Block"]

_F = TypeVar("_F", bound=Callable[..., Any])


class Block:
    """A block with a binding: works as ``with``, ``async with`` and decorator; one block at a time."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token: Token[Binding | None] | None = None

    def _binding(self) -> Binding:
        raise NotImplementedError  # pragma: no cover

    def _again(self) -> "Block":
        raise NotImplementedError  # pragma: no cover

    def _enter(self, caller: FrameType) -> None:
        if self._token is not None:
            raise BindingError(
                f"This {type(self).__name__}() block is already entered.", mend="Make a new one for each block."
            )
        refuse_bare_generators(caller, self)
        self._token = enter_binding(self._binding())

    def __enter__(self) -> Self:
        self._enter(sys._getframe(1))  # noqa: SLF001 - the documented way to see the caller
        return self

    async def __aenter__(self) -> Self:
        # Of a coroutine that is awaited, the frame behind is the one that awaits it.
        self._enter(sys._getframe(1))  # noqa: SLF001 - the documented way to see the caller
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            raise BindingError(f"This {type(self).__name__}() block was never entered or is left twice.")
        try:
            leave_binding(token)
        except ValueError as fault:
            raise BindingError(
                f"{type(self).__name__}() was left in another context than it was entered in.",
                mend="Enter and leave it in the same task or thread.",
            ) from fault

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: _F) -> _F:
        """Decorate a function or coroutine function: each call runs in a block of its own."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise BindingError(
                f"{type(self).__name__}() can't decorate the generator {function.__qualname__}.",
                mend="Bind in the function that iterates it.",
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def bound_async(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return cast(_F, bound_async)

        @functools.wraps(function)
        def bound(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                result = function(*args, **kwargs)
            if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
                # It would run after the block, as whoever is bound then.
                if inspect.iscoroutine(result):
                    result.close()
                raise BindingError(
                    f"{type(self).__name__}() decorates {function!r}, whose result runs only after the block.",
                    mend="Decorate an async function, or bind where the result is awaited or iterated.",
                )
            return result

        return cast(_F, bound)
