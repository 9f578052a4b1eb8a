"""The SQL of the operations, made of what stands in a migration script and of nothing else.

A script that was written today does the same in two years, whatever the models and this library have become by then:
its policies, link checks and functions stand in it as text. What changes a table is one ``DO`` block, which PostgreSQL
runs as a whole or not at all, also in AUTOCOMMIT and in a script for psql: a table is never left with its old policies
gone and its new ones not there yet. The block waits for its lock as long as the session says, or three seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenantguard.errors import ConfigurationError
from tenantguard.orm.rls.blocks import (
    create_role,
    grant_rights,
    grant_sequences,
    grant_temporary,
    revoke_sequences,
    revoke_temporary,
)
from tenantguard.orm.rls.expressions import literal, quoted
from tenantguard.orm.rls.functions import KEYS_TABLE, function_statements
from tenantguard.orm.rls.plan import LOCK_TIMEOUT, PREFIX, TRIGGER_PREFIX, LinkGuard, Policy

__all__ = [
    "FULL_RIGHTS",
    "LINK_PREFIX",
    "disable_table",
    "enable_table",
    "guard_of",
    "open_table",
    "policy_of",
    "remove",
    "secure_views",
    "set_up",
    "suspend_table",
]

FULL_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
LINK_PREFIX: Final = "link_"
_DROP_UNUSED: Final = f"""DO $do$
DECLARE
  unused regprocedure;
BEGIN
  FOR unused IN
    SELECT p.oid FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = 'tenantguard' AND pg_catalog.starts_with(p.proname::text, '{LINK_PREFIX}')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgfoid = p.oid)
  LOOP
    EXECUTE pg_catalog.format('DROP FUNCTION %s', unused);
  END LOOP;
END
$do$"""


def policy_of(given: Mapping[str, Any]) -> Policy:
    """Return the policy that a script describes.

    Args:
        given: ``name``, ``command``, ``using``, and ``check`` if it is another condition.

    Raises:
        ConfigurationError: it is none of ours.
    """
    name, command, using = given["name"], given.get("command", "ALL"), given["using"]
    if not name.startswith(PREFIX) or command not in ("ALL", "SELECT"):
        raise ConfigurationError(
            f"The policy {name} is none that a migration of tenantguard makes.",
            mend=f"Its name starts with {PREFIX}, and it is for ALL or SELECT. Make others with op.execute().",
        )
    return Policy(name, command, using, given.get("check") or using if command == "ALL" else None)


def guard_of(given: Mapping[str, Any]) -> LinkGuard:
    """Return the link check that a script describes.

    Args:
        given: ``function``, ``body``, ``columns``, and ``deferred`` if it is.

    Raises:
        ConfigurationError: it is none of ours.
    """
    function: str = given["function"]
    if not function.startswith(LINK_PREFIX):
        raise ConfigurationError(
            f"The link check {function} is none that a migration of tenantguard makes.",
            mend=f"The name of its function starts with {LINK_PREFIX}.",
        )
    mark = function.removeprefix(LINK_PREFIX)
    names = (f"{TRIGGER_PREFIX}{mark}_insert", f"{TRIGGER_PREFIX}{mark}_update")
    return LinkGuard(function, given["body"], names, tuple(given["columns"]), bool(given.get("deferred", False)))


def _name(table: str, schema: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}"


def _block(name: str, statements: Iterable[str]) -> str:
    """Return one statement that does all of it or nothing, and waits for its lock for a short time."""
    made = "".join(f"\n  {one};" for one in statements)
    quote = "$do$"
    while quote in made:
        quote = f"{quote[:-1]}_$"
    return f"""DO {quote}
DECLARE
  one record;
  wait text := pg_catalog.current_setting('lock_timeout');
BEGIN
  IF wait = '0' THEN
    PERFORM pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', true);
  END IF;
  LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;{made}
  PERFORM pg_catalog.set_config('lock_timeout', wait, true);
