"""What a function demands of whoever calls it: OAuth scopes (RFC 6749, section 3.3), read from the bound identity.

`requires` needs no request and no parameter by a certain name, so it works on endpoints of any framework and on plain
functions. A function keeps its kind and its signature. Where nobody is bound it is a 401, where a scope is missing a
403 ``insufficient_scope`` (RFC 6750, section 3.1); the middleware renders both.

A route decorator that stands below `requires` registers the bare function, which then runs unchecked. Such routes
are found at the start, and the app does not come up.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import time
from typing import Any, Final, TypeVar, cast

from tenantguard.binding import current_binding
from tenantguard.errors import ConfigurationError, InsufficientAuthentication, InsufficientScope, MissingCredential
from tenantguard.identity import Identity

__all__ = ["check_authentication", "check_scopes", "refuse_unguarded_routes", "required_scopes", "requires"]

_F = TypeVar("_F", bound=Callable[..., Any])
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_REQUIRES: Final = "__tenantguard_requires__"
_BARE: Final = "__tenantguard_bare__"


def check_scopes(*scopes: str) -> Identity:
    """Return the bound identity if it holds all the scopes.

    Args:
        scopes: the scopes to demand; none demands an identity alone.

    Raises:
        MissingCredential: nobody is bound.
        InsufficientScope: a scope is missing.

    Source: RFC 6750, section 3.1.
    """
    return _check(frozenset(scopes))


def check_authentication(*, acr_values: Iterable[str] = (), max_age: int | None = None) -> Identity:
    """Return the bound identity if its subject logged in strongly and recently enough.

    Args:
        acr_values: the authentication context classes that are enough, the preferred one first; none for any.
        max_age: most seconds since the subject's log-in; ``None`` for any time.

    Raises:
        MissingCredential: nobody is bound.
        InsufficientAuthentication: the log-in was of another class or too long ago, or the token tells neither.

    Source: RFC 9470, sections 3 and 5.
    """
    identity = _check(frozenset())
    wanted = tuple(acr_values)
    strong = not wanted or identity.acr in wanted
    recent = max_age is None or (identity.auth_time is not None and time() - identity.auth_time <= max_age)
    if not strong or not recent:
        raise InsufficientAuthentication(acr_values=wanted, max_age=max_age)
    return identity


def _check(required: frozenset[str]) -> Identity:
    binding = current_binding()
    if binding is None or binding.identity is None:
        raise MissingCredential
    identity = binding.identity
    if not identity.scopes >= required:
        raise InsufficientScope(required=required, missing=required - identity.scopes)
    return identity


def _check_all(required: frozenset[str], acr_values: tuple[str, ...], max_age: int | None) -> None:
    _check(required)
    if acr_values or max_age is not None:
        check_authentication(acr_values=acr_values, max_age=max_age)


def _validate_authentication(acr_values: object, max_age: object) -> tuple[str, ...]:
    """Return the authentication context classes, if the demand can be written into a challenge."""
    values = acr_values if isinstance(acr_values, list | tuple) else (None,)
    if not all(isinstance(one, str) and _SCOPE_TOKEN.fullmatch(one) for one in values):
        raise ConfigurationError(
            "acr_values is no list of authentication context classes.",
            mend='For example acr_values=["urn:example:mfa"].',
        )
    if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0):
        raise ConfigurationError("max_age is no number of seconds.", mend="For example max_age=300.")
    return tuple(values)


def validate_scopes(scopes: Iterable[object]) -> frozenset[str]:
    """Return the scopes as a set, if each can be one.

    Raises:
        ConfigurationError: there is none, or one is empty or has characters that no scope has.

    Source: RFC 6749, section 3.3.
    """
    checked = []
    for scope in scopes:
        if not isinstance(scope, str) or not _SCOPE_TOKEN.fullmatch(scope):
            raise ConfigurationError(
                f"{scope!r} is not a scope: one or more printable ASCII characters without spaces, quotes and "
                "backslashes.",
                mend='Give several scopes one by one: requires("documents:read", "documents:write").',
            )
        checked.append(scope)
    if not checked:
        raise ConfigurationError("No scope is required.", mend='For example requires("documents:read").')
    return frozenset(checked)


def requires(*scopes: str, acr_values: Sequence[str] = (), max_age: int | None = None) -> Callable[[_F], _F]:
    """Let a function run only for an identity that holds all the scopes, and whose log-in is good enough.

    Works on sync and async functions, on callable objects, and on Starlette's ``HTTPEndpoint`` and
    ``WebSocketEndpoint`` classes. Put it next to the function, below the route decorator. What is required can be read
    with `required_scopes`.

    Args:
        scopes: one or more scopes, for example ``"documents:read"``; none only where a log-in is demanded.
        acr_values: see `check_authentication`.
        max_age: see `check_authentication`.

    Raises:
        ConfigurationError: at once, if a scope is not usable, or the function is of a kind that can't be checked
            before it runs (a generator).
        MissingCredential: on a call, if nobody is bound.
        InsufficientScope: on a call, if a scope is missing.
        InsufficientAuthentication: on a call, if the subject must log in again.

    Source: RFC 6749, section 3.3; RFC 6750, section 3.1; RFC 9470, section 3.
    """
    wanted = _validate_authentication(acr_values, max_age)
    steps_up = bool(wanted) or max_age is not None
    required = validate_scopes(scopes) if scopes or not steps_up else frozenset()
    check = (
        functools.partial(_check_all, required, wanted, max_age) if steps_up else functools.partial(_check, required)
    )

    def decorate(function: _F) -> _F:
        if inspect.isclass(function):
            return cast(_F, _guard_class(function, required, check))
        return cast(_F, _guard_function(function, required, check))

    return decorate


def required_scopes(function: object) -> frozenset[str]:
    """Return the scopes that `requires` demands for a function or class; empty if none."""
    found: frozenset[str] = getattr(function, _REQUIRES, frozenset())
    return found


def _guard_function(
    function: Callable[..., Any], required: frozenset[str], check: Callable[[], object]
) -> Callable[..., Any]:
    if isinstance(function, staticmethod | classmethod) or not callable(function):
        raise ConfigurationError(
            f"requires() can't guard a {type(function).__name__}.",
            mend="Put it next to the function, below staticmethod, classmethod and property.",
        )
    target = _innermost(function)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise ConfigurationError(
            f"requires() can't guard the generator {_name(function)}: it would be checked after the response began.",
            mend="Put it on the function that returns the StreamingResponse, or check in a dependency.",
        )
    required |= required_scopes(function)

    if inspect.iscoroutinefunction(target):

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            check()
            return await function(*args, **kwargs)

        guarded: Callable[..., Any] = guarded_async
    else:

        @functools.wraps(function)
        def guarded_sync(*args: Any, **kwargs: Any) -> Any:
            check()
            return function(*args, **kwargs)

        guarded = guarded_sync
    guarded.__dict__.pop(_BARE, None)
    setattr(guarded, _REQUIRES, required)
    if inspect.isfunction(function):
        setattr(function, _BARE, required)
    return guarded


def _guard_class(endpoint: type[Any], required: frozenset[str], check: Callable[[], object]) -> type[Any]:
    dispatch = getattr(endpoint, "dispatch", None)
    if not inspect.iscoroutinefunction(dispatch):
        raise ConfigurationError(
            f"requires() can't guard the class {endpoint.__qualname__}: it has no async method dispatch.",
            mend="Decorate an HTTPEndpoint or WebSocketEndpoint class, or the functions themselves.",
        )
    guarded = _guard_function(dispatch, required, check)
    if "dispatch" not in vars(endpoint):
        # The method is the base class's own, which stays as good unguarded as it was.
        vars_of_base = dispatch.__dict__
        vars_of_base.pop(_BARE, None)
    endpoint.dispatch = guarded
    setattr(endpoint, _REQUIRES, required | getattr(endpoint, _REQUIRES, frozenset()))
    return endpoint


def _innermost(function: Any) -> Any:
    """Return what is called in the end: the function of a partial, the ``__call__`` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the method is wanted, not whether there is one


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


# --- routes that run unchecked -----------------------------------------------------------------------------


def refuse_unguarded_routes(app: object) -> None:
    """Check that no route of a Starlette app runs the bare function of a guarded one.

    Args:
        app: a Starlette or FastAPI app; anything without routes passes.

    Raises:
        ConfigurationError: a route decorator stands below `requires`.
    """
    for path, endpoint in _endpoints(getattr(app, "routes", None) or (), ""):
        bare: frozenset[str] | None = getattr(endpoint, _BARE, None)
        if bare is not None:
            raise ConfigurationError(
                f"The route {path} runs {_name(endpoint)} without its check for {' '.join(sorted(bare))}.",
                mend="Put the route decorator above @requires(...).",
            )


def _endpoints(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, object]]:
    for route in routes:
        path = f"{prefix}{getattr(route, 'path', '')}"
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None:
            yield path, _unwrapped_partial(endpoint)
        yield from _endpoints(getattr(route, "routes", None) or (), path)


def _unwrapped_partial(endpoint: object) -> object:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    return endpoint
