"""``tenantguard rls``: what it prints, applies and finds on a real PostgreSQL, and what it never shows."""

import base64
import json
import secrets
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from tenantguard.cli.main import tenantguard

MODELS = """
    from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
    from tenantguard.orm import owned_through, tenant_key

    metadata = MetaData()
    Table("notes", metadata, Column("id", Integer, primary_key=True),
          Column("tenant_id", String(128), nullable=False, info=tenant_key()))
    Table("lines", metadata, Column("id", Integer, primary_key=True),
          Column("note_id", ForeignKey("notes.id"), nullable=False), info=owned_through("notes"))
"""
TABLES = """
    CREATE TABLE notes (id int PRIMARY KEY, tenant_id varchar(128) NOT NULL);
    CREATE TABLE lines (id int PRIMARY KEY, note_id int NOT NULL REFERENCES notes);
    INSERT INTO notes VALUES (1, 'a'), (2, 'b'); INSERT INTO lines VALUES (1, 1), (2, 2);
"""
KEY = base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    name = f"app_{uuid.uuid4().hex[:8]}"
    yield name
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None:
            admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def run(tmp_path: Path, role: str) -> Callable[..., Result]:
    module = f"app_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(MODELS))

    def invoke(command: str, *arguments: str, key: str | None = KEY) -> Result:
        result = CliRunner().invoke(
            tenantguard,
            ["rls", command, module, "--app-dir", str(tmp_path), "--role", role, *arguments],
            env={"TENANTGUARD_RLS_KEY": key},
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert KEY not in result.output
        return result

    return invoke


def test_what_is_printed_runs_and_what_was_applied_is_found_right(
    run: Callable[..., Result], postgres_url: str, role: str
) -> None:
    url = ["--url", postgres_url]
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(TABLES)
        assert run("check", *url).exit_code == 1
        assert "missing-role" in run("check", *url).stdout
        admin.execute(run("sql").stdout)
        assert "missing-key-of-seal" in run("check", *url).stdout
        for _ in range(2):
            assert run("apply", *url).exit_code == 0
        checked = run("check", *url, "--attempt", "a", "b")
        assert (checked.exit_code, checked.stdout) == (0, "")
        assert "Tables: 2, of tenants: 2, tried as two tenants. Findings: 0." in checked.stderr
        admin.execute("ALTER TABLE lines DISABLE ROW LEVEL SECURITY")
        checked = run("check", *url, "--attempt", "a", "b", "--json")
        assert checked.exit_code == 1
        found = json.loads(checked.stdout)["findings"]
        assert {(one["id"], one["table"]) for one in found} == {("rls-off", "lines"), ("attempt-succeeded", "lines")}
        assert run("apply", *url).exit_code == 0
        assert run("check", *url, "--attempt", "a", "b").exit_code == 0
        assert run("apply", *url, "--down").exit_code == 0
        assert admin.execute("SELECT count(*) FROM pg_policy").fetchone() == (0,)


def test_a_key_is_put_into_a_database_that_a_migration_made(
    run: Callable[..., Result], postgres_url: str, role: str
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(TABLES)
        admin.execute(run("sql").stdout)
        made = CliRunner().invoke(tenantguard, ["rls", "key", "--url", postgres_url], env={"TENANTGUARD_RLS_KEY": KEY})
        assert made.exit_code == 0
        assert KEY not in made.output
        assert run("check", "--url", postgres_url, "--attempt", "a", "b").exit_code == 0
        (name,) = admin.execute("SELECT id FROM tenantguard.seal_keys").fetchone()
        assert made.stderr.strip() == f"Key: {name}."
    made = CliRunner().invoke(tenantguard, ["rls", "key", "--url", postgres_url], env={"TENANTGUARD_RLS_KEY": None})
    assert made.exit_code == 2


def test_the_plain_setting_needs_no_key(run: Callable[..., Result], postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(TABLES)
    assert run("apply", "--url", postgres_url, "--plain", key=None).exit_code == 0
    assert run("check", "--url", postgres_url, "--plain", "--attempt", "a", "b", key=None).exit_code == 0
    assert "changed-function" in run("check", "--url", postgres_url).stdout  # the functions are those of the plain one


@pytest.mark.parametrize(
    ("key", "said"),
    [(None, "Put the key into TENANTGUARD_RLS_KEY"), ("c2hvcnQ=", "no base64 of 32 bytes"), ("?", "no base64")],
)
def test_a_key_that_is_missing_or_bad_is_said_and_nothing_is_done(
    run: Callable[..., Result], postgres_url: str, key: str | None, said: str
) -> None:
    result = run("apply", "--url", postgres_url, key=key)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("url", ["postgresql://app:pass-word@127.0.0.1:1/app", "nodb://app:pass-word@db", "sqlite://"])
def test_a_database_that_can_not_be_used_is_said_without_its_password(run: Callable[..., Result], url: str) -> None:
    result = run("check", "--url", url)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert "pass-word" not in result.output


def test_tables_that_are_not_there_end_it_with_what_postgresql_says(
    run: Callable[..., Result], postgres_url: str
) -> None:
    result = run("apply", "--url", postgres_url)
    assert result.exit_code == 1
    assert 'PostgreSQL refused it: relation "public.notes" does not exist' in result.stderr


def test_two_tenants_that_are_one_are_refused(run: Callable[..., Result], postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(TABLES)
    run("apply", "--url", postgres_url)
    assert run("check", "--url", postgres_url, "--attempt", "a", "a").exit_code == 2


def test_it_has_help() -> None:
    for command in (["rls"], ["rls", "sql"], ["rls", "apply"], ["rls", "key"], ["rls", "check"]):
        result = CliRunner().invoke(tenantguard, [*command, "--help"], prog_name="tenantguard")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: tenantguard {' '.join(command)}")
