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
    )
    SELECT rolname::text AS name FROM members JOIN pg_catalog.pg_roles USING (oid)
"""
"""The app's role, and the logins and roles that have it."""

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

    def may_update(self, table: int, column: str) -> bool:
        """True if the app's role may update a column.

        Args:
            table: its oid.
            column: its name.
        """
        query = "SELECT pg_catalog.has_column_privilege(:role, CAST(:oid AS oid), CAST(:column AS text), 'UPDATE')"
        return bool(self.value(query, role=self.plan.role, oid=table, column=column))

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
