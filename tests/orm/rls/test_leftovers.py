"""What SQL that runs as the app's role leaves on a pooled connection for the next tenant, and what takes it away.

The attack: in tenant A's transaction, a prepared statement of the driver's is replaced by another under its name. Tenant
B's next execution of the first one runs the second, in B's name, which puts news of B's rows where A reads them.
"""

from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, event, select, text

from tenantguard import allow_raw, bind, service_identity
from tests.orm.attacks.world import Document
from tests.orm.rls.lab import Lab

QUERY = select(Document.title).where(Document.id == 2)
STOLEN = (
    "WITH stolen AS (INSERT INTO countries (code) SELECT 'B' || count(*) FROM documents) "
    "SELECT current_setting('tenantguard.tenant')::varchar WHERE $1::varchar IS NOT NULL AND $2::smallint IS NOT NULL"
)


def as_tenant(tenant: str) -> Any:
    return bind(service_identity("test", tenant=tenant))


def discard(engine: Engine) -> None:
    """As docs/row-level-security.md has it."""

    @event.listens_for(engine, "reset")
    def discard_all(driver: Any, _record: Any, state: Any) -> None:
        if not state.terminate_only:
            driver.rollback()
            driver.autocommit = True
            driver.execute("DISCARD ALL")
            driver.autocommit = False


def attack(engine: Engine) -> dict[str, Any]:
    """Leave all that a session can keep, and return what of it the next tenant meets."""
    for _ in range(8):  # psycopg prepares what it was given five times
        with as_tenant("a"), engine.connect() as connection:
            connection.execute(QUERY).all()
            connection.commit()
    with as_tenant("a"), allow_raw("attack"), engine.connect() as connection:
        connection.execute(text("SET SESSION application_name = 'left by a'"))
        connection.execute(text("DECLARE kept CURSOR WITH HOLD FOR SELECT title FROM documents"))
        connection.execute(text("LISTEN gossip"))
        prepared = connection.execute(
            text("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%documents.id%'")
        )
        for name in prepared.scalars().all():
            connection.exec_driver_sql(f'DEALLOCATE "{name}"')
            connection.exec_driver_sql(f'PREPARE "{name}" (varchar, smallint) AS {STOLEN}')
        connection.commit()
    with as_tenant("b"), engine.connect() as connection:
        answer = connection.execute(QUERY).scalars().all()
        connection.commit()
    with as_tenant("b"), allow_raw("look"), engine.connect() as connection:
        return {
            "answer": answer,
            "news of b": connection.execute(text("SELECT code FROM countries WHERE code LIKE 'B%'")).scalars().all(),
            "settings": connection.execute(text("SHOW application_name")).scalars().all() == ["left by a"],
            "cursors": connection.execute(text("SELECT name FROM pg_cursors WHERE is_holdable")).scalars().all(),
            "channels": connection.execute(text("SELECT pg_listening_channels()")).scalars().all(),
        }


CLEAN = {"answer": ["b doc"], "news of b": [], "settings": False, "cursors": [], "channels": []}


@pytest.mark.parametrize("way", ["NullPool", "DISCARD ALL"])
def test_the_next_tenant_meets_nothing_that_was_left_on_a_connection(new_lab: Lab, way: str) -> None:
    if way == "NullPool":
        engine = new_lab.engine("psycopg", poolclass=NullPool)
    else:
        engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0, connect_args={"prepare_threshold": None})
        discard(engine)
    assert attack(engine) == CLEAN
    engine.dispose()


def test_a_pool_alone_carries_what_was_left_to_the_next_tenant(new_lab: Lab) -> None:
    """The limit that the documentation names. If this fails, the limit is gone: say so there."""
    engine = new_lab.engine("psycopg", pool_size=1, max_overflow=0)
    found = attack(engine)
    engine.dispose()
    assert found["answer"] != ["b doc"]
    assert found["news of b"] == ["B2"]
    assert (found["settings"], found["cursors"], found["channels"]) == (True, ["kept"], ["gossip"])
