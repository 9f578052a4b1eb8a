"""Those who are narrowed inside their tenant: what they reach, what they write, and which models are open to them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import models, transaction
from django.test.utils import isolate_apps
from tenantguard_django.orm import owned, wide
from tenantguard_django.orm.classify import kind_of_model
from tenantguard_django.orm.rls import metadata_of

from tenantguard import bind, service_identity
from tenantguard.errors import ConfigurationError, ForeignTenantWrite, StatementRefused, TenantGuardError
from tenantguard.orm.classify import classify_alone
from tests.django.orm.models import Board, Card, Clause, Comment, Document, Organisation, Plan, Task
from tests.django.orm.world import FIRST_OF_B, A

NARROW = service_identity("narrow", tenant="a", dimensions={"workspace": "w1"})
DEEPER = service_identity("deeper", tenant="a", dimensions={"workspace": "w1", "project": "p1"})


@pytest.fixture(autouse=True)
def nothing_stays(world: str) -> Iterator[None]:
    around = transaction.atomic(using=world)
    around._from_testcase = True
    with around:
        yield
        transaction.set_rollback(True, using=world)


def _refused(world: str, attempt: Callable[[], Any], error: type[TenantGuardError], words: str) -> None:
    with pytest.raises(error, match=words), transaction.atomic(using=world):
        attempt()


def test_a_model_that_is_open_is_read_as_the_whole_tenants(world: str) -> None:
    with bind(NARROW):
        assert [plan.name for plan in Plan.objects.all()] == ["own plan"]
        assert list(Clause.objects.values_list("text", flat=True)) == ["own clause"]
        assert list(Plan.objects.values_list("clauses__text", flat=True)) == ["own clause"]
        assert not Plan.objects.filter(pk=FIRST_OF_B).exists()


def test_a_model_that_is_open_for_reading_is_not_written(world: str) -> None:
    for attempt in (
        lambda: Plan.objects.create(name="x"),
        lambda: Plan.objects.bulk_create([Plan(name="x"), Plan(name="y")]),
        lambda: Plan.objects.update(name="x"),
        lambda: Plan.objects.get().save(),
        lambda: Clause.objects.all()._raw_delete(world),
        lambda: Plan.objects.all()._raw_delete(world),
        lambda: Clause.objects.create(text="x", plan_id=1),
        lambda: Clause.objects.update(text="x"),
    ):
        with bind(NARROW):
            _refused(world, attempt, StatementRefused, "only read")


def test_a_model_that_is_open_for_writing_is_written(world: str) -> None:
    with bind(NARROW):
        made = Board.objects.create(name="new")
        assert made.tenant_id == "a"
        assert Board.objects.update(name="changed") == 2
        _refused(world, lambda: Board.objects.create(name="x", tenant_id="b"), ForeignTenantWrite, "another tenant")
        assert Board.objects.filter(pk=made.pk).delete()[0] == 1


def test_a_child_with_a_narrower_key_is_filled_and_compared(world: str) -> None:
    with bind(NARROW):
        assert [card.text for card in Card.objects.all()] == ["own card w1"]
        assert list(Board.objects.values_list("cards__text", flat=True)) == ["own card w1"]
        assert list(Card.objects.filter(board__name="own board").values_list("text", flat=True)) == ["own card w1"]
        assert list(Card.objects.values_list("board__name", "workspace")) == [("own board", "w1")]
        assert Card.objects.create(text="new", board_id=1).workspace == "w1"
        assert Card.objects.update(text="changed") == 2
        for attempt in (
            lambda: Card.objects.create(text="x", board_id=1, workspace="w2"),
            lambda: Card.objects.update(workspace="w2"),
            lambda: Card.objects.update(workspace=models.F("text")),
            lambda: Card.objects.bulk_create([Card(text="x", board_id=1), Card(text="y", board_id=1, workspace="w2")]),
        ):
            _refused(world, attempt, ForeignTenantWrite, "another workspace")
        _refused(world, lambda: Card.objects.create(text="x", board_id=FIRST_OF_B), ForeignTenantWrite, "does not have")
    with bind(A):
        assert sorted(Card.objects.values_list("workspace", flat=True)) == ["w1", "w1", "w2"]
        assert Card.objects.filter(workspace="w2", text="changed").count() == 0


def test_an_upsert_of_the_narrowed_leaves_rows_of_other_workspaces_alone(world: str) -> None:
    with bind(NARROW):
        _refused(
            world,
            lambda: Card.objects.bulk_create(
                [Card(id=2, text="x", board_id=1)],
                update_conflicts=True,
                update_fields=["text"],
                unique_fields=["id"],
            ),
            ForeignTenantWrite,
            "does not have",
        )


def test_a_dimension_that_a_model_is_not_open_in_is_refused(world: str) -> None:
    with bind(DEEPER):
        for attempt in (Plan.objects.count, Board.objects.count, Card.objects.count, Task.objects.count):
            _refused(world, attempt, StatementRefused, "narrowed to one project")
        _refused(world, lambda: Board.objects.create(name="x"), StatementRefused, "narrowed to one project")
        _refused(world, lambda: Card.objects.create(text="x", board_id=1), StatementRefused, "narrowed to one project")


def test_what_says_nothing_of_the_dimension_is_refused(world: str) -> None:
    with bind(NARROW):
        for attempt in (
            Document.objects.count,
            lambda: Document.objects.create(title="x"),
            lambda: Comment.objects.create(text="x", document_id=1),
            Organisation.objects.count,
            lambda: Task.objects.filter(organisation__title="x").count(),
        ):
            _refused(world, attempt, StatementRefused, "does not say which workspace")


@isolate_apps("tests.django.orm")
def test_a_declaration_that_can_not_serve_is_refused() -> None:
    for given in ((), ("",), ("tenant",)):
        with pytest.raises(ConfigurationError, match="dimensions"):
            wide(*given, reason="x")
    with pytest.raises(ConfigurationError, match="reason"):
        wide("workspace", reason=" ")
    with pytest.raises(ConfigurationError, match="no Django model"):
        wide("workspace", reason="x")(object)


def test_what_is_open_is_inherited_from_abstract_bases_and_stated_by_name() -> None:
    assert kind_of_model(Plan).wide.dimensions == {"workspace"}
    assert not kind_of_model(Plan).wide.writable
    assert kind_of_model(Document).wide is None
    named = owned("tenant_id", wide=wide("workspace", reason="x", writable=True))
    assert named.wide.writable


def test_row_level_security_says_the_same(world: str) -> None:
    known = {model._meta.db_table: _columns(model) for model in (Board, Card, Plan)}
    metadata = metadata_of(world, known)
    board, card, plan = (classify_alone(metadata.tables[f"ormtests_{name}"]) for name in ("board", "card", "plan"))
    assert board.wide.writable
    assert not plan.wide.writable
    assert [key.dimension for key in card.narrower] == ["workspace"]


def _columns(model: Any) -> list[str]:
    return [field.column for field in model._meta.local_concrete_fields]
