"""What stands around the tables and lets rows, or news of them, pass the policies by.

Triggers and rules run with the rights of others, publications and large objects know no policies, a unique index that
no model names tells of other tenants' values, and a setting that was stored for a role is a tenant that nobody bound.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Column, Table

from tenantguard.orm.classify import Child, Owned, classify_alone
from tenantguard.orm.review import Severity
from tenantguard.orm.review_facts import keys_of, plain_columns, unique_keys_of
from tenantguard.orm.rls.expressions import DIALECT
from tenantguard.orm.rls.functions import KEYS_TABLE, SETTING
from tenantguard.orm.rls.live import APPS_ROLES, Live
from tenantguard.orm.rls.plan import TRIGGER_PREFIX

__all__ = ["check_surroundings"]

_ALIKE: Final = ({"text", "character varying"}, {"smallint", "integer", "bigint"})
"""Types whose values PostgreSQL compares alike."""

_WITH_PARTS: Final = """
    WITH RECURSIVE every(oid) AS (
      SELECT unnest(CAST(:known AS oid[]))
      UNION
      SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i JOIN every ON every.oid = i.inhparent
    )
"""
_PUBLISHED: Final = f"""{_WITH_PARTS}
    SELECT CAST(CAST(t.relid AS regclass) AS text) AS name, p.pubname::text AS publication
    FROM pg_catalog.pg_publication AS p, LATERAL pg_catalog.pg_get_publication_tables(p.pubname::text) AS t
    WHERE t.relid IN (SELECT oid FROM every) ORDER BY 1, 2
"""
_TRIGGERS: Final = """
    SELECT CAST(t.tgrelid AS regclass)::text AS name, t.tgname::text AS trigger, p.prosecdef AS definer,
      pg_catalog.pg_has_role(:role, p.proowner, 'USAGE') AS owned
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND NOT pg_catalog.starts_with(t.tgname::text, :ours)
    AND pg_catalog.has_table_privilege(:role, t.tgrelid, 'INSERT, UPDATE, DELETE') ORDER BY 1, 2
"""
_RULES: Final = """
    SELECT CAST(c.oid AS regclass)::text AS name, r.rulename::text AS rule
    FROM pg_catalog.pg_rewrite AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
    WHERE c.relkind IN ('r', 'p') AND pg_catalog.has_table_privilege(:role, c.oid, 'INSERT, UPDATE, DELETE')
    ORDER BY 1, 2
"""
_UNENFORCED: Final = f"""{_WITH_PARTS}
    SELECT DISTINCT CAST(c.conrelid AS regclass)::text AS name, c.conname::text AS foreign_key
    FROM pg_catalog.pg_constraint AS c LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgconstraint = c.oid
    WHERE c.contype = 'f' AND c.conrelid IN (SELECT oid FROM every) AND (
      NOT c.convalidated OR pg_catalog.to_jsonb(c) ->> 'conenforced' = 'false' OR t.tgenabled NOT IN ('O', 'A')
    ) ORDER BY 1, 2
"""
_SEQUENCES: Final = f"""{_WITH_PARTS}
    SELECT CAST(s.oid AS regclass)::text AS name FROM pg_catalog.pg_class AS s WHERE s.relkind = 'S'
    AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.objid = s.oid AND d.deptype IN ('a', 'i')
      AND d.classid = CAST('pg_catalog.pg_class' AS regclass) AND d.refobjid IN (SELECT oid FROM every))
    AND CASE WHEN s.relkind = 'S' THEN pg_catalog.has_sequence_privilege(:role, s.oid, 'SELECT, UPDATE') ELSE false END
    ORDER BY 1
"""
_UNLOGGED: Final = f"""{_WITH_PARTS}
    SELECT CAST(oid AS regclass)::text AS name FROM pg_catalog.pg_class
    WHERE relpersistence = 'u' AND relkind <> 'i' AND (oid IN (SELECT oid FROM every) OR oid = to_regclass(:keys))
    ORDER BY 1
"""
_INDEXES: Final = """
    SELECT c.relname::text AS name, i.indisunique OR i.indisexclusion AS alone,
      i.indisvalid AND i.indpred IS NULL AS whole,
      ARRAY (
        SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, at)
        LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0
        WHERE k.at <= i.indnkeyatts ORDER BY k.at
      ) AS columns
    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = CAST(:oid AS oid) ORDER BY 1
