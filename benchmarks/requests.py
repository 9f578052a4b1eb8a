"""What the middleware costs a request: bare Starlette against the same app behind it, in process, without a server."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.harness import compare
from tenantguard import Issuer, TenantGuard, TenantGuardMiddleware
from tenantguard.testing import DevIssuer
from tenantguard.tokens import StaticKeys

AUDIENCE = "https://api.example.com"


async def hello(_request):
    return PlainTextResponse("hello")


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message):
    return None


def request(app: Starlette, path: str, authorizations: Iterator[bytes]) -> Callable[[], None]:
    """Return a function that makes one request, which must not wait for anything."""

    def run() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"host", b"api.example.com"),
                (b"user-agent", b"benchmark"),
                (b"accept", b"application/json"),
                (b"authorization", next(authorizations)),
            ],
        }
        coroutine: Awaitable[None] = app(scope, receive, send)
        try:
            coroutine.send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        raise RuntimeError("the request waited for something")

    return run


def request_costs(cached: int = 20_000) -> dict[str, float]:
    """Microseconds of a request: bare, on a public path, with a token seen before, alone and among many."""
    issuer = DevIssuer("http://127.0.0.1:9000", audience=AUDIENCE)
    pinned = StaticKeys(issuer.jwks)
    routes = [Route("/", hello), Route("/public", hello)]
    bare = Starlette(routes=routes)

    def guarded() -> Starlette:
        app = Starlette(routes=routes)
        guard = TenantGuard(issuers=[Issuer(issuer.url, audience=AUDIENCE, jwks=pinned)], public=["/public"])
        app.add_middleware(TenantGuardMiddleware, guard=guard)
        return app

    def bearer(subject: str) -> bytes:
        return b"Bearer " + issuer.mint(subject, tenant="acme", expires_in=3600).encode()

    one = cycle([bearer("alice")])
    alone, full = guarded(), guarded()
    many = [bearer(f"user-{number}") for number in range(cached)]
    fill = request(full, "/", iter(many))
    for _ in many:
        fill()
    return compare(
        {
            "bare Starlette": request(bare, "/", one),
            "behind tenantguard, public path": request(alone, "/public", one),
            "behind tenantguard, token seen before": request(alone, "/", one),
            f"  the same among {cached:,} cached tokens": request(full, "/", cycle(many[:1000])),
        }
    )
