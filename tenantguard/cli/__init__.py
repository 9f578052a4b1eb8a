"""The command line: ``tenantguard``, which needs the extra ``cli``.

`main.py` has the root; each command, or group of commands, is a module of its own beside it.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line. Without click, say what to install and exit with 1."""
    try:
        from tenantguard.cli.main import tenantguard
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit("tenantguard: the command line needs click. Install it with: pip install 'tenantguard[cli]'")
    tenantguard(prog_name="tenantguard")
