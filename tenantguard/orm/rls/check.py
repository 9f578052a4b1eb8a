"""Compare the live database with what the models say: ``tenantguard rls check``. Nothing is changed."""

from sqlalchemy import Connection

from tenantguard.orm.review import Finding
from tenantguard.orm.rls.attempt import attempt
from tenantguard.orm.rls.check_rights import check_rights
from tenantguard.orm.rls.check_surroundings import check_surroundings
from tenantguard.orm.rls.check_tables import check_tables
from tenantguard.orm.rls.live import Live
from tenantguard.orm.rls.plan import RlsPlan

__all__ = ["check_database"]


def check_database(
    connection: Connection, plan: RlsPlan, *, tenants: tuple[str, str] | None = None
) -> tuple[Finding, ...]:
    """Return what differs from the plan, or lets the app's role pass it by; the worst first.

    Args:
        connection: of an engine without the barrier, as a role that may read the catalogue, make temporary tables, and
            become the app's role where it is tried; a superuser or the owner of the tables. Its transaction is rolled
            back.
        plan: what should be there.
        tenants: two tenants as which reading and writing each other's rows is tried; ``None`` to try nothing.
    """
    live = Live(connection, plan)
    try:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'")
        if not live.value("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = :role", role=plan.role):
            live.report("missing-role", plan.role, "The app's role is not there, so nothing else was looked at.")
            return tuple(live.findings)
        check_tables(live)
        check_rights(live)
        check_surroundings(live)
        if tenants is not None:
            attempt(live, tenants)
    finally:
        connection.rollback()
    return tuple(sorted(live.findings, key=lambda one: (one.severity.rank, one.table, one.id, one.message)))
