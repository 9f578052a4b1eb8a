"""Remembered proofs in a real Redis: shared between workers, bounded in time, and an outage refuses."""

import asyncio
import gc
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
import redis
from tenantguard_redis import RedisConnections, RedisReplays

from tenantguard.errors import ConfigurationError, InvalidProof, StoreUnavailable
from tenantguard.tokens.dpop import DPoP, Possession
from tenantguard.tokens.replays import ReplayStore
from tests.support.apt import find_program
from tests.support.proofs import Prover, bound_identity
from tests.support.redis_server import RedisServer
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PROVER = Prover()
TOKEN = "opaque-token"
URL = "https://api.example.com/documents"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisReplays]:
    store = RedisReplays(redis_url)
    yield store
    await store.aclose()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may stop."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as admin:
        yield admin


async def test_a_key_is_new_once(store: RedisReplays, key: str) -> None:
    assert isinstance(store, ReplayStore)
    assert await store.add(key, 60) is True
    assert await store.add(key, 60) is False
    assert await store.add(key + "x", 60) is True


async def test_a_key_ends_by_itself_and_not_before(store: RedisReplays, key: str, admin: redis.Redis) -> None:
    assert await store.add(key, 40)
    assert not await store.add(key, 60)
    assert 0 < admin.pttl(f"tenantguard:replay:{key}") <= 40_000, "looking at it does not make it last longer"
    assert await store.add(f"{key}-soon", 0.05)
    await until(lambda: not admin.exists(f"tenantguard:replay:{key}-soon"))
    assert await store.add(f"{key}-soon", 0.0001)
    await until(lambda: not admin.exists(f"tenantguard:replay:{key}-soon"))
    assert await store.add(f"{key}-soon", 71.2345)
    assert 60_000 < admin.pttl(f"tenantguard:replay:{key}-soon") <= 71_235


async def test_stores_with_other_prefixes_share_nothing(redis_url: str, key: str) -> None:
    stores = [RedisReplays(redis_url, prefix=prefix) for prefix in ("a:", "b:")]
    assert [await store.add(key, 60) for store in stores] == [True, True]
    for store in stores:
        await store.aclose()


async def test_a_proof_is_good_once_for_all_workers(redis_url: str) -> None:
    workers = [DPoP(replays=RedisReplays(redis_url)) for _ in range(2)]
    asked: dict[str, Any] = {"identity": bound_identity(PROVER.jkt), "token": TOKEN, "method": "GET", "url": URL}
    for first, second in (workers, reversed(workers)):
        proof = PROVER.proof(TOKEN, "GET", URL)
        assert await first.check(proofs=[proof], **asked) == Possession(PROVER.jkt)
        for worker in (first, second):
            with pytest.raises(InvalidProof) as caught:
                await worker.check(proofs=[proof], **asked)
            assert caught.value.reason == "replay"
    for worker in workers:
        await worker.replays.aclose()  # type: ignore[attr-defined]


async def test_of_many_at_once_one_is_told_that_the_key_is_new(redis_url: str, key: str) -> None:
    stores = [RedisReplays(redis_url, timeout=5) for _ in range(3)]
    fresh: list[bool] = []

    async def one(store: RedisReplays) -> None:
        fresh.append(await store.add(key, 60))

    async with anyio.create_task_group() as group:
        for number in range(150):
            group.start_soon(one, stores[number % 3])
    assert sorted(fresh) == [False] * 149 + [True]
    for store in stores:
        await store.aclose()


async def test_what_redis_holds_tells_nothing_of_the_proof(redis_url: str, admin: redis.Redis) -> None:
    prefix = f"{uuid.uuid4().hex}:"
    dpop = DPoP(replays=RedisReplays(redis_url, prefix=prefix))
    proof = PROVER.proof(TOKEN, "GET", URL, jti="my-jti")
    asked: dict[str, Any] = {"identity": bound_identity(PROVER.jkt), "token": TOKEN, "method": "GET", "url": URL}
    await dpop.check(proofs=[proof], **asked)
    (key,) = admin.scan_iter(match=f"{prefix}*", count=10_000)
    assert len(key) == len(prefix) + 43
    assert b"my-jti" not in key
    assert PROVER.jkt.encode() not in key
    assert admin.get(key) == b"1"
    await dpop.replays.aclose()  # type: ignore[attr-defined]


