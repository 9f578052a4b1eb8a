"""How commands print: tables, times and JSON. Text of others is shown without control characters."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

__all__ = ["print_json", "print_table", "shown_text", "shown_time"]


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, colours: dict[str, str] | None = None) -> None:
    """Print rows in columns on stdout.

    Args:
        header: the names of the columns.
        rows: as many texts each.
        colours: the colours of cells with a certain text.
    """
    plain = [tuple(shown_text(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(header, *plain, strict=True)]

    def line(cells: Sequence[str]) -> str:
        shown = []
        for cell, width in zip(cells, widths, strict=True):
            colour = colours.get(cell) if colours else None
            shown.append((click.style(cell, fg=colour) if colour else cell) + " " * (width - len(cell)))
        return "  ".join(shown).rstrip()

    click.echo(click.style(line(header), bold=True))
    for row in plain:
        click.echo(line(row))


def shown_text(text: str) -> str:
    """Return a text as a terminal may show it: what is not printable could move the cursor or change the colours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shown_time(seconds: int | None, *, none: str) -> str:
    """Return a time, in seconds since the epoch, as people read it, in UTC."""
    if seconds is None:
        return none
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}"
