"""Work in every place at once, such as a migration: with a bound on how many at a time, stopped and gone on with.

What became of each place is written into the control plane as it happens. A run that was stopped, or in which some
places failed, is gone on with: only the places that are not done are visited. One that fails does not stop the others.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeAlias, final

import msgspec
from sqlalchemy import Connection, insert, select, update

from tenantguard.errors import ConfigurationError, PlacementError
from tenantguard.identity import TenantStatus
from tenantguard.orm.placement.databases import Databases, in_place
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.operations import explained
from tenantguard.orm.placement.records import SHARED, Placement
from tenantguard.orm.placement.tables import RUN_PLACES, RUNS
from tenantguard.permits import system

__all__ = ["PlaceResult", "PlaceWork", "RunReport", "places_of", "run_over_places"]

PlaceWork: TypeAlias = Callable[[Connection, Placement], object]
"""Work in one place: gets the owner's connection without the barrier, in a transaction that is committed when it
returns; its ``schema_translate_map`` leads to the place. It must be able to run again."""

Submit: TypeAlias = Callable[[Placement], "Future[str | None]"]
"""Starts the work in a place, and returns what will give an error's text or ``None``."""

_SHARED_KEY: Final = "shared"
_TURN: Final = 0.2


class PlaceResult(msgspec.Struct, frozen=True):
    """What became of one place.

    Args:
        place: the placement.
        tenant: whose place it is; ``None`` for the shared one.
        state: ``"done"``, ``"failed"``, ``"earlier"`` (done before, by the run that was gone on with) or ``"open"``.
        error: why it failed, without values of rows.
        seconds: how long it took.
    """

    place: Placement
    tenant: str | None
    state: str
    error: str | None = None
    seconds: float = 0.0


class RunReport(msgspec.Struct, frozen=True):
    """What became of a run.

    Args:
        name: what was run.
        stopped: True if it was stopped before every place was visited.
        results: of each place, the shared one first.
    """

    name: str
    stopped: bool
    results: tuple[PlaceResult, ...]

    @property
    def failed(self) -> tuple[PlaceResult, ...]:
        """The places in which it failed."""
        return tuple(one for one in self.results if one.state == "failed")

    @property
    def is_complete(self) -> bool:
        """True if it was done in every place."""
        return all(one.state in ("done", "earlier") for one in self.results)


def places_of(directory: SqlTenants, *, shared: bool = True) -> tuple[tuple[Placement, str | None], ...]:
    """Return every place with the tenant whose own it is, the shared one first.

    Args:
        directory: the control plane.
        shared: whether the shared place is one of them.

    Places that are being made, moved or removed are among them, so that none misses a migration; those of a move that
    is open are its old place.
    """
    own = [
        (record.placement, record.id)
        for record in directory.list()
        if not record.placement.is_shared and record.status is not TenantStatus.PROVISIONING
    ]
    return (*([(SHARED, None)] if shared else []), *own)


def run_over_places(
    directory: SqlTenants,
    databases: Databases,
    name: str,
    work: PlaceWork | None = None,
    *,
    jobs: int = 4,
    resume: bool = False,
    shared: bool = True,
    stop: threading.Event | None = None,
    tell: Callable[[PlaceResult, int, int], None] | None = None,
    submit: Submit | None = None,
) -> RunReport:
    """Do work in every place, several at a time.

    Args:
        directory: the control plane, in which the run is written down.
        databases: where the databases are, as the owner of the tables.
        name: what it is, to go on with: ``"0042 add invoices"``.
        work: see `PlaceWork`.
        jobs: most places at a time, 1 to 64. Each needs a connection.
        resume: go on with the latest run of this name, if it is not complete: places that are done are left out.
        shared: whether the shared place is visited too.
        stop: when it is set, no further place is begun; those that are worked on are finished. ``KeyboardInterrupt``
            does the same.
        tell: told about each place that is finished, how many are, and of how many; from the calling thread.
        submit: starts the work in a place elsewhere, instead of ``work``.

    Raises:
        ConfigurationError: the arguments do not fit each other.
        PlacementError: there is no run of that name to go on with.
        StoreUnavailable: the control plane does not answer.
    """
    if (work is None) == (submit is None):
        raise ConfigurationError("Give run_over_places() one of work and submit.")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= 64:
        raise ConfigurationError("jobs is no number from 1 to 64.", mend="Leave jobs out.")
    run = _Run(directory, name, places_of(directory, shared=shared), resume=resume, tell=tell)
    with ThreadPoolExecutor(jobs, thread_name_prefix="tenantguard-place") as threads:
        if submit is None:
            assert work is not None
            submit = _in_threads(threads, databases, work)
        return run.through(submit, jobs, stop or threading.Event())


