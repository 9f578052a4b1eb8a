"""Operations on a tenant that survive a crash: each step is written into the control plane when it is done.

Whoever starts the same operation again goes on behind the last step that is written there. A tenant has one open
operation at most, and one process works on it: it holds a claim that it renews while it lives. A step may be done and
not written down, if the process dies between the two, so every step can be done twice.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, final

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tenantguard.errors import PlacementError, TenantGuardError
from tenantguard.orm.placement.directory import SqlTenants
from tenantguard.orm.placement.records import SHARED, Placement
from tenantguard.orm.placement.tables import OPERATIONS, STEPS

__all__ = ["CLAIM_SECONDS", "Operation", "Tell", "explained", "open_operation", "pending_operation"]

T = TypeVar("T")
Tell: TypeAlias = Callable[[str, int, int], None]
"""Told how far an operation is: what it does, how many parts of that are done, of how many."""

CLAIM_SECONDS: Final = 30.0
_NAMES_ALONE: Final = ("08", "3D", "3F", "40", "42", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE whose messages name tables and columns, and hold no values of rows."""


def explained(error: BaseException) -> str:
    """Return what an error was, in words that hold no values of rows."""
    if isinstance(error, TenantGuardError):
        return str(error)
    original = getattr(error, "orig", None)
    if not isinstance(original, BaseException):
        return type(error).__name__ if isinstance(error, SQLAlchemyError | OSError) else _where(error)
    kind = type(original).__name__
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if isinstance(state, str):
        diagnosis = getattr(original, "diag", None)
        words = getattr(diagnosis, "message_primary", None) if state.startswith(_NAMES_ALONE) else None
        named = [getattr(diagnosis, f"{what}_name", None) for what in ("constraint", "table", "column")]
        words = words or " ".join(str(name) for name in named if name)
        return f"{kind}, SQLSTATE {state}" + (f": {words}" if words else "")
    return f"{kind}: {original}" if type(original).__module__ == "sqlite3" else kind


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
    return type(error).__name__ + place


