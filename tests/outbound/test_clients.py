"""What each HTTP client puts on the wire, seen by servers on loopback that remember every request."""

import copy
import http.server
import pickle
import threading
from urllib.parse import quote

import anyio
import anyio.to_thread
import jwt
import pytest

from tenantguard.binding import Credential
from tenantguard.context import bind
from tenantguard.errors import ExchangeError, NotBound, OutboundError
from tests.support.callers import caller
from tests.support.outbound_clients import CLIENTS, Sender, open_client

pytestmark = pytest.mark.anyio
SCOPES = "invoices:read invoices:write"
REDIRECTS = (301, 302, 303, 307, 308)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=CLIENTS)
def kind(request):
    return request.param


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def secrets_in(captured, *secrets):
    everything = captured.everything
    return [secret for secret in secrets if secret in everything]


async def test_a_call_to_a_destination_carries_the_bound_caller(town, kind):
    async with open_client(kind, town.destination(), town.exchange()) as client:
        for subject, tenant in (("alice", "acme"), ("bob", "globex")):
            with bind(*caller(town.issuer, subject, tenant, scopes=SCOPES)):
                assert (await client.get(f"{town.billing_url}/invoices")).status == 200
            carried = claims(town.billing.requests[-1].bearer)
            assert (carried["sub"], carried["tenant_id"], carried["aud"]) == (subject, tenant, "billing")
            assert (carried["scope"], carried["act"]["sub"]) == ("invoices:read", "documents")


async def test_a_call_to_anybody_else_carries_nothing(town, kind):
    identity, credential = caller(town.issuer, scopes=SCOPES)
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        with bind(identity, credential):
            await client.get(f"{town.stranger_url}/x")
            await client.get(f"http://localhost:{town.billing_port}/x")
    for captured in (*town.stranger.requests, *town.billing.requests):
        assert "authorization" not in captured.headers
        assert "cookie" not in captured.headers
        assert not secrets_in(captured, credential.reveal(), "alice", "acme")


async def test_without_a_caller_nothing_is_sent(town, kind):
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with pytest.raises(NotBound):
            await client.get(f"{town.billing_url}/x")
        identity, _ = caller(town.issuer)
        with bind(identity), pytest.raises(NotBound):
            await client.get(f"{town.billing_url}/x")
    assert town.billing.requests == []


async def test_if_no_token_can_be_had_nothing_is_sent_and_the_raw_token_is_no_substitute(town, kind):
    async with open_client(kind, town.destination(), town.exchange(client_id="nobody")) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)), pytest.raises(ExchangeError, match="invalid_client"):
            await client.get(f"{town.billing_url}/x")
    assert town.billing.requests == []


async def test_one_pooled_client_carries_each_of_many_concurrent_callers_as_itself(town, kind):
    seen = []
    async with open_client(kind, town.destination(), town.exchange()) as client:

        async def call(number):
            with bind(*caller(town.issuer, f"user{number}", f"tenant{number % 7}", scopes=SCOPES)):
                for _ in range(3):
                    await client.get(f"{town.billing_url}/of/user{number}")
                    await anyio.sleep(0)

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(call, number)
    for captured in town.billing.requests:
        carried = claims(captured.bearer)
        seen.append(carried["sub"])
        assert captured.target == f"/of/{carried['sub']}"
        assert carried["tenant_id"] == f"tenant{int(carried['sub'][4:]) % 7}"
    assert len(seen) == 90


async def test_no_cookie_of_one_caller_goes_along_with_the_next(town, kind):
    town.billing.redirects["/login"] = (302, "/after")  # sets a cookie
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{town.billing_url}/login", follow=True)
        with bind(*caller(town.issuer, "bob", "globex", scopes=SCOPES)):
            await client.get(f"{town.billing_url}/profile")
    assert [captured.target for captured in town.billing.requests] == ["/login", "/after", "/profile"]
    assert "cookie" not in town.billing.requests[-1].headers


async def test_a_body_that_is_streamed_arrives_whole_and_with_the_caller(town, kind):
    parts = [b"%06d\n" % number for number in range(2000)]
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.send("POST", f"{town.billing_url}/upload", body=parts)
    (captured,) = town.billing.requests
    assert captured.body == b"".join(parts)
    assert claims(captured.bearer)["sub"] == "alice"


