"""tenantguard for Celery: tasks run as whom they were enqueued for, if that is still allowed."""
