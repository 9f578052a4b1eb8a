"""A text of an INSERT that is used again serves plain rows alone, and takes no check away."""

from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import Value
from django.db.models.functions import Lower
from django.db.models.sql import InsertQuery
from tenantguard_django.orm.inserts import known_text
from tenantguard_django.orm.writes import InsertCheck

from tenantguard import bind, system
from tenantguard.errors import ForeignTenantWrite, NotBound
from tests.django.orm.models import Country, Document, Filled, Folder
from tests.django.orm.world import FIRST_OF_B, A, verdict

D = Document.objects


@pytest.fixture(autouse=True)
def nothing_stays(world: str) -> Any:
    """Keep no text of another test, and no row of this one."""
    connections[world].tenantguard.inserts.clear()
    around = transaction.atomic(using=world)
    around._from_testcase = True
    with around:
        yield
        transaction.set_rollback(True, using=world)


def _titles(*titles: Any) -> list[str]:
    keys = [D.create(title=title, folder_id=1).pk for title in titles]
    return [D.get(pk=key).title for key in keys]


def test_the_text_of_a_computed_value_serves_no_plain_one(world: str) -> None:
    with bind(A):
        assert _titles(Lower(Value("ONE")), "TWO", Lower(Value("THREE")), "FOUR") == ["one", "TWO", "three", "FOUR"]


def test_a_plain_text_is_written_once_for_each_set_of_columns(world: str) -> None:
    kept = connections[world].tenantguard.inserts
    with bind(A):
        D.create(title="1")
        assert len(kept) == 1
        D.create(title="2", folder_id=1)
        assert len(kept) == 1
        D.create(id=5_000, title="3")
        assert len(kept) == 2
        assert [one.title for one in D.filter(title__in="123").order_by("title")] == ["1", "2", "3"]


def test_rows_that_are_sent_together_take_djangos_own_way(world: str) -> None:
    with bind(A):
        D.create(title="1")
        D.bulk_create([Document(title="2"), Document(title=Lower(Value("THREE"))), Document(title="4")])
        D.bulk_create([Document(title="5"), Document(title="6")])
        titles = set(D.values_list("title", flat=True))
    assert {"1", "2", "three", "4", "5", "6"} <= titles


def test_a_kept_text_takes_no_check_away(world: str) -> None:
    with bind(A):
        D.create(title="1", folder_id=1)
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            D.create(title="2", folder_id=1, tenant_id="b")
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            D.create(title="2", folder_id=FIRST_OF_B)
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            D.create(title="2", folder_id=Lower(Value(FIRST_OF_B)))
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            D.create(title="2", tenant_id=Lower(Value("B")))
    with pytest.raises(NotBound), transaction.atomic(using=world):
        D.create(title="2", folder_id=1)
    with system("no tenant"), pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
        D.create(title="2", folder_id=1)


def test_an_attack_with_a_known_text_is_an_attack_still(world: str) -> None:
    def attack() -> Any:
        Folder.objects.create(name="first")
        Folder.objects.create(name="x", parent_id=FIRST_OF_B)

    assert verdict(world, attack).startswith("refused")


def test_a_text_that_was_kept_in_a_system_context_stamps_the_tenant(world: str) -> None:
    with system("two tenants"):
        D.create(title="1", tenant_id="b")
    with bind(A):
        assert D.create(title="2").tenant_id == "a"
        assert D.get(title="2").tenant_id == "a"


def test_a_field_that_fills_itself_is_asked_by_djangos_own_way(world: str) -> None:
    with bind(A):
        for _ in range(2):
            made = Filled()
            made.asked = 1
            made.save()
            assert Filled.objects.get(pk=made.pk).folder_id == 1
    assert not any(key[0] == Filled._meta.db_table for key in connections[world].tenantguard.inserts)


def test_what_django_makes_up_for_a_row_is_returned(world: str) -> None:
    first, second = Country.objects.create(name="one"), Country.objects.create(name="two")
    assert second.pk == first.pk + 1
    assert Country.objects.get(pk=second.pk).name == "two"


def test_an_insert_that_is_only_looked_at_sends_nothing(world: str) -> None:
    with bind(A):
        D.create(title="1")
        query = InsertQuery(Document)
        fields = [Document._meta.get_field(name) for name in ("tenant_id", "title")]
        query.insert_values(fields, [Document(title="2")])
        compiler = query.get_compiler(using=world)
        assert known_text(compiler, InsertCheck(compiler)) is None  # of other columns
        ((sql, params),) = query.get_compiler(using=world).as_sql()
        ((again, same),) = query.get_compiler(using=world).as_sql()
        assert (sql, params) == (again, same)
        assert not D.filter(title="2").exists()
