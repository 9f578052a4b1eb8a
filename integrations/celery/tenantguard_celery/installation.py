"""Where Celery is taken hold of: one function that sends every message, and two signals around every task.

Celery sends tasks, retries, chains, callbacks and scheduled entries by `app.amqp.send_task_message`: there the capsule
goes into the message's headers. In the worker the capsule is opened before the task and its identity stays bound until
callbacks and the rest of a chain have been sent. What Celery sends there with nobody bound is to follow a message that
was not looked at, and is dropped. Celery swallows errors of signals, so a task runs only if the signal left its verdict
on the request; without one it is refused.
"""

import logging
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, Final

from celery import Celery, Task, bootsteps, signals, states
from celery.concurrency import prefork, solo, thread
from celery.exceptions import Ignore
from kombu.entity import Queue
from kombu.utils import json as kombu_json

from tenantguard.binding import Binding, current_binding, enter_binding, leave_binding, raw_binding
from tenantguard.context import bind
from tenantguard.errors import ConfigurationError, JobRefused, NotBound
from tenantguard.jobs import DeadLetter, Jobs, arguments_hash
from tenantguard_celery.origins import Origin, origin_of_call

__all__ = ["install"]

logger = logging.getLogger("tenantguard.jobs")

HEADER: Final = "tenantguard_capsule"
_VERDICT: Final = "_tenantguard_verdict"
_MAY_RUN: Final = object()
"""The verdict for a task that runs with nobody bound, or as whoever is bound already. No header can be this object."""
_FOLLOWED: Final = "It was to follow a job that was not looked at, or that ended early."
_POOLS: Final = (prefork.TaskPool, solo.TaskPool, thread.TaskPool)
"""Greenlets are none: what looks at a capsule waits for an event loop in a thread, and they replace threads."""
_OWN: Final = "_tenantguard_jobs"
_AFTER: Final = ("callbacks", "errbacks", "chain", "chord")
_BOUND: Final = (
    "eta",
    "expires",
    "retries",
    "timelimit",
    "group",
    "group_index",
    "root_id",
    "parent_id",
    "ignore_result",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
    "reply_to",
    "correlation_id",
)
"""What of a message, beside its arguments, a capsule is bound to: when it runs, where its result goes, and the group
whose results it is counted with. Celery changes none of it between sender and worker; a retry is a new message. Left
out are what only people read (``shadow``, ``origin``, ``argsrepr``), what brokers set (``priority``, ``delivery_info``,
``x-death``), and headers of the app and of its tools, which may be added after the capsule.
"""


def install(app: Celery, jobs: Jobs, *, dead_letter_queue: str | None = "tenantguard.dead_letters") -> Celery:
    """Guard every task of a Celery app, and return the app. Call it in producers, workers and beat alike.

    A task that was enqueued while an identity was bound runs in its tenant, with the scopes that were declared by
    ``jobs.declare(task_name, scopes=...)``. A task that may not run is not run: its result is the `JobRefused`, and it
    is copied to the dead letters with the reason.

    Args:
        app: the app.
        jobs: seals and opens capsules.
        dead_letter_queue: the queue for jobs that were refused, with the reason among the headers; ``None`` for none.

    Raises:
        ConfigurationError: the app is guarded already, or the message protocol is 1, which has no headers. A worker
            raises it when it starts with another pool than prefork, solo or threads.
    """
    if getattr(app, _OWN, None) is not None:
        raise ConfigurationError("The Celery app is guarded already.", mend="Call install() once for each app.")
    if app.conf.task_protocol == 1:
        raise ConfigurationError("Celery's message protocol 1 has no headers.", mend="Use task_protocol=2.")
    setattr(app, _OWN, jobs)
    for housekeeping in ("celery.backend_cleanup",):
        jobs.leave_unguarded(housekeeping, "Celery's own housekeeping, which looks at no row of a tenant")
    app.amqp.send_task_message = _sealing(app, jobs, app.amqp.send_task_message)
    app.on_after_finalize.connect(_guard_tasks, weak=False)
    if app.finalized:
        _guard_tasks(app)
    app._tasks.__class__ = _guarding(type(app._tasks))  # noqa: SLF001 - the registry of this very app
    if jobs.dead_letter is None and dead_letter_queue is not None:
        jobs.dead_letter = _sender_of_dead_letters(app, dead_letter_queue)
    app.steps["worker"].add(_KnownPool)
    _connect_signals()
    return app


