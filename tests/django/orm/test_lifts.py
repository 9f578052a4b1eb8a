"""The barrier lifted for one model of one query set: what it gives, and where it does not reach."""

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import Count, Exists, F, FilteredRelation, OuterRef, Prefetch, Q, Subquery, Sum, Value
from django.db.models.functions import Concat
from django.forms import modelform_factory
from tenantguard_django.orm import move_rows, read_across, write_across

from tenantguard import bind, service_identity, system
from tenantguard.errors import (
    ConfigurationError,
    ForeignTenantWrite,
    InvalidTenantId,
    NotBound,
    StatementRefused,
    TenantGuardError,
    TenantMismatch,
)
from tests.django.orm.models import (
    Comment,
    Country,
    Document,
    Folder,
    Label,
    Line,
    Organisation,
    Reaction,
    Report,
    Task,
    Template,
    Ticket,
)
from tests.django.orm.world import FIRST_OF_B, A, B, is_canary, snapshot

D, BS = Document.objects, FIRST_OF_B
WHY = "a test"


@pytest.fixture(autouse=True)
def nothing_stays(world: str) -> Iterator[None]:
    around = transaction.atomic(using=world)
    around._from_testcase = True
    with around:
        yield
        transaction.set_rollback(True, using=world)


def every(queryset: Any = D, *models: Any) -> Any:
    return read_across(queryset, *models, reason=WHY)


def titles() -> list[str]:
    with system("look"):
        return sorted(D.values_list("title", flat=True))


# --- reading ---------------------------------------------------------------------------------------------------------

READS: dict[str, tuple[Callable[[], Any], Any]] = {
    "count": (lambda: every().count(), 8),
    "count of a manager's query set": (lambda: every(D.filter(pages__gte=0)).count(), 8),
    "exists": (lambda: every(D.filter(pk=BS)).exists(), True),
    "aggregate": (lambda: every().aggregate(n=Count("pk"), most=Sum("pages"))["n"], 8),
    "values": (lambda: len(every().values("title")), 8),
    "values of a row": (lambda: every(D.filter(pk=BS)).values_list("pk", flat=True).get(), BS),
    "a filter that follows": (lambda: every().filter(pk__gte=BS).count(), 4),
    "groups": (lambda: sorted(every().values("tenant_id").annotate(n=Count("pk")).values_list("n", flat=True)), [4, 4]),
    "distinct": (lambda: every().values("tenant_id").distinct().count(), 2),
    "a slice": (lambda: every(D.order_by("-pk"))[:1].values_list("pk", flat=True)[0] >= BS, True),
    "a child": (lambda: every(Comment.objects).count(), 12),
    "a child's child": (lambda: every(Reaction.objects).count(), 12),
    "a child by its parent": (
        lambda: every(Comment.objects, Comment, Document).filter(document__pages__gte=0).count(),
        12,
    ),
    "multi-table inheritance": (lambda: every(Report.objects, Report, Document).filter(title__contains="").count(), 2),
    "rows for everybody": (lambda: every(Template.objects).count(), 3),
    "a union of both": (lambda: len(every().values_list("pk").union(every(Folder.objects).values_list("pk"))), 8),
    "an asked subquery": (
        lambda: D.filter(pages__lt=Subquery(every().order_by("-pages").values("pages")[:1])).count(),
        4,
    ),
    "dates": (lambda: len(every().dates("made", "year")), 1),
    "iteration in parts": (lambda: len(list(every().values_list("pk").iterator(chunk_size=2))), 8),
    "two models": (lambda: every(D, Document, Folder).filter(folder__name__contains="inner").count(), 4),
    "a shared model beside": (lambda: every().filter(country__name="Utopia").count(), 6),
}


@pytest.mark.parametrize("name", READS)
def test_the_named_model_is_read_across_tenants(world: str, name: str) -> None:
    read, expected = READS[name]
    with bind(A):
        assert read() == expected


