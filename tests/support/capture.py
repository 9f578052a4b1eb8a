"""Apps that remember what they were sent, and a token endpoint that answers whatever a test wants."""

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

__all__ = ["Captured", "CapturingApp", "ScriptedEndpoint"]


@dataclass(frozen=True, slots=True)
class Captured:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    scheme: str = ""
    version: str = ""

    @property
    def bearer(self) -> str | None:
        """The bearer token, if there is one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    @property
    def everything(self) -> str:
        """All that a stranger could read."""
        return f"{self.target}\n{self.headers}\n{self.body.decode('latin-1')}"


class CapturingApp:
    """Remembers every request. ``/to?location&status`` style answers are set in `redirects` by path."""

    def __init__(self) -> None:
        self.requests: list[Captured] = []
        self.redirects: dict[str, tuple[int, str]] = {}
        self.statuses: dict[str, int] = {}
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = await request.body()
        target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        with self._lock:
            version = scope["http_version"]
            self.requests.append(
                Captured(request.method, target, dict(request.headers), body, scope["scheme"], version)
            )
        path = request.url.path
        response: Response = PlainTextResponse("captured", self.statuses.get(path, 200))
        if path in self.redirects:
            status, location = self.redirects[path]
            response = Response(status_code=status, headers={"location": location, "set-cookie": "session=s3cr3t"})
        await response(scope, receive, send)

    def clear(self) -> None:
        """Forget everything."""
        self.requests.clear()
        self.redirects.clear()
        self.statuses.clear()


Answer = Callable[[dict[str, str]], Awaitable[Response] | Response | dict[str, Any]]


@dataclass
class ScriptedEndpoint:
    """A token endpoint whose answer each test sets."""

    answer: Answer = field(default=lambda _: PlainTextResponse("not set", 500))
    forms: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        self.forms.append(form)
        outcome = self.answer(form)
        if isinstance(outcome, Awaitable):
            outcome = await outcome
        response = JSONResponse(outcome) if isinstance(outcome, dict) else outcome
        await response(scope, receive, send)
