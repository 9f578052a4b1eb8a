"""A small world: documents in folders, comments, labels, notes of any kind, and what all tenants share."""

import uuid

import django
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from tenantguard_django.models import TenantModel
from tenantguard_django.orm import owned, owned_through, shared, wide


@shared("countries: reference data")
class Country(models.Model):
    name = models.CharField(max_length=200)


class Folder(TenantModel):
    name = models.CharField(max_length=200)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")


class Label(TenantModel):
    name = models.CharField(max_length=200)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant_id", "name"], name="label_name")]


class Document(TenantModel):
    title = models.CharField(max_length=200)
    pages = models.IntegerField(default=1)
    made = models.DateTimeField(null=True)
    folder = models.ForeignKey(Folder, null=True, blank=True, on_delete=models.SET_NULL, related_name="documents")
    country = models.ForeignKey(Country, null=True, on_delete=models.CASCADE, related_name="documents")
    labels = models.ManyToManyField(Label, related_name="documents")
    notes = GenericRelation("ormtests.Note")
    slug = models.SlugField(null=True, unique=True)


@owned_through("document")
class Comment(models.Model):
    text = models.CharField(max_length=200)
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="comments")
    reply_to = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="replies")


@owned_through("comment")
class Reaction(models.Model):
    kind = models.CharField(max_length=200)
    comment = models.ForeignKey(Comment, on_delete=models.CASCADE, related_name="reactions")


class Note(TenantModel):
    text = models.CharField(max_length=200)
    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.PositiveBigIntegerField()
    about = GenericForeignKey()


class Report(Document):
    summary = models.CharField(max_length=200)


class ReportProxy(Report):
    class Meta:
        proxy = True


@owned("org", global_rows=True)
class Template(models.Model):
    org = models.CharField(max_length=40, null=True)
    name = models.CharField(max_length=200)


@owned("number")
class Ticket(models.Model):
    number = models.BigIntegerField()
    title = models.CharField(max_length=200)


@owned("organisation")
class Project(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    organisation = models.UUIDField()
    title = models.CharField(max_length=200)


@owned("id")
class Organisation(models.Model):
    id = models.CharField(max_length=128, primary_key=True)
    title = models.CharField(max_length=200)


@owned("organisation", dimensions={"workspace": "workspace"})
class Task(models.Model):
    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE)
    workspace = models.CharField(max_length=40)
    title = models.CharField(max_length=200)


@wide("workspace", reason="plans: every workspace sees them")
class Plan(TenantModel):
    name = models.CharField(max_length=200)


@owned_through("plan")
class Clause(models.Model):
    plan = models.ForeignKey(Plan, on_delete=models.CASCADE, related_name="clauses")
    text = models.CharField(max_length=200)


@wide("workspace", reason="boards: every workspace writes on them", writable=True)
class Board(TenantModel):
    name = models.CharField(max_length=200)


@owned_through("board", dimensions={"workspace": "workspace"})
class Card(models.Model):
    board = models.ForeignKey(Board, on_delete=models.CASCADE, related_name="cards")
    workspace = models.CharField(max_length=40)
    text = models.CharField(max_length=200)


class Line(TenantModel):
    """With the tenant in its primary key."""

    pk = models.CompositePrimaryKey("tenant_id", "number")
    number = models.IntegerField()
    text = models.CharField(max_length=200)


class FilledKey(models.ForeignKey):
    """Fills itself in as it is written, as fields for the current user do."""

    def pre_save(self, model_instance, add):
        if getattr(model_instance, self.attname) is None:
            setattr(model_instance, self.attname, model_instance.asked)
        return getattr(model_instance, self.attname)


class Filled(TenantModel):
    folder = FilledKey(Folder, null=True, on_delete=models.CASCADE)
    asked = None


class ShiftedKey(models.ForeignKey):
    """Sends another row's key than the one that it is given."""

    def get_db_prep_save(self, value, connection):
        return None if value is None else super().get_db_prep_save(value + 899_999, connection)


class CountingKey(models.ForeignKey):
    """Points elsewhere the second time that it is asked."""

    asked = 0

    def pre_save(self, model_instance, add):
        value = super().pre_save(model_instance, add)
        self.asked += value is not None
        return value if value is None or self.asked % 2 else 900_000


class Pinned(TenantModel):
    shifted = ShiftedKey(Folder, null=True, on_delete=models.CASCADE, related_name="+")
    counted = CountingKey(Folder, null=True, on_delete=models.CASCADE, related_name="+")


@shared("bookmarks: rows of everybody that point to rows of tenants")
class Bookmark(models.Model):
    folder = models.ForeignKey(Folder, null=True, on_delete=models.SET_NULL, related_name="+")
    other = models.ForeignKey(Folder, null=True, on_delete=models.SET_NULL, related_name="+")


class MovingText(models.CharField):
    """Moves its row to where it is told, as it is written."""

    def pre_save(self, model_instance, add):
        if model_instance.to is not None:
            model_instance.org = model_instance.to
        return super().pre_save(model_instance, add)


@owned("org")
class Moved(models.Model):
    text = MovingText(max_length=40, default="x")
    org = models.CharField(max_length=40)

    def __init__(self, *args, to=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.to = to


class RenamingText(models.CharField):
    """Has its row say, once the key is sent, that it is what it points to."""

    def pre_save(self, model_instance, add):
        if model_instance.outer_id is not None:
            model_instance.id = model_instance.outer_id
        return super().pre_save(model_instance, add)


class Nested(TenantModel):
    text = RenamingText(max_length=40, default="x")
    outer = models.ForeignKey("self", null=True, on_delete=models.CASCADE)


class Badge(TenantModel):
    """Points by a text."""

    document = models.ForeignKey(Document, null=True, on_delete=models.CASCADE, to_field="slug", related_name="+")


@owned("whose")
class DocumentRow(models.Model):
    """A second model of the documents' table, with other names and without foreign keys."""

    whose = models.CharField(max_length=128, db_column="tenant_id")
    title = models.CharField(max_length=200)
    pages = models.IntegerField(default=1)
    folder_number = models.BigIntegerField(null=True, db_column="folder_id")

    class Meta:
        managed = False
        db_table = "ormtests_document"


class Filed(TenantModel):
    """Put into a folder by the database, where nobody says which."""

    text = models.CharField(max_length=200)
    folder = models.ForeignKey(Folder, null=True, db_default=900_000, on_delete=models.CASCADE, related_name="+")


class FiledRow(TenantModel):
    """A second model of the same table, that does not know of the folder."""

    text = models.CharField(max_length=200)

    class Meta:
        managed = False
        db_table = "ormtests_filed"


class LateKey(models.ForeignKey):
    """Sends the key that it is given the first time that it is asked, and b's from then on."""

    asked = 0

    def get_db_prep_save(self, value, connection):
        self.asked += value is not None
        return super().get_db_prep_save(value if value is None or self.asked == 1 else 900_000, connection)


class Late(TenantModel):
    folder = LateKey(Folder, null=True, on_delete=models.CASCADE, related_name="+")


class Forgotten(models.Model):
    text = models.CharField(max_length=200)


if django.VERSION >= (6, 1):
    from tests.django.orm import cascading  # noqa: F401 - further models of the app
