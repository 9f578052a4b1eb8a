"""What the worker and the scheduler run: ``celery -A tests.jobs.celery_worker worker``."""

from tests.jobs.celery_app import make_app

__all__ = ["app"]

app = make_app(0)
