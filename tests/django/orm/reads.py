"""Reading: every way to ask for rows, at every depth."""

import pickle
import warnings
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.db import connection, connections, models, transaction
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    Func,
    IntegerField,
    Max,
    Min,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.expressions import CombinedExpression, RawSQL
from django.db.models.functions import Cast, Coalesce, Concat, Lower, Replace, RowNumber, TruncDate, Upper
from django.forms import ModelChoiceField, modelform_factory

from tenantguard import read_tenants
from tests.django.orm.models import (
    Comment,
    Country,
    Document,
    Folder,
    Forgotten,
    Label,
    Line,
    Note,
    Organisation,
    Project,
    Reaction,
    Report,
    ReportProxy,
    Task,
    Template,
    Ticket,
)
from tests.django.orm.world import FIRST_OF_B, Attack

D, C = Document.objects, Comment.objects
BS = FIRST_OF_B


def db() -> Any:
    return connections[Document.objects.db]


def inside(attack: Attack) -> Attack:
    def run() -> Any:
        with transaction.atomic(using=Document.objects.db):
            return attack()

    return run


SCOPED: dict[str, tuple[Attack, Any]] = {
    "all": (lambda: len(D.all()), 4),
    "count": (lambda: D.count(), 4),
    "exists": (lambda: D.filter(pk__gte=BS).exists(), False),
    "get by pk": (lambda: D.filter(pk=BS).first(), None),
    "first and last": (lambda: [D.order_by("pk").first().pk, D.order_by("pk").last().pk], [1, 11]),
    "earliest and latest": (lambda: [D.earliest("pk").pk, D.latest("pk").pk], [1, 11]),
    "slice": (lambda: [d.pk for d in D.order_by("-pk")[:3]], [11, 3, 2]),
    "base manager": (lambda: Document._base_manager.count(), 4),
    "default manager": (lambda: Document._default_manager.count(), 4),
    "manager made by hand": (lambda: _manager(Document).count(), 4),
    "queryset made by hand": (lambda: models.QuerySet(Document).count(), 4),
    "using": (lambda: D.using(D.db).count(), 4),
    "db_manager": (lambda: Document.objects.db_manager(D.db).count(), 4),
    "values": (lambda: sorted(D.values_list("pk", flat=True)), [1, 2, 3, 11]),
    "values of dicts": (lambda: len(list(D.values("title", "folder__name"))), 4),
    "named tuples": (lambda: len(D.values_list("title", named=True)), 4),
    "only and defer": (lambda: [len(D.only("title")), len(D.defer("title"))], [4, 4]),
    "deferred field loads": (lambda: [d.pages for d in D.only("title").order_by("pk")], [1, 2, 3, 11]),
    "in_bulk": (lambda: sorted(D.in_bulk([1, BS])), [1]),
    "in_bulk of all": (lambda: sorted(D.in_bulk()), [1, 2, 3, 11]),
    "in_bulk by slug": (
        lambda: sorted(D.filter(slug__isnull=False).in_bulk(field_name="slug")),
        ["own-0", "own-1", "own-2"],
    ),
    "iterator": (lambda: len(list(D.iterator(chunk_size=1))), 4),
    "iterator with prefetch": (lambda: len(list(D.prefetch_related("comments").iterator(chunk_size=2))), 4),
    "dates": (lambda: len(D.dates("made", "day")), 1),
    "datetimes": (lambda: len(D.datetimes("made", "hour")), 1),
    "distinct": (lambda: D.values("country").distinct().count(), 2),
    "reverse": (lambda: D.order_by("pk").reverse()[0].pk, 11),
    "none and or": (lambda: (D.none() | D.filter(pages__gte=0)).count(), 4),
    "or of query sets": (lambda: (D.filter(pk=BS) | D.filter(pk=1)).count(), 1),
    "xor of query sets": (lambda: (D.filter(pk__gte=1) ^ D.filter(pk=1)).count(), 3),
    "or true": (lambda: D.filter(Q(pk__gte=0) | Q(tenant_id="b")).count(), 4),
    "not": (lambda: D.exclude(tenant_id="a").count(), 0),
    "negated everything": (lambda: D.filter(~Q(pk__in=[])).count(), 4),
    "tenant asked for": (lambda: D.filter(tenant_id="b").count(), 0),
    "tenant in": (lambda: D.filter(tenant_id__in=["a", "b"]).count(), 4),
    "contains": (lambda: D.all().contains(Document(pk=BS)), False),
    # aggregates and annotations
    "aggregate": (
        lambda: D.aggregate(Count("pk"), Max("pages"), Min("pages"), Sum("pages")),
        {"pk__count": 4, "pages__max": 11, "pages__min": 1, "pages__sum": 17},
    ),
    "aggregate over a relation": (lambda: D.aggregate(n=Count("comments"))["n"], 6),
    "aggregate from a shared model": (lambda: Country.objects.aggregate(n=Count("documents"))["n"], 3),
    "sum from a shared model": (lambda: Country.objects.annotate(n=Sum("documents__pages")).get().n, 6),
    "max from a shared model": (
        lambda: Country.objects.annotate(n=Max("documents__comments__text")).get().n,
        "own comment 21",
    ),
    "distinct aggregate": (lambda: D.aggregate(n=Count("labels", distinct=True))["n"], 2),
    "filtered aggregate": (lambda: Country.objects.annotate(n=Count("documents", filter=Q(pk__gte=0))).get().n, 3),
    "sliced aggregate": (lambda: D.all()[:100].aggregate(n=Max("pages"))["n"], 11),
    "distinct then aggregate": (lambda: D.distinct().aggregate(n=Sum("pages"))["n"], 17),
    "aggregate over annotation": (
        lambda: D.annotate(n=Count("comments")).aggregate(m=Max("n"), a=Avg("n")),
        {"m": 2, "a": 1.5},
    ),
    "group by": (lambda: [row["n"] for row in D.values("country").annotate(n=Count("pk")).order_by("n")], [1, 3]),
    "having": (lambda: Country.objects.annotate(n=Count("documents")).filter(n__gt=3).count(), 0),
    "window": (lambda: [d.n for d in D.annotate(n=Window(RowNumber(), order_by="pk"))], [1, 2, 3, 4]),
    "window over all": (lambda: {d.n for d in D.annotate(n=Window(Max("pages")))}, {11}),
    "filtered window": (lambda: D.annotate(n=Window(RowNumber(), order_by="pk")).filter(n__lte=100).count(), 4),
    "window function in a subquery": (
        lambda: D.filter(pk__in=D.annotate(n=Window(RowNumber(), order_by="-pk")).filter(n=1).values("pk")).get().pk,
        11,
    ),
    "functions": (lambda: len(D.annotate(x=Concat(Lower("title"), Value("-"), Upper("title"))).values_list("x")), 4),
    "conditional": (lambda: D.aggregate(n=Sum(Case(When(pages__gte=0, then=1), default=0)))["n"], 4),
    "alias": (lambda: D.alias(n=F("pages") + 1).filter(n__gte=0).count(), 4),
    "truncated dates": (lambda: D.annotate(d=TruncDate("made")).values("d").distinct().count(), 2),
    # joins
    "join by filter": (lambda: D.filter(folder__name__contains="CANARY").count(), 0),
    "join two deep": (lambda: C.filter(document__folder__parent__name__startswith="own").count(), 4),
    "join to many": (lambda: D.filter(comments__reactions__kind__contains="CANARY").count(), 0),
    "join from shared": (lambda: Country.objects.filter(documents__title__contains="CANARY").count(), 0),
    "exclude over many": (lambda: D.exclude(comments__text__contains="own").count(), 1),
    "exclude from shared": (lambda: Country.objects.exclude(documents__pages__gte=BS).count(), 1),
    "isnull": (lambda: Country.objects.filter(documents__comments__isnull=False).distinct().count(), 1),
    "values across": (
        lambda: sorted(set(Country.objects.values_list("documents__folder__name", flat=True)), key=str),
        [None, "own inner"],
    ),
    "outer join keeps rows": (lambda: D.select_related("folder").count(), 4),
    "select_related": (
        lambda: [d.folder and d.folder.name for d in D.select_related("folder__parent").order_by("pk")],
        [None, "own inner", "own inner", None],
    ),
    "select_related of all": (lambda: len(_related(C.all())), 6),
    "select_related backwards": (lambda: len(D.select_related("report")), 4),
    "order by relation": (lambda: len(D.order_by("folder__name", "country__name")), 4),
    "order by reverse relation": (lambda: len(Country.objects.order_by("documents__pages")), 3),
    "filtered relation": (
        lambda: (
            Country.objects.annotate(d=FilteredRelation("documents", condition=Q(documents__pages__gte=0)))
            .filter(d__title__contains="")
            .count()
        ),
        3,
    ),
    "self join": (lambda: [f.name for f in Folder.objects.filter(children__name__contains="inner")], ["own outer"]),
    # related managers
    "reverse manager": (lambda: D.get(pk=1).comments.count(), 2),
    "reverse manager of b's key": (lambda: Document(pk=BS).comments.count(), 0),
    "reverse manager of b's row": (lambda: len(Folder(pk=BS + 1).documents.all()), 0),
    "reverse manager of shared": (lambda: Country.objects.get().documents.count(), 3),
    "many to many": (lambda: D.get(pk=1).labels.count(), 2),
    "many to many of b's key": (lambda: Document(pk=BS).labels.count(), 0),
    "many to many backwards": (lambda: Label(pk=BS).documents.count(), 0),
    "through": (lambda: Document.labels.through.objects.count(), 6),
    "generic relation": (lambda: D.get(pk=1).notes.count(), 1),
    "generic relation of b's key": (lambda: Document(pk=BS).notes.count(), 0),
    "generic relation in a filter": (lambda: D.filter(notes__text__contains="CANARY").count(), 0),
    "generic foreign key": (lambda: [n.about.pk for n in Note.objects.order_by("pk")], [1, 2, 3]),
    "generic foreign key to b's": (
        lambda: Note(content_type=ContentType.objects.get_for_model(Document), object_id=BS).about,
        None,
    ),
    "content type": (
        lambda: ContentType.objects.get_for_model(Document).get_all_objects_for_this_type(pk=BS).count(),
        0,
    ),
    "prefetch": (lambda: [len(d.comments.all()) for d in D.prefetch_related("comments").order_by("pk")], [2, 2, 2, 0]),
    "prefetch from shared": (lambda: len(Country.objects.prefetch_related("documents").get().documents.all()), 3),
    "prefetch deep": (
        lambda: [len(c.reactions.all()) for d in D.prefetch_related("comments__reactions") for c in d.comments.all()],
        [1] * 6,
    ),
    "prefetch of generic": (
        lambda: [n.about.pk for n in Note.objects.prefetch_related("about").order_by("pk")],
        [1, 2, 3],
    ),
    "prefetch many to many": (
        lambda: [len(d.labels.all()) for d in D.prefetch_related("labels").order_by("pk")],
        [2, 2, 2, 0],
    ),
    "prefetch many to many backwards": (
        lambda: [
            len(one.documents.all()) for one in Label.objects.prefetch_related("documents__labels").order_by("pk")
        ],
        [3, 3],
    ),
    "prefetch many to many of b's": (lambda: _prefetched_labels(Document(pk=BS)), 0),
    "prefetch object": (
        lambda: len(
            Country.objects.prefetch_related(Prefetch("documents", Document.objects.all(), to_attr="found")).get().found
        ),
        3,
    ),
    "prefetch of b's": (lambda: _prefetched(Document(pk=BS)), 0),
    # subqueries
    "subquery": (
        lambda: Country.objects.annotate(t=Subquery(D.order_by("-pages").values("title")[:1])).get().t,
        "own report",
    ),
    "outer reference": (
        lambda: [
            f.t
            for f in Folder.objects.annotate(
                t=Subquery(D.filter(folder=OuterRef("pk")).order_by("-pk").values("title")[:1])
            ).order_by("pk")
        ],
        [None, "own document 2"],
    ),
    "exists from shared": (lambda: Country.objects.filter(Exists(D.filter(pages__gte=BS))).count(), 0),
    "exists of outer reference": (lambda: D.filter(Exists(C.filter(document=OuterRef("pk")))).count(), 3),
    "in a query set": (lambda: Country.objects.filter(documents__in=D.filter(pages__gte=BS)).count(), 0),
    "in values": (lambda: D.filter(pages__in=Document.objects.values("pages")).count(), 4),
    "comparison with subquery": (
        lambda: D.filter(pages=Subquery(D.order_by("-pages").values("pages")[:1])).get().pk,
        11,
    ),
    "nested three deep": (
        lambda: Country.objects.filter(
            pk__in=D.filter(folder__in=Folder.objects.filter(pk__in=D.filter(pages__gte=BS).values("folder"))).values(
                "country"
            )
        ).count(),
        0,
    ),
    "count in subquery": (
        lambda: (
            Country.objects.annotate(
                n=Coalesce(
                    Subquery(D.filter(country=OuterRef("pk")).values("country").annotate(c=Count("pk")).values("c")), 0
                )
            )
            .get()
            .n
        ),
        3,
    ),
    # criteria that fail on rows of others
    "cast in a child": (lambda: _numbers(C, "text").filter(n__gt=5).count(), 6),
    "cast in a child that is joined": (
        lambda: _numbers(Country.objects, "documents__comments__text").filter(n__gt=5).count(),
        6,
    ),
    "cast in a child that joins its parent": (
        lambda: _numbers(C.filter(document__title__startswith="own"), "text").filter(n__gt=5).count(),
        6,
    ),
    "cast in a child of a child": (lambda: _numbers(Reaction.objects, "comment__text").filter(n__gt=5).count(), 6),
    "cast in a subquery": (lambda: D.filter(pages__in=_numbers(C, "text").values("n")).count(), 0),
    "cast in an update": (lambda: _numbers(C, "text").filter(n__gt=5).update(text="x"), 6),
    "cast in a delete": (lambda: _numbers(Reaction.objects, "kind").filter(n__gt=5).delete()[0], 6),
    "cast in a filtered relation": (
        lambda: (
            Country.objects.annotate(
                d=FilteredRelation("documents", condition=Q(documents__pages__lt=_division(F("documents__pages"))))
            )
            .filter(d__title__contains="")
            .count()
        ),
        3,
    ),
    "division": (lambda: D.filter(pages__gt=_division(F("pages"))).count(), 0),
    "division in a child": (lambda: C.filter(pk__gt=_division(F("pk"))).count(), 0),
    "division for many": (lambda: _both(lambda: C.filter(pk__lt=_division(F("pk") * 0 + 1)).count()), 12),
    "outer join with criteria that can fail": (
        lambda: D.annotate(n=Cast("comments__pk", IntegerField())).filter(Q(n__isnull=True) | Q(n__gt=0)).count(),
        7,
    ),
    # set operations
    "union": (lambda: len(D.filter(pk=1).union(D.filter(pages__gte=BS), all=True)), 1),
    "union with shared": (
        lambda: min(Country.objects.values_list("name").union(D.values_list("title"), all=True)),
        ("Utopia",),
    ),
    "union with shared, all rows": (
        lambda: len(Country.objects.values_list("name").union(D.values_list("title"), all=True)),
        5,
    ),
    "intersection": (lambda: len(D.all().intersection(D.filter(pk=BS))), 0),
    "difference": (lambda: len(D.all().difference(D.filter(pk=1))), 3),
    "union in a subquery": (
        lambda: D.filter(pk__in=D.filter(pk=1).union(D.filter(pages__gte=BS)).values("pk")).count(),
        1,
    ),
    "union counted": (lambda: D.all().union(D.filter(pk=BS)).count(), 4),
    "union ordered and sliced": (lambda: [d.pk for d in D.all().union(D.all()).order_by("-pk")[:2]], [11, 3]),
    # inheritance
    "multi-table child": (lambda: [r.pk for r in Report.objects.all()], [11]),
    "multi-table child, its own columns": (
        lambda: list(Report.objects.values_list("summary", flat=True)),
        ["own summary"],
    ),
    "multi-table child, its table alone": (lambda: Report.objects.values_list("document_ptr_id").count(), 1),
    "multi-table child by key": (lambda: Report.objects.filter(document_ptr_id=BS + 10).count(), 0),
    "proxy": (lambda: ReportProxy.objects.count(), 1),
    "child from parent": (lambda: D.get(pk=11).report.summary, "own summary"),
    "child of child": (lambda: Reaction.objects.count(), 6),
    "child of child aggregated": (lambda: Reaction.objects.aggregate(n=Max("comment__document__pages"))["n"], 3),
    # other keys
    "integer key": (lambda: _as("1", lambda: Ticket.objects.count()), 1),
    "uuid key": (lambda: _as("00000000-0000-0000-0000-000000000001", lambda: Project.objects.count()), 1),
    "primary key as tenant key": (lambda: [o.title for o in Organisation.objects.all()], ["own organisation"]),
    "foreign key as tenant key": (lambda: Task.objects.count(), 2),
    "tenant in the primary key": (lambda: [line.pk for line in Line.objects.all()], [("a", 1)]),
    "tenant in the primary key, asked for": (lambda: Line.objects.filter(pk=("b", BS)).count(), 0),
    "tenant in the primary key, among": (lambda: Line.objects.filter(pk__in=[("b", BS), ("a", 1)]).count(), 1),
    "global rows": (lambda: sorted(t.name for t in Template.objects.all()), ["everybody's template", "own template"]),
    # locks, forms, fixtures
    "select for update": (inside(lambda: len(D.select_for_update())), 4),
    "select for update of a join": (
        inside(lambda: len(C.select_for_update(of=("self",)).select_related("document"))),
        6,
    ),
    "model choice field": (
        lambda: list(ModelChoiceField(D.all()).queryset.values_list("pk", flat=True).order_by("pk")),
        [1, 2, 3, 11],
    ),
    "dumped": (lambda: serializers.serialize("json", D.all()).count('"model"'), 4),
    "pickled query": (lambda: _repickled(D.filter(pages__gte=0)).count(), 4),
    "refreshed": (lambda: _refreshed(D.get(pk=1)), "own document 0"),
    "string of the query": (lambda: "'b'" in str(D.all().query), False),
    "validate unique": (lambda: Label(name="B-CANARY label 0"[:0] + "fresh").validate_unique(), None),
    "unique looked for in the tenant alone": (lambda: Label(name="B-" + "CANARY label 0").validate_constraints(), None),
}

