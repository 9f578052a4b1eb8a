"""Stop asking a token service that fails again and again, for a short time.

After a number of failures in a row the circuit opens: requests are refused at once instead of waiting for a deadline
each. When the pause is over one attempt goes through; it closes the circuit or doubles the pause, up to a bound.
"""

import threading
from time import monotonic
from typing import Final, final

__all__ = ["Circuit"]

LONGEST_PAUSE: Final = 30.0


@final
class Circuit:
    """Counts failures in a row. Thread-safe.

    Args:
        threshold: so many failures in a row open it.
        pause: seconds that it stays open at first.
    """

    __slots__ = ("_failures", "_first_pause", "_lock", "_open_until", "_opened_at", "_pause", "_threshold")

    def __init__(self, threshold: int = 5, pause: float = 1.0) -> None:
        self._threshold = threshold
        self._first_pause = pause
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._failures = 0
        self._pause = self._first_pause
        self._opened_at = float("-inf")
        self._open_until = float("-inf")

    def seconds_open(self, attempt: float) -> float:
        """Return 0 if a request may go out now, else how long to wait in seconds.

        Args:
            attempt: longest duration of a request in seconds; while the one attempt after a pause lasts, the others
                wait.
        """
        if self._failures < self._threshold:
            return 0.0
        with self._lock:
            now = monotonic()
            if self._failures < self._threshold:
                return 0.0
            if now < self._open_until:
                return self._open_until - now
            self._open_until = now + attempt
            return 0.0

    def succeeded(self) -> None:
        """A request was answered as it should be."""
        if self._failures:
            with self._lock:
                self._reset()

    def failed(self, began_at: float) -> None:
        """A request failed through the token service's fault.

        Args:
            began_at: when it was begun, by `time.monotonic`. Those that began before the circuit opened say nothing
                new and don't make the pause longer.
        """
        with self._lock:
            if began_at < self._opened_at:
                return
            self._failures += 1
            if self._failures < self._threshold:
                return
            self._opened_at = monotonic()
            self._open_until = self._opened_at + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