# --- redirects ----------------------------------------------------------------------------------------------

MARKS = {"X-Api-Key": "key-of-the-destination", "Cookie": "own=cookie-of-the-destination", "X-Note": "note-for-billing"}


@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_redirect_to_another_origin_drops_every_credential(town, kind, status):
    identity, credential = caller(town.issuer, scopes=SCOPES)
    town.billing.redirects["/away"] = (status, f"{town.stranger_url}/caught")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(identity, credential):
            await client.get(f"{town.billing_url}/away", headers=MARKS, follow=True)
    assert town.billing.requests[0].bearer
    (caught,) = town.stranger.requests
    assert set(caught.headers) <= {"host", "accept", "accept-encoding", "connection", "user-agent"}
    assert not secrets_in(caught, town.billing.requests[0].bearer, credential.reveal(), *MARKS.values())


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("form", ["whole", "streamed"])
async def test_a_body_that_is_redirected_to_another_origin_is_not_sent(town, kind, status, form):
    town.billing.redirects["/away"] = (status, f"{town.stranger_url}/caught")
    body = b"invoice of acme" if form == "whole" else [b"invoice ", b"of acme"]
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            # A streamed body can't be sent twice: most clients say so before anything else is looked at.
            with pytest.raises(Exception, match=r"not followed|[Rr]ewind|[Ss]tream|consumed|redirect") as raised:
                await client.send("POST", f"{town.billing_url}/away", body=body, follow=True)
            assert form == "streamed" or isinstance(raised.value, OutboundError)
    assert town.stranger.requests == []


@pytest.mark.parametrize("status", [302, 303])
async def test_a_post_that_becomes_a_get_on_its_way_to_another_origin_leaves_its_headers_behind(town, kind, status):
    town.billing.redirects["/away"] = (status, f"{town.stranger_url}/caught")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.send("POST", f"{town.billing_url}/away", body=b"invoice", headers=MARKS, follow=True)
    (caught,) = town.stranger.requests
    assert (caught.method, caught.body) == ("GET", b"")
    assert not secrets_in(caught, "invoice", *MARKS.values())


async def test_a_redirect_inside_the_origin_keeps_the_token(town, kind):
    town.billing.redirects["/old"] = (307, "/new")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.send("POST", f"{town.billing_url}/old", body=b"invoice", follow=True)
    first, second = town.billing.requests
    assert first.bearer == second.bearer is not None
    assert second.body == b"invoice"


async def test_a_way_back_to_the_destination_over_a_stranger_carries_nothing(town, kind):
    town.billing.redirects["/away"] = (302, f"{town.stranger_url}/bounce")
    town.stranger.redirects["/bounce"] = (302, f"{town.billing_url}/delete-everything")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{town.billing_url}/away", follow=True)
            last = town.billing.requests[-1]
            assert (last.target, last.bearer) == ("/delete-everything", None)
            await client.get(f"{town.billing_url}/next")
    assert town.billing.requests[-1].bearer, "and the next call is carried again"


@pytest.mark.parametrize("status", [302, 307])
async def test_a_stranger_that_redirects_to_a_destination_can_not_choose_what_is_called_for_the_caller(
    town, kind, status
):
    town.stranger.redirects["/hook"] = (status, "/second")
    town.stranger.redirects["/second"] = (status, f"{town.billing_url}/delete-everything")
    town.billing.redirects["/delete-everything"] = (status, "/really")
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.send("POST", f"{town.stranger_url}/hook", body=b"event", follow=True)
    assert [one.target for one in town.billing.requests] == ["/delete-everything", "/really"]
    assert [one.bearer for one in town.billing.requests] == [None, None]


@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_redirect_of_a_body_that_is_not_followed_is_an_answer_like_any_other(town, kind, status):
    town.billing.redirects["/away"] = (status, f"{town.stranger_url}/caught")
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            answer = await client.send("POST", f"{town.billing_url}/away", body=b"invoice of acme")
    assert (answer.status, town.stranger.requests) == (status, [])


