"""Debian's PostgreSQL, which has ICU and the extensions that the suite's own build lacks, on a Unix socket alone.

PostgreSQL does not run as root; where the tests do, the server runs as the user that the package made.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from tests.support.apt import find_program

__all__ = ["DebianPostgres"]

_PACKAGE = "postgresql"


class DebianPostgres:
    """One server, running inside of its ``with`` block."""

    def __init__(self) -> None:
        self._initdb = find_program("initdb", package=_PACKAGE)
        self._executable = find_program("postgres", package=_PACKAGE)
        self._directory = Path(tempfile.mkdtemp(prefix="tg-deb-pg-"))  # short: sockets have at most 107 characters
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://postgres@/postgres?host={self._directory}"

    def __enter__(self) -> Self:
        options: dict[str, Any] = {"cwd": "/"}
        if os.getuid() == 0:
            shutil.chown(self._directory, "postgres")
            options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = str(self._directory / "data")
        made = subprocess.run(
            [self._initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        command = [self._executable, "-D", data, "-k", str(self._directory), "-h", "", "-F"]
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        deadline = time.monotonic() + 60
        while "ready to accept connections" not in log.read_text():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                raise RuntimeError("PostgreSQL did not start.")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.send_signal(3)  # its immediate shutdown, which ends its children as well
                self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)
