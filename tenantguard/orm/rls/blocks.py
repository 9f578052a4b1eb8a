"""The SQL that makes a change only where it is not made yet: ``DO`` blocks, with names quoted by those who call."""

from collections.abc import Iterable, Mapping, Sequence

from tenantguard.orm.rls.expressions import literal, quoted

__all__ = [
    "create_missing",
    "create_role",
    "drop_others",
    "grant_rights",
    "grant_sequences",
    "grant_temporary",
    "revoke_sequences",
    "revoke_temporary",
    "secure_views",
    "switch_on",
]


def create_role(role: str) -> str:
    """Return the block that makes a role that may do nothing by itself.

    Args:
        role: its name, as it is.
    """
    name = literal(role)
    return f"""DO $do$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN
    EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', {name});
  END IF;
END
$do$"""


def revoke_temporary() -> str:
    """Return the block that lets nobody make temporary tables without a grant: they shadow the real ones."""
    return _temporary("REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC")


def grant_temporary() -> str:
    """Return the block that lets everybody make temporary tables again."""
    return _temporary("GRANT TEMPORARY ON DATABASE %I TO PUBLIC")


def _temporary(command: str) -> str:
    return f"""DO $do$
BEGIN
  EXECUTE pg_catalog.format('{command}', pg_catalog.current_database());
END
$do$"""


def create_missing(catalogue: str, of: str, name: str, table: str, statements: Mapping[str, str]) -> str:
    """Return the block that makes what has no row in a catalogue.

    Args:
        catalogue: ``pg_policy`` or ``pg_trigger``.
        of: its column of the table.
        name: its column of the name.
        table: the table, in quotes.
        statements: what makes each, by its name.
    """
    made = "".join(
        f"""
  IF NOT EXISTS (
    SELECT FROM pg_catalog.{catalogue} WHERE {of} = {literal(table)}::regclass AND {name} = {literal(one)}
  ) THEN
    {statement};
  END IF;"""
        for one, statement in statements.items()
    )
    return f"DO $do$\nBEGIN{made}\nEND\n$do$"


def drop_others(catalogue: str, of: str, name: str, table: str, prefix: str, keep: Iterable[str]) -> str:
    """Return the block that drops what is ours by its prefix and outdated.

    Args:
        catalogue: ``pg_policy`` or ``pg_trigger``.
        of: its column of the table.
        name: its column of the name.
        table: the table, in quotes.
        prefix: what the names of ours begin with.
        keep: the names of those that stay.
    """
    kept = ", ".join(map(literal, keep)) or "''"
    what = catalogue.removeprefix("pg_").upper()
    return f"""DO $do$
DECLARE
  old name;
BEGIN
  FOR old IN
    SELECT {name} FROM pg_catalog.{catalogue} WHERE {of} = {literal(table)}::regclass
    AND pg_catalog.starts_with({name}::text, {literal(prefix)}) AND {name} NOT IN ({kept})
  LOOP
    EXECUTE pg_catalog.format('DROP {what} %I ON %s', old, {literal(table)}::regclass);
  END LOOP;
END
$do$"""


def switch_on(table: str) -> str:
    """Return the block that switches row-level security on, for the table's owner too.

    Args:
        table: the table, in quotes.
    """
    return f"""DO $do$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_class
    WHERE oid = {literal(table)}::regclass AND NOT (relrowsecurity AND relforcerowsecurity)
  ) THEN
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
  END IF;
END
$do$"""


def grant_rights(table: str, role: str, rights: Sequence[str]) -> list[str]:
    """Return the statements that give a role its rights on a table and no others, and everybody none.

    Args:
        table: the table, in quotes.
        role: the role, as it is.
        rights: as GRANT takes them, some of SELECT, INSERT, UPDATE, UPDATE of columns, DELETE.
    """
    taken = [one for one in ("UPDATE", "DELETE") if one not in rights]
    return [
        f"REVOKE ALL ON {table} FROM PUBLIC",
        f"REVOKE {', '.join([*taken, 'TRUNCATE', 'REFERENCES', 'TRIGGER'])} ON {table} FROM {quoted(role)}",
        f"GRANT {', '.join(rights)} ON {table} TO {quoted(role)}",
    ]


def grant_sequences(table: str, role: str) -> str:
    """Return the block that lets a role take numbers from the sequences of a table, and see none that others took.

    Args:
        table: the table, in quotes.
        role: the role, as it is.
    """
    return _for_sequences(table, role, "GRANT USAGE ON SEQUENCE %s TO %I")


def revoke_sequences(table: str, role: str) -> str:
    """Return the block that takes it back.

    Args:
        table: the table, in quotes.
        role: the role, as it is.
    """
    return _for_sequences(table, role, "REVOKE ALL ON SEQUENCE %s FROM %I")


def _for_sequences(table: str, role: str, command: str) -> str:
    return f"""DO $do$
DECLARE
  sequence regclass;
BEGIN
  FOR sequence IN
    SELECT s.oid FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjid = {literal(table)}::regclass
    AND d.deptype IN ('a', 'i') AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(role)})
  LOOP
    EXECUTE pg_catalog.format('{command}', sequence, {literal(role)});
  END LOOP;
END
$do$"""


def secure_views(tables: Iterable[str]) -> str:
    """Return the block that has the views of tables read with the rights of who asks, not of who made the view.

    Args:
        tables: the tables, in quotes.
    """
    named = ", ".join(f"{literal(table)}::regclass" for table in tables) or "NULL"
    return f"""DO $do$
DECLARE
  seen regclass;
BEGIN
  FOR seen IN
    SELECT DISTINCT c.oid FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class AND c.relkind = 'v'
    WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid IN ({named})
    AND NOT pg_catalog.array_to_string(c.reloptions, ',') ~ 'security_invoker=(true|on|yes|1)' IS TRUE
  LOOP
    EXECUTE pg_catalog.format('ALTER VIEW %s SET (security_invoker = true)', seen);
  END LOOP;
END
$do$"""
