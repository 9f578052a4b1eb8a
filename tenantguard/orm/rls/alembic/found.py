"""What is in the live database, in the form in which a migration script says it: for the way back, and for the rights.

Whether policies and link checks are right is for the check of the live tables to say; here they are read, so that a
downgrade can make them again. A policy that has the name of a right one is never read: were it altered under its name,
the way back would bring the alteration.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, text

from tenantguard.orm.rls.alembic.statements import FULL_RIGHTS, LINK_PREFIX
from tenantguard.orm.rls.expressions import quoted
from tenantguard.orm.rls.functions import KEYS_TABLE, bodies
from tenantguard.orm.rls.plan import PREFIX, TRIGGER_PREFIX, LinkGuard, Policy, RlsPlan

__all__ = ["Found", "FoundTable"]

_OLD_COLUMN: Final = re.compile(r"\bold\.(\"(?:[^\"]|\"\")+\"|[\w$]+)")
_POLICIES: Final = """
    SELECT polname::text AS name, polcmd::text AS command, pg_catalog.pg_get_expr(polqual, polrelid) AS seen,
      pg_catalog.pg_get_expr(polwithcheck, polrelid) AS checked
    FROM pg_catalog.pg_policy WHERE polrelid = CAST(:oid AS oid) AND polpermissive AND polroles = '{0}'
    AND polcmd IN ('*', 'r') AND polqual IS NOT NULL AND pg_catalog.starts_with(polname::text, :prefix) ORDER BY polname
"""
_TRIGGERS: Final = """
    SELECT p.proname::text AS function, p.prosrc AS body, t.tginitdeferred AS deferred,
      pg_catalog.pg_get_triggerdef(t.oid) AS definition
    FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    WHERE t.tgrelid = CAST(:oid AS oid) AND NOT t.tgisinternal AND p.pronamespace = to_regnamespace('tenantguard')
    AND pg_catalog.starts_with(p.proname::text, :link) AND pg_catalog.starts_with(t.tgname::text, :prefix)
    AND t.tgname::text LIKE '%\\_update' ORDER BY t.tgname
"""
_DEPENDENT: Final = """
    SELECT DISTINCT coalesce(p.polrelid, t.tgrelid) AS oid FROM pg_catalog.pg_depend AS d
    LEFT JOIN pg_catalog.pg_policy AS p ON d.classid = CAST('pg_catalog.pg_policy' AS regclass) AND p.oid = d.objid
      AND pg_catalog.starts_with(p.polname::text, :policies)
    LEFT JOIN pg_catalog.pg_trigger AS t ON d.classid = CAST('pg_catalog.pg_trigger' AS regclass) AND t.oid = d.objid
      AND pg_catalog.starts_with(t.tgname::text, :triggers)
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.refclassid = CAST('pg_catalog.pg_class' AS regclass) AND d.refobjid = CAST(:oid AS oid)
    AND coalesce(p.polrelid, t.tgrelid) IS NOT NULL AND (CAST(:column AS text) IS NULL OR a.attname = :column)
"""
_RIGHTS: Final = """
    SELECT a.grantee = 0 AS everybodys, a.privilege_type AS right
    FROM pg_catalog.pg_class AS c, LATERAL pg_catalog.aclexplode(c.relacl) AS a
    WHERE c.oid = CAST(:oid AS oid) AND a.grantee IN (0, CAST(:role AS oid))
"""
_COLUMNS: Final = """
    SELECT c.attname::text AS name FROM pg_catalog.pg_attribute AS c, LATERAL pg_catalog.aclexplode(c.attacl) AS a
    WHERE c.attrelid = CAST(:oid AS oid) AND a.grantee = CAST(:role AS oid) AND a.privilege_type = 'UPDATE'
    ORDER BY c.attnum
"""
_SEQUENCES: Final = """
    SELECT count(*) FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_class AS s ON s.oid = d.objid
    WHERE d.classid = CAST('pg_catalog.pg_class' AS regclass) AND d.refobjid = CAST(:oid AS oid)
    AND d.deptype IN ('a', 'i') AND CASE WHEN s.relkind = 'S'
      THEN NOT pg_catalog.has_sequence_privilege(CAST(:role AS oid), s.oid, 'USAGE') ELSE false END
