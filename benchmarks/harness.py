"""How things are timed: rounds that take turns, so that all see the same machine, and medians of them."""

import gc
import statistics
import time
from collections.abc import Callable

__all__ = ["compare"]


def compare(
    runs: dict[str, Callable[[], object]],
    *,
    rounds: int = 15,
    seconds: float = 0.04,
    pick: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Return the microseconds of one call of each.

    Args:
        runs: what to time, by name.
        rounds: how often each is timed.
        seconds: about how long one round of one of them lasts.
        pick: which of the rounds counts: the median, or ``min`` where others use the machine.
    """
    calls = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        for _ in range(5):
            run()
        calls[name] = max(5, int(seconds / ((time.perf_counter() - start) / 5)))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            count = calls[name]
            start = time.perf_counter()
            for _ in range(count):
                run()
            samples[name].append((time.perf_counter() - start) / count * 1e6)
    return {name: pick(taken) for name, taken in samples.items()}
