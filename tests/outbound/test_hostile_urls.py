"""URLs and redirects that dress one host up as another: no credential leaves the declared origin, by any client.

Each URL is really requested. Whatever a client makes of it, the stranger must never learn a token, and the destination's
own server gets one only where the URL names the declared origin.
"""

import anyio
import pytest

from tenantguard.context import bind
from tests.support.callers import caller
from tests.support.outbound_clients import CLIENTS, open_client

pytestmark = pytest.mark.anyio

# {d} is the destination's port, {s} the stranger's. The declared origin is http://127.0.0.1:{d}.
HOSTILE = [
    # user information
    "http://127.0.0.1:{d}@127.0.0.1:{s}/",
    "http://127.0.0.1@127.0.0.1:{s}/",
    "http://user:pass@127.0.0.1:{s}/",
    "http://user:pass@127.0.0.1:{d}/",
    "http://@127.0.0.1:{s}/",
    "http://:@127.0.0.1:{s}/",
    "http://127.0.0.1:{d}%40127.0.0.1:{s}/",
    "http://127.0.0.1:{d}%2f@127.0.0.1:{s}/",
    "http://127.0.0.1:{d}%00@127.0.0.1:{s}/",
    "http://127.0.0.1:{d}@@127.0.0.1:{s}/",
    "http://a@127.0.0.1:{d}@127.0.0.1:{s}/",
    "http://127.0.0.1:{s}@127.0.0.1:{d}/",
    "http://[127.0.0.1:{d}]@127.0.0.1:{s}/",
    # backslashes, spaces, control characters
    "http://127.0.0.1:{s}\\@127.0.0.1:{d}/",
    "http://127.0.0.1:{d}\\@127.0.0.1:{s}/",
    "http://127.0.0.1:{s}\\127.0.0.1:{d}/",
    "http:\\\\127.0.0.1:{s}\\",
    "http:/\\127.0.0.1:{s}/",
    "http://127.0.0.1:{s}\t@127.0.0.1:{d}/",
    "http://127.0.0.1:{s}\r\nHost: 127.0.0.1:{d}\r\n/",
    "http://127.0.0.1:{s}/\r\nX-Injected: 1",
    "http://127.0.0.1:{s} .127.0.0.1:{d}/",
    "http://127.0.0.1:{s}\x00.127.0.0.1:{d}/",
    "http://127.0.0.1:{s}%0d%0aX-Injected:1/",
    " http://127.0.0.1:{s}/",
    "http://127.0.0.1:{s}/ ",
    "http://127.0.0.1:{s}\u2028/",
    # the origin in another part of the URL
    "http://127.0.0.1:{s}/http://127.0.0.1:{d}/",
    "http://127.0.0.1:{s}?http://127.0.0.1:{d}/",
    "http://127.0.0.1:{s}#@127.0.0.1:{d}/",
    "http://127.0.0.1:{s}#http://127.0.0.1:{d}/",
    "http://127.0.0.1:{s};@127.0.0.1:{d}/",
    "http://127.0.0.1:{s}?@127.0.0.1:{d}/",
    "http://127.0.0.1:{s}/@127.0.0.1:{d}/",
    "http://127.0.0.1:{s}/..//127.0.0.1:{d}/",
    # other spellings of this machine: undeclared, whoever answers there
    "http://localhost:{d}/",
    "http://LOCALHOST:{d}/",
    "http://localhost.:{d}/",
    "http://127.1:{d}/",
    "http://2130706433:{d}/",
    "http://0x7f000001:{d}/",
    "http://0x7f.0.0.1:{d}/",
    "http://0177.0.0.1:{d}/",
    "http://017700000001:{d}/",
    "http://127.0.0.1.:{d}/",
    "http://127.0.0.2:{d}/",
    "http://0.0.0.0:{d}/",
    "http://0:{d}/",
    "http://[::ffff:127.0.0.1]:{d}/",
    "http://[::ffff:7f00:1]:{d}/",
    "http://[::1]:{d}/",
    "http://[::]:{d}/",
    "http://①②⑦.0.0.1:{s}/",
    "http://127。0。0。1:{s}/",
    "http://127%2e0%2e0%2e1:{s}/",
    # ports and schemes
    "http://127.0.0.1:{s}",
    "http://127.0.0.1:0{s}/",
    "http://127.0.0.1:{d}:{s}/",
    "http://127.0.0.1:{d}{s}/",
    "http://127.0.0.1:-{s}/",
    "http://127.0.0.1:{s}.{d}/",
    "https://127.0.0.1:{d}/",
    "HTTP://127.0.0.1:{s}/",
    "ws://127.0.0.1:{s}/",
    "//127.0.0.1:{s}/",
    "http:127.0.0.1:{s}/",
    "http:///127.0.0.1:{s}/",
    "ftp://127.0.0.1:{d}/",
    # names
    "http://127.0.0.1.localhost:{s}/",
    "http://127.0.0.1-localhost:{s}/",
    "http://xn--127-0-0-1.localhost:{s}/",
]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=CLIENTS)
def kind(request):
    return request.param


