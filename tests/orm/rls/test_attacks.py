"""With the barrier in Python switched off on purpose, PostgreSQL alone holds against the attacks on it.

The engine is SQLAlchemy's own: no scoped compiler, no look at the cursor, no check of strangers, constructs or objects.
An event sets the tenant when a transaction begins, as any other service would. What an attack may still do is read and
write as its tenant.
"""

import gc
import warnings
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

from tenantguard import current_identity
from tenantguard.context import current_system
from tenantguard.orm import attached, protect, strangers
from tenantguard.orm.rls.seal import plain_value
from tests.orm.attacks import connections, reads, writes
from tests.orm.attacks.harness import Attack, seed, verdict
from tests.orm.attacks.world import Base
from tests.orm.rls.lab import Lab, made_lab

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
NOT_IN_THE_DATABASE = {
    "insert a foreign key whose table is not known",  # nor is it one for PostgreSQL: a plain number
}
ATTACKS: dict[str, Attack] = {
    f"{module.__name__.rpartition('.')[2]}: {name}": attack
    for module in (reads, writes, connections)
    for name, attack in module.ATTACKS.items()
    if name.partition(": ")[2] not in NOT_IN_THE_DATABASE
}


@pytest.fixture(scope="module")
def empty_lab(postgres_module_url: str) -> Iterator[Lab]:
    with made_lab(postgres_module_url, Base.metadata) as made:
        yield made


@pytest.fixture(scope="module")
def keeper(empty_lab: Lab) -> Iterator[Engine]:
    """The owner's engine, which makes the rows, looks at them all and puts them back."""
    made = protect(create_engine(empty_lab.engine_of("psycopg", role="postgres")), metadata=Base.metadata)
    seed(made)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def attacked(empty_lab: Lab, keeper: Engine) -> Iterator[Engine]:
    made = create_engine(empty_lab.engine_of("psycopg"), hide_parameters=True)

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        if current_system() is None:
            driver = connection.connection
            bound_to = str(driver.driver_connection.info.backend_pid)
            value = empty_lab.seal.value(plain_value(current_identity()), bound_to)
            driver.cursor().execute(f"SET LOCAL tenantguard.tenant = '{value}'")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strangers, "_refuse_strangers", lambda *_: None)
        patch.setattr(attached, "_is_foreign", lambda _: False)
        yield made
    made.dispose()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # attacks that got a raw connection left it open


@pytest.mark.parametrize("name", ATTACKS)
def test_postgresql_alone_scopes_or_refuses(attacked: Engine, keeper: Engine, name: str) -> None:
    assert verdict(attacked, ATTACKS[name], keeper=keeper).startswith(("scoped", "refused"))


@pytest.mark.parametrize("name", reads.COUNTS)
def test_postgresql_alone_counts_own_rows(attacked: Engine, keeper: Engine, name: str) -> None:
    statement, own = reads.COUNTS[name]
    assert verdict(attacked, lambda db: int(db.scalar(statement)), own=own, keeper=keeper) == "scoped"
