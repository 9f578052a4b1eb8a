"""A project with users of its own, as many have it: keys of UUIDs, names that are e-mail addresses, ATOMIC_REQUESTS.

It runs in a process of its own, since the model of users is chosen once. The database is SQLite or PostgreSQL.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.django.orm.conftest import postgres_settings

SETTINGS = """
import json
import os

from tenantguard.testing import DevIssuer
from tenantguard_django.orm import CONTRIB_MODELS, shared

SECRET_KEY = "of-the-test-alone"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
DATABASES = {"default": {**json.loads(os.environ["DATABASE"]), "ATOMIC_REQUESTS": True, "CONN_MAX_AGE": 600}}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "tenantguard_django",
    "tenantguard_django.admin",
    "tenantguard_django.admin.apps.TenantAdmin",
    "accounts",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tenantguard_django.middleware.TenantGuardMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
NAMES = ("template.context_processors.request", "contrib.auth.context_processors.auth")
PROCESSORS = [f"django.{name}" for name in (*NAMES, "contrib.messages.context_processors.messages")]
ENGINE = "django.template.backends.django.DjangoTemplates"
TEMPLATES = [{"BACKEND": ENGINE, "APP_DIRS": True, "OPTIONS": {"context_processors": PROCESSORS}}]
LOGIN = DevIssuer("http://127.0.0.1:9000", audience="https://api.example.com")
TENANTGUARD = {
    "ISSUERS": [{"URL": LOGIN.url, "AUDIENCE": "https://api.example.com", "JWKS": LOGIN.jwks}],
    "USERS": {"CREATE": True, "USERNAME": "accounts.models.address_of"},
    "SESSIONS": {"PATHS": ["/admin/*"], "TENANTS": "accounts.models.tenants_of"},
    "MODELS": {**CONTRIB_MODELS, "auth.Group": shared("roles"), "admin.LogEntry": shared("the admin's log")},
}
"""
MODELS = """
import uuid

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models

from tenantguard_django.models import TenantModel
from tenantguard_django.orm import shared


def address_of(identity):
    return f"{identity.subject.id}@example.com"


def tenants_of(user):
    return ["acme"]


@shared("users: people may work in several tenants")
class User(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    is_staff = models.BooleanField(default=False)
    objects = BaseUserManager()
    USERNAME_FIELD = "email"


class Note(TenantModel):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
"""
ADMIN = """
from django.contrib import admin

from accounts.models import Note

admin.site.register(Note)
"""
URLS = """
from django.contrib import admin
from django.db import connection, transaction
from django.http import JsonResponse
from django.urls import path

from accounts.models import Note


def write(request):
    Note.objects.create(author=request.user)
    return JsonResponse([request.user.email, Note.objects.count(), connection.in_atomic_block], safe=False)


@transaction.non_atomic_requests
async def awrite(request):
    user = await request.auser()
    await Note.objects.acreate(author=user)
    return JsonResponse([user.email, await Note.objects.acount(), False], safe=False)


def fail(request):
    Note.objects.create(author=request.user)
    raise LookupError("after the row was written")


urlpatterns = [path("admin/", admin.site.urls), path("write", write), path("awrite", awrite), path("fail", fail)]
"""
RUN = """
import django

django.setup()

from django.conf import settings
from django.core.management import call_command
from django.test import Client

from accounts.models import Note, User
from tenantguard import system

call_command("check", fail_level="WARNING")
for app in ("contenttypes", "auth"):  # what apps without migrations point to
    call_command("migrate", app, verbosity=0)
call_command("migrate", run_syncdb=True, verbosity=0)
http = Client(raise_request_exception=False)


def asked(path, tenant):
    token = settings.LOGIN.mint("alice", tenant=tenant)
    return http.get(path, headers={"authorization": f"Bearer {token}"})


assert asked("/write", "acme").json() == ["alice@example.com", 1, True]
assert asked("/awrite", "acme").json() == ["alice@example.com", 2, False]
assert asked("/fail", "acme").status_code == 500
assert asked("/write", "globex").json() == ["alice@example.com", 1, True]
assert asked("/write", "acme").json() == ["alice@example.com", 3, True]
alice = User.objects.get()
sam = User.objects.create(email="sam@example.com", is_staff=True, is_superuser=True)
browser = Client()
browser.force_login(sam)
assert b"3 notes" in browser.get("/admin/accounts/note/").content
assert browser.post("/admin/accounts/note/add/", {"author": str(alice.pk)}).status_code == 302
assert b"Note object" in browser.get("/admin/").content
with system("what is there"):
    assert sorted(Note.objects.values_list("tenant_id", flat=True)) == ["acme"] * 4 + ["globex"]
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_project_with_users_of_its_own_works_in_each_tenant(
    request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    used = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "project.db")}
    if engine == "postgresql":
        used = {**postgres_settings(request.getfixturevalue("postgres_url")), "OPTIONS": {}}  # type: ignore[dict-item]
    (tmp_path / "accounts").mkdir()
    files = {"settings": SETTINGS, "urls": URLS, "run": RUN, "accounts/__init__": "", "accounts/models": MODELS}
    for name, text in {**files, "accounts/admin": ADMIN}.items():
        (tmp_path / f"{name}.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "run.py"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "settings", "DATABASE": json.dumps(used)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
