"""An iteration that was begun for one tenant is not carried on as another, however it was begun."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from tenantguard import allow_raw, bind, system
from tenantguard.errors import TenantMismatch
from tests.django.orm.models import Comment, Country, Document
from tests.django.orm.world import A, B

D = Document.objects


def _generator() -> Iterator[Any]:
    for document in D.order_by("pk"):
        yield document.title


BEGUN: dict[str, Any] = {
    "query set": lambda: iter(D.order_by("pk")),
    "values": lambda: iter(D.order_by("pk").values("title")),
    "list of values": lambda: iter(D.values_list("title", flat=True)),
    "generator": _generator,
    "chain": lambda: itertools.chain(D.all(), Comment.objects.all()),
    "dates": lambda: iter(Comment.objects.values_list("document__made")),
    "shared rows with joined ones": lambda: iter(Country.objects.filter(documents__pages__gte=0)),
    "related": lambda: iter(D.get(pk=1).comments.all()),
    "prefetched": lambda: iter(D.prefetch_related("comments").get(pk=1).comments.all()),
    "raw": lambda: iter(D.raw("SELECT * FROM ormtests_document WHERE tenant_id = 'a'")),
    "iterator": lambda: D.iterator(chunk_size=100),
    "rows of the compiler": lambda: D.order_by("pk").query.get_compiler(D.db).results_iter(chunked_fetch=True),
}


@pytest.mark.parametrize("begin", BEGUN.values(), ids=BEGUN)
def test_an_iteration_is_the_tenants_that_began_it(world: str, begin: Any) -> None:
    for other in (bind(B), system("look")):
        with bind(A), allow_raw("a test"):
            rows = begin()
            next(rows)
        with other, pytest.raises(TenantMismatch):
            next(rows)


def test_an_iteration_goes_on_when_its_tenant_is_bound_again(world: str) -> None:
    with bind(A):
        seen = []
        for document in D.order_by("pk"):
            with bind(B):
                assert D.count() == 4
            seen.append(document.pk)
    assert seen == [1, 2, 3, 11]


def _forget(alias: str) -> None:
    """Close the connection of the thread that other modules' tests have as well, for databases of their own."""
    connections[alias].close()
    del connections[alias]


def test_an_async_iteration_is_the_tenants_that_began_it(world: str) -> None:
    async def work() -> None:
        await sync_to_async(_forget)(world)
        with bind(A):
            rows = aiter(D.order_by("pk"))
            assert (await anext(rows)).pk == 1
            assert [document.pk async for document in D.order_by("pk")] == [1, 2, 3, 11]
        with bind(B), pytest.raises(TenantMismatch):
            await anext(rows)
        await sync_to_async(_forget)(world)

    asyncio.run(work())


def test_an_iteration_of_shared_rows_is_anybodys(world: str) -> None:
    with bind(A):
        rows = iter(Country.objects.all())
    with bind(B):
        assert next(rows).name == "Utopia"
