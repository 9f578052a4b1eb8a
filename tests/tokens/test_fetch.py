"""The bounded GET: time, size, redirects and addresses, against real sockets."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tenantguard.tokens.fetch import Fetcher, FetchError, address_fault, url_fault


def get(url: str, **options: Any) -> bytes:
    return Fetcher(**({"timeout": 20.0} | options)).get(url, allow_private=True)


def raw_server(talk: Callable[[socket.socket], None]) -> str:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                with contextlib.suppress(OSError):
                    talk(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"


def test_a_body_is_fetched(server: Any) -> None:
    server.routes["/x"] = lambda handler: handler.reply(200, b"hello")
    assert get(server.url + "/x") == b"hello"


@pytest.mark.parametrize("location", ["/y", "y", "{url}/y", "?z", "./y"])
def test_a_redirect_to_the_same_origin_is_followed(server: Any, location: str) -> None:
    where = location.format(url=server.url)
    server.routes["/x"] = lambda handler: handler.reply(302, b"", Location=where)
    server.routes["/y"] = server.routes["/x?z"] = lambda handler: handler.reply(200, b"there")
    assert get(server.url + "/x") == b"there"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_is_not_followed(server: Any, new_server: Any, status: int) -> None:
    other = new_server()
    for where in (other.url + "/y", other.url.replace("http:", ""), "https://idp.example.com/", "file:///etc/passwd",
                  server.url.replace("127.0.0.1", "localhost") + "/y", server.url.replace("http:", "https:"), "http://["):  # fmt: skip
        server.routes["/x"] = lambda handler, where=where: handler.reply(status, b"", Location=where)
        with pytest.raises(FetchError):
            get(server.url + "/x")
    assert not other.requests
    assert server.requests == {"/x": 7}


def test_redirects_end(server: Any) -> None:
    server.routes["/x"] = lambda handler: handler.reply(302, b"", Location="/x")
    with pytest.raises(FetchError, match="more than 3"):
        get(server.url + "/x")
    assert server.requests["/x"] == 4


@pytest.mark.parametrize("status", [201, 204, 304, 400, 401, 404, 500, 503])
def test_only_status_200_counts(server: Any, status: int) -> None:
    server.routes["/x"] = lambda handler: handler.reply(status, b"")
    with pytest.raises(FetchError, match=str(status)):
        get(server.url + "/x")


def test_a_body_over_the_limit_is_cut_off_while_it_comes() -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 4096)

    with pytest.raises(FetchError, match="larger than 10000 bytes"):
        get(raw_server(endless), limit=10_000)
    assert sent < 50_000_000


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX-Drip: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b""]
)
def test_the_deadline_holds_for_the_whole_of_an_answer_that_drips(head: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    before = time.monotonic()
    with pytest.raises(FetchError, match=r"within 0\.3 s"):
        get(raw_server(drip), timeout=0.3)
    assert time.monotonic() - before < 5


def test_a_compressed_answer_is_refused(server: Any) -> None:
    server.routes["/x"] = lambda handler: handler.reply(200, b"x", Content_Encoding="gzip")
    with pytest.raises(FetchError, match="compressed"):
        get(server.url + "/x")


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"])
def test_a_broken_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(FetchError):
        get(raw_server(lambda connection: connection.sendall(answer)))


def test_a_private_address_is_refused_before_anything_is_sent(server: Any) -> None:
    with pytest.raises(FetchError, match="allow_private_addresses=True"):
        Fetcher().get(server.url + "/x")
    assert not server.requests


def test_a_name_that_resolves_to_a_private_address_is_refused(server: Any) -> None:
    with pytest.raises(FetchError, match="not allowed"):
        Fetcher().get(server.url.replace("127.0.0.1", "localhost") + "/x")
    assert not server.requests


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(server: Any, monkeypatch: Any) -> None:
    """A resolver that answers public first and loopback after (DNS rebinding) is asked once only."""
    asked = []
    port = server.server_address[1]

    def rebinding(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address if host == "localhost" else host, port))]

    monkeypatch.setattr("tenantguard.tokens.fetch.address_fault", lambda *_, **__: None)
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(FetchError):
        Fetcher(timeout=0.3).get(f"http://localhost:{port}/x")
    assert asked.count("localhost") == 1
    assert not server.requests


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1",
     "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "fd00:ec2::254"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert address_fault(address, allow_private=False) is not None


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert address_fault(address, allow_private=False) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.0.1", "::1", "fc00::1", "::ffff:10.0.0.1"])
def test_private_addresses_can_be_allowed(address: str) -> None:
    assert address_fault(address, allow_private=True) is None


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254"])
def test_link_local_and_multicast_addresses_can_not_be_allowed(address: str) -> None:
    assert address_fault(address, allow_private=True) is not None


@pytest.mark.parametrize(
    "url",
    ["http://idp.example.com", "ftp://x", "//x", "", "x", "https://", "https://u:p@x", "https://u@x", "https://x#f", "https://x#",
     "https://x y", "https://x\n", "https://x\\@y", "https://\u00e9.example", "https://x:99999", "https://[", "http://127.0.0.1.x",
     "https://x/" + "a" * 2048, "javascript:x", "file:///etc/passwd"],
    ids=range(20),
)  # fmt: skip
def test_urls_that_are_never_fetched(url: str) -> None:
    assert url_fault(url) is not None
    with pytest.raises(FetchError):
        Fetcher().get(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    ["https://idp.example.com", "https://x:8443/a?b=c", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"],
)
def test_urls_that_may_be_fetched(url: str) -> None:
    assert url_fault(url) is None
