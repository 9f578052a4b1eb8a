"""``tenantguard tenants``: the way of a tenant from its first day to its last, and what goes wrong on it."""

import json
import textwrap
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, make_url

from tenantguard.cli.main import tenantguard

MODELS = """
    from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
    from tenantguard.orm import owned_through, tenant_key

    metadata = MetaData()
    Table("notes", metadata, Column("id", Integer, primary_key=True), Column("title", String(80)),
          Column("tenant_id", String(128), nullable=False, info=tenant_key()))
    Table("lines", metadata, Column("id", Integer, primary_key=True),
          Column("note_id", ForeignKey("notes.id"), nullable=False), info=owned_through("notes"))
"""
TABLES = (
    "CREATE TABLE notes (id integer PRIMARY KEY, title varchar(80), tenant_id varchar(128) NOT NULL)",
    "CREATE TABLE lines (id integer PRIMARY KEY, note_id integer NOT NULL REFERENCES notes)",
    "INSERT INTO notes VALUES (1, 'a secret', 'acme'), (2, 'b secret', 'globex')",
    "INSERT INTO lines VALUES (1, 1), (2, 2)",
)
ENV = """
    from alembic import context
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
"""
VERSION = """
    from alembic import op
    revision, down_revision = "001", None
    def upgrade():
        op.execute("ALTER TABLE notes ADD COLUMN stars integer")
"""


class Console:
    """Runs commands with the databases of a test."""

    def __init__(self, path: Path, shared: str, tenants: str | None) -> None:
        self.path = path
        self.module = f"app_{uuid.uuid4().hex[:8]}"
        (path / f"{self.module}.py").write_text(textwrap.dedent(MODELS))
        self.environment: dict[str, str | None] = {
            "TENANTGUARD_CONTROL_DATABASE_URL": shared,
            "TENANTGUARD_OWNER_DATABASE_URL": shared,
            "TENANTGUARD_TENANT_DATABASES_URL": tenants,
        }
        engine = create_engine(shared)
        with engine.begin() as connection:
            for statement in TABLES:
                connection.exec_driver_sql(statement)
        engine.dispose()
        self.run("create-tables", models=False)

    def run(self, command: str, *arguments: str, models: bool = True, code: int = 0, **options: Any) -> Result:
        targets = [*arguments, self.module, "--app-dir", str(self.path)] if models else [*arguments]
        result = CliRunner().invoke(tenantguard, ["tenants", command, *targets], env=self.environment, **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "secret" not in result.output
        assert result.exit_code == code, result.output
        return result

    def json(self, command: str, *arguments: str, **options: Any) -> Any:
        return json.loads(self.run(command, *arguments, "--json", **options).stdout)


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path, f"sqlite:///{tmp_path}/shared.db", f"sqlite:///{tmp_path}/{{database}}.db")


