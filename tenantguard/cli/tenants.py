"""``tenantguard tenants``: set tenants up, move, export, erase and remove them, and migrate all their places.

Operations that were interrupted go on when the same command is given again. The commands work across tenants: whoever
holds the databases' URLs does. No URL, row or key is printed.
"""

import json
from pathlib import Path
from typing import Any

import click

from tenantguard.cli.output import print_json, print_table, shown_text
from tenantguard.cli.progress import progress
from tenantguard.cli.tenant_options import (
    STATUS_COLOURS,
    databases_options,
    described,
    directory_option,
    json_option,
    make_sure,
    opened_databases,
    opened_directory,
    place_options,
    print_erasure,
    print_export,
    print_record,
    take_over_option,
    tenant_argument,
    unpacked,
    yes_option,
)
from tenantguard.identity import TenantStatus
from tenantguard.orm.placement import (
    TenantRecord,
    cancel_create,
    cancel_move,
    create_tenant,
    erase_tenant,
    export_tenant,
    move_tenant,
    remove_tenant,
    restore_tenant,
)
from tenantguard.orm.placement.operations import pending_operation

__all__ = ["tenants"]


@click.group()
def tenants() -> None:
    """Tenants and their places: set up, migrate, move, export, erase, remove."""


@tenants.command("create-tables")
@directory_option
def create_tables(control: str) -> None:
    """Make the tables of the control plane, where they are not there yet."""
    with opened_directory(control) as directory:
        directory.create_tables()
    click.echo("The tables of the control plane are there.", err=True)


@tenants.command("list")
@directory_option
@click.option("--status", type=click.Choice([status.value for status in TenantStatus]), help="Only of this status.")
@click.option("--plan", metavar="NAME", help="Only on this plan.")
@json_option
def list_tenants(control: str, status: str | None, plan: str | None, as_json: bool) -> None:
    """List tenants by id, with their places and what is under way. Removed ones only with --status removed."""
    with opened_directory(control) as directory:
        found = directory.list(status=None if status is None else TenantStatus(status), plan=plan)
        pending = {record.id: pending_operation(directory, record.id) for record in found if _busy(record)}
    if as_json:
        print_json([described(record, pending.get(record.id)) for record in found])
    elif not found:
        click.echo("There are no such tenants.", err=True)
    else:
        print_table(
            ("TENANT", "NAME", "PLAN", "PLACE", "UNDER WAY", "STATUS"),
            [
                (
                    record.id,
                    record.tenant.name or "-",
                    record.plan or "-",
                    record.placement.label,
                    pending.get(record.id) or "-",
                    record.status.value,
                )
                for record in found
            ],
            colours=STATUS_COLOURS,
        )


def _busy(record: TenantRecord) -> bool:
    return record.status not in (TenantStatus.ACTIVE, TenantStatus.SUSPENDED, TenantStatus.REMOVED)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@place_options("--place")
@click.option("--name", metavar="TEXT", help="What people call it.")
@click.option("--plan", metavar="NAME", help="Its plan.")
@take_over_option
@json_option
def create(tenant: str, control: str, name: str | None, plan: str | None, as_json: bool, **options: Any) -> None:
    """Set a tenant up: its database, schema and tables, and let it in."""
    take_over, placement, steps, databases = unpacked(tenant, options)
    with opened_directory(control) as directory, progress() as tell:
        record = create_tenant(
            directory,
            databases(),
            tenant,
            name=name,
            plan=plan,
            placement=placement,
            steps=steps,
            tell=tell,
            take_over=take_over,
        )
    print_record(record, "set up", as_json=as_json)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@place_options("--to")
@take_over_option
@json_option
def move(tenant: str, control: str, as_json: bool, **options: Any) -> None:
    """Move a tenant to another place, and compare every row. It is refused meanwhile."""
    take_over, placement, steps, databases = unpacked(tenant, options)
    with opened_directory(control) as directory, progress() as tell:
        moved = move_tenant(directory, databases(), tenant, placement, steps=steps, tell=tell, take_over=take_over)
    if as_json:
        tables = {table: {"rows": rows, "digest": digest} for table, (rows, digest) in moved.tables.items()}
        print_json({**described(moved.record), "moved_from": moved.source, "tables": tables})
    print_record(moved.record, f"moved, {moved.rows} rows", as_json=False)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@take_over_option
