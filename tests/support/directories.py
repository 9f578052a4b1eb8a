"""Where the servers of the tests keep their data: in memory where there is room for it, since all of it is thrown away."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["data_directory"]

_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 2 * 1024**3


def data_directory(prefix: str) -> Path:
    """Make a directory that nobody else uses, with a short path: Unix sockets have at most 107 characters.

    Args:
        prefix: how its name begins.
    """
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if roomy else None))
