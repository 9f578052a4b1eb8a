"""The seal: no value of the setting is taken that the holder of the key did not make for this backend and this time."""

import pickle
import time
from collections.abc import Iterator

import pytest
from psycopg import Connection
from psycopg.errors import InsufficientPrivilege

from tenantguard.errors import ConfigurationError
from tenantguard.orm.rls import Seal
from tenantguard.orm.rls import seal as seal_module
from tests.orm.attacks.world import Base
from tests.orm.rls.conftest import ROWS
from tests.orm.rls.lab import KEY, Lab, made_lab


def bound(connection: Connection) -> str:
    return str(connection.info.backend_pid)


def seen(connection: Connection, value: str) -> list[int]:
    connection.execute("SELECT set_config('tenantguard.tenant', %s, true)", [value])
    return [row[0] for row in connection.execute("SELECT id FROM folders ORDER BY id")]


@pytest.mark.parametrize(
    "forge",
    [
        lambda value: "b",
        lambda value: value.replace(" a", " b"),
        lambda value: value + "b",
        lambda value: value + " eyJ3b3Jrc3BhY2UiOiJ3MSJ9",
        lambda value: value.partition(" ")[2],
        lambda value: value.partition(" ")[0],
        lambda value: value.partition(" ")[0] + " ",
        lambda value: f" {value}",
        lambda value: f"{value[:-4]}{'0' if value[-4] != '0' else '1'}{value[-3:]}",
        lambda value: value[12:],
        lambda value: "..." + value,
        lambda value: " " * 70 + "b",
        lambda value: "x.0.0." + "0" * 64 + " b",
    ],
    ids=range(13),
)
def test_a_forged_value_is_refused(lab: Lab, forge: object) -> None:
    assert callable(forge)
    with lab.app(None) as app:
        good = lab.seal.value("a", bound(app))
        assert seen(app, good) == [1]
        with pytest.raises(InsufficientPrivilege, match="no valid seal"):
            seen(app, forge(good))


def test_a_seal_made_with_another_key_is_refused(lab: Lab) -> None:
    with lab.app(None) as app, pytest.raises(InsufficientPrivilege, match="no valid seal"):
        seen(app, Seal(bytes(32)).value("a", bound(app)))


def test_a_seal_is_refused_on_another_backend(lab: Lab) -> None:
    with lab.app("a") as app, lab.app(None) as other:
        (stolen,) = app.execute("SELECT current_setting('tenantguard.tenant')").fetchone()
        with pytest.raises(InsufficientPrivilege, match="of another transaction"):
            seen(other, stolen)


@pytest.mark.parametrize("seconds", [-310, 310])
def test_a_seal_of_another_time_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    now = time.time()
    monkeypatch.setattr(seal_module.time, "time", lambda: now + seconds)
    with lab.app(None) as app, pytest.raises(InsufficientPrivilege, match="or time"):
        seen(app, lab.seal.value("a", bound(app)))


def test_a_seal_for_every_backend_is_refused_where_it_must_be_for_one(lab: Lab) -> None:
    with lab.app(None) as app, pytest.raises(InsufficientPrivilege, match="of another transaction"):
        seen(app, Seal(KEY, bound_to="time").value("a", bound(app)))


@pytest.fixture(params=["time", "transaction"])
def pooled(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Lab]:
    with made_lab(postgres_url, Base.metadata, bound_to=request.param) as made:
        with made.admin() as admin:
            admin.execute(ROWS)
        yield made


@pytest.mark.parametrize("pooled", ["time"], indirect=True)
def test_a_seal_of_its_time_alone_is_good_for_every_backend_for_that_time(
    pooled: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pooled.app(None) as app, pooled.app(None) as other:
        value = pooled.seal.value("a", bound(app))
        assert seen(app, value) == seen(other, value) == [1]
        with pytest.raises(InsufficientPrivilege, match="no valid seal"):
            seen(app, value.replace(" a", " b"))
    now = time.time()
    monkeypatch.setattr(seal_module.time, "time", lambda: now - 310)
    with pooled.app(None) as app, pytest.raises(InsufficientPrivilege, match="or time"):
        seen(app, pooled.seal.value("a", "0"))


@pytest.mark.parametrize("pooled", ["transaction"], indirect=True)
def test_a_seal_of_a_transaction_is_good_for_that_transaction_alone(pooled: Lab) -> None:
    with pooled.app("a") as app, pooled.app(None) as other:
        (stolen,) = app.execute("SELECT current_setting('tenantguard.tenant')").fetchone()
        app.execute("SAVEPOINT one")
        assert seen(app, stolen) == [1]
        app.execute("ROLLBACK TO one")
        assert seen(app, stolen) == [1]
        with pytest.raises(InsufficientPrivilege, match="of another transaction"):
            seen(other, stolen)
        app.rollback()
        with pytest.raises(InsufficientPrivilege, match="of another transaction"):
            seen(app, stolen)


def test_what_a_seal_is_bound_to_is_the_databases_word_and_not_the_seals(pooled: Lab) -> None:
    other = {"time": "transaction", "transaction": "time"}[pooled.seal.bound_to]
    with pooled.app(None) as app, pytest.raises(InsufficientPrivilege, match="of another transaction"):
        seen(app, Seal(KEY, bound_to=other).value("a", "1-1"))


def test_a_key_that_is_taken_out_of_the_database_seals_no_more_and_two_may_be_there(new_lab: Lab) -> None:
    old, new = new_lab.seal, Seal(KEY[::-1])
    with new_lab.admin() as admin:
        admin.execute(new.key_statement())
        for one in (old, new):
            with new_lab.app(None) as app:
                assert seen(app, one.value("a", bound(app))) == [1]
        admin.execute("DELETE FROM tenantguard.seal_keys WHERE id = %s", [old.key_id])
    with new_lab.app(None) as app:
        assert seen(app, new.value("a", bound(app))) == [1]
        with pytest.raises(InsufficientPrivilege, match="no valid seal"):
            seen(app, old.value("a", bound(app)))


@pytest.mark.parametrize("length", [32, 64, 65, 200])
def test_keys_of_every_length_make_the_hmac_that_the_database_makes(new_lab: Lab, length: int) -> None:
    one = Seal(bytes(range(length)))
    with new_lab.admin() as admin:
        admin.execute(one.key_statement())
    with new_lab.app(None) as app:
        assert seen(app, one.value("a", bound(app))) == [1]


def test_a_seal_shows_its_key_to_nobody() -> None:
    one = Seal(KEY)
    assert repr(one) == "Seal(...)"
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(one)


@pytest.mark.parametrize(
    ("key", "options"),
    [(b"short", {}), ("x" * 32, {}), (KEY, {"max_age": 0}), (KEY, {"max_age": True}), (KEY, {"bound_to": "x"})],
    ids=["short", "text", "no time", "no number", "nothing"],
)
def test_a_seal_that_could_not_hold_is_refused(key: object, options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Seal(key, **options)  # type: ignore[arg-type]
