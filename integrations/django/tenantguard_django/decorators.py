"""What a view demands: ``@requires("documents:read")`` on function and class views, sync and async.

The check is the core's. It runs before the view does, and raises what the middleware answers with a challenge
(RFC 6750, section 3.1). What is required can be read from the view, and REST framework's and Ninja's own schemas are
served by `tenantguard_django.rest_framework` and `tenantguard_django.ninja`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.views import View

from tenantguard import scopes as core
from tenantguard.errors import ConfigurationError

__all__ = ["requires"]

_F = TypeVar("_F", bound=Callable[..., Any])


def requires(*scopes: str, acr_values: Sequence[str] = (), max_age: int | None = None) -> Callable[[_F], _F]:
    """Let a view run only for an identity that holds all the scopes, and whose log-in is good enough.

    Works on function views, on class-based views (all methods of the class), on single methods, with
    ``method_decorator``, and on plain functions; sync and async alike.

    Args:
        scopes: one or more scopes, for example ``"documents:read"``; none only where a log-in is demanded.
        acr_values: see `tenantguard.check_authentication`.
        max_age: see `tenantguard.check_authentication`.

    Raises:
        ConfigurationError: at once, if a scope is not usable, or it can't be checked before the function runs.
        MissingCredential: on a call, if nobody is bound.
        InsufficientScope: on a call, if a scope is missing.
        InsufficientAuthentication: on a call, if the subject must log in again.
    """
    guarded_by = core.requires(*scopes, acr_values=acr_values, max_age=max_age)

    def decorate(view: _F) -> _F:
        if inspect.isclass(view):
            return cast(_F, _guard_class(view, guarded_by))
        return _guard_function(view, guarded_by)

    return decorate


def _guard_function(view: _F, guarded_by: Callable[[Any], Any]) -> _F:
    guarded = guarded_by(view)
    if iscoroutinefunction(view) and not iscoroutinefunction(guarded):
        markcoroutinefunction(guarded)  # a view that is async by its mark, as those of View.as_view() are
    return cast(_F, guarded)


def _guard_class(view: type[Any], guarded_by: Callable[[Any], Any]) -> type[Any]:
    if not issubclass(view, View):
        raise ConfigurationError(
            f"requires() can't guard the class {view.__qualname__}: it is no class-based view.",
            mend="Decorate the view functions, or a subclass of django.views.View.",
        )
    inherited = view.dispatch

    @functools.wraps(inherited)
    def dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:
        return inherited(self, *args, **kwargs)

    guarded: Any = guarded_by(dispatch)
    view.dispatch = guarded  # type: ignore[method-assign]
    return view