def _in_threads(threads: Executor, databases: Databases, work: PlaceWork) -> Submit:
    def visit(place: Placement) -> str | None:
        try:
            with system(f"work in {place.label}"), databases.bare_connection(place) as bare:
                work(in_place(bare, place), place)
                bare.commit()
        except Exception as error:  # noqa: BLE001 - becomes part of the report
            return explained(error)
        return None

    return lambda place: threads.submit(visit, place)


@final
class _Run:
    """One run and what is written of it."""

    def __init__(
        self,
        directory: SqlTenants,
        name: str,
        places: Sequence[tuple[Placement, str | None]],
        *,
        resume: bool,
        tell: Callable[[PlaceResult, int, int], None] | None,
    ) -> None:
        self._directory = directory
        self._name = name
        self._places = places
        self._tell = tell
        begun = directory.run(lambda c: _begun(c, name, resume=resume))
        if begun is None:
            raise PlacementError("There is no run of that name to go on with.", mend="Start it without resume.")
        self.id, done = begun
        self._results = {
            place: PlaceResult(place, tenant, "earlier" if (place.key or _SHARED_KEY) in done else "open")
            for place, tenant in places
        }

    def through(self, submit: Submit, jobs: int, stop: threading.Event) -> RunReport:
        """Visit the places that are not done."""
        left = [place for place in self._results if self._results[place].state == "open"]
        left.reverse()
        working: dict[Future[str | None], tuple[Placement, float]] = {}
        while working or (left and not stop.is_set()):
            try:
                while left and len(working) < jobs and not stop.is_set():
                    place = left.pop()
                    working[_started(submit, place)] = (place, time.monotonic())
                finished, _ = wait(working, _TURN, FIRST_COMPLETED)
                for future in finished:
                    place, began = working.pop(future)
                    self._note(place, _outcome(future), time.monotonic() - began)
            except KeyboardInterrupt:
                stop.set()
        report = RunReport(self._name, bool(left), tuple(self._results.values()))
        state = "done" if report.is_complete else "stopped" if report.stopped else "failed"
        values = {"state": state, "finished_at": int(time.time())}
        self._directory.run(lambda c: c.execute(update(RUNS).where(RUNS.c.id == self.id).values(**values)))
        return report

    def _note(self, place: Placement, error: str | None, seconds: float) -> None:
        result = msgspec.structs.replace(
            self._results[place], state="failed" if error else "done", error=error, seconds=round(seconds, 3)
        )
        self._results[place] = result
        key = place.key or _SHARED_KEY
        values = {"tenant": result.tenant, "state": result.state, "error": error, "seconds": result.seconds}

        def note(connection: Connection) -> None:
            mine = (RUN_PLACES.c.run == self.id, RUN_PLACES.c.place == key)
            if connection.execute(update(RUN_PLACES).where(*mine).values(**values)).rowcount == 0:
                connection.execute(insert(RUN_PLACES), {"run": self.id, "place": key, **values})

        self._directory.run(note)
        if self._tell is not None:
            over = sum(one.state != "open" for one in self._results.values())
            self._tell(result, over, len(self._results))


def _started(submit: Submit, place: Placement) -> "Future[str | None]":
    try:
        return submit(place)
    except Exception as error:  # noqa: BLE001 - becomes part of the report: the processes are gone
        failed: Future[str | None] = Future()
        failed.set_exception(error)
        return failed


def _outcome(future: "Future[str | None]") -> str | None:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - becomes part of the report: the process that did it died
        return explained(error)


def _begun(connection: Connection, name: str, *, resume: bool) -> tuple[str, set[str]] | None:
    """Return a new run, or the one to go on with and the places that are done; ``None`` where there is none."""
    if resume:
        row: Any = connection.execute(
            select(RUNS.c.id, RUNS.c.state)
            .where(RUNS.c.name == name)
            .order_by(RUNS.c.started_at.desc(), RUNS.c.id.desc())
            .limit(1)
        ).one_or_none()
        if row is None:
            return None
        if row.state != "done":
            connection.execute(update(RUNS).where(RUNS.c.id == row.id).values(state="open", finished_at=None))
            done = select(RUN_PLACES.c.place).where(RUN_PLACES.c.run == row.id, RUN_PLACES.c.state == "done")
            return str(row.id), set(connection.scalars(done))
    new = uuid.uuid4().hex
    # Counted up, so that two runs of one second have an order.
    latest = connection.scalar(select(RUNS.c.started_at).order_by(RUNS.c.started_at.desc()).limit(1)) or 0
    started = max(int(time.time()), latest + 1)
    connection.execute(insert(RUNS), {"id": new, "name": name, "state": "open", "started_at": started})
    return new, set()
