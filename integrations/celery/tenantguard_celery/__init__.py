"""tenantguard for Celery: tasks run as whom they were enqueued for, if that is still allowed.

`install` does it for a whole app. Every message that the app sends gets a capsule, and every task that a worker runs
needs a good one. Every decision is that of `tenantguard.jobs`.
"""

from tenantguard_celery.installation import install

__all__ = ["install"]
