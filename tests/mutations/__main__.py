"""``python -m tests.mutations [django]``: takes each check of the barrier away, one at a time, and asks whether a test notices.

It ends with 1 if a mutant survives that is not in `tests.mutations.accepted`.
"""

import argparse
import pickle
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.mutations.accepted import ACCEPTED
from tests.mutations.chosen import chosen
from tests.mutations.derived import Mutant, derived
from tests.mutations.runner import Reached, Run, Worker
from tests.mutations.selection import SELECTIONS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations",
        description="Take each check of the barrier away, one at a time, and see whether a test turns red.",
    )
    parser.add_argument("orm", nargs="?", choices=SELECTIONS, default="sqlalchemy", help="whose barrier")
    parser.add_argument("--only", metavar="PATTERN", default="", help="a regular expression, as 'orm/writes: visit_'")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="test runs at once (default: 1)")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="of one test run (default: 120)")
    parser.add_argument("--sqlite", action="store_true", help="do not ask PostgreSQL and MariaDB about survivors")
    parser.add_argument(
        "--lines", type=Path, metavar="FILE", help="keep which test reaches which line, for the next time"
    )
    parser.add_argument("--list", action="store_true", help="name the mutants, and run nothing")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write each verdict to a file as well")
    return parser.parse_args()


def mutants(orm: str) -> list[Mutant]:
    """Return all mutants of the barrier for one ORM."""
    return [mutant for module in SELECTIONS[orm].first for mutant in (*derived(module), *chosen(module))]


def main() -> int:
    options = arguments()
    console = Console(soft_wrap=True, highlight=False)
    everyone = mutants(options.orm)
    names = {str(mutant) for one in SELECTIONS for mutant in mutants(one)}
    stale = [name for name in ACCEPTED if name not in names]
    picked = [mutant for mutant in everyone if re.search(options.only, str(mutant))]
    if options.list:
        for mutant in picked:
            console.print(escape(str(mutant)))
        return 0
    idle: SimpleQueue[Worker] = SimpleQueue()

    def judge(mutant: Mutant) -> Run:
        worker = idle.get()
        try:
            return worker.judge(mutant, reached)
        finally:
            idle.put(worker)

    counts: Counter[str] = Counter()
    survivors: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    log = options.log.open("a") if options.log else None
    with ExitStack() as stack:
        workers = [
            stack.enter_context(closing(Worker(options.orm, options.limit, servers=not options.sqlite)))
            for _ in range(options.jobs)
        ]
        for worker in workers:
            idle.put(worker)
        if options.lines and options.lines.exists():
            reached: Reached = pickle.loads(options.lines.read_bytes())
        else:
            with console.status("finding out which test reaches which line"):
                traced = workers[0].trace()
            if isinstance(traced, Run):
                console.print(f"[red]{traced.verdict} without a mutant:[/red] {escape(traced.test)}")
                return 2
            reached = traced
            if options.lines:
                options.lines.write_bytes(pickle.dumps(reached))
        progress = stack.enter_context(Progress(*columns, console=console, transient=True))
        pool = stack.enter_context(ThreadPoolExecutor(options.jobs))
        task = progress.add_task("mutants", total=len(picked))
        pending = {pool.submit(judge, mutant): str(mutant) for mutant in picked if str(mutant) not in ACCEPTED}
        progress.update(task, advance=len(picked) - len(pending))
        for done in as_completed(pending):
            name, run = pending[done], done.result()
            counts[run.verdict] += 1
            if run.verdict != "red":
                survivors.append(name)
                progress.console.print(f"[red]{run.verdict}[/red] {escape(name)}")
            if log is not None:
                print(f"{run.verdict}\t{run.seconds:.1f}\t{name}\t{run.test}", file=log, flush=True)
            progress.update(task, advance=1)
    if log is not None:
        log.close()
    for name in stale:
        console.print(f"[yellow]Accepted, and no mutant any more:[/yellow] {escape(name)}")
    console.print(
        f"{len(picked)} mutants: {counts['red']} killed, {len(picked) - sum(counts.values())} accepted, "
        f"[bold]{len(survivors)} survived[/bold] ({dict(counts)})."
    )
    return 1 if survivors or stale else 0


if __name__ == "__main__":
    sys.exit(main())