"""
_TYPES: Final = """
    SELECT pg_catalog.format_type(a.atttypid, NULL) AS live,
      pg_catalog.format_type(CAST(pg_catalog.to_regtype(:type) AS oid), NULL) AS wanted
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = CAST(:oid AS oid) AND a.attname = :name AND NOT a.attisdropped
"""
_PRESET: Final = f"""
    WITH apps AS ({APPS_ROLES})
    SELECT coalesce(r.rolname::text, 'every role') AS name, split_part(setting, '=', 1) AS setting
    FROM pg_catalog.pg_db_role_setting AS s LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole,
      LATERAL unnest(s.setconfig) AS setting
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
    AND (s.setrole = 0 OR r.rolname::text IN (SELECT name FROM apps))
    AND (pg_catalog.starts_with(setting, :setting) OR setting LIKE 'session\\_replication\\_role=%')
    ORDER BY 1, 2
"""
_LARGE_OBJECTS: Final = """
    SELECT count(*) FROM pg_catalog.pg_largeobject_metadata
    WHERE pg_catalog.pg_has_role(:role, lomowner, 'USAGE') OR EXISTS (
      SELECT FROM pg_catalog.aclexplode(lomacl) AS a
      WHERE a.grantee = 0 OR (a.grantee <> 0 AND pg_catalog.pg_has_role(:role, a.grantee, 'USAGE'))
    )
"""


def check_surroundings(live: Live) -> None:
    """Report what lets rows of tenants, or what is known of them, past the policies of their tables."""
    _check_copies(live)
    _check_what_runs(live)
    _check_settings(live)
    for table in live.oids:
        if table in live.plan.protected:
            _check_types(live, table)
            _check_indexes(live, table)


def _protected(live: Live) -> list[int]:
    return [oid for table, oid in live.oids.items() if table in live.plan.protected]


def _check_copies(live: Live) -> None:
    """Look at where rows, or their number, are besides the table."""
    known, role = _protected(live), live.plan.role
    for row in live.rows(_PUBLISHED, known=known):
        live.report(
            "published-table",
            row.name,
            f"The publication {row.publication} sends the rows of all tenants to its subscribers.",
            "See to it that each subscriber has policies of its own, or take the table out of the publication.",
            severity=Severity.WARNING,
        )
    for row in live.rows(_SEQUENCES, known=known, role=role):
        live.report(
            "open-sequence",
            row.name,
            "The app's role can look at the sequence or set it: it tells how many rows all tenants have made.",
            "Revoke SELECT and UPDATE on it: USAGE is enough.",
            severity=Severity.WARNING,
        )
    for row in live.rows(_UNLOGGED, known=known, keys=KEYS_TABLE):
        live.report(
            "unlogged-table",
            row.name,
            "The table is unlogged: a crash empties it, and replicas can't read it.",
            "ALTER TABLE ... SET LOGGED.",
            severity=Severity.WARNING,
        )
    if live.value(_LARGE_OBJECTS, role=role):
        live.report(
            "large-objects",
            role,
            "The app's role reaches large objects, which have no policies: every tenant can read those of all.",
            "Keep the bytes in a column of a table of tenants.",
            severity=Severity.WARNING,
        )


def _check_what_runs(live: Live) -> None:
    """Look at what runs with a statement of the app's role, and at what should run and does not."""
    known, role = _protected(live), live.plan.role
    for row in live.rows(_TRIGGERS, role=role, ours=TRIGGER_PREFIX):
        if row.owned:
            live.report(
                "owned-trigger",
                row.name,
                f"The function of the trigger {row.trigger} belongs to the app's role, which can replace it: it would "
                "run with the rights of whoever else writes the table.",
                "Give the function to another role.",
            )
        elif row.definer:
            live.report(
                "definer-trigger",
                row.name,
                f"The trigger {row.trigger} runs with the rights of its function's owner, past the policies.",
                "Have the function SECURITY INVOKER, or see to it that it touches rows of the same tenant alone.",
                severity=Severity.WARNING,
            )
    for row in live.rows(_RULES, role=role):
        live.report(
            "table-rule",
            row.name,
            f"The statements of the rule {row.rule} run with the rights of the table's owner.",
            "Use a trigger.",
            severity=Severity.WARNING,
        )
    for row in live.rows(_UNENFORCED, known=known):
        live.report(
            "unenforced-foreign-key",
            row.name,
            f"The foreign key {row.foreign_key} is switched off, or was never validated: rows may point anywhere.",
            "Enable its triggers, and run ALTER TABLE ... VALIDATE CONSTRAINT.",
            severity=Severity.WARNING,
        )


