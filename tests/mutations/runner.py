"""Runs tests with one mutant at a time, until one of them is red. The files of the repository stay as they are.

Importing and collecting take longer than most mutants live. So a worker collects the tests once and forks for each
mutant, which is then patched into the fork (`tests.mutations.patching`). A mutant that can't be patched in stands in a
copy of the package, in a directory of its own that comes first on the path of a new process.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.mutations.derived import PACKAGE, Mutant
from tests.mutations.patching import is_in_functions, patch
from tests.mutations.selection import ALL, FIRST, ON_SERVERS, ON_SQLITE

__all__ = ["Run", "Worker"]

_OPTIONS: Final = ("-x", "-q", "--tb=line", "-p", "no:cacheprovider")
_MOST_KILLERS: Final = 8
_STARTING: Final = 180
_ONE_COPY: Final = "import sys, pytest; sys.path[:0] = [sys.argv[1], '.']; sys.exit(pytest.main(sys.argv[2:]))"


class Run(NamedTuple):
    """What the tests said.

    Args:
        verdict: ``"green"``, ``"red"``, ``"broken"`` where they could not be run, ``"late"`` at the time limit.
        seconds: how long they took.
        test: the one that was red.
    """

    verdict: str
    seconds: float
    test: str = ""


class Worker:
    """A process that has collected the tests, and forks for each mutant.

    Args:
        limit: seconds for the tests of one mutant on SQLite, and again on the servers.
        servers: whether survivors are run on PostgreSQL and MariaDB as well.
    """

    def __init__(self, limit: float, *, servers: bool) -> None:
        self._limit = limit
        self._servers = servers
        context = multiprocessing.get_context("spawn")
        self._tests, theirs = context.Pipe()
        self._process = context.Process(target=_collect_and_wait, args=(theirs, limit), daemon=True)
        self._process.start()
        theirs.close()
        self._killers: dict[str, list[str]] = {}

    def judge(self, mutant: Mutant | None) -> Run:
        """Run the tests with a mutant, or with the package as it is: first those that have killed others like it."""
        if mutant is not None and not is_in_functions(mutant):
            run = self._in_copy(mutant, FIRST[mutant.module], ON_SQLITE)
            rest = tuple(file for file in ALL if file not in FIRST[mutant.module])
            if run.verdict == "green":
                run = self._in_copy(mutant, rest, ON_SQLITE)
        else:
            killers = self._killers.setdefault(mutant.module, []) if mutant is not None else []
            self._tests.send((mutant, killers))
            if not self._tests.poll(self._limit + _STARTING):
                return Run("broken", self._limit)
            run = self._tests.recv()
            if run.test:
                killers[:] = [run.test, *(one for one in killers if one != run.test)][:_MOST_KILLERS]
        if mutant is not None and self._servers and run.verdict == "green":
            run = self._in_copy(mutant, ALL, ON_SERVERS)
        return run

    def close(self) -> None:
        """End the process."""
        self._tests.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()

    def _in_copy(self, mutant: Mutant, files: Sequence[str], keyword: str) -> Run:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tenantguard-mutant-") as directory:
            shutil.copytree(PACKAGE, Path(directory, PACKAGE.name))
            Path(directory, PACKAGE.name, f"{mutant.module}.py").write_text(mutant.code)
            options = (*_OPTIONS, f"--basetemp={directory}/pytest", "-k", keyword)
            process = subprocess.Popen(
                [sys.executable, "-c", _ONE_COPY, directory, *options, *files],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                text, _ = process.communicate(timeout=self._limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return Run("late", self._limit)
        lines = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        verdict = {0: "green", 1: "red"}.get(process.returncode, "red" if lines else "broken")
        return Run(verdict, time.monotonic() - began, lines[-1].split()[1] if lines else "")


def _collect_and_wait(mutants: Connection, limit: float) -> None:
    with tempfile.TemporaryDirectory(prefix="tenantguard-mutants-") as directory:
        with Path(directory, "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        options = [*_OPTIONS, f"--basetemp={directory}/pytest", "-k", ON_SQLITE]
        pytest.main([*options, *ALL], plugins=[_ForkForEach(mutants, limit)])


class _ForkForEach:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, mutants: Connection, limit: float) -> None:
        self._mutants = mutants
        self._limit = limit

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        while True:
            try:
                mutant, killers = self._mutants.recv()
            except EOFError:
                return True
            began = time.monotonic()
            ours, theirs = multiprocessing.Pipe()
            child = os.fork()
            if not child:
                theirs.send(_red_test(session, mutant, killers))
                os._exit(0)
            theirs.close()
            limit = self._limit if mutant is not None else 10 * self._limit
            verdict, test = "broken", ""
            try:
                verdict, test = ours.recv() if ours.poll(limit) else ("late", "")
            except EOFError:
                test = "the process"
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            self._mutants.send(Run(verdict, time.monotonic() - began, test))


def _red_test(session: pytest.Session, mutant: Mutant | None, killers: list[str]) -> tuple[str, str]:
    if mutant is not None and not patch(mutant):
        return "broken", ""
    places = [*killers, *(FIRST[mutant.module] if mutant is not None else ())]

    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return next((at for at, one in enumerate(places) if one in (item.nodeid, file)), len(places))

    items: list[Any] = sorted(session.items, key=place)
    for item, following in zip(items, [*items[1:], None], strict=True):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return "red", item.nodeid
    return "green", ""
