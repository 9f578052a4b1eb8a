"""Work that is put off: a Celery app whose tasks run as whom they were enqueued for, in a worker of its own.

The queue is a folder, so that the demo needs no broker. In production it is Redis or RabbitMQ, and the replay store and
the revocations are shared by all workers; see docs/jobs.md.
"""

from pathlib import Path

from celery import Celery
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker
from tenantguard_celery import install

from examples.fastapi_app import billing, database
from examples.fastapi_app.models import Comment, Document
from examples.fastapi_app.settings import Settings
from tenantguard import Destination, TokenExchange, current_identity
from tenantguard.jobs import JobKeys, Jobs
from tenantguard.orm import protect
from tenantguard.outbound import sync_http_client

REPORT = "documents.report"


def create_celery(settings: Settings) -> Celery:
    """Build the Celery app, for the service that enqueues and for the worker."""
    folder = Path(settings.queue_folder)
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    app = Celery("documents", broker="filesystem://", set_as_current=False)
    app.conf.broker_transport_options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.1,
    }
    jobs = Jobs(
        JobKeys(settings.job_secret.encode()),
        service="documents-app",
        assertion_audience=settings.issuer_url,
    )
    jobs.declare(REPORT, scopes="documents:read documents:write usage:read", max_age=3600)
    install(app, jobs)

    @app.task(name=REPORT, shared=False, ignore_result=True)  # type: ignore[untyped-decorator]
    def report(document_id: int) -> None:
        _write_report(settings, document_id)

    return app


def _write_report(settings: Settings, document_id: int) -> None:
    """Ask the billing service in the name of whom the job is for, and note its answer at their document."""
    engine = protect(database.engines(settings.database_url)[1])
    destination = Destination(settings.billing_url, audience=billing.AUDIENCE, scopes="usage:read")
    exchange = TokenExchange(
        f"{settings.issuer_url}/token", client_id="documents-app", client_secret=settings.client_secret
    )
    with sync_http_client(destination, exchange) as client, sessionmaker(engine)() as db, db.begin():
        seen = client.get("/usage").raise_for_status().json()["ledger"]
        document = db.scalars(select(Document).where(Document.id == document_id)).one()
        text = f"{seen['tenant']}: {' for '.join(seen['chain'])}"
        db.add(Comment(document_id=document.id, text=text, created_by=current_identity().subject.id))
    exchange.close()
    engine.dispose()
