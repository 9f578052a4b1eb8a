"""Stop asking a token service that fails again and again, for a short time, and shut out nobody else by it.

After a number of failures in a row a circuit opens: requests are refused at once instead of waiting for a deadline
each. When the pause is over one attempt goes through; it closes the circuit or doubles the pause, up to a bound.
One circuit for all callers would let a single tenant, whose token makes the service fail, shut out all the others. So a
failure counts where it can be laid: with the one wish, with the tenant, or with all.
"""

import threading
from collections.abc import Hashable
from enum import Enum
from time import monotonic
from typing import Final, final

__all__ = ["Blame", "Circuit", "Circuits"]

LONGEST_PAUSE: Final = 30.0
MAX_CIRCUITS: Final = 10_000
"""Most tenants and wishes whose failures are counted; the oldest are forgotten."""


class Blame(Enum):
    """Where the failure of a request to the token service can be laid."""

    REQUEST = "request"
    """It was refused for a reason: nothing failed."""
    ANSWER = "answer"
    """The service is there, and what it answers to this wish can't be used."""
    SERVICE = "service"
    """It gave no answer, or said that it failed. What was asked may have been the cause."""
    EVERYBODY = "everybody"
    """It can't be reached, whatever is asked."""


@final
class Circuit:
    """Counts failures in a row. Thread-safe.

    Args:
        threshold: so many failures in a row open it.
        pause: seconds that it stays open at first.
        parties: so many different parties must have failed among them, unless a failure is laid to none.
    """

    __slots__ = (
        "_failed",
        "_failures",
        "_first_pause",
        "_lock",
        "_needed",
        "_open_until",
        "_opened_at",
        "_pause",
        "_threshold",
    )

    def __init__(self, threshold: int = 5, pause: float = 1.0, *, parties: int = 1) -> None:
        self._threshold = threshold
        self._first_pause = pause
        self._needed = parties
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._failures = 0
        self._failed: set[Hashable] = set()
        self._pause = self._first_pause
        self._opened_at: float | None = None
        self._open_until = float("-inf")

    def seconds_left(self) -> float:
        """Return how long it stays open, in seconds; 0 if a request may go out."""
        if self._opened_at is None:
            return 0.0
        with self._lock:
            return 0.0 if self._opened_at is None else max(0.0, self._open_until - monotonic())

    def attempt(self, seconds: float) -> None:
        """A request goes out; where it is the one attempt after a pause, the others wait while it lasts.

        Args:
            seconds: longest duration of a request.
        """
        with self._lock:
            if self._opened_at is not None:
                self._open_until = monotonic() + seconds

    def succeeded(self) -> None:
        """A request was answered."""
        if self._failures:
            with self._lock:
                self._reset()

    def failed(self, began_at: float, party: Hashable = None) -> None:
        """A request failed.

        Args:
            began_at: when it was begun, by `time.monotonic`. Those that began before the circuit opened say nothing
                new and don't make the pause longer.
            party: for whom; ``None`` where it would have failed for anybody.
        """
        with self._lock:
            if self._opened_at is not None and began_at < self._opened_at:
                return
            self._failures += 1
            if len(self._failed) < self._needed:
                self._failed.add(party)
            agreed = None in self._failed or party is None or len(self._failed) >= self._needed
            if self._failures >= self._threshold and agreed:
                self._opened_at = monotonic()
                self._open_until = self._opened_at + self._pause
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                self._failed.clear()
            elif self._opened_at is not None:
                self._open_until = monotonic()  # the next attempt need not wait for what one party says


@final
class Circuits:
    """The circuits of one token endpoint: for all, for each tenant, and for each wish for a token. Thread-safe."""

    __slots__ = ("_lock", "_own", "_shared")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared = Circuit(parties=2)
        self._own: dict[Hashable, Circuit] = {}

    def seconds_open(self, tenant: Hashable, wish: Hashable, attempt: float) -> float:
        """Return 0 if a request may go out now, and count on it going; else how long to wait in seconds.

        Args:
            tenant: for which tenant; ``None`` for the service itself.
            wish: the key of the token that is wanted.
            attempt: longest duration of a request in seconds.
        """
        circuits = [self._shared]
        circuits += [found for key in (("tenant", tenant), ("wish", wish)) if (found := self._own.get(key)) is not None]
        longest = max(circuit.seconds_left() for circuit in circuits)
        if not longest:
            for circuit in circuits:
                circuit.attempt(attempt)
        return longest

    def ended(self, tenant: Hashable, wish: Hashable, began_at: float, blame: Blame | None) -> None:
        """A request ended.

        Args:
            tenant: as for `seconds_open`.
            wish: as for `seconds_open`.
            began_at: when it was begun, by `time.monotonic`.
            blame: where its failure is to be laid; ``None`` if it did not fail.
        """
        if blame is Blame.EVERYBODY:
            self._shared.failed(began_at)
        elif blame is Blame.SERVICE:
            self._shared.failed(began_at, tenant)
            if tenant is not None:
                self._of(("tenant", tenant)).failed(began_at, tenant)
        else:
            self._shared.succeeded()
            with self._lock:
                self._own.pop(("tenant", tenant), None)
                if blame is not Blame.ANSWER:
                    self._own.pop(("wish", wish), None)
            if blame is Blame.ANSWER:
                self._of(("wish", wish)).failed(began_at)

    def _of(self, key: Hashable) -> Circuit:
        with self._lock:
            circuit = self._own.get(key)
            if circuit is None:
                while len(self._own) >= MAX_CIRCUITS:
                    del self._own[next(iter(self._own))]
                circuit = self._own[key] = Circuit()
            return circuit
