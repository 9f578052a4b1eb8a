"""Streams: what makes their parts is bound, what cleans up after them too, and event streams end with their token."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.http import FileResponse, StreamingHttpResponse
from django.test import override_settings
from tenantguard_django.streams import bind_stream

from tenantguard import RevocationKind, TenantGuard, bind, current_tenant, service_identity
from tenantguard.binding import raw_binding
from tenantguard.tokens.revocation import Revocations
from tests.django.login import LOGIN, bearer, make_guard
from tests.django.web.servers import serve_asgi, serve_wsgi
from tests.support.waiting import wait_until

SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture
def guard() -> TenantGuard:
    return make_guard()


@pytest.fixture
def url(guard: TenantGuard) -> Iterator[str]:
    with override_settings(TENANTGUARD={"GUARD": guard}), serve_asgi() as served:
        yield served


async def nothing() -> None:
    pass


def bound(response: Any) -> Any:
    with bind(service_identity("job", tenant="acme")):
        binding = raw_binding()
    bind_stream(response, binding, revocations=Revocations(), recheck=nothing)
    return response


def test_a_streams_parts_and_its_clean_up_are_bound_and_its_reader_is_not() -> None:
    seen = []

    def parts() -> Iterator[bytes]:
        try:
            for _ in range(3):
                yield current_tenant().id.encode()
        finally:
            seen.append(current_tenant().id)

    response = bound(StreamingHttpResponse(parts()))
    read = iter(response)
    assert next(read) == b"acme"
    assert raw_binding() is None
    response.close()
    assert seen == ["acme"]


def test_an_async_stream_is_bound_part_by_part() -> None:
    async def main() -> list[bytes]:
        async def parts() -> Any:
            for _ in range(2):
                await asyncio.sleep(0)
                yield current_tenant().id

        got = []
        async for part in bound(StreamingHttpResponse(parts())):
            assert raw_binding() is None
            got.append(part)
        return got

    assert asyncio.run(main()) == [b"acme", b"acme"]


def test_a_file_is_left_to_the_server(tmp_path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    opened = file.open("rb")
    response = bound(FileResponse(opened))
    assert response.file_to_stream is opened
    assert b"".join(response) == b"content"
    response.close()


def test_two_streams_that_are_read_in_turns_keep_their_tenants() -> None:
    def parts() -> Iterator[str]:
        for _ in range(3):
            yield current_tenant().id

    responses = []
    for tenant in ("acme", "globex"):
        response = StreamingHttpResponse(parts())
        with bind(service_identity("job", tenant=tenant)):
            bind_stream(response, raw_binding(), revocations=Revocations(), recheck=nothing)
        responses.append(response)
    first, second = map(iter, responses)
    assert [next(first), next(second), next(first), next(second)] == [b"acme", b"globex", b"acme", b"globex"]


def read_events(url: str, path: str, headers: dict[str, str]) -> tuple[str, float]:
    started = time.monotonic()
    with httpx2.stream("GET", url + path, headers=headers, timeout=20) as response:
        assert response.status_code == 200
        text = response.read().decode()
    return text, time.monotonic() - started


def test_an_event_stream_ends_when_its_token_expires(url: str) -> None:
    text, seconds = read_events(url, "/events", bearer(expires_in=3, tenant="globex"))
    assert text == "data: globex\n\n"
    assert seconds < 15


def test_an_event_stream_ends_when_its_token_is_revoked(url: str, guard: TenantGuard) -> None:
    with httpx2.stream("GET", f"{url}/events", headers=bearer("carol"), timeout=20) as response:
        parts = response.iter_raw()
        assert next(parts) == b"data: acme\n\n"
        guard.revocations.revoke(RevocationKind.SUBJECT, "carol", issuer=LOGIN.url)
        assert b"".join(parts) == b""


def test_a_sync_event_stream_ends_between_two_events(guard: TenantGuard) -> None:
    with override_settings(TENANTGUARD={"GUARD": guard}), serve_wsgi() as url:
        text, seconds = read_events(url, "/sync-events", bearer(expires_in=3))
        assert 1 <= text.count("data: acme") < 400
        assert seconds < 20


def test_a_reader_who_goes_away_leaves_no_watch_behind(url: str) -> None:
    from tenantguard import lifetimes

    with httpx2.stream("GET", f"{url}/events", headers=bearer("dora"), timeout=20) as response:
        parts = response.iter_raw()  # once it is forgotten, the connection is closed
        assert next(parts) == b"data: acme\n\n"
        assert lifetimes._tasks
    wait_until(lambda: not lifetimes._tasks)
