"""A Django project with tests of its own that know nothing of tenants: ``python run.py``, with a database's settings."""

import json
import os
import sys

from django.conf import settings

if os.environ.get("DRIVER") == "psycopg2":
    sys.modules["psycopg"] = None  # Django then takes the other

shared = {"shared": "this project has one customer"}
settings.configure(
    SECRET_KEY="of-the-tests-alone",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES=json.loads(sys.argv[1]),
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF="urls",
    STATIC_URL="/static/",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
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
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "shop",
    ],
    TENANTGUARD={
        "MODELS": dict.fromkeys(
            (
                "admin.LogEntry",
                "auth.Group",
                "auth.Permission",
                "auth.User",
                "contenttypes.ContentType",
                "sessions.Session",
                "shop.Product",
                "shop.Tag",
            ),
            shared,
        )
    },
)

import django  # noqa: E402

django.setup()

from django.core.management import execute_from_command_line  # noqa: E402
from tenantguard_django.orm import protect  # noqa: E402

protect()
execute_from_command_line(["manage.py", *sys.argv[2:]])
