"""A real PgBouncer in transaction mode, on a Unix socket alone, before a server of Debian's PostgreSQL.

PgBouncer does not run as root; where the tests do, it runs as the user that the package made.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.apt import find_program

__all__ = ["PgBouncer"]

_PORT = 6432


class PgBouncer:
    """One pooler, running inside of its ``with`` block.

    Args:
        server: the directory of the server's Unix socket.
        database: whose connections it pools.
        user: the role that clients log in as.
        backends: how many connections to the server it has.
        resets: reset a session after each transaction, as an engine of several tenants needs it.
    """

    def __init__(self, server: str, database: str, user: str, *, backends: int = 2, resets: bool = True) -> None:
        self._executable = find_program("pgbouncer", package="pgbouncer")
        self._directory = Path(tempfile.mkdtemp(prefix="tg-bouncer-"))  # short: sockets have at most 107 characters
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://{user}@/{database}?host={self._directory}&port={_PORT}"
        self._user = user
        (self._directory / "users").write_text(f'"{user}" ""\n')
        (self._directory / "ini").write_text(
            f"[databases]\n{database} = host={server} dbname={database}\n"
            f"[pgbouncer]\npool_mode = transaction\nserver_reset_query_always = {int(resets)}\ndefault_pool_size = {backends}\nmax_client_conn = 500\n"
            f"listen_port = {_PORT}\nunix_socket_dir = {self._directory}\n"
            f"auth_type = trust\nauth_file = {self._directory}/users\nlogfile = {self._directory}/log\n"
        )

    def __enter__(self) -> Self:
        options: dict[str, Any] = {}
        if os.getuid() == 0:
            for path in (self._directory, *self._directory.iterdir()):
                shutil.chown(path, "postgres")
            options = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._process = subprocess.Popen(
            [self._executable, "--quiet", str(self._directory / "ini")], cwd="/", stderr=subprocess.DEVNULL, **options
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.__exit__()
                    raise RuntimeError("PgBouncer did not start.") from error
                time.sleep(0.02)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)
