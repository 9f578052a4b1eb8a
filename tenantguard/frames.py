"""Who opens a block: whether a binding would stay behind in the caller of a generator.

Variables that a generator sets stay set in its caller whenever it yields (the problem of PEP 568). So a block may be
opened in a function, in a coroutine, and in a generator that `contextlib` drives as a context manager, but in no other.
"""

import inspect
from contextlib import AsyncExitStack, ExitStack
from types import FrameType
from typing import Final

from tenantguard.errors import BindingError

__all__ = ["refuse_bare_generators"]

_GENERATOR_FLAGS: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_CONTEXTLIB_FILE: Final = ExitStack.enter_context.__code__.co_filename
_STACK_METHODS: Final = frozenset(
    function.__code__
    for function in (ExitStack.enter_context, AsyncExitStack.enter_async_context, AsyncExitStack.enter_context)
)
_ENTERS: Final = frozenset({"__enter__", "__aenter__"})


def refuse_bare_generators(frame: FrameType | None, block: object) -> None:
    """Raise if the block would be opened by a generator that is not a context manager.

    Variables that a generator sets stay set in its caller whenever it yields (the problem of PEP 568), so the
    caller would go on with the generator's tenant. A generator that `contextlib` drives as a context manager
    means exactly that; then whoever enters that context manager is looked at, and so on. The same holds for a
    block that is opened by the ``__enter__`` of another context manager, or through an exit stack.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_name in _ENTERS or code in _STACK_METHODS:
            frame = frame.f_back
            continue
        if not code.co_flags & _GENERATOR_FLAGS:
            return
        driver = frame.f_back
        if driver is None or driver.f_code.co_filename != _CONTEXTLIB_FILE:
            raise BindingError(
                f"{type(block).__name__}() was entered in the generator {code.co_qualname}, whose caller would inherit "
                "the binding at each yield.",
                mend="Enter it in the function that iterates the generator, or make the generator a context "
                "manager with contextlib.contextmanager or asynccontextmanager.",
            )
        frame = driver.f_back
