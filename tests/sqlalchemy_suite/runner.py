"""Run SQLAlchemy's test modules in processes of their own, without and with the barrier, and compare the outcomes."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from tests.sqlalchemy_suite.databases import database_urls
from tests.sqlalchemy_suite.modules import exclusion_of

__all__ = ["Comparison", "Outcomes", "compare", "run", "run_once"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_SECONDS: Final = 1800
"""How long one process may take."""


@dataclass
class Outcomes:
    """What became of the tests of some modules, and what the barrier did meanwhile."""

    tests: dict[str, tuple[str, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    vouched: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Outcomes") -> None:
        """Take in those of other modules."""
        self.tests |= other.tests
        self.counts += other.counts
        self.vouched += other.vouched


@dataclass
class Comparison:
    """The tests of both runs, by what came out."""

    passed: int = 0
    """Those that pass without the barrier and with it."""
    broken: dict[str, str] = field(default_factory=dict)
    """Those that pass without it and do not pass with it, and how they end."""
    excluded: dict[str, list[str]] = field(default_factory=dict)
    """Those of them that are excluded, by the reason."""
    needless: list[str] = field(default_factory=list)
    """The names in the list of exclusions of which every test passes."""
    failed_before: list[str] = field(default_factory=list)
    """Those that fail without the barrier too."""
    skipped: int = 0


def compare(without: Outcomes, barrier: Outcomes) -> Comparison:
    """Compare the outcomes without and with the barrier."""
    result = Comparison()
    passing: dict[str, None] = {}
    failing: set[str] = set()
    for test, (outcome, _) in without.tests.items():
        now, message = barrier.tests.get(test, ("missing", "The test was not run."))
        exclusion = exclusion_of(test)
        if outcome == "failed":
            result.failed_before.append(test)
        elif outcome == "skipped" and now == "skipped":
            result.skipped += 1
        elif now == "passed":
            result.passed += 1
            if exclusion is not None:
                passing.setdefault(exclusion[0])
        elif exclusion is not None:
            result.excluded.setdefault(exclusion[1], []).append(test)
            failing.add(exclusion[0])
        else:
            result.broken[test] = f"{now}: {message}"
    for test, (outcome, message) in barrier.tests.items():
        if test not in without.tests and outcome == "failed":
            result.broken[test] = message
    result.needless = [name for name in passing if name not in failing]
    return result


def run(
    source: Path, batches: Sequence[Sequence[str]], database: str, jobs: int
) -> Iterator[tuple[Sequence[str], bool, Outcomes]]:
    """Run each batch of modules twice, and yield what came out as it comes: the batch, whether with the barrier.

    Args:
        source: the directory of SQLAlchemy's source distribution.
        batches: the modules of one process each.
        database: one of `tests.sqlalchemy_suite.modules.DATABASES`.
        jobs: processes at once.
    """
    with ExitStack() as stack:
        urls: SimpleQueue[str] = SimpleQueue()
        for url in stack.enter_context(database_urls(database, jobs)):
            urls.put(url)
        pool = stack.enter_context(ThreadPoolExecutor(jobs))

        def work(batch: Sequence[str], barrier: bool) -> tuple[Sequence[str], bool, Outcomes]:
            url = urls.get()
            try:
                return batch, barrier, run_once(source, batch, url, barrier=barrier)
            finally:
                urls.put(url)

        futures = [pool.submit(work, batch, barrier) for batch, barrier in product(batches, (False, True))]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def run_once(source: Path, modules: Sequence[str], url: str, *, barrier: bool) -> Outcomes:
    """Run modules in one process.

    Args:
        source: the directory of SQLAlchemy's source distribution.
        modules: paths inside of it.
        url: of the database.
        barrier: whether with the barrier.
    """
    with _working_copy(source) as directory:
        report = directory / "outcomes.json"
        command = [
            # -s: so that SQLAlchemy is the installed one, with its compiled parts, and not the one beside the tests.
            *(sys.executable, "-s", "-m", "pytest", "-p", "tests.sqlalchemy_suite.plugin", "-p", "no:cacheprovider"),
            *("-q", "--tb=short", "--maxfail=1000000", "--dburi", url, "--tenantguard-report", str(report)),
            *(["--tenantguard-barrier"] if barrier else []),
            *modules,
        ]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTEST_ADDOPTS", None)
        environment.pop("PYTEST_XDIST_WORKER", None)
        log = directory / "output.txt"
        with log.open("wb") as output:
            try:
                subprocess.run(
                    command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=_SECONDS
                )
            except subprocess.TimeoutExpired:
                output.write(f"\nIt did not end within {_SECONDS} seconds.\n".encode())
        if not report.is_file():
            return Outcomes(
                {f"{', '.join(modules)} (the process)": ("failed", log.read_text(errors="replace")[-2000:])}
            )
        found: dict[str, Any] = json.loads(report.read_text())
    tests = {name: (outcome, message) for name, (outcome, message) in found["outcomes"].items()}
    return Outcomes(tests, Counter(found["counts"]), Counter(found["vouched"]))


@contextmanager
def _working_copy(source: Path) -> Iterator[Path]:
    """A directory that looks like the source: the tests write database files into the one in which they run."""
    with tempfile.TemporaryDirectory(prefix="tg-sa-") as name:
        directory = Path(name)
        for path in source.iterdir():
            (directory / path.name).symlink_to(path)
        yield directory
