"""Real keys, tokens of any shape, and a real issuer on loopback."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.lab import IssuerServer, Lab


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture
def new_server() -> Iterator[Callable[[], IssuerServer]]:
    servers: list[IssuerServer] = []

    def start() -> IssuerServer:
        server = IssuerServer()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(new_server: Callable[[], IssuerServer], lab: Lab) -> IssuerServer:
    server = new_server()
    server.keys = [lab.ec]
    return server
