"""A real MariaDB with a data directory of its own, on a Unix socket alone, that writes nothing to disk sooner than it must.

Where the machine has none, it is installed from the system's packages; where that fails, so do the tests. A server that
the package may have started on MySQL's own port is not used.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.support.apt import find_program

__all__ = ["MariaDBServer"]

_PACKAGE = "mariadb-server"
_SMALL = (
    "--innodb-log-file-size=8M",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=OFF",
)
_OPTIONS = (
    *_SMALL,
    "--skip-networking",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--performance-schema=OFF",
    "--max-connections=200",
    "--lock-wait-timeout=20",
    "--innodb-lock-wait-timeout=10",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",  # Debian's, and like every default it takes "a" for "A"
)


class MariaDBServer:
    """One server, running after `start`, whose root has no password and is reached through the socket alone."""

    def __init__(self) -> None:
        self._executable = find_program("mariadbd", package=_PACKAGE)
        self._installer = find_program("mariadb-install-db", package=_PACKAGE)
        self._directory = Path(tempfile.mkdtemp(prefix="tg-maria-"))  # short: sockets have at most 107 characters
        self._data = self._directory / "data"
        self._log = self._directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = str(self._directory / "socket")

    def url(self, database: str = "") -> str:
        """Return a database's URL, without a driver in it."""
        return f"mariadb://root@localhost/{database}?unix_socket={quote(self.socket)}&charset=utf8mb4"

    def start(self) -> None:
        """Make the data directory, start the server and wait until it answers.

        Raises:
            RuntimeError: it does not start; with what it logged.
        """
        user = ["--user=root"] if os.getuid() == 0 else []
        # Its own directory for temporary tables too: a server that starts removes those of others from it.
        common = ["--no-defaults", f"--datadir={self._data}", f"--tmpdir={self._directory}", *user]
        install = [self._installer, *common, "--auth-root-authentication-method=normal", "--skip-test-db", *_SMALL]
        # Servers of several test processes that start at once would take each other's temporary tables away.
        temporary = self._directory / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = os.environ | {"TMPDIR": str(temporary)}
        made = subprocess.run(install, capture_output=True, text=True, timeout=120, env=environment)
        if made.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {made.stdout}{made.stderr}")
        command = [self._executable, *common, f"--socket={self.socket}", f"--pid-file={self._directory / 'pid'}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, *_OPTIONS], stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                said = self._log.read_text()
                self.stop()
                raise RuntimeError(f"mariadbd did not start: {said}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(self.socket)
                return bool(connection.recv(1))
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it, by the id of its process; nothing is worth being saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
