"""The tests' project behind real servers: uvicorn (ASGI), the standard library's with a thread for each request, gunicorn."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from tests.support.server import loopback_socket, serve
from tests.support.waiting import wait_until

__all__ = ["gunicorn", "serve_asgi", "serve_wsgi"]


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


@contextmanager
def gunicorn(worker: str, folder: Path, *, preload: bool = True) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run gunicorn with two workers, or one that loads the project itself; its tokens and its log are in the folder."""
    with closing(loopback_socket()) as listening, (folder / "log").open("wb") as log:
        listening.listen(256)
        fd = listening.fileno()
        options = [
            f"--worker-class={worker}",
            f"--bind=fd://{fd}",
            f"--workers={2 if preload else 1}",
            "--threads=8",
            "--timeout=60",
        ]
        command = [sys.executable, "-m", "gunicorn", *options, *(["--preload"] if preload else [])]
        process = subprocess.Popen(
            [*command, "--graceful-timeout=1", "tests.django.web.preforked"],
            pass_fds=[fd],
            stdout=log,
            stderr=log,
            env={**os.environ, "TOKENS": str(folder / "tokens"), "TMPDIR": str(folder)},
        )
        try:
            wait_until(lambda: b"Booting worker" in (folder / "log").read_bytes() or process.poll() is not None)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