@final
class Operation:
    """An operation that this process works on. `open_operation` makes it.

    Args:
        directory: the control plane.
        row: what is known of it.
        claim: the mark of this process.
        tell: told how far it is.
    """

    def __init__(self, directory: SqlTenants, row: Any, claim: str, tell: Tell | None) -> None:
        self._directory = directory
        self._claim = claim
        self._tell = tell
        self.id: str = row.id
        self.tenant: str = row.tenant
        self.detail: dict[str, Any] = json.loads(row.detail)
        self.done: dict[str, Any] = directory.run(
            lambda c: {one.step: json.loads(one.result) for one in c.execute(select(STEPS).where(_of(row.id)))}
        )
        self.steps = 0
        """How many steps it has in all, for those who are told."""

    def placement(self, name: str) -> Placement:
        """Return a placement of its detail."""
        return Placement(**self.detail[name])

    def step(self, name: str, work: Callable[[], T]) -> T:
        """Do a step and write it down with its result, or return the result of a step that is done.

        Raises:
            PlacementError: another process has taken the operation over.
        """
        if name in self.done:
            return self.done[name]
        self.tell(name)
        result = work()
        written = json.dumps(result)

        def note(connection: Connection) -> bool:
            if not _renew(connection, self.id, self._claim):
                return False
            connection.execute(
                insert(STEPS), {"operation": self.id, "step": name, "result": written, "done_at": int(time.time())}
            )
            return True

        if not self._directory.run(note):
            raise PlacementError(
                "Another process has taken the operation over.", mend="Leave it to that process, or try again later."
            )
        self.done[name] = json.loads(written)
        return result

    def tell(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Tell how far it is: by steps, or by parts of a step."""
        if self._tell is not None:
            self._tell(what, len(self.done) if done is None else done, self.steps if total is None else total)

    def finish(self, state: str = "done") -> None:
        """Close it."""
        values = {
            "state": state,
            "open_for": None,
            "open_place": None,
            "claim": None,
            "error": None,
            "finished_at": int(time.time()),
        }
        self._directory.run(lambda c: c.execute(update(OPERATIONS).where(OPERATIONS.c.id == self.id).values(**values)))


def _of(operation: str) -> Any:
    return STEPS.c.operation == operation


def _renew(connection: Connection, operation: str, claim: str) -> bool:
    renewed = connection.execute(
        update(OPERATIONS)
        .where(OPERATIONS.c.id == operation, OPERATIONS.c.claim == claim)
        .values(claimed_until=time.time() + CLAIM_SECONDS)
    )
    return renewed.rowcount == 1


def pending_operation(directory: SqlTenants, tenant_id: str) -> str | None:
    """Return the kind of the operation of a tenant that is not finished, ``None`` where there is none."""
    found: str | None = directory.run(
        lambda c: c.scalar(select(OPERATIONS.c.kind).where(OPERATIONS.c.open_for == tenant_id))
    )
    return found


@contextmanager
def open_operation(
    directory: SqlTenants,
    kind: str,
    tenant_id: str,
    detail: dict[str, Any] | None,
    *,
    makes: Placement = SHARED,
    tell: Tell | None = None,
    take_over: bool = False,
) -> Iterator[Operation]:
    """Begin an operation on a tenant, or go on with the one that is open, for a block.

    If the block fails, what is done stays written down, and the next one goes on behind it.

    Args:
        directory: the control plane.
        kind: ``"create"``, ``"move"``, ...; an open operation of another kind is in the way.
        tenant_id: the tenant.
        detail: what is asked for; ``None`` to go on with what is open. What is open must have been asked for the same.
        makes: the place that it makes, which no other operation may make meanwhile.
        tell: told how far it is.
        take_over: go on although another process holds the claim: after a crash, to not wait until it has run out.

    Raises:
        PlacementError: another operation is open, or another process works on it; there is none to go on with.
    """
    claim = uuid.uuid4().hex
    found = directory.run(lambda c: _claimed(c, kind, tenant_id, detail, claim, makes.key, take_over=take_over))
    if isinstance(found, PlacementError):
        raise found
    operation = Operation(directory, found, claim, tell)
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(CLAIM_SECONDS / 3):
            try:
                directory.run(lambda c: _renew(c, operation.id, claim))
            except TenantGuardError:
                continue  # the next step finds out

    threading.Thread(target=live, name="tenantguard-claim", daemon=True).start()
    fault: BaseException | None = None
    try:
        yield operation
    except BaseException as error:
        fault = error
        raise
    finally:
        ended.set()
        _give_up_claim(directory, operation.id, claim, None if fault is None else explained(fault))


def _give_up_claim(directory: SqlTenants, operation: str, claim: str, error: str | None) -> None:
    mine = update(OPERATIONS).where(OPERATIONS.c.id == operation, OPERATIONS.c.claim == claim)
    try:
        directory.run(lambda c: c.execute(mine.values(claim=None, claimed_until=None, error=error)))
    except TenantGuardError:
        if error is None:
            raise  # else the block's own error is the one to see; the claim runs out


def _claimed(
    connection: Connection,
    kind: str,
    tenant_id: str,
    detail: dict[str, Any] | None,
    claim: str,
    makes: str | None,
    *,
    take_over: bool,
) -> Any:
    """Return the operation's row, claimed; or the error that says why not."""
    statement = select(OPERATIONS).where(OPERATIONS.c.open_for == tenant_id)
    row = connection.execute(statement).one_or_none()
    now = time.time()
    if row is None:
        if detail is None:
            return PlacementError(f"There is no open {kind} of the tenant.", mend="Start it.")
        values = {
            "id": uuid.uuid4().hex,
            "tenant": tenant_id,
            "open_for": tenant_id,
            "open_place": makes,
            "kind": kind,
            "state": "open",
            "detail": json.dumps(detail),
            "claim": claim,
            "claimed_until": now + CLAIM_SECONDS,
            "created_at": int(now),
        }
        try:
            with connection.begin_nested():
                connection.execute(insert(OPERATIONS), values)
        except IntegrityError:
            return PlacementError(
                "Another process has just begun an operation on the tenant, or one that makes the same place.",
                mend="Try again later, or choose another place.",
            )
        return connection.execute(statement).one()
    if row.kind != kind:
        return PlacementError(
            f"An operation on the tenant is open: {row.kind}.", mend="Finish it first, by starting it again."
        )
    if detail is not None and json.loads(row.detail) != json.loads(json.dumps(detail)):
        return PlacementError(
            f"A {kind} of the tenant is open that was asked for with other arguments.",
            mend="Finish it first: start it again with the same arguments.",
        )
    free = True if take_over else or_(OPERATIONS.c.claim.is_(None), OPERATIONS.c.claimed_until < now)
    taken = connection.execute(
        update(OPERATIONS)
        .where(OPERATIONS.c.id == row.id, free)  # type: ignore[arg-type]
        .values(claim=claim, claimed_until=now + CLAIM_SECONDS, error=None)
    )
    if taken.rowcount != 1:
        return PlacementError(
            "Another process works on this operation, or has died less than half a minute ago.",
            mend="Wait for it, or take it over if you know that it is dead.",
        )
    return row
