"""No way of reading gives a row of another tenant: each gives the tenant's own rows, or is refused."""

import pytest

from tests.django.orm.reads import REFUSED, SCOPED
from tests.django.orm.world import verdict


@pytest.mark.parametrize("name", SCOPED)
def test_reading_gives_the_tenants_own_rows(world: str, name: str) -> None:
    attack, own = SCOPED[name]
    assert verdict(world, attack, own=own) == "scoped"


@pytest.mark.parametrize("name", REFUSED)
def test_reading_past_the_barrier_is_refused(world: str, name: str) -> None:
    assert verdict(world, REFUSED[name]).split(" ")[0] == "refused"