@json_option
def cancel(tenant: str, control: str, take_over: bool, as_json: bool, **options: Any) -> None:
    """Take back what was begun and not finished: a move, or a tenant that could not be set up."""
    with opened_directory(control) as directory, progress() as tell:
        databases = opened_databases(**options)
        if pending_operation(directory, tenant) == "create":
            cancel_create(directory, databases, tenant, take_over=take_over)
            record = None
        else:
            record = cancel_move(directory, databases, tenant, tell=tell, take_over=take_over)
    if record is not None:
        print_record(record, "where it was", as_json=as_json)
        return
    if as_json:
        click.echo(json.dumps(None))
    click.echo(shown_text(f"The tenant {tenant} is struck out."), err=True)


def _set_status(control: str, tenant: str, status: TenantStatus, what: str, *, as_json: bool) -> None:
    with opened_directory(control) as directory:
        record = directory.read(tenant)
        if record.status not in (TenantStatus.ACTIVE, TenantStatus.SUSPENDED):
            raise click.ClickException(f"The tenant is {record.status.value}: finish what was begun with it first.")
        record = directory.change(record, status=status)
    print_record(record, what, as_json=as_json)
    click.echo(f"Every process has noticed within {record.cache_seconds:g} seconds.", err=True)


@tenants.command()
@tenant_argument
@directory_option
@json_option
def suspend(tenant: str, control: str, as_json: bool) -> None:
    """Refuse a tenant from now on."""
    _set_status(control, tenant, TenantStatus.SUSPENDED, "suspended", as_json=as_json)


@tenants.command()
@tenant_argument
@directory_option
@json_option
def activate(tenant: str, control: str, as_json: bool) -> None:
    """Let a suspended tenant in again."""
    _set_status(control, tenant, TenantStatus.ACTIVE, "active", as_json=as_json)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@yes_option
@take_over_option
@json_option
def erase(tenant: str, control: str, yes: bool, take_over: bool, as_json: bool, **options: Any) -> None:
    """Delete all rows of a tenant, and count before and after. It stays, suspended."""
    make_sure(tenant, "erase", yes=yes)
    with opened_directory(control) as directory, progress() as tell:
        erasure = erase_tenant(directory, opened_databases(**options), tenant, tell=tell, take_over=take_over)
    print_erasure(erasure, "erased", as_json=as_json)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@yes_option
@take_over_option
@json_option
def remove(tenant: str, control: str, yes: bool, take_over: bool, as_json: bool, **options: Any) -> None:
    """Remove a tenant for good: its rows, or its own schema or database. Its id is not given again."""
    make_sure(tenant, "remove", yes=yes)
    with opened_directory(control) as directory, progress() as tell:
        erasure = remove_tenant(directory, opened_databases(**options), tenant, tell=tell, take_over=take_over)
    print_erasure(erasure, "removed", as_json=as_json)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@click.option(
    "--to", "directory_path", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new directory."
)
@json_option
def export(tenant: str, control: str, directory_path: Path, as_json: bool, **options: Any) -> None:
    """Write all rows of a tenant into files: JSON Lines with a manifest."""
    with opened_directory(control) as directory, progress() as tell:
        exported = export_tenant(opened_databases(**options), directory.read(tenant), directory_path, tell=tell)
    print_export(exported, "exported", as_json=as_json)


@tenants.command()
@tenant_argument
@databases_options
@directory_option
@click.option(
    "--from",
    "directory_path",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The directory of the export.",
)
@json_option
def restore(tenant: str, control: str, directory_path: Path, as_json: bool, **options: Any) -> None:
    """Write an export's rows back into the tenant's place, and compare them. It must have none there."""
    with opened_directory(control) as directory, progress() as tell:
        exported = restore_tenant(opened_databases(**options), directory.read(tenant), directory_path, tell=tell)
    print_export(exported, "restored", as_json=as_json)
