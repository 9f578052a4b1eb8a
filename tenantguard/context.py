"""What is bound to the current context: one variable, set in a block, read everywhere.

`bind` sets the identity for a block and always puts the former state back; there is no bare setter. The one
variable holds an immutable `Binding`, so that a reader never sees half of a change. asyncio and trio tasks,
`anyio.to_thread` and Starlette's background tasks copy the context and so inherit the binding; a bare
`threading.Thread` does not, and therefore reaches no row.

`system` is the audited escape hatch. Its block closes for good when it is left: a task that was started
inside and outlives it holds a closed system context, which grants nothing.

contextvars-extras is used here and nowhere else. It is no longer developed, so it stays behind these
functions, with its version pinned.
"""

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from contextvars import Token
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar, cast, final

import msgspec
from contextvars_extras import ContextVarExt

from tenantguard.errors import BindingError, NotBound
from tenantguard.frames import refuse_bare_generators
from tenantguard.identity import Actor, Identity, Tenant

__all__ = [
    "Binding",
    "Credential",
    "SystemContext",
    "bind",
    "current_actor",
    "current_binding",
    "current_credential",
    "current_identity",
    "current_system",
    "current_tenant",
    "system",
]

logger = logging.getLogger("tenantguard.context")

_F = TypeVar("_F", bound=Callable[..., Any])


@final
class Credential:
    """The token that the caller presented, kept for token exchange alone. It never shows itself.

    Args:
        token: the token as presented.
        token_type: its RFC 8693 token type URI.
    """

    __slots__ = ("_token", "token_type")

    def __init__(self, token: str, token_type: str = "urn:ietf:params:oauth:token-type:access_token") -> None:
        self._token = token
        self.token_type = token_type

    def reveal(self) -> str:
        """Return the token. Whoever calls this must not log, store or forward it."""
        return self._token

    def __repr__(self) -> str:
        return "Credential(...)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("A credential can't be pickled: it would leave the process.")


@final
class SystemContext:
    """A named, logged reason to work across tenants. Made by `system`, closed for good when its block ends."""

    __slots__ = ("_closed", "_reason")

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._closed = False

    @property
    def reason(self) -> str:
        """Why the block works across tenants."""
        return self._reason

    @property
    def closed(self) -> bool:
        """True once the block has ended: the context grants nothing any more."""
        return self._closed

    def close(self) -> None:
        """End the right. There is no way back."""
        self._closed = True

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("A system context can't be pickled: its right ends with its block.")

    def __repr__(self) -> str:
        return f"SystemContext(reason={self.reason!r}, closed={self.closed})"