async def test_who_follows_redirects_of_requests_by_hand_hands_nobody_anything(town):
    town.billing.redirects["/away"] = (302, f"{town.stranger_url}/caught")
    town.billing.redirects["/with-body"] = (307, f"{town.stranger_url}/caught")
    town.stranger.redirects["/hook"] = (302, f"{town.billing_url}/delete-everything")
    async with open_client("requests", [town.destination()], town.exchange()) as client:

        def by_hand():
            with bind(*caller(town.issuer, scopes=SCOPES)):
                for method, url in (
                    ("GET", f"{town.billing_url}/away"),
                    ("GET", f"{town.stranger_url}/hook"),
                    ("POST", f"{town.billing_url}/with-body"),
                ):
                    answer = client.client.request(method, url, data=b"invoice", headers=MARKS, allow_redirects=False)
                    assert "Authorization" not in answer.next.headers
                    if method == "GET":
                        client.client.send(answer.next)
                    else:
                        assert answer.next.body is None
                        with pytest.raises(OutboundError, match="not followed"):
                            client.client.send(answer.next)

        await anyio.to_thread.run_sync(by_hand)
    assert [(one.target, bool(one.bearer)) for one in town.billing.requests] == [
        ("/away", True),
        ("/delete-everything", False),
        ("/with-body", True),
    ]
    assert not secrets_in(town.stranger.requests[0], *MARKS.values())


async def test_proxies_and_passwords_of_the_environment_are_not_used(town, kind, monkeypatch, tmp_path):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, town.stranger_url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "netrc").write_text("default login somebody password of-the-machine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{town.billing_url}/x")
        assert town.stranger.requests == []
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{town.stranger_url}/y")
    assert [one.target for one in town.billing.requests] == ["/x"]
    assert town.billing.requests[0].bearer
    assert [(one.target, "authorization" in one.headers) for one in town.stranger.requests] == [("/y", False)]


async def test_a_copy_of_a_client_carries_the_caller_as_the_client_does_or_sends_nothing(town, kind):
    town.billing.redirects["/away"] = (302, f"{town.stranger_url}/caught")
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        other = Sender(kind, copy.copy(client.client))
        with pytest.raises((TypeError, AttributeError)), bind(*caller(town.issuer, scopes=SCOPES)):
            await Sender(kind, pickle.loads(pickle.dumps(client.client))).get(f"{town.billing_url}/x")
        with bind(*caller(town.issuer, scopes=SCOPES)):
            if kind == "requests":
                with pytest.raises(AttributeError):
                    await other.get(f"{town.billing_url}/away", headers=MARKS, follow=True)
                return
            await other.get(f"{town.billing_url}/away", headers=MARKS, follow=True)
    assert [bool(one.bearer) for one in town.billing.requests] == [True]
    assert not secrets_in(town.stranger.requests[0], town.billing.requests[0].bearer, *MARKS.values())


HTTPX = ("httpx2", "httpx2-sync", "httpx", "httpx-sync")


async def in_thread_or_loop(client, call):
    found = await anyio.to_thread.run_sync(call) if client.kind.endswith("-sync") else call()
    return await found if hasattr(found, "__await__") else found


@pytest.mark.parametrize("kind", HTTPX, indirect=True)
async def test_who_follows_redirects_by_hand_lets_no_stranger_choose_what_is_called_for_the_caller(town, kind):
    town.stranger.redirects["/hook"] = (302, f"{town.billing_url}/delete-everything")
    town.billing.redirects["/delete-everything"] = (302, "/really")
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            answer = await in_thread_or_loop(client, lambda: client.client.get(f"{town.stranger_url}/hook"))
            while answer.next_request is not None:
                following = answer.next_request
                answer = await in_thread_or_loop(client, lambda: client.client.send(following))  # noqa: B023
            await client.get(f"{town.billing_url}/next")
    assert [one.target for one in town.billing.requests] == ["/delete-everything", "/really", "/next"]
    assert [one.bearer is not None for one in town.billing.requests] == [False, False, True]


