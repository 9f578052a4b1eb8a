"""Temporary files in memory: all that the tests write is thrown away, and a disk that is busy makes them wait.

Databases wait for the disk at each commit, and a new one is thousands of files. What the tests start inherits the place
by its environment.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["keep_temporary_files_in_memory"]

_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 2 * 1024**3


def keep_temporary_files_in_memory() -> None:
    """Make temporary files of this process and its children there, unless it is told where, or there is no room."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK):
        return
    programs_run = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
    if programs_run and shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
