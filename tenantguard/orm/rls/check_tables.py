"""Whether the live tables are as the plan has them: switched on, forced, with its policies and triggers and no others.

A policy is compared by what PostgreSQL says that it is. The plan's is put on an empty temporary copy of the table, in
a transaction that is rolled back, and both are printed by the server: a policy that was altered under its name, or that
compares another column, is seen.
"""

from sqlalchemy import Table

from tenantguard.orm.classify import Owned, classify_alone
from tenantguard.orm.review import Severity
from tenantguard.orm.rls.expressions import quoted
from tenantguard.orm.rls.functions import bodies
from tenantguard.orm.rls.live import Live
from tenantguard.orm.rls.plan import PREFIX, TRIGGER_PREFIX

__all__ = ["check_tables"]

_POLICIES = """
    SELECT polname::text AS name, polcmd::text AS command, polpermissive AS permissive,
      pg_catalog.pg_get_expr(polqual, polrelid) AS seen, pg_catalog.pg_get_expr(polwithcheck, polrelid) AS checked,
      polroles = '{0}' AS everybodys,
      0 = ANY (polroles) OR EXISTS (
        SELECT FROM unnest(polroles) AS r, unnest(CAST(:roles AS text[])) AS own
        WHERE r <> 0 AND pg_catalog.pg_has_role(own, r, 'USAGE')
      ) AS applies
    FROM pg_catalog.pg_policy WHERE polrelid = CAST(CAST(:table AS text) AS regclass)
"""

_TRIGGERS = """
    SELECT t.tgname::text AS name, p.proname AS function, p.prosrc AS body, p.prosecdef AS definer,
      p.proconfig AS config, p.pronamespace = pg_catalog.to_regnamespace('tenantguard') AS ours,
      pg_catalog.replace(
        pg_catalog.replace(pg_catalog.pg_get_triggerdef(t.oid), ' ON pg_temp.', ' ON ' || n.nspname || '.'),
        pg_catalog.format(' ON %I.%I ', n.nspname, c.relname), ' ON it '
      ) AS definition,
      EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS same WHERE same.tgname = t.tgname AND same.tgenabled NOT IN ('O', 'A')
      ) AS off
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE t.tgrelid = CAST(:oid AS oid) AND NOT t.tgisinternal
"""
"""Off is a trigger that is off on any partition as well, whose triggers have the same name."""

_DEFERRED = """
    SELECT conname::text AS name, ARRAY(
      SELECT a.attname::text FROM unnest(conkey) WITH ORDINALITY AS k (number, place)
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = conrelid AND a.attnum = k.number ORDER BY k.place
    ) AS columns
    FROM pg_catalog.pg_constraint WHERE conrelid = CAST(:oid AS oid) AND contype = 'f' AND condeferred
"""


def check_tables(live: Live) -> None:
    """Report what is wrong with the tables of the plan, and with tables that it does not know."""
    plan = live.plan
    for table in plan.tables:
        oid = live.value("SELECT CAST(pg_catalog.to_regclass(:name) AS oid)", name=plan.name(table))
        if oid is None:
            live.report(
                "missing-table", table.fullname, "The table is not in the database.", "Run the migrations, or drop it."
            )
        elif live.value("SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = :oid", oid=oid) in ("r", "p"):
            live.oids[table] = oid
        elif table in plan.protected:
            live.report(
                "unprotectable-table",
                table.fullname,
                "It is a view or a foreign table, which has no row-level security.",
                "Have a table in its place; let views be read through the models of their tables.",
            )
    functions = live.functions()
    missing = [one for one in bodies(sealed=plan.sealed) if one.partition("(")[0] not in functions]
    for table in live.oids:
        if table in plan.protected:
            _check_switches(live, table)
            _check_policies(live, table, comparable=not missing)
            _check_key(live, table)
            _check_parts(live, table)
        _check_links(live, table)
        _check_deferred(live, table)
    _check_unknown(live)