KEPT: dict[str, tuple[Callable[[], Any], Any]] = {
    "the query set that it was made from": (lambda: [every(D.all()).count(), D.count()], [8, 4]),
    "a joined model": (lambda: every().filter(folder__name__contains="").count(), 2),
    "a joined model's columns": (
        lambda: set(every().values_list("folder__name", flat=True)),
        {None, "own inner"},
    ),
    "a child": (lambda: every().filter(comments__text__contains="").distinct().count(), 3),
    "a child that follows its parent": (lambda: every(Comment.objects, Document).count(), 6),
    "a joined child of a lifted parent": (
        lambda: every(D).filter(comments__isnull=False).values("comments__text").distinct().count(),
        6,
    ),
    "a child over the lifted parent": (
        lambda: every(Comment.objects, Document).filter(document__title__contains="").count(),
        6,
    ),
    "a parent over the lifted child": (
        lambda: every(Comment.objects).filter(document__title__contains="").count(),
        6,
    ),
    "a child's child over both": (
        lambda: every(Reaction.objects, Comment, Document).filter(comment__document__title__contains="").count(),
        6,
    ),
    "many to many": (lambda: every().filter(labels__name__contains="").distinct().count(), 3),
    "a filtered relation": (
        lambda: (
            every()
            .annotate(c=FilteredRelation("comments", condition=Q(comments__text__contains="")))
            .filter(c__isnull=False)
            .distinct()
            .count()
        ),
        3,
    ),
    "the query around": (lambda: D.filter(pk__in=every()).count(), 4),
    "the query around, by values": (lambda: D.filter(pk__in=every().values("pk")).count(), 4),
    "the query around, by exists": (lambda: D.filter(Exists(every().filter(pk=OuterRef("pk")))).count(), 4),
    "the query within": (lambda: every().filter(pk__in=D.all()).count(), 4),
    "the query within, by exists": (lambda: every().filter(Exists(D.filter(pk=OuterRef("pk")))).count(), 4),
    "the query within, by a subquery": (
        lambda: set(every().values_list(Subquery(D.order_by("-pages").values("pages")[:1]), flat=True)),
        {11},
    ),
    "the other part of a union": (lambda: len(every(D.filter(pk=1)).values_list("pk").union(D.values_list("pk"))), 4),
    "the first part of a union": (lambda: len(D.values_list("pk").union(every(D.filter(pk=1)).values_list("pk"))), 4),
    "the other part of a difference": (
        lambda: len(every().values_list("pk").difference(D.values_list("pk"))),
        4,
    ),
    "an aggregate over a joined model": (lambda: every().aggregate(n=Count("comments"))["n"], 6),
    "inheritance without the parent": (lambda: every(Report.objects).filter(title__contains="").count(), 1),
    "what an update finds": (lambda: every().update(title="x"), 4),
    "what an update of another model finds": (
        lambda: every(D.filter(folder__name__contains=""), Folder).update(title="x"),
        2,
    ),
    "what a delete finds": (lambda: every(Reaction.objects.all())._raw_delete(D.db), 6),
    "creating": (lambda: every().create(title="new").tenant_id, "a"),
    "many creations": (lambda: [d.tenant_id for d in every().bulk_create([Document(title="1")])], ["a"]),
    "a row whose values were read": (lambda: _saved_as_read(), ["refused", "refused", 0, 0]),
}


def _saved_as_read() -> list[Any]:
    """Make an object of what was read, and try to use it as the tenant's own."""
    row = every(D.filter(pk=BS)).values().get()
    forged = Document(**row)
    found: list[Any] = []
    for attempt in (forged.save, lambda: D.create(title="x", folder_id=row["folder_id"] or BS)):
        try:
            with transaction.atomic(using=D.db):
                attempt()
        except TenantGuardError:
            found.append("refused")
    found.append(forged.comments.count() + forged.labels.count() + forged.notes.count())
    found.append(D.filter(pk=forged.pk).update(title="x"))
    return found


