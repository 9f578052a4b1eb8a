"""One Django for all tests of the integration: settings are configured once in a process.

Each folder here that has an ``apps.py`` is an installed app. What a test changes of the settings it changes with
``override_settings``.
"""

import tempfile
from pathlib import Path

import django
import pytest
from django.conf import settings

from tests.django.login import TENANTGUARD

# Django's task framework came with Django 6.0, and foreign keys that the database follows with 6.1.
collect_ignore = [
    *([] if django.VERSION >= (6, 0) else ["web/test_tasks.py", "web/put_off.py"]),
    *([] if django.VERSION >= (6, 1) else ["orm/test_database_cascades.py", "orm/cascading.py"]),
]
HERE = Path(__file__).parent
FOLDER = tempfile.TemporaryDirectory(prefix="tenantguard-django-tests-")

if not settings.configured:
    settings.configure(
        SECRET_KEY="of-the-tests-alone",
        ALLOWED_HOSTS=["127.0.0.1", "testserver", ".example.com"],
        USE_TZ=True,
        ROOT_URLCONF="tests.django.web.urls",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{FOLDER.name}/default.db",
                "OPTIONS": {"timeout": 20},
            }
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django.contrib.messages",
            "rest_framework",
            "drf_spectacular",
            "ninja",
            "tenantguard_django",
            "tenantguard_django.admin",
            "tenantguard_django.admin.apps.TenantAdmin",
            *(f"tests.django.{app.parent.name}" for app in sorted(HERE.glob("*/apps.py"))),
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "tenantguard_django.middleware.TenantGuardMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        REST_FRAMEWORK={"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"},
        STATIC_URL="/static/",
        TASKS={"default": {"BACKEND": "tenantguard_django.tasks.ImmediateBackend"}},
        TENANTGUARD=TENANTGUARD,
    )
    django.setup()


def make_tables() -> None:
    """Make the tables of the installed apps in the default database."""
    from django.core.management import call_command

    from tenantguard import system

    with system("the tables of the tests"):
        call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture(scope="session", autouse=True)
def django_tables() -> None:
    """The tables, made before a test declares further models."""
    make_tables()