@final
class Binding(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The immutable whole that is bound: an identity with its credential, or a system context."""

    identity: Identity | None
    credential: Credential | None = None
    system: SystemContext | None = None


_BINDING: Final[ContextVarExt[Binding | None]] = ContextVarExt("tenantguard.binding", default=None)
_get: Final[Callable[[], Binding | None]] = _BINDING.get_raw
_set: Final[Callable[[Binding | None], Token[Binding | None]]] = _BINDING.set
_reset: Final[Callable[[Token[Binding | None]], None]] = _BINDING.reset

raw_binding: Final = _get
"""Return what is bound, a closed system context included: for hot paths that then look closer."""
enter_binding: Final = _set
"""Bind without a block: for the middleware alone, which leaves in a ``finally`` of the same coroutine."""
leave_binding: Final = _reset

_HOW_TO_BIND: Final = "Enter `with bind(identity):` first, or let TenantGuardMiddleware do it for requests."


class _Block:
    """A block with a binding: works as ``with``, ``async with`` and decorator; one block at a time."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token: Token[Binding | None] | None = None

    def _binding(self) -> Binding:
        raise NotImplementedError  # pragma: no cover

    def _again(self) -> "_Block":
        raise NotImplementedError  # pragma: no cover

    def _enter(self, caller: FrameType) -> None:
        if self._token is not None:
            raise BindingError(
                f"This {type(self).__name__}() block is already entered.", mend="Make a new one for each block."
            )
        refuse_bare_generators(caller, self)
        self._token = _set(self._binding())

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
            _reset(token)
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


@final
class bind(_Block):  # noqa: N801 - reads as a verb: `with bind(identity):`
    """Bind an identity, and with it its tenant, for a block.

    Works as ``with``, as ``async with`` and as a decorator. The former binding returns when the block ends,
    also through an exception. Inside a generator that is not a context manager it is refused, since the
    generator's caller would inherit the binding.

    Args:
        identity: whom the block runs as. Its tenant may be ``None``: then no owned row can be reached.
        credential: the token behind the identity, needed only for token exchange.

    Raises:
        BindingError: the argument is no `Identity`; the block is entered twice or in a bare generator.
    """

    __slots__ = ("_value",)

    def __init__(self, identity: Identity, credential: Credential | None = None) -> None:
        super().__init__()
        if not isinstance(identity, Identity):
            raise BindingError(
                f"bind() takes an Identity, not {type(identity).__name__}.",
                mend='For scripts: bind(service_identity("invoice-run", tenant="acme")).',
            )
        self._value = Binding(identity, credential)

    def _binding(self) -> Binding:
        return self._value

    def _again(self) -> "bind":
        identity = self._value.identity
        assert identity is not None
        return bind(identity, self._value.credential)


@final
class system(_Block):  # noqa: N801 - reads as a statement: `with system("nightly invoice run"):`
    """Work across tenants for a block, for a reason that is logged.

    Inside, statements are not scoped, and there is no current tenant. `bind` inside scopes to one tenant again.
    The right ends with the block, also for tasks and threads that were started in it.

    Args:
        reason: why, in words that an auditor understands, for example ``"nightly invoice run"``.

    Raises:
        BindingError: the reason is empty; the block is entered twice or in a bare generator.
    """

    __slots__ = ("_context", "_reason")

    def __init__(self, reason: str) -> None:
        super().__init__()
        if not isinstance(reason, str) or not reason.strip():
            raise BindingError(
                "system() needs a reason in words.", mend='For example: with system("nightly invoice run"):'
            )
        self._reason = reason.strip()
        self._context: SystemContext | None = None

    def _binding(self) -> Binding:
        outer = _get()
        self._context = SystemContext(self._reason)
        identity = outer.identity if outer is not None else None
        logger.warning(
            "system context entered: %s",
            self._reason,
            extra={"tenantguard.reason": self._reason, "tenantguard.actor": identity.actor.id if identity else None},
        )
        # The credential stays behind: work across tenants never calls out with one tenant's token.
        return Binding(identity, None, self._context)

    def _again(self) -> "system":
        return system(self._reason)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._context is not None:
            self._context.close()
            logger.info("system context left: %s", self._reason, extra={"tenantguard.reason": self._reason})
        super().__exit__(kind, error, trace)


def current_binding() -> Binding | None:
    """Return what is bound, or ``None``. A closed system context counts as nothing."""
    binding = _get()
    if binding is not None and binding.system is not None and binding.system.closed:
        return None
    return binding


def current_identity() -> Identity:
    """Return the bound identity.

    Raises:
        NotBound: none is bound, or a system context without identity is.
    """
    binding = current_binding()
    if binding is None or binding.identity is None:
        raise NotBound("No identity is bound.", mend=_HOW_TO_BIND)
    return binding.identity


def current_tenant() -> Tenant:
    """Return the bound tenant.

    Raises:
        NotBound: no identity is bound, it has no tenant, or a system context is bound, which has none.
    """
    binding = current_binding()
    if binding is None or binding.identity is None:
        if binding is not None and binding.system is not None:
            raise NotBound("A system context has no tenant.", mend="Bind an identity inside it to work in one tenant.")
        raise NotBound("No tenant is bound.", mend=_HOW_TO_BIND)
    if binding.system is not None:
        raise NotBound("A system context has no tenant.", mend="Bind an identity inside it to work in one tenant.")
    tenant = binding.identity.tenant
    if tenant is None:
        raise NotBound("The bound identity belongs to no tenant.", mend="Use a token that names a tenant.")
    return tenant


def current_actor() -> Actor:
    """Return who acts now: the bound identity's actor.

    Raises:
        NotBound: no identity is bound.
    """
    return current_identity().actor


def current_credential() -> Credential:
    """Return the token behind the bound identity, for token exchange.

    Raises:
        NotBound: no identity is bound, or it was bound without its token.
    """
    binding = current_binding()
    if binding is None or binding.credential is None:
        raise NotBound(
            "No credential is bound.", mend="Only requests that came in with a token can be carried on by exchange."
        )
    return binding.credential


def current_system() -> SystemContext | None:
    """Return the system context that is open now, or ``None``."""
    binding = current_binding()
    return binding.system if binding is not None else None
