"""A newer Python than the oldest that is supported, since the newest Django asks for one.

It is one of those on the machine, or Debian's: where there is none, the packages of a later Debian release are fetched
from the mirror that the machine's own apt is set up for, verified by apt with Debian's keys, and unpacked into a folder
of the project. Nothing is installed, and no setting of apt's is changed. They run on an older release since they bring
their own C library, with which a small script starts them.

``python -m tests.support.newer_python`` prints its path.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["NoNewerPython", "debian_python", "newer_python"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_WANTED: Final = ">=3.12,<3.15"
_RELEASE: Final = "trixie"
_NAME: Final = "python3.13"
_PACKAGES: Final = (_NAME, "libstdc++6")  # the second is for wheels, which expect it on every system
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ARCHIVE: Final = re.compile(r"'([^' ]+)/dists/([^/' ]+)/InRelease'")


class NoNewerPython(RuntimeError):
    """There is no newer Python, and none can be had."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The tests with the newest Django need Python {_WANTED}. Install one, or name it: "
            f"make test NEWER_PYTHON=/path/to/python3.13. {why}"
        )


def newer_python(given: str = "") -> str:
    """Return the path of a newer Python.

    Args:
        given: its path, which is returned as it is; ``"debian"`` for Debian's; empty for one of those on the machine,
            and Debian's only if there is none.

    Raises:
        NoNewerPython: there is none, and Debian's can't be had.
    """
    if given not in ("", "debian"):
        return given
    found = None if given else _on_this_machine()
    return found or str(debian_python(_ROOT / ".tools" / "debian-python"))


def _on_this_machine() -> str | None:
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    # Of pyenv's, only the chosen ones answer on PATH.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *sorted(map(str, versions.glob("3.*/bin")))[::-1]))
    uv = [str(_ROOT / ".tools" / "bin" / "uv"), "python", "find", "--no-project", "--system", "--no-python-downloads"]
    done = subprocess.run(
        [*uv, _WANTED], capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"PATH": path}
    )
    return done.stdout.strip() or None


def debian_python(folder: Path) -> Path:
    """Return the path of Debian's Python in a folder, putting it there unless that was done before.

    Args:
        folder: where it is, or is to be.

    Raises:
        NoNewerPython: this is no Debian, or apt can't fetch or verify the packages.
    """
    program = folder / "usr" / "bin" / _NAME
    if program.exists():
        return program
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise NoNewerPython("There is none, and this is no Debian, whose packages could be used.")
    with tempfile.TemporaryDirectory(prefix="tenantguard-apt-") as private:
        Path(private).chmod(0o755)  # apt fetches as a user of its own
        packages = _fetched(Path(private))
        unpacked = Path(private, "unpacked")
        for package in packages:
            _run(["dpkg", "-x", str(package), str(unpacked)])
        _write_starter(unpacked, folder)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unpacked / "usr", folder / "usr", symlinks=True)
    try:
        _run([str(program), "-c", "import ctypes, lzma, sqlite3, ssl, uuid"])
    except NoNewerPython:
        shutil.rmtree(folder)
        raise
    return program


def _fetched(private: Path) -> list[Path]:
    """Fetch the packages, and what they need, with an apt that knows of nothing but the later release."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (private / name).mkdir(parents=True)
    signed = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    source = private / "source.list"
    source.write_text(f"deb {signed}{_archive(private)} {_RELEASE} main\n")
    settings = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "-",
        "Dir::State": private / "state",
        "Dir::State::status": "/dev/null",  # as if nothing were installed
        "Dir::Cache": private / "cache",
        "APT::Install-Recommends": "false",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "--quiet", "update"])
    _run(["apt-get", *options, "--quiet", "--yes", "--download-only", "install", *_PACKAGES])
    return sorted((private / "cache" / "archives").glob("*.deb"))


def _archive(private: Path) -> str:
    """Return the address of Debian's archive in the machine's own sources."""
    shown = _run(["apt-get", "-o", f"Dir::State={private / 'state'}", "update", "--print-uris"])
    found: list[tuple[str, str]] = _ARCHIVE.findall(shown)
    own = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    names = {"stable", "testing", "unstable", own.group(1) if own else "stable"}
    for address, release in found:
        if release in names:
            return address
    raise NoNewerPython("No source of this machine's apt is Debian's archive.")


def _write_starter(unpacked: Path, folder: Path) -> None:
    """Put a script into Python's place that starts it with the libraries that came with it, whatever it is called by."""
    program = unpacked / "usr" / "bin" / _NAME
    program.rename(program.with_name(f"{_NAME}.elf"))
    loader = next(unpacked.glob("usr/lib/*/ld-linux*.so.*")).relative_to(unpacked)
    start, libraries = shlex.quote(str(folder / loader)), shlex.quote(str((folder / loader).parent))
    elf = shlex.quote(str(folder / "usr" / "bin" / f"{_NAME}.elf"))
    program.write_text(f'#!/bin/sh\nexec {start} --argv0 "$0" --library-path {libraries} {elf} "$@"\n')
    program.chmod(0o755)


def _run(command: list[str]) -> str:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=environment)
    except (OSError, subprocess.SubprocessError) as fault:
        shown = getattr(fault, "stderr", None) or fault
        raise NoNewerPython(f"There is none, and Debian's could not be had. {command[0]}: {shown}") from fault
    return done.stdout


if __name__ == "__main__":
    try:
        print(newer_python(*sys.argv[1:]))
    except NoNewerPython as error:
        sys.exit(str(error))
