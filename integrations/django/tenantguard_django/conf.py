"""The settings dict ``TENANTGUARD``, and the guard that it stands for.

Everything that `tenantguard.TenantGuard` takes has a key here, in capitals. A value may be the object itself, or the
dotted path of it or of a function that makes it, as elsewhere in Django's settings. ``manage.py check`` finds whatever
is wrong, all of it in one run; and an app with a mistake in it does not serve.
"""

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from tenantguard.errors import ConfigurationError
from tenantguard.guard import TenantGuard
from tenantguard.identity import Identity
from tenantguard.jobs import Jobs
from tenantguard.paths import PublicPaths
from tenantguard.tokens import Issuer, presets

__all__ = ["KNOWN_KEYS", "Fault", "SessionSettings", "Settings", "UserSettings", "get_guard", "get_settings", "read"]

SETTING: Final = "TENANTGUARD"
DOCUMENTED: Final = "The keys are listed in docs/django.md."

_ONE: Final = ("REVOCATIONS", "VERIFIER", "DIRECTORY", "RESOURCE", "DPOP", "CERTIFICATES", "EXCHANGE")
_SEVERAL: Final = ("CREDENTIALS", "TENANT_FROM")
_PLAIN: Final = ("PUBLIC", "TENANTLESS", "IDENTITY_HEADERS", "REALM")
_GUARD_KEYS: Final = frozenset({"ISSUERS", *_ONE, *_SEVERAL, *_PLAIN})

KNOWN_KEYS: Final = frozenset({*_GUARD_KEYS, "GUARD", "USERS", "SESSIONS", "JOBS", "MODELS", "DATABASES"})
"""All keys of the settings dict. The last two are of the barrier in the ORM."""

