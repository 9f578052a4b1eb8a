"""tenantguard for taskiq: tasks run as whom they were enqueued for, if that is still allowed."""
