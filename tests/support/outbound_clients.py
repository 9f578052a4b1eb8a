"""Every HTTP client that carries callers, behind one small interface, so that one test holds all of them to the same."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import tenantguard_aiohttp
import tenantguard_httpx
import tenantguard_requests

from tenantguard import outbound
from tenantguard.outbound import Destination, TokenExchange

__all__ = ["CLIENTS", "Answer", "Sender", "open_client"]

CLIENTS = ("httpx2", "httpx2-sync", "httpx", "httpx-sync", "aiohttp", "requests")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


class Sender:
    """Sends requests by one client."""

    def __init__(self, kind: str, client: Any) -> None:
        self.kind, self.client = kind, client

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        follow: bool = False,
    ) -> Answer:
        headers = dict(headers or {})
        if self.kind == "aiohttp":
            data = body if body is None or isinstance(body, bytes) else _slowly(body)
            async with self.client.request(method, url, headers=headers, data=data, allow_redirects=follow) as response:
                return Answer(response.status, await response.text())
        if self.kind == "requests":
            response = await anyio.to_thread.run_sync(
                lambda: self.client.request(
                    method, url, headers=headers, data=_iterator(body), allow_redirects=follow, timeout=10
                )
            )
            return Answer(response.status_code, response.text)
        options = {"headers": headers, "content": body, "follow_redirects": follow}
        if self.kind.endswith("-sync"):
            response = await anyio.to_thread.run_sync(lambda: self.client.request(method, url, **options))
        else:
            if body is not None and not isinstance(body, bytes):
                options["content"] = _slowly(body)
            response = await self.client.request(method, url, **options)
        return Answer(response.status_code, response.text)

    async def get(self, url: str, **options: Any) -> Answer:
        return await self.send("GET", url, **options)


def _iterator(body: bytes | Iterable[bytes] | None) -> Any:
    return body if body is None or isinstance(body, bytes) else iter(body)


async def _slowly(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        await anyio.sleep(0)
        yield part


@asynccontextmanager
async def open_client(
    kind: str, destinations: Destination | Iterable[Destination], exchange: TokenExchange | None, **options: Any
) -> AsyncIterator[Sender]:
    """Open one of `CLIENTS` and close it again."""
    if kind == "aiohttp":
        async with tenantguard_aiohttp.client_session(destinations, exchange, **options) as session:
            yield Sender(kind, session)
    elif kind == "requests":
        with tenantguard_requests.DestinationSession(destinations, exchange, **options) as blocking:
            yield Sender(kind, blocking)
    else:
        module: Any = tenantguard_httpx if kind.startswith("httpx-") or kind == "httpx" else outbound
        if kind.endswith("-sync"):
            with module.sync_http_client(destinations, exchange, **options) as client:
                yield Sender(kind, client)
        else:
            async with module.http_client(destinations, exchange, **options) as client:
                yield Sender(kind, client)
