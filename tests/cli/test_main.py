"""The root of the command line."""

import re
import subprocess
import sys

from click.testing import CliRunner

from tenantguard.cli.main import tenantguard


def test_without_click_it_says_what_to_install() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['click'] = None; from tenantguard.cli import main; main()"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == (
        "tenantguard: the command line needs click. Install it with: pip install 'tenantguard[cli]'\n"
    )


def test_the_root_has_help_and_a_version() -> None:
    assert "api-keys" in CliRunner().invoke(tenantguard, ["--help"]).stdout
    assert re.search(r"\d+\.\d+", CliRunner().invoke(tenantguard, ["--version"]).stdout)
