"""What a check of the live database needs again and again: queries, and how a finding is made."""

from collections.abc import Mapping
from typing import Any, Final, final

from sqlalchemy import Connection, CursorResult, Row, Table, text

from tenantguard.orm.review import Finding, Severity
from tenantguard.orm.rls.plan import RlsPlan

__all__ = ["APPS_ROLES", "Live"]

APPS_ROLES: Final = """
    WITH RECURSIVE members(oid) AS (
      SELECT oid FROM pg_catalog.pg_roles WHERE rolname = :role
      UNION
      SELECT m.member FROM pg_catalog.pg_auth_members AS m JOIN members ON members.oid = m.roleid
      WHERE coalesce(pg_catalog.to_jsonb(m) ->> 'inherit_option', 'true') = 'true'
      OR coalesce(pg_catalog.to_jsonb(m) ->> 'set_option', 'true') = 'true'
    )
    SELECT rolname::text AS name FROM members JOIN pg_catalog.pg_roles USING (oid)
"""
"""The app's role, and the logins and roles that have it. Since PostgreSQL 16 whoever makes a role is a member that may
neither use its rights nor become it: the tables' owner, as a rule, and not the app."""

_REACH = f"""
    WITH apps AS ({APPS_ROLES})
    SELECT DISTINCT r.rolname::text AS name FROM apps JOIN pg_catalog.pg_roles AS own ON own.rolname::text = apps.name
    JOIN pg_catalog.pg_roles AS r ON pg_catalog.pg_has_role(own.oid, r.oid, 'MEMBER')
    WHERE NOT own.rolsuper AND NOT r.rolsuper ORDER BY 1
"""

_APPLY = "Run tenantguard rls apply."


@final
class Live:
    """A live database beside the plan for it, and what was found there.

    Args:
        connection: of the tables' owner or a superuser, in a transaction that is rolled back.
        plan: what should be there.
    """

    def __init__(self, connection: Connection, plan: RlsPlan) -> None:
        self.connection = connection
        self.plan = plan
        self.findings: list[Finding] = []
        self.oids: dict[Table, int] = {}
        """The tables that are there."""
        self.reach: list[str] = [row.name for row in self.rows(_REACH, role=plan.role)]
        """The app's role, its logins and what those could become. Superusers, which are a finding, are left out."""

    def rows(self, query: str, **values: Any) -> list[Row[Any]]:
        """Run a query."""
        return list(self.connection.execute(text(query), values))

    def value(self, query: str, **values: Any) -> Any:
        """Run a query that gives one value."""
        return self.connection.execute(text(query), values).scalar()

    def names(self, query: str, **values: Any) -> set[str]:
        """Run a query that gives names."""
        return {str(row[0]) for row in self.rows(query, **values)}

    def run(self, statement: str) -> CursorResult[Any]:
        """Run a statement as it stands, percent signs and colons included."""
        return self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def may(self, right: str, table: int) -> bool:
        """True if the app's role has one of some rights on a table.

        Args:
            right: one or several, separated by commas.
            table: its oid.
        """
        query = "SELECT pg_catalog.has_table_privilege(:role, CAST(:oid AS oid), :right)"
        return bool(self.value(query, role=self.plan.role, oid=table, right=right))

    def anyone_may(self, right: str, table: int) -> bool:
        """True if a role of `reach` has one of some rights on a table, or on some of its columns.

        Args:
            right: one or several, separated by commas.
            table: its oid.
        """
        of_columns = ", ".join(one for one in right.split(", ") if one in ("SELECT", "INSERT", "UPDATE", "REFERENCES"))
        query = (
            "SELECT EXISTS (SELECT FROM unnest(CAST(:roles AS text[])) AS r WHERE "
            "pg_catalog.has_table_privilege(r, CAST(:oid AS oid), :right) OR (:columns <> '' AND "
            "pg_catalog.has_any_column_privilege(r, CAST(:oid AS oid), coalesce(nullif(:columns, ''), 'SELECT'))))"
        )
        return bool(self.value(query, roles=self.reach, oid=table, right=right, columns=of_columns))

    def may_update(self, table: int, column: str, *, anyone: bool = False) -> bool:
        """True if the app's role may update a column.

        Args:
            table: its oid.
            column: its name.
            anyone: or another role of `reach`.
        """
        query = (
            "SELECT EXISTS (SELECT FROM unnest(CAST(:roles AS text[])) AS r WHERE "
            "pg_catalog.has_column_privilege(r, CAST(:oid AS oid), CAST(:column AS text), 'UPDATE'))"
        )
        roles = self.reach if anyone else [self.plan.role]
        return bool(self.value(query, roles=roles, oid=table, column=column))

    def functions(self) -> Mapping[str, Row[Any]]:
        """Return the functions of the schema ``tenantguard``, by name."""
        found = self.rows(
            "SELECT p.proname, p.prosrc, p.prosecdef, p.provolatile, p.proconfig, "
            "pg_catalog.has_function_privilege(:role, p.oid, 'EXECUTE') AS callable, "
            "pg_catalog.pg_has_role(:role, p.proowner, 'USAGE') AS owned "
            "FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = pg_catalog.to_regnamespace('tenantguard')",
            role=self.plan.role,
        )
        return {row.proname: row for row in found}

    def report(
        self, id_: str, where: str, message: str, mend: str = _APPLY, *, severity: Severity = Severity.ERROR
    ) -> None:
        """Add a finding.

        Args:
            id_: its kind.
            where: the table, role, function or view.
            message: what is wrong.
            mend: what to do about it.
            severity: how bad it is.
        """
        found = Finding(id=id_, severity=severity, table=str(where), message=message, mend=mend)
        if found not in self.findings:
            self.findings.append(found)