REFUSED: dict[str, Attack] = {
    "serialized database": lambda: db().creation.serialize_db_to_string(),
    "get of b's row": lambda: D.get(pk=BS),
    "refresh of b's row": lambda: Document(pk=BS).refresh_from_db(),
    "raw": lambda: list(D.raw("SELECT * FROM ormtests_document")),
    "raw with joins": lambda: list(C.raw("SELECT c.* FROM ormtests_comment c")),
    "extra where": lambda: list(D.extra(where=["1=1 OR tenant_id = 'b'"])),
    "extra select": lambda: list(D.extra(select={"x": "(SELECT max(title) FROM ormtests_document)"})),
    "extra tables": lambda: list(Country.objects.extra(tables=["ormtests_document"])),
    "extra tables alone": lambda: list(Country.objects.extra(tables=["ormtests_document"]).values_list("pk")),
    "extra order": lambda: list(D.extra(select={"x": "title"}, order_by=["x"])),
    "raw expression": lambda: list(D.annotate(x=RawSQL("(SELECT max(title) FROM ormtests_document)", ()))),
    "raw expression in a filter": lambda: list(D.filter(pk__in=RawSQL("SELECT id FROM ormtests_document", ()))),
    "raw expression in order": lambda: list(D.order_by(RawSQL("title", ()))),
    "raw expression in aggregate": lambda: D.aggregate(x=Max(RawSQL("(SELECT max(pages) FROM ormtests_document)", ()))),
    "raw expression in values": lambda: list(
        Country.objects.values(x=RawSQL("(SELECT max(title) FROM ormtests_document)", ()))
    ),
    "function template": lambda: list(
        D.annotate(
            x=Func(F("pk"), template="(SELECT max(title) FROM ormtests_document)", output_field=models.TextField())
        )
    ),
    "function by name": lambda: list(
        D.annotate(x=Func(Value("select 1"), function="query_to_xml", output_field=models.TextField()))
    ),
    "function name with SQL": lambda: list(
        D.annotate(x=Func(F("pk"), function="(SELECT max(pages) FROM ormtests_document) + abs"))
    ),
    "function joiner": lambda: list(
        D.annotate(
            x=Func(F("pk"), F("pk"), function="abs", arg_joiner=" + (SELECT max(pages) FROM ormtests_document) + ")
        )
    ),
    "function template of a class": lambda: list(D.annotate(x=Sneaky(F("pk")))),
    "function template of an instance": lambda: list(D.annotate(x=_templated(Lower(F("title"))))),
    "expression of the app's": lambda: list(D.annotate(x=Own())),
    "expression for one database": lambda: list(D.annotate(x=OwnByVendor(F("pk")))),
    "lookup of the app's": lambda: D.filter(OwnLookup(F("pk"), 1)).count(),
    "connector": lambda: list(
        D.annotate(x=CombinedExpression(F("pk"), "+ (SELECT max(pages) FROM ormtests_document) +", Value(1)))
    ),
    "subquery template": lambda: list(
        Country.objects.annotate(x=Subquery(D.values("pk"), template="(SELECT max(pages) FROM ormtests_document)"))
    ),
    "cast to SQL": lambda: list(D.annotate(x=ExpressionWrapper(F("pk"), output_field=OwnField()))),
    "explain with counts": lambda: D.all().explain(analyze=True),
    "unclassified": lambda: Forgotten.objects.count(),
    "unclassified, created": lambda: Forgotten.objects.create(text="x"),
    "cursor": lambda: db().cursor().execute("SELECT title FROM ormtests_document").fetchall(),
    "cursor with many": lambda: db().cursor().executemany("SELECT title FROM ormtests_document WHERE id = %s", [[1]]),
    "cursor below": lambda: db().cursor().cursor.execute("SELECT title FROM ormtests_document").fetchall(),
    "chunked cursor": lambda: _with_cursor(db().chunked_cursor(), lambda cursor: cursor),
    "chunked cursor below": lambda: _with_cursor(db().chunked_cursor(), lambda cursor: cursor.cursor),
    "driver's connection": lambda: db().connection.execute("SELECT title FROM ormtests_document").fetchall(),
    "driver's cursor": lambda: db().connection.cursor().execute("SELECT title FROM ormtests_document").fetchall(),
    "default connection": lambda: connection.cursor().execute("SELECT title FROM ormtests_document"),
    "sql with savepoint words": lambda: db().cursor().execute("SAVEPOINT x; SELECT title FROM ormtests_document"),
    "a string with the vouched text": lambda: _replayed(),
    "introspection": lambda: db().introspection.table_names(),
    "schema editor": lambda: _schema(),
    "compiler of Django's own": lambda: _plain_compiler(),
    "another tenant's narrow key": lambda: Ticket.objects.count(),
}


