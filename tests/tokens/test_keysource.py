"""Keys over time, against a real issuer on loopback: rotation, outage, floods of key ids, hostile answers."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from tenantguard.errors import ConfigurationError, InvalidToken, IssuerUnavailable
from tenantguard.tokens import Issuer, TokenVerifier, keysource
from tests.support.waiting import PATIENCE, Clock, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which keys grow old: it stands still until a test moves it."""
    clock = Clock(1000.0)
    monkeypatch.setattr(keysource, "monotonic", clock)
    return clock


def held_until(released: threading.Event, answer: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return an answer of the issuer that comes once ``released`` is set, and a failure if it never is."""

    def held(handler: Any) -> None:
        if released.wait(PATIENCE):
            answer(handler)
        else:
            handler.reply(504, b"{}")

    return held


def verifier_for(server: Any, *, issuer: dict[str, Any] | None = None, **options: Any) -> TokenVerifier:
    declared = Issuer(server.url, audience="https://api.example.com", **(issuer or {}))
    return TokenVerifier([declared], **({"allow_private_addresses": True, "fetch_timeout": 20.0} | options))


async def test_keys_are_discovered_and_fetched_once(server: Any, lab: Any) -> None:
    verifier = verifier_for(server, cache_size=0)
    for _ in range(5):
        assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
    assert server.requests == {"/.well-known/openid-configuration": 1, "/jwks": 1}


async def test_rfc_8414_metadata_is_found_where_there_is_no_openid_configuration(server: Any, lab: Any) -> None:
    server.routes["/.well-known/oauth-authorization-server"] = server.routes.pop("/.well-known/openid-configuration")
    assert await verifier_for(server).verify(lab.ec.token(lab.claims(server.url)))


async def test_an_issuer_with_a_path_is_discovered_both_ways(server: Any, lab: Any) -> None:
    name = f"{server.url}/realms/acme"
    server.metadata["issuer"] = name
    metadata = server.routes.pop("/.well-known/openid-configuration")
    for path in (
        "/realms/acme/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/realms/acme",
    ):
        server.routes[path] = metadata
        verifier = TokenVerifier([Issuer(name, audience=lab.audience)], allow_private_addresses=True)
        assert await verifier.verify(lab.ec.token(lab.claims(name)))
        del server.routes[path]


@pytest.mark.parametrize("other", ["/", "x", ""])
async def test_metadata_that_names_another_issuer_is_refused(server: Any, lab: Any, other: str) -> None:
    server.metadata["issuer"] = server.url + other if other else "https://idp.example.com"
    with pytest.raises(IssuerUnavailable, match="character for character"):
        await verifier_for(server).verify(lab.ec.token(lab.claims(server.url)))
    assert server.requests["/jwks"] == 0


@pytest.mark.parametrize("uri", ["http://10.0.0.1/jwks", "ftp://x/jwks", "file:///etc/passwd", "", "//x", None, 7])
async def test_a_jwks_uri_that_is_not_https_is_refused(server: Any, lab: Any, uri: Any) -> None:
    server.metadata["jwks_uri"] = uri
    with pytest.raises(IssuerUnavailable):
        await verifier_for(server).verify(lab.ec.token(lab.claims(server.url)))


async def test_a_jwks_url_needs_no_discovery(server: Any, lab: Any) -> None:
    verifier = TokenVerifier(
        [Issuer(lab.issuer, audience=lab.audience, jwks=f"{server.url}/jwks", allow_private_addresses=True)]
    )
    assert await verifier.verify(lab.ec.token(lab.claims()))
    assert server.requests == {"/jwks": 1}


async def test_a_jwks_file_is_read_and_read_again_for_a_new_key(tmp_path: Path, lab: Any) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(lab.compact(lab.jwks(lab.ec)))
    verifier = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=path)])
    assert await verifier.verify(lab.ec.token(lab.claims()))
    path.write_bytes(lab.compact(lab.jwks(lab.ed)))
    assert await verifier.verify(lab.ed.token(lab.claims()))
    with pytest.raises(InvalidToken):
        await verifier.verify(lab.ec.token(lab.claims(jti="2")))
    gone = TokenVerifier([Issuer(lab.issuer, audience=lab.audience, jwks=tmp_path / "none.json")])
    with pytest.raises(IssuerUnavailable):
        await gone.verify(lab.ec.token(lab.claims()))


async def test_many_cold_requests_cause_one_fetch(server: Any, lab: Any) -> None:
    server.delay = 0.05
    verifier = verifier_for(server)
    found = []

    async def request(number: int) -> None:
        found.append(await verifier.verify(lab.ec.token(lab.claims(server.url, jti=str(number)))))

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(request, number)
    assert len(found) == 100
    assert server.requests == {"/.well-known/openid-configuration": 1, "/jwks": 1}


async def test_a_fetch_never_blocks_the_event_loop(server: Any, lab: Any) -> None:
    """The issuer answers each question only after the loop has gone on meanwhile."""
    went_on = {path: threading.Event() for path in ("/.well-known/openid-configuration", "/jwks")}
    for path, event in went_on.items():
        server.routes[path] = held_until(event, server.routes[path])
    verifier = verifier_for(server)

    async def go_on() -> None:
        for path, event in went_on.items():
            await until(lambda path=path: server.requests[path])
            for _ in range(20):
                await anyio.sleep(0.001)
            event.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        assert await verifier.verify(lab.ec.token(lab.claims(server.url)))


async def test_one_verifier_serves_several_event_loops_and_threads_at_once(server: Any, lab: Any) -> None:
    server.delay = 0.05
    verifier = verifier_for(server)
    results: list[Any] = []

    async def verify() -> None:
        results.append(await verifier.verify(lab.ec.token(lab.claims(server.url))))

    runners: list[Callable[[], object]] = [lambda: asyncio.run(verify()), lambda: trio.run(verify)] * 4
    threads = [threading.Thread(target=run) for run in runners]
    for thread in threads:
        thread.start()
    await verify()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    assert len(results) == 9
    assert server.requests["/jwks"] == 1


async def test_a_request_that_is_cancelled_spoils_the_fetch_for_nobody(server: Any, lab: Any) -> None:
    server.delay = 0.1
    verifier = verifier_for(server)
    token = lab.ec.token(lab.claims(server.url))
    with anyio.move_on_after(0.02) as scope:
        await verifier.verify(token)
    assert scope.cancelled_caught
    assert await verifier.verify(token)
    assert server.requests["/jwks"] == 1


# --- rotation --------------------------------------------------------------------------------------------


async def test_a_rotation_under_load_fails_no_request(server: Any, lab: Any) -> None:
    """The next key comes once every client has used the last one, so none holds a token of a key that is gone."""
    verifier = verifier_for(server, cache_size=0)
    current = lab.ec
    used: Counter[tuple[str, int]] = Counter()
    failed = 0
    over = False

    async def client(number: int) -> None:
        nonlocal failed
        while not over:
            key = current
            try:
                await verifier.verify(key.token(lab.claims(server.url, jti=str(number))))
                used[key.kid, number] += 1
            except InvalidToken:
                failed += 1
            await anyio.sleep(0.002)

    async def all_have_used(key: Any) -> None:
        await until(lambda: failed or all(used[key.kid, number] >= 3 for number in range(10)))

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(client, number)
        for _ in range(3):
            await all_have_used(current)
            fresh = lab.new_key()
            server.keys = [*server.keys[-1:], fresh]
            current = fresh
        await all_have_used(current)
        over = True
    assert failed == 0
    assert server.requests["/jwks"] == 4


async def test_a_key_that_appears_while_a_refresh_is_running_is_found(server: Any, lab: Any) -> None:
    verifier = verifier_for(server)
    assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
    fresh = lab.new_key()
    reached, publish = threading.Event(), threading.Event()
    answer = server.routes["/jwks"]

    def old_set_slowly(handler: Any) -> None:
        server.routes["/jwks"] = answer
        document = lab.compact(lab.jwks(lab.ec))
        reached.set()
        publish.wait(PATIENCE)
        handler.reply(200, document)

    server.routes["/jwks"] = old_set_slowly
    outcome: list[object] = []

    async def unknown() -> None:
        try:
            await verifier.verify(lab.new_key().token(lab.claims(server.url)))
        except InvalidToken as error:
            outcome.append(error.reason)

    async def rotated() -> None:
        outcome.append(await verifier.verify(fresh.token(lab.claims(server.url))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(unknown)
        await anyio.to_thread.run_sync(reached.wait, PATIENCE)
        server.keys = [lab.ec, fresh]
        tasks.start_soon(rotated)
        await anyio.sleep(0.05)
        publish.set()
    assert len(outcome) == 2
    assert any(not isinstance(one, str) for one in outcome)


async def test_a_withdrawn_key_drops_its_tokens_from_the_cache(server: Any, lab: Any) -> None:
    server.keys = [lab.ec, lab.ed]
    verifier = verifier_for(server)
    old, new = (key.token(lab.claims(server.url)) for key in (lab.ec, lab.ed))
    await verifier.verify(old)
    await verifier.verify(new)
    fresh = lab.new_key()
    server.keys = [lab.ed, fresh]
    await verifier.verify(fresh.token(lab.claims(server.url)))
    assert verifier.cached(new)
    assert verifier.cached(old) is None
    with pytest.raises(InvalidToken):
        await verifier.verify(old)


async def test_a_flood_of_unknown_key_ids_causes_few_fetches_and_good_tokens_pass(server: Any, lab: Any) -> None:
    verifier = verifier_for(server, cache_size=0)
    await verifier.verify(lab.ec.token(lab.claims(server.url)))
    refused = 0
    for number in range(300):
        with pytest.raises(InvalidToken):
            await verifier.verify(lab.ec.token(lab.claims(server.url), kid=f"forged-{number}"))
        refused += 1
        if number % 50 == 0:
            assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
    assert refused == 300
    assert server.requests["/jwks"] <= 1 + keysource.UNKNOWN_KID_BURST


async def test_a_client_that_keeps_sending_one_absent_key_id_costs_one_fetch(server: Any, lab: Any) -> None:
    verifier = verifier_for(server)
    for _ in range(50):
        with pytest.raises(InvalidToken):
            await verifier.verify(lab.ec.token(lab.claims(server.url), kid="absent"))
    assert server.requests["/jwks"] == 2
    fresh = lab.new_key()
    server.keys.append(fresh)
    assert await verifier.verify(fresh.token(lab.claims(server.url)))


async def test_pinned_keys_are_never_fetched(server: Any, lab: Any) -> None:
    verifier = TokenVerifier([Issuer(server.url, audience=lab.audience, jwks=lab.jwks(lab.ec))])
    with pytest.raises(InvalidToken):
        await verifier.verify(lab.ec.token(lab.claims(server.url), kid="forged"))
    assert not server.requests


async def test_an_unknown_issuer_costs_no_network(server: Any, lab: Any, new_server: Any) -> None:
    stranger = new_server()
    with pytest.raises(InvalidToken):
        await verifier_for(server).verify(lab.ec.token(lab.claims(stranger.url)))
    assert not stranger.requests
    assert not server.requests


# --- outage ----------------------------------------------------------------------------------------------


async def test_an_outage_is_survived_while_the_keys_are_not_too_old(server: Any, lab: Any, clock: Clock) -> None:
    verifier = verifier_for(server, issuer={"keys_fresh_for": 100, "keys_max_age": 200}, cache_size=0)
    await verifier.verify(lab.ec.token(lab.claims(server.url)))
    server.failing = True
    clock.now += 101
    for _ in range(20):
        assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
        await anyio.sleep(0.005)
    await until(lambda: server.requests["/jwks"] == 2)
    assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
    assert server.requests["/jwks"] == 2, "one refresh in the background, then a pause"
    clock.now += 100
    with pytest.raises(IssuerUnavailable) as caught:
        await verifier.verify(lab.ec.token(lab.claims(server.url)))
    assert caught.value.status == 503
    assert server.url not in (caught.value.detail or "")


async def test_stale_keys_are_renewed_in_the_background_and_no_request_waits(
    server: Any, lab: Any, clock: Clock
) -> None:
    """The issuer answers only after the requests were served: a request that waited for it would fail."""
    verifier = verifier_for(server, issuer={"keys_fresh_for": 100}, cache_size=0)
    await verifier.verify(lab.ec.token(lab.claims(server.url)))
    clock.now += 101
    served = threading.Event()
    server.routes["/jwks"] = held_until(served, server.routes["/jwks"])
    for _ in range(10):
        assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
    server.keys = [lab.ec, fresh := lab.new_key()]
    served.set()
    assert await verifier.verify(fresh.token(lab.claims(server.url)))
    assert server.requests["/jwks"] == 2


async def test_an_issuer_that_is_down_is_asked_again_only_after_a_pause(server: Any, lab: Any, clock: Clock) -> None:
    server.failing = True
    verifier = verifier_for(server)
    for _ in range(50):
        with pytest.raises(IssuerUnavailable):
            await verifier.verify(lab.ec.token(lab.claims(server.url)))
    assert server.requests["/.well-known/openid-configuration"] == 1
    server.failing = False
    clock.now += keysource.RETRY_FIRST + 0.1
    assert await verifier.verify(lab.ec.token(lab.claims(server.url)))


async def test_a_slow_issuer_holds_up_no_other(server: Any, lab: Any, new_server: Any) -> None:
    slow = new_server()
    slow.keys, released, ended = [lab.ec], threading.Event(), False
    slow.routes["/jwks"] = held_until(released, slow.routes["/jwks"])
    issuers = [Issuer(one.url, audience=lab.audience) for one in (server, slow)]
    verifier = TokenVerifier(issuers, allow_private_addresses=True, fetch_timeout=20)

    async def stuck() -> None:
        nonlocal ended
        assert await verifier.verify(lab.ec.token(lab.claims(slow.url)))
        ended = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stuck)
        await until(lambda: slow.requests["/jwks"])
        assert await verifier.verify(lab.ec.token(lab.claims(server.url)))
        assert not ended
        impatient = TokenVerifier(issuers, allow_private_addresses=True, fetch_timeout=0.3)
        before = time.monotonic()
        with pytest.raises(IssuerUnavailable, match=r"within 0\.3 s"):
            await impatient.verify(lab.ec.token(lab.claims(slow.url)))
        assert time.monotonic() - before < 5
        released.set()
    assert ended


async def test_a_closed_verifier_fetches_nothing(server: Any, lab: Any) -> None:
    verifier = verifier_for(server)
    await verifier.aclose()
    with pytest.raises(IssuerUnavailable):
        await verifier.verify(lab.ec.token(lab.claims(server.url)))
    assert not server.requests


# --- hostile answers -------------------------------------------------------------------------------------


async def test_private_addresses_are_refused_at_the_start_or_at_the_connection(server: Any, lab: Any) -> None:
    with pytest.raises(ConfigurationError, match="allow_private_addresses=True"):
        verifier_for(server, allow_private_addresses=False)
    server.metadata["jwks_uri"] = server.url + "/jwks"
    verifier = TokenVerifier([Issuer("https://localtest.invalid", audience=lab.audience)])
    with pytest.raises(IssuerUnavailable, match="does not resolve"):
        await verifier.verify(lab.ec.token(lab.claims("https://localtest.invalid")))
    assert not server.requests


async def test_a_giant_key_set_is_refused(server: Any, lab: Any) -> None:
    server.routes["/jwks"] = lambda handler: handler.reply(200, b'{"keys":[]' + b" " * (600 * 1024) + b"}")
    with pytest.raises(IssuerUnavailable, match="larger than"):
        await verifier_for(server).verify(lab.ec.token(lab.claims(server.url)))


async def test_a_set_of_very_many_keys_is_refused(server: Any, lab: Any) -> None:
    server.keys = [lab.ec] * 257
    with pytest.raises(IssuerUnavailable, match="257 keys"):
        await verifier_for(server).verify(lab.ec.token(lab.claims(server.url)))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys":{}}', b"<html>", b"\xff", b"[" * 100_000])
async def test_an_answer_that_is_no_key_set_is_refused(server: Any, lab: Any, body: bytes) -> None:
    server.routes["/jwks"] = lambda handler: handler.reply(200, body)
    with pytest.raises(IssuerUnavailable, match="no JSON Web Key Set"):
        await verifier_for(server).verify(lab.ec.token(lab.claims(server.url)))


async def test_the_issuers_words_reach_no_log_and_no_error(server: Any, lab: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, logger="tenantguard")
    server.routes["/jwks"] = lambda handler: handler.reply(500, b"sesame", X_Secret="sesame")
    token = lab.ec.token(lab.claims(server.url))
    with pytest.raises(IssuerUnavailable) as caught:
        await verifier_for(server).verify(token)
    for text in (caplog.text, str(caught.value)):
        assert "sesame" not in text
        assert not any(part in text for part in token.split("."))
