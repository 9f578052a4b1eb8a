"""One Django for all tests of the integration: settings are configured once in a process.

Each folder here that has an ``apps.py`` is an installed app. What a test changes of the settings it changes with
``override_settings``.
"""

import tempfile
from pathlib import Path

from django.conf import settings

HERE = Path(__file__).parent
FOLDER = tempfile.TemporaryDirectory(prefix="tenantguard-django-tests-")

if not settings.configured:
    settings.configure(
        SECRET_KEY="of-the-tests-alone",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{FOLDER.name}/default.db",
                "OPTIONS": {"timeout": 20},
            }
        },
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            *(f"tests.django.{app.parent.name}" for app in sorted(HERE.glob("*/apps.py"))),
        ],
    )
    import django

    django.setup()
