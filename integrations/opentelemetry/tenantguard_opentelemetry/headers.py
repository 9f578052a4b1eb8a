"""What goes along with a call: ``traceparent`` to everybody, ``baggage`` to declared destinations, identity in neither.

Source: W3C Trace Context; W3C Baggage, section 5 (privacy and security considerations).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, final

from opentelemetry import baggage
from opentelemetry.context import Context, get_current
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from tenantguard.binding import Binding, current_binding
from tenantguard.forged_headers import IDENTITY_HEADERS
from tenantguard.outbound import Destinations

__all__ = ["GuardedPropagator", "async_trace_hook", "trace_headers", "trace_hook"]

_WORDS: Final = frozenset(
    {"tenant", "tenantid", "user", "userid", "username", "enduser", "enduserid", "subject", "sub", "actor", "actorid"}
    | {"email", "role", "roles", "scope", "scopes", "token", "accesstoken", "authorization", "session", "sessionid"}
    | {name.removeprefix("x-").replace("-", "") for name in IDENTITY_HEADERS}
)
"""Names of baggage that claim an identity, without their separators."""


@final
class GuardedPropagator(TextMapPropagator):
    """Keeps identity out of baggage, both ways, around another propagator.

    ``set_global_textmap(GuardedPropagator(get_global_textmap()))``. Entries whose name claims an identity, or whose
    value is the bound tenant, subject, actor or token, are not sent; those of the first kind are not taken in either,
    since anybody can write them.

    Args:
        inner: the propagator that does the work; the global one by default.
    """

    def __init__(self, inner: TextMapPropagator | None = None) -> None:
        self._inner = inner or get_global_textmap()

    def extract(
        self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter
    ) -> Context:
        """Read trace context and baggage from a request, without entries that claim an identity."""
        return _without(self._inner.extract(carrier, context, getter), None)

    def inject(
        self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter
    ) -> None:
        """Write trace context and baggage onto a request, without entries that tell an identity."""
        self._inner.inject(carrier, _without(context, current_binding()), setter)

    @property
    def fields(self) -> set[str]:
        """The headers that the inner propagator writes."""
        return self._inner.fields


def trace_headers(url: str, destinations: Destinations | None = None) -> dict[str, str]:
    """Return the headers of trace context for a call to ``url``, for clients that nothing instruments.

    Args:
        url: the whole URL of the request.
        destinations: who may see baggage; others get ``traceparent`` alone, which tells nothing about anybody.
    """
    carrier: dict[str, str] = {}
    GuardedPropagator().inject(carrier)
    if destinations is None or destinations.find(url) is None:
        return {name: value for name, value in carrier.items() if name.lower() == "traceparent"}
    return carrier


def trace_hook(destinations: Destinations) -> Callable[[Any], None]:
    """Return a request hook that puts trace context on what a blocking client of httpx2 or httpx sends.

    ``guard.sync_http_client(event_hooks={"request": [trace_hook(guard.carrier.destinations)]})``

    Args:
        destinations: who may see baggage.
    """

    def hook(request: Any) -> None:
        for name, value in trace_headers(str(request.url), destinations).items():
            request.headers[name] = value

    return hook


def async_trace_hook(destinations: Destinations) -> Callable[[Any], Awaitable[None]]:
    """Do as `trace_hook`, for async clients."""
    hook = trace_hook(destinations)

    async def async_hook(request: Any) -> None:
        hook(request)

    return async_hook


def _without(context: Context | None, binding: Binding | None) -> Context:
    """Return a context without the entries of its baggage that tell an identity."""
    told = _told(baggage.get_all(context), _values_of(binding))
    cleaned = get_current() if context is None else context
    for name in told:
        cleaned = baggage.remove_baggage(name, cleaned)
    return cleaned


def _told(entries: Mapping[str, object], values: frozenset[str]) -> Iterable[str]:
    return [name for name, value in entries.items() if _plain(name) in _WORDS or _tells(str(value), values)]


def _tells(value: str, values: frozenset[str]) -> bool:
    """True if a value is one of those, or holds one that is too long to be in it by chance."""
    return value in values or any(len(one) > 3 and one in value for one in values)


def _plain(name: str) -> str:
    return name.lower().removeprefix("x-").removeprefix("x_").translate({ord(mark): None for mark in "-_. "})


def _values_of(binding: Binding | None) -> frozenset[str]:
    if binding is None or binding.identity is None:
        return frozenset()
    identity = binding.identity
    values = {party.id for party in identity.chain}
    if identity.tenant is not None:
        values.add(identity.tenant.id)
    if binding.credential is not None:
        values.add(binding.credential.reveal())
    return frozenset(values)
