"""``python -m tests.orm.silo``: the long run of the silo oracle. It ends with 1 if a program noticed the other tenant."""

import argparse
import multiprocessing
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.orm.silo.jobs import run
from tests.orm.silo.oracle import Statistics
from tests.orm.silo.programs import program


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.orm.silo",
        description="Run random programs of one tenant with and without another tenant's rows, and compare.",
    )
    parser.add_argument("--programs", type=int, default=10_000, metavar="N", help="how many (default: 10000)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="default: sqlite")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first program's number (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at once (default: 1)")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first difference")
    parser.add_argument("--show", action="store_true", help="print the programs themselves, and run nothing")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    console = Console(soft_wrap=True, highlight=False)
    if options.show:
        for number in range(options.first, options.first + options.programs):
            console.print(f"# program {number}\n\n{program(number, options.database).source}\n", markup=False)
        return 0
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    jobs = max(1, min(options.jobs, options.programs))
    workers = [context.Process(target=run, args=(job, jobs, options, results), daemon=False) for job in range(jobs)]
    statistics, different, ended, began = Statistics(), 0, 0, time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for worker in workers:
        worker.start()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"programs on {options.database}", total=options.programs)
        while ended < jobs and (options.keep_going or not different):
            try:
                kind, value, text = results.get(timeout=60)
            except Exception:  # noqa: BLE001 - the queue is empty: has a worker died?
                if any(worker.exitcode not in {None, 0} for worker in workers):
                    console.print("A worker ended with an error.")
                    return 2
                continue
            if kind == "done":
                progress.advance(task, value)
            elif kind == "end":
                statistics.add(value)
                ended += 1
            else:
                different += 1
                console.print(text, markup=False)
    for worker in workers:
        if different and not options.keep_going:
            worker.terminate()
        worker.join()
    if different:
        console.print(f"\n{different} programs noticed the other tenant.")
    if ended == jobs:
        report(console, statistics, time.monotonic() - began, options.programs)
    return 1 if different else 0


def report(console: Console, statistics: Statistics, seconds: float, programs: int) -> None:
    table = Table(title="Steps", title_justify="left")
    for name in ("kind", "steps", "ran"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind, count in statistics.steps.most_common():
        table.add_row(kind, str(count), f"{statistics.ran[kind] / count:.1%}")
    table.add_row("all", str(statistics.steps.total()), f"{statistics.fraction:.1%}")
    console.print(table)
    for name, count in statistics.errors.most_common(20):
        console.print(f"{count:6}  {name}  (program {statistics.examples[name]})", markup=False)
    console.print(f"{programs} programs in {seconds:.0f} s: {programs / seconds:.0f} in a second.")


if __name__ == "__main__":
    sys.exit(main())