"""
_FUNCTIONS: Final = """
    SELECT p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' AS signature,
      p.prosrc AS body, p.prosecdef AS definer, p.provolatile::text AS volatility, p.proconfig AS config,
      pg_catalog.has_function_privilege(CAST(:role AS oid), p.oid, 'EXECUTE') AS callable
    FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('tenantguard')
"""
_SCHEMA: Final = """
    SELECT pg_catalog.has_schema_privilege(CAST(:role AS oid), n.oid, 'USAGE') AS usable,
      EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS a
        WHERE a.grantee = 0 AND a.privilege_type = 'CREATE') AS everybodys,
      EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS a
        WHERE a.grantee = CAST(:role AS oid) AND a.privilege_type = 'CREATE') AS roles
    FROM pg_catalog.pg_namespace AS n WHERE n.nspname = :schema
"""
_DEFAULTS: Final = """
    SELECT d.defaclobjtype::text AS kind, a.privilege_type AS right
    FROM pg_catalog.pg_default_acl AS d, LATERAL pg_catalog.aclexplode(d.defaclacl) AS a
    WHERE d.defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
    AND d.defaclnamespace = pg_catalog.to_regnamespace(:schema) AND a.grantee = CAST(:role AS oid)
"""
_TEMPORARY: Final = """
    SELECT EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(datacl, pg_catalog.acldefault('d', datdba))) AS a
      WHERE a.grantee = 0 AND a.privilege_type = 'TEMPORARY')
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
"""


class FoundTable(NamedTuple):
    """A live table.

    Args:
        oid: its oid.
        on: whether row-level security is on.
        policies: ours.
        guards: our link checks.
        rights: of the app's role.
        columns: those of which the app's role has UPDATE, where it has it of columns.
        everybodys: rights of everybody.
        sequences: whether the app's role may use its sequences.
    """

    oid: int
    on: bool
    policies: tuple[Policy, ...]
    guards: tuple[LinkGuard, ...]
    rights: frozenset[str]
    columns: tuple[str, ...]
    everybodys: frozenset[str]
    sequences: bool

    @property
    def grants(self) -> list[str]:
        """The rights of the app's role, as GRANT takes them."""
        found = [one for one in FULL_RIGHTS if one in self.rights]
        partly = [f"UPDATE ({', '.join(map(quoted, self.columns))})"] if self.columns and "UPDATE" not in found else []
        return [*found[:2], *partly, *found[2:]]

    @property
    def untouched(self) -> bool:
        """True if it has nothing of ours."""
        return not (self.on or self.policies or self.guards or self.rights)


