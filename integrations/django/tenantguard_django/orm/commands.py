"""Django's own commands that work on the whole database run in a system context: ``migrate`` and its like.

They change tables, or read what Django keeps for itself, and are started by an operator with nobody bound. So each runs
in a block of `system` with its name as the reason, which is logged. Where a tenant is bound they are refused as any
other work on the whole database is: a request that calls ``migrate`` gets no further right by it. Commands that work on
rows (``dumpdata``, ``loaddata``, ``shell``, a project's own) get nothing; they bind a tenant or enter `system`
themselves.
"""

import sys
from typing import Any, Final

from django.core.management.base import BaseCommand

from tenantguard.binding import current_binding
from tenantguard.permits import system

__all__ = ["SYSTEM_COMMANDS", "in_test_environment", "install_system_commands"]

SYSTEM_COMMANDS: Final = frozenset(
    {
        "check",
        "createcachetable",
        "flush",
        "inspectdb",
        "makemigrations",
        "migrate",
        "optimizemigration",
        "showmigrations",
        "sqlflush",
        "sqlmigrate",
        "sqlsequencereset",
        "squashmigrations",
    }
)
"""Names of Django's commands that run in a system context where nobody is bound."""
_HOME: Final = "django.core.management.commands."


def _system_name(command: Any) -> str | None:
    for cls in type(command).__mro__:
        name = cls.__module__.removeprefix(_HOME)
        if name != cls.__module__ and name in SYSTEM_COMMANDS:
            return name
    return None


def in_test_environment() -> bool:
    """True while Django's test runner is set up, whose `TransactionTestCase` flushes and fills tables around a test."""
    utils: Any = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def install_system_commands() -> None:
    """Run the commands so, once for the process."""
    original = BaseCommand.execute
    if getattr(original, "tenantguard", False):
        return

    def execute(self: Any, *args: Any, **options: Any) -> Any:
        name = _system_name(self)
        if name is None or (current_binding() is not None and not (name == "flush" and in_test_environment())):
            return original(self, *args, **options)
        with system(f"manage.py {name}"):
            return original(self, *args, **options)

    looked = BaseCommand.check_migrations

    def check_migrations(self: Any) -> Any:
        with system("manage.py: are there migrations to run?"):
            return looked(self)

    execute.tenantguard = True
    BaseCommand.execute = execute
    BaseCommand.check_migrations = check_migrations
