"""The Django example and its demo, as a stranger runs them: real processes, real HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_goes_as_expected_on_sqlite() -> None:
    ran = run("examples.django_app.demo", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    attempts = json.loads(ran.stdout)
    assert len(attempts) >= 20
    assert all(attempt["held"] for attempt in attempts)
    tried = " ".join(attempt["tried"] for attempt in attempts)
    for words in ("forgets its", "another issuer", "raw SQL", "expired", "billing", "admin"):
        assert words in tried


def test_the_demo_goes_as_expected_on_postgresql(postgres_url: str) -> None:
    ran = run("examples.django_app.demo", "--json", "--database-url", postgres_url)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert all(attempt["held"] for attempt in json.loads(ran.stdout))


def manage(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("examples.django_app.manage", *arguments, DATABASE_URL=f"sqlite:///{tmp_path / 'example.db'}")


def test_the_project_passes_its_own_checks_and_has_all_its_migrations(tmp_path) -> None:
    checked = manage(tmp_path, "check", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
    missing = manage(tmp_path, "makemigrations", "--check", "--dry-run")
    assert missing.returncode == 0, missing.stdout


def test_the_doctor_finds_nothing_to_mend(tmp_path) -> None:
    report = manage(tmp_path, "tenantguard_doctor", "--json")
    assert report.returncode == 0, report.stdout + report.stderr
    assert json.loads(report.stdout)["findings"] == []


def test_commands_run_as_a_service_of_one_company(tmp_path) -> None:
    script = "from examples.django_app.serve import prepare; prepare()"
    prepared = manage(tmp_path, "shell", "-c", script)
    assert prepared.returncode == 0, prepared.stderr
    dumped = manage(tmp_path, "tenantguard_run_as", "--tenant", "globex", "dumpdata", "documents.document")
    assert dumped.returncode == 0, dumped.stderr
    titles = sorted(record["fields"]["title"] for record in json.loads(dumped.stdout))
    assert titles == ["Ocean study", "Weather machine"]
    unbound = manage(tmp_path, "dumpdata", "documents.document")
    assert unbound.returncode != 0
    assert "Ocean" not in unbound.stdout + unbound.stderr
