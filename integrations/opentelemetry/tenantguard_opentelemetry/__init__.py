"""tenantguard for OpenTelemetry: spans tell for whom they ran, and baggage does not.

The names of attributes are those of the semantic conventions where these have one (``enduser.id``, ``gen_ai.agent.*``);
the others stand in a namespace of their own, as the conventions ask for. Identity belongs into signed tokens: whoever
gets a request can read its baggage, and anybody can write it.
"""

from tenantguard_opentelemetry.headers import GuardedPropagator, async_trace_hook, trace_headers, trace_hook
from tenantguard_opentelemetry.middleware import IdentityAttributes
from tenantguard_opentelemetry.spans import IdentitySpanProcessor, set_identity_attributes

__all__ = [
    "GuardedPropagator",
    "IdentityAttributes",
    "IdentitySpanProcessor",
    "async_trace_hook",
    "set_identity_attributes",
    "trace_headers",
    "trace_hook",
]
