"""Work in many places at once: one that fails stops no other, and what was stopped is gone on with."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from tenantguard import TenantStatus
from tenantguard.errors import ConfigurationError, PlacementError
from tenantguard.orm.placement import (
    SHARED,
    Placement,
    PlaceResult,
    alembic_stamp,
    create_tenant,
    migrate_places,
    own_database,
    own_schema,
    run_over_places,
)
from tests.orm.placement.conftest import Lab
from tests.orm.placement.models import Customer


def columns(lab: Lab, placement: Placement, table: str = "customers") -> list[str]:
    engine = create_engine(lab.databases.url(placement.database))
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = :s AND table_name = :t "
                "ORDER BY ordinal_position"
            ),
            {"s": placement.schema or "public", "t": table},
        ).scalars()
        names = list(found)
    engine.dispose()
    return names


def add_column(connection: Connection, placement: Placement) -> None:
    connection.exec_driver_sql("ALTER TABLE customers ADD COLUMN phone text")


@pytest.fixture
def thirty(postgres_lab: Lab) -> Lab:
    """Thirty schemas, of which the seventeenth has the new column already."""
    for number in range(30):
        placement = Placement(schema=f"t_{number:02d}")
        with postgres_lab.databases.bare_connection(SHARED) as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {placement.schema}")
            extra = ", phone text" if number == 17 else ""
            connection.exec_driver_sql(
                f"CREATE TABLE {placement.schema}.customers (id int, tenant_id text, name text{extra})"
            )
            connection.commit()
        postgres_lab.directory.add(f"tenant-{number:02d}", placement=placement)
    return postgres_lab


def test_one_of_thirty_schemas_fails_and_the_others_are_done(thirty: Lab) -> None:
    told: list[tuple[str, int, int]] = []
    report = run_over_places(
        thirty.directory,
        thirty.databases,
        "add phone",
        add_column,
        shared=False,
        tell=lambda result, done, total: told.append((result.state, done, total)),
    )
    assert [one.tenant for one in report.failed] == ["tenant-17"]
    assert report.failed[0].error == (
        'DuplicateColumn, SQLSTATE 42701: column "phone" of relation "customers" already exists'
    )
    assert not report.is_complete
    assert not report.stopped
    assert sorted(done for _, done, _ in told) == list(range(1, 31))
    for number in range(30):
        assert columns(thirty, Placement(schema=f"t_{number:02d}"))[-1] == "phone"


def test_going_on_visits_only_what_is_not_done(thirty: Lab) -> None:
    run_over_places(thirty.directory, thirty.databases, "add phone", add_column, shared=False)
    with thirty.databases.bare_connection(SHARED) as connection:
        connection.exec_driver_sql("ALTER TABLE t_17.customers DROP COLUMN phone")
        connection.commit()
    visited: list[Placement] = []

    def work(connection: Connection, placement: Placement) -> None:
        visited.append(placement)
        add_column(connection, placement)

    report = run_over_places(thirty.directory, thirty.databases, "add phone", work, shared=False, resume=True)
    assert [place.schema for place in visited] == ["t_17"]
    assert report.is_complete
    assert [one.state for one in report.results].count("earlier") == 29
    with pytest.raises(PlacementError, match="no run of that name"):
        run_over_places(thirty.directory, thirty.databases, "other", work, shared=False, resume=True)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_run_that_is_stopped_finishes_what_it_began_and_goes_on_later(thirty: Lab, jobs: int) -> None:
    stop = threading.Event()
    worked: list[str | None] = []

    def work(connection: Connection, placement: Placement) -> None:
        if placement.schema != "t_17":
            add_column(connection, placement)
        worked.append(placement.schema)
        if len(worked) == 6:
            stop.set()

    report = run_over_places(thirty.directory, thirty.databases, "add phone", work, shared=False, stop=stop, jobs=jobs)
    done = [one for one in report.results if one.state == "done"]
    assert report.stopped
    assert 6 <= len(done) <= 6 + jobs
    assert {one.place.schema for one in done} == set(worked)
    stop.clear()
    report = run_over_places(
        thirty.directory, thirty.databases, "add phone", work, shared=False, resume=True, jobs=jobs
    )
    assert report.is_complete
    assert len(worked) == len(set(worked)) == 30


def test_no_more_places_are_worked_on_at_a_time_than_asked(thirty: Lab) -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def work(connection: Connection, placement: Placement) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.01)
        with lock:
            at_work -= 1

    assert run_over_places(thirty.directory, thirty.databases, "look", work, jobs=3).is_complete
    assert most == 3


def test_text_and_constructs_both_run_in_the_place(thirty: Lab) -> None:
    found: dict[str | None, tuple[Any, Any]] = {}

    def work(connection: Connection, placement: Placement) -> None:
        by_text = connection.exec_driver_sql("SELECT 'customers'::regclass::oid::regclass::text").scalar()
        connection.exec_driver_sql("INSERT INTO customers VALUES (1, 'x', 'y')")
        by_construct = connection.scalars(Customer.__table__.select().with_only_columns(Customer.__table__.c.id)).all()
        found[placement.schema] = (by_text, by_construct)

    report = run_over_places(thirty.directory, thirty.databases, "look", work, shared=False)
    assert report.is_complete, report.failed
    assert all(one == ("customers", [1]) for one in found.values())
    with thirty.databases.bare_connection(SHARED) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM public.customers").scalar() == 0


def test_errors_of_values_tell_names_and_no_values(thirty: Lab) -> None:
    def work(connection: Connection, placement: Placement) -> None:
        if placement.schema == "t_03":
            connection.exec_driver_sql("SELECT 'secret value'::int")
        if placement.schema == "t_04":
            raise ValueError("secret value")
        if placement.schema == "t_05":
            connection.exec_driver_sql("CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (4711), (4711)")

    report = run_over_places(thirty.directory, thirty.databases, "look", work, shared=False)
    errors = {one.place.schema: one.error or "" for one in report.failed}
    assert errors["t_03"] == "InvalidTextRepresentation, SQLSTATE 22P02"
    assert errors["t_04"].startswith("ValueError (test_fan_out.py, line ")
    assert errors["t_05"] == "UniqueViolation, SQLSTATE 23505: one_pkey one"


def test_places_of_every_kind_are_visited_once(postgres_lab: Lab) -> None:
    for tenant, placement in (("a", SHARED), ("b", SHARED), ("c", own_schema("c")), ("d", own_database("d"))):
        create_tenant(postgres_lab.directory, postgres_lab.databases, tenant, placement=placement)
    postgres_lab.directory.add("e", placement=own_schema("e"), status=TenantStatus.PROVISIONING)
    visited: list[Placement] = []
    lock = threading.Lock()

    def work(connection: Connection, placement: Placement) -> None:
        with lock:
            visited.append(placement)

    report = run_over_places(postgres_lab.directory, postgres_lab.databases, "look", work)
    assert [one.place for one in report.results] == [SHARED, own_schema("c"), own_database("d")]
    assert sorted(place.label for place in visited) == sorted(one.place.label for one in report.results)


@pytest.mark.parametrize("jobs", [0, 65, True])
def test_a_number_of_jobs_that_makes_no_sense_is_said(sqlite_lab: Lab, jobs: int) -> None:
    with pytest.raises(ConfigurationError):
        run_over_places(sqlite_lab.directory, sqlite_lab.databases, "x", add_column, jobs=jobs)


# --- Alembic ---------------------------------------------------------------------------------------------------

ENV = """
    from alembic import context
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
"""
FIRST = """
    import sqlalchemy as sa
    from alembic import op
    revision, down_revision = "001", None
    def upgrade():
        op.create_table("customers", sa.Column("id", sa.Integer, primary_key=True),
                        sa.Column("tenant_id", sa.String(128), nullable=False))
