"""The span of a request learns whose request it is: an ASGI middleware inside of the one that binds the identity."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final

from tenantguard_opentelemetry.spans import set_identity_attributes

__all__ = ["IdentityAttributes"]

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


@final
class IdentityAttributes:
    """Tells on the current span who is bound, once the request's token is known.

    With ``app.add_middleware``, add it before `TenantGuardMiddleware`, so that it stands inside of it; OpenTelemetry's
    own instrumentation stands outside of both.

    Args:
        app: the ASGI app.
    """

    __slots__ = ("_app",)

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] in ("http", "websocket"):
            set_identity_attributes()
        await self._app(scope, receive, send)
