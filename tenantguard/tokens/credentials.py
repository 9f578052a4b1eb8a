"""Credentials beyond signed tokens: one small protocol, which API keys and introspection implement as apps may.

The verifier asks each kind in turn whether a token is of its form, by looks alone; the first that says yes decides.
What it answers is remembered for as long as the kind allows, and goes through the same doors as a signed token:
expiry, revocation, sender constraint, tenant.
"""

from typing import Protocol

from tenantguard.identity import Identity
from tenantguard.tokens.claims import Verified

__all__ = ["CredentialVerifier"]


class CredentialVerifier(Protocol):
    """One kind of credential that is presented as ``Authorization: Bearer <token>`` and is no signed token."""

    @property
    def max_age(self) -> float:
        """Seconds for which an answer may be reused. 0: each request asks anew."""
        ...

    def accepts(self, token: str, /) -> bool:
        """True if the token is of this kind by its form alone. Must be quick, and never raise or wait."""
        ...

    async def verify(self, token: str, /) -> Identity | Verified:
        """Return the identity that the token stands for; a `Verified` where the caller may choose a tenant.

        Its ``issuer`` names who vouches for it, and its ``expires_at`` ends the reuse of the answer.

        Raises:
            InvalidToken: the token is not good.
            Unavailable: that can't be known now.
        """
        ...
