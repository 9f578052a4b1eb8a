"""What the middleware costs a Django project: bare Django against the same project behind it, in process.

ASGI requests are driven by hand, so that nothing but Django and the middleware is measured; in a project whose
middleware is all async-capable, neither may wait for anything, least of all for a thread.
"""

import asyncio
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import cycle
from typing import Any

from benchmarks.harness import compare
from tenantguard import Issuer, TenantGuard
from tenantguard.testing import DevIssuer
from tenantguard.tokens import StaticKeys

AUDIENCE = "https://api.example.com"
LOGIN = DevIssuer("http://127.0.0.1:9000", audience=AUDIENCE)
DOOR = "tenantguard_django.middleware.TenantGuardMiddleware"


def configure() -> None:
    from django.conf import settings

    if not settings.configured:
        guard = TenantGuard(
            issuers=[Issuer(LOGIN.url, audience=AUDIENCE, jwks=StaticKeys(LOGIN.jwks))], public=["/public"]
        )
        settings.configure(
            SECRET_KEY="of-the-benchmark-alone",
            ALLOWED_HOSTS=["api.example.com"],
            ROOT_URLCONF=__name__,
            INSTALLED_APPS=["tenantguard_django"],
            MIDDLEWARE=[],
            TENANTGUARD={"GUARD": guard},
        )
        import django

        django.setup()


def hello(_request: Any) -> Any:
    from django.http import HttpResponse

    return HttpResponse("hello")


async def ahello(_request: Any) -> Any:
    from django.http import HttpResponse

    return HttpResponse("hello")


class _Patterns:
    """The URLs, made when Django asks: at import there are no settings yet."""

    def __iter__(self) -> Iterator[Any]:
        from django.urls import path

        return iter([path("", ahello), path("sync", hello), path("public", ahello)])

    def __reversed__(self) -> Iterator[Any]:
        return reversed(list(self))


urlpatterns = _Patterns()


def asgi_request(middleware: list[str], path: str, authorizations: Iterator[bytes]) -> Callable[[], None]:
    """Return a function that takes one request through Django's chain of middleware, without a server or a thread."""
    from django.core.handlers.asgi import ASGIHandler, ASGIRequest
    from django.test import override_settings

    with override_settings(MIDDLEWARE=middleware):
        handler = ASGIHandler()

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
        coroutine = handler.get_response_async(ASGIRequest(scope, BytesIO()))
        try:
            coroutine.send(None)
        except StopIteration as done:
            if done.value.status_code != 200:
                raise RuntimeError(f"the answer was {done.value.status_code}") from None
            done.value.close()
            return
        raise RuntimeError("the request waited for something")

    return run


def wsgi_request(middleware: list[str], authorizations: Iterator[bytes]) -> Callable[[], None]:
    """Return a function that makes one request of the WSGI app."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    with override_settings(MIDDLEWARE=middleware):
        handler = WSGIHandler()

    def run() -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/sync",
            "QUERY_STRING": "",
            "SERVER_NAME": "api.example.com",
            "SERVER_PORT": "80",
            "HTTP_HOST": "api.example.com",
            "HTTP_USER_AGENT": "benchmark",
            "HTTP_ACCEPT": "application/json",
            "HTTP_AUTHORIZATION": next(authorizations).decode(),
            "wsgi.input": BytesIO(),
            "wsgi.url_scheme": "http",
        }
        handler(environ, lambda status, headers: None).close()  # type: ignore[arg-type]

    return run


def django_request_costs(cached: int = 20_000) -> dict[str, dict[str, float]]:
    """Microseconds of a request, by kind of server: bare, and behind the middleware."""
    configure()

    def bearer(subject: str) -> bytes:
        return b"Bearer " + LOGIN.mint(subject, tenant="acme", expires_in=3600).encode()

    one = cycle([bearer("alice")])
    many = [bearer(f"user-{number}") for number in range(cached)]
    fill = asgi_request([DOOR], "/", iter(many))

    async def on_a_loop() -> None:  # asgiref asks which loop runs
        for _ in many:
            fill()

    asyncio.run(on_a_loop())

    async def measured() -> dict[str, float]:
        return compare(
            {
                "bare Django": asgi_request([], "/", one),
                "behind tenantguard, public path": asgi_request([DOOR], "/public", one),
                "behind tenantguard, token seen before": asgi_request([DOOR], "/", one),
                f"  the same among {cached:,} cached tokens": asgi_request([DOOR], "/", cycle(many[:1000])),
            }
        )

    return {
        "A request of Django under ASGI, in process": asyncio.run(measured()),
        "A request of Django under WSGI, in process": compare(
            {
                "bare Django": wsgi_request([], one),
                "behind tenantguard, token seen before": wsgi_request([DOOR], one),
            }
        ),
    }


if __name__ == "__main__":
    for title, costs in django_request_costs().items():
        base = next(iter(costs.values()))
        print(title)
        for name, cost in costs.items():
            print(f"  {name:45} {cost:8.2f} µs  {cost - base:+7.2f} µs  ratio {cost / base:.2f}")