# --- sending ------------------------------------------------------------------------------------------------


def _sealing(app: Celery, jobs: Jobs, send: Callable[..., Any]) -> Callable[..., Any]:
    def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
        args, kwargs, embed = message.body
        # Celery itself puts these together after us, in this order.
        sent = {**message.properties, **options, **message.headers, **(options.get("headers") or {})}
        if _is_follow_up(jobs, name):
            refused = JobRefused(
                "It was to follow a job that was not looked at, or that ended early.", reason="missing"
            )
            jobs.bury(refused, name, _queue_of(app, options), sent["id"])
            return None
        digest = _digest(sent["id"], args, kwargs, embed or {}, sent)
        capsule = jobs.capsule(name, queue=_queue_of(app, options), arguments=digest)
        for headers in (message.headers, options.get("headers")):
            if headers is not None:  # a retry brings the headers of the message before
                headers.pop(HEADER, None)
        if capsule is not None:
            message.headers[HEADER] = capsule
        return send(producer, name, message, **options)

    return send_task_message


def _is_follow_up(jobs: Jobs, name: str) -> bool:
    """True for what a result backend sends after a failed message, with nobody bound.

    Raises:
        NotBound: another part of the worker sends it.
    """
    binding = current_binding()
    if binding is not None and binding.identity is not None:
        return False
    origin = origin_of_call(_run.__code__)
    if origin is Origin.APP or jobs.declaration(name).unguarded is not None:
        return False
    if origin is Origin.FOLLOW_UP:
        return True
    raise NotBound(
        f"The task {name} was started by a worker with nobody bound, at the edge of another task.",
        mend="Start it in the function of a task.",
    )


def _queue_of(app: Celery, options: dict[str, Any]) -> str:
    """Return the routing key that the worker will see, as Celery itself finds it."""
    queue, exchange, key = options.get("queue"), options.get("exchange"), options.get("routing_key")
    if queue is None and exchange is None:
        queue = app.amqp.default_queue
    name = queue if isinstance(queue, str) else getattr(queue, "name", None)
    declared = app.amqp.queues[queue] if isinstance(queue, str) else queue
    kind = options.get("exchange_type") or getattr(getattr(declared, "exchange", None), "type", "direct")
    if (not exchange or not key) and kind == "direct":
        return str(name)
    return str(key or getattr(declared, "routing_key", None) or app.conf.task_default_routing_key)


