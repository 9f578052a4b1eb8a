"""Whether the app's role could pass the policies by: by what it is, owns or may do, or by what runs as another role."""

from typing import Any

from sqlalchemy import Row

from tenantguard.orm.review import Severity
from tenantguard.orm.rls.functions import KEYS_TABLE, bodies
from tenantguard.orm.rls.live import APPS_ROLES, Live

__all__ = ["check_rights", "owners_views"]

_POWERFUL = frozenset(
    """
    pg_read_all_data pg_write_all_data pg_execute_server_program pg_read_server_files pg_write_server_files
    pg_create_subscription pg_monitor pg_read_all_stats
    """.split()
)
_BECOMES = """
    SELECT r.rolname::text AS name, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication
    FROM pg_catalog.pg_roles AS r
    WHERE r.rolname = :name OR EXISTS (
      SELECT FROM pg_catalog.pg_roles AS own
      WHERE own.rolname = :name AND NOT own.rolsuper AND pg_catalog.pg_has_role(own.oid, r.oid, 'MEMBER')
    )
"""
_DEFINERS = """
    SELECT CAST(CAST(p.oid AS regprocedure) AS text) AS name
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND NOT (n.nspname = 'tenantguard' AND p.proname = 'bound')
    AND p.prorettype NOT IN (CAST('pg_catalog.trigger' AS regtype), CAST('pg_catalog.event_trigger' AS regtype))
    AND EXISTS (
      SELECT FROM unnest(CAST(:roles AS text[])) AS r WHERE pg_catalog.has_function_privilege(r, p.oid, 'EXECUTE')
      AND pg_catalog.has_schema_privilege(r, n.oid, 'USAGE')
    )
"""
_LEAKPROOF = """
    SELECT CAST(CAST(p.oid AS regprocedure) AS text) AS name
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE p.proleakproof AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_depend AS d
      WHERE d.classid = CAST('pg_catalog.pg_proc' AS regclass) AND d.objid = p.oid AND d.deptype = 'e'
    )
    AND EXISTS (
      SELECT FROM unnest(CAST(:roles AS text[])) AS r WHERE pg_catalog.has_function_privilege(r, p.oid, 'EXECUTE')
      AND pg_catalog.has_schema_privilege(r, n.oid, 'USAGE')
    )
"""


_CREATES = """
    SELECT n.nspname::text AS name FROM pg_catalog.pg_namespace AS n
    WHERE NOT pg_catalog.starts_with(n.nspname::text, 'pg_') AND EXISTS (
      SELECT FROM unnest(CAST(:roles AS text[])) AS r WHERE pg_catalog.has_schema_privilege(r, n.oid, 'CREATE')
      OR n.nspowner = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = r)
    ) ORDER BY 1
"""


def check_rights(live: Live) -> None:
    """Report what lets the app's role, or a login that is a member of it, reach rows past the policies."""
    for one in live.rows(APPS_ROLES, role=live.plan.role):
        _check_role(live, one.name)
    _check_grants(live)
    _check_functions(live)
    _check_views(live)


def _check_role(live: Live, name: str) -> None:
    """Look at a role and at all that it could become."""
    into = live.rows(_BECOMES, name=name)
    for one in into:
        by = "" if one.name == name else f", by {one.name}, which it is a member of"
        if one.rolsuper:
            live.report("superuser-role", name, f"The role is a superuser{by}.", "Use a role that is none.")
        if one.rolbypassrls:
            live.report("bypass-role", name, f"The role has BYPASSRLS{by}.", "Use a role that has it not.")
        if one.rolcreaterole:
            live.report("powerful-role", name, f"The role may make roles{by}.", "Take CREATEROLE away.")
        if one.rolreplication:
            live.report(
                "powerful-role", name, f"The role may read the log of all changes{by}.", "Take REPLICATION away."
            )
        if one.name in _POWERFUL:
            live.report("powerful-role", name, f"The role is a member of {one.name}.", "Take it out.")
    owners = [one.name for one in into]
    for row in live.rows(
        "SELECT CAST(CAST(c.oid AS regclass) AS text) AS name FROM pg_catalog.pg_class AS c "
        "JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner "
        "WHERE r.rolname = ANY (:owners) AND c.oid = ANY (CAST(:known AS oid[]))",
        owners=owners,
        known=list(live.oids.values()),
    ):
        live.report(
            "owner-role",
            row.name,
            f"The table belongs to {name}, or to what it is a member of: the app can switch the policies off.",
            "Give the table to another role: ALTER TABLE ... OWNER TO ...",
        )


