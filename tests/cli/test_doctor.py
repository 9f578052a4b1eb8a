"""``tenantguard doctor orm``: in a process of its own as people run it, and the rest through click's runner."""

import json
import re
import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tenantguard.cli.main import tenantguard
from tests.cli.test_api_keys import COMMAND, environment, on_terminal

FAULTY = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from tenantguard import TenantOwned

    print("an app that prints while it is imported")

    class Base(DeclarativeBase):
        pass

    class User(TenantOwned, Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(unique=True)

    class Log(Base):
        __tablename__ = "log"
        id: Mapped[int] = mapped_column(primary_key=True)
"""
TIDY = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from tenantguard.orm import shared, stamp_tenant, tenant_key

    class Base(DeclarativeBase):
        pass

    class Invoice(Base):
        __tablename__ = "invoices"
        tenant_id: Mapped[str] = mapped_column(primary_key=True, default=stamp_tenant, info=tenant_key())
        number: Mapped[int] = mapped_column(primary_key=True)
"""
Write = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path) -> Write:
    """Write a module into the app's directory, and return its name, which is new each time."""

    def write(text: str) -> str:
        name = f"app_{uuid.uuid4().hex[:8]}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(
            tenantguard, ["doctor", "orm", "--app-dir", str(tmp_path), *arguments], env={"NO_COLOR": None}
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


# --- as people run it ----------------------------------------------------------------------------------------------


