"""An identity and tenant barrier for multi-tenant Python web apps in which people, services and AI agents act.

The public names, and nothing else. Start with `TenantGuard` and `TenantGuardMiddleware`.
"""

from tenantguard.binding import Credential
from tenantguard.context import bind, current_actor, current_identity, current_tenant
from tenantguard.errors import TenantGuardError
from tenantguard.guard import TenantGuard
from tenantguard.identity import Actor, ActorType, Identity, Tenant, TenantStatus, service_identity
from tenantguard.middleware import TenantGuardMiddleware
from tenantguard.orm import TenantOwned, owned_through, shared
from tenantguard.outbound import Destination, TokenExchange
from tenantguard.permits import allow_raw, read_tenants, system
from tenantguard.resource_metadata import ProtectedResource
from tenantguard.scopes import check_authentication, check_scopes, required_scopes, requires
from tenantguard.tenancy import StaticTenants, TenantDirectory, TenantFromHeader, TenantFromHost, TenantFromPath
from tenantguard.tokens import (
    ApiKeys,
    ClientCertificates,
    DPoP,
    Introspection,
    Issuer,
    RevocationKind,
    Revocations,
    SecurityEventReceiver,
    TokenVerifier,
    auth0,
    clerk,
    cognito,
    entra,
    google,
    keycloak,
    oidc,
    okta,
    transaction_issuer,
    workos,
)

__all__ = [
    "Actor",
    "ActorType",
    "ApiKeys",
    "ClientCertificates",
    "Credential",
    "DPoP",
    "Destination",
    "Identity",
    "Introspection",
    "Issuer",
    "ProtectedResource",
    "RevocationKind",
    "Revocations",
    "SecurityEventReceiver",
    "StaticTenants",
    "Tenant",
    "TenantDirectory",
    "TenantFromHeader",
    "TenantFromHost",
    "TenantFromPath",
    "TenantGuard",
    "TenantGuardError",
    "TenantGuardMiddleware",
    "TenantOwned",
    "TenantStatus",
    "TokenExchange",
    "TokenVerifier",
    "allow_raw",
    "auth0",
    "bind",
    "check_authentication",
    "check_scopes",
    "clerk",
    "cognito",
    "current_actor",
    "current_identity",
    "current_tenant",
    "entra",
    "google",
    "keycloak",
    "oidc",
    "okta",
    "owned_through",
    "read_tenants",
    "required_scopes",
    "requires",
    "service_identity",
    "shared",
    "system",
    "transaction_issuer",
    "workos",
]
