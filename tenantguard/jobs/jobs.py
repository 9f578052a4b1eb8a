"""Background work that runs as whom it was put off for, if that is still allowed.

`Jobs.capsule` seals who is bound now, narrowed to what the task was declared with. `Jobs.open` looks at the capsule
when the job runs: is it genuine and of this very job, not used before, not expired; is nobody in it revoked meanwhile,
and may the tenant still be used. Only then is the identity bound, with those of its rights that the worker's own
declaration of the task allows as well. What is refused goes to the dead letters with a reason.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic, time
from typing import Final, NamedTuple, final

import anyio
import anyio.to_thread
import msgspec

from tenantguard.binding import Credential, current_binding
from tenantguard.context import bind
from tenantguard.errors import (
    ConfigurationError,
    InvalidToken,
    JobRefused,
    NotBound,
    RevokedToken,
    TenantGuardError,
    TenantRefused,
    Unavailable,
)
from tenantguard.identity import Actor, ActorType, Identity
from tenantguard.jobs.capsules import Capsule, open_capsule, seal_capsule, subject_assertion
from tenantguard.jobs.declarations import (
    MAX_AGE,
    UNDECLARED,
    JobDeclaration,
    as_declared,
    narrowed_to,
    same_service,
)
from tenantguard.jobs.keys import JobKeys
from tenantguard.jobs.portal import run_blocking
from tenantguard.tenancy import TenantDirectory, check_standing
from tenantguard.tokens.chains import ChainRules
from tenantguard.tokens.claim_values import MAX_ACTORS
from tenantguard.tokens.replays import InMemoryReplays, ReplayStore
from tenantguard.tokens.revocation import Revocations

__all__ = ["DeadLetter", "Jobs"]

logger = logging.getLogger("tenantguard.jobs")

PATIENCE: Final = 10.0
"""Seconds for which a store that does not answer is asked again before a job is given up."""
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"


class DeadLetter(NamedTuple):
    """A job that was not run.

    Args:
        task: the task's name.
        queue: the queue that it came from.
        task_id: the id of the message.
        reason: one word: ``forged``, ``missing``, ``audience``, ``arguments``, ``expired``, ``replayed``, ``revoked``,
            ``tenant``, ``chain``, ``declaration`` or ``unavailable``.
        message: a sentence for people; it holds no token and no argument.
    """

    task: str
    queue: str
    task_id: str
    reason: str
    message: str


@final
class Jobs:
    """Seals and opens the capsules of an app's background work. Thread-safe.

    Args:
        keys: sign and verify capsules.
        service: the name of the service whose workers run the jobs. It becomes the actor of each job.
        revocations: what was revoked; asked when a job runs.
        directory: the tenants that may be used; asked when a job runs.
        replays: remembers which capsules were used. Several worker processes share a store outside, for example
            ``tenantguard_redis.RedisReplays``.
        redeliveries: how often a broker may deliver the same message again after its first start, as brokers do when a
            worker dies. 0 runs each message at most once.
        assertion_audience: the token service that is asked for tokens of running jobs, by an assertion that the keys
            sign. Without, jobs make no calls in a caller's name.
        dead_letter: called with each job that was refused; by default it is written to the log.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = (
        "_assertion_audience",
        "_chains",
        "_declared",
        "_directory",
        "_keys",
        "_redeliveries",
        "_replays",
        "_revocations",
        "dead_letter",
        "service",
    )

    def __init__(
        self,
        keys: JobKeys,
        *,
        service: str,
        revocations: Revocations | None = None,
        directory: TenantDirectory | None = None,
        replays: ReplayStore | None = None,
        redeliveries: int = 0,
        assertion_audience: str | None = None,
        dead_letter: Callable[[DeadLetter], None] | None = None,
    ) -> None:
        if not isinstance(keys, JobKeys):
            raise ConfigurationError("Jobs needs JobKeys.", mend='For example JobKeys(os.environb[b"JOB_SECRET"]).')
        if not isinstance(service, str) or not service.strip():
            raise ConfigurationError("Jobs needs the service's name.", mend='For example service="documents".')
        if isinstance(redeliveries, bool) or not isinstance(redeliveries, int) or not 0 <= redeliveries <= 100:
            raise ConfigurationError("redeliveries is no whole number from 0 to 100.", mend="Leave it out for 0.")
        self.service = service
        self.dead_letter = dead_letter
        self._keys = keys
        self._revocations = revocations if revocations is not None else Revocations()
        self._directory = directory
        self._replays = replays if replays is not None else InMemoryReplays()
        self._redeliveries = redeliveries
        self._assertion_audience = assertion_audience
        self._chains = ChainRules(MAX_ACTORS)
        self._declared: dict[str, JobDeclaration] = {}

    # --- declaring -----------------------------------------------------------------------------------------

    def declare(
        self,
        task: str,
        *,
        scopes: str | Iterable[str] = (),
        max_age: float = MAX_AGE,
        runs_as: Identity | None = None,
    ) -> None:
        """Say what a task may do. A task that was not declared runs in the tenant of its caller, without any scope.

        Args:
            task: the task's name.
            scopes: the most that it may do; it gets those of them that its caller holds.
            max_age: seconds for which it may wait.
            runs_as: as whom it runs where nobody is bound when it is started: scheduled work. See `service_identity`.

        Raises:
            ConfigurationError: it is declared already, or a value is not usable.
        """
        wanted = frozenset(scopes.split() if isinstance(scopes, str) else scopes)
        if not 1 <= max_age <= self._revocations.keep_for:
            raise ConfigurationError(
                f"The max_age of the task {task} is longer than revocations are remembered, or no time at all.",
                mend="Lower it, or raise Revocations(keep_for=...).",
            )
        self._declare(task, JobDeclaration(wanted, max_age, runs_as))

    def leave_unguarded(self, task: str, why: str) -> None:
        """Let a task run with nobody bound, as the broker's own housekeeping. It reaches no row of a tenant.

        Args:
            task: the task's name.
            why: the reason, for whoever reads the code.
        """
        if not why.strip():
            raise ConfigurationError("leave_unguarded needs a reason.", mend='For example "housekeeping of Celery".')
        self._declare(task, JobDeclaration(unguarded=why))

    def _declare(self, task: str, declaration: JobDeclaration) -> None:
        if task in self._declared:
            raise ConfigurationError(f"The task {task} is declared twice.", mend="Declare it once.")
        self._declared[task] = declaration

    def declaration(self, task: str) -> JobDeclaration:
        """Return what a task was declared with."""
        return self._declared.get(task, UNDECLARED)

    # --- sealing -------------------------------------------------------------------------------------------

    def capsule(self, task: str, *, queue: str, arguments: str | None = None) -> str | None:
        """Return the capsule of a job that is started now, in the name of whoever is bound.

        Args:
            task: the task's name.
            queue: where it will wait.
            arguments: the digest of its arguments; see `tenantguard.jobs.arguments_hash`.

        Returns:
            ``None`` for a task that was left unguarded.

        Raises:
            NotBound: nobody is bound and the task has no ``runs_as``; or a system context is bound, whose right ends
                with its block.
        """
        declaration = self.declaration(task)
        if declaration.unguarded is not None:
            return None
        identity, scheduled = self._narrowed(task, declaration)
        return seal_capsule(
            self._keys,
            identity,
            service=self.service,
            audience=_audience(queue, task),
            # A task that was not declared has not been compared with it yet.
            max_age=min(declaration.max_age, self._revocations.keep_for),
            arguments=arguments,
            scheduled=scheduled,
        )

    def _narrowed(self, task: str, declaration: JobDeclaration) -> tuple[Identity, bool]:
        """Return as whom a job runs, and whether that is the service that the task was declared with."""
        binding = current_binding()
        bound = None if binding is None or binding.system is not None else binding.identity
        if bound is None:
            if declaration.runs_as is None:
                raise NotBound(
                    f"The task {task} was started with nobody bound.",
                    mend="Start it while an identity is bound, or declare it with runs_as=service_identity(...).",
                )
            return declaration.runs_as, True
        if declaration.runs_as is not None and same_service(bound, declaration.runs_as):
            # Scheduled work that is tried again, or starts itself again.
            return narrowed_to(bound, declaration.runs_as.scopes), True
        worker = Actor(self.service, ActorType.SERVICE)
        changes: dict[str, object] = {"scopes": bound.scopes & declaration.scopes, "confirmation": None}
        if task not in self._declared:
            changes["authorization_details"] = ()  # rights as well (RFC 9396)
        if bound.actor.id != self.service:  # a job that a job starts is of the same worker
            changes["actor"] = worker
            changes["prior_actors"] = (bound.actor, *bound.prior_actors) if bound.is_delegated else ()
        narrowed = msgspec.structs.replace(bound, **changes)
        try:
            self._chains.check(narrowed)
        except InvalidToken as refused:
            raise NotBound(f"The task {task} can't be started: {refused.message}") from None
        return narrowed, False

    # --- running -------------------------------------------------------------------------------------------

    async def open(self, text: str | None, *, task: str, queue: str, arguments: str | None = None) -> Capsule | None:
        """Return what the capsule of a job says that is about to run, if that may run now. It is used up by this.

        Args:
            text: the capsule; ``None`` for a message without.
            task: the task that is about to run.
            queue: where it waited.
            arguments: the digest of the arguments that it is about to run with.

        Returns:
            ``None`` for a task that was left unguarded.

        Raises:
            JobRefused: it may not run.
        """
        declaration = self.declaration(task)
        if declaration.unguarded is not None:
            return None
        if not text:
            raise JobRefused("The message has no capsule.", reason="missing")
        capsule = open_capsule(
            self._keys, text, service=self.service, audience=_audience(queue, task), arguments=arguments
        )
        capsule = as_declared(capsule, declaration)
        deadline = monotonic() + PATIENCE
        while True:
            try:
                return await self._recheck(capsule)
            except Unavailable as fault:
                if monotonic() > deadline:
                    raise JobRefused(
                        f"Whether the job may run can't be known now: {fault.message}", reason="unavailable"
                    ) from None
            await anyio.sleep(0.5)

    async def _recheck(self, capsule: Capsule) -> Capsule:
        """Look at everything that may have changed while the job waited, and use the capsule up."""
        identity = capsule.identity
        await self._revocations.ready()
        try:
            self._chains.check(identity)
            self._revocations.check(identity)
            identity = await check_standing(identity, self._directory)
        except RevokedToken:
            raise JobRefused(
                "Who asked for the job, or its tenant or grant, has been revoked.", reason="revoked"
            ) from None
        except TenantRefused as refused:
            raise JobRefused(refused.message, reason="tenant") from None
        except InvalidToken as refused:
            raise JobRefused(refused.message, reason="chain") from None
        await self._use_up(capsule)
        return msgspec.structs.replace(capsule, identity=identity)

    async def _use_up(self, capsule: Capsule) -> None:
        lasts = max(1.0, capsule.expires_at - time() + 60)
        for start in range(1 + self._redeliveries):
            if await self._replays.add(f"job:{capsule.id}:{start}", lasts):
                return
        raise JobRefused("The capsule was used before.", reason="replayed")

    def binding_of(self, capsule: Capsule | None) -> bind | None:
        """Return the block that binds whom a job runs as; ``None`` for a task that was left unguarded."""
        if capsule is None:
            return None
        credential = None
        if self._assertion_audience is not None:
            assertion = subject_assertion(
                self._keys,
                capsule.identity,
                service=self.service,
                audience=self._assertion_audience,
                expires_at=capsule.expires_at,
            )
            credential = Credential(assertion, JWT, scopes=capsule.identity.scopes)
        return bind(capsule.identity, credential)

    @asynccontextmanager
    async def running(
        self, text: str | None, *, task: str, queue: str, task_id: str = "", arguments: str | None = None
    ) -> AsyncIterator[None]:
        """Open a capsule and bind its identity for a block: the whole of what a worker does around a job.

        Raises:
            JobRefused: the job may not run. It has been put to the dead letters.
        """
        try:
            capsule = await self.open(text, task=task, queue=queue, arguments=arguments)
        except JobRefused as refused:
            await anyio.to_thread.run_sync(self.bury, refused, task, queue, task_id)
            raise
        block = self.binding_of(capsule)
        if block is None:
            yield
            return
        with block:
            yield

    @contextmanager
    def running_blocking(
        self, text: str | None, *, task: str, queue: str, task_id: str = "", arguments: str | None = None
    ) -> Iterator[None]:
        """Do as `running`, for workers without an event loop."""
        try:
            capsule = self.open_blocking(text, task=task, queue=queue, arguments=arguments)
        except JobRefused as refused:
            self.bury(refused, task, queue, task_id)
            raise
        block = self.binding_of(capsule)
        if block is None:
            yield
            return
        with block:
            yield

    def open_blocking(self, text: str | None, *, task: str, queue: str, arguments: str | None = None) -> Capsule | None:
        """Do as `open`, for workers without an event loop."""
        return run_blocking(lambda: self.open(text, task=task, queue=queue, arguments=arguments))

    def bury(self, refused: JobRefused, task: str, queue: str, task_id: str) -> None:
        """Put a job to the dead letters."""
        letter = DeadLetter(task, queue, task_id, refused.reason, refused.message)
        logger.error("job refused (%s): task %s of queue %s: %s", refused.reason, task, queue, refused.message)
        if self.dead_letter is not None:
            try:
                self.dead_letter(letter)
            except TenantGuardError:
                raise
            except Exception:
                logger.exception("The dead letter of the task %s could not be written.", task)

    def __repr__(self) -> str:
        return f"Jobs(service={self.service!r}, {len(self._declared)} declared)"


def _audience(queue: str, task: str) -> str:
    """Queue and task in one text that no other pair of names makes."""
    return f"{queue.replace('%', '%25').replace('/', '%2F')}/{task}"
