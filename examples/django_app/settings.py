"""The project's settings. What tenantguard adds to those of any project stands at the end, in ``TENANTGUARD``."""

import os

from tenantguard_django.orm import CONTRIB_MODELS, shared

from examples.django_app.databases import database_of

AUDIENCE = "https://documents.example"
ISSUER_URL = os.environ.get("ISSUER_URL", "http://127.0.0.1:9000")
CLIENT_SECRET = os.environ.get("CLIENT_SECRET", "")
BILLING_URL = os.environ.get("BILLING_URL", "http://127.0.0.1:9001")
JOB_SECRET = os.environ.get("JOB_SECRET", "")
QUEUE_FOLDER = os.environ.get("QUEUE_FOLDER", "queue")

SECRET_KEY = os.environ.get("SECRET_KEY", "of-the-example-alone")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "examples.django_app.urls"
ASGI_APPLICATION = "examples.django_app.asgi.application"
WSGI_APPLICATION = "examples.django_app.wsgi.application"
USE_TZ = True
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": database_of(os.environ.get("DATABASE_URL", "sqlite:///example.db"))}

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "tenantguard_django",
    "tenantguard_django.admin",
    "tenantguard_django.admin.apps.TenantAdmin",  # in the place of django.contrib.admin
    "examples.django_app.documents",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "tenantguard_django.middleware.TenantGuardMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
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
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["tenantguard_django.rest_framework.TenantGuardAuthentication"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {"TITLE": "Documents", "VERSION": "1"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "INFO"}, "tenantguard": {"handlers": ["console"]}},
}

TENANTGUARD = {
    # The demo's issuer runs on this machine.
    "ISSUERS": [{"URL": ISSUER_URL, "AUDIENCE": AUDIENCE, "ALLOW_PRIVATE_ADDRESSES": True}],
    "EXCHANGE": "examples.django_app.documents.billing.make_exchange",
    "PUBLIC": ["/health", "/static/*"],
    "USERS": {"CREATE": True},
    "SESSIONS": {"PATHS": ["/admin/*"], "TENANTS": "examples.django_app.documents.staff.companies_of"},
    "MODELS": {
        **CONTRIB_MODELS,
        "auth.User": shared("users: staff may work for several companies"),
        "auth.Group": shared("groups: the same roles in each company"),
        "admin.LogEntry": shared("the admin's log: whose an entry is stands beside it"),
    },
}
