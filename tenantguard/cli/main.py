"""The root of the command line. A command is a module of this package that makes a `click.Command`; add it below.

Exit codes: 0 it was done, 1 it failed, 2 it was called wrongly. What a command made goes to stdout, plain enough for a
pipe; what it has to say about it goes to stderr.
"""

import os
from typing import Final

import click

from tenantguard.cli.api_keys import api_keys
from tenantguard.cli.citus import citus
from tenantguard.cli.doctor import doctor
from tenantguard.cli.rls import rls
from tenantguard.cli.tenants import tenants
from tenantguard.cli.tenants_migrate import migrate

__all__ = ["tenantguard"]

COMMANDS: Final[tuple[click.Command, ...]] = (api_keys, citus, doctor, rls, tenants)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tenantguard")
@click.pass_context
def tenantguard(context: click.Context) -> None:
    """Identity and tenant barrier for multi-tenant Python web apps."""
    if os.environ.get("NO_COLOR"):
        context.color = False


tenants.add_command(migrate)
for command in COMMANDS:
    tenantguard.add_command(command)
