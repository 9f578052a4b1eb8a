"""A database by its URL, as the other example takes it: SQLite or PostgreSQL."""

from typing import Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict


def database_of(url: str) -> dict[str, Any]:
    """Return Django's settings for ``sqlite:///file.db`` or ``postgresql://user@host/name``."""
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": url.removeprefix("sqlite:///"),
            "OPTIONS": {"timeout": 20},
        }
    if scheme == "postgresql":
        given = conninfo_to_dict(url)
        names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
        found = {name: given.get(key) or "" for name, key in names.items()}
        return {"ENGINE": "django.db.backends.postgresql", **found}
    raise SystemExit(f"DATABASE_URL is for {scheme!r}; use sqlite or postgresql.")
