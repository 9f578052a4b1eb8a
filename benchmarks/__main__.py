"""``make bench``: what tenantguard costs, against the same work without it, in one run. Read the ratios."""

import sys

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.django_requests import django_request_costs
from benchmarks.outbound import async_outbound_costs, outbound_costs
from benchmarks.queries import compile_costs, execution_costs, tenants_share_statements
from benchmarks.requests import request_costs
from benchmarks.tokens import cold_costs, hostile_costs, issuer_costs
from benchmarks.walls import wall_costs


def table(title: str, costs: dict[str, float]) -> Table:
    made = Table(title=title, title_justify="left", min_width=76)
    for column in ("what", "µs", "more, µs", "ratio"):
        made.add_column(column, justify="left" if column == "what" else "right", ratio=3 if column == "what" else 1)
    base = next(iter(costs.values()))
    for name, cost in costs.items():
        made.add_row(name, f"{cost:.2f}", f"{cost - base:+.2f}", f"{cost / base:.2f}")
    return made


def main() -> None:
    console = Console()
    tables = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=11)
        for title, measure in (
            ("A request, in process (medians)", request_costs),
            ("A token that was not seen before, by the number of issuers", issuer_costs),
            ("A warm outbound call, in process", outbound_costs),
            ("A warm outbound call, in process, async", async_outbound_costs),
            ("A hostile token, until it is refused (EdDSA)", hostile_costs),
        ):
            tables.append(table(title, measure()))
            progress.advance(task)
        tables += [
            table(f"A token that was not seen before, {algorithm}", costs) for algorithm, costs in cold_costs().items()
        ]
        progress.advance(task)
        tables += [
            table(f"A query, SQLite in memory, warm: {shape}", costs) for shape, costs in execution_costs().items()
        ]
        progress.advance(task)
        tables += [
            table(f"A query that was not seen before: {shape}", costs) for shape, costs in compile_costs().items()
        ]
        progress.advance(task)
        tables += [table(title, costs) for title, costs in wall_costs().items()]
        progress.advance(task)
        tables += [table(title, costs) for title, costs in django_request_costs().items()]
        progress.advance(task)
        compiled, tenants = tenants_share_statements()
        progress.advance(task)
    for made in tables:
        console.print(made)
    console.print(f"{tenants:,} tenants ran one query: {compiled} statement compiled.")


if __name__ == "__main__":
    sys.exit(main())
