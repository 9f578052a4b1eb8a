"""A database with row-level security: two tenants' rows, a login role for the app, and who made the tables."""

import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine, MetaData, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tenantguard import service_identity
from tenantguard.orm import protect
from tenantguard.orm.rls import RlsPlan, Seal, guard_transactions
from tenantguard.orm.rls.functions import TRANSACTION
from tenantguard.orm.rls.seal import BoundTo, plain_value
from tenantguard.orm.rls.sessions import SessionReset

__all__ = ["KEY", "Lab", "bound", "made_lab"]

KEY = secrets.token_bytes(32)


def bound(connection: psycopg.Connection[Any], seal: Seal) -> str:
    """What a seal is bound to, as the app would learn it."""
    if seal.bound_to == "transaction":
        (answer,) = connection.execute(f"SELECT {TRANSACTION}").fetchone() or ("",)
        return str(answer)
    return str(connection.info.backend_pid)


class Lab:
    """One database."""

    def __init__(self, url: str, metadata: MetaData, seal: Seal | None) -> None:
        self.url = url
        self.seal = seal
        self.role = f"app_{uuid.uuid4().hex[:8]}"
        self.login = f"{self.role}_login"
        self.plan = RlsPlan(metadata, role=self.role, sealed=seal is not None)

    def engine_of(self, driver: str, *, role: str | None = None) -> str:
        """The URL for a driver, as the app's login or as another role."""
        return self.url.replace("postgresql://postgres", f"postgresql+{driver}://{role or self.login}")

    def apply(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(self.plan.script())
            if self.seal is not None:
                admin.execute(self.seal.key_statement())

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            yield connection

    @contextmanager
    def app(self, tenant: str | None, **dimensions: str) -> Iterator[psycopg.Connection[Any]]:
        """The bare driver as the app's role, in a transaction of a tenant that is rolled back. No Python barrier."""
        with psycopg.connect(self.url.replace("//postgres", f"//{self.login}")) as connection:
            if tenant is not None:
                self.set(connection, tenant, **dimensions)
            yield connection
            connection.rollback()

    def set(self, connection: psycopg.Connection[Any], tenant: str, **dimensions: str) -> None:
        body = plain_value(service_identity("test", tenant=tenant, dimensions=dimensions))
        value = body if self.seal is None else self.seal.value(body, bound(connection, self.seal))
        connection.execute("SELECT set_config('tenantguard.tenant', %s, true)", [value])

    def engine(self, driver: str = "psycopg", *, session_reset: SessionReset = "engine", **options: Any) -> Engine:
        made = protect(create_engine(self.engine_of(driver), **options))
        return guard_transactions(made, seal=self.seal, session_reset=session_reset)

    def async_engine(self, driver: str, **options: Any) -> AsyncEngine:
        made = protect(create_async_engine(self.engine_of(driver), **options))
        return guard_transactions(made, seal=self.seal)

    def drop_roles(self) -> None:
        with self.admin() as admin:
            for role in (self.login, self.role):
                admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@contextmanager
def made_lab(url: str, metadata: MetaData, *, sealed: bool = True, bound_to: BoundTo = "backend") -> Iterator[Lab]:
    """Make the tables and their row-level security in an empty database."""
    lab = Lab(url, metadata, Seal(KEY, bound_to=bound_to) if sealed else None)
    with lab.admin() as admin:
        for schema in {table.schema for table in metadata.tables.values() if table.schema}:
            admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    engine = create_engine(url.replace(":", "+psycopg:", 1))
    metadata.create_all(engine)
    engine.dispose()
    lab.apply()
    with lab.admin() as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(sql.Identifier(lab.login), sql.Identifier(lab.role))
        )
    try:
        yield lab
    finally:
        lab.drop_roles()
