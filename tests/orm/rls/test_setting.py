"""The tenant in PostgreSQL follows the bound one: every driver, pool reuse, savepoints, AUTOCOMMIT, cancelled tasks.

The engines have the barrier, so statements are scoped twice; to see what PostgreSQL alone does, raw SQL is allowed.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import generators
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Session

from tenantguard import allow_raw, bind, read_tenants, service_identity, system
from tenantguard.errors import ConfigurationError, StatementRefused, TenantMismatch
from tenantguard.orm import protect
from tenantguard.orm.connections import driver_connection_of
from tenantguard.orm.rls import guard_transactions
from tests.orm.attacks.world import Country, Document, Folder
from tests.orm.rls.lab import Lab
from tests.support.waiting import until

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))
RAW = text("SELECT title FROM documents ORDER BY id")
OF = {"a": ["a doc", "a report"], "b": ["b doc", "b report"]}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["psycopg", "psycopg for a transaction", "psycopg2 for a transaction"])
def engine_lab(request: pytest.FixtureRequest) -> Lab:
    return request.getfixturevalue("transaction_lab" if "transaction" in request.param else "lab")


@pytest.fixture
def engine(request: pytest.FixtureRequest, engine_lab: Lab) -> Iterator[Engine]:
    driver = request.node.callspec.params["engine_lab"].partition(" ")[0]
    made = engine_lab.engine(driver, pool_size=1, max_overflow=0)
    yield made
    made.dispose()


@pytest.fixture(params=["psycopg", "asyncpg", "psycopg for a transaction", "asyncpg for a transaction"])
async def async_engine(request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    lab = request.getfixturevalue("transaction_lab" if "transaction" in request.param else "lab")
    made = lab.async_engine(request.param.partition(" ")[0], pool_size=2, max_overflow=0)
    yield made
    await made.dispose()


def raw(connection: Connection) -> list[str]:
    """What PostgreSQL shows of a table without a predicate of the barrier."""
    with allow_raw("to see what PostgreSQL does by itself"):
        return list(connection.scalars(RAW))


async def raw_async(connection: AsyncConnection) -> list[str]:
    with allow_raw("to see what PostgreSQL does by itself"):
        return list(await connection.scalars(RAW))


# --- transactions --------------------------------------------------------------------------------------------------


def test_postgresql_shows_the_bound_tenants_rows_and_follows_the_binding_over_one_connection(engine: Engine) -> None:
    for identity in (A, B, A):
        with bind(identity), engine.connect() as connection:
            assert raw(connection) == OF[identity.tenant.id]
            connection.rollback()
            assert raw(connection) == OF[identity.tenant.id]
            connection.commit()
            assert raw(connection) == OF[identity.tenant.id]


def test_the_orm_works_as_without_it(engine: Engine) -> None:
    with bind(A), Session(engine) as db:
        assert [one.title for one in db.scalars(select(Document).order_by(Document.id))] == OF["a"]
        db.add(Folder(id=50, name="new", parent=db.get_one(Folder, 1)))
        db.flush()
        with db.begin_nested():
            db.add(Folder(id=51, name="newer", parent_id=50))
        assert len(db.scalars(select(Folder)).all()) == 3
        db.rollback()
        assert len(db.scalars(select(Folder)).all()) == 1


def test_a_transaction_that_was_begun_before_anybody_was_bound_gets_the_tenant(engine: Engine) -> None:
    with engine.begin() as connection:
        with bind(A):
            assert raw(connection) == OF["a"]
        with bind(B), pytest.raises(TenantMismatch):
            raw(connection)


def test_the_tenant_survives_savepoints_that_are_rolled_back(engine: Engine) -> None:
    with bind(A), engine.begin() as connection:
        savepoint = connection.begin_nested()
        assert raw(connection) == OF["a"]
        inner = connection.begin_nested()
        assert raw(connection) == OF["a"]
        inner.rollback()
        assert raw(connection) == OF["a"]
        savepoint.rollback()
        assert raw(connection) == OF["a"]


def test_a_savepoint_that_is_older_than_the_tenant_does_not_take_it_away(engine: Engine) -> None:
    with engine.begin() as connection:
        savepoint = connection.begin_nested()
        with bind(A):
            assert raw(connection) == OF["a"]
            savepoint.rollback()
            assert raw(connection) == OF["a"]


def test_a_failed_statement_inside_a_savepoint_leaves_the_tenant(engine: Engine) -> None:
    with bind(A), engine.begin() as connection:
        with pytest.raises(DBAPIError), connection.begin_nested(), allow_raw("to have it fail"):
            connection.execute(text("SELECT 1 / 0"))
        assert raw(connection) == OF["a"]


def test_autocommit_has_no_tenant_and_is_refused_again_and_again(engine: Engine) -> None:
    with bind(A), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for _ in range(2):
            with pytest.raises(StatementRefused, match="AUTOCOMMIT has no transaction"):
                connection.execute(select(Document))
    with bind(B), engine.connect() as connection:
        assert raw(connection) == OF["b"]


@pytest.mark.parametrize("level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_the_transaction_keeps_its_isolation_level(engine: Engine, level: str) -> None:
    with bind(A), engine.connect().execution_options(isolation_level=level) as connection:
        assert raw(connection) == OF["a"]
        with allow_raw("to ask for the level"):
            assert connection.scalar(text("SHOW transaction_isolation")) == level.lower()


def test_a_read_only_transaction_is_one(engine: Engine) -> None:
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True}
    with bind(A), engine.connect().execution_options(**options) as connection:
        assert raw(connection) == OF["a"]
        with allow_raw("to ask"):
            assert connection.scalar(text("SHOW transaction_read_only")) == "on"


# --- who else ------------------------------------------------------------------------------------------------------


def test_a_system_context_reaches_no_row_of_tenants_by_the_apps_role(engine: Engine) -> None:
    with bind(A), engine.begin() as connection:
        assert raw(connection) == OF["a"]
    with system("look at everything"), engine.connect() as connection:
        assert list(connection.scalars(text("SELECT code FROM countries"))) == ["NZ"]
        with pytest.raises(DBAPIError, match="no tenant is set"):
            connection.execute(select(Document))


def test_a_system_context_is_not_taken_for_the_tenant_of_a_setting_that_was_left_behind(engine: Engine) -> None:
    with bind(A), engine.begin() as connection, allow_raw("to leave the setting behind, as an injection would"):
        connection.execute(
            text("SELECT set_config('tenantguard.tenant', current_setting('tenantguard.tenant'), false)")
        )
    with (
        system("look at everything"),
        engine.connect() as connection,
        pytest.raises(DBAPIError, match="no tenant is set"),
    ):
        connection.execute(select(Document))
    with bind(B), engine.connect() as connection:
        assert raw(connection) == OF["b"]


def test_a_role_that_may_bypass_it_reaches_everything_in_a_system_context(lab: Lab) -> None:
    owner = protect(create_engine(lab.engine_of("psycopg", role="postgres")))
    with system("look at everything"), owner.connect() as connection:
        assert len(connection.scalars(RAW).all()) == 4
    owner.dispose()


def test_further_tenants_are_not_read_in_part(engine: Engine) -> None:
    both = read_tenants(["b"], reason="a report over both")
    with bind(A), both, engine.connect() as connection, pytest.raises(StatementRefused, match="rows of one tenant"):
        connection.execute(select(Document))


def test_the_bare_driver_that_a_system_context_hands_out_has_no_tenant(engine: Engine) -> None:
    with bind(A), engine.begin() as connection:
        assert raw(connection) == OF["a"]
    with system("look at the driver"), engine.connect() as connection:
        cursor = connection.connection.cursor()
        with pytest.raises(Exception, match="no tenant is set"):
            cursor.execute("SELECT * FROM documents")


# --- what it costs, and what breaks --------------------------------------------------------------------------------


def test_the_setting_costs_no_round_trip(lab: Lab, tmp_path: Path) -> None:
    """Counted in libpq's trace of the messages: the server says ReadyForQuery once for each round trip."""
    trips = {}
    for name, engine in (
        ("with", lab.engine("psycopg")),
        ("without", protect(create_engine(lab.engine_of("psycopg")))),
    ):
        with bind(B), engine.connect() as connection:
            connection.execute(select(Country))  # so that the session is another tenant's, and has to be reset
        with bind(A), engine.connect() as connection, (tmp_path / name).open("wb") as trace:
            pgconn = driver_connection_of(connection.connection).pgconn
            pgconn.trace(trace.fileno())
            connection.execute(select(Country))
            connection.commit()
            pgconn.untrace()
        trips[name] = (tmp_path / name).read_text().count("ReadyForQuery")
        engine.dispose()
    assert "set_config('tenantguard.tenant', $1, true)" in (tmp_path / "with").read_text()
    assert "RESET ALL" in (tmp_path / "with").read_text()
    assert trips == {"with": 4, "without": 3}, "the reset is a transaction of its own, and sent along with BEGIN"


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.anyio
async def test_a_seal_that_is_good_for_more_than_its_transaction_is_shown_to_no_other_session(
    lab: Lab, driver: str
) -> None:
    """PostgreSQL shows all sessions of a role what the others ran last."""
    engine = lab.async_engine(driver)
    with bind(A):
        async with engine.connect() as connection:
            await connection.begin_nested()  # after the setting, and before any statement of the app's
            with lab.app("b") as other:
                shown = other.execute("SELECT query FROM pg_stat_activity WHERE usename = %s", [lab.login]).fetchall()
    await engine.dispose()
    assert len(shown) == 2
    assert lab.seal.key_id not in repr(shown)


