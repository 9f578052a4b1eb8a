"""``tenantguard doctor``: examine an app and say what to mend. Nothing is changed, and no database is asked."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

import click

from tenantguard.cli.output import print_json, print_table, shown_text
from tenantguard.cli.targets import importable_from, metadata_of
from tenantguard.orm.review import Finding, Review, Severity, review_metadata

__all__ = ["doctor", "print_finding"]

_COLOURS: Final = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.ADVICE: "cyan"}
_KIND_COLOURS: Final = {"owned": "green", "child": "green", "unclassified": "red", "misconfigured": "red"}


@click.group()
def doctor() -> None:
    """Examine an app and say what to mend."""


@doctor.command("orm")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "sqlite", "mysql"]),
    default="postgresql",
    show_default=True,
    help="The database that the DDL is for. MariaDB is mysql.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--ddl", "as_ddl", is_flag=True, help="Print only the DDL, as a script with comments.")
@click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in Severity]),
    default=Severity.ERROR.value,
    show_default=True,
    help="Exit with 1 if there are findings as bad as this or worse.",
)
@click.option(
    "--app-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="Where the app's modules are looked for first.",
)
def orm(targets: tuple[str, ...], dialect: str, as_json: bool, as_ddl: bool, fail_on: str, app_dir: Path) -> None:
    """List every table with its class, and what lets one tenant notice or change another.

    TARGET is where the models are: package.module, or package.module:attribute with a MetaData, a declarative base, a
    model or a table. The module is imported; no database is asked. Exit codes: 0 fine, 1 there are findings, 2 it was
    called wrongly.
    """
    if as_json and as_ddl:
        raise click.UsageError("Give --json or --ddl, not both.")
    with importable_from(app_dir):
        review = review_metadata(*(metadata_of(target) for target in targets), dialect=dialect)
    if as_json:
        print_json(_described(review))
    elif as_ddl:
        click.echo(review.script(), nl=False)
    else:
        _print(review)
    click.echo(_summary(review), err=True)
    if review.at_least(Severity(fail_on)):
        click.get_current_context().exit(1)


def _print(review: Review) -> None:
    print_table(
        ("TABLE", "CLASS", "WHOSE ROWS", "FINDINGS"),
        [
            (
                table.name,
                table.kind,
                table.detail if table.kind in ("owned", "child", "shared") else "see below",
                str(len(table.findings) or "-"),
            )
            for table in review.tables
        ],
        colours=_KIND_COLOURS,
    )
    for finding in review.findings:
        click.echo()
        print_finding(finding)


def print_finding(finding: Finding) -> None:
    """Print a finding on stdout, with what mends it."""
    severity = click.style(finding.severity.value, fg=_COLOURS[finding.severity], bold=True)
    click.echo(f"{severity} {finding.id}: {shown_text(finding.table)}")
    click.echo(f"  {shown_text(finding.message)}")
    click.echo(f"  {shown_text(finding.mend)}")
    for statement in finding.ddl:
        click.echo(click.style(f"    {shown_text(statement)};", dim=True))


def _described(review: Review) -> dict[str, Any]:
    return {"dialect": review.dialect, "tables": review.tables}


def _summary(review: Review) -> str:
    counts = Counter(finding.severity for finding in review.findings)
    found = ", ".join(f"{severity}: {counts[severity]}" for severity in Severity)
    return f"Tables: {len(review.tables)}. Findings: {found}."
