"""Which hops belong to one call of an aiohttp session: what a redirect may not choose, and what it has no part in."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from tenantguard_aiohttp import DestinationMiddleware, client_session

from tenantguard.context import bind
from tenantguard.errors import OutboundError
from tests.support.callers import caller

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def opened(town, **options):
    """Open a session while Alice is bound."""
    with bind(*caller(town.issuer, scopes="invoices:read")):
        async with client_session([town.destination()], town.exchange(), **options) as session:
            yield session


def carried(town):
    return [(one.target, one.bearer is not None) for one in town.billing.requests]


def hooked(town):
    """Let the stranger choose a call to the destination."""
    town.stranger.redirects["/hook"] = (307, f"{town.billing_url}/delete-everything")
    return f"{town.stranger_url}/hook"


async def test_a_redirect_that_was_not_followed_says_nothing_of_the_next_call(town):
    async with opened(town) as session:
        for send in (session.get, session.head):
            async with send(hooked(town), allow_redirects=False) as answer:
                assert answer.status == 307
            async with session.get(f"{town.billing_url}/invoices") as answer:
                assert answer.status == 200
    assert carried(town) == [("/invoices", True)] * 2


async def test_a_redirect_that_failed_says_nothing_of_the_next_call(town):
    town.stranger.redirects["/loop"] = (302, f"{town.billing_url}/loop")
    town.billing.redirects["/loop"] = (302, f"{town.stranger_url}/loop")
    async with opened(town) as session:
        with pytest.raises(aiohttp.TooManyRedirects):
            await session.get(f"{town.stranger_url}/loop", max_redirects=2)
        await session.get(f"{town.billing_url}/invoices")
    assert carried(town) == [("/loop", False), ("/invoices", True)]


async def test_a_middleware_that_makes_calls_of_its_own_does_not_hide_a_redirect(town):
    async def asking(request, handler):
        if request.url.path != "/aside":
            async with session.get(f"{town.billing_url}/aside") as answer:
                assert answer.status == 200
        return await handler(request)

    async with opened(town, middlewares=[asking]) as session:
        await session.get(hooked(town))
    assert carried(town) == [("/aside", True), ("/aside", True), ("/delete-everything", False)]


async def test_a_trace_that_makes_calls_of_its_own_does_not_hide_a_redirect(town):
    async def aside(session, context, params):
        if params.url.path != "/aside":
            async with session.get(f"{town.billing_url}/aside"):
                pass

    trace = aiohttp.TraceConfig()
    for signal in (trace.on_request_start, trace.on_request_redirect, trace.on_request_end):
        signal.append(aside)
    async with opened(town, trace_configs=[trace]) as session:
        await session.get(hooked(town))
        await session.get(f"{town.billing_url}/invoices")
    assert [pair for pair in carried(town) if pair[0] != "/aside"] == [
        ("/delete-everything", False),
        ("/invoices", True),
    ]
    assert [pair[1] for pair in carried(town) if pair[0] == "/aside"] == [True] * 5


async def test_a_middleware_that_sends_each_hop_in_a_task_of_its_own_does_not_hide_a_redirect(town):
    async def in_a_task(request, handler):
        return await asyncio.create_task(handler(request))

    town.billing.redirects["/away"] = (302, f"{town.stranger_url}/caught")
    async with opened(town, middlewares=[in_a_task]) as session:
        await session.get(hooked(town))
        await session.get(f"{town.billing_url}/away", headers={"X-Partner-Key": "s3cret"})
    assert carried(town) == [("/delete-everything", False), ("/away", True)]
    assert "x-partner-key" not in town.stranger.requests[-1].headers


async def test_calls_at_once_do_not_mix_up_whose_redirect_it_was(town):
    url = hooked(town)
    async with opened(town) as session, asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(session.get(url))
            group.create_task(session.get(f"{town.billing_url}/invoices/{number}"))
    assert {target.split("/")[1]: ok for target, ok in carried(town)} == {"delete-everything": False, "invoices": True}
    assert len(town.billing.requests) == 40


async def test_a_session_of_one_s_own_needs_the_trace_and_says_so(town):
    middleware, other = (DestinationMiddleware([town.destination()], town.exchange()) for _ in range(2))
    with bind(*caller(town.issuer, scopes="invoices:read")):
        for wrong in ([], [other.trace_config]):
            async with aiohttp.ClientSession(middlewares=[middleware], trace_configs=wrong) as session:
                for url in (hooked(town), f"{town.billing_url}/x"):
                    with pytest.raises(OutboundError, match="trace_configs"):
                        await session.get(url)
        assert town.billing.requests == town.stranger.requests == []
        async with aiohttp.ClientSession(middlewares=[middleware], trace_configs=[middleware.trace_config]) as session:
            await session.get(hooked(town))
            await session.get(f"{town.billing_url}/invoices")
    assert carried(town) == [("/delete-everything", False), ("/invoices", True)]
