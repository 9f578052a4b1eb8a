"""The row-level security of one or several MetaData, as SQL: what is to stand in the database, and the way to it.

Every statement may be run again: it changes nothing, and takes no heavy lock, where the table is as it should be. The
names of policies and triggers carry a hash of their definition, so an outdated one is known by its name. The order is
such that no moment is open or dark: functions come first, a table gets its policies before they are switched on, a new
policy before the old one goes, and the role gets its rights on a table last. Each table is a transaction of its own
with a short lock timeout, so that a long query makes the script wait and fail, and not everybody behind it.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from sqlalchemy import MetaData, Table

from tenantguard.errors import ConfigurationError
from tenantguard.orm.classify import Child, Shared, check_metadata, classify_alone
from tenantguard.orm.links import Link, links_of
from tenantguard.orm.rls.blocks import (
    create_missing,
    create_role,
    drop_others,
    grant_rights,
    grant_sequences,
    revoke_temporary,
    secure_views,
    switch_on,
)
from tenantguard.orm.rls.expressions import Expressions, dimensions_of, literal, quoted
from tenantguard.orm.rls.functions import function_statements
from tenantguard.orm.side_effects import carrying

__all__ = ["LinkGuard", "Policy", "RlsPlan"]

PREFIX: Final = "tenantguard_"
TRIGGER_PREFIX: Final = "0_tenantguard_"
"""Before ``RI_``: triggers fire by name, and a foreign key's own error would tell that there is such a row."""
LOCK_TIMEOUT: Final = "3s"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


class Policy(NamedTuple):
    """A policy as it should be.

    Args:
        name: with a hash of the rest.
        command: ``ALL`` or ``SELECT``.
        using: the condition of rows that are seen or changed.
        check: the condition of rows as they are written; ``None`` for SELECT.
    """

    name: str
    command: str
    using: str
    check: str | None

    def create(self, table: str) -> str:
        """Return the statement that makes it.

        Args:
            table: the table's name, in quotes.
        """
        check = "" if self.check is None else f" WITH CHECK ({self.check})"
        return f"CREATE POLICY {quoted(self.name)} ON {table} FOR {self.command} USING ({self.using}){check}"


class LinkGuard(NamedTuple):
    """The triggers that refuse a foreign key to a row of another tenant, which policies don't look at.

    Args:
        function: the name of the function in the schema ``tenantguard``.
        body: the function's body.
        names: the triggers, on insert and on update.
        columns: the foreign key's columns.
        deferred: whether the foreign key is checked at the end of the transaction.
    """

    function: str
    body: str
    names: tuple[str, str]
    columns: tuple[str, ...]
    deferred: bool

    def create_function(self) -> str:
        """Return the statement that makes the function."""
        return (
            f"CREATE OR REPLACE FUNCTION tenantguard.{self.function}() RETURNS trigger LANGUAGE plpgsql "
            f"SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $body${self.body}$body$"
        )

    def creates(self, table: str) -> dict[str, str]:
        """Return the statements that make the triggers, by their names.

        Args:
            table: the table's name, in quotes.
        """
        changed = " OR ".join(f"OLD.{quoted(one)} IS DISTINCT FROM NEW.{quoted(one)}" for one in self.columns)
        kind, timing = ("CONSTRAINT ", " DEFERRABLE INITIALLY DEFERRED") if self.deferred else ("", "")
        return {
            name: f"CREATE {kind}TRIGGER {quoted(name)} AFTER {event} ON {table}{timing} FOR EACH ROW{when} "
            f"EXECUTE FUNCTION tenantguard.{self.function}()"
            for name, event, when in zip(self.names, ("INSERT", "UPDATE"), ("", f" WHEN ({changed})"), strict=True)
        }


