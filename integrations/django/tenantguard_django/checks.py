"""What ``manage.py check`` says of a project: each message has an id, and a hint that mends it.

``tenantguard.E0xx`` are of settings, middleware and URLs. The models have checks of their own.
"""

import functools
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver

from tenantguard_django.conf import read_once

__all__ = ["TAG", "check_databases", "check_middleware", "check_models", "check_settings", "check_urls"]

TAG: Final = "tenantguard"
MIDDLEWARE: Final = "tenantguard_django.middleware.TenantGuardMiddleware"
_BARE: Final = "__tenantguard_bare__"

_SESSION: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_AUTH: Final = "django.contrib.auth.middleware.AuthenticationMiddleware"
_SERVERS_USER: Final = "it would put a server's user in the place of the token's"
_BEFORE: Final = {
    _SESSION: "it makes the session that SESSIONS reads",
    _AUTH: "it would put the session's user in the place of the token's",
    "django.contrib.auth.middleware.RemoteUserMiddleware": _SERVERS_USER,
    "django.contrib.auth.middleware.PersistentRemoteUserMiddleware": _SERVERS_USER,
    "corsheaders.middleware.CorsMiddleware": "preflight requests carry no token",
}
"""Middleware that must stand before ours, and why."""
_AFTER: Final = {
    "django.middleware.cache.FetchFromCacheMiddleware": "it would answer from the cache before the token is looked at",
    "django.middleware.cache.CacheMiddleware": "it would answer from the cache before the token is looked at",
    "django.contrib.auth.middleware.LoginRequiredMiddleware": "it would not know the token's user",
}
"""Middleware that must stand after ours, and why."""


def check_settings(app_configs: Any, **options: Any) -> list[CheckMessage]:  # noqa: ARG001 - the signature of checks
    """Say what is wrong with the setting ``TENANTGUARD``."""
    _, faults = read_once()
    return [Error(fault.message, hint=fault.hint, id=fault.id) for fault in faults]