def _digest(task_id: str, args: Any, kwargs: Any, after: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Bind a capsule to its message: its id, its arguments, what is to be sent after it, and `_BOUND`."""
    following = [after.get(name) or None for name in _AFTER]
    bound = [message.get(name) or None for name in _BOUND]
    encoded: Any = kombu_json.dumps([task_id, args, kwargs, following, bound])  # type: ignore[no-untyped-call]
    return arguments_hash(str(encoded).encode())


# --- running ------------------------------------------------------------------------------------------------


class _KnownPool(bootsteps.Step):  # type: ignore[misc]
    """Part of a worker's start that ends it where tasks would not run each in a thread of its own."""

    name = "tenantguard.pool"

    def __init__(self, parent: Any, **options: Any) -> None:
        if not issubclass(parent.pool_cls, _POOLS):
            raise ConfigurationError(
                f"A guarded Celery worker can't run in the pool {parent.pool_cls.__module__}.",
                mend="Start it with --pool=prefork, --pool=threads or --pool=solo.",
            )
        super().__init__(parent, **options)


def _connect_signals() -> None:
    signals.task_prerun.connect(_before, weak=False, dispatch_uid="tenantguard")
    signals.task_postrun.connect(_after, weak=False, dispatch_uid="tenantguard")


def _before(task: Task, task_id: str, args: Any, kwargs: Any, **_: Any) -> None:
    jobs: Jobs | None = getattr(task.app, _OWN, None)
    if jobs is None:
        return
    request = task.request
    # Headers are attributes of the request and may hide its methods, so that none is called here.
    text = getattr(request, HEADER, None)
    delivery = request.delivery_info or {}  # the worker's own, whatever the headers say
    if text is None and delivery.get("is_eager") is True and raw_binding() is not None:
        setattr(request, _VERDICT, _MAY_RUN)  # run in this process, by code that has somebody bound: `task.apply()`
        return
    queue = str(delivery.get("routing_key") or "")
    try:
        found = {name: getattr(request, name, None) for name in _AFTER + _BOUND}
        digest = _digest(task_id, args, kwargs, found, found)
        block = jobs.binding_of(jobs.open_blocking(text, task=task.name, queue=queue, arguments=digest))
    except Exception as fault:  # noqa: BLE001 - Celery would swallow it, and nobody would learn why nothing ran
        refused = fault if isinstance(fault, JobRefused) else _failed(fault)
        setattr(request, _VERDICT, refused)
        jobs.bury(refused, task.name, queue, task_id)
        return
    setattr(request, _VERDICT, _MAY_RUN if block is None else enter_binding(_binding_in(block)))


def _failed(fault: Exception) -> JobRefused:
    logger.error("A capsule could not be looked at.", exc_info=fault)
    return JobRefused(f"Whether the job may run can't be known now ({type(fault).__name__}).", reason="unavailable")


def _binding_in(block: bind) -> Binding:
    return block._binding()  # noqa: SLF001 - entered and left in two functions of one task, so not as a block


def _after(task: Task, **_: Any) -> None:
    verdict = getattr(task.request, _VERDICT, None)
    if isinstance(verdict, Token):
        leave_binding(verdict)
        setattr(task.request, _VERDICT, None)


def _guard_tasks(sender: Celery, **_: Any) -> None:
    for task in sender.tasks.values():
        _guard(type(task))
    _guard(sender.Task)


def _guarding(registry: type) -> type:
    """Return a kind of registry that guards tasks as they come, also those that come when the app is finalized."""

    class Guarding(registry):  # type: ignore[misc]
        def __setitem__(self, name: str, task: Any) -> None:
            _guard(task if isinstance(task, type) else type(task))
            super().__setitem__(name, task)

    return Guarding


def _guard(kind: Any) -> None:
    if "__tenantguard__" in vars(kind):
        return
    call, before_start = kind.__call__, kind.before_start

    def guarded(self: Task, *args: Any, **kwargs: Any) -> Any:
        refused = _refusal(self)
        if refused is not None:
            _refuse(self, refused)
        guards = getattr(self.app, _OWN, None) is not None and self.request.called_directly
        if guards and raw_binding() is None and origin_of_call(_run.__code__) is not Origin.APP:
            raise JobRefused(_FOLLOWED, reason="missing")
        return _run(call, self, *args, **kwargs)

    def guarded_start(self: Task, *args: Any, **kwargs: Any) -> Any:
        return before_start(self, *args, **kwargs) if _refusal(self) is None else None

    guarded.__tenantguard__ = True  # type: ignore[attr-defined]
    if not hasattr(call, "__tenantguard__"):
        kind.__call__ = guarded
        if before_start is not Task.before_start:
            kind.before_start = guarded_start
    kind.__tenantguard__ = True


def _refusal(task: Task) -> JobRefused | None:
    """Return why the message that is executed now may not run; ``None`` if it may, or if there is none."""
    request = task.request
    if getattr(task.app, _OWN, None) is None or request.called_directly:
        return None
    verdict = getattr(request, _VERDICT, None)
    if verdict is _MAY_RUN or isinstance(verdict, Token):
        return None
    return (
        verdict if isinstance(verdict, JobRefused) else JobRefused("The capsule was not looked at.", reason="missing")
    )


def _run(call: Callable[..., Any], task: Task, *args: Any, **kwargs: Any) -> Any:
    """Run the function of a task: what it calls is the app's own code."""
    return call(task, *args, **kwargs)


def _refuse(task: Task, refused: JobRefused) -> None:
    """End a task that may not run: its result tells why, and nothing that was to follow it is sent."""
    if not task.ignore_result:
        task.backend.store_result(task.request.id, refused, states.FAILURE, request=task.request)
    raise Ignore(str(refused))


def _sender_of_dead_letters(app: Celery, queue: str) -> Callable[[DeadLetter], None]:
    waiting: Any = Queue(queue)  # type: ignore[no-untyped-call]

    def send(letter: DeadLetter) -> None:
        with app.producer_or_acquire() as producer:
            producer.publish(letter._asdict(), routing_key=queue, declare=[waiting], serializer="json", retry=True)

    return send