def _check_grants(live: Live) -> None:
    plan, role = live.plan, live.plan.role
    for table, oid in live.oids.items():
        for right in ("TRUNCATE", "REFERENCES", "TRIGGER"):
            if live.anyone_may(right, oid):
                message = f"The app's role has {right} on it, which no policy looks at."
                live.report("too-many-rights", table.fullname, message)
        deletes, kept = plan.withheld(table)
        carried = [f"UPDATE of {name}" for name in sorted(kept) if live.may_update(oid, name, anyone=True)]
        carried += ["DELETE"] if deletes and live.anyone_may("DELETE", oid) else []
        if carried:
            message = f"The app's role has {', '.join(carried)} on it, which foreign keys carry on to every tenant."
            live.report("too-many-rights", table.fullname, message)
        rights = {"SELECT", "INSERT"} | ({"DELETE"} if not deletes else set())
        updated = all(live.may_update(oid, one.name) for one in table.columns if one.name not in kept)
        if not all(live.may(right, oid) for right in rights) or not updated:
            message = "The app's role may not read and write it."
            live.report("missing-rights", table.fullname, message, severity=Severity.WARNING)
    uses = "SELECT pg_catalog.has_schema_privilege(:role, oid, 'USAGE') FROM pg_catalog.pg_namespace WHERE nspname = :n"
    for schema in [*plan.schemas, "tenantguard"]:
        if live.value(uses, role=role, n=schema) is False:
            message = "The app's role may not use the schema."
            live.report("missing-rights", schema, message, severity=Severity.WARNING)
    _check_creation(live)
    for row in live.rows(
        "SELECT CAST(d.defaclrole AS regrole) AS owner FROM pg_catalog.pg_default_acl AS d, LATERAL "
        "pg_catalog.aclexplode(d.defaclacl) AS a WHERE d.defaclobjtype = 'r' AND (a.grantee = 0 OR "
        "pg_catalog.pg_has_role(:role, a.grantee, 'USAGE'))",
        role=role,
    ):
        live.report(
            "default-rights",
            str(row.owner),
            "Tables that this role makes are the app's at once, before they have policies.",
            "Revoke it: ALTER DEFAULT PRIVILEGES FOR ROLE ... REVOKE ALL ON TABLES FROM ...",
        )


def _check_creation(live: Live) -> None:
    """Look at where a table or function could be made that a search_path left on a connection finds before the real."""
    for row in live.rows(_CREATES, roles=live.reach):
        live.report(
            "may-create",
            row.name,
            "The app's role may make tables and functions in this schema.",
            "REVOKE CREATE ON SCHEMA ... FROM PUBLIC and the app's role; let another role own it.",
        )
    of_database = (
        "SELECT EXISTS (SELECT FROM unnest(CAST(:roles AS text[])) AS r "
        "WHERE pg_catalog.has_database_privilege(r, current_database(), :right))"
    )
    if live.value(of_database, roles=live.reach, right="CREATE"):
        live.report(
            "may-create",
            live.plan.role,
            "The app's role may make schemas in this database, and tables and functions in those.",
            "REVOKE CREATE ON DATABASE ... FROM the app's role; let another role own the database.",
        )
    if live.value(of_database, roles=live.reach, right="TEMPORARY"):
        live.report(
            "may-create-temporary",
            live.plan.role,
            "The app's role may make temporary tables, which stand before the real ones on a pooled connection.",
        )