def _check_settings(live: Live) -> None:
    for row in live.rows(_PRESET, role=live.plan.role, setting=SETTING.partition(".")[0] + "."):
        live.report(
            "preset-setting",
            row.name,
            f"{row.setting} is stored for it, and holds in transactions that set none.",
            "ALTER ROLE ... RESET, or ALTER DATABASE ... RESET.",
        )
    if live.value("SELECT current_setting(:setting, true)", setting=SETTING):
        live.report(
            "preset-setting",
            "the server",
            f"{SETTING} has a value before any transaction sets it.",
            "Take it out of the server's configuration.",
        )
    version = live.value("SELECT CAST(current_setting('server_version_num') AS integer)")
    skips = (
        "SELECT EXISTS (SELECT FROM unnest(CAST(:roles AS text[])) AS r "
        "WHERE pg_catalog.has_parameter_privilege(r, 'session_replication_role', 'SET'))"
    )
    if version >= 150000 and live.value(skips, roles=live.reach):
        live.report(
            "may-skip-triggers",
            live.plan.role,
            "The app's role may set session_replication_role, which switches the checks of foreign keys off.",
            "REVOKE SET ON PARAMETER session_replication_role FROM ...",
        )


def _keys(table: Table) -> Sequence[Column[Any]]:
    """Return what a row of a table must name to be one tenant's."""
    kind = classify_alone(table)
    assert isinstance(kind, Owned | Child)
    return [kind.column] if isinstance(kind, Owned) else kind.columns


def _check_types(live: Live, table: Table) -> None:
    kind = classify_alone(table)
    assert isinstance(kind, Owned | Child)
    for column in (*_keys(table), *(key.column for key in kind.narrower)):
        type_ = column.type.compile(DIALECT).partition(" COLLATE ")[0]
        for row in live.rows(_TYPES, oid=live.oids[table], name=column.name, type=type_):
            same = row.wanted in (None, row.live) or any({row.live, row.wanted} <= alike for alike in _ALIKE)
            if not same:
                live.report(
                    "changed-key-type",
                    table.fullname,
                    f"{column.name} is of the type {row.live}, and {row.wanted} in the models: PostgreSQL may take "
                    "unequal ids for equal.",
                    "Give the column the type of the models.",
                    severity=Severity.WARNING,
                )


def _check_indexes(live: Live, table: Table) -> None:
    keys = [column.name for column in _keys(table)]
    found = live.rows(_INDEXES, oid=live.oids[table])
    known = {frozenset(_names(plain_columns(one))) for one in unique_keys_of(table)}
    named = {str(one.name) for one in table.indexes}
    for row in found:
        if row.alone and not set(keys) <= set(row.columns):
            columns = frozenset(name for name in row.columns if name is not None)
            if row.name not in named and (columns not in known or None in row.columns):
                live.report(
                    "unique-without-tenant",
                    table.fullname,
                    f"The unique index {row.name} is in no model and does not contain {', '.join(keys)}: its error "
                    "tells that another tenant has the value.",
                    "Drop it, or add the tenant key to it. Of those in the models, tenantguard doctor orm knows.",
                    severity=Severity.WARNING,
                )
    starts = [set(_names(plain_columns(one))[: len(keys)]) for one in keys_of(table)]
    if set(keys) in starts and not any(row.whole and set(row.columns[: len(keys)]) == set(keys) for row in found):
        live.report(
            "missing-index",
            table.fullname,
            f"No valid index starts with {', '.join(keys)}, as one in the models does: every policy reads the whole "
            "table.",
            "Run the migrations, or REINDEX INDEX CONCURRENTLY.",
            severity=Severity.WARNING,
        )


def _names(columns: Iterable[Column[Any]]) -> list[str]:
    return [column.name for column in columns]
