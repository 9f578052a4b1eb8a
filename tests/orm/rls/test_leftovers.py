"""What SQL that runs as the app's role leaves in a session of PostgreSQL is gone before the next tenant's transaction.

The attack: in tenant A's transaction, a prepared statement of the driver's is replaced by another under its name. Tenant
B's next execution of the first one would run the second, in B's name, and put news of B's rows where A reads them.
"""

import logging
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard import allow_raw, bind, service_identity, system
from tenantguard.errors import ConfigurationError, StatementRefused
from tenantguard.orm import protect
from tenantguard.orm.connections import driver_connection_of
from tenantguard.orm.rls import guard_transactions
from tenantguard.orm.rls.sessions import _FIRST
from tests.orm.attacks.world import Country, Document
from tests.orm.rls.lab import Lab

QUERY = select(Document.title).where(Document.id == 2)
STOLEN = (
    "WITH stolen AS (INSERT INTO countries (code) SELECT 'B' || count(*) FROM documents) "
    "SELECT current_setting('tenantguard.tenant')::varchar WHERE $1 IS NOT NULL AND $2 IS NOT NULL"
)
OWN = text(
    "SELECT name, array_to_string(parameter_types, ',') FROM pg_prepared_statements WHERE statement LIKE '%documents.id%' AND parameter_types <> '{}'"
)
ALL = text(
    "SELECT name, array_to_string(parameter_types, ','), cardinality(parameter_types) FROM pg_prepared_statements "
    "WHERE parameter_types <> '{}' AND statement NOT LIKE '%pg_prepared_statements%'"
)
CLEAN = {"answer": ["b doc"], "news of b": [], "setting": "", "time": False, "cursors": [], "channels": [], "locks": 0}
CLEAN |= {"shadow": None}


def as_tenant(tenant: str) -> Any:
    return bind(service_identity("test", tenant=tenant))


class Attack:
    """Runs on an engine of one connection; an asynchronous one is given its connection by `run_sync`."""

    def use(self, connection: Any) -> None:
        connection.execute(QUERY).all()
        connection.commit()

    def leave(self, connection: Any) -> None:
        """Leave all that a session can keep."""
        with allow_raw("attack"):
            for command in (
                "SET SESSION statement_timeout = 12345",
                "SET SESSION app.remains = 'by a'",
                "DECLARE kept CURSOR WITH HOLD FOR SELECT title FROM documents",
                "LISTEN gossip",
                "SELECT pg_advisory_lock(7)",
                "SELECT 2 AS id, 'b' AS tenant_id, 'a lie' AS title INTO TEMPORARY documents",
            ):
                connection.execute(text(command))
            for name, types in connection.execute(OWN).all():
                connection.exec_driver_sql(f'DEALLOCATE "{name}"')
                connection.exec_driver_sql(
                    f'PREPARE "{name}" ({types}) AS {STOLEN.replace("FROM doc", "FROM public.doc")}'
                )
            connection.commit()

    def answer(self, connection: Any) -> list[Any]:
        """What the next tenant gets; a session that lies may fail as well."""
        found = list(connection.execute(QUERY).scalars().all())
        connection.commit()
        return found

    def meet(self, connection: Any) -> dict[str, Any]:
        def ask(query: str) -> list[Any]:
            return list(connection.execute(text(query)).scalars().all())

        with allow_raw("look"):
            return {
                "news of b": ask("SELECT code FROM countries WHERE code LIKE 'B%'"),
                "setting": ask("SELECT coalesce(current_setting('app.remains', true), '')")[0],
                "time": ask("SHOW statement_timeout")[0] != "0",
                "cursors": ask("SELECT name FROM pg_cursors WHERE is_holdable"),
                "channels": ask("SELECT pg_listening_channels()"),
                "locks": ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")[0],
                "shadow": ask("SELECT to_regclass('pg_temp.documents')::text")[0],
            }


