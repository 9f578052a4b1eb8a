"""Attributes of spans: tenant, end user, actor. Never a token, and no name or address of a person beside its id.

Source: OpenTelemetry semantic conventions, registries ``enduser`` and ``gen_ai``; ``enduser.role`` and
``enduser.scope`` are deprecated there and not set.
"""

from typing import Any, Final, final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.trace import get_current_span

from tenantguard.binding import current_binding
from tenantguard.identity import ActorType, Identity

__all__ = ["IdentitySpanProcessor", "attributes_of", "set_identity_attributes"]

END_USER: Final = "enduser.id"
AGENT: Final = "gen_ai.agent.id"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_VERSION: Final = "gen_ai.agent.version"
_OURS: Final = "tenantguard."


def attributes_of(identity: Identity) -> dict[str, Any]:
    """Return the attributes that tell of an identity.

    ``enduser.id`` is the subject: on whose authority the work is done.
    """
    actor = identity.actor
    attributes: dict[str, Any] = {
        END_USER: identity.subject.id,
        f"{_OURS}actor.id": actor.id,
        f"{_OURS}actor.type": actor.type.value,
    }
    if identity.tenant is not None:
        attributes[f"{_OURS}tenant.id"] = identity.tenant.id
    if identity.is_delegated:
        attributes[f"{_OURS}delegation.chain"] = [party.id for party in identity.chain]
    if identity.transaction is not None:
        attributes[f"{_OURS}transaction.id"] = identity.transaction.id
    agent = next((party for party in identity.chain if party.type is ActorType.AGENT), None)
    if agent is not None:
        told = {AGENT: agent.id, AGENT_NAME: agent.name, AGENT_VERSION: agent.version}
        attributes |= {name: value for name, value in told.items() if value is not None}
    return attributes


def set_identity_attributes(span: ApiSpan | None = None) -> None:
    """Tell on a span who is bound now.

    Args:
        span: the current one by default.
    """
    binding = current_binding()
    if binding is None or binding.identity is None:
        return
    attributes = attributes_of(binding.identity)
    if binding.system is not None:
        attributes.pop(f"{_OURS}tenant.id", None)
        attributes[f"{_OURS}system"] = True
    (span or get_current_span()).set_attributes(attributes)


@final
class IdentitySpanProcessor(SpanProcessor):
    """Tells on every span, when it starts, who is bound: ``provider.add_span_processor(IdentitySpanProcessor())``.

    The span of a request is started before its token is known; `IdentityAttributes` tells on that one.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - its interface
        """Called by OpenTelemetry when a span starts."""
        set_identity_attributes(span)
