"""What the commands of ``tenantguard tenants`` share: their options, how they fail, and what they print."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args

import click
from sqlalchemy import exc

from tenantguard.cli.output import print_json, print_table, shown_text
from tenantguard.cli.rls import seal_from_environment
from tenantguard.cli.targets import importable_from, metadata_of
from tenantguard.errors import ConfigurationError, InvalidTenantId, TenantGuardError
from tenantguard.identity import TenantStatus
from tenantguard.orm.placement import (
    SHARED,
    Databases,
    Erasure,
    Exported,
    Placement,
    PlaceStep,
    SqlTenants,
    TenantRecord,
    alembic_stamp,
    own_database,
    own_schema,
)
from tenantguard.orm.placement.operations import explained
from tenantguard.orm.rls import guard_transactions
from tenantguard.orm.rls.seal import BoundTo

__all__ = [
    "STATUS_COLOURS",
    "databases_options",
    "described",
    "directory_option",
    "json_option",
    "make_sure",
    "opened_databases",
    "opened_directory",
    "place_options",
    "print_erasure",
    "print_export",
    "print_record",
    "reported",
    "take_over_option",
    "tenant_argument",
    "unpacked",
    "yes_option",
]

_F = TypeVar("_F", bound=Callable[..., Any])

STATUS_COLOURS: Final = {
    TenantStatus.ACTIVE.value: "green",
    TenantStatus.SUSPENDED.value: "yellow",
    TenantStatus.PROVISIONING.value: "cyan",
    TenantStatus.MOVING.value: "cyan",
    TenantStatus.REMOVING.value: "red",
    TenantStatus.REMOVED.value: "red",
}

directory_option: Final = click.option(
    "--control",
    required=True,
    metavar="URL",
    envvar="TENANTGUARD_CONTROL_DATABASE_URL",
    show_envvar=True,
    help="The database of the control plane, for example postgresql+psycopg://owner@db/control.",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
take_over_option: Final = click.option(
    "--take-over", is_flag=True, help="Go on at once although a process that died still holds the operation."
)
yes_option: Final = click.option("--yes", is_flag=True, help="Do not ask.")
tenant_argument: Final = click.argument("tenant", metavar="TENANT")


def databases_options(function: _F) -> _F:
    """Add what says where the models and the databases are."""
    for option in (
        click.option(
            "--rls",
            type=click.Choice(["plain", *get_args(BoundTo)]),
            help="Tell PostgreSQL whose transaction it is, where its owner is held by row-level security: plain, or "
            "with a seal that is bound so. Its key is in TENANTGUARD_RLS_KEY.",
        ),
        click.option(
            "--databases",
            metavar="URL",
            envvar="TENANTGUARD_TENANT_DATABASES_URL",
            show_envvar=True,
            help="The tenants' own databases, with {database} for the name, as the owner of the tables.",
        ),
        click.option(
            "--url",
            required=True,
            metavar="URL",
            envvar="TENANTGUARD_OWNER_DATABASE_URL",
            show_envvar=True,
            help="The database of the shared tables, as their owner: not as the app.",
        ),
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


def place_options(option: str) -> Callable[[_F], _F]:
    """Add what says where the tenant is to be."""

    def add(function: _F) -> _F:
        function = click.option(
            "--in-database", metavar="NAME", help="With schema: the database that the schema is in. Left out: --url."
        )(function)
        function = click.option(
            "--place-name", metavar="NAME", help="Of the schema or database. Left out: from the tenant's id."
        )(function)
        function = click.option(
            "--alembic",
            "alembic_ini",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="alembic.ini: write down that the new place is at the head.",
        )(function)
        return click.option(
            option, "place", type=click.Choice(["shared", "schema", "database"]), required=option == "--to",
            default=None if option == "--to" else "shared", show_default=option != "--to",
            help="Where the tenant's rows are to be.",
        )(function)  # fmt: skip

    return add


# --- what all commands share -----------------------------------------------------------------------------------


@contextmanager
def reported() -> Iterator[None]:
    """End a command with what went wrong, in words.

    Raises:
        click.UsageError: what was asked for is not usable: exit code 2.
        click.ClickException: it failed: exit code 1.
    """
    try:
        yield
    except (ConfigurationError, InvalidTenantId) as error:
        raise click.UsageError(shown_text(str(error))) from None
    except TenantGuardError as error:
        raise click.ClickException(shown_text(str(error))) from None
    except (exc.SQLAlchemyError, OSError) as error:
        raise click.ClickException(f"It failed: {shown_text(explained(error))}") from None


@contextmanager
def opened_directory(url: str) -> Iterator[SqlTenants]:
    """Open the control plane for a block, and report what goes wrong in it."""
    with reported():
        directory = SqlTenants(url)
        try:
            yield directory
        finally:
            directory.close()


def opened_databases(
    targets: tuple[str, ...], app_dir: Path, url: str, databases: str | None, rls: str | None
) -> Databases:
    """Return where the databases of a command are."""
    with importable_from(app_dir):
        metadata = [metadata_of(target) for target in targets]
    seal = None if rls in (None, "plain") else seal_from_environment(cast(BoundTo, rls))
    configure = None if rls is None else (lambda engine: guard_transactions(engine, seal=seal))
    return Databases(*metadata, shared=url, tenants=databases, configure=configure)


def placement_of(tenant: str, place: str, name: str | None, database: str | None) -> Placement:
    """Return the place that the options name."""
    if place == "shared":
        if name is not None or database is not None:
            raise click.UsageError("The shared place has no name: leave --place-name and --in-database out.")
        return SHARED
    if place == "schema":
        return own_schema(tenant, database=database) if name is None else Placement(database, name)
    if database is not None:
        raise click.UsageError("--in-database is for schemas.")
    return own_database(tenant) if name is None else Placement(name)


def steps_of(alembic_ini: Path | None) -> dict[str, PlaceStep]:
    """Return the steps of a new place."""
    if alembic_ini is None:
        return {}
    return {"alembic": lambda connection, placement: alembic_stamp(connection, placement, alembic_ini)}


def make_sure(tenant: str, what: str, *, yes: bool) -> None:
    """Have the tenant's id written again before rows are gone."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"Give --yes to {what} without being asked.")
    written = click.prompt(f"This will {what} all rows of {shown_text(tenant)}. Write its id to go on", err=True)
    if written != tenant:
        raise click.ClickException("That is another id. Nothing was done.")


