"""Whose tokens the tests' project trusts: a development issuer whose keys are pinned, so that nothing is fetched."""

from typing import Any

from tenantguard_django.orm.marks import CONTRIB_MODELS, shared

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


TENANTGUARD: dict[str, Any] = {
    "GUARD": make_guard,
    "MODELS": {
        **CONTRIB_MODELS,
        "auth.User": shared("users: people may work in several tenants"),
        "auth.Group": shared("groups: the same roles in each tenant"),
        "admin.LogEntry": shared("the admin's log: whose an entry is stands beside it"),
    },
}


def settings_with(**keys: Any) -> dict[str, Any]:
    """The setting, with other keys; ``None`` leaves one out."""
    return {key: value for key, value in {**TENANTGUARD, **keys}.items() if value is not None}
