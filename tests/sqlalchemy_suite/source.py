"""SQLAlchemy's source distribution, which holds its tests; the wheel does not.

It is fetched by pip from the registry that pip is set up for, in the very version that is installed, and compared with
the hashes of the lock. It is kept beside the environment, so that it is fetched once.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = ["SourceUnavailable", "sqlalchemy_source"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_KEPT: Final = _ROOT / ".cache"
_LOCK: Final = _ROOT / "requirements" / "dev.txt"


class SourceUnavailable(RuntimeError):
    """The source distribution can't be had."""


def sqlalchemy_source(given: Path | None = None) -> Path:
    """Return the directory of the source distribution of the installed SQLAlchemy.

    Args:
        given: where it lies already; ``None`` to fetch it, unless that was done before.

    Raises:
        SourceUnavailable: the directory holds no tests, or those of another version; or pip could not fetch it.
    """
    wanted = version("sqlalchemy")
    if given is not None:
        return _checked(given.resolve(), wanted)
    kept = _KEPT / f"sqlalchemy-{wanted}"
    if not kept.is_dir():
        _KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_KEPT) as directory:
            unpacked = _fetch(wanted, Path(directory))
            try:
                unpacked.rename(kept)
            except OSError:
                if not kept.is_dir():  # else another process was faster
                    raise
    return _checked(kept, wanted)


def _checked(directory: Path, wanted: str) -> Path:
    about = directory / "PKG-INFO"
    if not (directory / "test" / "conftest.py").is_file() or not about.is_file():
        raise SourceUnavailable(f"{directory} is no source distribution of SQLAlchemy: it has no test/conftest.py.")
    found = re.search(r"^Version: (\S+)$", about.read_text(), re.MULTILINE)
    if found is None or found.group(1) != wanted:
        raise SourceUnavailable(
            f"{directory} is not of the installed SQLAlchemy {wanted}. Its tests belong to one version alone."
        )
    return directory


def _fetch(wanted: str, directory: Path) -> Path:
    requirement = directory / "requirement.txt"
    requirement.write_text(_locked(wanted))
    command = [
        *(_python_with_pip(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--no-binary", "sqlalchemy", "--dest", str(directory), "--requirement", str(requirement)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env={**os.environ, "PIP_NO_INPUT": "1"}
        )
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(_unavailable(wanted, "pip did not end within 300 seconds.")) from error
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        raise SourceUnavailable(_unavailable(wanted, done.stderr.strip()[-2000:]))
    with tarfile.open(archives[0]) as archive:
        archive.extractall(directory, filter="data")
    return next(path for path in directory.iterdir() if path.is_dir())


def _python_with_pip() -> str:
    """Return the interpreter to run pip with: an environment may have none, and then that which it was made from has."""
    return sys.executable if importlib.util.find_spec("pip") else str(getattr(sys, "_base_executable", sys.executable))


def _locked(wanted: str) -> str:
    """Return the requirement with the hashes of the lock; without any where another version is installed."""
    found = re.search(rf"^sqlalchemy=={re.escape(wanted)} (?:.*\\\n)*.*", _LOCK.read_text(), re.MULTILINE)
    hashes = re.findall(r"--hash=\S+", found.group()) if found else []
    return f"sqlalchemy=={wanted} {' '.join(hashes)}\n"


def _unavailable(wanted: str, why: str) -> str:
    return (
        f"The source distribution of SQLAlchemy {wanted}, which holds its tests, can't be had. Have pip reach a package "
        f"registry, or unpack it and name its directory with --source. {why}"
    )