def _check_switches(live: Live, table: Table) -> None:
    (row,) = live.rows(
        "SELECT relrowsecurity, relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = :oid", oid=live.oids[table]
    )
    if not row.relrowsecurity:
        live.report("rls-off", table.fullname, "Row-level security is off: its policies do nothing.")
    if not row.relforcerowsecurity:
        live.report("force-off", table.fullname, "Row-level security is not forced: the table's owner passes it by.")


def _check_policies(live: Live, table: Table, *, comparable: bool) -> None:
    plan, name = live.plan, live.plan.name(table)
    wanted = {policy.name: policy for policy in plan.policies(table)}
    found = {row.name: row for row in live.rows(_POLICIES, table=name, roles=live.reach)}
    for one in wanted.keys() - found.keys():
        old = any(other.startswith(PREFIX) for other in found.keys() - wanted.keys())
        outdated = "The policy is of another version of the models" if old else "A policy is missing"
        live.report("outdated-policy" if old else "missing-policy", table.fullname, f"{outdated}: {one}.")
    for other in found.keys() - wanted.keys():
        if other.startswith(PREFIX):
            live.report("outdated-policy", table.fullname, f"The policy {other} is of another version of the models.")
        elif found[other].permissive and found[other].applies:
            live.report(
                "other-policy",
                table.fullname,
                f"The policy {other} lets the app's role reach rows beside those of its tenant.",
                "Drop it, or have it AS RESTRICTIVE.",
            )
    present = wanted.keys() & found.keys()
    if not present or not comparable:
        return
    copy = f"pg_temp.{quoted(table.name)}"
    savepoint = live.connection.begin_nested()
    live.run(f"CREATE TEMPORARY TABLE {quoted(table.name)} (LIKE {name})")
    for one in present:
        live.run(wanted[one].create(copy))
    expected = {row.name: row for row in live.rows(_POLICIES, table=copy, roles=live.reach)}
    # Both are printed while the copy is there, so that names are written alike.
    found = {row.name: row for row in live.rows(_POLICIES, table=name, roles=live.reach)}
    savepoint.rollback()
    for one in present:
        if found[one] != expected[one]:
            live.report(
                "changed-policy",
                table.fullname,
                f"The policy {one} was altered: it is not what its name says.",
                "Drop it, and run tenantguard rls apply.",
            )


def _check_key(live: Live, table: Table) -> None:
    kind = classify_alone(table)
    if not isinstance(kind, Owned):
        return
    rows = live.rows(
        "SELECT a.attnotnull, c.collisdeterministic FROM pg_catalog.pg_attribute AS a "
        "LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation "
        "WHERE a.attrelid = :oid AND a.attname = :name AND NOT a.attisdropped",
        oid=live.oids[table],
        name=kind.column.name,
    )
    if not rows:
        live.report(
            "missing-key", table.fullname, f"The tenant key {kind.column.name} is not there.", "Run the migrations."
        )
    elif not rows[0].attnotnull and not kind.column.nullable:
        live.report(
            "nullable-key",
            table.fullname,
            f"The tenant key {kind.column.name} may be NULL.",
            "Set it NOT NULL.",
            severity=Severity.WARNING,
        )
    if rows and rows[0].collisdeterministic is False and "COLLATE" not in live.plan.policies(table)[0].using:
        live.report(
            "inexact-key",
            table.fullname,
            f"The collation of {kind.column.name} takes some unequal ids for equal.",
            "Declare the collation in the model, or give the column a deterministic one.",
        )


def _check_parts(live: Live, table: Table) -> None:
    parts = live.rows(
        "WITH RECURSIVE below(oid) AS (SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = :oid UNION "
        "SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN below AS b ON b.oid = i.inhparent) "
        "SELECT CAST(CAST(c.oid AS regclass) AS text) AS name FROM below JOIN pg_catalog.pg_class AS c USING (oid) "
        "WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity) AND EXISTS ("
        "SELECT FROM unnest(CAST(:roles AS text[])) AS r "
        "WHERE pg_catalog.has_table_privilege(r, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') "
        "OR pg_catalog.has_any_column_privilege(r, c.oid, 'SELECT, INSERT, UPDATE'))",
        oid=live.oids[table],
        roles=live.reach,
    )
    for part in parts:
        live.report(
            "open-partition",
            part.name,
            f"The app's role reaches this part of {table.fullname} directly, past the policies.",
            "Revoke its rights on the partition: it needs those on the whole table alone.",
        )