@pytest.mark.parametrize("auth", [None, ("user", "password")], ids=["no auth", "another auth"])
@pytest.mark.parametrize("kind", HTTPX, indirect=True)
async def test_a_request_with_an_auth_of_its_own_hands_nobody_what_came_in(town, kind, auth):
    identity, credential = caller(town.issuer, scopes=SCOPES)
    copied = {"Authorization": f"Bearer {credential.reveal()}", "X-Copy": credential.reveal()}
    for url in (town.stranger_url, town.billing_url):
        for strict in (True, False):
            async with open_client(kind, [town.destination()], town.exchange(), strict=strict) as client:

                def call(client=client, url=url):
                    return client.client.get(f"{url}/x", auth=auth, headers=copied)

                with bind(identity, credential):
                    if strict:
                        with pytest.raises(OutboundError):
                            await in_thread_or_loop(client, call)
                    else:
                        await in_thread_or_loop(client, call)
    assert (len(town.stranger.requests), len(town.billing.requests)) == (1, 1)
    for captured in (*town.stranger.requests, *town.billing.requests):
        assert not secrets_in(captured, credential.reveal())


async def test_redirects_are_not_followed_unless_asked_for(town):
    town.billing.redirects["/away"] = (302, f"{town.stranger_url}/caught")
    for kind in ("httpx2", "httpx2-sync", "httpx"):
        async with open_client(kind, town.destination(), town.exchange()) as client:
            with bind(*caller(town.issuer, scopes=SCOPES)):
                if kind.endswith("-sync"):
                    answer = await anyio.to_thread.run_sync(client.client.get, "/away")
                else:
                    answer = await client.client.get("/away")
        assert answer.status_code == 302
    assert town.stranger.requests == []


# --- what the app adds by mistake ---------------------------------------------------------------------------


def inbound(identity_and_credential, **headers):
    identity, credential = identity_and_credential
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"authorization", f"Bearer {credential.reveal()}".encode()))
    return identity, Credential(credential.reveal(), inbound=pairs)


MISTAKES = [
    {"Authorization": "Bearer {token}"},
    {"X-Forwarded-Access-Token": "{token}"},
    {"X-Debug": "caller={token};"},
    {"Cookie": "session=0123456789abcdef"},
    {"Cookie": "lang=en; session=0123456789abcdef"},
    {"DPoP": "eyJ.proof.of-possession"},
    {"Proxy-Authorization": "Basic cHJveHk6c2VjcmV0"},
    {"X-Tenant-ID": "acme"},
    {"X_Tenant_Id": "acme"},
    {"X-User-Id": "alice"},
    {"X-Forwarded-User": "alice"},
    {"X-Api-Key": "tg_key_of_the_caller"},
]
CAME_IN = {
    "cookie": "session=0123456789abcdef; lang=en",
    "dpop": "eyJ.proof.of-possession",
    "proxy_authorization": "Basic cHJveHk6c2VjcmV0",
    "x_api_key": "tg_key_of_the_caller",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: "_".join(next(iter(one.items()))))
async def test_strict_mode_refuses_a_request_to_a_stranger_that_holds_what_came_in(town, kind, mistake):
    identity, credential = inbound(caller(town.issuer, scopes=SCOPES), **CAME_IN)
    headers = {name: value.format(token=credential.reveal()) for name, value in mistake.items()}
    async with open_client(kind, [town.destination()], town.exchange(), strict=True) as client:
        with bind(identity, credential), pytest.raises(OutboundError, match="no declared destination") as raised:
            await client.get(f"{town.stranger_url}/x", headers=headers)
        assert credential.reveal() not in str(raised.value)
        assert "0123456789abcdef" not in str(raised.value)
    assert town.stranger.requests == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: "_".join(next(iter(one.items()))))
async def test_otherwise_it_is_taken_off_and_logged(town, kind, mistake, caplog):
    identity, credential = inbound(caller(town.issuer, scopes=SCOPES), **CAME_IN)
    headers = {name: value.format(token=credential.reveal()) for name, value in mistake.items()}
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        with bind(identity, credential):
            await client.get(f"{town.stranger_url}/x", headers=headers | {"X-Own": "stays"})
    (captured,) = town.stranger.requests
    assert captured.headers["x-own"] == "stays"
    assert not secrets_in(captured, *headers.values(), credential.reveal())
    (record,) = [one for one in caplog.records if one.name == "tenantguard.outbound"]
    assert next(iter(mistake)).lower() in record.getMessage()
    assert credential.reveal() not in record.getMessage()


