"""Whose tokens the tests' project trusts: a development issuer whose keys are pinned, so that nothing is fetched."""

from typing import Any

from tenantguard import Issuer, TenantGuard
from tenantguard.testing import DevIssuer
from tenantguard.tokens import StaticKeys

AUDIENCE = "https://api.example.com"
LOGIN = DevIssuer("http://127.0.0.1:9", audience=AUDIENCE)


def make_guard(**options: Any) -> TenantGuard:
    issuer = Issuer(LOGIN.url, audience=AUDIENCE, jwks=StaticKeys(LOGIN.jwks))
    return TenantGuard(issuers=[issuer], **{"public": ["/health", "/public/*"], **options})


def bearer(subject: str = "alice", **options: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {LOGIN.mint(subject, **options)}"}