@pytest.mark.parametrize("name", KEPT)
def test_everything_else_stays_scoped(world: str, name: str) -> None:
    attack, expected = KEPT[name]
    with bind(A):
        assert attack() == expected
    with system("look"):
        assert D.filter(tenant_id="b", title__contains="CANARY").count() == 4


OBJECTS: dict[str, Callable[[], Any]] = {
    "iteration": lambda: list(every()),
    "get": lambda: every().get(pk=BS),
    "first": lambda: every().first(),
    "in_bulk": lambda: every().in_bulk([BS]),
    "iterator": lambda: list(every().iterator()),
    "only": lambda: list(every().only("title")),
    "defer": lambda: list(every().defer("title")),
    "select_related": lambda: list(every().select_related("folder")),
    "objects of another model": lambda: list(every(Comment.objects.select_related("document"), Document)),
    "prefetch": lambda: list(every().prefetch_related("comments")),
    "prefetch of what is lifted": lambda: list(
        Folder.objects.prefetch_related(Prefetch("documents", queryset=every())),
    ),
    "union": lambda: list(D.all().union(every())),
    "union the other way": lambda: list(every().union(D.all())),
    "union of a union": lambda: list(D.all().union(D.filter(pk=1).union(every()))),
    "get_or_create": lambda: every().get_or_create(pk=BS),
    "update_or_create": lambda: every().update_or_create(pk=BS, defaults={"title": "x"}),
    "refresh": lambda: Document(pk=BS).refresh_from_db(from_queryset=every()),
    "delete by objects": lambda: every().delete(),
    "a form's choices": lambda: list(
        modelform_factory(Comment, fields=["document"])().fields["document"].__class__(every()).choices
    ),
    "in a lock": lambda: list(every().select_for_update().values("pk")),
    "under a lock elsewhere": lambda: list(D.filter(pk__in=every().select_for_update().values("pk")).values("pk")),
    "write_across that reads": lambda: write_across(D, reason=WHY).count(),
    "write_across in a subquery": lambda: D.filter(pk__in=write_across(D, reason=WHY).values("pk")).count(),
    "write_across in another's update": lambda: D.filter(pk__in=write_across(D, reason=WHY).values("pk")).update(
        pages=1
    ),
    "write_across in another's write_across": lambda: write_across(
        D.filter(folder__in=write_across(Folder.objects, reason=WHY).values("pk")), reason=WHY
    ).update(pages=1),
    "move_rows that reads": lambda: move_rows(D, reason=WHY).count(),
    "and": lambda: (every() & D.filter(pk=1)).count(),
    "or": lambda: (every() | D.filter(pk=1)).count(),
    "or the other way": lambda: (D.filter(pk=1) | every()).count(),
    "or of two reasons": lambda: (every(D.filter(pk=1)) | read_across(D.filter(pk=2), reason="other")).count(),
    "kept by its pickle": lambda: pickle.dumps(every()),
    "pickled once it was read": lambda: pickle.dumps(_evaluated(every().values("title"))),
    "pickled query": lambda: pickle.dumps(every().query),
}


def _evaluated(queryset: Any) -> Any:
    len(queryset)
    return queryset


@pytest.mark.parametrize("name", OBJECTS)
def test_what_a_lift_does_not_give_is_refused(world: str, name: str) -> None:
    before = snapshot()
    error = TypeError if name.startswith("pickled") else StatementRefused
    with bind(A), pytest.raises(error) as caught, transaction.atomic(using=world):
        OBJECTS[name]()
    assert not is_canary(str(caught.value))
    assert snapshot() == before


def test_copies_of_a_query_set_keep_its_right_and_leave_the_original_alone(world: str) -> None:
    with bind(A):
        plain = D.filter(pages__gte=0)
        lifted = every(plain)
        assert plain.count() == 4
        for copied in (copy.deepcopy(lifted), lifted.all(), lifted.filter(), lifted.order_by("pk")):
            assert copied.count() == 8
        joined = lifted.filter(pk=1) | lifted.filter(pk=BS)
        assert joined.count() == 2


