"""Log records that tell for whom the code ran: tenant, subject, actor, and the trace they belong to. Never a token.

One line sets it up: `add_identity_to_logs` for the standard library's ``logging``, or `add_identity` among structlog's
processors. What is bound when a line is logged is what it tells; nothing is added where nobody is bound.
"""

import logging
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from tenantguard.binding import current_binding

__all__ = ["IDENTITY_FIELDS", "add_identity", "add_identity_to_logs", "identity_fields"]

IDENTITY_FIELDS: Final = ("tenant", "subject", "actor", "actor_type", "trace_id", "span_id")
"""The names that log records get. Each is there on every record; ``None`` where there is nothing to tell."""

_NOTHING: Final[dict[str, str | None]] = dict.fromkeys(IDENTITY_FIELDS)
_trace_ids: Callable[[], tuple[str, str] | None] | None = None


def identity_fields() -> dict[str, str | None]:
    """Return tenant, subject, actor and trace of whoever is bound now, for a logger of your own.

    A system context has no tenant; its reason is in the log of its own when it is entered.
    """
    fields = dict(_NOTHING)
    binding = current_binding()
    identity = None if binding is None else binding.identity
    if binding is not None and identity is not None:
        if identity.tenant is not None and binding.system is None:
            fields["tenant"] = identity.tenant.id
        fields |= {"subject": identity.subject.id, "actor": identity.actor.id, "actor_type": identity.actor.type.value}
    ids = _find_trace_ids()
    if ids is not None:
        fields["trace_id"], fields["span_id"] = ids
    return fields


def add_identity_to_logs() -> None:
    """Give every record of the standard library's ``logging`` the fields of `IDENTITY_FIELDS`, for formatters to use.

    The record factory is extended, so it holds for all loggers and handlers of the process, other libraries' included.
    Calling it again changes nothing. Fields that a record has already are left alone.
    """
    before = logging.getLogRecordFactory()
    if getattr(before, "__tenantguard__", False):
        return

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        for name, value in identity_fields().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return record

    make_record.__tenantguard__ = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_record)


def add_identity(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG001
    """Add the fields that tell something to an event of structlog, as one of its processors.

    Args:
        logger: structlog's logger.
        method: the name of the logging method.
        event: the event; what it has already is left alone.
    """
    for name, value in identity_fields().items():
        if value is not None:
            event.setdefault(name, value)
    return event


def _find_trace_ids() -> tuple[str, str] | None:
    """Return the ids of the current span, where OpenTelemetry is installed and one is recorded."""
    global _trace_ids
    if _trace_ids is None:
        _trace_ids = _from_opentelemetry()
    return _trace_ids()


def _from_opentelemetry() -> Callable[[], tuple[str, str] | None]:
    try:
        from opentelemetry import trace
    except ImportError:
        return lambda: None

    def ids() -> tuple[str, str] | None:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)

    return ids