def test_a_driver_that_would_show_such_a_seal_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="the seal stands in the text"):
        lab.engine("psycopg2")


class Interrupted(BaseException):
    """Raised while the answer to the setting is waited for, as KeyboardInterrupt is."""


def test_a_connection_whose_answer_was_not_read_is_nobodys_next(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = lab.engine("psycopg", pool_size=1, max_overflow=0)
    with bind(A), engine.connect() as connection:
        assert raw(connection) == OF["a"]
        connection.commit()
        with monkeypatch.context() as patch:
            patch.setattr(generators, "fetch_many", interrupting)
            with pytest.raises(Interrupted):
                connection.execute(select(Document))
    with bind(B), engine.connect() as connection:
        assert raw(connection) == OF["b"]
    engine.dispose()


def interrupting(_: object) -> Iterator[object]:
    raise Interrupted
    yield


def test_a_connection_that_the_server_has_closed_is_replaced(engine: Engine, engine_lab: Lab) -> None:
    with bind(A), engine.connect() as connection:
        assert raw(connection) == OF["a"]
    with engine_lab.admin() as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [engine_lab.login])
    with bind(A), engine.connect() as connection:
        with pytest.raises(OperationalError) as caught:
            connection.execute(select(Document))
        assert caught.value.connection_invalidated
    with bind(B), engine.connect() as connection:
        assert raw(connection) == OF["b"]


