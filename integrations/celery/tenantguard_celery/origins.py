"""Who calls: the app's own code, or Celery itself in a worker?

Celery reacts to messages before and after their tasks run: what expires, can't be read or loses its process ends as a
failure, and then error callbacks and the ends of chords are called or sent, as the message says, which nobody has
looked at. That must never pass for scheduled work, which is sent with nobody bound as well.
"""

import sys
from enum import Enum
from types import CodeType, FrameType
from typing import Final

__all__ = ["Origin", "origin_of_call"]


class Origin(Enum):
    """Where a call comes from."""

    APP = "app"
    """The app's own code, or beat."""
    FOLLOW_UP = "follow-up"
    """Celery, which calls or sends what a message wants to follow it."""
    WORKER = "worker"
    """Another part of a worker, at the edge of a task."""


_FOLLOW_UPS: Final = "celery.backends."
_AFTER_SUCCESS: Final = "_dispatch_callbacks_and_chain"
_WORKER: Final = frozenset({"celery.app.trace", "celery.worker.request", "celery.worker.strategy"})


def origin_of_call(own: CodeType) -> Origin:
    """Return where the caller of the calling function is called from.

    Args:
        own: the code that runs the functions of tasks; what it calls is the app's own code.
    """
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the way to it
    while frame is not None:
        if frame.f_code is own:
            return Origin.APP
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_FOLLOW_UPS) or (module in _WORKER and frame.f_code.co_name == _AFTER_SUCCESS):
            return Origin.FOLLOW_UP
        if module in _WORKER:
            return Origin.WORKER
        frame = frame.f_back
    return Origin.APP
