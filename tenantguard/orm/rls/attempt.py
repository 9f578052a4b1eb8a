"""Try it: as the app's role, as each of two tenants, reach the other's rows in every table of the live database.

For each table a row of one tenant is looked for; the other then tries to see, change and delete it, and to insert a row
for its owner: one with the owner's key, or, in a child table, one under the same parent. All happens inside savepoints
of a transaction that is rolled back, one row at a time. That a tenant sees its own row is tried as well, so that a
table that shows nothing to anybody is not taken for a safe one.
"""

from typing import Any

from sqlalchemy import Row, Table, exc

from tenantguard.errors import ConfigurationError
from tenantguard.orm.classify import Child, Owned, classify_alone
from tenantguard.orm.review import Severity
from tenantguard.orm.rls.expressions import literal, quoted
from tenantguard.orm.rls.functions import KEYS_TABLE, SETTING, TRANSACTION
from tenantguard.orm.rls.live import Live

__all__ = ["attempt"]

_REFUSED = "42501"
_SEALED = f"""
    SELECT head || '.' || encode(sha256(outside || sha256(inside || convert_to(head || ' ' || body, 'UTF8'))), 'hex')
      || ' ' || body
    FROM (
      SELECT inside, outside, CAST(:tenant AS text) AS body,
        id || '.' || CASE bound_to WHEN 'backend' THEN pg_backend_pid()::text WHEN 'transaction' THEN {TRANSACTION}
          ELSE '0' END || '.'
          || CAST(extract(epoch FROM transaction_timestamp()) AS bigint) AS head
      FROM {KEYS_TABLE}
    ) AS k LIMIT 1
"""


def attempt(live: Live, tenants: tuple[str, str]) -> None:
    """Report every table in which one of two tenants reaches a row of the other.

    Raises:
        ConfigurationError: the tenants are one, or there is no key to seal them with.
    """
    if tenants[0] == tenants[1]:
        raise ConfigurationError("The two tenants are one.", mend="Name two.")
    for owner, other in (tenants, tenants[::-1]):
        for table in live.oids:
            if table in live.plan.protected:
                _try_table(live, table, owner, other)


def _become(live: Live, tenant: str) -> None:
    """Go on as the app's role, in the name of a tenant. The caller's savepoint takes it back."""
    if live.plan.sealed:
        # Its owner can seal without knowing the key: the table has both halves of the HMAC.
        value = live.value(_SEALED, tenant=tenant)
        if value is None:
            raise ConfigurationError("There is no key to seal a tenant with.", mend="Run tenantguard rls apply.")
    else:
        value = tenant
    live.value("SELECT pg_catalog.set_config(:setting, :value, true)", setting=SETTING, value=value)
    live.run(f"SET LOCAL ROLE {quoted(live.plan.role)}")


def _run(live: Live, tenant: str, statement: str) -> tuple[list[Row[Any]] | int, str | None]:
    """Run a statement as a tenant and take it back. Return its rows or their number, and the SQLSTATE of its error."""
    savepoint = live.connection.begin_nested()
    try:
        _become(live, tenant)
        result = live.run(statement)
        found: list[Row[Any]] | int = list(result) if result.returns_rows else result.rowcount
    except exc.DBAPIError as error:
        return 0, getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "unknown"
    finally:
        savepoint.rollback()
    return found, None


def _try_table(live: Live, table: Table, owner: str, other: str) -> None:
    name = live.plan.name(table)
    _try_insert(live, table, owner, other)
    # Not by the policy alone, which may be off: the row is the owner's by the plan's condition too.
    place = "tableoid::oid::text, ctid::text"  # each partition has places of its own
    row, error = _run(live, owner, f"SELECT {place} FROM {name} WHERE {live.plan.condition(table)} LIMIT 1")
    if error is not None:
        live.report(
            "untried-table",
            table.fullname,
            f"A tenant can't read its own rows (SQLSTATE {error}), so others were not tried.",
            "See to the other findings first.",
        )
    elif isinstance(row, list) and row:
        column = quoted(_column(table))
        part, position = map(str, row[0])
        at = f"tableoid = {literal(part)}::oid AND ctid = {literal(position)}::tid"
        for what, statement in (
            ("read", f"SELECT 1 FROM {name} WHERE {at}"),
            ("change", f"UPDATE {name} SET {column} = {column} WHERE {at}"),
            ("delete", f"DELETE FROM {name} WHERE {at}"),
        ):
            found, error = _run(live, other, statement)
            if error not in (None, _REFUSED) or (error is None and found not in (0, [])):
                live.report(
                    "attempt-succeeded",
                    table.fullname,
                    f"A tenant could {what} a row of another" + (f" (SQLSTATE {error})." if error else "."),
                    "See to the other findings; none of them may be left.",
                )
        kind = classify_alone(table)
        if isinstance(kind, Child):
            _try_insert_of_child(live, table, kind, owner, other, at)


def _try_insert(live: Live, table: Table, owner: str, other: str) -> None:
    kind = classify_alone(table)
    if isinstance(kind, Owned):
        _insert(live, table, other, {kind.column.name: owner})


def _try_insert_of_child(live: Live, table: Table, kind: Child, owner: str, other: str, at: str) -> None:
    """Insert a row under the parent of a row of the owner's."""
    names = [column.name for column in kind.columns]
    columns = ", ".join(f"{quoted(one)}::text" for one in names)
    row, _ = _run(live, owner, f"SELECT {columns} FROM {live.plan.name(table)} WHERE {at}")
    if isinstance(row, list) and row:
        _insert(live, table, other, dict(zip(names, map(str, row[0]), strict=True)))


def _insert(live: Live, table: Table, other: str, values: dict[str, str]) -> None:
    columns, given = ", ".join(map(quoted, values)), ", ".join(map(literal, values.values()))
    _, error = _run(live, other, f"INSERT INTO {live.plan.name(table)} ({columns}) VALUES ({given})")
    if error == _REFUSED:
        return
    if error is not None and error.startswith("22"):  # the ids are none of the key's type
        live.report(
            "untried-table",
            table.fullname,
            "The ids of the two tenants do not fit the key, so the table was not tried.",
            "Name tenants whose ids fit.",
            severity=Severity.ADVICE,
        )
        return
    live.report(
        "attempt-succeeded",
        table.fullname,
        "A tenant could insert a row for another" + (f" (SQLSTATE {error})." if error else "."),
        "See to the other findings; none of them may be left.",
    )


def _column(table: Table) -> str:
    kind = classify_alone(table)
    return kind.column.name if isinstance(kind, Owned) else next(iter(table.columns)).name
