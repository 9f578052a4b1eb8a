"""``tenantguard api-keys``: mint, list, rotate and revoke the API keys of service accounts.

A key is printed once, alone on stdout, so that it can be piped into a secret store. No other output has it, nor its
digest. The commands work across tenants: whoever holds the database's URL does.
"""

import importlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import click
import msgspec

from tenantguard.cli.output import print_json, print_table, shown_text, shown_time
from tenantguard.cli.running import duration, run
from tenantguard.identity import ActorType
from tenantguard.tokens.api_key_format import is_key_id
from tenantguard.tokens.api_keys import ApiKey, ApiKeys, ApiKeyState, MintedKey, SqlApiKeyStore
from tenantguard.tokens.revocation import RevocationFeed, RevocationKind, Revocations

__all__ = ["api_keys"]

_F = TypeVar("_F", bound=Callable[..., Any])

_STATE_COLOURS: Final = {ApiKeyState.ACTIVE: "green", ApiKeyState.EXPIRED: "yellow", ApiKeyState.REVOKED: "red"}


def _key_id(context: click.Context, parameter: click.Parameter, value: str) -> str:  # noqa: ARG001 - a callback of click
    """Check the id of a key. What was given instead is never shown, since it may be a key."""
    if not is_key_id(value):
        raise click.BadParameter("An id is the 16 letters and digits between the underscores of the key.")
    return value


def _store_options(function: _F) -> _F:
    """Add the options that say where the keys are."""
    function = click.option(
        "--table", default="tenantguard_api_keys", show_default=True, metavar="NAME", help="Table of the keys."
    )(function)
    return click.option(
        "--database",
        required=True,
        metavar="URL",
        envvar="TENANTGUARD_DATABASE_URL",
        show_envvar=True,
        help="Database of the keys, for example postgresql://app@db/app or sqlite:///keys.sqlite3.",
    )(function)


_prefix_option: Final = click.option(
    "--prefix",
    default="tgk",
    show_default=True,
    envvar="TENANTGUARD_API_KEY_PREFIX",
    show_envvar=True,
    help="What the key begins with: that of ApiKeys(prefix=...) in the app.",
)
_json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@asynccontextmanager
async def _opened(database: str, table: str, **options: Any) -> AsyncIterator[ApiKeys]:
    store = SqlApiKeyStore(database, table_name=table)
    try:
        yield ApiKeys(store, **options)
    finally:
        await store.aclose()


@click.group()
def api_keys() -> None:
    """Keys of service accounts: mint, list, rotate and revoke them."""


@api_keys.command("create-table")
@_store_options
def create_table(database: str, table: str) -> None:
    """Make the table of the keys, where it is not there yet."""

    async def work() -> None:
        store = SqlApiKeyStore(database, table_name=table)
        try:
            await store.create_table()
        finally:
            await store.aclose()

    run(work)
    click.echo(f"The table {table} is there.", err=True)


@api_keys.command()
@_store_options
@_prefix_option
@click.option("--service", required=True, metavar="NAME", help="The service account that the key belongs to.")
@click.option("--tenant", metavar="ID", help="The one tenant in which it works.")
@click.option("--no-tenant", is_flag=True, help="The key belongs to no tenant, and reaches no tenant's rows.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What it may do. May be given several times.")
@click.option("--expires-in", callback=duration, metavar="DURATION", help="For example 90d. Left out: never.")
@click.option("--name", metavar="TEXT", help="What people call the key.")
@click.option(
    "--actor-type", type=click.Choice(["service", "agent"]), default="service", show_default=True, help="Who uses it."
)
@_json_option
def mint(
    database: str,
    table: str,
    prefix: str,
    service: str,
    tenant: str | None,
    no_tenant: bool,
    scopes: tuple[str, ...],
    expires_in: int | None,
    name: str | None,
    actor_type: str,
    as_json: bool,
) -> None:
    """Make a key and print it, once."""
    if (tenant is None) is not no_tenant:
        raise click.UsageError("Give either --tenant ID or --no-tenant.")

    async def work() -> MintedKey:
        async with _opened(database, table, prefix=prefix) as keys:
            return await keys.mint(
                service=service,
                tenant=tenant,
                scopes=" ".join(scopes),
                expires_in=expires_in,
                name=name,
                actor_type=ActorType(actor_type),
            )

    _print_minted(run(work), as_json=as_json)


