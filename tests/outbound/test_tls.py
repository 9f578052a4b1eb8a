"""Credentials over https, by HTTP/1.1 and HTTP/2: what a redirect, a downgrade and a wrong certificate may not take."""

from contextlib import asynccontextmanager

import aiohttp
import anyio
import jwt
import pytest

from tenantguard.context import bind
from tenantguard.errors import OutboundError
from tenantguard.outbound import Destination
from tests.support.callers import caller
from tests.support.capture import CapturingApp
from tests.support.outbound_clients import CLIENTS, open_client
from tests.support.tls import Authority, serve_tls

pytestmark = pytest.mark.anyio
REDIRECTS = (301, 302, 303, 307, 308)
HARMLESS = {"host", "accept", "accept-encoding", "connection", "user-agent"}
MARKS = {"X-Api-Key": "key-of-the-destination", "Cookie": "own=cookie-of-the-destination"}
SPOKEN = [(kind, "1.1") for kind in CLIENTS] + [(kind, "2") for kind in CLIENTS if kind.startswith("httpx")]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def servers(authority):
    secure, other = CapturingApp(), CapturingApp()
    with serve_tls(secure, authority) as url, serve_tls(other, authority) as other_url:
        yield secure, url, other, other_url


class Place:
    """A destination behind TLS, another such server that nobody declared, and a client that trusts both."""

    def __init__(self, town, servers, authority, kind, version):
        self.town, self.authority, self.kind, self.version = town, authority, kind, version
        self.secure, self.url, self.other, self.other_url = servers
        self.secure.clear()
        self.other.clear()
        self.destination = Destination(self.url, audience="billing", scopes="invoices:read")
        self.identity, self.credential = caller(town.issuer, scopes="invoices:read")

    @asynccontextmanager
    async def client(self, *, trusted=True):
        options = {}
        if self.kind == "aiohttp" and trusted:
            options["connector"] = aiohttp.TCPConnector(ssl=self.authority.client_context)
        elif self.kind.startswith("httpx"):
            options["http2"] = self.version == "2"
            if trusted:
                options["verify"] = self.authority.client_context
        async with open_client(self.kind, [self.destination], self.town.exchange(), **options) as opened:
            if self.kind == "requests" and trusted:
                opened.client.verify = str(self.authority.ca_file)
            with bind(self.identity, self.credential):
                yield opened

    def assert_learned_nothing(self, captured):
        assert set(captured.headers) <= HARMLESS
        secrets = [self.credential.reveal(), *MARKS.values()]
        secrets += [one.bearer for one in self.secure.requests if one.bearer]
        assert not [secret for secret in secrets if secret in captured.everything]


@pytest.fixture(params=SPOKEN, ids=lambda pair: f"{pair[0]}-HTTP/{pair[1]}")
def place(town, servers, authority, request):
    return Place(town, servers, authority, *request.param)


async def test_a_destination_behind_tls_gets_the_caller_and_keeps_it_inside_its_origin(place):
    place.secure.redirects["/old"] = (307, "/new")
    place.secure.redirects["/absolute"] = (302, f"{place.url.replace('https', 'HTTPS')}/new")
    async with place.client() as client:
        await client.send("POST", f"{place.url}/old", body=b"invoice", follow=True)
        await client.get(f"{place.url}/absolute", follow=True)
    assert [one.target for one in place.secure.requests] == ["/old", "/new", "/absolute", "/new"]
    for captured in place.secure.requests:
        assert (captured.scheme, captured.version) == ("https", place.version)
        assert jwt.decode(captured.bearer, options={"verify_signature": False})["sub"] == "alice"
    assert place.secure.requests[1].body == b"invoice"


@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_redirect_from_https_down_to_http_drops_every_credential(place, status):
    place.secure.redirects["/down"] = (status, f"{place.town.stranger_url}/caught")
    async with place.client() as client:
        await client.get(f"{place.url}/down", headers=MARKS, follow=True)
    assert place.secure.requests[0].bearer
    (caught,) = place.town.stranger.requests
    assert caught.scheme == "http"
    place.assert_learned_nothing(caught)


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("where", ["another port", "another host"])
async def test_a_redirect_to_another_https_origin_drops_every_credential(place, status, where):
    """The other host is a name of the same server, with the same certificate: HTTP/2 could use the same connection."""
    away = place.other_url if where == "another port" else place.url.replace("127.0.0.1", "localhost")
    place.secure.redirects["/away"] = (status, f"{away}/caught")
    async with place.client() as client:
        await client.get(f"{place.url}/away", headers=MARKS, follow=True)
    caught = (place.other if where == "another port" else place.secure).requests[-1]
    assert (caught.target, caught.scheme, caught.version) == ("/caught", "https", place.version)
    place.assert_learned_nothing(caught)


@pytest.mark.parametrize("down", [True, False], ids=["to http", "to another https port"])
async def test_a_body_does_not_leave_the_origin_with_a_redirect(place, down):
    away = place.town.stranger_url if down else place.other_url
    place.secure.redirects["/away"] = (307, f"{away}/caught")
    async with place.client() as client:
        with pytest.raises(OutboundError, match="not followed"):
            await client.send("POST", f"{place.url}/away", body=b"invoice of acme", follow=True)
    assert place.town.stranger.requests == place.other.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_stranger_can_not_send_a_call_up_to_the_destination_in_the_caller_s_name(place, scheme):
    app, url = (place.town.stranger, place.town.stranger_url) if scheme == "http" else (place.other, place.other_url)
    app.redirects["/hook"] = (307, f"{place.url}/delete-everything")
    async with place.client() as client:
        await client.send("POST", f"{url}/hook", body=b"event", follow=True)
        await client.get(f"{place.url}/next")
    assert [(one.target, bool(one.bearer)) for one in place.secure.requests] == [
        ("/delete-everything", False),
        ("/next", True),
    ]


async def test_the_same_host_and_port_without_tls_is_not_the_destination(place):
    async with place.client() as client:
        with pytest.raises(Exception):  # noqa: B017 - a TLS server speaks no plain HTTP, as each client says
            with anyio.fail_after(5):
                await client.get(place.url.replace("https", "http") + "/x")
        await client.get(f"{place.other_url}/x")
    assert place.secure.requests == []
    place.assert_learned_nothing(place.other.requests[0])


async def test_a_server_with_a_certificate_that_nobody_vouches_for_gets_nothing(place):
    async with place.client(trusted=False) as client:
        with pytest.raises(Exception, match=r"(?i)certificate"):
            await client.get(f"{place.url}/x")
    assert place.secure.requests == []


async def test_one_pooled_client_carries_many_callers_at_once_each_as_itself(place):
    """With HTTP/2 their requests share one connection."""
    async with place.client() as client:

        async def call(number):
            with bind(*caller(place.town.issuer, f"user{number}", f"tenant{number % 3}", scopes="invoices:read")):
                for _ in range(3):
                    await client.get(f"{place.url}/of/user{number}")

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(call, number)
    assert len(place.secure.requests) == 30
    for captured in place.secure.requests:
        carried = jwt.decode(captured.bearer, options={"verify_signature": False})
        assert captured.target == f"/of/{carried['sub']}"
        assert carried["tenant_id"] == f"tenant{int(carried['sub'][4:]) % 3}"
