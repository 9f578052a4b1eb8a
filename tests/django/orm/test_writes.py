"""No way of writing changes another tenant's row, makes one for it, or points to one."""

import pytest

from tests.django.orm.world import verdict
from tests.django.orm.writes import REFUSED, SCOPED


@pytest.mark.parametrize("name", SCOPED)
def test_writing_changes_the_tenants_own_rows(world: str, name: str) -> None:
    attack, own = SCOPED[name]
    assert verdict(world, attack, own=own) == "scoped"


@pytest.mark.parametrize("name", REFUSED)
def test_writing_past_the_barrier_is_refused(world: str, name: str) -> None:
    assert verdict(world, REFUSED[name]).split(" ")[0] == "refused"
