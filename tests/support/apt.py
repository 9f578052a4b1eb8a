"""Servers from the system's packages: found on the machine, or installed where they are missing."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["find_program"]

_SERVERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where Debian puts servers, which not every user has on PATH."""


def find_program(name: str, *, package: str) -> str:
    """Return the path of a program, installing its package if there is none.

    Args:
        name: the program, for example ``redis-server``; also one that is for administrators only.
        package: the Debian package that brings it.

    Raises:
        RuntimeError: there is none, and it can't be installed.
    """
    found = _find(name)
    if found is not None:
        return found
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # One test process at a time, since apt allows no more; the later ones find it installed.
    with Path(tempfile.gettempdir(), "tenantguard-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _find(name)
        if found is not None:
            return found
        for command in (
            ("apt-get", "update", "--quiet"),
            ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", package),
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=environment)
            except (OSError, subprocess.SubprocessError) as fault:
                shown = getattr(fault, "stderr", None) or fault
                raise RuntimeError(
                    f"The tests need {name} on PATH, and it could not be installed. Install the package {package}. "
                    f"{' '.join(command)}: {shown}"
                ) from fault
    found = _find(name)
    if found is None:
        raise RuntimeError(f"The package {package} brought no {name} on PATH.")
    return found


def _find(name: str) -> str | None:
    versioned = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SERVERS, *versioned)))