def test_what_was_read_across_is_used_by_the_tenant_that_read_it(world: str) -> None:
    with bind(A):
        kept = every().values("title")
        assert len(kept) == 8
    with bind(service_identity("other", tenant="c")), pytest.raises(TenantMismatch):
        len(kept)
    with pytest.raises(TenantMismatch):
        len(kept)


def test_nobody_reads_across(world: str) -> None:
    for attempt in (
        lambda: every().count(),
        lambda: list(every()),
        lambda: write_across(D, reason=WHY).update(title="x"),
        lambda: move_rows(D, reason=WHY).update(tenant_id="c", folder=None),
    ):
        with pytest.raises(NotBound), transaction.atomic(using=world):
            attempt()


def test_a_system_context_needs_no_right_and_is_not_kept_from_objects(world: str) -> None:
    with system("look"):
        assert len(every()) == 8
        assert write_across(D.filter(pk=BS), reason=WHY).update(pages=900_001) == 1


def test_a_narrowed_identity_reads_across_by_name_alone(world: str) -> None:
    with bind(service_identity("x", tenant="a", dimensions={"workspace": "w1"})):
        assert every(Task.objects).count() == 4
        assert Task.objects.count() == 1
        with pytest.raises(StatementRefused):
            every(Task.objects).filter(organisation__title="x").count()


# --- writing ---------------------------------------------------------------------------------------------------------


def test_an_update_across_changes_the_rows_of_all(world: str) -> None:
    with bind(A):
        assert write_across(D.filter(pages__gte=0), reason=WHY).update(pages=F("pages") + 1, title="changed") == 8
        assert write_across(Comment.objects, reason=WHY).update(text="changed") == 12
        assert write_across(D.exclude(pk=1), reason=WHY).update(folder=None) == 7
        assert write_across(D.filter(pk=BS), reason=WHY).update(folder_id=Value(None)) == 1
    assert titles() == ["changed"] * 8


def test_what_an_update_across_joins_stays_scoped(world: str) -> None:
    with bind(A):
        assert write_across(D.filter(folder__name__contains=""), reason=WHY).update(title="x") == 2
        assert write_across(D.filter(comments__text__contains=""), reason=WHY).update(title="x") == 3
        both = read_across(write_across(D.filter(folder__name__contains=""), reason=WHY), Folder, reason=WHY)
        assert both.update(title="changed") == 4
        assert write_across(D.filter(Exists(D.filter(pk=OuterRef("pk")))), reason=WHY).update(title="y") == 4


def test_a_delete_across_removes_the_rows_of_all(world: str) -> None:
    with bind(A):
        assert write_across(Reaction.objects.filter(pk__gte=0), reason=WHY).delete()[0] == 12
        assert write_across(Ticket.objects.filter(title__contains=""), reason=WHY).delete()[0] == 2
        assert write_across(Line.objects, reason=WHY).delete()[0] == 2
    with system("look"):
        assert not Reaction.objects.exists()


def test_what_a_delete_across_joins_stays_scoped(world: str) -> None:
    with bind(A):
        found = write_across(Reaction.objects.filter(comment__text__contains=""), reason=WHY)
        assert found.delete()[0] == 6
    with system("look"):
        assert Reaction.objects.count() == 6


