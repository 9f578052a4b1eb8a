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

    def line(cells: Sequence[str]) -> list[str]:
        return [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]

    click.echo(click.style("  ".join(line(header)).rstrip(), bold=True))
    for row in plain:
        cells = [
            click.style(padded, fg=colours[cell]) if colours and cell in colours else padded
            for cell, padded in zip(row, line(row), strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


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
