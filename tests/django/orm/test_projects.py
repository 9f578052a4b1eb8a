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
    assert "all installed models are declared shared" in done.stderr


def test_it_migrates_forwards_and_backwards(settings_of_database: dict[str, object]) -> None:
    for command in (["migrate"], ["migrate", "shop", "zero"], ["migrate"], ["flush", "--no-input"], ["showmigrations"]):
        done = run(settings_of_database, *command)
        assert done.returncode == 0, done.stderr[-4000:]


CURSORS = """
from django.db import connection
from psycopg2 import extensions, extras
from tenantguard import allow_raw, bind, service_identity, system
from tenantguard.errors import TenantGuardError
connection.ensure_connection()
driver = connection.connection
ways = [
    lambda: driver.cursor(cursor_factory=extensions.cursor).execute("SELECT 7"),
    lambda: driver.cursor("named", cursor_factory=extras.RealDictCursor).execute("SELECT 7"),
    lambda: driver.cursor(None, extras.DictCursor).execute("SELECT 7"),
    lambda: driver.cursor(cursor_factory=lambda *a, **k: extensions.cursor(*a, **k)).execute("SELECT 7"),
    lambda: extras.execute_values(driver.cursor(), "SELECT %s", [(7,)]),
    lambda: driver.cursor().copy_expert("COPY (SELECT 7) TO STDOUT", None),
    lambda: driver.lobject(),
]
with bind(service_identity("x", tenant="a")):
    for number, way in enumerate(ways):
        try:
            way()
        except TenantGuardError:
            print("refused", number)
    with allow_raw("a test"):
        cursor = driver.cursor(cursor_factory=extras.RealDictCursor)
        cursor.execute("SELECT 7 AS x")
        print("read", cursor.fetchone()["x"])
"""


def test_a_cursor_of_another_class_asks_as_well(postgres_url: str) -> None:
    done = run({**postgres_settings(postgres_url), "DRIVER": "psycopg2"}, "shell", "-v", "0", "-c", CURSORS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == [word for n in range(7) for word in ("refused", str(n))] + ["read", "7"]


UNKNOWN = """
from django.db import connection, models
from django.db.migrations.recorder import MigrationRecorder
from tenantguard import bind, service_identity
from tenantguard.errors import NotBound, UnclassifiedTable
recorder = MigrationRecorder(connection)
rows = recorder.migration_qs
ways = [
    rows.count,
    lambda: rows.filter(pk__in=rows.values("pk")).first(),
    lambda: rows.create(app="shop", name="mine"),
    lambda: rows.update(name="mine"),
    lambda: rows.delete(),
]
def refusals():
    for way in ways:
        try:
            way()
        except (NotBound, UnclassifiedTable) as error:
            print(type(error).__name__)
print("read", rows.count() > 0)
with bind(service_identity("x", tenant="a")):
    refusals()
class Forgotten(models.Model):
    class Meta:
        app_label = "shop"
refusals()
"""


def test_a_table_of_no_installed_model_is_refused_with_somebody_bound_and_beside_one_model_that_is_not_shared(
    settings_of_database: dict[str, object],
) -> None:
    assert run(settings_of_database, "migrate").returncode == 0
    done = run(settings_of_database, "shell", "-v", "0", "-c", UNKNOWN)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["read", "True", *["UnclassifiedTable"] * 10]
