"""Revocations between workers, through a real Redis: pushed to all, across restarts, and nobody in while it is down."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from tenantguard_redis import RedisRevocations
from tenantguard_redis.revocations import HEARTBEAT_SECONDS, RETRY_SECONDS, SILENCE_SECONDS

from tenantguard import Identity, RevocationKind, Revocations, service_identity
from tenantguard.errors import ConfigurationError, RevokedToken, StoreUnavailable
from tests.support.redis_server import RedisServer
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def name() -> str:
    return f"revocations-{uuid.uuid4().hex}"


def worker(url: str, name: str, **options: Any) -> Revocations:
    return Revocations(feed=RedisRevocations(url, name=name), **options)


def identity(who: str = "robot") -> Identity:
    return service_identity(who, tenant="acme")


def test_a_worker_that_hears_nothing_for_a_second_lets_nobody_in() -> None:
    """How quickly it takes contact for lost, and tries again: a loaded machine can't time that."""
    assert HEARTBEAT_SECONDS < SILENCE_SECONDS < 1
    assert SILENCE_SECONDS + RETRY_SECONDS < 1


async def test_a_revocation_is_pushed_to_every_worker(redis_url: str, name: str) -> None:
    workers = [worker(redis_url, name) for _ in range(5)]
    for one in workers:
        await one.ready()
        one.check(identity())
    await workers[0].revoke_async(RevocationKind.SUBJECT, "robot")
    await until(lambda: all(one.revoked(identity()) for one in workers))
    await until(lambda: not any(one.revoked(identity("another")) for one in workers))
    for one in workers:
        one.close()


async def test_a_worker_that_starts_later_knows_what_was_revoked_before(redis_url: str, name: str) -> None:
    first = worker(redis_url, name)
    first.revoke(RevocationKind.SUBJECT, "robot")
    later = worker(redis_url, name)
    await later.ready()
    with pytest.raises(RevokedToken):
        later.check(identity())
    later.close()


async def test_another_process_hears_of_it(redis_url: str, name: str) -> None:
    here = worker(redis_url, name)
    await here.ready()
    code = (
        "import sys; from tenantguard import *; from tenantguard_redis import RedisRevocations; "
        "Revocations(feed=RedisRevocations(sys.argv[1], name=sys.argv[2])).revoke(RevocationKind.SUBJECT, 'robot')"
    )
    await anyio.run_process([sys.executable, "-c", code, redis_url, name], stderr=subprocess.STDOUT)
    await until(lambda: here.revoked(identity()))
    here.close()


async def test_nobody_is_let_in_while_redis_is_down_and_nothing_is_lost_when_it_comes_back(
    redis: RedisServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, trusting = worker(redis.url, name), worker(redis.url, name, when_disconnected="accept")
    await one.ready()
    await trusting.ready()
    one.revoke(RevocationKind.SUBJECT, "robot")
    await until(lambda: trusting.revoked(identity()))
    redis.stop()
    await until(lambda: one.revoked(identity("another")))
    with pytest.raises(StoreUnavailable, match="when_disconnected"):
        one.check(identity("another"))
    with pytest.raises(StoreUnavailable):
        await one.ready()
    with pytest.raises(StoreUnavailable, match="Revoke again"):
        one.revoke(RevocationKind.SUBJECT, "third")
    await until(lambda: "although tokens may be revoked" in caplog.text)
    trusting.check(identity("another"))
    redis.start()  # empty, as after a restart without persistence
    await until(lambda: not one.revoked(identity("another")))
    assert one.revoked(identity("third"))
    later = worker(redis.url, name)
    await later.ready()
    await until(lambda: later.revoked(identity()))
    for each in (one, trusting, later):
        each.close()


async def test_a_worker_that_starts_while_redis_is_down_lets_nobody_in(redis: RedisServer, name: str) -> None:
    redis.stop()
    one = worker(redis.url, name)
    with pytest.raises(StoreUnavailable):
        await one.ready()
    redis.start()
    await until(lambda: not one.revoked(identity()))
    await one.ready()
    one.close()


async def test_what_is_no_revocation_is_left_alone(redis_url: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    feed = RedisRevocations(redis_url, name=name)
    one = Revocations(feed=feed)
    feed._client.zadd(name, {b"rubbish": time.time() + 60})
    await one.ready()
    feed._client.publish(name, b"rubbish")
    one.revoke(RevocationKind.SUBJECT, "robot")
    other = worker(redis_url, name)
    await other.ready()
    assert other.revoked(identity())
    await until(lambda: not other.revoked(identity("another")))
    await until(lambda: "carried something else than a revocation" in caplog.text)
    one.close()
    other.close()


async def test_what_has_ended_is_forgotten(redis_url: str, name: str) -> None:
    feed = RedisRevocations(redis_url, name=name)
    one = Revocations(feed=feed, keep_for=60)
    one.revoke(RevocationKind.SUBJECT, "robot", at=time.time() - 59.8)
    await anyio.sleep(0.3)
    one.revoke(RevocationKind.SUBJECT, "another")
    assert feed._client.zcard(name) == 1


async def test_a_closed_feed_listens_no_more(redis_url: str, name: str) -> None:
    others = set(threading.enumerate())  # feeds of other tests may be open still
    one = worker(redis_url, name)
    await one.ready()
    listening = [t for t in set(threading.enumerate()) - others if t.name == "tenantguard-revocations"]
    assert len(listening) == 1
    one.close()
    await until(lambda: not listening[0].is_alive())


async def test_settings_are_checked_at_the_start() -> None:
    for wrong in ({"url": "nonsense"}, {"url": "redis://x", "name": ""}, {"url": "redis://x", "timeout": 0}):
        with pytest.raises(ConfigurationError):
            RedisRevocations(**wrong)  # type: ignore[arg-type]
    for wrong in ({"keep_for": 1}, {"keep_for": True}, {"when_disconnected": "ignore"}):
        with pytest.raises(ConfigurationError):
            Revocations(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="id"):
        Revocations().revoke(RevocationKind.TOKEN, "")
