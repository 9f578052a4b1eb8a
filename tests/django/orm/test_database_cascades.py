"""What the database deletes and changes by itself stays within the tenant that deletes, or the DELETE is refused."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from tenantguard import bind, service_identity, system
from tenantguard.errors import StatementRefused
from tests.django.orm.cascading import Branch, Colour, Desk, Door, Firm, Level, Place, Poster, Region, Room
from tests.django.orm.world import FIRST_OF_B, A

NARROWED = service_identity("attacker", tenant="a", dimensions={"workspace": "w1"})


def seed() -> None:
    with system("rows that the database cascades to"):
        region = Region.objects.create(name="north")
        place, colour = Place.objects.create(region=region), Colour.objects.create(name="red")
        for tenant, key in (("a", 1), ("b", FIRST_OF_B)):
            branch = Branch.objects.create(id=key, tenant_id=tenant, place=place, colour=colour)
            Desk.objects.create(branch=branch)
            Door.objects.create(tenant_id=tenant, branch=branch)
            Room.objects.create(tenant_id=tenant, level=Level.objects.create(id=key, tenant_id=tenant, name="1"))
            Poster.objects.create(firm=Firm.objects.create(id=tenant))


@pytest.fixture(autouse=True)
def rows(world: str) -> Iterator[None]:
    around = transaction.atomic(using=world)
    around._from_testcase = True
    with around:
        seed()
        yield
        transaction.set_rollback(True, using=world)


def counts() -> list[Any]:
    with system("count"):
        return [model.objects.count() for model in (Branch, Desk, Door, Room, Poster)] + [
            Branch.objects.filter(colour=None).count(),
            Door.objects.filter(branch=None).count(),
        ]


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (Region, "Branch.place"),
        (Place, "Branch.place"),
        (Colour, "Branch.colour"),
        (Level, "Room.level"),
        (Firm, "Poster.firm"),
    ],
)
def test_a_delete_that_the_database_carries_beyond_the_tenant_is_refused(world: str, model: Any, field: str) -> None:
    before = counts()
    with bind(A):
        rows = model.objects.all()
        for delete in (rows.delete, model.objects.get().delete, lambda: rows._raw_delete(world)):
            with pytest.raises(StatementRefused, match=field), transaction.atomic(using=world):
                delete()
    assert counts() == before


def test_the_database_carries_a_delete_on_within_the_tenant(world: str) -> None:
    with bind(A):
        assert Branch.objects.all().delete()[0] == 1
    assert counts() == [1, 1, 2, 2, 2, 0, 1]


def test_an_identity_that_is_narrowed_inside_its_tenant_has_the_database_carry_nothing_on(world: str) -> None:
    before = counts()
    with bind(NARROWED), pytest.raises(StatementRefused), transaction.atomic(using=world):
        Branch.objects.all().delete()
    assert counts() == before


def test_a_system_context_deletes_what_it_likes(world: str) -> None:
    with system("the region is gone"):
        Region.objects.all().delete()
        Colour.objects.all().delete()
    assert counts() == [0, 0, 2, 2, 2, 0, 2]
