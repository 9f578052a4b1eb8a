"""Placement together with wall three: PostgreSQL itself refuses, in the shared tables and in a tenant's own schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantguard.orm import TenantOwned
from tenantguard.orm.placement import (
    Databases,
    Placement,
    Placements,
    SqlTenants,
    create_tenant,
    export_tenant,
    move_tenant,
    own_schema,
)
from tenantguard.orm.rls import RlsPlan, guard_transactions
from tests.orm.placement.conftest import as_tenant
from tests.orm.rls.lab import Lab, made_lab


class Base(DeclarativeBase):
    pass


class Memo(TenantOwned, Base):
    __tablename__ = "memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture
def lab(postgres_url: str) -> Iterator[Lab]:
    with made_lab(postgres_url, Base.metadata) as made:
        yield made


def test_a_schema_of_its_own_has_policies_of_its_own(lab: Lab, tmp_path: Path) -> None:
    owner = make_url(lab.engine_of("psycopg", role="postgres"))
    directory = SqlTenants(owner, ttl=0.1)
    directory.create_tables()
    databases = Databases(Base.metadata, shared=owner)

    def rls(connection: Connection, place: Placement) -> None:
        plan = RlsPlan(Base.metadata, role=lab.role, schema=place.schema or "public")
        for block in plan.up():
            for statement in block:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    steps: Any = {"rls": rls}
    for tenant in "ab":
        create_tenant(directory, databases, tenant, steps=steps)
    apps = Databases(
        Base.metadata,
        shared=lab.engine_of("psycopg"),
        configure=lambda engine: guard_transactions(engine, seal=lab.seal),
    )
    placements = Placements(directory, apps)
    Session = placements.sessionmaker()
    for tenant in "ab":
        with as_tenant(tenant), Session.begin() as db:
            db.add(Memo(text=f"of {tenant}"))
    moved = move_tenant(directory, databases, "a", own_schema("a"), steps=steps, grace=0.0)
    assert moved.rows == 1
    with as_tenant("a"), Session.begin() as db:
        db.add(Memo(text="after"))
        db.flush()
        assert db.scalars(select(Memo.text).order_by(Memo.id)).all() == ["of a", "after"]
    schema = own_schema("a").schema
    with lab.app("a") as bare:
        assert bare.execute(f"SELECT count(*) FROM {schema}.memos").fetchone() == (2,)
        assert bare.execute("SELECT count(*) FROM memos").fetchone() == (0,)
    with lab.app("b") as bare:
        assert bare.execute(f"SELECT count(*) FROM {schema}.memos").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bare.execute(f"INSERT INTO {schema}.memos (id, text, tenant_id) VALUES (9, 'x', 'a')")
    with lab.app(None) as bare, pytest.raises(psycopg.Error):
        bare.execute(f"SELECT count(*) FROM {schema}.memos")
    # A role that is held by the policies exports what is the tenant's, with its seal.
    exported = export_tenant(apps, directory.read("a"), tmp_path / "export")
    assert exported.rows == 2
    placements.close()
    directory.close()
