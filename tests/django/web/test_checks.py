"""``manage.py check``: every mistake in the settings has an id and a hint, and all are found in one run."""

import re
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from tenantguard_django import checks, requires
from tenantguard_django.conf import get_guard, read
from tenantguard_django.orm import shared

from tenantguard import StaticTenants, Tenant, TenantGuard
from tenantguard.tokens import StaticKeys
from tests.django.login import LOGIN, TENANTGUARD, make_guard, settings_with

ISSUER = {"URL": "https://login.example.com/", "AUDIENCE": "https://api.example.com"}
OURS = "tenantguard_django.middleware.TenantGuardMiddleware"
AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"

not_a_guard = object()


class AuthenticationOfOurOwn(AuthenticationMiddleware):
    """As projects have it that log the last visit of their users."""


def tenants_of(user: Any) -> list[str]:
    return ["acme"]


@pytest.mark.parametrize(
    ("setting", "fault", "words"),
    [
        (None, "E001", "is missing"),
        ([], "E001", "not a dict"),
        ({"ISSUERS": [ISSUER], "PUBLICK": []}, "E002", "'PUBLICK'"),
        ({}, "E003", "nobody whose tokens"),
        ({"ISSUERS": [{"URL": ISSUER["URL"]}]}, "E003", "AUDIENCE"),
        ({"ISSUERS": [{**ISSUER, "ALGORITHM": "RS256"}]}, "E002", "'ALGORITHM'"),
        ({"ISSUERS": [{**ISSUER, "ALGORITHMS": ["none"]}]}, "E004", "not supported"),
        ({"ISSUERS": [{**ISSUER, "URL": "http://login.example.com/"}]}, "E004", "URL is not usable"),
        ({"ISSUERS": [{**ISSUER, "CLAIMS": "auth1"}]}, "E004", "no preset"),
        ({"ISSUERS": [{**ISSUER, "CLAIMS": "nowhere.claims"}]}, "E005", "can't be imported"),
        ({"ISSUERS": ISSUER}, "E004", "no list"),
        ({"ISSUERS": ["nowhere.issuer"]}, "E005", "can't be imported"),
        ({"ISSUERS": [3]}, "E004", "is a int"),
        ({"ISSUERS": [ISSUER], "PUBLIC": ["health"]}, "E004", "not a plain path"),
        ({"ISSUERS": [ISSUER], "PUBLIC": ["/*"]}, "E004", "not a plain path"),
        ({"ISSUERS": [ISSUER], "DIRECTORY": "nowhere.directory"}, "E005", "can't be imported"),
        ({"ISSUERS": [ISSUER], "DIRECTORY": 3}, "E004", "no method get"),
        ({"ISSUERS": [ISSUER], "TENANT_FROM": "x-org"}, "E004", "no list"),
        ({"ISSUERS": [ISSUER], "DPOP": 3}, "E004", "dpop is a int"),
        ({"ISSUERS": [ISSUER], "GUARD": "tests.django.login.make_guard"}, "E004", "as well"),
        ({"GUARD": "tests.django.web.test_checks.not_a_guard"}, "E004", "is a object"),
        ({"GUARD": "nowhere.guard"}, "E005", "can't be imported"),
        ({"ISSUERS": [ISSUER], "USERS": True}, "E006", "is a bool"),
        ({"ISSUERS": [ISSUER], "USERS": {"CREATE": "yes"}}, "E006", "neither True nor False"),
        ({"ISSUERS": [ISSUER], "USERS": {"CREATED": True}}, "E002", "'CREATED'"),
        ({"ISSUERS": [ISSUER], "USERS": {"USERNAME": 3}}, "E004", "no function"),
        ({"ISSUERS": [ISSUER, {**ISSUER, "URL": "https://b.example.com/"}], "USERS": {}}, "E006", "one issuer alone"),
        ({"ISSUERS": [ISSUER], "JOBS": 3}, "E004", "is a int"),
        ({"ISSUERS": [ISSUER], "SESSIONS": {"PATHS": ["/admin/*"]}}, "E007", "TENANTS"),
        ({"ISSUERS": [ISSUER], "SESSIONS": {"TENANTS": tenants_of}}, "E007", "PATHS"),
        ({"ISSUERS": [ISSUER], "SESSIONS": {"PATHS": "/admin/*", "TENANTS": tenants_of}}, "E007", "no list"),
        ({"ISSUERS": [ISSUER], "SESSIONS": {"PATHS": ["admin"], "TENANTS": tenants_of}}, "E007", "not a plain path"),
        ({"ISSUERS": [ISSUER], "SESSIONS": {"PATHS": ["/admin/*"], "TENANTS": "nowhere.tenants"}}, "E005", "imported"),
        ({"ISSUERS": [ISSUER], "DATABASES": "default"}, "E017", "not a list"),
        ({"ISSUERS": [ISSUER], "DATABASES": 3}, "E017", "not a list"),
        ({"ISSUERS": [ISSUER], "DATABASES": ["default", "replica"]}, "E017", "'replica'"),
        ({"ISSUERS": [ISSUER], "MODELS": ["auth.User"]}, "E004", "not a dict"),
        ({"ISSUERS": [ISSUER], "MODELS": {"user": shared("users")}}, "E004", "no app_label.Model"),
        ({"ISSUERS": [ISSUER], "MODELS": {3: shared("users")}}, "E004", "no app_label.Model"),
    ],
)
def test_each_mistake_has_an_id_a_text_and_a_hint(setting: Any, fault: str, words: str) -> None:
    found, faults = read(setting)
    assert found is None
    assert [one.id for one in faults] == [f"tenantguard.{fault}"]
    assert words in faults[0].message
    assert faults[0].hint or fault == "E006"
    with override_settings(TENANTGUARD=setting):
        assert [one.id for one in checks.check_settings(None)] == [f"tenantguard.{fault}"]
        with pytest.raises(ImproperlyConfigured, match=f"tenantguard.{fault}"):
            WSGIHandler()


