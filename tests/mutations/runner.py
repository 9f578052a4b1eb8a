"""Runs tests with one mutant at a time, until one of them is red. The files of the repository stay as they are.

Importing and collecting take longer than most mutants live. So a worker collects the tests once and forks for each
mutant, which is then patched into the fork (`tests.mutations.patching`), and runs the tests that reach its lines: who
does is found once, by `trace`. A mutant that can't be patched in stands in a
copy of the package, in a directory of its own that comes first on the path of a new process.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import pytest

from tests.mutations.derived import Mutant, package_of, path_of
from tests.mutations.patching import is_in_functions, patch
from tests.mutations.selection import SELECTIONS, Selection

__all__ = ["Reached", "Run", "Worker"]

Reached = dict[tuple[str, int], list[str]]
"""The tests that reach a line, by module and line."""

_OPTIONS: Final = ("-x", "-q", "--tb=line", "-p", "no:cacheprovider")
_MOST_KILLERS: Final = 8
_STARTING: Final = 180
_TRACING: Final = 1200
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
        orm: the name of a selection.
        limit: seconds for the tests of one mutant on SQLite, and again on the servers.
        servers: whether survivors are run on PostgreSQL and MariaDB as well.
    """

    def __init__(self, orm: str, limit: float, *, servers: bool) -> None:
        self._selection = SELECTIONS[orm]
        self._limit = limit
        self._servers = servers
        context = multiprocessing.get_context("spawn")
        self._tests, theirs = context.Pipe()
        self._process = context.Process(target=_collect_and_wait, args=(theirs, orm, limit), daemon=True)
        self._process.start()
        theirs.close()
        self._killers: dict[str, list[str]] = {}

    def trace(self) -> Reached | Run:
        """Run all tests on the package as it is. Returns what reaches which line, or the run if it is not green."""
        self._tests.send(None)
        found: Reached | Run = self._tests.recv()
        return found

    def judge(self, mutant: Mutant, reached: Reached) -> Run:
        """Run the tests that reach a mutant: first those that have killed others like it."""
        tests = list(dict.fromkeys(test for line in mutant.lines for test in reached.get((mutant.module, line), ())))
        if not tests or not is_in_functions(mutant):  # such as what runs when the package is imported
            first, on_sqlite = self._selection.first[mutant.module], self._selection.on_sqlite
            run = self._in_copy(mutant, first, on_sqlite)
            rest = tuple(file for file in self._selection.all if file not in first)
            if run.verdict == "green":
                run = self._in_copy(mutant, rest, on_sqlite)
        else:
            killers = self._killers.setdefault(mutant.module, [])
            self._tests.send((mutant, [one for one in killers if one in tests], tests))
            if not self._tests.poll(self._limit + _STARTING):
                return Run("broken", self._limit)
            run = self._tests.recv()
            if run.test:
                killers[:] = [run.test, *(one for one in killers if one != run.test)][:_MOST_KILLERS]
        if self._servers and run.verdict == "green":
            run = self._in_copy(mutant, self._selection.all, self._selection.on_servers)
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
            package = package_of(mutant.module)
            copied = Path(shutil.copytree(package, Path(directory, package.name)))
            (copied / path_of(mutant.module).relative_to(package)).write_text(mutant.code)
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


def _collect_and_wait(mutants: Connection, orm: str, limit: float) -> None:
    selection = SELECTIONS[orm]
    with tempfile.TemporaryDirectory(prefix="tenantguard-mutants-") as directory:
        with Path(directory, "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        options = [*_OPTIONS, f"--basetemp={directory}/pytest", "-k", selection.on_sqlite]
        pytest.main([*options, *selection.all], plugins=[_ForkForEach(mutants, selection, limit)])


class _ForkForEach:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, mutants: Connection, selection: Selection, limit: float) -> None:
        self._mutants = mutants
        self._selection = selection
        self._limit = limit

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        while True:
            try:
                order = self._mutants.recv()
            except EOFError:
                return True
            ours, theirs = multiprocessing.Pipe()
            began = time.monotonic()
            child = os.fork()
            if not child:
                theirs.send(
                    _reached(session, self._selection) if order is None else _red_test(session, self._selection, *order)
                )
                os._exit(0)
            theirs.close()
            answer: Any = Run("late", self._limit)
            try:
                if ours.poll(self._limit if order is not None else _TRACING):
                    answer = ours.recv()
            except EOFError:
                answer = Run("red", 0.0, "the process ended")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            self._mutants.send(answer._replace(seconds=time.monotonic() - began) if isinstance(answer, Run) else answer)


def _red_test(
    session: pytest.Session, selection: Selection, mutant: Mutant, killers: list[str], tests: list[str]
) -> Run:
    if not patch(mutant):
        return Run("broken", 0.0)
    places = [*killers, *selection.first[mutant.module]]

    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return next((at for at, one in enumerate(places) if one in (item.nodeid, file)), len(places))

    # What the package remembers of a class or table is found out once, by whichever test comes first; so the module's
    # own tests run in any case.
    wanted, own = set(tests), set(selection.first[mutant.module])
    picked = (item for item in session.items if item.nodeid in wanted or item.nodeid.partition("::")[0] in own)
    items: list[Any] = sorted(picked, key=place)
    for item, following in zip(items, [*items[1:], None], strict=True):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return Run("red", 0.0, item.nodeid)
    return Run("green", 0.0)


def _reached(session: pytest.Session, selection: Selection) -> Reached | Run:
    found: Reached = {}
    lines: set[tuple[str, int]] = set()
    modules = {str(path_of(module)): module for module in selection.first}

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        module = modules.get(frame.f_code.co_filename)
        if module is None:
            return None

        def line(frame: FrameType, _event: str, _argument: object) -> Any:
            lines.add((module, frame.f_lineno))
            return line

        return line

    items: list[Any] = session.items
    for item, following in zip(items, [*items[1:], None], strict=True):
        lines.clear()
        threading.settrace(enter)
        sys.settrace(enter)
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.settrace(None)
        if session.testsfailed:
            return Run("red", 0.0, item.nodeid)
        for one in set(lines):
            found.setdefault(one, []).append(item.nodeid)
    return found