"""
SECOND = """
    import sqlalchemy as sa
    from alembic import op
    revision, down_revision = "002", "001"
    def upgrade():
        op.add_column("customers", sa.Column("phone", sa.Text))
        op.create_index("ix_phone", "customers", ["phone"])
"""
SLOW = """
    import time
    from alembic import op
    revision, down_revision = "003", "002"
    def upgrade():
        op.execute("SELECT 1")
        time.sleep(0.3)
"""


@pytest.fixture
def alembic_ini(tmp_path: Path) -> Path:
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(textwrap.dedent(ENV))
    (scripts / "versions" / "001.py").write_text(textwrap.dedent(FIRST))
    (scripts / "versions" / "002.py").write_text(textwrap.dedent(SECOND))
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\nscript_location = {scripts}\npath_separator = os\n")
    return ini


@pytest.fixture
def empty_places(postgres_lab: Lab) -> Lab:
    places = [Placement(schema=f"t_{number}") for number in range(6)] + [Placement(database="own")]
    with postgres_lab.databases.bare_connection(SHARED) as connection:
        connection.exec_driver_sql("DROP TABLE orders, customers")
        connection.commit()
    from tenantguard.orm.placement import ddl

    for number, placement in enumerate(places):
        ddl.create_database(postgres_lab.databases, placement)
        ddl.create_schema(postgres_lab.databases, placement)
        postgres_lab.directory.add(f"tenant-{number}", placement=placement)
    return postgres_lab


def test_alembic_brings_every_place_to_the_head_in_parallel(empty_places: Lab, alembic_ini: Path) -> None:
    told: list[PlaceResult] = []
    report = migrate_places(
        empty_places.directory,
        empty_places.databases,
        alembic_ini,
        jobs=2,
        tell=lambda result, done, total: told.append(result),
    )
    assert report.is_complete, report.failed
    assert len(told) == 8
    for one in report.results:
        assert columns(empty_places, one.place) == ["id", "tenant_id", "phone"]
        assert columns(empty_places, one.place, "alembic_version") == ["version_num"]
    with empty_places.databases.bare_connection(SHARED) as connection:
        paths = connection.exec_driver_sql("SELECT DISTINCT setconfig FROM pg_db_role_setting").all()
        assert paths == []
        assert connection.exec_driver_sql("SHOW search_path").scalar() == '"$user", public'


def test_a_place_where_alembic_fails_is_left_as_it_was(empty_places: Lab, alembic_ini: Path) -> None:
    with empty_places.databases.bare_connection(SHARED) as connection:
        connection.exec_driver_sql("CREATE TABLE t_3.customers (id int)")
        connection.commit()
    report = migrate_places(empty_places.directory, empty_places.databases, alembic_ini, jobs=2)
    assert [one.place.schema for one in report.failed] == ["t_3"]
    assert 'relation "customers" already exists' in (report.failed[0].error or "")
    assert columns(empty_places, Placement(schema="t_3"), "alembic_version") == []
    with empty_places.databases.bare_connection(SHARED) as connection:
        connection.exec_driver_sql("DROP TABLE t_3.customers")
        connection.commit()
    again = migrate_places(empty_places.directory, empty_places.databases, alembic_ini, resume=True)
    assert again.is_complete
    assert [one.state for one in again.results].count("earlier") == 7


def test_a_new_place_is_written_down_at_the_head(postgres_lab: Lab, alembic_ini: Path) -> None:
    create_tenant(
        postgres_lab.directory,
        postgres_lab.databases,
        "a",
        placement=own_schema("a"),
        steps={"alembic": lambda connection, place: alembic_stamp(connection, place, alembic_ini)},
    )
    with postgres_lab.databases.bare_connection(SHARED) as connection:
        schema = own_schema("a").schema
        assert connection.exec_driver_sql(f"SELECT version_num FROM {schema}.alembic_version").scalar() == "002"
    report = migrate_places(postgres_lab.directory, postgres_lab.databases, alembic_ini, shared=False)
    assert report.is_complete, report.failed


def test_ctrl_c_lets_what_is_begun_finish_and_the_rest_for_later(
    empty_places: Lab, alembic_ini: Path, tmp_path: Path
) -> None:
    (tmp_path / "migrations" / "versions" / "003.py").write_text(textwrap.dedent(SLOW))
    url = empty_places.databases.shared_url
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parents[3])!r})
            from sqlalchemy import make_url
            from tenantguard.orm.placement import *
            from tests.orm.placement.models import PlacedBase

            def main():
                url = make_url(sys.stdin.readline().strip())
                databases = Databases(PlacedBase.metadata, shared=url, tenants=lambda n: url.set(database=f"{{url.database}}_{{n}}"))
                def tell(result, done, total):
                    print(result.state, flush=True)
                report = migrate_places(SqlTenants(url), databases, {str(alembic_ini)!r}, jobs=1, tell=tell)
                print("stopped" if report.stopped else "over", len(report.failed))

            if __name__ == "__main__":
                main()
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(url.render_as_string(hide_password=False) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process of the group
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "stopped 0", err
    finished = [
        place
        for place, _ in [(record.placement, record.id) for record in empty_places.directory.list()]
        if columns(empty_places, place)
    ]
    assert len(finished) < 7
    report = migrate_places(empty_places.directory, empty_places.databases, alembic_ini, jobs=2, resume=True)
    assert report.is_complete
    assert 1 <= [one.state for one in report.results].count("earlier") <= 7


def test_a_configuration_that_is_not_there_is_said(sqlite_lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no file"):
        migrate_places(sqlite_lab.directory, sqlite_lab.databases, tmp_path / "none.ini")


def test_alembic_on_databases_of_sqlite(sqlite_lab: Lab, alembic_ini: Path) -> None:
    sqlite_lab.directory.add("a", placement=Placement(database="a"))
    sqlite_lab.directory.add("b", placement=Placement(database="b"))
    report = migrate_places(sqlite_lab.directory, sqlite_lab.databases, alembic_ini, shared=False, jobs=2)
    assert report.is_complete, report.failed
    for name in "ab":
        engine = create_engine(sqlite_lab.databases.url(name))
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "002"
        engine.dispose()
