"""The second service: it tells what a company may use, in whose name it was called, and what the third service saw."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from examples.fastapi_app import ledger
from examples.fastapi_app.settings import Settings
from tenantguard import (
    Destination,
    TenantGuard,
    TenantGuardMiddleware,
    TokenExchange,
    current_identity,
    current_tenant,
    requires,
)

AUDIENCE = "https://billing.example"
PLANS = {"acme": 100, "globex": 20}


def create_app(settings: Settings) -> FastAPI:
    """Build the service. It trusts tokens for its own audience alone."""
    guard = TenantGuard(
        issuers=[settings.issuer(AUDIENCE)],
        public=["/health"],
        exchange=TokenExchange(
            f"{settings.issuer_url}/token", client_id="billing-app", client_secret=settings.billing_secret
        ),
        destinations=[Destination(settings.ledger_url, audience=ledger.AUDIENCE, scopes="usage:read")],
        strict_outbound=True,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with guard, guard.http_client(settings.ledger_url) as app.state.ledger:
            yield

    app = FastAPI(title="Billing", lifespan=lifespan)
    app.add_middleware(TenantGuardMiddleware, guard=guard)

    @app.get("/usage")
    @requires("usage:read")
    async def usage(request: Request) -> dict[str, object]:
        identity, tenant = current_identity(), current_tenant()
        response = await request.app.state.ledger.get("/seen")
        if response.status_code != 200:
            raise HTTPException(502, "The ledger did not answer.")
        return {
            "tenant": tenant.id,
            "documents_allowed": PLANS.get(tenant.id, 0),
            "called_for": identity.subject.id,
            "called_by": identity.actor.id,
            "chain": [f"{party.id} ({party.type})" for party in identity.chain],
            "ledger": response.json(),
        }

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