def test_all_mistakes_are_found_in_one_run() -> None:
    _, faults = read({"ISSUERS": [{"URL": "x"}, {"AUDIENCE": "y"}], "PUBLIK": [], "USERS": 3})
    assert [one.id[-4:] for one in faults] == ["E002", "E003", "E003", "E006"]
    assert faults[0].hint == "Did you mean 'PUBLIC'?"


def test_a_guard_is_made_of_plain_data() -> None:
    found, faults = read(
        {
            "ISSUERS": [{**ISSUER, "CLAIMS": "auth0", "ALGORITHMS": ["RS256"]}],
            "PUBLIC": ["/health"],
            "REALM": "documents",
            "DIRECTORY": StaticTenants([Tenant("acme")]),
            "DPOP": "tenantguard.DPoP",
            "TENANT_FROM": ["tenantguard.TenantFromHeader"],
        }
    )
    assert faults == []
    assert found is not None
    assert [issuer.url for issuer in found.guard.verifier.issuers] == [ISSUER["URL"]]  # type: ignore[attr-defined]
    assert (found.guard.rules.realm, found.guard.rules.dpop is not None) == ("documents", True)
    assert found.guard.rules.public.patterns == ("/health",)


def test_a_guard_may_be_made_by_the_project_and_is_made_once() -> None:
    made = []

    def make() -> TenantGuard:
        made.append(make_guard())
        return made[-1]

    with override_settings(TENANTGUARD={"GUARD": make}):
        assert get_guard() is get_guard()
        assert len(made) == 1
    with override_settings(
        TENANTGUARD={"ISSUERS": [{"URL": LOGIN.url, "AUDIENCE": "a", "JWKS": StaticKeys(LOGIN.jwks)}]}
    ):
        assert get_guard() not in made


