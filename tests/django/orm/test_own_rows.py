"""What a tenant reads equals what a filter written by hand reads, for random queries over random rows."""

from typing import Any

from django.db import connections, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantguard import bind, system
from tests.django.orm.models import Comment, Country, Document, Folder
from tests.django.orm.world import A

TENANTS = ("a", "b", "c")

rows = st.lists(
    st.tuples(
        st.sampled_from(TENANTS),
        st.integers(0, 3),  # pages
        st.booleans(),  # in a folder
        st.integers(0, 2),  # comments
    ),
    max_size=12,
)
condition = st.recursive(
    st.sampled_from(
        [
            Q(pages=1),
            Q(pages__gte=2),
            Q(folder__isnull=True),
            Q(folder__name="folder"),
            Q(comments__text="1"),
            Q(comments__isnull=False),
            Q(pk__in=[]),
            ~Q(pk__in=[]),
            Q(pages=F("folder__documents__pages")),
            Q(country__documents__pages=1),
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda one, two: one & two, inner, inner),
        st.builds(lambda one, two: one | two, inner, inner),
        st.builds(lambda one: ~one, inner),
    ),
    max_leaves=4,
)


def _fill(made: list[tuple[str, int, bool, int]]) -> None:
    for model in (Comment, Document, Folder):
        model.objects.all()._raw_delete(model.objects.db) if model is Folder else model.objects.all().delete()
    country = Country.objects.get()
    folders = {tenant: Folder.objects.create(name="folder", tenant_id=tenant) for tenant in TENANTS}
    for tenant, pages, filed, comments in made:
        document = Document.objects.create(
            title="x", pages=pages, tenant_id=tenant, folder=folders[tenant] if filed else None, country=country
        )
        for n in range(comments):
            Comment.objects.create(text=str(n), document=document)


def _answers(documents: Any, comments: Any, folders: Any, mine: Q, where: Q) -> list[Any]:
    found = documents.filter(where)
    return [
        sorted(found.values_list("pk", flat=True)),
        found.distinct().count(),
        found.aggregate(Sum("pages")),
        sorted(documents.exclude(where).values_list("pk", flat=True)),
        sorted(comments.filter(document__in=documents.filter(where)).values_list("pk", flat=True)),
        sorted(folders.annotate(n=Count("documents", filter=mine)).values_list("pk", "n")),
        sorted(folders.filter(Exists(documents.filter(where, folder=OuterRef("pk")))).values_list("pk", flat=True)),
        sorted(documents.values_list("folder__name", "pk"), key=repr),
        sorted(documents.filter(pages=1).union(documents.filter(where)).values_list("pk", flat=True)),
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows, condition)
def test_a_tenants_answers_are_those_of_filters_by_hand(world: str, made: list[Any], where: Q) -> None:
    around = transaction.atomic(using=world)
    around._from_testcase = True
    with around:
        with system("fill the tables"):
            _fill(made)
            # Everything of the others is taken away, and then nothing is left to filter.
            with transaction.atomic(using=world):
                Comment.objects.exclude(document__tenant_id="a").delete()
                Document.objects.exclude(tenant_id="a").delete()
                Folder.objects.exclude(tenant_id="a").delete()
                alone = _answers(Document.objects, Comment.objects, Folder.objects, Q(), where)
                transaction.set_rollback(True, using=world)
            by_hand = [
                sorted(Document.objects.filter(tenant_id="a", pages=1).values_list("pk", flat=True)),
                sorted(Comment.objects.filter(document__tenant_id="a").values_list("pk", flat=True)),
            ]
        with bind(A):
            scoped = _answers(Document.objects, Comment.objects, Folder.objects, Q(), where)
            mine = [
                sorted(Document.objects.filter(pages=1).values_list("pk", flat=True)),
                sorted(Comment.objects.values_list("pk", flat=True)),
            ]
        transaction.set_rollback(True, using=world)
    assert connections[world].in_atomic_block is False
    assert scoped == alone
    assert mine == by_hand