_USER_KEYS: Final = frozenset({"CREATE", "USERNAME", "STAFF"})
_SESSION_KEYS: Final = frozenset({"PATHS", "TENANTS", "SCOPES"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the settings.

    Args:
        id: of the check's message, for example ``"tenantguard.E002"``.
        message: what is wrong.
        hint: how to mend it.
    """

    id: str
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class UserSettings:
    """How the subject of a token becomes a user of ``django.contrib.auth``.

    Args:
        create: True makes a user for a subject that has none.
        username: gives the user's name for an identity; ``None`` for the subject's id.
        staff: True lets a token stand for a user that is staff or a superuser.
    """

    create: bool = False
    username: Callable[[Identity], str | None] | None = None
    staff: bool = False


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Where a login session of Django counts as a credential, and for which tenants.

    Args:
        paths: the paths; everywhere else a token is needed.
        tenants: gives the ids of the tenants that a user may work in.
        scopes: gives the scopes that a user has in a tenant; ``None`` gives none.
    """

    paths: Callable[[Mapping[str, Any]], bool]
    patterns: tuple[str, ...]
    tenants: Callable[[Any], Iterable[str]]
    scopes: Callable[[Any, str], Iterable[str]] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings dict says, with everything imported and made.

    Args:
        guard: the guard.
        users: see `UserSettings`; ``None`` where tokens are not mapped to users.
        sessions: see `SessionSettings`; ``None`` where sessions are no credential.
        jobs: what Django's tasks are sealed with; ``None`` where they are not used.
    """

    guard: TenantGuard
    users: UserSettings | None = None
    sessions: SessionSettings | None = None
    jobs: Jobs | None = None


class _Reader:
    """Reads a settings dict, and gathers what is wrong with it instead of stopping at the first fault."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, number: str, message: str, hint: str | None = None) -> None:
        self.faults.append(Fault(f"tenantguard.{number}", message, hint))

    def unknown(self, keys: Iterable[object], known: Iterable[str], where: str) -> None:
        names = sorted(known)
        for key in keys:
            if key in names:
                continue
            near = get_close_matches(str(key).upper(), names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It may have: {', '.join(names)}."
            self.fault("E002", f"{where} has the unknown key {key!r}.", hint)

    def made(self, value: object, where: str) -> Any:
        """Return what a value or its dotted path stands for: itself, or what it makes, if it is a function."""
        found = self.imported(value, where) if isinstance(value, str) else value
        if inspect.isfunction(found) or inspect.isclass(found):
            try:
                return found()
            except (ConfigurationError, TypeError) as error:
                self.wrong(where, error)
                return None
        return found

    def imported(self, path: str, where: str) -> Any:
        try:
            return import_string(path)
        except ImportError as error:
            self.fault(
                "E005", f"{where} names {path!r}, which can't be imported: {error}", "Write package.module.name."
            )
            return None

    def function(self, value: object, where: str, example: str) -> Callable[..., Any] | None:
        if isinstance(value, str):
            value = self.imported(value, where)
            if value is None:
                return None
        if not callable(value):
            self.fault("E004", f"{where} is no function.", f"For example {example}.")
            return None
        return value

    # --- parts -----------------------------------------------------------------------------------------------

    def issuers(self, value: object) -> list[Issuer]:
        where = f"{SETTING}['ISSUERS']"
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            self.fault("E004", f"{where} is no list.", 'For example [{"URL": "https://…", "AUDIENCE": "https://…"}].')
            return []
        found = (self.issuer(one, f"{where}[{number}]") for number, one in enumerate(value))
        return [one for one in found if one is not None]

    def issuer(self, value: object, where: str) -> Issuer | None:
        if isinstance(value, str):
            value = self.made(value, where)
            if value is None:
                return None
        if isinstance(value, Issuer):
            return value
        if not isinstance(value, Mapping):
            self.fault("E004", f"{where} is a {type(value).__name__}.", "Give a dict, or an Issuer.")
            return None
        known = {name.upper() for name in inspect.signature(Issuer).parameters}
        before = len(self.faults)
        self.unknown(value, known, where)
        for needed in ("URL", "AUDIENCE"):
            if needed not in value:
                self.fault("E003", f"{where} has no {needed!r}.", "An issuer needs a URL and an audience.")
        arguments = {str(key).lower(): each for key, each in value.items()}
        if isinstance(arguments.get("claims"), str):
            arguments["claims"] = self.claims(arguments["claims"], where)
        if len(self.faults) > before:
            return None
        try:
            return Issuer(arguments.pop("url"), **arguments)
        except (ConfigurationError, TypeError) as error:
            self.wrong(where, error)
            return None

    def claims(self, name: str, where: str) -> object:
        if name in presets.__all__:
            return getattr(presets, name)()
        if "." in name:
            return self.imported(name, f"{where}['CLAIMS']")
        near = get_close_matches(name, presets.__all__, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Presets: {', '.join(presets.__all__)}. Or a dotted path."
        self.fault("E004", f"{where}['CLAIMS'] is {name!r}, which is no preset.", hint)
        return None

    def wrong(self, where: str, error: Exception) -> None:
        message = getattr(error, "message", None) or str(error)
        self.fault("E004", f"{where}: {message}", getattr(error, "mend", None))

    def guard(self, raw: Mapping[str, Any]) -> TenantGuard | None:
        given = sorted(_GUARD_KEYS & raw.keys())
        if "GUARD" in raw:
            if given:
                self.fault("E004", f"{SETTING} has GUARD, and {', '.join(given)} as well.", "Give them to the guard.")
                return None
            guard = self.made(raw["GUARD"], f"{SETTING}['GUARD']")
            if guard is not None and not isinstance(guard, TenantGuard):
                self.fault("E004", f"{SETTING}['GUARD'] is a {type(guard).__name__}.", "Give a TenantGuard.")
                return None
            return guard
        if not raw.keys() & {"ISSUERS", "CREDENTIALS", "VERIFIER"}:
            self.fault(
                "E003",
                f"{SETTING} names nobody whose tokens are trusted.",
                'Give ISSUERS: [{"URL": "https://login.example.com/", "AUDIENCE": "https://api.example.com"}].',
            )
            return None
        before = len(self.faults)
        arguments: dict[str, Any] = {}
        for key in given:
            where, value = f"{SETTING}[{key!r}]", raw[key]
            if key == "ISSUERS":
                arguments["issuers"] = self.issuers(value)
            elif key in _ONE:
                arguments[key.lower()] = self.made(value, where)
            elif key in _SEVERAL:
                if isinstance(value, str) or not isinstance(value, Iterable):
                    self.fault("E004", f"{where} is no list.", "Give a list of objects or of their dotted paths.")
                    continue
                arguments[key.lower()] = [self.made(one, f"{where}[{number}]") for number, one in enumerate(value)]
            else:
                arguments[key.lower()] = value
        if len(self.faults) > before:
            return None
        try:
            return TenantGuard(**arguments)
        except (ConfigurationError, TypeError) as error:
            self.wrong(SETTING, error)
            return None

    def databases(self, value: object) -> None:
        where = f"{SETTING}['DATABASES']"
        if isinstance(value, str) or not isinstance(value, Iterable):
            self.fault("E017", f"{where} is a {type(value).__name__}, not a list of aliases.", 'Give ["default"].')
            return
        for alias in value:
            if alias not in list(settings.DATABASES):
                there = ", ".join(settings.DATABASES)
                self.fault("E017", f"{where} names {alias!r}, which is not in DATABASES.", f"There are: {there}.")

    def models(self, value: object) -> None:
        where, example = f"{SETTING}['MODELS']", 'For example {"taggit.Tag": shared("words")}.'
        if not isinstance(value, Mapping):
            self.fault("E004", f"{where} is a {type(value).__name__}, not a dict.", example)
            return
        for name in value:
            if not isinstance(name, str) or name.count(".") != 1:
                self.fault("E004", f"{where} has the key {name!r}, which is no app_label.Model.", example)

    def jobs(self, value: object) -> Jobs | None:
        where = f"{SETTING}['JOBS']"
        made = self.made(value, where)
        if made is not None and not isinstance(made, Jobs):
            self.fault("E004", f"{where} is a {type(made).__name__}.", "Give a tenantguard.jobs.Jobs.")
            return None
        return made

    def users(self, value: object, guard: TenantGuard | None) -> UserSettings | None:
        where = f"{SETTING}['USERS']"
        if not isinstance(value, Mapping):
            self.fault("E006", f"{where} is a {type(value).__name__}.", 'For example {"CREATE": True}.')
            return None
        self.unknown(value, _USER_KEYS, where)
        for key in ("CREATE", "STAFF"):
            if not isinstance(value.get(key, False), bool):
                self.fault("E006", f"{where}[{key!r}] is neither True nor False.")
        username = None
        if "USERNAME" in value:
            username = self.function(value["USERNAME"], f"{where}['USERNAME']", '"accounts.names.username_of"')
        elif guard is not None and (len(getattr(guard.verifier, "issuers", ())) != 1):
            self.fault(
                "E006",
                f"{where} takes the subject's id as the user's name, which is unique with one issuer alone.",
                "Name a function of the identity that gives unique names: 'USERNAME': 'accounts.names.username_of'.",
            )
        return UserSettings(
            create=bool(value.get("CREATE", False)), username=username, staff=bool(value.get("STAFF", False))
        )

    def sessions(self, value: object) -> SessionSettings | None:
        where = f"{SETTING}['SESSIONS']"
        if not isinstance(value, Mapping):
            self.fault("E007", f"{where} is a {type(value).__name__}.", 'For example {"PATHS": ["/admin/*"], …}.')
            return None
        self.unknown(value, _SESSION_KEYS, where)
        for key in ("PATHS", "TENANTS"):
            if key not in value:
                self.fault("E007", f"{where} has no {key!r}.", "It needs the paths, and a function of the user.")
        example = '"accounts.tenants.tenants_of"'
        tenants = self.function(value["TENANTS"], f"{where}['TENANTS']", example) if "TENANTS" in value else None
        scopes = self.function(value["SCOPES"], f"{where}['SCOPES']", example) if "SCOPES" in value else None
        patterns = value.get("PATHS", ())
        if isinstance(patterns, str) or not isinstance(patterns, Iterable):
            self.fault("E007", f"{where}['PATHS'] is no list.", 'For example ["/admin/*"], or ["/*"] for all.')
            return None
        patterns = tuple(patterns)
        try:
            paths = _everywhere if patterns == ("/*",) else PublicPaths(patterns).cover
        except ConfigurationError as error:
            message = error.message.replace("public path", "path")
            self.fault("E007", f"{where}['PATHS']: {message}", 'For example ["/admin/*"], or ["/*"] for all.')
            return None
        if tenants is None:
            return None
        return SessionSettings(paths, patterns, tenants, scopes)


def _everywhere(scope: Mapping[str, Any]) -> bool:  # noqa: ARG001 - the same for all
    return True


def read(raw: object) -> tuple[Settings | None, list[Fault]]:
    """Return what a settings dict stands for, and all that is wrong with it.

    Args:
        raw: the value of the setting ``TENANTGUARD``; ``None`` where there is none.
    """
    reader = _Reader()
    if not isinstance(raw, Mapping):
        what = "is missing" if raw is None else f"is a {type(raw).__name__}, not a dict"
        hint = f'{SETTING} = {{"ISSUERS": [{{"URL": "https://login.example.com/", "AUDIENCE": "https://api.example.com"}}]}}'
        reader.fault("E001", f"The setting {SETTING} {what}.", hint)
        return None, reader.faults
    reader.unknown(raw, KNOWN_KEYS, SETTING)
    guard = reader.guard(raw)
    users = reader.users(raw["USERS"], guard) if raw.get("USERS") is not None else None
    sessions = reader.sessions(raw["SESSIONS"]) if raw.get("SESSIONS") is not None else None
    jobs = reader.jobs(raw["JOBS"]) if raw.get("JOBS") is not None else None
    for key, examine in (("DATABASES", reader.databases), ("MODELS", reader.models)):
        if raw.get(key) is not None:
            examine(raw[key])
    if guard is None or reader.faults:
        return None, reader.faults
    return Settings(guard, users, sessions, jobs), []


_lock: Final = threading.Lock()
_read: list[tuple[Settings | None, list[Fault]]] = []


def read_once() -> tuple[Settings | None, list[Fault]]:
    """Return what the project's settings stand for, and what is wrong with them; read at the first call."""
    with _lock:
        if not _read:
            _read.append(read(getattr(settings, SETTING, None)))
        return _read[0]


def get_settings() -> Settings:
    """Return the project's settings.

    Raises:
        ImproperlyConfigured: something is wrong with them.
    """
    found, faults = read_once()
    if found is None:
        lines = "\n".join(f"  {fault.id}: {fault.message} {fault.hint or ''}".rstrip() for fault in faults)
        raise ImproperlyConfigured(f"The setting {SETTING} is not usable:\n{lines}")
    return found


def get_guard() -> TenantGuard:
    """Return the guard that the project's settings stand for: one for the process.

    Raises:
        ImproperlyConfigured: something is wrong with the settings.
    """
    return get_settings().guard


def _forget(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        with _lock:
            _read.clear()


setting_changed.connect(_forget, dispatch_uid="tenantguard.conf")
