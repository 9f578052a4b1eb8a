"""``tenantguard rls``: row-level security of PostgreSQL, from the models: print it, apply it, check it.

The key of the seal comes from the environment alone, since a process's arguments are seen by others, and is printed
nowhere. A database's errors are shown without the statement, which could hold it.
"""

import base64
import binascii
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import click
from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.pool import NullPool

from tenantguard.cli.doctor import print_finding
from tenantguard.cli.output import print_json, shown_text
from tenantguard.cli.targets import importable_from, metadata_of
from tenantguard.errors import ConfigurationError
from tenantguard.orm.rls import RlsPlan, Seal
from tenantguard.orm.rls.check import check_database
from tenantguard.orm.rls.seal import BoundTo

__all__ = ["rls", "seal_from_environment"]

_F = TypeVar("_F", bound=Callable[..., Any])
KEY_VARIABLE: Final = "TENANTGUARD_RLS_KEY"


def _plan_options(function: _F) -> _F:
    """Add what says where the models are and how the database is to be."""
    for option in (
        click.option(
            "--plain", is_flag=True, help="The tenant is not sealed: whoever runs SQL as the role can set it."
        ),
        click.option("--schema", default="public", show_default=True, help="The schema of tables that name none."),
        click.option("--role", required=True, metavar="NAME", help="The role that the app, or its login, has."),
        click.option(
            "--app-dir",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=".",
            show_default=True,
            help="Where the app's modules are looked for first.",
        ),
        click.argument("targets", metavar="TARGET...", nargs=-1, required=True),
    ):
        function = option(function)
    return function


_url_option: Final = click.option(
    "--url",
    required=True,
    metavar="URL",
    envvar="TENANTGUARD_OWNER_DATABASE_URL",
    show_envvar=True,
    help="The database, as the tables' owner or a superuser: not as the app.",
)


def _plan(targets: tuple[str, ...], app_dir: Path, role: str, schema: str, *, plain: bool) -> RlsPlan:
    with importable_from(app_dir):
        metadata = [metadata_of(target) for target in targets]
    try:
        return RlsPlan(*metadata, role=role, schema=schema, sealed=not plain)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


_bound_to_option: Final = click.option(
    "--bound-to",
    type=click.Choice(get_args(BoundTo)),
    default="backend",
    show_default=True,
    help="What the app's Seal(key, bound_to=...) is for. Behind a pooler in transaction mode: transaction.",
)


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    try:
        engine = create_engine(url, poolclass=NullPool)
    except (exc.ArgumentError, ImportError, ValueError):
        raise click.UsageError("--url is no URL of SQLAlchemy's, or its driver is not installed.") from None
    if engine.dialect.name != "postgresql":
        raise click.UsageError("--url must be of a PostgreSQL.")
    try:
        with engine.connect() as connection:
            yield connection
    except exc.DBAPIError as error:
        text = str(getattr(getattr(error.orig, "diag", None), "message_primary", None) or type(error.orig).__name__)
        raise click.ClickException(f"PostgreSQL refused it: {shown_text(text)}") from None


@click.group()
def rls() -> None:
    """Row-level security of PostgreSQL, from the models."""


@rls.command()
@_plan_options
@click.option("--down", is_flag=True, help="The way back.")
def sql(targets: tuple[str, ...], app_dir: Path, role: str, schema: str, plain: bool, down: bool) -> None:
    """Print the SQL as a script, which may run again: psql -v ON_ERROR_STOP=1.

    The key of the seal is not in it: apply puts it into the database.
    """
    click.echo(_plan(targets, app_dir, role, schema, plain=plain).script(down=down), nl=False)


@rls.command()
@_plan_options
@_url_option
@_bound_to_option
@click.option("--down", is_flag=True, help="Take it all back.")
def apply(
    targets: tuple[str, ...],
    app_dir: Path,
    role: str,
    schema: str,
    plain: bool,
    url: str,
    bound_to: BoundTo,
    down: bool,
) -> None:
    """Bring the database to what the models say. What is as it should be is left alone.

    The key of the seal is read from TENANTGUARD_RLS_KEY, in base64, and put where only its owner reads it.
    """
    plan = _plan(targets, app_dir, role, schema, plain=plain)
    seal = None if plain or down else seal_from_environment(bound_to)
    with _connected(url) as connection:
        for block in plan.down() if down else plan.up():
            for statement in block:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            connection.commit()
        if seal is not None:
            connection.exec_driver_sql(seal.key_statement(), execution_options={"no_parameters": True})
            connection.commit()
    click.echo(f"Tables: {len(plan.tables)}, of tenants: {len(plan.protected)}.", err=True)


def seal_from_environment(bound_to: BoundTo) -> Seal:
    """Return the seal whose key is in the environment.

    Raises:
        click.UsageError: there is none, or it can't be used.
    """
    try:
        return Seal(base64.b64decode(os.environ[KEY_VARIABLE], validate=True), bound_to=bound_to)
    except KeyError:
        raise click.UsageError(f"Put the key into {KEY_VARIABLE}: openssl rand -base64 32. Or give --plain.") from None
    except (binascii.Error, ConfigurationError):
        raise click.UsageError(f"{KEY_VARIABLE} holds no base64 of 32 bytes or more.") from None


@rls.command()
@_url_option
@_bound_to_option
def key(url: str, bound_to: BoundTo) -> None:
    """Put the key of the seal into the database, as apply does last: for those who migrate with Alembic.

    It is read from TENANTGUARD_RLS_KEY, in base64. Keys that are there stay valid.
    """
    seal = seal_from_environment(bound_to)
    with _connected(url) as connection:
        connection.exec_driver_sql(seal.key_statement(), execution_options={"no_parameters": True})
        connection.commit()
    click.echo(f"Key: {seal.key_id}.", err=True)


@rls.command()
@_plan_options
@_url_option
@click.option(
    "--attempt", nargs=2, metavar="TENANT TENANT", help="Try to reach each other's rows as these two tenants."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    targets: tuple[str, ...],
    app_dir: Path,
    role: str,
    schema: str,
    plain: bool,
    url: str,
    attempt: tuple[str, str] | None,
    as_json: bool,
) -> None:
    """Compare the database with the models. Nothing is changed: what is tried is rolled back.

    Exit codes: 0 all is as it should be, 1 something differs, 2 it was called wrongly.
    """
    plan = _plan(targets, app_dir, role, schema, plain=plain)
    with _connected(url) as connection:
        try:
            findings = check_database(connection, plan, tenants=attempt)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
    if as_json:
        print_json({"findings": findings})
    else:
        for finding in findings:
            print_finding(finding)
    tried = "" if attempt is None else ", tried as two tenants"
    click.echo(
        f"Tables: {len(plan.tables)}, of tenants: {len(plan.protected)}{tried}. Findings: {len(findings)}.", err=True
    )
    if findings:
        click.get_current_context().exit(1)