END
{quote}"""


def _drop_policies(name: str) -> str:
    return f"""FOR one IN
    SELECT polname FROM pg_catalog.pg_policy WHERE polrelid = {literal(name)}::regclass
    AND pg_catalog.starts_with(polname::text, {literal(PREFIX)})
  LOOP
    EXECUTE pg_catalog.format('DROP POLICY %I ON %s', one.polname, {literal(name)}::regclass);
  END LOOP"""


def _drop_triggers(name: str, kept: Iterable[str] = ()) -> str:
    """Drop the link checks of a table, and the functions that nothing else uses."""
    functions = ", ".join(map(literal, kept)) or "''"
    return f"""FOR one IN
    SELECT t.tgname, p.oid::regprocedure AS function, p.pronamespace = 'tenantguard'::regnamespace
      AND pg_catalog.starts_with(p.proname::text, '{LINK_PREFIX}') AND p.proname NOT IN ({functions}) AS unkept
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    WHERE t.tgrelid = {literal(name)}::regclass AND NOT t.tgisinternal
    AND pg_catalog.starts_with(t.tgname::text, {literal(TRIGGER_PREFIX)}) ORDER BY t.tgname
  LOOP
    EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', one.tgname, {literal(name)}::regclass);
    IF one.unkept AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgfoid = one.function) THEN
      EXECUTE pg_catalog.format('DROP FUNCTION %s', one.function);
    END IF;
  END LOOP"""


def _links(name: str, guards: Sequence[LinkGuard]) -> list[str]:
    return [
        *(guard.create_function() for guard in guards),
        _drop_triggers(name, (guard.function for guard in guards)),
        *(trigger for guard in guards for trigger in guard.creates(name).values()),
    ]


def enable_table(
    table: str, schema: str, role: str, policies: Sequence[Policy], guards: Sequence[LinkGuard]
) -> list[str]:
    """Return what gives a table its policies and link checks, and then the app's role its rights."""
    name = _name(table, schema)
    return [
        _block(
            name,
            [
                *_links(name, guards),
                _drop_policies(name),
                *(policy.create(name) for policy in policies),
                f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
                *grant_rights(name, role, FULL_RIGHTS),
            ],
        ),
        grant_sequences(name, role),
    ]


def open_table(table: str, schema: str, role: str, guards: Sequence[LinkGuard], rights: Sequence[str]) -> list[str]:
    """Return what opens a shared table to the app's role: rights, and no policies."""
    name = _name(table, schema)
    off = f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY"
    return [
        _block(name, [*_links(name, guards), off, _drop_policies(name), *grant_rights(name, role, rights)]),
        grant_sequences(name, role),
    ]


def disable_table(table: str, schema: str, role: str) -> list[str]:
    """Return what takes it all back: the rights first, so that nobody sees the table without policies."""
    name = _name(table, schema)
    return [
        revoke_sequences(name, role),
        _block(
            name,
            [
                (
                    f"IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(role)}) THEN\n"
                    f"    REVOKE ALL ON {name} FROM {quoted(role)};\n  END IF"
                ),
                _drop_triggers(name),
                f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
                _drop_policies(name),
            ],
        ),
    ]


def suspend_table(table: str, schema: str) -> list[str]:
    """Return what drops the policies and keeps row-level security on, so that nobody reaches a row meanwhile."""
    name = _name(table, schema)
    on = f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    return [_block(name, [on, _drop_triggers(name), _drop_policies(name)])]


def set_up(role: str, schemas: Sequence[str], functions: Mapping[str, tuple[str, str]], *, sealed: bool) -> list[str]:
    """Return what makes the app's role, the functions that policies call, and what is nobody's without a grant."""
    made = [create_role(role), *function_statements(quoted(role), sealed=sealed, functions=functions)]
    made.append(revoke_temporary())
    for schema in schemas:
        named = quoted(schema)
        made += [
            f"REVOKE CREATE ON SCHEMA {named} FROM PUBLIC",
            f"REVOKE CREATE ON SCHEMA {named} FROM {quoted(role)}",
            f"GRANT USAGE ON SCHEMA {named} TO {quoted(role)}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {named} REVOKE ALL ON TABLES FROM {quoted(role)}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {named} GRANT USAGE ON SEQUENCES TO {quoted(role)}",
        ]
    return made


def remove(
    role: str, schemas: Sequence[str], signatures: Sequence[str], *, temporary: bool, create: Sequence[str]
) -> list[str]:
    """Return what takes the set-up back, except for the role. It fails while a policy is left."""
    made = []
    for schema in schemas:
        named = quoted(schema)
        made += [
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {named} REVOKE ALL ON SEQUENCES FROM {quoted(role)}",
            f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {named} FROM {quoted(role)}",
            f"REVOKE USAGE ON SCHEMA {named} FROM {quoted(role)}",
        ]
    # Without CASCADE: policies that are left would go with their function, and so would the rows' protection.
    made += [f"DROP FUNCTION IF EXISTS tenantguard.{signature}" for signature in reversed(signatures)]
    made += [_DROP_UNUSED, f"DROP TABLE IF EXISTS {KEYS_TABLE}", "DROP SCHEMA IF EXISTS tenantguard"]
    if temporary:
        made.append(grant_temporary())
    made += [f"GRANT CREATE ON SCHEMA {quoted(schema)} TO PUBLIC" for schema in create]
    return made


def secure_views(views: Sequence[str]) -> list[str]:
    """Return what has views read with the rights of who asks.

    Args:
        views: with their schemas, in quotes where they need them, as PostgreSQL prints them.
    """
    return [f"ALTER VIEW {view} SET (security_invoker = true)" for view in views]
