"""ASGI apps over real sockets on loopback: uvicorn in a thread, on a port that the kernel picks."""

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import hypercorn.config
import hypercorn.trio
import trio
import uvicorn
from starlette.types import ASGIApp

from tenantguard.testing import DevIssuer

__all__ = ["loopback_socket", "running_hypercorn", "serve", "serve_issuer", "serve_on_trio", "serve_with_url"]


def loopback_socket() -> socket.socket:
    """Return a socket bound to a free port of 127.0.0.1, not yet listening."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextmanager
def serve(app: ASGIApp, *, sock: socket.socket | None = None, lifespan: str = "auto", **options: Any) -> Iterator[str]:
    """Serve ``app`` and yield its base URL, for example ``http://127.0.0.1:43211``.

    Args:
        app: the ASGI app.
        sock: a bound socket, where the URL must be known before the app is made.
        lifespan: uvicorn's lifespan setting.
        options: further arguments of `uvicorn.Config`.
    """
    with closing(sock or loopback_socket()) as listening:
        settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": 2}
        config = uvicorn.Config(app, lifespan=lifespan, **{**settings, **options})  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        port = listening.getsockname()[1]
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("The test server did not start.")
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
            if thread.is_alive():
                server.force_exit = True
                thread.join(5)


@contextmanager
def serve_with_url(make_app: Callable[[str], ASGIApp], **options: Any) -> Iterator[str]:
    """Serve the app that ``make_app`` returns for its own base URL, and yield that URL."""
    sock = loopback_socket()
    with serve(make_app(f"http://127.0.0.1:{sock.getsockname()[1]}"), sock=sock, **options) as url:
        yield url


@contextmanager
def serve_issuer(**options: Any) -> Iterator[DevIssuer]:
    """Serve a `DevIssuer` made with ``options`` under its own URL, and yield it."""
    sock = loopback_socket()
    issuer = DevIssuer(f"http://127.0.0.1:{sock.getsockname()[1]}", **options)
    with serve(issuer.app, sock=sock):
        yield issuer


@contextmanager
def serve_on_trio(app: ASGIApp) -> Iterator[str]:
    """Serve ``app`` by Hypercorn on trio, and yield its base URL."""
    with closing(loopback_socket()) as free:
        port = free.getsockname()[1]
    settings = hypercorn.config.Config()
    settings.bind = [f"127.0.0.1:{port}"]
    settings.graceful_timeout = 1

    def serve(trigger: Any) -> Awaitable[None]:
        return hypercorn.trio.serve(app, settings, shutdown_trigger=trigger)  # type: ignore[arg-type]

    with running_hypercorn(port, serve, trio):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running_hypercorn(port: int, serve: Callable[[Any], Awaitable[None]], library: Any) -> Iterator[None]:
    """Run Hypercorn in a thread, from when it answers until the block ends.

    Args:
        port: where it will listen.
        serve: serves until the function that it is given returns.
        library: ``asyncio`` or ``trio``.
    """
    stop = threading.Event()

    async def main() -> None:
        async def stopped() -> None:
            while not stop.is_set():
                await library.sleep(0.02)

        await serve(stopped)

    given = main if library is trio else main()
    thread = threading.Thread(target=library.run, args=(given,), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while True:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if time.monotonic() > deadline:
            raise RuntimeError("The test server did not start.")
        time.sleep(0.02)
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