def check_middleware(app_configs: Any, **options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Say whether the middleware is there, once, and in its place."""
    installed = [one for one in settings.MIDDLEWARE if isinstance(one, str)]
    count = installed.count(MIDDLEWARE)
    if count == 0:
        near = get_close_matches(MIDDLEWARE, installed, n=1, cutoff=0.8)
        instead = f" in the place of {near[0]!r}" if near else ", after AuthenticationMiddleware"
        return [
            Error(
                "The middleware of tenantguard is not in MIDDLEWARE, so no request has an identity.",
                hint=f"Put {MIDDLEWARE!r} there{instead}.",
                id="tenantguard.E010",
            )
        ]
    if count > 1:
        return [
            Error("The middleware of tenantguard is twice in MIDDLEWARE.", hint="Leave one.", id="tenantguard.E011")
        ]
    own = installed.index(MIDDLEWARE)
    messages: list[CheckMessage] = []
    for place, name in enumerate(installed):
        if place > own and (why := _why_before(name)) is not None:
            messages.append(_misplaced(name, "before", why, "E012"))
        if place < own and name in _AFTER:
            messages.append(_misplaced(name, "after", _AFTER[name], "E013"))
    found, _ = read_once()
    if found is not None and found.sessions is not None:
        messages += [
            Error(
                f"SESSIONS is set, and {needed.rpartition('.')[2]} does not stand before tenantguard's middleware.",
                hint=f"Put {needed!r} before {MIDDLEWARE!r}.",
                id="tenantguard.E014",
            )
            for needed in (_SESSION, _AUTH)
            if not any(needed == name or _subclass(name, needed) for name in installed[:own])
        ]
        if "django.middleware.csrf.CsrfViewMiddleware" not in installed:
            messages.append(
                Warning(
                    "SESSIONS is set, and CsrfViewMiddleware is not in MIDDLEWARE: another site could act as a user "
                    "who is logged in.",
                    hint="Put 'django.middleware.csrf.CsrfViewMiddleware' into MIDDLEWARE.",
                    id="tenantguard.W015",
                )
            )
    return messages


def _why_before(name: str) -> str | None:
    """Return why a middleware, or the one that it inherits from, must stand before ours."""
    if name in _BEFORE:
        return _BEFORE[name]
    return next((why for known, why in _BEFORE.items() if known.startswith("django.") and _subclass(name, known)), None)


def _misplaced(name: str, where: str, why: str, number: str) -> Error:
    return Error(
        f"{name.rpartition('.')[2]} must stand {where} tenantguard's middleware: {why}.",
        hint=f"In MIDDLEWARE, put {name!r} {where} {MIDDLEWARE!r}.",
        id=f"tenantguard.{number}",
    )


def _subclass(name: str, base: str) -> bool:
    from django.utils.module_loading import import_string

    try:
        return issubclass(import_string(name), import_string(base))
    except (ImportError, TypeError, ImproperlyConfigured):
        return False


# --- the barrier ----------------------------------------------------------------------------------------------


def check_databases(app_configs: Any, **options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Say which databases the barrier does not stand before."""
    from django.db import connections

    from tenantguard_django.orm import is_protected

    return [
        Warning(
            f"The database {alias!r} is not protected: its statements are not scoped.",
            hint="Leave TENANTGUARD['DATABASES'] out to protect all of them.",
            id="tenantguard.W018",
        )
        for alias in connections
        if not is_protected(alias)
    ]


def check_models(app_configs: Any, **options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Say which models are classified in no way, or in one that can't serve."""
    from tenantguard_django.orm import check_models as problems

    made = {"E": Error, "W": Warning}
    found = [
        made.get(one.id.partition(".")[2][:1], Error)(one.message, hint=one.hint, obj=one.model, id=one.id)
        for one in problems()
    ]
    return [*found, *_models_that_are_not_there()]


def _models_that_are_not_there() -> Iterator[CheckMessage]:
    """Look at the names in the setting ``MODELS``. Those of apps that are not installed may stay."""
    configured = getattr(settings, "TENANTGUARD", None)
    named = configured.get("MODELS") if isinstance(configured, dict) else None
    for name in named if isinstance(named, dict) else ():
        label, _, model = name.partition(".") if isinstance(name, str) else ("", "", "")
        app = apps.app_configs.get(label)
        there = [] if app is None else [one.__name__ for one in app.get_models(include_swapped=True)]
        if app is None or model.lower() in {one.lower() for one in there}:
            continue
        near = get_close_matches(model, there, n=1)
        hint = f"Did you mean '{label}.{near[0]}'?" if near else "Remove it, or correct the name."
        yield Warning(
            f"TENANTGUARD['MODELS'] names {name!r}, which is no installed model.", hint=hint, id="tenantguard.W104"
        )


# --- URLs ------------------------------------------------------------------------------------------------------


def check_urls(app_configs: Any, **options: Any) -> list[CheckMessage]:  # noqa: ARG001
    """Say which URLs run the bare function of a view that demands scopes."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    return [
        Error(
            f"The URL {path} runs {getattr(view, '__qualname__', view)} without its check for "
            f"{' '.join(sorted(bare))}.",
            hint="Put the decorator that registers the view above @requires(...).",
            id="tenantguard.E020",
        )
        for path, view in _views(get_resolver().url_patterns, "/")
        if (bare := getattr(view, _BARE, None)) is not None
    ]


def _views(patterns: Iterable[Any], prefix: str) -> Iterator[tuple[str, object]]:
    for pattern in patterns:
        path = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield from ((path, view) for view in _functions(pattern.callback))


def _functions(callback: Any) -> Iterator[object]:
    """Return what a URL's callback runs: itself, and the operations of Ninja that stand behind it."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    yield callback
    path_view = getattr(callback, "__self__", None) or _enclosed(callback)
    for operation in getattr(path_view, "operations", ()):
        yield getattr(operation, "view_func", None)


def _enclosed(callback: Any) -> object:
    """Return the object with operations that a function of Ninja's encloses."""
    for cell in getattr(callback, "__closure__", None) or ():
        try:
            found = cell.cell_contents
        except ValueError:
            continue
        if hasattr(found, "operations"):
            return found
    return None
