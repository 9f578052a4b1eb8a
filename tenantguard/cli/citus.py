"""``tenantguard citus``: whether the models fit Citus, and the statements that distribute their tables by tenant."""

from pathlib import Path
from typing import Final

import click

from tenantguard.cli.doctor import print_finding
from tenantguard.cli.output import print_json
from tenantguard.cli.targets import importable_from, metadata_of
from tenantguard.orm.citus import CitusPlan

__all__ = ["citus"]

_targets: Final = click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
_app_dir: Final = click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Where the app's modules are looked for first.",
)


def _plan(targets: tuple[str, ...], app_dir: Path) -> CitusPlan:
    with importable_from(app_dir):
        return CitusPlan(*(metadata_of(target) for target in targets))


@click.group()
def citus() -> None:
    """Citus: tables distributed by tenant over several PostgreSQL servers."""


@citus.command()
@_targets
@_app_dir
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(targets: tuple[str, ...], app_dir: Path, as_json: bool) -> None:
    """Say what of the models Citus would refuse, with the DDL that mends it. No database is asked.

    Exit codes: 0 the tables can be distributed, 1 something is to be mended, 2 it was called wrongly.
    """
    plan = _plan(targets, app_dir)
    findings = plan.findings()
    if as_json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            print_finding(finding)
    _summary(plan)
    if findings:
        click.get_current_context().exit(1)


@citus.command()
@_targets
@_app_dir
def sql(targets: tuple[str, ...], app_dir: Path) -> None:
    """Print the statements that distribute the tables, for psql on the coordinator.

    Nothing is printed while the models do not fit: tenantguard citus check says why.
    """
    plan = _plan(targets, app_dir)
    errors = [finding for finding in plan.findings() if finding.severity == "error"]
    if errors:
        raise click.ClickException(f"Citus would refuse {len(errors)} things: run tenantguard citus check.")
    click.echo(plan.script(), nl=False)
    _summary(plan)


def _summary(plan: CitusPlan) -> None:
    click.echo(f"Distributed tables: {len(plan.distributed)}, reference tables: {len(plan.reference)}.", err=True)