def attack(engine: Engine) -> dict[str, Any]:
    way = Attack()
    for _ in range(8):  # psycopg prepares what it was given five times
        with as_tenant("a"), engine.connect() as connection:
            way.use(connection)
    with as_tenant("a"), engine.connect() as connection:
        way.leave(connection)
    with as_tenant("b"), engine.connect() as connection:
        answer = way.answer(connection)
    with as_tenant("b"), engine.connect() as connection:
        return {"answer": answer, **way.meet(connection)}


async def attack_async(engine: AsyncEngine) -> dict[str, Any]:
    way = Attack()
    with as_tenant("a"):
        for step in [*[way.use] * 8, way.leave]:
            async with engine.connect() as connection:
                await connection.run_sync(step)
    with as_tenant("b"):
        async with engine.connect() as connection:
            answer = await connection.run_sync(way.answer)
        async with engine.connect() as connection:
            return {"answer": answer, **await connection.run_sync(way.meet)}


@pytest.fixture(autouse=True)
def _temporary_tables(request: pytest.FixtureRequest) -> None:
    """The plan takes the right to make them away; an app that needs it gives it back."""
    name = next(name for name in ("new_lab", "new_transaction_lab") if name in request.fixturenames)
    lab: Lab = request.getfixturevalue(name)
    with lab.admin() as admin:
        admin.execute(f"GRANT TEMPORARY ON DATABASE {admin.info.dbname} TO {lab.role}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_next_tenant_meets_nothing_that_was_left(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    assert attack(engine) == CLEAN
    assert attack(engine) == CLEAN, "and the driver prepares again what it had prepared"
    engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_the_next_tenant_meets_nothing_with_asynchronous_drivers(new_lab: Lab, driver: str) -> None:
    engine = new_lab.async_engine(driver, pool_size=1, max_overflow=0)
    for _ in range(2):
        assert await attack_async(engine) == CLEAN
    await engine.dispose()


def test_the_next_tenant_meets_nothing_with_psycopg2(new_transaction_lab: Lab) -> None:
    engine = new_transaction_lab.engine("psycopg2", pool_size=1, max_overflow=0)
    assert attack(engine) == CLEAN
    engine.dispose()


def test_a_pool_alone_carries_what_was_left_to_the_next_tenant_and_turning_the_reset_off_is_logged(
    new_lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """What the reset is for: without it, the attack succeeds."""
    with caplog.at_level(logging.WARNING, "tenantguard.orm"):
        engine = new_lab.engine("psycopg", session_reset="off", pool_size=1, max_overflow=0)
    assert "not reset between tenants" in caplog.text
    found = attack(engine)
    engine.dispose()
    assert found["answer"] != ["b doc"]
    assert found["news of b"] == ["B2"]
    assert {key: value for key, value in found.items() if key not in ("answer", "news of b")} == {
        "setting": "by a", "time": True, "cursors": ["kept"], "channels": ["gossip"], "locks": 1,
        "shadow": "documents",
    }  # fmt: skip


@pytest.mark.parametrize("way", ["cursor", "driver", "method"])
def test_what_a_raw_cursor_left_is_gone_as_well(new_lab: Lab, way: str) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with as_tenant("b"), engine.connect() as connection:
        connection.execute(QUERY).all()
    with as_tenant("a"), allow_raw("attack"), engine.connect() as connection:  # no statement of SQLAlchemy's
        pooled: Any = connection.connection
        execute = {
            "cursor": lambda: pooled.cursor().execute,
            "driver": lambda: pooled.driver_connection.execute,
            "method": lambda: pooled.execute,
        }[way]()
        execute("SET SESSION app.remains = 'by a'")
        pooled.commit()
    with as_tenant("b"), allow_raw("look"), engine.connect() as connection:
        assert connection.scalar(text("SELECT coalesce(current_setting('app.remains', true), '')")) == ""
    engine.dispose()


def test_raw_sql_that_begins_a_transaction_starts_in_a_clean_session_and_goes_on_with_statements(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with as_tenant("a"), engine.connect() as connection:
        Attack().leave(connection)
    with as_tenant("b"), engine.connect() as connection:
        with allow_raw("look"):
            cursor = connection.connection.cursor()
            cursor.execute(
                "SELECT coalesce(current_setting('app.remains', true), ''), set_config('app.own', 'b', true)"
            )
            assert cursor.fetchone()[0] == ""
        assert connection.execute(QUERY).scalars().all() == ["b doc"]
        with connection.begin_nested() as savepoint:
            savepoint.rollback()
        assert connection.execute(QUERY).scalars().all() == ["b doc"]
        with allow_raw("look"):
            assert connection.scalar(text("SELECT current_setting('app.own')")) == "b", "its own is left alone"
    engine.dispose()


def test_a_transaction_that_the_driver_began_in_a_session_of_anothers_is_reset_inside_and_again_after_it(
    new_lab: Lab,
) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with as_tenant("a"), allow_raw("attack"), engine.begin() as connection:
        connection.execute(text("SET SESSION app.remains = 'by a'"))
    look = text("SELECT coalesce(current_setting('app.remains', true), '')")
    with engine.connect() as connection:
        with as_tenant("a"), allow_raw("kept beyond its tenant"):
            driver: Any = connection.connection.driver_connection
        driver.execute("SET SESSION app.remains = 'by a'")
        driver.commit()
        driver.execute("SELECT 1")
        with as_tenant("b"), allow_raw("look"):
            for _ in range(2):
                assert connection.scalar(look) == ""
                assert connection.execute(QUERY).scalars().all() == ["b doc"]
                connection.rollback()  # which undoes a reset inside of the transaction
    engine.dispose()


def test_a_transaction_of_the_drivers_in_a_session_that_nothing_is_known_of_is_refused(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        driver_connection_of(connection.connection).execute("SELECT 1")  # as no app can
        with as_tenant("b"):
            with pytest.raises(StatementRefused, match="Raw SQL began this transaction"):
                connection.execute(QUERY)
            connection.rollback()
            assert connection.execute(QUERY).scalars().all() == ["b doc"]
    engine.dispose()


def test_a_savepoint_that_nobody_began_finds_a_clean_session(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with as_tenant("a"), engine.connect() as connection:
        Attack().leave(connection)
    with engine.begin() as connection, connection.begin_nested(), as_tenant("b"):
        assert connection.execute(QUERY).scalars().all() == ["b doc"]
        assert Attack().meet(connection) == {key: value for key, value in CLEAN.items() if key != "answer"}
    engine.dispose()


def test_system_code_in_autocommit_finds_a_clean_session(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with as_tenant("a"), engine.connect() as connection:
        Attack().leave(connection)
    with system("look"), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.scalar(text("SELECT coalesce(current_setting('app.remains', true), '')")) == ""
    engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_what_the_app_set_when_it_connected_stays_and_what_the_driver_prepared_too(
    new_lab: Lab, driver: str
) -> None:
    engine = new_lab.async_engine(driver, pool_size=1, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def settings(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute('SET SESSION search_path = public, "it\'s"')
        cursor.execute("SET SESSION statement_timeout = '7s'")
        cursor.execute(f"SET ROLE {new_lab.role}")
        connection.commit()

    shown = text("SELECT current_setting('search_path'), current_setting('statement_timeout'), current_user")
    names = set()
    for tenant in "abab" * 4:
        with as_tenant(tenant):
            async with engine.connect() as connection:
                await connection.execute(QUERY)
                with allow_raw("look"):
                    assert (await connection.execute(shown)).one() == ('public, "it\'s"', "7s", new_lab.role)
                    found = (await connection.execute(OWN)).all()
                    names.add(found[0][0] if found else None)
                await connection.commit()  # psycopg forgets what it prepared with a rollback
    assert len(names - {None}) == 1
    await engine.dispose()


def test_two_protected_engines_have_no_pool_in_common(new_lab: Lab) -> None:
    """The one would not see what the other's tenants left on a connection."""
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="belongs to another protected engine"):
            protect(create_engine(new_lab.engine_of("psycopg"), pool=engine.pool))
        engine.dispose()  # which makes another pool
    assert attack(engine.execution_options(isolation_level="SERIALIZABLE")) == CLEAN
    engine.dispose()


@pytest.mark.anyio
async def test_no_statement_that_a_driver_prepared_hands_a_seal_to_another_tenant(new_lab: Lab) -> None:
    """asyncpg prepares the setting itself: replaced, it would put the next tenant's seal where this one reads it."""
    engine = new_lab.async_engine("asyncpg", pool_size=1, max_overflow=0)
    steal = "WITH stolen AS (INSERT INTO countries (code) SELECT left($1::text, 100)) SELECT $1::text WHERE {}"
    for tenant in "ab":
        with as_tenant(tenant):
            async with engine.connect() as connection:
                await connection.execute(QUERY)
                await connection.commit()
    replaced = 0
    with as_tenant("b"), allow_raw("attack"):
        async with engine.connect() as connection:
            for name, types, number in (await connection.execute(ALL)).all():
                given = " AND ".join(f"${index + 1} IS NOT NULL" for index in range(number))
                await connection.exec_driver_sql(f'DEALLOCATE "{name}"')
                await connection.exec_driver_sql(f'PREPARE "{name}" ({types}) AS {steal.format(given)}')
                replaced += 1
            await connection.commit()
    assert replaced >= 2, "the query, and the setting"
    with as_tenant("a"):
        async with engine.connect() as connection:
            assert list(await connection.scalars(select(Document.title).where(Document.id == 1))) == ["a doc"]
            await connection.commit()
    with as_tenant("b"):
        async with engine.connect() as connection:
            assert list(await connection.scalars(select(Country.code))) == ["NZ"]
    await engine.dispose()


def test_only_the_change_of_tenant_resets(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    kept = text("SELECT set_config('app.kept', 'yes', false)")
    look = text("SELECT coalesce(current_setting('app.kept', true), '')")
    seen = []
    for tenant in ("a", "a", "b", "a"):
        with as_tenant(tenant), allow_raw("look"), engine.begin() as connection:
            seen.append(connection.scalar(look))
            connection.execute(kept)
    engine.dispose()
    assert seen == ["", "yes", "", ""]


def test_the_first_look_at_a_session_asks_for_what_only_it_can_tell(new_lab: Lab) -> None:
    with new_lab.app(None) as app:
        app.execute("SET SESSION statement_timeout = 5000")
        found = dict(app.execute(_FIRST).fetchall())
        assert found.pop("") == str(app.info.backend_pid)
        assert found == {"statement_timeout": "5000", "role": "none"}


def test_who_resets_is_one_of_three_and_possible(new_lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="none of 'engine', 'pooler', 'off'"):
        new_lab.engine("psycopg", session_reset="never")
    engine = new_lab.engine("psycopg")
    engine.dialect.tenantguard_setting = None
    engine.dialect.driver = "pg8000"  # in place of a driver that this project does not install
    with pytest.raises(ConfigurationError, match="How sessions of pg8000 are reset"):
        guard_transactions(engine, seal=None)


def test_a_lost_connection_is_told_as_such_and_replaced(new_lab: Lab) -> None:
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    with as_tenant("a"), engine.connect() as connection:
        Attack().leave(connection)
    with new_lab.admin() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [new_lab.login]
        )
    with as_tenant("b"), engine.connect() as connection, pytest.raises(DBAPIError) as lost:
        connection.execute(QUERY)
    assert lost.value.connection_invalidated
    with as_tenant("b"), engine.connect() as connection:
        assert Attack().answer(connection) == ["b doc"]
    engine.dispose()