class Sneaky(Func):
    template = "(SELECT max(title) FROM ormtests_document)"
    output_field = models.TextField()


class Own(models.Expression):
    output_field = models.TextField()

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "(SELECT max(title) FROM ormtests_document)", []


class OwnByVendor(Lower):
    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return "(SELECT max(title) FROM ormtests_document)", []

    as_postgresql = as_sqlite


class OwnLookup(models.Lookup):
    lookup_name = "own"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "1=1 OR EXISTS (SELECT 1 FROM ormtests_document)", []


class OwnField(models.TextField):
    def select_format(self, compiler: Any, sql: Any, params: Any) -> Any:
        return "(SELECT max(title) FROM ormtests_document)", []


def _manager(model: Any) -> Any:
    manager = models.Manager()
    manager.model = model
    return manager


def _related(rows: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # Django 6.1 asks for the relations' names
        return rows.select_related()


def _numbers(rows: Any, path: str) -> Any:
    """Make numbers of texts in a way that fails on b's, whose text has no such end."""
    digits = Cast(
        Replace(Replace(path, Value("own comment "), Value("1")), Value("own reaction"), Value("11")), IntegerField()
    )
    return rows.annotate(n=digits)


def _division(column: Any) -> Any:
    """Divide by nothing on b's first row."""
    return Value(1_000_000) / (column - Value(BS)) * Value(-1) * Value(1_000_000)


def _both(ask: Attack) -> Any:
    with read_tenants(["b"], reason="group report"):
        return ask()


def _templated(node: Any) -> Any:
    node.template = "(SELECT max(title) FROM ormtests_document)"
    return node


def _as(tenant: str, ask: Attack) -> Any:
    from tenantguard import bind, service_identity

    with bind(service_identity("other", tenant=tenant)):
        return ask()


def _prefetched(document: Any) -> int:
    models.prefetch_related_objects([document], "comments")
    return len(document.comments.all())


def _repickled(queryset: Any) -> Any:
    again = D.all()
    again.query = pickle.loads(pickle.dumps(queryset.query))
    return again


def _prefetched_labels(document: Any) -> int:
    models.prefetch_related_objects([document], "labels")
    return len(document.labels.all())


def _refreshed(document: Any) -> str:
    document.title = "else"
    document.refresh_from_db()
    return str(document.title)


def _with_cursor(cursor: Any, which: Any) -> Any:
    with cursor:
        return which(cursor).execute("SELECT title FROM ormtests_document").fetchall()


def _replayed() -> Any:
    sql, params = D.all().query.sql_with_params()
    return db().cursor().execute(sql, ["b" for _ in params]).fetchall()


def _schema() -> Any:
    with db().schema_editor() as editor:
        editor.execute("DROP TABLE ormtests_document")


def _plain_compiler() -> Any:
    from django.db.models.sql.compiler import SQLCompiler

    query = D.all().query
    return list(SQLCompiler(query, db(), D.db).execute_sql())


FORM = modelform_factory(Document, fields=["title", "folder", "labels"])
"""Made at import, with nobody bound."""
AT_IMPORT = Document.objects.filter(pages__gte=0).order_by("pk")
_ = IntegerField