# --- outages ---------------------------------------------------------------------------------------------


async def test_an_outage_refuses_and_its_end_is_noticed_at_once(own_server: RedisServer, key: str) -> None:
    store = RedisReplays(own_server.url)
    dpop = DPoP(replays=store)
    asked: dict[str, Any] = {"identity": bound_identity(PROVER.jkt), "token": TOKEN, "method": "GET", "url": URL}
    assert await store.add(key, 60)
    own_server.stop()
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as caught:
            await dpop.check(proofs=[PROVER.proof(TOKEN, "GET", URL)], **asked)
        assert caught.value.status == 503
        assert caught.value.detail == "The request can't be checked now. Try again later."
        assert "Redis could not carry out SET" in str(caught.value)
        assert "See that it runs" in str(caught.value)
    own_server.start()
    assert await dpop.check(proofs=[PROVER.proof(TOKEN, "GET", URL)], **asked)
    await store.aclose()


async def test_connections_that_broke_while_nobody_used_them_are_no_outage(own_server: RedisServer, key: str) -> None:
    store = RedisReplays(own_server.url)
    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(store.add, f"{key}{number}", 60)
    own_server.stop()
    own_server.start()
    await anyio.sleep(0.05)
    assert [await store.add(f"{key}{number}", 60) for number in range(8)] == [True] * 8
    await store.aclose()


async def test_a_redis_that_hangs_is_an_outage_after_the_timeout_and_not_later(
    own_server: RedisServer, key: str
) -> None:
    store = RedisReplays(own_server.url, timeout=0.5)
    assert await store.add(key, 60)
    failed: list[int] = []

    async def one(number: int) -> None:
        with pytest.raises(StoreUnavailable):
            await store.add(f"{key}{number}", 60)
        failed.append(number)

    with own_server.hanging():
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(one, number)
        assert time.monotonic() - began < 5  # each alone 0.5, one after the other 30
    assert len(failed) == 60, "those that wait for a connection fail in time, too"
    answers = [await store.add(f"{key}-{number}", 60) for number in range(40)]
    assert answers == [True] * 40, "no connection was lost, and no late answer is taken for another's"
    await store.aclose()


async def test_a_request_that_is_given_up_spoils_no_connection(own_server: RedisServer, key: str) -> None:
    store = RedisReplays(own_server.url, timeout=20)
    assert await store.add(key, 60)
    with own_server.hanging():
        for number in range(50):
            with anyio.move_on_after(0.002) as scope:
                await store.add(f"{key}-gone-{number}", 60)
            assert scope.cancelled_caught
    for number in range(50):
        assert await store.add(f"{key}-{number}", 60) is True
        assert await store.add(f"{key}-{number}", 60) is False
    await store.aclose()


async def test_a_server_that_is_no_redis_is_an_outage(key: str) -> None:
    async def answer_with_http(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer_with_http)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        store = RedisReplays(f"redis://127.0.0.1:{port}/0", timeout=0.5)
        with pytest.raises(StoreUnavailable):
            await store.add(key, 60)
        await store.aclose()
        group.cancel_scope.cancel()


async def test_a_redis_that_refuses_to_write_is_an_outage_and_the_password_is_not_shown(key: str) -> None:
    with RedisServer("--requirepass", "s3cr3t-word", "--maxmemory", "1") as server:
        for url, refused in (
            (server.url, "Authentication"),
            (server.url.replace("redis://", "redis://:wr0ng-word@"), "Authentication"),
            (server.url.replace("redis://", "redis://:s3cr3t-word@"), "OutOfMemory"),
        ):
            store = RedisReplays(url)
            with pytest.raises(StoreUnavailable, match=refused) as caught:
                await store.add(key, 60)
            shown = f"{store!r} {store._connections!r} {caught.value!r} {caught.value.__cause__!r}"
            assert "word" not in shown.replace("password", "")
            await store.aclose()


