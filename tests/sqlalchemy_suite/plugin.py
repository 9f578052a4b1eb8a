"""The pytest plugin that SQLAlchemy's suite is run with: it installs the barrier if asked, and records each outcome.

It is loaded by name into the suite's own pytest (``-p tests.sqlalchemy_suite.plugin``) and told what to do by two
options, since the suite's configuration is not ours.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

_stack = ExitStack()
_outcomes: dict[str, tuple[str, str]] = {}


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--tenantguard-barrier", action="store_true")
    parser.addoption("--tenantguard-report", metavar="FILE")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    # Before the suite's conftest, which makes engines while it is configured.
    if "--tenantguard-barrier" in args:
        from tests.sqlalchemy_suite import barrier

        _stack.enter_context(barrier.install())


def pytest_runtest_logreport(report: Any) -> None:
    before = _outcomes.get(report.nodeid, ("", ""))[0]
    if report.failed:
        message = str(report.longrepr).strip().splitlines()[-1] if report.longrepr else ""
        text = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", message))
        _outcomes[report.nodeid] = ("failed", f"{report.when}: {text.strip()[:600]}")
    elif before != "failed" and (report.when == "call" or report.skipped):
        _outcomes[report.nodeid] = ("passed" if report.passed else "skipped", "")


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        _outcomes[f"{report.nodeid} (collection)"] = ("failed", str(report.longrepr)[-600:])


def pytest_sessionfinish(session: Any) -> None:
    from tests.sqlalchemy_suite.barrier import COUNTS, VOUCHED

    path = session.config.getoption("--tenantguard-report")
    if path:
        Path(path).write_text(json.dumps({"outcomes": _outcomes, "counts": COUNTS, "vouched": VOUCHED}))
