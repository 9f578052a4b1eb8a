"""Where the parts of the example find each other, from environment variables."""

import os
from dataclasses import dataclass

from tenantguard import Issuer


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the app and the billing service need to know.

    Args:
        issuer_url: the OpenID provider or development issuer.
        client_secret: the app's own secret at the issuer, for token exchange.
        billing_url: the second service.
        database_url: ``sqlite:///file.db`` or ``postgresql://user@host/name``.
    """

    issuer_url: str
    client_secret: str
    billing_url: str
    database_url: str = "sqlite:///example.db"

    def issuer(self, audience: str) -> Issuer:
        """Return the issuer whose tokens for one audience are trusted; the demo's runs on this machine."""
        return Issuer(self.issuer_url, audience=audience, allow_private_addresses=True)

    @classmethod
    def from_environment(cls) -> "Settings":
        missing = [key for key in ("ISSUER_URL", "CLIENT_SECRET", "BILLING_URL") if not os.environ.get(key)]
        if missing:
            raise SystemExit(f"Set {', '.join(missing)}, or run `make demo`, which sets them for you.")
        return cls(
            issuer_url=os.environ["ISSUER_URL"],
            client_secret=os.environ["CLIENT_SECRET"],
            billing_url=os.environ["BILLING_URL"],
            database_url=os.environ.get("DATABASE_URL", "sqlite:///example.db"),
        )
