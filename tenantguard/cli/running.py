"""What all commands share: how they run, how errors end them, and how a duration is written."""

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio
import click

from tenantguard.errors import ConfigurationError, InvalidTenantId, TenantGuardError

__all__ = ["duration", "run"]

T = TypeVar("T")

_UNITS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}[wdhms])+")
_PART: Final = re.compile(r"([0-9]+)([wdhms])")


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run the async part of a command.

    Raises:
        click.UsageError: what was asked for is not usable: exit code 2.
        click.ClickException: it failed: exit code 1.
    """
    try:
        return anyio.run(work)
    except (ConfigurationError, InvalidTenantId) as error:
        raise click.UsageError(str(error), ctx=click.get_current_context(silent=True)) from None
    except TenantGuardError as error:
        raise click.ClickException(str(error)) from None


def duration(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:  # noqa: ARG001 - a callback of click
    """Read a duration such as ``90d`` or ``1h30m`` as whole seconds. A callback of click's options."""
    if value is None:
        return None
    if not _DURATION.fullmatch(value):
        raise click.BadParameter("Write a duration with units, for example 90d, 12h or 1h30m (w, d, h, m, s).")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(value))
