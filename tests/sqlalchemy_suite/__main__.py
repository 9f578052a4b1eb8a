"""``python -m tests.sqlalchemy_suite``: SQLAlchemy's own tests, without the barrier and with it.

It ends with 1 if a test passes without the barrier and does not pass with it.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.sqlalchemy_suite.modules import DATABASES, chosen_modules
from tests.sqlalchemy_suite.runner import Comparison, Outcomes, compare, run
from tests.sqlalchemy_suite.source import SourceUnavailable, sqlalchemy_source

_BATCH = 5
"""How many modules one process runs: enough for its start not to matter, few enough for all jobs to have work."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sqlalchemy_suite",
        description="Run SQLAlchemy's own tests without the barrier and with it, every table shared, and compare.",
    )
    parser.add_argument("--modules", nargs="+", default=[], metavar="PART", help="parts of names, as orm/test_query")
    parser.add_argument("--database", choices=DATABASES, default="sqlite", help="default: sqlite")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once (default: 1)")
    parser.add_argument("--source", type=Path, metavar="DIR", help="SQLAlchemy's source (default: fetched by pip)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to a file as well")
    return parser.parse_args()


def show(console: Console, result: Comparison, barrier: Outcomes) -> None:
    counts = Table(title="Statements with the barrier", title_justify="left", show_header=False)
    for name, number in sorted(barrier.counts.items()):
        counts.add_row(name, f"{number:,}")
    console.print(counts)
    vouched = Table(title="Compiled again in allow_raw(), because of", title_justify="left", show_header=False)
    for name, number in barrier.vouched.most_common(25):
        vouched.add_row(escape(name), f"{number:,}")
    console.print(vouched)
    for reason, tests in result.excluded.items():
        console.print(f"[bold]Excluded[/bold] ({len(tests)}): {escape(reason)}")
        for test in tests:
            console.print(f"  {escape(test)}", highlight=False)
    for name in result.needless:
        console.print(f"[yellow]Excluded, and passes on this database:[/yellow] {escape(name)}", highlight=False)
    for test in result.failed_before:
        console.print(f"[dim]Fails without the barrier too:[/dim] {escape(test)}", highlight=False)
    for test, message in result.broken.items():
        console.print(f"[red]Fails with the barrier:[/red] {escape(test)}", highlight=False)
        console.print(f"    {escape(message)}", highlight=False, style="dim")
    console.print(
        f"{result.passed:,} pass in both, {result.skipped:,} are skipped, {len(result.failed_before)} fail in both, "
        f"{sum(map(len, result.excluded.values()))} are excluded, [bold]{len(result.broken)} fail with the barrier "
        "alone[/bold]."
    )


def main() -> int:
    options = arguments()
    console = Console(soft_wrap=True)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        source = sqlalchemy_source(options.source)
    except SourceUnavailable as error:
        errors.print(escape(str(error)), style="red")
        return 2
    modules = chosen_modules(source, options.database, options.modules)
    if not modules:
        errors.print("No module has such a name.", style="red")
        return 2
    runs = {False: Outcomes(), True: Outcomes()}
    halves: dict[str, dict[bool, Outcomes]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("running", total=2 * len(modules))
        batches = [modules[at : at + _BATCH] for at in range(0, len(modules), _BATCH)]
        for batch, barrier, outcomes in run(source, batches, options.database, options.jobs):
            runs[barrier].add(outcomes)
            progress.update(task, advance=len(batch), description=batch[0].removeprefix("test/"))
            both = halves.setdefault(batch[0], {})
            both[barrier] = outcomes
            if len(both) == 2:
                for test in compare(both[False], both[True]).broken:
                    progress.console.print(f"[red]Fails with the barrier:[/red] {escape(test)}", highlight=False)
    result = compare(runs[False], runs[True])
    show(console, result, runs[True])
    if options.json:
        report = {**asdict(result), "counts": runs[True].counts, "vouched": runs[True].vouched}
        options.json.write_text(json.dumps(report, indent=1))
    return 1 if result.broken else 0


if __name__ == "__main__":
    sys.exit(main())