def test_errors_hold_no_seal(lab: Lab) -> None:
    engine = lab.engine("psycopg")
    with lab.admin() as admin:
        admin.execute(f"ALTER ROLE {lab.login} SET default_transaction_read_only = on")
    with bind(A), engine.begin() as connection, allow_raw("to have it fail"), pytest.raises(DBAPIError) as caught:
        connection.execute(text("DELETE FROM comments"))
    with lab.admin() as admin:
        admin.execute(f"ALTER ROLE {lab.login} RESET default_transaction_read_only")
    assert "SET LOCAL" not in str(caught.value)
    engine.dispose()


def test_an_engine_that_can_not_have_it_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="takes a protected engine"):
        guard_transactions(create_engine(lab.engine_of("psycopg")))
    with pytest.raises(ConfigurationError, match="takes a protected engine"):
        guard_transactions(protect(create_engine("sqlite://")))
    with pytest.raises(ConfigurationError, match="guarded already"):
        guard_transactions(lab.engine("psycopg"))


# --- asynchronous drivers ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_postgresql_follows_the_binding_over_an_asynchronous_driver(async_engine: AsyncEngine) -> None:
    for identity in (A, B, A):
        with bind(identity):
            async with async_engine.connect() as connection:
                assert await raw_async(connection) == OF[identity.tenant.id]
                savepoint = await connection.begin_nested()
                assert await raw_async(connection) == OF[identity.tenant.id]
                await savepoint.rollback()
                assert await raw_async(connection) == OF[identity.tenant.id]
                await connection.rollback()
                assert await raw_async(connection) == OF[identity.tenant.id]


@pytest.mark.anyio
@pytest.mark.parametrize("level", ["SERIALIZABLE", "AUTOCOMMIT"])
async def test_isolation_levels_hold_over_an_asynchronous_driver(async_engine: AsyncEngine, level: str) -> None:
    with bind(A), allow_raw("to ask"):
        async with async_engine.connect() as connection:
            await connection.execution_options(isolation_level=level)
            if level == "AUTOCOMMIT":
                with pytest.raises(StatementRefused, match="AUTOCOMMIT"):
                    await connection.execute(RAW)
            else:
                assert (await connection.scalars(RAW)).all() == OF["a"]
                assert await connection.scalar(text("SHOW transaction_isolation")) == "serializable"


@pytest.mark.anyio
async def test_a_connection_that_the_server_has_closed_is_replaced_over_an_asynchronous_driver(
    async_engine: AsyncEngine, postgres_server: str
) -> None:
    with bind(A):
        async with async_engine.connect() as connection:
            await raw_async(connection)
        with psycopg.connect(postgres_server, autocommit=True) as admin:
            login = async_engine.url.username
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [login])
            left = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
            await until(lambda: admin.execute(left, [login]).fetchone() == (0,))
        await asyncio.sleep(0.05)
        with pytest.raises(DBAPIError) as caught:
            async with async_engine.connect() as connection:
                await connection.execute(select(Document))
        assert caught.value.connection_invalidated
        async with async_engine.connect() as connection:
            assert await raw_async(connection) == OF["a"]


@pytest.mark.anyio
async def test_no_tenant_is_left_on_two_connections_that_hundreds_of_tasks_share_and_some_are_cancelled(
    async_engine: AsyncEngine,
) -> None:
    done = {"seen": 0, "cancelled": 0}

    async def work(number: int) -> None:
        identity = (A, B)[number % 2]
        with bind(identity):
            async with async_engine.connect() as connection:
                assert await raw_async(connection) == OF[identity.tenant.id]
                done["seen"] += 1

    async def cancelled(number: int) -> None:
        task = asyncio.ensure_future(work(number))
        for _ in range(number % 13):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            done["cancelled"] += 1

    async with asyncio.timeout(60):
        for _ in range(6):
            await asyncio.gather(*(work(n) if n % 3 else cancelled(n) for n in range(60)))
    gc.collect()
    assert done["seen"] >= 240
    assert done["cancelled"] > 20