async def attempt(client, url, **options):
    """Send a request that a client may refuse in any way it likes."""
    try:
        with anyio.fail_after(20):
            await client.get(url, **options)
    except Exception:  # noqa: BLE001 - and each does so in its own way
        return


def assert_nobody_learned_anything(town, credential, issued):
    for captured in town.stranger.requests:
        assert "authorization" not in captured.headers or captured.headers["authorization"].startswith("Basic ")
        assert "txn-token" not in captured.headers
        assert credential.reveal() not in captured.everything
        assert not [token for token in issued if token in captured.everything]
        assert "key-of-the-destination" not in captured.everything


def tokens_at_the_destination(town):
    return {captured.bearer for captured in town.billing.requests if captured.bearer}


@pytest.mark.parametrize("mode", ["exchange", "forward"])
async def test_no_hostile_url_gets_a_token_to_anybody(town, kind, mode):
    identity, credential = caller(town.issuer, scopes="invoices:read")
    own = {} if mode == "exchange" else {"mode": "forward"}
    async with open_client(kind, [town.destination(**own)], town.exchange()) as client:
        with bind(identity, credential):
            await client.get(f"{town.billing_url}/real")
            issued = tokens_at_the_destination(town)
            assert len(issued) == 1
            town.billing.requests.clear()
            for template in HOSTILE:
                await attempt(client, template.format(d=town.billing_port, s=town.stranger_port))
    assert len(HOSTILE) >= 60
    assert town.stranger.requests, "some of the URLs do reach the stranger"
    assert_nobody_learned_anything(town, credential, issued)
    # Its own server is reached by other names too, and gets nothing then. Some clients mend a URL (aiohttp takes user
    # information out of it) and then really call the declared origin.
    assert {one.headers["host"] for one in town.billing.requests if one.bearer} <= {f"127.0.0.1:{town.billing_port}"}
    if kind.startswith("httpx"):
        assert tokens_at_the_destination(town) == set()


async def test_no_hostile_redirect_takes_a_token_to_anybody(town, kind):
    identity, credential = caller(town.issuer, scopes="invoices:read")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(identity, credential):
            for number, template in enumerate(HOSTILE):
                location = template.format(d=town.billing_port, s=town.stranger_port)
                location = location.encode("utf-8", "surrogatepass").decode("latin-1")
                if not location.isprintable():
                    continue  # no server can send it in a header
                town.billing.redirects[f"/away{number}"] = (302 if number % 2 else 307, location)
                await attempt(
                    client,
                    f"{town.billing_url}/away{number}",
                    headers={"X-Api-Key": "key-of-the-destination"},
                    follow=True,
                )
    began = [captured for captured in town.billing.requests if captured.target.startswith("/away")]
    assert len(began) > 50
    assert len(town.stranger.requests) > 10, "some of the redirects do reach the stranger"
    assert_nobody_learned_anything(town, credential, tokens_at_the_destination(town))
    declared = f"127.0.0.1:{town.billing_port}"
    for captured in town.billing.requests:
        if captured.headers["host"] != declared:
            assert captured.bearer is None


async def test_long_redirect_chains_between_origins_end_with_nothing_carried(town, kind):
    identity, credential = caller(town.issuer, scopes="invoices:read")
    for number in range(8):
        here, there = (town.billing, town.stranger_url) if number % 2 == 0 else (town.stranger, town.billing_url)
        here.redirects[f"/hop{number}"] = (302, f"{there}/hop{number + 1}")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(identity, credential):
            await attempt(client, f"{town.billing_url}/hop0", follow=True)
    assert [bool(captured.bearer) for captured in town.billing.requests] == [True, False, False, False, False]
    assert len(town.stranger.requests) == 4
    assert_nobody_learned_anything(town, credential, tokens_at_the_destination(town))
