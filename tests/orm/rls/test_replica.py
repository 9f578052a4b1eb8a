"""A read replica: the barrier and row-level security hold there as they do on the primary, and nothing is written."""

from collections.abc import Iterator

import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from tenantguard import allow_raw, bind, service_identity, system
from tenantguard.errors import TenantMismatch, UnprotectedEngine
from tenantguard.orm import protect
from tenantguard.orm.rls import guard_transactions
from tenantguard.orm.rls.check import check_database
from tests.orm.attacks.world import Base, Document, Folder
from tests.orm.rls.conftest import ROWS
from tests.orm.rls.lab import Lab, made_lab
from tests.orm.rls.test_setting import OF, RAW
from tests.support.postgres_replica import postgres_replica, wait_for_replica

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))


class Replica:
    """The same database, at the URL of the replica."""

    def __init__(self, primary: Lab, url: str) -> None:
        self.primary = primary
        self.lab = Lab.__new__(Lab)
        self.lab.__dict__.update(primary.__dict__)
        self.lab.url = url


@pytest.fixture(scope="module")
def replica(postgres_server: str, postgres_module_url: str) -> Iterator[Replica]:
    with made_lab(postgres_module_url, Base.metadata) as made:
        with made.admin() as admin:
            admin.execute(ROWS)
        with postgres_replica(postgres_server) as server:
            host = postgres_server.partition("host=")[2]
            wait_for_replica(postgres_server, server)
            yield Replica(made, postgres_module_url.replace(host, server.partition("host=")[2]))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def test_the_replica_shows_the_bound_tenants_rows_over_one_connection(replica: Replica) -> None:
    engine = replica.lab.engine(pool_size=1, max_overflow=0)
    for identity in (A, B, A):
        with bind(identity), engine.connect() as connection:
            assert connection.scalars(select(Document.title).order_by(Document.id)).all() == OF[identity.tenant.id]
            with allow_raw("to see what PostgreSQL does by itself"):
                assert connection.scalars(RAW).all() == OF[identity.tenant.id]
                assert connection.scalar(text("SELECT pg_is_in_recovery()")) is True
    engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_the_replica_follows_the_binding_over_an_asynchronous_driver(replica: Replica, driver: str) -> None:
    engine = replica.lab.async_engine(driver, pool_size=1, max_overflow=0)
    for identity in (A, B, A):
        with bind(identity):
            async with engine.connect() as connection:
                with allow_raw("to see what PostgreSQL does by itself"):
                    assert (await connection.scalars(RAW)).all() == OF[identity.tenant.id]
    await engine.dispose()


def test_no_seal_and_a_forged_one_are_refused_on_the_replica_as_well(replica: Replica) -> None:
    with replica.lab.app(None) as app:
        with pytest.raises(InsufficientPrivilege, match="no tenant is set"):
            app.execute("SELECT * FROM documents")
        app.rollback()
        app.execute("SET LOCAL tenantguard.tenant = 'b'")
        with pytest.raises(InsufficientPrivilege, match="no valid seal"):
            app.execute("SELECT * FROM documents")


def test_a_seal_for_a_backend_of_the_primary_is_of_no_use_on_the_replica(replica: Replica) -> None:
    with replica.primary.app(None) as primary, replica.lab.app(None) as app:
        assert primary.info.backend_pid != app.info.backend_pid
        seal = replica.lab.seal.value("a", str(primary.info.backend_pid))
        app.execute("SELECT set_config('tenantguard.tenant', %s, true)", [seal])
        with pytest.raises(InsufficientPrivilege, match="of another transaction"):
            app.execute("SELECT * FROM documents")


def test_nothing_is_written_on_the_replica(replica: Replica) -> None:
    engine = replica.lab.engine()
    with bind(A), Session(engine) as db:
        db.add(Folder(id=77, name="new"))
        with pytest.raises(DBAPIError, match="read-only transaction"):
            db.flush()
    engine.dispose()


def test_sessions_read_on_the_replica_and_write_on_the_primary_of_one_tenant(
    replica: Replica, postgres_server: str
) -> None:
    """The recipe of the documentation: two protected engines, and a session that chooses."""
    primary, reading = replica.primary.engine(), replica.lab.engine()

    class Routed(Session):
        def get_bind(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
            return primary if self._flushing or self.info.get("writes") else reading

    make = sessionmaker(class_=Routed)
    with bind(A), make() as db:
        assert db.scalars(select(Document.title).order_by(Document.id)).all() == OF["a"]
        db.add(Folder(id=78, name="new"))
        db.commit()
    with bind(B), make() as db:
        assert db.get(Folder, 78) is None
    wait_for_replica(postgres_server, replica.lab.url)
    with bind(A), make() as db:
        folder = db.get_one(Folder, 78)
        with bind(B), pytest.raises(TenantMismatch):
            db.scalars(select(Document)).all()
        db.info["writes"] = True
        db.delete(folder)
        db.commit()
    primary.dispose()
    reading.dispose()


def test_an_engine_of_the_replica_that_was_not_protected_is_refused_by_both_walls(replica: Replica) -> None:
    bare = create_engine(replica.lab.engine_of("psycopg"), poolclass=NullPool)
    with bare.connect() as connection:
        with bind(A), pytest.raises(UnprotectedEngine):
            connection.execute(select(Document))
        with pytest.raises(DBAPIError, match="no tenant is set"):
            connection.execute(RAW)


def test_a_system_context_reaches_no_row_of_tenants_on_the_replica(replica: Replica) -> None:
    engine = replica.lab.engine()
    with system("look"), engine.connect() as connection, pytest.raises(DBAPIError, match="no tenant is set"):
        connection.execute(select(Document))
    engine.dispose()


def test_the_check_is_for_the_primary(replica: Replica) -> None:
    """It makes temporary tables, which no replica takes. What it finds holds for the replica: all of it is copied."""
    engine = create_engine(replica.lab.engine_of("psycopg", role="postgres"), poolclass=NullPool)
    with engine.connect() as connection, pytest.raises(DBAPIError, match="read-only transaction"):
        check_database(connection, replica.lab.plan)
    engine.dispose()


def test_the_setting_holds_where_transactions_are_read_only_by_default(new_lab: Lab) -> None:
    with new_lab.admin() as admin:
        admin.execute(f"ALTER ROLE {new_lab.login} SET default_transaction_read_only = on")
    engine = new_lab.engine()
    with bind(A), engine.connect() as connection, allow_raw("to ask"):
        assert connection.scalars(RAW).all() == OF["a"]
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"
        with pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(text("DELETE FROM comments"))
    engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_the_setting_holds_in_a_read_only_transaction_of_an_asynchronous_driver(
    new_lab: Lab, driver: str
) -> None:
    plain = create_async_engine(new_lab.engine_of(driver), execution_options={"postgresql_readonly": True})
    engine = guard_transactions(protect(plain), seal=new_lab.seal)
    for identity in (A, B):
        with bind(identity), allow_raw("to ask"):
            async with engine.connect() as connection:
                await connection.execution_options(postgresql_readonly=True)
                assert (await connection.scalars(RAW)).all() == OF[identity.tenant.id]
                assert await connection.scalar(text("SHOW transaction_read_only")) == "on"
    await engine.dispose()