def _check_links(live: Live, table: Table) -> None:
    wanted = {name: guard for guard in live.plan.link_guards(table) for name in guard.names}
    found = {row.name: row for row in live.rows(_TRIGGERS, oid=live.oids[table])}
    present = {name for name in wanted.keys() & found.keys() if found[name].ours}
    definitions = _definitions_of_links(live, table, present) if present else {}
    for name, guard in wanted.items():
        columns = ", ".join(guard.columns)
        row = found.get(name)
        if row is None:
            live.report("missing-link-check", table.fullname, f"Nothing checks where ({columns}) points to.")
        elif (
            (row.function, row.body, row.ours) != (guard.function, guard.body, True)
            or (row.definer, row.config) != (False, ["search_path=pg_catalog, pg_temp"])
            or row.definition != definitions[name]
            or row.off
        ):
            live.report(
                "changed-link-check",
                table.fullname,
                f"The trigger that checks where ({columns}) points to is off, or was changed.",
                "Drop it, and run tenantguard rls apply.",
            )
    for name in found.keys() - wanted.keys():
        if name.startswith(TRIGGER_PREFIX):
            live.report(
                "outdated-link-check", table.fullname, f"The trigger {name} is of another version of the models."
            )


def _check_deferred(live: Live, table: Table) -> None:
    """Unless the models have it wait, the trigger comes before a foreign key that is checked at once."""
    guarded = {guard.columns for guard in live.plan.link_guards(table) if not guard.deferred}
    for row in live.rows(_DEFERRED, oid=live.oids[table]):
        if tuple(row.columns) in guarded:
            live.report(
                "deferred-link",
                table.fullname,
                f"The foreign key {row.name} is INITIALLY DEFERRED, and the models know nothing of it: SET CONSTRAINTS "
                "tells whether a row of another tenant exists. No such link is kept.",
                "Make it INITIALLY IMMEDIATE, or let it contain the tenant key.",
                severity=Severity.WARNING,
            )


def _definitions_of_links(live: Live, table: Table, present: set[str]) -> dict[str, str]:
    """Return what PostgreSQL would say of the plan's triggers."""
    savepoint = live.connection.begin_nested()
    live.run(f"CREATE TEMPORARY TABLE {quoted(table.name)} (LIKE {live.plan.name(table)})")
    copy = f"pg_temp.{quoted(table.name)}"
    for guard in live.plan.link_guards(table):
        for name, statement in guard.creates(copy).items():
            if name in present:
                live.run(statement)
    oid = live.value("SELECT CAST(CAST(CAST(:name AS text) AS regclass) AS oid)", name=copy)
    definitions = {row.name: row.definition for row in live.rows(_TRIGGERS, oid=oid)}
    savepoint.rollback()
    return definitions


_UNKNOWN = """
    SELECT CAST(CAST(c.oid AS regclass) AS text) AS name,
      pg_catalog.has_table_privilege(:role, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
        OR pg_catalog.has_any_column_privilege(:role, c.oid, 'SELECT, INSERT, UPDATE') AS reached,
      ARRAY (
        SELECT CAST(a.attname AS text) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      ) AS columns
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (:schemas) AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
    AND c.oid <> ALL (CAST(:known AS oid[])) ORDER BY 1
"""


def _check_unknown(live: Live) -> None:
    known = list(live.oids.values())
    for row in live.rows(_UNKNOWN, role=live.plan.role, schemas=live.plan.schemas, known=known):
        if row.columns == ["version_num"] and not row.reached:
            continue  # Alembic keeps its version there, whatever the table's name
        reach = "and the app's role reaches it" if row.reached else "and the app's role does not reach it"
        live.report(
            "unclassified-table",
            row.name,
            f"The table is in no MetaData that was named, so nothing says whose rows it holds, {reach}.",
            "Classify it in the models and run tenantguard rls apply; or move it to a schema of its own, and grant the "
            "app's role nothing on it.",
            severity=Severity.ERROR if row.reached else Severity.WARNING,
        )
