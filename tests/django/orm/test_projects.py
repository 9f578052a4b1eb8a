"""A project that was not written for tenants runs its own tests behind the barrier, and migrates."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.django.orm.conftest import postgres_settings

PROJECT = Path(__file__).parent / "project"


def _without_driver(database: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in database.items() if name != "DRIVER"}


def run(database: dict[str, object], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "run.py", json.dumps({"default": _without_driver(database)}), *command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "DRIVER": str(database.get("DRIVER", ""))},
    )


@pytest.fixture(params=["sqlite", "sqlite in memory", "psycopg", "psycopg2"])
def settings_of_database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, object]:
    if request.param.startswith("psycopg"):
        return {**postgres_settings(request.getfixturevalue("postgres_url")), "DRIVER": request.param}
    made: dict[str, object] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.db")}
    if request.param == "sqlite":
        made["TEST"] = {"NAME": str(tmp_path / "test.db")}
    return made


def test_its_own_tests_stay_green(settings_of_database: dict[str, object]) -> None:
    done = run(settings_of_database, "test", "--verbosity", "1")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "OK" in done.stderr


def test_it_migrates_forwards_and_backwards(settings_of_database: dict[str, object]) -> None:
    for command in (["migrate"], ["migrate", "shop", "zero"], ["migrate"], ["flush", "--no-input"], ["showmigrations"]):
        done = run(settings_of_database, *command)
        assert done.returncode == 0, done.stderr[-4000:]