async def test_what_the_app_adds_of_its_own_is_left_alone(town, kind):
    identity, credential = inbound(caller(town.issuer, scopes=SCOPES), **CAME_IN)
    own = {"Authorization": "Basic c3RyYW5nZXI6c2VjcmV0", "Cookie": "lang=en", "X-Api-Key": "own", "X-User-Id": "7"}
    async with open_client(kind, [town.destination()], town.exchange(), strict=True) as client:
        with bind(identity, credential):
            await client.get(f"{town.stranger_url}/x", headers=own)
    (captured,) = town.stranger.requests
    assert {name: captured.headers[name.lower()] for name in own} == own


async def test_the_caller_s_token_in_a_url_is_always_refused(town, kind):
    identity, credential = caller(town.issuer, scopes=SCOPES)
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        for url in (town.stranger_url, town.billing_url):
            with bind(identity, credential), pytest.raises(OutboundError, match="URL"):
                await client.get(f"{url}/x?access_token={credential.reveal()}")
    assert town.stranger.requests == town.billing.requests == []


async def test_a_token_that_a_url_must_escape_is_refused_there_too(town, kind):
    identity, _ = caller(town.issuer)
    opaque = Credential("mF_9.B5f/4+1JqM/c2VjcmV0Zm9yYWxpY2U==")
    async with open_client(kind, [town.destination()], town.exchange()) as client:
        for url in (town.stranger_url, town.billing_url):
            with bind(identity, opaque), pytest.raises(OutboundError, match="URL"):
                await client.get(f"{url}/x?access_token={quote(opaque.reveal(), safe='')}")
    assert town.stranger.requests == town.billing.requests == []


async def test_the_app_s_own_authorization_for_a_destination_is_replaced(town, kind):
    identity, credential = caller(town.issuer, scopes=SCOPES)
    async with open_client(kind, town.destination(), town.exchange(), strict=True) as client:
        with bind(identity, credential):
            await client.get(f"{town.billing_url}/x", headers={"Authorization": f"Bearer {credential.reveal()}"})
            await client.get(f"{town.billing_url}/x", headers={"authorization": "Basic eDp5"})
    for captured in town.billing.requests:
        assert claims(captured.bearer)["aud"] == "billing"


# --- modes --------------------------------------------------------------------------------------------------


async def test_the_mode_none_carries_nothing_and_needs_nobody(town, kind):
    async with open_client(kind, town.destination(mode="none"), None) as client:
        await client.get(f"{town.billing_url}/x")
        identity, credential = caller(town.issuer)
        with bind(identity, credential):
            await client.get(f"{town.billing_url}/x", headers={"X-Debug": credential.reveal()})
    for captured in town.billing.requests:
        assert "authorization" not in captured.headers
        assert not secrets_in(captured, credential.reveal())


async def test_the_mode_forward_carries_the_caller_s_own_token(town, kind):
    identity, credential = caller(town.issuer)
    async with open_client(kind, town.destination(mode="forward"), None, strict=True) as client:
        with bind(identity, credential):
            await client.get(f"{town.billing_url}/x")
    assert town.billing.requests[0].bearer == credential.reveal()


async def test_the_mode_client_credentials_carries_the_service_whoever_is_bound(town, kind):
    own = town.destination(mode="client_credentials", scopes="sync:run")
    async with open_client(kind, own, town.exchange()) as client:
        await client.get(f"{town.billing_url}/x")
        with bind(*caller(town.issuer)):
            await client.get(f"{town.billing_url}/x")
    for captured in town.billing.requests:
        carried = claims(captured.bearer)
        assert (carried["sub"], carried["scope"], carried.get("act")) == ("documents", "sync:run", None)


async def test_the_mode_transaction_carries_one_transaction_through_a_request(town, kind):
    async with open_client(
        kind, town.destination(mode="transaction", audience="trust.example"), town.exchange()
    ) as client:
        for _ in range(2):
            with bind(*caller(town.issuer, scopes=SCOPES)):
                await client.get(f"{town.billing_url}/x", headers={"Authorization": "Basic Y2hhbm5lbDphdXRo"})
                await client.get(f"{town.billing_url}/x")
    tokens = [captured.headers["txn-token"] for captured in town.billing.requests]
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3], "each request is a transaction of its own"
    assert town.billing.requests[0].headers["authorization"] == "Basic Y2hhbm5lbDphdXRo", "the app's own channel"
    carried = claims(tokens[0])
    assert jwt.get_unverified_header(tokens[0])["typ"] == "txntoken+jwt"
    assert (carried["aud"], carried["sub"], carried["tctx"]["tenant_id"]) == ("trust.example", "alice", "acme")
    assert (carried["scope"], carried["req_wl"]) == ("invoices:read", "documents")