@pytest.mark.parametrize(
    ("middleware", "ids"),
    [
        ([], ["E010"]),
        ([SESSION, AUTH], ["E010"]),
        ([OURS, OURS], ["E011"]),
        ([OURS, AUTH], ["E012"]),
        ([SESSION, AUTH, OURS], []),
        ([OURS, "tests.django.web.test_checks.AuthenticationOfOurOwn"], ["E012"]),
        (["django.middleware.cache.FetchFromCacheMiddleware", OURS], ["E013"]),
        (["django.contrib.auth.middleware.LoginRequiredMiddleware", OURS], ["E013"]),
        ([OURS], []),
    ],
)
def test_the_middlewares_place_is_checked(middleware: list[str], ids: list[str]) -> None:
    with override_settings(MIDDLEWARE=middleware, TENANTGUARD=TENANTGUARD):
        assert [one.id for one in checks.check_middleware(None)] == [f"tenantguard.{each}" for each in ids]


def test_sessions_need_their_own_middleware_before_and_the_csrf_check() -> None:
    sessions = settings_with(SESSIONS={"PATHS": ["/admin/*"], "TENANTS": tenants_of})
    with override_settings(MIDDLEWARE=[OURS], TENANTGUARD=sessions):
        assert [one.id[-4:] for one in checks.check_middleware(None)] == ["E014", "E014", "W015"]
    with override_settings(MIDDLEWARE=[SESSION, CSRF, AUTH, OURS], TENANTGUARD=sessions):
        assert checks.check_middleware(None) == []


def test_a_name_of_no_model_is_found_among_the_models_and_what_is_not_installed_may_stay() -> None:
    models = {**TENANTGUARD["MODELS"], "web.Documant": shared("a slip"), "taggit.Tag": shared("not installed")}
    with override_settings(TENANTGUARD=settings_with(MODELS=models)):
        found = [one for one in checks.check_models(None) if one.id == "tenantguard.W104"]
    assert [(one.msg, one.hint) for one in found] == [
        ("TENANTGUARD['MODELS'] names 'web.Documant', which is no installed model.", "Did you mean 'web.Document'?")
    ]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ({"DATABASES": ["replica"]}, "E017"),
        ({"DATABASES": "default"}, "E017"),
        ({"DATABASES": 3}, "E017"),
        ({"MODELS": ["auth.User"]}, "E004"),
        ({"MODELS": {3: "shared"}}, "E004"),
    ],
)
def test_a_project_with_such_a_setting_starts_as_far_as_its_checks_and_has_the_barrier(
    setting: dict[str, Any], fault: str
) -> None:
    script = f"""
import django
from django.conf import settings
from django.core import checks

settings.configure(
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "tenantguard_django"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    TENANTGUARD={{"ISSUERS": [{ISSUER!r}], **{setting!r}}},
)
django.setup()

from tenantguard_django.orm import is_protected

assert is_protected("default")
assert "tenantguard.{fault}" in {{one.id for one in checks.run_checks(tags=["tenantguard"])}}
"""
    ran = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


class Swapped:
    """A URL module whose view was registered below its check."""

    @staticmethod
    def bare(request: HttpRequest) -> HttpResponse:
        return HttpResponse("open")


requires("notes:read")(Swapped.bare)


def test_a_url_that_runs_the_bare_function_is_found() -> None:
    urls = type("urls", (), {"urlpatterns": [path("open", Swapped.bare)]})
    with override_settings(ROOT_URLCONF=urls):
        found = checks.check_urls(None)
    assert [one.id for one in found] == ["tenantguard.E020"]
    assert "/open" in found[0].msg
    assert checks.check_urls(None) == []


def test_the_tests_project_passes_but_for_the_model_that_is_forgotten_on_purpose() -> None:
    with pytest.raises(SystemCheckError) as failed:
        call_command("check", tags=["tenantguard"], fail_level="WARNING")
    assert re.findall(r"\(tenantguard\.(\w+)\)", str(failed.value)) == ["E101"]
    assert "ormtests.Forgotten" in str(failed.value)