def _check_functions(live: Live) -> None:
    plan = live.plan
    found = live.functions()
    for signature, (_, body) in bodies(sealed=plan.sealed).items():
        name = signature.partition("(")[0]
        row = found.get(name)
        if row is None:
            live.report("missing-function", f"tenantguard.{name}", "The function that policies call is not there.")
            continue
        definer = plan.sealed and name == "bound"
        if (row.prosrc, row.prosecdef, row.provolatile, row.proconfig) != (
            body,
            definer,
            "s",
            ["search_path=pg_catalog, pg_temp"],
        ):
            live.report("changed-function", f"tenantguard.{name}", "The function is not what the policies rely on.")
    for name, row in found.items():
        if row.owned:
            live.report(
                "owned-function",
                f"tenantguard.{name}",
                "The function belongs to the app's role, which can replace it.",
                "Give it to another role.",
            )
    keys = live.value("SELECT CAST(pg_catalog.to_regclass(:name) AS oid)", name=KEYS_TABLE)
    if plan.sealed and keys is not None:
        if live.anyone_may("SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER", keys):
            live.report("readable-key", KEYS_TABLE, "The app's role reaches the keys that seal the tenant.")
        if not live.value(f"SELECT count(*) FROM {KEYS_TABLE}"):
            live.report(
                "missing-key-of-seal",
                KEYS_TABLE,
                "There is no key, so no transaction has a valid tenant.",
                "Run tenantguard rls apply with the key in the environment.",
            )
    for row in live.rows(_LEAKPROOF, roles=live.reach):
        live.report(
            "leakproof-function",
            row.name,
            "PostgreSQL may run it on rows of other tenants, before the policies look at them.",
            "ALTER FUNCTION ... NOT LEAKPROOF.",
            severity=Severity.WARNING,
        )
    for row in live.rows(_DEFINERS, roles=live.reach):
        live.report(
            "definer-function",
            row.name,
            "The app's role may call it, and it runs with the rights of its owner.",
            "Have it SECURITY INVOKER, or revoke EXECUTE from PUBLIC and the app's role.",
            severity=Severity.WARNING,
        )


_VIEWS = """
    WITH RECURSIVE seen(oid) AS (
      SELECT r.ev_class FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
      WHERE d.classid = CAST('pg_catalog.pg_rewrite' AS regclass) AND d.refobjid = ANY (CAST(:known AS oid[]))
      UNION
      SELECT r.ev_class FROM seen JOIN pg_catalog.pg_depend AS d ON d.refobjid = seen.oid
      JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
      WHERE d.classid = CAST('pg_catalog.pg_rewrite' AS regclass)
    )
    SELECT CAST(CAST(c.oid AS regclass) AS text) AS name, c.relkind::text AS kind,
      pg_catalog.format('%I.%I', n.nspname, c.relname) AS full,
      EXISTS (
        SELECT FROM unnest(CAST(:roles AS text[])) AS r WHERE pg_catalog.has_any_column_privilege(r, c.oid, 'SELECT')
      ) AS reached
    FROM seen JOIN pg_catalog.pg_class AS c USING (oid) JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' OR (c.relkind = 'v' AND
      NOT pg_catalog.array_to_string(c.reloptions, ',') ~ 'security_invoker=(true|on|yes|1)' IS TRUE)
    ORDER BY 1
"""


def _views(live: Live) -> list[Row[Any]]:
    known = [oid for table, oid in live.oids.items() if table in live.plan.protected]
    return live.rows(_VIEWS, known=known, roles=live.reach) if known else []


def owners_views(live: Live) -> list[str]:
    """Return the views of tables of tenants that are read with the rights of their owner, with their schemas."""
    return [row.full for row in _views(live) if row.kind == "v"]


def _check_views(live: Live) -> None:
    for row in _views(live):
        if row.kind == "m":
            if row.reached:
                live.report(
                    "materialised-view",
                    row.name,
                    "It holds rows of all tenants, the app's role reads it, and PostgreSQL has no policies for it.",
                    "Revoke SELECT, and show it through a function or a table with the tenant key.",
                )
        else:
            live.report("owners-view", row.name, "The view is read with the rights of its owner, past the policies.")
