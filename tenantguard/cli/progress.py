"""How commands that take long tell how far they are, on stderr: a bar in a terminal, lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from tenantguard.cli.output import shown_text

__all__ = ["progress"]


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that tells what is done now, how many parts are over, and of how many (0: nobody knows).

    A line is written where stderr is no terminal, for each new thing that is done.
    """
    bar = _bar() if sys.stderr.isatty() else None
    if bar is None:
        yield _lines()
        return
    with bar as shown:
        task = shown.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            shown.update(task, description=shown_text(what), completed=done, total=total or None)

        yield tell


def _lines() -> Callable[[str, int, int], None]:
    last = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if what != last:
            last = what
            click.echo(f"{f'[{done}/{total}] ' if total else ''}{shown_text(what)}", err=True)

    return tell


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:  # the extra was installed by hand, without it
        return None
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
