"""Writing: every way to make, change, move and remove a row, and to point to one."""

import json
from typing import Any

from django.core import serializers
from django.core.management import call_command
from django.db import connections, models, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Concat

from tests.django.orm.models import (
    Comment,
    Country,
    Document,
    Filled,
    Folder,
    Label,
    Line,
    Note,
    Organisation,
    Reaction,
    Report,
    Task,
    Template,
    Ticket,
)
from tests.django.orm.world import FIRST_OF_B, Attack

D, BS = Document.objects, FIRST_OF_B


def b_document() -> Document:
    """B's row as b has it, in a's hands."""
    return Document(id=BS, tenant_id="b", title="mine now")


SCOPED: dict[str, tuple[Attack, Any]] = {
    "create": (lambda: D.create(title="new").tenant_id, "a"),
    "create with the own tenant": (lambda: D.create(title="new", tenant_id="a").tenant_id, "a"),
    "create without a default": (lambda: Template.objects.create(name="new").org, "a"),
    "create with an empty tenant": (lambda: D.create(title="new", tenant_id="").tenant_id, "a"),
    "bulk_create": (
        lambda: [d.tenant_id for d in D.bulk_create([Document(title="1"), Document(title="2")])],
        ["a", "a"],
    ),
    "bulk_create in batches": (
        lambda: [d.tenant_id for d in D.bulk_create([Document(title=str(n)) for n in range(5)], batch_size=2)],
        ["a"] * 5,
    ),
    "bulk_create that ignores b's slug": (
        lambda: len(D.bulk_create([Document(title="x", slug="theirs-0")], ignore_conflicts=True)),
        1,
    ),
    "bulk_create that updates the own row": (
        lambda: [
            D.bulk_create(
                [Document(title="changed", slug="own-0")],
                update_conflicts=True,
                update_fields=["title"],
                unique_fields=["slug"],
            )
            and None,
            D.get(slug="own-0").title,
        ],
        [None, "changed"],
    ),
    "multi-table child": (lambda: Report.objects.create(title="new", summary="s").tenant_id, "a"),
    "child": (lambda: Comment.objects.create(text="new", document_id=1).document_id, 1),
    "child of a child": (lambda: Reaction.objects.create(kind="new", comment_id=1).comment_id, 1),
    "update": (lambda: D.update(title="changed"), 4),
    "update of b's row": (lambda: D.filter(pk=BS).update(title="changed"), 0),
    "update by relation": (lambda: D.filter(folder__name__contains="").update(title="changed"), 2),
    "update by many": (lambda: D.filter(comments__text__contains="").update(title="changed"), 3),
    "update by subquery": (
        lambda: D.filter(Exists(Comment.objects.filter(document=OuterRef("pk")))).update(pages=0),
        3,
    ),
    "update with F": (lambda: D.update(pages=F("pages") + 1), 4),
    "update with a subquery": (
        lambda: [
            D.update(title=Subquery(Document.objects.order_by("-pages").values("title")[:1])),
            set(D.values_list("title", flat=True)),
        ],
        [4, {"own report"}],
    ),
    "update of a child": (lambda: Comment.objects.update(text="changed"), 6),
    "update of a child of a child": (lambda: Reaction.objects.update(kind="changed"), 6),
    "update of the parent's columns": (lambda: Report.objects.update(title="changed"), 1),
    "update of both tables": (lambda: Report.objects.update(title="changed", summary="changed"), 1),
    "update of the own tenant key": (lambda: D.update(tenant_id="a"), 4),
    "update of global rows": (lambda: Template.objects.update(name="changed"), 1),
    "update of a foreign key": (lambda: D.update(folder=1), 4),
    "update of a foreign key by F": (lambda: D.update(folder=F("folder")), 4),
    "update of a foreign key by a case": (lambda: D.update(folder=Case(When(pk=1, then=Value(1)), default=None)), 4),
    "update of a foreign key by a scoped subquery": (
        lambda: [D.update(folder=Subquery(Folder.objects.order_by("-pk").values("pk")[:1])), D.get(pk=1).folder_id],
        [4, 2],
    ),
    "bulk_update": (lambda: D.bulk_update([Document(pk=1, title="x"), Document(pk=BS, title="x")], ["title"]), 1),
    "bulk_update of a foreign key": (lambda: D.bulk_update([Document(pk=1, folder_id=1)], ["folder"]), 1),
    "save": (lambda: _saved(D.get(pk=1)), "changed"),
    "save of a deferred row": (lambda: _saved(D.only("title").get(pk=1)), "changed"),
    "save of an expression": (lambda: _counted(D.get(pk=1)), 2),
    "save of a column with an expression": (lambda: _counted(D.get(pk=1), update_fields=["pages"]), 2),
    "save of a child": (lambda: Comment.objects.get(pk=1).save(), None),
    "get_or_create": (lambda: D.get_or_create(slug="fresh", defaults={"title": "x"})[1], True),
    "update_or_create": (lambda: D.update_or_create(slug="own-0", defaults={"title": "x"})[1], False),
    "delete": (lambda: D.filter(pk__gte=0).delete()[1]["ormtests.Document"], 4),
    "delete of b's row": (lambda: D.filter(pk=BS).delete()[0], 0),
    "delete of b's instance": (lambda: Comment(id=BS, document_id=BS).delete()[0], 0),
    "delete by relation": (
        lambda: Comment.objects.filter(document__title__contains="").delete()[1]["ormtests.Comment"],
        6,
    ),
    "raw delete": (lambda: Comment.objects.all()._raw_delete(D.db) if Reaction.objects.all().delete() else None, 6),
    "delete with cascades": (lambda: Folder.objects.get(pk=1).delete()[1]["ormtests.Folder"], 2),
    "delete sets null": (lambda: [Folder.objects.get(pk=2).delete()[0], D.get(pk=2).folder_id], [1, None]),
    "delete of a label": (lambda: Label.objects.get(pk=1).delete()[1]["ormtests.Document_labels"], 3),
    "many to many add": (
        lambda: D.get(pk=11).labels.add(1, Label.objects.get(pk=2)) or D.get(pk=11).labels.count(),
        None,
    ),
    "many to many set": (lambda: [D.get(pk=1).labels.set([1]), D.get(pk=1).labels.count()], [None, 1]),
    "many to many clear": (lambda: [D.get(pk=1).labels.clear(), D.get(pk=1).labels.count()], [None, 0]),
    "many to many clear of b's": (lambda: Label(pk=BS).documents.clear(), None),
    "many to many remove of b's": (lambda: D.get(pk=1).labels.remove(BS), None),
    "many to many create": (lambda: D.get(pk=1).labels.create(name="new").tenant_id, "a"),
    "reverse create": (lambda: D.get(pk=1).comments.create(text="new").document_id, 1),
    "reverse add of the own": (lambda: Folder.objects.get(pk=1).documents.add(D.get(pk=1)), None),
    "reverse clear of b's": (lambda: Folder(pk=BS + 1).documents.clear(), None),
    "generic create": (lambda: D.get(pk=1).notes.create(text="new").tenant_id, "a"),
    "generic clear of b's": (lambda: Document(pk=BS).notes.clear(), None),
    "self reference": (lambda: Folder.objects.create(id=77, name="x", parent_id=77).parent_id, 77),
    "narrower rows": (lambda: Task.objects.create(organisation_id="a", workspace="w9", title="x").organisation_id, "a"),
    "stamped foreign key": (lambda: Task.objects.create(workspace="w9", title="x").organisation_id, "a"),
    "loaded fixture": (lambda: [one.save() for one in serializers.deserialize("json", _fixture(70, "a"))], [None]),
    "tenant in the primary key": (lambda: Line.objects.create(number=7, text="x").pk, ("a", 7)),
    "tenant in the primary key, changed": (lambda: Line.objects.update(text="x"), 1),
    "tenant in the primary key, deleted": (lambda: Line.objects.all().delete()[0], 1),
    "filled foreign key": (lambda: _filled(1), 1),
    "shared row": (lambda: Country.objects.create(name="new").name, "new"),
}

