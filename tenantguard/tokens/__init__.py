"""Tokens: whatever a caller presents becomes one `Identity`, or a refusal that says why.

Read `verifier.py` first: it puts the steps in order. `jwt.py` checks the form and the claims, `issuers.py` says what is
trusted, `keysource.py` has the keys, `claims.py` and `presets.py` turn claims into an identity, `cache.py` remembers.
What is no signed token goes by `credentials.py` (`introspection.py`, `api_keys.py`); that the sender holds a bound
token's key is checked by `dpop.py` and `client_certificates.py`; `revocation.py` and `security_events.py` end what was
good.
"""

from tenantguard.tokens.api_keys import ApiKey, ApiKeys, ApiKeyStore, InMemoryApiKeyStore, MintedKey, SqlApiKeyStore
from tenantguard.tokens.chains import ChainRules
from tenantguard.tokens.claim_values import Claims
from tenantguard.tokens.claims import ClaimsMapping, ClaimsProfile, Verified
from tenantguard.tokens.client_certificates import ClientCertificates
from tenantguard.tokens.credentials import CredentialVerifier
from tenantguard.tokens.dpop import DPoP, Possession
from tenantguard.tokens.dpop_nonces import DPoPNonces
from tenantguard.tokens.introspection import Introspection
from tenantguard.tokens.issuers import Issuer, IssuerDirectory
from tenantguard.tokens.jwks import StaticKeys
from tenantguard.tokens.presets import auth0, clerk, cognito, entra, google, keycloak, oidc, okta, workos
from tenantguard.tokens.replays import InMemoryReplays, ReplayStore
from tenantguard.tokens.revocation import Revocation, RevocationFeed, RevocationKind, Revocations
from tenantguard.tokens.security_events import SecurityEventReceiver
from tenantguard.tokens.transactions import transaction_issuer
from tenantguard.tokens.verifier import TokenVerifier

__all__ = [
    "ApiKey",
    "ApiKeyStore",
    "ApiKeys",
    "ChainRules",
    "Claims",
    "ClaimsMapping",
    "ClaimsProfile",
    "ClientCertificates",
    "CredentialVerifier",
    "DPoP",
    "DPoPNonces",
    "InMemoryApiKeyStore",
    "InMemoryReplays",
    "Introspection",
    "Issuer",
    "IssuerDirectory",
    "MintedKey",
    "Possession",
    "ReplayStore",
    "Revocation",
    "RevocationFeed",
    "RevocationKind",
    "Revocations",
    "SecurityEventReceiver",
    "SqlApiKeyStore",
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
    "transaction_issuer",
    "workos",
]
