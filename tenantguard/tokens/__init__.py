"""Tokens: whatever a caller presents becomes one `Identity`, or a refusal that says why.

Read `verifier.py` first: it puts the steps in order. `jwt.py` checks the form and the claims, `issuers.py` says what is
trusted, `keysource.py` has the keys, `claims.py` and `presets.py` turn claims into an identity, `cache.py` remembers.
"""

from tenantguard.tokens.claims import Claims, ClaimsMapping, ClaimsProfile, Verified
from tenantguard.tokens.issuers import Issuer, IssuerDirectory
from tenantguard.tokens.jwks import StaticKeys
from tenantguard.tokens.presets import auth0, clerk, cognito, entra, google, keycloak, oidc, okta, workos
from tenantguard.tokens.verifier import TokenVerifier

__all__ = [
    "Claims",
    "ClaimsMapping",
    "ClaimsProfile",
    "Issuer",
    "IssuerDirectory",
    "StaticKeys",
    "TokenVerifier",
    "Verified",
    "auth0",
    "clerk",
    "cognito",
    "entra",
    "google",
    "keycloak",
    "oidc",
    "okta",
    "workos",
]