@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_redirect_to_another_origin_drops_the_transaction_token(town, kind, status):
    town.billing.redirects["/away"] = (status, f"{town.stranger_url}/caught")
    inside = town.destination(mode="transaction", audience="trust.example")
    async with open_client(kind, inside, town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{town.billing_url}/away", follow=True)
    assert town.billing.requests[0].headers["txn-token"]
    assert "txn-token" not in town.stranger.requests[0].headers
    assert not secrets_in(town.stranger.requests[0], town.billing.requests[0].headers["txn-token"])


# --- answers ------------------------------------------------------------------------------------------------


async def test_a_token_that_the_destination_refuses_is_asked_for_anew_when_it_is_not_brand_new(town, kind, monkeypatch):
    monkeypatch.setattr("tenantguard.outbound.exchange.FORGET_AFTER", 0.0)
    town.billing.statuses["/x"] = 401
    async with open_client(kind, town.destination(), town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            for _ in range(2):
                assert (await client.get(f"{town.billing_url}/x")).status == 401
    assert town.billing.requests[0].bearer != town.billing.requests[1].bearer


class Flaky(http.server.BaseHTTPRequestHandler):
    """Closes each connection after one answer without saying so, and answers 503 every second time."""

    def do_GET(self):
        self.server.seen.append(self.headers.get("authorization"))
        status = 503 if len(self.server.seen) % 2 else 200
        self.wfile.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status)
        self.close_connection = True

    def log_message(self, *args):
        pass


async def test_retries_over_connections_that_break_carry_the_caller_each_time(town, kind):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        declared = type(town.destination())(url, audience="billing", scopes="invoices:read")
        async with open_client(kind, declared, town.exchange()) as client:
            with bind(*caller(town.issuer, scopes=SCOPES)):
                for _ in range(4):
                    answer = await client.get(f"{url}/x")
                    await anyio.sleep(0.01)
        assert answer.status == 200
        assert len(server.seen) == 4
        assert len(set(server.seen)) == 1
        assert claims(server.seen[0].removeprefix("Bearer "))["sub"] == "alice"
    finally:
        server.shutdown()
        server.server_close()


class Bouncer(http.server.BaseHTTPRequestHandler):
    """Answers one request on a connection and breaks the connection at the next one, each time anew."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, {name.lower() for name in self.headers}))
        self.close_connection = getattr(self, "answered", False)
        if self.close_connection:
            return
        self.answered = True
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def bouncer():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bouncer)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()


async def test_a_redirect_to_a_destination_that_is_tried_again_still_carries_nobody(town, bouncer):
    town.stranger.redirects["/hook"] = (302, f"{bouncer.url}/delete-everything")
    declared = type(town.destination())(bouncer.url, audience="billing", scopes="invoices:read")
    async with open_client("aiohttp", [declared], town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{bouncer.url}/warm")
            await client.get(f"{town.stranger_url}/hook", follow=True)
    chosen = [names for path, names in bouncer.seen if path == "/delete-everything"]
    assert len(chosen) == 2, "it was tried again"
    assert not any("authorization" in names for names in chosen)


async def test_a_redirect_away_from_a_destination_that_is_tried_again_still_keeps_nothing(town, bouncer):
    town.billing.redirects["/away"] = (302, f"{bouncer.url}/landed")
    async with open_client("aiohttp", [town.destination()], town.exchange()) as client:
        with bind(*caller(town.issuer, scopes=SCOPES)):
            await client.get(f"{bouncer.url}/warm")
            await client.get(f"{town.billing_url}/away", headers={"X-Partner-Key": "s3cret"}, follow=True)
    landed = [names for path, names in bouncer.seen if path == "/landed"]
    assert len(landed) == 2, "it was tried again"
    assert not any("x-partner-key" in names for names in landed)
