"""The tests' project behind real servers: uvicorn (ASGI), and the standard library's, with a thread for each request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from tests.support.server import serve

__all__ = ["serve_asgi", "serve_wsgi"]


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256


class _Silent(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve_asgi(app: Any = None) -> Iterator[str]:
    with serve(app or ASGIHandler(), lifespan="off") as url:
        yield url


@contextmanager
def serve_wsgi(app: Any = None) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app or WSGIHandler(), server_class=_Threaded, handler_class=_Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
