"""Where the parts of the example find each other, from environment variables."""

import os
from dataclasses import dataclass, field

from tenantguard import Issuer

_KEYS = (
    "ISSUER_URL",
    "CLIENT_SECRET",
    "BILLING_URL",
    "LEDGER_URL",
    "BILLING_SECRET",
    "JOB_SECRET",
    "QUEUE_FOLDER",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the app and the billing service need to know.

    Args:
        issuer_url: the OpenID provider or development issuer.
        client_secret: the app's own secret at the issuer, for token exchange.
        billing_url: the second service.
        ledger_url: the third service.
        billing_secret: the second service's own secret at the issuer.
        job_secret: what jobs are signed with, at least 32 characters.
        queue_folder: the folder that is the queue.
        database_url: ``sqlite:///file.db`` or ``postgresql://user@host/name``.
    """

    issuer_url: str
    client_secret: str = field(repr=False)
    billing_url: str
    ledger_url: str
    billing_secret: str = field(repr=False)
    job_secret: str = field(repr=False)
    queue_folder: str
    database_url: str = "sqlite:///example.db"

    def issuer(self, audience: str) -> Issuer:
        """Return the issuer whose tokens for one audience are trusted; the demo's runs on this machine."""
        return Issuer(self.issuer_url, audience=audience, allow_private_addresses=True)

    @classmethod
    def from_environment(cls) -> "Settings":
        missing = [key for key in _KEYS if not os.environ.get(key)]
        if missing:
            raise SystemExit(f"Set {', '.join(missing)}, or run `make demo`, which sets them for you.")
        return cls(
            **{key.lower(): os.environ[key] for key in _KEYS},
            database_url=os.environ.get("DATABASE_URL", "sqlite:///example.db"),
        )