@pytest.fixture
def on_postgres(tmp_path: Path, postgres_url: str) -> Console:
    url = make_url(postgres_url).set(drivername="postgresql+psycopg")
    return Console(tmp_path, str(url), None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches of processes that do not exist need not run out."""
    import tenantguard.cli.tenant_options as options

    original = options.SqlTenants
    monkeypatch.setattr(options, "SqlTenants", lambda url: original(url, ttl=0.0))


def test_the_way_of_a_tenant(console: Console, tmp_path: Path) -> None:
    made = console.run("create", "acme", "--name", "Acme Inc.", "--plan", "gold")
    assert "register" in made.stderr
    assert "The tenant acme is set up. Place: shared." in made.stderr
    console.run("create", "globex")
    listed = console.run("list", models=False).stdout.splitlines()
    assert listed[0].split() == ["TENANT", "NAME", "PLAN", "PLACE", "UNDER", "WAY", "STATUS"]
    assert listed[1].split("  ")[0] == "acme"
    assert [one["id"] for one in console.json("list", "--plan", "gold", models=False)] == ["acme"]

    exported = console.json("export", "acme", "--to", str(tmp_path / "out"))
    assert {table["table"]: table["rows"] for table in exported["tables"]} == {"notes": 1, "lines": 1}

    moved = console.json("move", "acme", "--to", "database")
    assert (moved["status"], moved["moved_from"]["database"]) == ("active", None)
    assert moved["placement"]["database"].startswith("t_acme_")
    assert {name: one["rows"] for name, one in moved["tables"].items()} == {"notes": 1, "lines": 1}

    erased = console.json("erase", "acme", "--yes")
    assert {one["table"]: (one["before"], one["deleted"], one["after"]) for one in erased["tables"]} == {
        "notes": (1, 1, 0),
        "lines": (1, 1, 0),
    }
    assert console.json("list", "--status", "suspended", models=False)[0]["id"] == "acme"
    restored = console.run("restore", "acme", "--from", str(tmp_path / "out"))
    assert "The tenant acme is restored. Rows: 2." in restored.stderr
    assert console.json("activate", "acme", models=False)["status"] == "active"
    assert console.json("suspend", "acme", models=False)["status"] == "suspended"

    removed = console.run("remove", "acme", "--yes")
    assert removed.stdout.splitlines()[0].split() == ["TABLE", "BEFORE", "DELETED", "AFTER"]
    assert "The tenant acme is removed. Rows: 2." in removed.stderr
    assert [one["id"] for one in console.json("list", models=False)] == ["globex"]
    assert console.json("list", "--status", "removed", models=False)[0]["name"] is None
    assert not list(tmp_path.glob("t_acme_*"))
    engine = create_engine(f"sqlite:///{tmp_path}/shared.db")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM notes").scalars().all() == [2]
    engine.dispose()


def test_schemas_are_made_migrated_and_removed(on_postgres: Console, tmp_path: Path) -> None:
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(textwrap.dedent(ENV))
    (scripts / "versions" / "001.py").write_text(textwrap.dedent(VERSION))
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {scripts}\npath_separator = os\n")
    for tenant in ("acme", "globex"):
        made = on_postgres.json("create", tenant, "--place", "schema", "--place-name", f"t_{tenant}")
        assert made["placement"] == {"database": None, "schema": f"t_{tenant}"}
    engine = create_engine(str(on_postgres.environment["TENANTGUARD_OWNER_DATABASE_URL"]))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE t_globex.notes ADD COLUMN stars integer")
    failed = on_postgres.run("migrate", "--config", str(ini), "--jobs", "2", code=1)
    assert "failed in schema t_globex" in failed.stdout
    assert 'column "stars" of relation "notes" already exists' in failed.stdout
    assert "Places: 3. done: 2, earlier: 0, failed: 1, open: 0." in failed.stderr
    assert "--resume" in failed.stderr
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE t_globex.notes DROP COLUMN stars")
    report = on_postgres.json("migrate", "--config", str(ini), "--resume")
    assert [one["state"] for one in report["results"]] == ["earlier", "earlier", "done"]
    new = on_postgres.json("create", "initech", "--place", "schema", "--alembic", str(ini))
    with engine.connect() as connection:
        schema = new["placement"]["schema"]
        assert connection.exec_driver_sql(f"SELECT version_num FROM {schema}.alembic_version").scalar() == "001"
    on_postgres.run("remove", "acme", "--yes")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT to_regnamespace('t_acme')").scalar() is None
    engine.dispose()


def test_a_failed_start_is_gone_on_with_or_taken_back(on_postgres: Console) -> None:
    engine = create_engine(str(on_postgres.environment["TENANTGUARD_OWNER_DATABASE_URL"]))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA t_taken")
        connection.exec_driver_sql("CREATE TABLE t_taken.x (id int)")
    failed = on_postgres.run("create", "acme", "--place", "schema", "--place-name", "t_taken", code=1)
    assert "There is a schema of that name already" in failed.stderr
    (listed,) = on_postgres.json("list", models=False)
    assert (listed["status"], listed["operation"]) == ("provisioning", "create")
    assert on_postgres.run("cancel", "acme", "--json").stdout == "null\n"
    assert on_postgres.json("list", models=False) == []
    on_postgres.run("create", "acme", "--place", "schema")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t_taken.x").scalar() == 0
    engine.dispose()


def test_rows_are_not_gone_without_a_yes(console: Console) -> None:
    console.run("create", "acme")
    for command in ("erase", "remove"):
        refused = console.run(command, "acme", code=2)
        assert "Give --yes" in refused.stderr
    assert console.json("list", models=False)[0]["status"] == "active"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "no/id"], 2, "The tenant id is not usable"),
        (["create", "acme", "--place", "schema"], 2, "SQLite has no schemas"),
        (["create", "acme", "--place-name", "x"], 2, "The shared place has no name"),
        (["create", "acme", "--place", "database", "--place-name", "../x"], 2, "name that can't be used"),
        (["create", "acme", "--place", "database", "--in-database", "x"], 2, "is for schemas"),
        (["move", "nobody", "--to", "database"], 1, "There is no tenant of that id"),
        (["remove", "nobody", "--yes"], 1, "There is no tenant of that id"),
        (["cancel", "nobody"], 1, "There is no open move"),
        (["create", "acme", "--rls", "plain", "--place", "shared"], 0, "is set up"),
        (["export", "nobody", "--to", "out"], 1, "There is no tenant of that id"),
    ],
)
def test_what_can_not_be_done_is_said(console: Console, arguments: list[str], code: int, said: str) -> None:
    result = console.run(*arguments, code=code)
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("url", ["postgresql+psycopg://app:pass-word@127.0.0.1:1/app", "nodb://app:pass-word@db", "x"])
def test_a_database_that_can_not_be_used_is_said_without_its_password(console: Console, url: str) -> None:
    for variable in ("TENANTGUARD_CONTROL_DATABASE_URL", "TENANTGUARD_OWNER_DATABASE_URL"):
        before = console.environment[variable]
        console.environment[variable] = url
        result = CliRunner().invoke(
            tenantguard,
            ["tenants", "create", "acme", console.module, "--app-dir", str(console.path), "--place", "database"],
            env=console.environment,
        )
        console.environment[variable] = before
        assert "pass-word" not in result.output
        assert isinstance(result.exception, SystemExit) or result.exception is None


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    from tenantguard.cli.progress import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress() as tell:
        tell("copy \x1b[31mrows", 1, 3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/3" in shown.err
    assert "\x1b[31mrows" not in shown.err


def test_it_has_help() -> None:
    commands = "create-tables list create move cancel suspend activate erase remove export restore migrate".split()
    for command in ([], *([one] for one in commands)):
        result = CliRunner().invoke(tenantguard, ["tenants", *command, "--help"], prog_name="tenantguard")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: tenantguard {' '.join(['tenants', *command])}")
