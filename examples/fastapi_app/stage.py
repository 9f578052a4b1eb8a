"""The stage of the demo: an issuer, the app, two services behind it, and a worker, all on 127.0.0.1.

The sockets are opened here, with ports that the system picks, and handed to the processes: nothing has to guess a
free port. The issuer runs in this process, because the demo needs its keys to make tokens that a good issuer would
not. Whatever was started is stopped again, also when the demo fails.
"""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import uvicorn

from examples.fastapi_app import app, billing, ledger
from tenantguard.jobs import JobKeys
from tenantguard.testing import DevClient, DevIssuer, DevUser

_DEADLINE = 90.0
"""Seconds that the parts have to come up."""


def _listen() -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    return listening


def _url(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


class Stage:
    """Context manager that starts everything, and stops it."""

    def __init__(self, database_url: str | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="tenantguard-demo-")
        self._database_url = database_url or f"sqlite:///{Path(self._directory.name) / 'demo.db'}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets = [_listen() for _ in range(4)]
        self.issuer_url, self.app_url, self.billing_url, self.ledger_url = map(_url, self._sockets)
        names = ("documents-app", "billing-app", "copilot", "invoice-sync")
        self.secrets = {name: secrets.token_urlsafe(24) for name in names}
        self.queue_folder = Path(self._directory.name) / "queue"
        self._job_secret = secrets.token_urlsafe(48)
        self.issuer = DevIssuer(
            self.issuer_url,
            users=[
                DevUser("alice", password="alice", tenant="acme", scopes="documents:read documents:write usage:read"),
                DevUser("bob", password="bob", tenant="globex", scopes="documents:read documents:write usage:read"),
            ],
            clients=[
                DevClient("web", audiences=app.AUDIENCE),
                DevClient(
                    "documents-app",
                    self.secrets["documents-app"],
                    audiences=billing.AUDIENCE,
                    accepts=app.AUDIENCE,
                    jwks=JobKeys(self._job_secret.encode()).public_jwks,
                ),
                DevClient(
                    "billing-app",
                    self.secrets["billing-app"],
                    audiences=ledger.AUDIENCE,
                    accepts=billing.AUDIENCE,
                ),
                DevClient(
                    "copilot",
                    self.secrets["copilot"],
                    actor_type="agent",
                    model="example-model",
                    audiences=app.AUDIENCE,
                ),
                DevClient(
                    "invoice-sync",
                    self.secrets["invoice-sync"],
                    audiences=app.AUDIENCE,
                    tenant="acme",
                    scopes="documents:read",
                ),
            ],
        )
        config = uvicorn.Config(self.issuer.app, log_level="warning", lifespan="off")
        self._issuer_server = uvicorn.Server(config)
        self._issuer_thread = threading.Thread(
            target=self._issuer_server.run, kwargs={"sockets": [self._sockets[0]]}, name="issuer"
        )

    def __enter__(self) -> Self:
        try:
            self._issuer_thread.start()
            self._start("ledger", self._sockets[3])
            self._start("billing", self._sockets[2])
            self._start("documents", self._sockets[1])
            self._start("worker")
            self._wait_until_healthy()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def log(self) -> str:
        """Return what the services wrote to their logs so far."""
        return "".join(path.read_text() for path in sorted(Path(self._directory.name).glob("*.log")))

    def _start(self, service: str, listening: socket.socket | None = None) -> None:
        environment = os.environ | {
            "ISSUER_URL": self.issuer_url,
            "BILLING_URL": self.billing_url,
            "LEDGER_URL": self.ledger_url,
            "CLIENT_SECRET": self.secrets["documents-app"],
            "BILLING_SECRET": self.secrets["billing-app"],
            "JOB_SECRET": self._job_secret,
            "QUEUE_FOLDER": str(self.queue_folder),
            "DATABASE_URL": self._database_url,
        }
        command = [sys.executable, "-m", *self._serves(service)]
        handed: list[int] = []
        if listening is not None:
            listening.set_inheritable(True)
            handed = [listening.fileno()]
            command += ["--fd", str(listening.fileno())]
        with (Path(self._directory.name) / f"{service}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    command, env=environment, pass_fds=handed, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _serves(self, service: str) -> list[str]:
        """Return the module that serves a part of the example, with its arguments."""
        return ["examples.fastapi_app.serve", service]

    def _wait_until_healthy(self) -> None:
        end = time.monotonic() + _DEADLINE
        services = (self.ledger_url, self.billing_url, self.app_url)
        for url in (self.issuer_url + "/jwks", *(f"{url}/health" for url in services)):
            while True:
                if any(process.poll() is not None for process in self._processes):
                    raise RuntimeError(f"A service ended while it was starting:\n{self.log()}")
                try:
                    if httpx2.get(url, timeout=1.0).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                if time.monotonic() > end:
                    raise RuntimeError(f"{url} did not answer within {_DEADLINE:.0f} seconds:\n{self.log()}")
                time.sleep(0.05)

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        self._issuer_server.should_exit = True
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._issuer_thread.ident is not None:
            self._issuer_thread.join(timeout=10)
        for listening in self._sockets:
            listening.close()
        self._directory.cleanup()
