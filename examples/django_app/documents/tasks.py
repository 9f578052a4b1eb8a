"""Work that is put off: a Celery app whose tasks run as whom they were enqueued for, in a worker of its own.

The queue is a folder, so that the demo needs no broker. In production it is Redis or RabbitMQ, and the replay store and
the revocations are shared by all workers; see docs/jobs.md.
"""

from functools import cache
from pathlib import Path

from celery import Celery
from django.conf import settings
from tenantguard_celery import install

from examples.django_app.documents import billing
from examples.django_app.documents.models import Comment, Document
from tenantguard import current_identity
from tenantguard.jobs import JobKeys, Jobs

REPORT = "documents.report"


@cache
def celery() -> Celery:
    """Build the Celery app, for the service that enqueues and for the worker."""
    folder = Path(settings.QUEUE_FOLDER)
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    app = Celery("documents", broker="filesystem://", set_as_current=False)
    app.conf.broker_transport_options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.1,
    }
    jobs = Jobs(JobKeys(settings.JOB_SECRET.encode()), service="documents-app", assertion_audience=settings.ISSUER_URL)
    jobs.declare(REPORT, scopes="documents:read documents:write usage:read", max_age=3600)
    install(app, jobs)
    app.task(name=REPORT, shared=False, ignore_result=True)(report)
    return app


def report(document_id: int) -> None:
    """Ask the billing service in the name of whom the job is for, and note its answer at their document."""
    seen = billing.usage_now()["ledger"]
    document = Document.objects.get(pk=document_id)
    text = f"{seen['tenant']}: {' for '.join(seen['chain'])}"
    Comment.objects.create(document=document, text=text, created_by=current_identity().subject.id)
