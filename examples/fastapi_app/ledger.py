"""The third service: billing calls it. It prints for whom it was called, in which company, through whom."""

from fastapi import FastAPI

from examples.fastapi_app.settings import Settings
from tenantguard import TenantGuard, TenantGuardMiddleware, current_identity, current_tenant, requires
from tenantguard.identity import ActorType

AUDIENCE = "https://ledger.example"


def create_app(settings: Settings) -> FastAPI:
    """Build the service. Only the two services that are meant to call it, and the agent, may act for somebody here."""
    guard = TenantGuard(
        issuers=[settings.issuer(AUDIENCE)],
        public=["/health"],
        trusted_actors=["billing-app", "documents-app", "copilot"],
        max_actors=3,
    )
    app = FastAPI(title="Ledger", lifespan=guard.lifespan)
    app.add_middleware(TenantGuardMiddleware, guard=guard)

    @app.get("/seen")
    @requires("usage:read")
    async def seen() -> dict[str, object]:
        identity = current_identity()
        agents = [party.id for party in identity.chain if party.type is ActorType.AGENT]
        told: dict[str, object] = {
            "tenant": current_tenant().id,
            "user": identity.subject.id,
            "agent": agents[0] if agents else None,
            "chain": [f"{party.id} ({party.type})" for party in identity.chain],
        }
        print(f"ledger was called: {told}", flush=True)
        return told

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