ACROSS: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "its own tenant": (ForeignTenantWrite, lambda rows: rows.update(tenant_id="a")),
    "another tenant": (ForeignTenantWrite, lambda rows: rows.update(tenant_id="b")),
    "a computed tenant": (ForeignTenantWrite, lambda rows: rows.update(tenant_id=Concat(Value(""), Value("a")))),
    "the tenant as it is": (ForeignTenantWrite, lambda rows: rows.update(tenant_id=F("tenant_id"))),
    "an own folder": (ForeignTenantWrite, lambda rows: rows.update(folder=1)),
    "a folder of b's": (ForeignTenantWrite, lambda rows: rows.update(folder=BS)),
    "a folder by name": (ForeignTenantWrite, lambda rows: rows.update(folder=F("folder"))),
    "a folder by subquery": (
        ForeignTenantWrite,
        lambda rows: rows.update(folder=Subquery(Folder.objects.values("pk")[:1])),
    ),
    "many": (ForeignTenantWrite, lambda rows: rows.bulk_update([Document(pk=BS, folder_id=1)], ["folder"])),
    "a delete that cascades": (StatementRefused, lambda rows: rows.delete()),
    "objects": (StatementRefused, lambda rows: list(rows)),
    "values": (StatementRefused, lambda rows: list(rows.values())),
    "a move besides": (StatementRefused, lambda rows: move_rows(rows, reason=WHY).update(tenant_id="c", folder=None)),
}


@pytest.mark.parametrize("name", ACROSS)
def test_writing_across_moves_nothing_and_points_nowhere(world: str, name: str) -> None:
    error, attempt = ACROSS[name]
    before = snapshot()
    with bind(A), pytest.raises(error), transaction.atomic(using=world):
        attempt(write_across(D, reason=WHY))
    assert snapshot() == before


def test_columns_of_a_parents_table_are_written_by_a_right_of_their_own(world: str) -> None:
    with bind(A):
        reports = write_across(Report.objects, reason=WHY)
        for fields in ({"title": "x"}, {"title": "x", "summary": "y"}):
            with pytest.raises(StatementRefused, match="parent's table"), transaction.atomic(using=world):
                reports.update(**fields)
        assert reports.update(summary="changed") == 2
        with pytest.raises(StatementRefused), transaction.atomic(using=world):
            move_rows(Report.objects, reason=WHY).update(tenant_id="c", folder=None)


# --- moving ----------------------------------------------------------------------------------------------------------


def test_own_rows_are_moved_without_what_they_point_to(world: str) -> None:
    with bind(A):
        assert move_rows(D.filter(pk__in=[1, BS]), reason=WHY).update(tenant_id="c", folder=None) == 1
        assert D.count() == 3
        assert move_rows(Task.objects, reason=WHY).update(organisation=Organisation(pk="b")) == 2
    with bind(service_identity("c", tenant="c")):
        assert D.get().folder is None
        assert Comment.objects.count() == 2  # children go along
    with bind(service_identity("1", tenant="1")):
        for nobody in ("seven", True, None):
            with pytest.raises(ForeignTenantWrite, match="nobody"), transaction.atomic(using=world):
                move_rows(Ticket.objects, reason=WHY).update(number=nobody)
        assert move_rows(Ticket.objects, reason=WHY).update(number=7) == 1
        assert not Ticket.objects.exists()
    with bind(B):
        assert D.count() == 4


