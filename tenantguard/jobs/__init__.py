"""Background work runs as whom it was put off for, narrowed to what was declared, if that is still allowed.

Read `jobs.py` first; `capsules.py` is what a queue carries, `keys.py` what it is signed with, `groups.py` the task
group for work inside the process. Celery and taskiq have integrations that do all this unasked.
"""

from tenantguard.jobs.capsules import CAPSULE_TYPE, Capsule, arguments_hash
from tenantguard.jobs.declarations import JobDeclaration
from tenantguard.jobs.groups import JobGroup, task_name
from tenantguard.jobs.jobs import DeadLetter, Jobs
from tenantguard.jobs.keys import JobKeys

__all__ = [
    "CAPSULE_TYPE",
    "Capsule",
    "DeadLetter",
    "JobDeclaration",
    "JobGroup",
    "JobKeys",
    "Jobs",
    "arguments_hash",
    "task_name",
]
