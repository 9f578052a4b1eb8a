"""``manage.py tenantguard_run_as``: run another command as a service of one tenant, or in a system context.

A command that was not written for tenants then reads and writes the rows of one, as any request does. What works
across all of them says why, and its reason is logged.
"""

import argparse
from typing import Any

from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand, CommandParser

from tenantguard.context import bind
from tenantguard.errors import TenantGuardError
from tenantguard.identity import service_identity
from tenantguard.permits import system

__all__ = ["Command"]


class Command(BaseCommand):
    """Runs another command as somebody."""

    help = "Run another command as a service of one tenant, or across tenants for a reason that is logged."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own attribute

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("--tenant", metavar="ID", help="The tenant to work in.")
        who.add_argument("--system", metavar="REASON", help="Work across tenants, for this reason.")
        parser.add_argument("--service", metavar="NAME", help="Who works; the command's name by default.")
        parser.add_argument("--scopes", default="", metavar="SCOPES", help="Scopes, separated by spaces.")
        parser.add_argument("name", metavar="COMMAND", help="The command to run.")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="Its arguments.")

    def handle(self, **options: Any) -> str | None:
        """Run the command."""
        name, arguments = options["name"], options["arguments"]
        try:
            if options["system"] is not None:
                if options["service"] or options["scopes"]:
                    raise CommandError("--service and --scopes are for --tenant.")
                block: bind | system = system(options["system"])
            else:
                scopes = frozenset(options["scopes"].split())
                block = bind(service_identity(options["service"] or name, tenant=options["tenant"], scopes=scopes))
        except (TenantGuardError, ValueError) as error:
            raise CommandError(str(error)) from None
        with block:
            returned: Any = call_command(name, *arguments, stdout=self.stdout, stderr=self.stderr)
        return returned if isinstance(returned, str) else None
