"""A real read replica: a hot standby of a server, which follows it by streaming replication over its Unix socket."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

__all__ = ["postgres_replica", "wait_for_replica"]


@contextmanager
def postgres_replica(primary: str) -> Iterator[str]:
    """Copy a server, start the copy as its standby, give its URL, and stop it after.

    Args:
        primary: the URL of the server, without a driver in it.
    """
    with psycopg.connect(primary, autocommit=True) as admin:
        (directory,) = admin.execute("SHOW data_directory").fetchone()
    programs = Path((Path(directory) / "postmaster.opts").read_text().split()[0]).parent  # of the server's own version
    root = Path(tempfile.mkdtemp(prefix="tg-re-"))  # a short path: Unix sockets have at most 107 characters
    data, log = root / "data", root / "log"
    options: dict[str, Any] = {"cwd": "/"}
    if os.getuid() == 0:
        owner = Path(directory).stat()
        os.chown(root, owner.st_uid, owner.st_gid)
        options |= {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    backup = [programs / "pg_basebackup", "-D", data, "-d", primary, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
    made = subprocess.run(list(map(str, backup)), capture_output=True, text=True, timeout=120, **options)
    if made.returncode:
        raise RuntimeError(f"pg_basebackup failed: {made.stderr}")
    (data / "postmaster.opts").unlink(missing_ok=True)
    command = [str(programs / "postgres"), "-D", str(data), "-k", str(root), "-h", "", "-F"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        deadline = time.monotonic() + 60
        while "ready to accept read-only connections" not in log.read_text():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"The replica did not start: {log.read_text()[-800:]}")
            with psycopg.connect(primary, autocommit=True) as admin:
                admin.execute("CHECKPOINT")  # it tells the replica what runs, without which nobody may read there
            time.sleep(0.05)
        host = primary.partition("host=")[2]
        yield primary.replace(host, str(root))
    finally:
        process.send_signal(signal.SIGINT)  # its fast shutdown, which waits for nobody
        process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def wait_for_replica(primary: str, replica: str) -> None:
    """Wait until the replica has all that was committed."""
    with psycopg.connect(primary, autocommit=True) as one, psycopg.connect(replica, autocommit=True) as other:
        (written,) = one.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        deadline = time.monotonic() + 60
        while not other.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]).fetchone()[0]:
            if time.monotonic() > deadline:
                raise RuntimeError("The replica does not follow.")
            time.sleep(0.02)