MOVES: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "with what it points to": (ForeignTenantWrite, lambda: _move(D).update(tenant_id="c")),
    "with a folder": (ForeignTenantWrite, lambda: _move(D).update(tenant_id="c", folder=1)),
    "with its folder": (ForeignTenantWrite, lambda: _move(D).update(tenant_id="c", folder=F("folder"))),
    "with a parent": (ForeignTenantWrite, lambda: _move(Folder.objects).update(tenant_id="c")),
    "by an expression": (
        ForeignTenantWrite,
        lambda: _move(Label.objects).update(tenant_id=Concat(Value("c"), Value(""))),
    ),
    "by a column": (ForeignTenantWrite, lambda: _move(Label.objects).update(tenant_id=F("name"))),
    "to nobody": (InvalidTenantId, lambda: _move(Label.objects).update(tenant_id="")),
    "to NULL": (ForeignTenantWrite, lambda: _move(Label.objects).update(tenant_id=None)),
    "to everybody": (ForeignTenantWrite, lambda: _move(Template.objects).update(org=None)),
    "to everybody by a value": (ForeignTenantWrite, lambda: _move(Template.objects).update(org=Value(None))),
    "to no tenant's id": (InvalidTenantId, lambda: _move(Label.objects).update(tenant_id="a b/../c")),
    "without a tenant": (StatementRefused, lambda: _move(Label.objects).update(name="x")),
    "of a child": (StatementRefused, lambda: _move(Comment.objects).update(document=BS)),
    "by delete": (StatementRefused, lambda: _move(Reaction.objects).delete()),
    "by raw delete": (StatementRefused, lambda: _move(Reaction.objects)._raw_delete(D.db)),
    "without the right": (ForeignTenantWrite, lambda: Label.objects.update(tenant_id="c")),
    "by a right to read": (ForeignTenantWrite, lambda: every(Label.objects).update(tenant_id="c")),
    "of what is not in the update": (
        ForeignTenantWrite,
        lambda: Label.objects.filter(pk__in=_move(Label.objects).values("pk")).update(tenant_id="c"),
    ),
}


def _move(queryset: Any) -> Any:
    return move_rows(queryset, reason=WHY)


@pytest.mark.parametrize("name", MOVES)
def test_rows_are_moved_to_one_tenant_and_drag_nothing_along(world: str, name: str) -> None:
    error, attempt = MOVES[name]
    before = snapshot()
    with bind(A), pytest.raises(error) as caught, transaction.atomic(using=world):
        attempt()
    assert not is_canary(str(caught.value))
    assert snapshot() == before


def test_what_was_moved_is_pointed_to_no_more(world: str) -> None:
    with bind(A), transaction.atomic(using=world):
        folder = Folder.objects.create(name="moved")
        D.create(title="x", folder=folder)
        assert _move(Folder.objects.filter(pk=folder.pk)).update(tenant_id="c", parent=None) == 1
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            D.create(title="x", folder=folder)


def test_rows_of_others_are_not_moved(world: str) -> None:
    with bind(A):
        assert _move(Label.objects.filter(pk__gte=BS)).update(tenant_id="c") == 0
        assert _move(Label.objects.filter(documents__pk__gte=BS)).update(tenant_id="c") == 0


# --- the call --------------------------------------------------------------------------------------------------------


def test_a_lift_needs_a_query_set_a_model_and_a_reason() -> None:
    for door in (read_across, write_across, move_rows):
        with pytest.raises(ConfigurationError, match="reason"):
            door(D.all(), reason=" ")
        for wrong in (Document, None, [], D.raw("SELECT 1"), D.all().union(D.all())):
            with pytest.raises(ConfigurationError, match="query set"):
                door(wrong, reason=WHY)
    with pytest.raises(ConfigurationError, match="models"):
        read_across(D, "Document", reason=WHY)
    with pytest.raises(ConfigurationError, match="models"):
        read_across(D, Country(name="x"), reason=WHY)


def test_each_execution_is_logged(world: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "tenantguard.orm.lifts")
    with bind(A):
        lifted = read_across(D, reason="total on the status page")
        str(lifted.values("pk").query)
        assert caplog.records == []
        lifted.count()
        lifted.count()
        D.filter(pk__in=lifted.values("pk")).count()
        assert D.create(title="x").pk
        write_across(D, reason="ticket 12").update(pages=1)
        move_rows(Label.objects, reason="ticket 13").update(tenant_id="c")
    found = [(record.getMessage(), record.__dict__["tenantguard.permit"]) for record in caplog.records]
    assert found == [("read_across of ormtests.Document: total on the status page", "read_across")] * 3 + [
        ("write_across of ormtests.Document: ticket 12", "write_across"),
        ("move_rows of ormtests.Label: ticket 13", "move_rows"),
    ]
    assert connections[world].tenantguard.lifted == []