REFUSED: dict[str, Attack] = {
    "create for b": lambda: D.create(title="x", tenant_id="b"),
    "create for b by expression": lambda: D.create(title="x", tenant_id=Value("b")),
    "create for b by function": lambda: D.create(title="x", tenant_id=Concat(Value(""), Value("b"))),
    "bulk_create for b": lambda: D.bulk_create([Document(title="x"), Document(title="y", tenant_id="b")]),
    "global row": lambda: Template.objects.create(org=Value(None), name="x"),
    "integer key of b": lambda: Ticket.objects.create(number=900_001, title="x"),
    "primary key as tenant key of b": lambda: Organisation.objects.create(id="c", title="x"),
    "foreign key as tenant key of b": lambda: Task.objects.create(organisation_id="b", workspace="w1", title="x"),
    "over b's row": lambda: Document(id=BS, title="x").save(),
    "b's instance saved": lambda: b_document().save(),
    "b's instance saved by force": lambda: b_document().save(force_update=True),
    "b's instance inserted by force": lambda: b_document().save(force_insert=True),
    "b's row updated by force": lambda: Document(id=BS, title="x").save(force_update=True),
    "b's columns saved": lambda: Document(id=BS, title="x").save(update_fields=["title"]),
    "b's instance saved with an expression": lambda: _counted(b_document()),
    "b's column saved with an expression": lambda: _counted(b_document(), update_fields=["pages"]),
    "b's instance, raw": lambda: b_document().save_base(raw=True),
    "b's child saved": lambda: Comment(id=BS, text="x", document_id=BS).save(),
    "b's child moved here": lambda: Comment(id=BS, text="x", document_id=1).save(),
    "upsert over b's row": lambda: D.bulk_create(
        [Document(title="x", slug="theirs-0")], update_conflicts=True, update_fields=["title"], unique_fields=["slug"]
    ),
    "upsert over b's key": lambda: D.bulk_create(
        [Document(id=BS, title="x")], update_conflicts=True, update_fields=["title"], unique_fields=["id"]
    ),
    "upsert of b's child": lambda: Comment.objects.bulk_create(
        [Comment(id=BS, text="x", document_id=1)], update_conflicts=True, update_fields=["text"], unique_fields=["id"]
    ),
    "upsert that moves b's child": lambda: Comment.objects.bulk_create(
        [Comment(id=BS, text="x", document_id=1)],
        update_conflicts=True,
        update_fields=["document"],
        unique_fields=["id"],
    ),
    "move by update": lambda: D.update(tenant_id="b"),
    "move by update to nobody": lambda: D.update(tenant_id=""),
    "move by update to everybody": lambda: Template.objects.update(org=None),
    "move by expression": lambda: D.update(tenant_id=Concat(Value(""), Value("b"))),
    "move by F": lambda: D.update(tenant_id=F("title")),
    "move by subquery": lambda: D.update(tenant_id=Subquery(Folder.objects.values("name")[:1])),
    "move by save": lambda: _moved(D.get(pk=1)),
    "move by save of a column": lambda: _moved(D.get(pk=1), update_fields=["tenant_id"]),
    "move by bulk_update": lambda: D.bulk_update([Document(pk=1, tenant_id="b")], ["tenant_id"]),
    "tenant in the primary key, created": lambda: Line.objects.create(number=7, text="x", tenant_id="b"),
    "tenant in the primary key, saved": lambda: Line(tenant_id="b", number=BS, text="x").save(),
    "tenant in the primary key, moved": lambda: Line.objects.update(tenant_id="b"),
    "filled foreign key to b": lambda: _filled(BS),
    "move of a child": lambda: Comment.objects.filter(pk=1).update(document=BS),
    "move of a child by F": lambda: Comment.objects.filter(pk=1).update(document=F("pk") + BS - 1),
    "move through the parent's columns": lambda: Report.objects.update(tenant_id="b"),
    "foreign key to b": lambda: D.create(title="x", folder_id=BS),
    "foreign key to b's object": lambda: D.create(title="x", folder=Folder(pk=BS)),
    "foreign key to b by expression": lambda: D.create(title="x", folder_id=Value(BS)),
    "foreign key to b by bulk_create": lambda: D.bulk_create([Document(title="x", folder_id=BS)]),
    "foreign key to b by update": lambda: D.update(folder=BS),
    "foreign key to b's object by update": lambda: D.update(folder=Folder(pk=BS)),
    "foreign key to b by value": lambda: D.update(folder=Value(BS)),
    "foreign key to b by case": lambda: D.update(folder=Case(When(pk=1, then=Value(BS)), default=Value(1))),
    "foreign key to b by coalesce": lambda: D.update(folder=Coalesce(F("folder"), Value(BS))),
    "foreign key to b by sum": lambda: D.update(folder=F("folder") + BS - 1),
    "foreign key by another column": lambda: D.update(folder=F("pages")),
    "foreign key by another table's key": lambda: D.update(folder=Subquery(Label.objects.values("pk")[:1])),
    "foreign key by an annotated subquery": lambda: D.update(
        folder=Subquery(Folder.objects.annotate(x=F("pk") + BS - 1).values("x")[:1])
    ),
    "foreign key to b by bulk_update": lambda: D.bulk_update([Document(pk=1, folder_id=BS)], ["folder"]),
    "foreign key to b by save": lambda: _pointed(D.get(pk=1)),
    "foreign key to nothing": lambda: D.create(title="x", folder_id=123456),
    "child of b": lambda: Comment.objects.create(text="x", document_id=BS),
    "child of b by manager": lambda: Document(pk=BS).comments.create(text="x"),
    "child of b's child": lambda: Reaction.objects.create(kind="x", comment_id=BS),
    "reply to b": lambda: Comment.objects.create(text="x", document_id=1, reply_to_id=BS),
    "multi-table child on b's row": lambda: Report(document_ptr_id=BS, summary="x").save_base(raw=True),
    "label of b": lambda: D.get(pk=1).labels.add(BS),
    "labels of b": lambda: D.get(pk=1).labels.set([BS, BS + 1]),
    "label on b's document": lambda: Document(pk=BS).labels.add(1),
    "document of b's label": lambda: Label(pk=BS).documents.add(1),
    "through row by hand": lambda: Document.labels.through.objects.create(document_id=1, label_id=BS),
    "through row on b's document": lambda: Document.labels.through.objects.create(document_id=BS, label_id=1),
    "reverse add of b's": lambda: Folder.objects.get(pk=1).documents.add(b_document(), bulk=False),
    "reverse set in b's folder": lambda: Folder(pk=BS).documents.add(D.get(pk=1)),
    "get_or_create of b's slug": lambda: D.get_or_create(slug="theirs-0", defaults={"title": "x"}),
    "update_or_create of b's slug": lambda: D.update_or_create(slug="theirs-0", defaults={"title": "x"}),
    "update_or_create of b's row": lambda: D.update_or_create(pk=BS, defaults={"title": "x"}),
    "narrower rows of b": lambda: Task.objects.update(organisation="b"),
    "loaded fixture of b": lambda: [one.save() for one in serializers.deserialize("json", _fixture(70, "b"))],
    "loaded fixture over b's row": lambda: [one.save() for one in serializers.deserialize("json", _fixture(BS, "a"))],
    "flush": lambda: call_command("flush", database=D.db, interactive=False, verbosity=0),
    "migrate": lambda: call_command("migrate", database=D.db, verbosity=0),
    "raw update": lambda: connections[D.db].cursor().execute("UPDATE ormtests_document SET title = 'x'"),
    "raw delete": lambda: connections[D.db].cursor().execute("DELETE FROM ormtests_document"),
    "raw insert": lambda: (
        connections[D.db].cursor().executemany("INSERT INTO ormtests_country (name) VALUES (%s)", [["x"], ["y"]])
    ),
    "script": lambda: connections[D.db].cursor().executescript("DELETE FROM ormtests_document"),
    "copy": lambda: connections[D.db].cursor().copy("COPY ormtests_document TO STDOUT"),
    "extra update": lambda: D.extra(where=["1=1"]).update(title="x"),
    "shared row with b's": lambda: _nested(),
    "filtered by raw": lambda: D.filter(Q(pk__in=models.expressions.RawSQL("SELECT 1", ()))).delete(),
}


def _filled(key: int) -> int | None:
    made = Filled()
    made.asked = key
    made.save()
    return made.folder_id


def _saved(document: Any) -> str:
    document.title = "changed"
    document.save()
    return str(D.get(pk=document.pk).title)


def _counted(document: Any, **how: Any) -> int:
    document.pages = F("pages") + 1
    document.save(**how)
    return int(D.get(pk=document.pk).pages)


def _moved(document: Any, **how: Any) -> None:
    document.tenant_id = "b"
    document.save(**how)


def _pointed(document: Any) -> None:
    document.folder_id = BS
    document.save()


def _fixture(key: int, tenant: str) -> str:
    fields = {"tenant_id": tenant, "title": "loaded", "pages": 1, "labels": []}
    return json.dumps([{"model": "ormtests.document", "pk": key, "fields": fields}])


def _nested() -> None:
    with transaction.atomic(using=D.db):
        Note.objects.create(text="x", content_type_id=1, object_id=1, tenant_id="b")