class Found:
    """Reads a live database, and changes nothing.

    Args:
        connection: of the tables' owner, in a transaction.
        plan: what should be there.
    """

    def __init__(self, connection: Connection, plan: RlsPlan) -> None:
        self._connection = connection
        self._plan = plan
        # No role has the oid 0, so nothing is right while the role is not there.
        self.role: int = self._value("SELECT oid FROM pg_catalog.pg_roles WHERE rolname = :role", role=plan.role) or 0

    def _rows(self, query: str, **values: Any) -> list[Row[Any]]:
        return list(self._connection.execute(text(query), values))

    def _value(self, query: str, **values: Any) -> Any:
        return self._connection.execute(text(query), values).scalar()

    def oid(self, name: str) -> int | None:
        """Return a table's oid, or ``None`` if it is not there.

        Args:
            name: in quotes, with its schema.
        """
        found: int | None = self._value("SELECT CAST(pg_catalog.to_regclass(:name) AS oid)", name=name)
        return found

    def table(self, name: str, policies: Iterable[Policy] = (), guards: Iterable[LinkGuard] = ()) -> FoundTable | None:
        """Read a table.

        Args:
            name: in quotes, with its schema.
            policies: those that it should have: one of such a name is taken to be it.
            guards: the same of its link checks.
        """
        oid = self.oid(name)
        if oid is None:
            return None
        known = {policy.name: policy for policy in policies}
        known_guards = {guard.function: guard for guard in guards}
        savepoint = self._connection.begin_nested()
        self._connection.execute(text("SET LOCAL search_path = pg_catalog"))  # so that names are printed in full
        found = tuple(
            known.get(row.name) or Policy(row.name, "SELECT", row.seen, None)
            if row.command == "r"
            else known.get(row.name) or Policy(row.name, "ALL", row.seen, row.checked or row.seen)
            for row in self._rows(_POLICIES, oid=oid, prefix=PREFIX)
        )
        links = tuple(
            known_guards.get(row.function) or _guard(row)
            for row in self._rows(_TRIGGERS, oid=oid, link=LINK_PREFIX, prefix=TRIGGER_PREFIX)
        )
        on = self._value("SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = CAST(:oid AS oid)", oid=oid)
        rights = self._rows(_RIGHTS, oid=oid, role=self.role)
        unusable = self._value(_SEQUENCES, oid=oid, role=self.role) if self.role else 1
        savepoint.rollback()
        return FoundTable(
            oid,
            bool(on),
            found,
            tuple(guard for guard in links if guard.columns),
            frozenset(row.right for row in rights if not row.everybodys),
            tuple(row.name for row in self._rows(_COLUMNS, oid=oid, role=self.role)),
            frozenset(row.right for row in rights if row.everybodys),
            not unusable,
        )

    def dependents(self, oid: int, column: str | None = None) -> list[int]:
        """Return the tables whose policies or link checks name a column, or anything of a table.

        Args:
            oid: of the table that is named.
            column: the column's name.
        """
        values = {"policies": PREFIX, "triggers": TRIGGER_PREFIX}
        return [row.oid for row in self._rows(_DEPENDENT, oid=oid, column=column, **values)]

    def is_set_up(self) -> bool:
        """True if the role, the functions and what is granted outside of tables are as they should be."""
        plan = self._plan
        if not self.role or self.public_temporary():
            return False
        found = {row.signature: row for row in self._rows(_FUNCTIONS, role=self.role)}
        for signature, (_, body) in bodies(sealed=plan.sealed).items():
            row = found.get(signature)
            definer = plan.sealed and signature == "bound()"
            right = (body, definer, "s", ["search_path=pg_catalog, pg_temp"], True)
            if row is None or (row.body, row.definer, row.volatility, row.config, row.callable) != right:
                return False
        keys = self.oid(KEYS_TABLE)
        if keys is None or self._rows(_RIGHTS, oid=keys, role=self.role):
            return False
        return all(self._is_schema_set_up(schema) for schema in [*plan.schemas, "tenantguard"])

    def _is_schema_set_up(self, schema: str) -> bool:
        rows = self._rows(_SCHEMA, role=self.role, schema=schema)
        if not rows:
            return schema != "tenantguard"  # a migration that makes the schema comes first
        if not rows[0].usable or rows[0].everybodys or rows[0].roles:
            return False
        defaults = {(row.kind, row.right) for row in self._rows(_DEFAULTS, role=self.role, schema=schema)}
        return schema == "tenantguard" or (("S", "USAGE") in defaults and not any(kind == "r" for kind, _ in defaults))

    def has_functions(self) -> bool:
        """True if an earlier migration has set it up."""
        return bool(self._value("SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = 'tenantguard'"))

    def public_temporary(self) -> bool:
        """True if everybody may make temporary tables."""
        return bool(self._value(_TEMPORARY))

    def public_create(self) -> list[str]:
        """Return the schemas of the plan in which everybody may make tables."""
        made: Mapping[str, list[Row[Any]]] = {
            schema: self._rows(_SCHEMA, role=self.role or None, schema=schema) for schema in self._plan.schemas
        }
        return [schema for schema, rows in made.items() if rows and rows[0].everybodys]


def _columns(definition: str) -> tuple[str, ...]:
    """Return the columns whose change fires a link check, in their order."""
    _, _, condition = definition.partition(" WHEN ")
    found = (name[1:-1].replace('""', '"') if name[0] == '"' else name for name in _OLD_COLUMN.findall(condition))
    return tuple(dict.fromkeys(found))


def _guard(row: Row[Any]) -> LinkGuard:
    mark = row.function.removeprefix(LINK_PREFIX)
    names = (f"{TRIGGER_PREFIX}{mark}_insert", f"{TRIGGER_PREFIX}{mark}_update")
    return LinkGuard(row.function, row.body, names, _columns(row.definition), row.deferred)
