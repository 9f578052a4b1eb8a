"""The second service: it tells what a company may use, and reports in whose name it was called."""

from fastapi import FastAPI

from examples.fastapi_app.settings import Settings
from tenantguard import TenantGuard, TenantGuardMiddleware, current_identity, current_tenant, requires

AUDIENCE = "https://billing.example"
PLANS = {"acme": 100, "globex": 20}


def create_app(settings: Settings) -> FastAPI:
    """Build the service. It trusts tokens for its own audience alone."""
    guard = TenantGuard(issuers=[settings.issuer(AUDIENCE)], public=["/health"])
    app = FastAPI(title="Billing")
    app.add_middleware(TenantGuardMiddleware, guard=guard)

    @app.get("/usage")
    @requires("usage:read")
    async def usage() -> dict[str, object]:
        identity, tenant = current_identity(), current_tenant()
        return {
            "tenant": tenant.id,
            "documents_allowed": PLANS.get(tenant.id, 0),
            "called_for": identity.subject.id,
            "called_by": identity.actor.id,
            "chain": [f"{party.id} ({party.type})" for party in identity.chain],
        }

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
