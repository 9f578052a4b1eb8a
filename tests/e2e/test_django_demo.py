"""The Django example and its demo, as a stranger runs them: real processes, real HTTP."""

import base64
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import psycopg

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


def test_row_level_security_is_applied_and_what_is_taken_away_is_found(postgres_url: str) -> None:
    role, key = f"documents_{secrets.token_hex(4)}", base64.b64encode(secrets.token_bytes(32)).decode()
    environment = {"DATABASE_URL": postgres_url, "TENANTGUARD_RLS_KEY": key}

    def rls(*arguments: str) -> tuple[int, str]:
        ran = run("examples.django_app.manage", "tenantguard_rls", *arguments, "--role", role, **environment)
        assert key not in ran.stdout + ran.stderr
        return ran.returncode, ran.stdout

    assert run("examples.django_app.manage", "migrate", **environment).returncode == 0
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN")
        try:
            assert rls("check")[0] == 1
            assert rls("apply")[0] == 0
            assert rls("check", "--attempt", "acme", "globex") == (0, "")
            owner.execute("ALTER TABLE documents_document NO FORCE ROW LEVEL SECURITY")
            code, found = rls("check")
            assert code == 1
            assert "documents_document" in found
            assert rls("apply")[0] == 0
            assert rls("check") == (0, "")
        finally:
            owner.execute(f"DROP OWNED BY {role}")
            owner.execute(f"DROP ROLE {role}")


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
