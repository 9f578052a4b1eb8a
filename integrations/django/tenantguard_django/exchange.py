"""A Django request as the core's ASGI middleware sees it, and what comes of it.

The integration holds no decision of its own: each request goes through `tenantguard.middleware.TenantGuardMiddleware`,
whose "app" is the rest of Django's middleware chain, or, for sync workers, a function that notes what was bound. Here
are the two translations: a request into an ASGI scope, and the answer of a refusal into an ``HttpResponse``.
"""

from io import BytesIO
from typing import Any, Final
from urllib.parse import quote

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from starlette.types import Message

from tenantguard.binding import Binding

__all__ = ["Exchange", "drop_mixed_names", "mixes_names", "response_of", "scope_of", "take_away"]

Headers = list[tuple[bytes, bytes]]
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"


class Exchange:
    """One request on its way through the door. It stands in for ASGI's ``receive``, which nothing there reads.

    Args:
        request: the request.
        headers: the headers that it came with.
    """

    __slots__ = ("binding", "headers", "inside", "messages", "request", "response", "scope")

    def __init__(self, request: HttpRequest, scope: dict[str, Any]) -> None:
        self.request = request
        self.scope = scope
        self.headers: Headers = scope["headers"]
        self.inside = False
        self.binding: Binding | None = None
        self.response: HttpResponseBase | None = None
        self.messages: list[Message] = []

    async def __call__(self) -> Message:
        """Receive (ASGI): the body is Django's to read."""
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send (ASGI)."""
        self.messages.append(message)

    def enter(self, scope: Any, binding: Binding | None) -> None:
        """Note that the request was let in, and take away from it what the door took away."""
        self.inside = True
        self.binding = binding
        if scope["headers"] is not self.headers:
            take_away(self.request, self.headers, scope["headers"])

    def answer(self) -> HttpResponseBase:
        """Return the response of a request that was not let in, or the one that the app made."""
        if not self.inside:
            return response_of(self.messages)
        assert self.response is not None
        for message in self.messages:  # the door adds to the start of a response what its client needs next
            for name, value in message.get("headers", ()):
                self.response.headers[name.decode("latin-1")] = value.decode("latin-1")
        return self.response


def response_of(messages: list[Message]) -> HttpResponse:
    """Return the response that ASGI messages make up."""
    start, *parts = messages
    response = HttpResponse(b"".join(part.get("body", b"") for part in parts), status=start["status"])
    del response.headers["Content-Type"]
    for name, value in start["headers"]:
        text = value.decode("latin-1")
        key = name.decode("latin-1")
        # Django's responses have each header once. Challenges may be put into one (RFC 9110, section 11.6.1).
        response.headers[key] = f"{response.headers[key]}, {text}" if key in response.headers else text
    return response


def scope_of(request: HttpRequest) -> dict[str, Any]:
    """Return the ASGI scope of a request, whose path is the one that Django's router sees."""
    scope: dict[str, Any] | None = getattr(request, "scope", None)
    if scope is None:
        return _scope_of_environ(request)
    if request.path_info == scope["path"] and not scope.get("root_path"):
        return scope
    return {**scope, **_paths(request, scope.get("raw_path"))}


def _paths(request: HttpRequest, raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raw = quote(request.path, safe=_PATH_SAFE).encode()
    return {"path": request.path_info, "root_path": "", "raw_path": raw}


def _scope_of_environ(request: HttpRequest) -> dict[str, Any]:
    environ = request.META
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    ]
    # No standard names the path as it was sent; those servers that tell it use one of these.
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    sent = raw.encode("latin-1", "replace").partition(b"?")[0] if isinstance(raw, str) and raw[:1] == "/" else None
    return {
        "type": "http",
        "method": request.method,
        "scheme": request.scheme,
        "headers": headers,
        "client": (environ.get("REMOTE_ADDR", ""), 0),
        **_paths(request, sent),
    }


def take_away(request: HttpRequest, before: Headers, after: Headers) -> None:
    """Take headers away from a request.

    Args:
        request: the request.
        before: the headers that it came with.
        after: those that the app may see.
    """
    kept = {name for name, _ in after}
    visible = {_meta_name(name) for name in kept}
    for name, _ in before:
        if name not in kept and _meta_name(name) not in visible:
            request.META.pop(_meta_name(name), None)
    vars(request).pop("headers", None)  # Django keeps its view of them once it was asked for
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope["headers"] = after


def mixes_names() -> bool:
    """Return whether Django takes ``x_tenant_id`` for ``x-tenant-id`` under ASGI, as early releases of 5.2 do."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"a_b", b"")]}
    return "HTTP_A_B" in ASGIRequest(scope, BytesIO()).META


def drop_mixed_names(request: HttpRequest, scope: dict[str, Any]) -> None:
    """Drop the headers whose names have underscores, as newer releases of Django and most servers do.

    The door does not take them for those with hyphens, and what it would take away the app must not see under them.

    Args:
        request: the request.
        scope: its ASGI scope.
    """
    before: Headers = scope["headers"]
    after = [(name, value) for name, value in before if b"_" not in name]
    if len(after) == len(before):
        return
    for mixed in {_meta_name(name) for name, _ in before if b"_" in name}:
        own = [value.decode("latin-1") for name, value in after if _meta_name(name) == mixed]
        if own:
            request.META[mixed] = ",".join(own)
        else:
            request.META.pop(mixed, None)
    vars(request).pop("headers", None)
    scope["headers"] = after


def _meta_name(name: bytes) -> str:
    return "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
