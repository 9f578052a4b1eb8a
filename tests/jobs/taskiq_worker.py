"""What the worker and the scheduler run: ``taskiq worker tests.jobs.taskiq_worker:broker``."""

import os
from datetime import UTC, datetime, timedelta

from taskiq import TaskiqScheduler
from taskiq.schedule_sources import LabelScheduleSource

from tests.jobs.settings import note
from tests.jobs.taskiq_broker import make_broker

__all__ = ["broker", "scheduler"]

broker = make_broker(int(os.environ.get("TENANTGUARD_TEST_DATABASE", "0")))
scheduler = TaskiqScheduler(broker, [LabelScheduleSource(broker)])


@broker.task("taskiq.plain")
def plain(word: str) -> str:
    return note(word)


@broker.task("taskiq.scheduled", schedule=[{"time": datetime.now(UTC) + timedelta(seconds=1), "args": ["scheduled"]}])
async def scheduled(word: str) -> str:
    return note(word)
