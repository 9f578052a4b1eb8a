"""A real Redis on loopback that keeps nothing on disk, and that can be stopped and started again on its port.

Where the machine has no redis-server, it is installed from the system's packages; where that fails, so do the tests. A
server that the package may have started on Redis's own port is not used.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.support.apt import find_program
from tests.support.server import loopback_socket

__all__ = ["RedisServer"]


class RedisServer:
    """One server, running after `start`.

    Args:
        options: further options of redis-server, for example ``("--requirepass", "secret")``.
    """

    def __init__(self, *options: str) -> None:
        self._executable = find_program("redis-server", package="redis-server")
        self._options = options
        self._directory = tempfile.mkdtemp(prefix="tg-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        with loopback_socket() as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, on its port, and wait until it answers."""
        log = Path(self._directory, "log")
        command = [self._executable, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._directory]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", str(log), *self._options]
        deadline = time.monotonic() + 60
        while self._process is None or not self._answers():
            if time.monotonic() > deadline:
                said = log.read_text() if log.exists() else "it wrote no log"
                self.stop()
                raise RuntimeError(f"redis-server did not start: {said}")
            if self._process is None or self._process.poll() is not None:
                # Ended at once: while it was down, somebody's outgoing connection may have got its port for a moment.
                self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it, by the id of its process, as an outage would: nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it keep its connections and answer nobody until the block is left."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
