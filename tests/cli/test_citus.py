"""``tenantguard citus``: what it prints, and when it prints nothing."""

import json
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tenantguard.cli.main import tenantguard

FIT = """
    from sqlalchemy import Column, Integer, MetaData, String, Table
    from tenantguard.orm import shared, tenant_key

    metadata = MetaData()
    Table("citus_kinds", metadata, Column("id", Integer, primary_key=True), info=shared("reference data"))
    Table("citus_notes", metadata, Column("tenant_id", String(128), primary_key=True, info=tenant_key()),
          Column("id", Integer, primary_key=True, autoincrement=False))
    Table("citus_lines", metadata, Column("tenant_id", String(128), primary_key=True, info=tenant_key()),
          Column("id", Integer, primary_key=True, autoincrement=False))
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def invoke(models: str, *arguments: str) -> Result:
        module = f"app_{uuid.uuid4().hex[:8]}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(models))
        result = CliRunner().invoke(tenantguard, ["citus", *arguments, module, "--app-dir", str(tmp_path)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


def test_models_that_fit_have_their_statements_printed(run: Callable[..., Result]) -> None:
    checked = run(FIT, "check")
    assert (checked.exit_code, checked.stdout) == (0, "")
    printed = run(FIT, "sql")
    assert printed.exit_code == 0
    assert printed.stdout.splitlines() == [
        "SELECT create_reference_table('citus_kinds');",
        "SELECT create_distributed_table('citus_lines', 'tenant_id', colocate_with => 'none');",
        "SELECT create_distributed_table('citus_notes', 'tenant_id', colocate_with => 'citus_lines');",
    ]
    assert printed.stderr == "Distributed tables: 2, reference tables: 1.\n"


def test_models_that_do_not_fit_have_it_said_and_nothing_printed(run: Callable[..., Result]) -> None:
    models = FIT.replace(
        'Column("id", Integer, primary_key=True, autoincrement=False)', 'Column("id", Integer, unique=True)'
    )
    checked = run(models, "check")
    assert checked.exit_code == 1
    assert "key-without-distribution-column: citus_notes" in checked.stdout
    assert "CREATE UNIQUE INDEX CONCURRENTLY" in checked.stdout
    found = json.loads(run(models, "check", "--json").stdout)["findings"]
    assert {one["id"] for one in found} == {"key-without-distribution-column"}
    printed = run(models, "sql")
    assert (printed.exit_code, printed.stdout) == (1, "")
    assert "Citus would refuse 2 things" in printed.stderr
