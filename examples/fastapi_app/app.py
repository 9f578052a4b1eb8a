"""The document service: wiring, in the ten lines that a user of tenantguard writes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from examples.fastapi_app import copilot, database, documents, jobs
from examples.fastapi_app.models import Base
from examples.fastapi_app.settings import Settings
from tenantguard import TenantGuard, TenantGuardMiddleware, TokenExchange
from tenantguard.orm import check_metadata

AUDIENCE = "https://documents.example"


def create_app(settings: Settings) -> FastAPI:
    """Build the app with its guard, engines and clients."""
    guard = TenantGuard(
        issuers=[settings.issuer(AUDIENCE)],
        exchange=TokenExchange(
            f"{settings.issuer_url}/token", client_id="documents-app", client_secret=settings.client_secret
        ),
        public=["/health"],
    )
    check_metadata(Base.metadata)
    async_engine, sync_engine = database.engines(settings.database_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.celery = jobs.create_celery(settings)
        app.state.sessions = guard.async_sessionmaker(async_engine)
        app.state.sync_sessions = guard.sessionmaker(sync_engine)
        database.create_tables(sync_engine)
        database.add_sample_data(sync_engine)
        async with guard.http_client(
            settings.billing_url, audience="https://billing.example", scopes="usage:read"
        ) as app.state.billing:
            yield
        await async_engine.dispose()
        sync_engine.dispose()
        await guard.aclose()

    app = FastAPI(title="Documents", lifespan=lifespan)
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    app.include_router(documents.router)
    app.include_router(copilot.router)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app
