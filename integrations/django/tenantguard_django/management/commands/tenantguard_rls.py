"""``manage.py tenantguard_rls``: PostgreSQL's row-level security, from the models: print it, apply it, check it.

It works with the role that owns the tables, which is not the app's: give that its own alias in ``DATABASES``, and name
it with ``--database``. The key of the seal comes from the environment alone, and is printed nowhere.
"""

import base64
import binascii
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.pool import NullPool

from tenantguard.errors import ConfigurationError, UnclassifiedTable
from tenantguard.orm.rls import RlsPlan, Seal
from tenantguard.orm.rls.check import check_database
from tenantguard_django.orm.rls import plan_of

__all__ = ["Command"]

KEY_VARIABLE: Final = "TENANTGUARD_RLS_KEY"


class Command(BaseCommand):
    """Writes, applies and checks the policies."""

    help = "Row-level security of PostgreSQL, from the models."
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own attribute

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("action", choices=["sql", "apply", "check"], help="Print it, apply it, or compare.")
        parser.add_argument("--role", required=True, help="The role that the app, or its login, has.")
        parser.add_argument("--database", default="default", help="The alias of the tables' owner: not the app's.")
        parser.add_argument("--schema", default="public", help="The schema of the tables.")
        parser.add_argument("--plain", action="store_true", help="The tenant is not sealed.")
        parser.add_argument("--down", action="store_true", help="The way back.")
        parser.add_argument("--bound-to", choices=["backend", "transaction"], default="backend", help="See Seal.")
        parser.add_argument("--attempt", nargs=2, metavar="TENANT", help="check: try to reach each other's rows.")

    def handle(self, **options: Any) -> None:
        """Do it."""
        alias, action = options["database"], options["action"]
        if alias not in connections:
            raise CommandError(f"There is no database {alias!r}.")
        try:
            plan = plan_of(alias, role=options["role"], schema=options["schema"], sealed=not options["plain"])
        except (ConfigurationError, UnclassifiedTable) as error:
            raise CommandError(str(error)) from None
        if action == "sql":
            self.stdout.write(plan.script(down=options["down"]))
            return
        seal = None
        if action == "apply" and not options["plain"] and not options["down"]:
            seal = _seal(options["bound_to"])
        with _connected(alias) as connection:
            if action == "apply":
                _apply(connection, plan, seal, down=options["down"])
                self.stderr.write(f"Tables: {len(plan.tables)}, of tenants: {len(plan.protected)}.")
            else:
                self._check(connection, plan, options["attempt"])

    def _check(self, connection: Connection, plan: RlsPlan, attempt: list[str] | None) -> None:
        try:
            findings = check_database(connection, plan, tenants=(attempt[0], attempt[1]) if attempt else None)
        except ConfigurationError as error:
            raise CommandError(str(error)) from None
        # Django's own list of migrations has no model. The app's role does not reach it, and has no need to.
        findings = tuple(one for one in findings if not one.table.endswith(MigrationRecorder.Migration._meta.db_table))
        for one in findings:
            self.stdout.write(self.style.ERROR(f"{one.severity.value} {one.id}: {one.table}"))
            self.stdout.write(f"  {one.message}\n  {one.mend}")
            for statement in one.ddl:
                self.stdout.write(f"    {statement};")
        self.stderr.write(f"Tables: {len(plan.tables)}, of tenants: {len(plan.protected)}. Findings: {len(findings)}.")
        if findings:
            sys.exit(1)


def _apply(connection: Connection, plan: RlsPlan, seal: Seal | None, *, down: bool) -> None:
    for block in plan.down() if down else plan.up():
        for statement in block:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        connection.commit()
    if seal is not None:
        connection.exec_driver_sql(seal.key_statement(), execution_options={"no_parameters": True})
        connection.commit()


def _seal(bound_to: Any) -> Seal:
    try:
        return Seal(base64.b64decode(os.environ[KEY_VARIABLE], validate=True), bound_to=bound_to)
    except KeyError:
        raise CommandError(f"Put the key into {KEY_VARIABLE}: openssl rand -base64 32. Or give --plain.") from None
    except (binascii.Error, ConfigurationError):
        raise CommandError(f"{KEY_VARIABLE} holds no base64 of 32 bytes or more.") from None


@contextmanager
def _connected(alias: str) -> Iterator[Connection]:
    """Connect to a database of Django's settings by SQLAlchemy, with which the core's checks work."""
    known: Any = connections[alias]
    if known.vendor != "postgresql":
        raise CommandError(f"The database {alias!r} is no PostgreSQL.")
    # Django's own parameters, so that what is in OPTIONS counts: TLS, a service, a password file.
    own = ("cursor_factory", "context")
    parameters = {name: value for name, value in known.get_connection_params().items() if name not in own}
    driver = importlib.import_module(_driver())
    engine = create_engine(
        f"postgresql+{driver.__name__}://", poolclass=NullPool, creator=lambda: driver.connect(**parameters)
    )
    role = known.settings_dict["OPTIONS"].get("assume_role")
    try:
        with engine.connect() as connection:
            if role:
                quoted = connection.dialect.identifier_preparer.quote_identifier(role)
                connection.exec_driver_sql(f"SET ROLE {quoted}", execution_options={"no_parameters": True})
                connection.commit()
            yield connection
    except exc.DBAPIError as error:
        text = getattr(getattr(error.orig, "diag", None), "message_primary", None) or type(error.orig).__name__
        raise CommandError(f"PostgreSQL refused it: {text}") from None


def _driver() -> str:
    try:
        import psycopg  # noqa: F401 - whether it is there
    except ImportError:
        return "psycopg2"
    return "psycopg"