def test_the_current_directory_is_examined_in_a_process_of_its_own(tmp_path: Path, module: Write) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / module(FAULTY)).with_suffix(".py").rename(tmp_path / "shop" / "models.py")

    def operator(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "doctor", "orm", *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    ran = operator("shop.models")
    assert ran.returncode == 1, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["TABLE", "CLASS", "WHOSE", "ROWS", "FINDINGS"]
    assert re.fullmatch(r"log +unclassified +see below +1", lines[1])
    assert re.fullmatch(r"users +owned +users\.tenant_id +2", lines[2])
    assert "error unclassified-table: log" in lines
    assert "warning key-without-tenant: users" in lines
    assert "    ALTER TABLE users DROP CONSTRAINT users_email_key;" in lines
    assert "Tables: 2. Findings: error: 1, warning: 1, advice: 1." in ran.stderr
    assert "an app that prints" in ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr

    assert json.loads(operator("shop.models:Base", "--json").stdout)["tables"][0]["name"] == "log"
    assert operator("--app-dir", "shop", "models").returncode == 1


def test_a_terminal_gets_colours_unless_it_wants_none(tmp_path: Path, module: Write) -> None:
    name = module(TIDY)
    arguments = ("doctor", "orm", name, "--app-dir", str(tmp_path))
    assert "\x1b[32mowned" in on_terminal(*arguments)
    plain = on_terminal(*arguments, NO_COLOR="1")
    assert "owned" in plain
    assert "\x1b" not in plain


# --- what it prints ------------------------------------------------------------------------------------------------


def test_json_has_all_that_was_found(module: Write, run: Callable[..., Result]) -> None:
    result = run(module(FAULTY), "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["dialect"] == "postgresql"
    assert [(table["name"], table["kind"]) for table in answer["tables"]] == [
        ("log", "unclassified"),
        ("users", "owned"),
    ]
    assert answer["tables"][1]["findings"][0] == {
        "id": "key-without-tenant",
        "severity": "warning",
        "table": "users",
        "message": answer["tables"][1]["findings"][0]["message"],
        "mend": answer["tables"][1]["findings"][0]["mend"],
        "ddl": [
            "CREATE UNIQUE INDEX CONCURRENTLY uq_users_tenant_id_email ON users (tenant_id, email)",
            "ALTER TABLE users ADD CONSTRAINT uq_users_tenant_id_email UNIQUE USING INDEX uq_users_tenant_id_email",
            "ALTER TABLE users DROP CONSTRAINT users_email_key",
        ],
    }


def test_the_ddl_is_a_script_that_runs(module: Write, run: Callable[..., Result]) -> None:
    name = module("""
        from sqlalchemy import Column, Integer, MetaData, String, Table
        from tenantguard.orm import stamp_tenant, tenant_key

        metadata = MetaData()
        Table(
            "rows",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("tenant_id", String(9), nullable=False, default=stamp_tenant, info=tenant_key()),
            Column("x", Integer, index=True),
        )
    """)
    script = run(name, "--ddl", "--dialect", "sqlite").stdout
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(
            "CREATE TABLE rows (id INTEGER PRIMARY KEY, tenant_id, x); CREATE INDEX ix_rows_x ON rows (x)"
        )
        connection.executescript(script)
        made = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    connection.close()
    assert made == {"ix_rows_tenant_id", "ix_rows_tenant_id_x"}
    assert "-- [warning] no-tenant-index: rows" in script


@pytest.mark.parametrize(
    ("text", "fail_on", "code"),
    [
        (TIDY, "advice", 0),
        (FAULTY, "error", 1),
        (FAULTY.split("class Log")[0], "error", 0),
        (FAULTY.split("class Log")[0], "warning", 1),
        (FAULTY.split("class Log")[0].replace("(unique=True)", "()"), "warning", 0),
        (FAULTY.split("class Log")[0].replace("(unique=True)", "()"), "advice", 1),
    ],
    ids=["tidy", "error", "warning fails not", "warning", "advice fails not", "advice"],
)
def test_the_exit_code_says_whether_there_are_findings_that_matter(
    module: Write, run: Callable[..., Result], text: str, fail_on: str, code: int
) -> None:
    assert run(module(text), "--fail-on", fail_on).exit_code == code


def test_what_the_models_are_called_can_not_write_to_the_terminal(module: Write, run: Callable[..., Result]) -> None:
    result = run(
        module("""
        from sqlalchemy import Column, Integer, MetaData, Table
        metadata = MetaData()
        Table("evil\\x1b]0;owned\\x07\\x1b[2J", metadata, Column("id", Integer))
    """)
    )
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "\x07" not in result.output


# --- what a target may be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["", ":Base", ":User", ":Base.metadata", ":Base.registry", ":User.__table__"])
def test_a_target_may_be_anything_with_a_metadata(module: Write, run: Callable[..., Result], attribute: str) -> None:
    result = run(module(FAULTY) + attribute, "--json")
    assert [table["name"] for table in json.loads(result.stdout)["tables"]] == ["log", "users"]


def test_a_target_may_be_a_module_of_tables_and_there_may_be_several(module: Write, run: Callable[..., Result]) -> None:
    tables = module("""
        from sqlalchemy import Column, Integer, MetaData, Table
        from tenantguard.orm import shared
        countries = Table("countries", MetaData(), Column("id", Integer, primary_key=True), info=shared("reference"))
    """)
    inside = module(f"import {tables} as models")
    result = run(f"{inside}:models", module(TIDY), "--json")
    assert result.exit_code == 0
    assert [table["name"] for table in json.loads(result.stdout)["tables"]] == ["countries", "invoices"]


def test_the_base_is_found_beside_imported_names_and_empty_metadata(module: Write, run: Callable[..., Result]) -> None:
    models = module(TIDY)
    importing = module(f"""
        from sqlalchemy import MetaData
        from sqlalchemy.orm import DeclarativeBase
        from {models} import Base, Invoice
        empty = MetaData()
        class Other(DeclarativeBase): pass
    """)
    assert run(importing).exit_code == 0
    several = module(
        f"from {models} import Base\n"
        + textwrap.dedent(FAULTY)
        .replace("Base)", "OtherBase)")
        .replace("class Base(DeclarativeOtherBase)", "class OtherBase(DeclarativeBase)")
    )
    result = run(several)
    assert result.exit_code == 2
    assert f"{several} has several MetaData. Choose: {several}:Base, {several}:OtherBase." in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize(
    ("text", "attribute", "said"),
    [
        ("x = 1", "", "has no MetaData and no declarative base"),
        ("x = 1", ":x", "is of type int, which has no MetaData"),
        (TIDY, ":Bass", "has no Bass. Choose: {name}:Base."),
        (TIDY, ":", "is no target"),
        (TIDY, " or", "is no target"),
        ("from sqlalchemy import MetaData\nm = MetaData()", ":m", "has no tables"),
        ("import nothing_of_that_name", "", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("from os import nothing", "", "ImportError: cannot import name 'nothing'"),
        ("x = 1\ny = z", "", "NameError: name 'z' is not defined"),
        ("x = 1\ny = = 2", "", "SyntaxError: invalid syntax ({directory}/{name}.py, line 2)"),
        (
            "import os\nos.environ['SHOP_DATABASE_URL']",
            "",
            "KeyError: 'SHOP_DATABASE_URL' ({directory}/{name}.py, line 2)",
        ),
        ("x = 1\nraise SystemExit(0)", "", "SystemExit ({directory}/{name}.py, line 2)"),
    ],
    ids=lambda value: value.strip().replace("\n", "; ")[:40] if isinstance(value, str) else None,
)
def test_a_wrong_target_exits_with_2_and_says_what_is_wrong(
    tmp_path: Path, module: Write, run: Callable[..., Result], text: str, attribute: str, said: str
) -> None:
    name = module(text)
    result = run(name + attribute)
    assert result.exit_code == 2, result.output
    assert said.format(name=name, directory=tmp_path.resolve()) in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize(
    "text",
    [
        "raise ValueError('postgresql://app:pass-word@db/app')",
        "{'pass-word': 1}['pass-word2']",
        "from sqlalchemy import create_engine\ncreate_engine('nodb://app:pass-word@db/app')",
        "raise RuntimeError('x') from ValueError('pass-word')",
    ],
    ids=["value", "key", "engine", "cause"],
)
def test_an_error_of_the_app_shows_where_it_was_and_no_secret(
    tmp_path: Path, module: Write, run: Callable[..., Result], text: str
) -> None:
    name = module(text)
    result = run(name)
    assert result.exit_code == 2
    assert "pass-word" not in result.output
    assert f"{tmp_path.resolve()}/{name}.py, line" in " ".join(result.stderr.split())
    assert f"python -c 'import {name}' shows it" in " ".join(result.stderr.split())


def test_a_module_that_is_not_there_is_said(run: Callable[..., Result]) -> None:
    result = run("no_such_package.models")
    assert result.exit_code == 2
    assert "There is no module no_such_package." in result.stderr
    assert "--app-dir" in result.stderr


def test_the_search_path_is_put_back(module: Write, run: Callable[..., Result]) -> None:
    before = list(sys.path)
    run(module(TIDY))
    assert sys.path == before


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--json", "--ddl", "x"),
        ("--dialect", "oracle", "x"),
        ("--fail-on", "never", "x"),
        ("--app-dir", "nowhere", "x"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_with_2(run: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: tenantguard doctor orm" in result.stderr


def test_it_has_help() -> None:
    for command in (["doctor"], ["doctor", "orm"]):
        result = CliRunner().invoke(tenantguard, [*command, "--help"], prog_name="tenantguard")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: tenantguard {' '.join(command)}")
