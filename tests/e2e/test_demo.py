"""The example and its demo, as a stranger runs them: real processes, real HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.fastapi_app.demo import Attempt, play
from examples.fastapi_app.stage import Stage

ROOT = Path(__file__).parents[2]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.fastapi_app.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def test_the_demo_goes_as_expected_on_sqlite_and_says_so() -> None:
    ran = run_demo("--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    attempts = json.loads(ran.stdout)
    assert len(attempts) >= 12
    assert all(attempt["held"] for attempt in attempts)


def test_the_demo_goes_as_expected_on_postgresql_and_prints_a_table_that_names_each_attempt(postgres_url: str) -> None:
    ran = run_demo("--database-url", postgres_url)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = ran.stdout.replace("\n", " ")
    for words in ("forges", "forgets its", "another issuer", "raw SQL", "expired", "ledger", "went as expected"):
        assert words in shown
    assert "✗" not in shown


def test_the_stage_leaves_no_process_and_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(children_of(os.getpid()))
    with Stage() as stage:
        assert len(set(children_of(os.getpid())) - before) == 4, "three services and a worker"
        assert {stage.issuer_url, stage.app_url, stage.billing_url}
        played = play(stage)
    assert all(attempt.held for attempt in played), [attempt for attempt in played if not attempt.held]
    assert set(children_of(os.getpid())) <= before


def test_an_attempt_that_differs_is_not_held() -> None:
    assert not Attempt("a", "b", expected="401", happened="200").held