@final
class RlsPlan:
    """What row-level security should be.

    Args:
        metadata: one or several, all of whose tables are classified.
        role: the role that the app logs in as, or that its login is a member of.
        schema: the schema of tables that name none.
        sealed: whether the setting must be sealed.

    Raises:
        ConfigurationError: a table is not classified, or has a key that no policy can compare.
    """

    def __init__(self, *metadata: MetaData, role: str, schema: str = "public", sealed: bool = True) -> None:
        if not metadata or not all(isinstance(one, MetaData) for one in metadata):
            raise ConfigurationError(
                "RlsPlan() needs a MetaData.", mend='For example RlsPlan(Base.metadata, role="app").'
            )
        if not role:
            raise ConfigurationError("RlsPlan() needs the app's role.", mend='For example role="app".')
        check_metadata(*metadata)
        self.metadata = metadata
        self.role = role
        self.sealed = sealed
        self._dimensions = dimensions_of(metadata)
        self._expressions = Expressions(self._dimensions, schema)
        self.tables: list[Table] = [table for one in metadata for table in one.sorted_tables]
        """Every table, parents before children."""
        self.protected: list[Table] = [one for one in self.tables if not isinstance(classify_alone(one), Shared)]
        """Those whose rows belong to tenants."""
        for table in self.protected:
            self.policies(table)

    @property
    def schema(self) -> str:
        """The schema of tables that name none."""
        return self._expressions.schema

    @property
    def schemas(self) -> list[str]:
        """The schemas of the tables."""
        return sorted({table.schema or self._expressions.schema for table in self.tables})

    def name(self, table: Table) -> str:
        """Return a table's name with its schema, in quotes."""
        return self._expressions.name(table)

    def policies(self, table: Table) -> list[Policy]:
        """Return the policies of a table whose rows belong to tenants."""
        readable, writable = self._expressions.readable(table), self._expressions.writable(table)
        name = f"{PREFIX}own_{_hash('ALL', writable, self.name(table))}"
        found = [Policy(name, "ALL", writable, writable)]
        if readable != writable:
            name = f"{PREFIX}read_{_hash('SELECT', readable, self.name(table))}"
            found.append(Policy(name, "SELECT", readable, None))
        return found

    def link_guards(self, table: Table) -> list[LinkGuard]:
        """Return the triggers of a table's foreign keys to rows of tenants."""
        kind = classify_alone(table)
        return [
            self._link_guard(table, link)
            for link in links_of(table, frozenset(self._dimensions))
            if not (isinstance(kind, Child) and link.owns)  # the policy looks at the parent
        ]

    def _link_guard(self, table: Table, link: Link) -> LinkGuard:
        columns = tuple(column.name for column in link.columns)
        given = " AND ".join(f"NEW.{quoted(name)} IS NOT NULL" for name in columns)
        joined = " AND ".join(
            f"p.{quoted(target.name)} = NEW.{quoted(name)}" for name, target in zip(columns, link.targets, strict=True)
        )
        body = (
            f"\nBEGIN\n  IF {given} AND NOT EXISTS (SELECT FROM {self.name(link.table)} AS p WHERE {joined}) THEN\n"
            f"    RAISE insufficient_privilege USING MESSAGE = 'a foreign key points to no row of this tenant', "
            f"TABLE = {literal(table.name)};\n  END IF;\n  RETURN NULL;\nEND\n"
        )
        deferred = any(
            constraint.initially is not None and constraint.initially.upper() == "DEFERRED"
            for constraint in table.foreign_key_constraints
            if tuple(element.parent for element in constraint.elements) == link.columns
        )
        mark = _hash(self.name(table), *columns, body, str(deferred))
        names = (f"{TRIGGER_PREFIX}{mark}_insert", f"{TRIGGER_PREFIX}{mark}_update")
        return LinkGuard(f"link_{mark}", body, names, columns, deferred)

    def up(self) -> Iterator[list[str]]:
        """Yield the statements that make it so, one transaction after the other."""
        role = quoted(self.role)
        yield [create_role(self.role), *function_statements(role, sealed=self.sealed), revoke_temporary()]
        for schema in self.schemas:
            # A new table is nobody's until it has its policies.
            named = quoted(schema)
            yield [
                f"REVOKE CREATE ON SCHEMA {named} FROM PUBLIC",
                f"REVOKE CREATE ON SCHEMA {named} FROM {role}",
                f"GRANT USAGE ON SCHEMA {named} TO {role}",
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA {named} REVOKE ALL ON TABLES FROM {role}",
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA {named} GRANT USAGE ON SEQUENCES TO {role}",
            ]
        for table in self.tables:
            yield self.table_up(table)
        yield [secure_views(map(self.name, self.protected))]

    def table_up(self, table: Table) -> list[str]:
        """Return the statements for one table, which belong into one transaction."""
        name = self.name(table)
        guards = self.link_guards(table)
        triggers = {trigger: text for guard in guards for trigger, text in guard.creates(name).items()}
        made = [f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", *(guard.create_function() for guard in guards)]
        if triggers:
            made.append(create_missing("pg_trigger", "tgrelid", "tgname", name, triggers))
        made.append(drop_others("pg_trigger", "tgrelid", "tgname", name, TRIGGER_PREFIX, triggers))
        if table in self.protected:
            policies = {policy.name: policy.create(name) for policy in self.policies(table)}
            made.append(create_missing("pg_policy", "polrelid", "polname", name, policies))
            made.append(drop_others("pg_policy", "polrelid", "polname", name, PREFIX, policies))
            made.append(switch_on(name))
        made += [
            *grant_rights(name, self.role, self.rights(table)),
            grant_sequences(name, self.role),
        ]
        return made

    def rights(self, table: Table) -> list[str]:
        """Return the rights of the app's role on a table.

        Args:
            table: one of the plan's.
        """
        deletes, kept = self.withheld(table)
        found = ["SELECT", "INSERT"]
        columns = [quoted(one.name) for one in table.columns if one.name not in kept]
        if not kept:
            found.append("UPDATE")
        elif columns:
            found.append(f"UPDATE ({', '.join(columns)})")
        return found if deletes else [*found, "DELETE"]

    def withheld(self, table: Table) -> tuple[bool, frozenset[str]]:
        """Return what the app's role may not do to a shared table, as foreign keys would carry it on to any tenant.

        Args:
            table: one of the plan's.

        Returns:
            Whether it is DELETE, and the columns of which it is UPDATE.
        """
        kept = {one.name for one in table.columns if carrying(table, "update", {one}.__contains__) is not None}
        return carrying(table, "delete", lambda _: True) is not None, frozenset(kept)

    def down(self) -> Iterator[list[str]]:
        """Yield the statements that take it all back, except for the role, one transaction after the other."""
        role = quoted(self.role)
        for table in reversed(self.tables):
            name = self.name(table)
            made = [f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", f"REVOKE ALL ON {name} FROM {role}"]
            made += [
                f"DROP TRIGGER IF EXISTS {quoted(one)} ON {name}" for g in self.link_guards(table) for one in g.names
            ]
            if table in self.protected:
                made.append(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
                made += [f"DROP POLICY IF EXISTS {quoted(policy.name)} ON {name}" for policy in self.policies(table)]
            yield made
        for schema in self.schemas:
            yield [
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA {quoted(schema)} REVOKE ALL ON SEQUENCES FROM {role}",
                f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {quoted(schema)} FROM {role}",
                f"REVOKE USAGE ON SCHEMA {quoted(schema)} FROM {role}",
            ]
        yield ["DROP SCHEMA IF EXISTS tenantguard CASCADE"]

    def script(self, *, down: bool = False) -> str:
        """Return it as a script for psql: stop at the first error with ``-v ON_ERROR_STOP=1``."""
        blocks = self.down() if down else self.up()
        return "".join("BEGIN;\n" + "".join(f"{one};\n" for one in block) + "COMMIT;\n\n" for block in blocks)

    def condition(self, table: Table) -> str:
        """Return the condition of a table's rows that are the tenant's own."""
        return self._expressions.writable(table)
