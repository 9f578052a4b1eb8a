"""``tenantguard tenants migrate``: Alembic in every place, with what became of each.

Ctrl-C begins no further place and lets those that are worked on finish; ``--resume`` visits the rest.
"""

from pathlib import Path
from typing import Any, Final

import click

from tenantguard.cli.output import print_json, print_table, shown_text
from tenantguard.cli.progress import progress
from tenantguard.cli.targets import importable_from
from tenantguard.cli.tenant_options import databases_options, directory_option, opened_databases, opened_directory
from tenantguard.orm.placement import PlaceResult, RunReport, migrate_places

__all__ = ["migrate"]

_COLOURS: Final = {"done": "green", "earlier": "green", "failed": "red", "open": "yellow"}


@click.command()
@databases_options
@directory_option
@click.option(
    "--config",
    default="alembic.ini",
    show_default=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Alembic's configuration. Its env.py takes the connection from config.attributes.",
)
@click.option("--revision", default="head", show_default=True, metavar="REVISION", help="To which one.")
@click.option("--jobs", default=4, show_default=True, type=click.IntRange(1, 64), help="Most places at a time.")
@click.option("--resume", is_flag=True, help="Visit only what the last run of this revision has not done.")
@click.option("--no-shared", is_flag=True, help="Leave the shared tables out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def migrate(
    control: str,
    config: Path,
    revision: str,
    jobs: int,
    resume: bool,
    no_shared: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Bring every place to a revision with Alembic: the shared tables, each schema, each database.

    Exit codes: 0 all places are there, 1 some failed or it was stopped, 2 it was called wrongly.
    """
    app_dir = importable_from(options["app_dir"])
    with opened_directory(control) as directory, app_dir, progress() as show:

        def tell(result: PlaceResult, done: int, total: int) -> None:
            show(f"{result.place.label}: {result.state}", done, total)

        report = migrate_places(
            directory,
            opened_databases(**options),
            config,
            revision,
            jobs=jobs,
            resume=resume,
            shared=not no_shared,
            tell=tell,
        )
    _print(report, as_json=as_json)
    if not report.is_complete:
        click.get_current_context().exit(1)


def _print(report: RunReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        print_table(
            ("PLACE", "TENANT", "SECONDS", "STATE"),
            [(one.place.label, one.tenant or "-", f"{one.seconds:.1f}", one.state) for one in report.results],
            colours=_COLOURS,
        )
        for one in report.failed:
            click.echo()
            click.echo(click.style(f"failed in {shown_text(one.place.label)}", fg="red", bold=True))
            click.echo(f"  {shown_text(one.error or '')}")
    states = [one.state for one in report.results]
    counts = ", ".join(f"{state}: {states.count(state)}" for state in ("done", "earlier", "failed", "open"))
    click.echo(f"Places: {len(states)}. {counts}.", err=True)
    if not report.is_complete:
        click.echo("Go on with --resume." if report.stopped else "Mend it, and go on with --resume.", err=True)