# --- event loops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_store_serves_one_event_loop_after_the_other(redis_url: str, key: str, backend: str) -> None:
    store = RedisReplays(redis_url)

    async def use(number: int) -> None:
        assert await store.add(f"{key}{number}", 60)
        assert not await store.add(f"{key}0", 60) or number == 0
        await store.aclose()

    for number in range(3):
        anyio.run(use, number, backend=backend)


def test_a_loop_that_ended_without_closing_leaves_no_client_behind(redis_url: str, key: str) -> None:
    store = RedisReplays(redis_url)

    async def use(number: int, *, close: bool) -> None:
        assert await store.add(f"{key}{number}", 60)
        if close:
            await store.aclose()

    def use_two_loops() -> None:
        asyncio.run(use(1, close=False))
        asyncio.run(use(2, close=True))
        gc.collect()

    with pytest.warns(ResourceWarning):
        use_two_loops()
    assert not store._connections._by_loop


def test_one_store_serves_several_event_loops_at_once(redis_url: str, key: str) -> None:
    store = RedisReplays(redis_url)
    fresh: list[bool] = []

    async def use() -> None:
        for number in range(100):
            fresh.append(await store.add(f"{key}{number}", 60))
        await store.aclose()

    threads = [
        threading.Thread(target=anyio.run, args=(use,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio", "asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fresh) == [False] * 300 + [True] * 100


async def test_a_store_can_be_used_again_after_it_was_closed(store: RedisReplays, key: str) -> None:
    assert await store.add(key, 60)
    await store.aclose()
    await store.aclose()
    assert not await store.add(key, 60)


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "redis", "http://127.0.0.1", "127.0.0.1:6379", "redis://:word@h:port/0", "redis://h/0?no_such_option=1",
     "redis://:word@h:6379/0?socket_timeout=soon", 7, None, b"redis://h"], ids=range(10),
)  # fmt: skip
def test_a_url_that_can_not_be_used_is_refused_at_once_and_not_shown(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"redis://redis\.internal:6379/0") as caught:
        RedisReplays(url)
    assert "word" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_wrong_timeouts_and_prefixes_are_refused() -> None:
    for timeout in (0, -1, 31, float("nan"), True, "1", None):
        with pytest.raises(ConfigurationError, match=r"timeout=1\.0"):
            RedisReplays("redis://h", timeout=timeout)  # type: ignore[arg-type]
    for prefix in ("", None, b"x"):
        with pytest.raises(ConfigurationError, match="prefix="):
            RedisReplays("redis://h", prefix=prefix)  # type: ignore[arg-type]


async def test_a_time_that_is_none_is_refused(store: RedisReplays, key: str) -> None:
    for ttl in (0, -1, float("nan"), float("inf")):
        with pytest.raises(StoreUnavailable):
            await store.add(key, ttl)
    assert await store.add(key, 60)


async def test_the_connections_carry_out_other_commands_too(redis_url: str, key: str) -> None:
    connections = RedisConnections(redis_url)
    assert await connections.execute("SET", key, b"\xff", "EX", 60) is True
    assert await connections.execute("GET", key) == b"\xff"
    assert await connections.execute("DEL", key) == 1
    with pytest.raises(StoreUnavailable, match="NO_SUCH"):
        await connections.execute("NO_SUCH", key)
    await connections.aclose()


# --- the test server itself ------------------------------------------------------------------------------


def test_a_missing_redis_that_can_not_be_installed_fails_the_tests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho no network >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("redis-server") is None
    with pytest.raises(RuntimeError, match=r"no network"):
        find_program("redis-server", package="redis-server")


def test_a_server_is_gone_when_it_was_stopped_and_keeps_nothing() -> None:
    with RedisServer() as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("a", 1)
        process = server._process
        assert process is not None
        server.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("a") is None
            assert client.config_get("save")["save"] == ""
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(server.url).ping()
    assert isinstance(process, subprocess.Popen)