def unpacked(
    tenant: str, options: dict[str, Any]
) -> tuple[bool, Placement, dict[str, PlaceStep], Callable[[], Databases]]:
    """Return what the options of a new place say: whether to take over, the place, its steps, and the databases."""
    place, name, database = options.pop("place"), options.pop("place_name"), options.pop("in_database")
    steps, take_over = steps_of(options.pop("alembic_ini")), options.pop("take_over")
    with reported():
        placement = placement_of(tenant, place, name, database)
    return take_over, placement, steps, lambda: opened_databases(**options)


def described(record: TenantRecord, pending: str | None = None) -> dict[str, Any]:
    """Return a tenant as JSON."""
    return {
        "id": record.id,
        "name": record.tenant.name,
        "plan": record.plan,
        "status": record.status,
        "placement": record.placement,
        "operation": pending,
    }


def print_record(record: TenantRecord, what: str, *, as_json: bool) -> None:
    """Print what a command did to a tenant."""
    if as_json:
        print_json(described(record))
    click.echo(shown_text(f"The tenant {record.id} is {what}. Place: {record.placement.label}."), err=True)


def print_erasure(erasure: Erasure, what: str, *, as_json: bool) -> None:
    """Print what was removed, with the proof."""
    if as_json:
        print_json(
            {
                "tenant": erasure.tenant,
                "placement": erasure.placement,
                "dropped": erasure.dropped,
                "tables": [table._asdict() for table in erasure.tables],
            }
        )
    elif erasure.tables:
        print_table(
            ("TABLE", "BEFORE", "DELETED", "AFTER"),
            [(one.table, str(one.before), str(one.deleted), str(one.after)) for one in erasure.tables],
        )
    click.echo(shown_text(f"The tenant {erasure.tenant} is {what}. Rows: {erasure.rows}."), err=True)


def print_export(exported: Exported, what: str, *, as_json: bool) -> None:
    """Print what was exported or restored."""
    if as_json:
        print_json(exported)
    else:
        print_table(
            ("TABLE", "ROWS", "BYTES", "DIGEST"),
            [(one.table, str(one.rows), str(one.bytes), one.digest[:16]) for one in exported.tables],
        )
    click.echo(shown_text(f"The tenant {exported.tenant} is {what}. Rows: {exported.rows}."), err=True)
