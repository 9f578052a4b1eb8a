"""Alembic in every place: ``upgrade`` against the shared tables, each schema and each database, several at a time.

Alembic keeps what it works on in global variables, so each job is a process of its own. The migration of a place runs
in one transaction. In a schema, PostgreSQL's ``search_path`` is set for that transaction alone (``SET LOCAL``), so that
migrations need not know where they run and nothing stays on a connection, behind a pooler either.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection

from tenantguard.errors import ConfigurationError
from tenantguard.orm.placement.databases import Databases, owner_engine
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.fan_out import PlaceResult, RunReport, run_over_places
from tenantguard.orm.placement.operations import explained
from tenantguard.orm.placement.records import Placement
from tenantguard.permits import system

__all__ = ["alembic_stamp", "alembic_upgrade", "migrate_places"]

SCHEMA: Final = "tenantguard_schema"
"""The attribute of Alembic's configuration with the schema's name, for an ``env.py`` that asks."""


def alembic_upgrade(connection: Connection, placement: Placement, config: str | Path, revision: str = "head") -> None:
    """Bring one place to a revision, in the transaction of a connection.

    The app's ``env.py`` takes its connection from ``config.attributes["connection"]``, as Alembic's documentation shows
    for sharing a connection, and commits nothing itself. One process does this for one place at a time.

    Args:
        connection: the owner's, without the barrier, in a transaction that the caller commits.
        placement: the place.
        config: Alembic's ``alembic.ini``.
        revision: to which one.

    Raises:
        ConfigurationError: Alembic is not installed, or there is no such file.
    """
    command, settings = _alembic(connection, placement, config)
    command.upgrade(settings, revision)


def alembic_stamp(connection: Connection, placement: Placement, config: str | Path, revision: str = "head") -> None:
    """Write down that a new place is at a revision: its tables were made from the models.

    As a step of `create_tenant` and `move_tenant`: ``{"alembic": lambda c, p: alembic_stamp(c, p, "alembic.ini")}``.

    Args:
        connection: see `alembic_upgrade`.
        placement: the place.
        config: see `alembic_upgrade`.
        revision: which one.

    Raises:
        ConfigurationError: Alembic is not installed, or there is no such file.
    """
    command, settings = _alembic(connection, placement, config)
    command.stamp(settings, revision)


def _alembic(connection: Connection, placement: Placement, config: str | Path) -> tuple[Any, Any]:
    try:
        from alembic import command
        from alembic.config import Config
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Migrations need Alembic.", mend="Install it with: pip install 'tenantguard[alembic]'"
        ) from None
    if not Path(config).is_file():
        raise ConfigurationError("There is no file of Alembic's configuration of that name.", mend="Name alembic.ini.")
    if placement.schema is not None:
        name = connection.dialect.identifier_preparer.quote_identifier(placement.schema)
        connection.exec_driver_sql(f"SET LOCAL search_path TO {name}")
        connection.dialect.default_schema_name = placement.schema
    settings = Config(str(config), stdout=sys.stderr)
    settings.attributes["connection"] = connection
    settings.attributes[SCHEMA] = placement.schema
    return command, settings


def migrate_places(
    directory: SqlTenants,
    databases: Databases,
    config: str | Path,
    revision: str = "head",
    *,
    jobs: int = 4,
    resume: bool = False,
    shared: bool = True,
    stop: threading.Event | None = None,
    tell: Callable[[PlaceResult, int, int], None] | None = None,
) -> RunReport:
    """Run Alembic's ``upgrade`` in every place, in processes.

    Args:
        directory: the control plane.
        databases: where the databases are, as the owner of the tables.
        config: Alembic's ``alembic.ini``; see `alembic_upgrade`.
        revision: to which one.
        jobs: most places at a time.
        resume: see `run_over_places`.
        shared: whether the shared place is visited too.
        stop: see `run_over_places`.
        tell: see `run_over_places`.

    Raises:
        ConfigurationError: there is no such file, or Alembic is not installed.
    """
    path = Path(config).resolve()
    if not path.is_file():
        raise ConfigurationError("There is no file of Alembic's configuration of that name.", mend="Name alembic.ini.")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_process, initargs=(list(sys.path),)) as pool:
        return run_over_places(
            directory,
            databases,
            f"alembic upgrade {revision}"[:128],
            jobs=jobs,
            resume=resume,
            shared=shared,
            stop=stop,
            tell=tell,
            submit=lambda place: pool.submit(_upgrade, databases.url(place.database), place, str(path), revision),
        )


def _begin_process(path: list[str]) -> None:
    """Leave Ctrl-C to the process that started this one: what is begun is finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = path
    logging.getLogger("alembic").setLevel(os.environ.get("TENANTGUARD_ALEMBIC_LOG", "WARNING"))


def _upgrade(url: URL, placement: Placement, config: str, revision: str) -> str | None:
    engine = owner_engine(url)
    try:
        with system(f"migration of {placement.label}"), engine.begin() as connection:
            alembic_upgrade(connection, placement, config, revision)
    except Exception as error:  # noqa: BLE001 - becomes part of the report
        return _explained(error)
    except SystemExit:  # Alembic's way to end a command
        return "Alembic refused it."
    finally:
        engine.dispose()
    return None


def _explained(error: Any) -> str:
    module = type(error).__module__
    return f"{type(error).__name__}: {error}" if module.startswith("alembic.") else explained(error)