@api_keys.command("list")
@_store_options
@click.option("--tenant", metavar="ID", help="Only keys of this tenant.")
@click.option("--no-tenant", is_flag=True, help="Only keys of no tenant.")
@click.option("--service", metavar="NAME", help="Only keys of this service account.")
@click.option("--state", type=click.Choice([state.value for state in ApiKeyState]), help="Only keys in this state.")
@_json_option
def list_keys(
    database: str,
    table: str,
    tenant: str | None,
    no_tenant: bool,
    service: str | None,
    state: str | None,
    as_json: bool,
) -> None:
    """List keys, the oldest first. The keys themselves are not shown: nobody has them."""
    if tenant is not None and no_tenant:
        raise click.UsageError("Give --tenant ID or --no-tenant, not both.")

    async def work() -> tuple[ApiKey, ...]:
        async with _opened(database, table) as keys:
            return await keys.list(
                tenant=tenant if tenant is not None or no_tenant else msgspec.UNSET,
                service=msgspec.UNSET if service is None else service,
            )

    now = time.time()
    found = [key for key in run(work) if state in (None, key.state_at(now))]
    if as_json:
        print_json([_described(key, now) for key in found])
    elif not found:
        click.echo("There are no such keys.", err=True)
    else:
        print_table(
            ("ID", "SERVICE", "TENANT", "SCOPES", "EXPIRES", "LAST USED", "STATE"),
            [
                (
                    key.id,
                    key.service,
                    key.tenant or "-",
                    " ".join(sorted(key.scopes)) or "-",
                    shown_time(key.expires_at, none="never"),
                    shown_time(key.last_used_at, none="never"),
                    key.state_at(now),
                )
                for key in found
            ],
            colours={str(state): colour for state, colour in _STATE_COLOURS.items()},
        )


@api_keys.command()
@_store_options
@_prefix_option
@click.argument("key_id", metavar="ID", callback=_key_id)
@click.option(
    "--overlap",
    callback=duration,
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long the old key goes on. 0s ends it now.",
)
@click.option("--expires-in", callback=duration, metavar="DURATION", help="Left out: lasts as long as the old one.")
@_json_option
def rotate(
    database: str, table: str, prefix: str, key_id: str, overlap: int, expires_in: int | None, as_json: bool
) -> None:
    """Make a key in the place of another and print it, once. The old one goes on for a while."""

    async def work() -> MintedKey:
        async with _opened(database, table, prefix=prefix) as keys:
            return await keys.rotate(key_id, overlap, expires_in=expires_in)

    _print_minted(run(work), as_json=as_json)


@api_keys.command()
@_store_options
@click.argument("key_id", metavar="ID", callback=_key_id)
@click.option(
    "--redis",
    metavar="URL",
    envvar="TENANTGUARD_REDIS_URL",
    show_envvar=True,
    help="Redis of the apps' revocations: workers that have just seen the key refuse it within a second.",
)
@click.option("--feed", default="tenantguard:revocations", show_default=True, metavar="NAME", help="Name of the feed.")
@_json_option
def revoke(database: str, table: str, key_id: str, redis: str | None, feed: str, as_json: bool) -> None:
    """Revoke a key for good.

    Without --redis, apps that have just seen it refuse it after at most 30 seconds, or their max_age.
    """

    async def work() -> None:
        revocations = None if redis is None else Revocations(feed=_redis_feed(redis, feed))
        async with _opened(database, table) as keys:
            await keys.revoke(key_id)
        if revocations is not None:
            # Of every issuer, since the app may have named its own; the ids are random, so no other token has this one.
            await revocations.revoke_async(RevocationKind.TOKEN, key_id)

    run(work)
    if as_json:
        print_json({"id": key_id, "state": ApiKeyState.REVOKED})
    else:
        click.echo(f"The key {key_id} is revoked.", err=True)


def _redis_feed(url: str, name: str) -> RevocationFeed:
    """Return the feed. Its distribution is imported by name, since it stands above this one."""
    try:
        module = importlib.import_module("tenantguard_redis")
    except ImportError:
        raise click.UsageError('--redis needs tenantguard-redis: pip install "tenantguard[redis]".') from None
    made: RevocationFeed = module.RedisRevocations(url, name=name)
    return made


def _print_minted(minted: MintedKey, *, as_json: bool) -> None:
    record = minted.record
    if as_json:
        print_json({"key": minted.key, **_described(record, record.created_at)})
    else:
        click.echo(minted.key)
    where = "no tenant" if record.tenant is None else f"tenant {record.tenant}"
    ends = "never ends" if record.expires_at is None else f"ends {shown_time(record.expires_at, none='')}"
    instead = "" if record.replaces is None else f", in place of {record.replaces}"
    click.echo(shown_text(f"Key {record.id} of {record.service} in {where}{instead}; it {ends}."), err=True)
    click.echo("Keep it now: it is not shown again.", err=True)


def _described(key: ApiKey, now: float) -> dict[str, Any]:
    """What may be shown of a key; the digest may not."""
    return {
        "id": key.id,
        "service": key.service,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "actor_type": key.actor_type,
        "name": key.name,
        "state": key.state_at(now),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "replaces": key.replaces,
    }
