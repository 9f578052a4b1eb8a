"""For development and tests: an issuer with real keys and a real token service. Never for production."""

from tenantguard.testing.issuer import DevIssuer
from tenantguard.testing.keys import SigningAlgorithm, SigningKey, jwk_thumbprint
from tenantguard.testing.parties import DevClient, DevUser

__all__ = ["DevClient", "DevIssuer", "DevUser", "SigningAlgorithm", "SigningKey", "jwk_thumbprint"]
