"""What models are declared to be, what is wrong with declarations, and what classes are vouched for."""

import io
import sys
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands.migrate import Command as Migrate
from django.db import connections, models, transaction
from django.db.models import F, Func, Lookup, Value
from django.db.models.functions import Lower
from django.test.utils import isolate_apps, override_settings
from tenantguard_django.models import TenantModel, bound_tenant_id
from tenantguard_django.orm import (
    check_models,
    classify,
    is_protected,
    owned,
    owned_through,
    protect,
    shared,
    unclassified_models,
    vouch_for,
)
from tenantguard_django.orm.classify import Child, Owned, Shared, _classified, kind_of, kind_of_model, links_of
from tenantguard_django.orm.commands import SYSTEM_COMMANDS
from tenantguard_django.orm.marks import as_mark

from tenantguard import bind, system
from tenantguard.errors import ConfigurationError, NotBound, StatementRefused, UnclassifiedTable
from tests.django.orm.models import Comment, Document, Report, ReportProxy, Task, Template
from tests.django.orm.world import A

APP = "ormtests"


def kind(model: Any) -> Any:
    return _classified(model, ())


def test_the_classes_of_the_world() -> None:
    assert isinstance(kind_of_model(Document), Owned)
    assert isinstance(kind_of_model(Comment), Child)
    assert isinstance(kind_of_model(Report), Child)
    assert kind_of_model(ReportProxy) is kind_of_model(Report)
    assert isinstance(kind_of_model(Document.labels.through), Child)
    assert kind_of_model(Template).everyone is None
    assert [link.field.name for link in links_of(kind_of_model(Comment))] == ["document", "reply_to"]
    assert [key.dimension for key in kind_of_model(Task).narrower] == ["workspace"]
    assert unclassified_models() == ["ormtests.Forgotten"]
    [problem] = [one for one in check_models() if one.model._meta.app_label == APP]
    assert problem.id == "tenantguard.E101"
    assert problem.hint
    assert "TenantModel" in problem.hint


@isolate_apps("tests.django.orm")
def test_links_between_shared_models_are_shared() -> None:
    @shared("words")
    class Word(models.Model):
        others = models.ManyToManyField("self")

        class Meta:
            app_label = APP

    assert isinstance(kind(Word.others.through), Shared)


@isolate_apps("tests.django.orm")
def test_links_to_tenants_rows_belong_to_these() -> None:
    @shared("words")
    class Word(models.Model):
        documents = models.ManyToManyField(Document)

        class Meta:
            app_label = APP

    made = kind(Word.documents.through)
    assert isinstance(made, Child)
    assert made.field.name == "document"


@isolate_apps("tests.django.orm")
def test_an_abstract_base_marks_what_inherits_from_it() -> None:
    @owned("org")
    class Base(models.Model):
        org = models.CharField(max_length=40)

        class Meta:
            app_label = APP
            abstract = True

    class Thing(Base):
        class Meta:
            app_label = APP

    class Part(Thing):
        class Meta:
            app_label = APP

    assert kind(Thing).key.column == "org"
    assert isinstance(kind(Part), Child)


@isolate_apps("tests.django.orm")
@pytest.mark.parametrize(
    ("fields", "mark", "words"),
    [
        ({}, owned("org"), "no field 'org'"),
        ({"org": models.CharField(max_length=40, null=True)}, owned("org"), "may be NULL"),
        ({"org": models.CharField(max_length=40)}, owned("org", global_rows=True), "may not be NULL"),
        ({"org": models.FloatField()}, owned("org"), "FloatField"),
        ({"org": models.BooleanField()}, owned("org"), "BooleanField"),
        ({"org": models.CharField(max_length=40)}, owned("org", dimensions={"w": "w"}), "no field 'w'"),
        ({}, owned_through("document"), "no foreign key"),
        ({"document": models.IntegerField()}, owned_through("document"), "no foreign key"),
        ({"up": models.ForeignKey("self", models.CASCADE)}, owned_through("up"), "through itself"),
        ({"d": models.ForeignKey(Document, models.CASCADE, null=True)}, owned_through("d"), "may be NULL"),
        ({"c": models.ForeignKey("ormtests.Country", models.CASCADE)}, owned_through("c"), "shared model"),
        ({"x": models.IntegerField(db_column='x" FROM y --')}, shared("why"), "quote"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_declaration_that_can_not_serve_is_named(fields: dict[str, Any], mark: Any, words: str) -> None:
    from tests.django.orm.models import Country

    for field in fields.values():
        if field.remote_field is not None and field.remote_field.model == "ormtests.Country":
            field.remote_field.model = Country
    meta = type("Meta", (), {"app_label": APP})
    model = type("Thing", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})
    mark(model)
    with pytest.raises(ConfigurationError, match=words):
        kind(model)


def test_marks_say_why_they_are_refused() -> None:
    for make in (lambda: shared(""), lambda: owned(""), lambda: owned_through(""), lambda: owned("x")(int)):
        with pytest.raises(ConfigurationError):
            make()
    with pytest.raises(ConfigurationError, match="twice"):
        shared("why")(Document)
    with pytest.raises(ConfigurationError):
        as_mark("shared", "x.Y")
    with pytest.raises(ConfigurationError, match="twice"):
        classify({"auth.User": shared("another reason")})


def test_the_setting_classifies_by_name() -> None:
    with override_settings(TENANTGUARD={"MODELS": {"ormtests.forgotten": {"shared": "a test"}}}):
        assert isinstance(kind_of("ormtests_forgotten"), Shared)
        assert unclassified_models() == []
    with override_settings(TENANTGUARD={"MODELS": {"ormtests.Document": {"shared": "a test"}}}):
        with pytest.raises(ConfigurationError, match="by name"):
            kind_of("ormtests_document")
        assert "tenantguard.E102" in {problem.id for problem in check_models()}
    assert isinstance(kind_of("ormtests_document"), Owned)


@pytest.mark.parametrize("table", ["ORMTESTS_DOCUMENT", '"ormtests_document"', "public.ormtests_document", "other"])
def test_another_name_of_a_table_is_unclassified(table: str) -> None:
    with pytest.raises(UnclassifiedTable):
        kind_of(table)


def test_two_models_of_one_table_are_classified_alike() -> None:
    from django.apps import apps

    class AnotherDocument(models.Model):
        class Meta:
            app_label = APP
            managed = False
            db_table = '"public"."ORMTESTS_document"'

    shared("a way round")(AnotherDocument)
    try:
        for table in ("ormtests_document", '"public"."ORMTESTS_document"'):
            with pytest.raises(UnclassifiedTable, match="differently"):
                kind_of(table)
    finally:
        del apps.all_models[APP]["anotherdocument"]
        apps.clear_cache()
        classify({})
    assert isinstance(kind_of("ormtests_document"), Owned)


class Known(Func):
    function = "LOWER"
    output_field = models.TextField()


class Unknown(Func):
    function = "DBLINK"
    output_field = models.TextField()


class Equal(Lookup):
    lookup_name = "equal"

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        left, params = self.process_lhs(compiler, connection)
        right, more = self.process_rhs(compiler, connection)
        return f"{left} = {right}", [*params, *more]


class Loud(models.TextField):
    """Writes SQL around its values, by the hook that the version of Django asks for."""

    if django.VERSION >= (6, 1):

        def get_placeholder_sql(self, value: Any, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
            return "upper(%s)", (value,)

    else:

        def get_placeholder(self, value: Any, compiler: Any, connection: Any) -> str:
            return "upper(%s)"


@pytest.fixture
def unvouched() -> Iterator[None]:
    from tenantguard_django.orm import vouching

    yield
    for cls in (Equal, Loud):
        vouching._vouched.discard(cls)
        vouching.sound_classes.discard(cls)
        vouching._looked_at.pop(cls, None)


def test_a_class_with_a_known_function_passes(world: str) -> None:
    with bind(A):
        assert Document.objects.annotate(x=Known(F("title"))).filter(x__startswith="own").count() == 4
        with pytest.raises(StatementRefused, match="DBLINK"):
            Document.objects.annotate(x=Unknown(F("title"))).first()


def test_a_class_of_the_apps_passes_once_it_is_vouched_for(world: str, unvouched: None) -> None:
    with bind(A):
        with pytest.raises(StatementRefused, match="vouch_for"):
            Document.objects.filter(Equal(F("pages"), 1)).count()
        assert vouch_for(Equal, reason="compares two values") is Equal
        assert Document.objects.filter(Equal(F("pages"), 1)).count() == 1


def test_a_field_of_the_apps_passes_once_it_is_vouched_for(world: str, unvouched: None) -> None:
    loud = Value("own document 0", output_field=Loud())
    with bind(A):
        with pytest.raises(StatementRefused, match="Loud"):
            Document.objects.filter(title=Lower(loud)).count()
        vouch_for(Loud, reason="upper-cases the value")
        assert Document.objects.filter(title=Lower(loud)).count() == 1


@pytest.mark.parametrize("cls", [Lower, models.expressions.RawSQL, models.sql.Query, models.CharField, 1])
def test_not_everything_can_be_vouched_for(cls: Any) -> None:
    with pytest.raises(ConfigurationError):
        vouch_for(cls, reason="it is fine")
    with pytest.raises(ConfigurationError):
        vouch_for(Equal, reason=" ")


def test_the_default_of_the_key_is_who_is_bound() -> None:
    assert bound_tenant_id() == ""
    assert Document().tenant_id == ""
    with bind(A):
        assert Document().tenant_id == "a"
    with system("look"):
        assert Document().tenant_id == ""
    assert TenantModel._meta.abstract


def test_databases_are_protected_for_all_threads(world: str) -> None:
    assert is_protected(world)
    assert is_protected(connections[world])
    protect(connections[world])  # once more
    assert is_protected(connections[world].copy())
    with pytest.raises(ConfigurationError):
        protect(3)


def test_commands_on_the_whole_database_run_in_a_system_context(world: str) -> None:
    out = io.StringIO()
    call_command("showmigrations", database=world, stdout=out)
    assert "auth" in out.getvalue()
    assert "migrate" in SYSTEM_COMMANDS
    with bind(A), pytest.raises(StatementRefused):
        call_command("showmigrations", database=world, stdout=out)
    with pytest.raises((NotBound, CommandError)):
        call_command("dumpdata", "ormtests.document", database=world, stdout=out)
    with bind(A):
        dumped = io.StringIO()
        call_command("dumpdata", "ormtests.document", database=world, stdout=dumped)
    assert dumped.getvalue().count('"model"') == 4
    assert "django.core.management.commands.migrate" in sys.modules
    assert Migrate().check_migrations() is None


@pytest.mark.parametrize("name", [":memory:", "file:late?mode=memory&cache=shared"])
def test_a_database_in_memory_that_is_open_already_keeps_its_rows(name: str) -> None:
    alias = f"late {name}"
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
    connections.settings.update(
        connections.configure_settings({"default": connections.settings["default"], alias: engine})
    )
    try:
        late: Any = connections[alias]
        late.cursor().execute("CREATE TABLE kept (id integer)")
        late.cursor().execute("INSERT INTO kept VALUES (7)")
        protect(alias)
        with bind(A), pytest.raises(StatementRefused):
            late.connection.execute("SELECT id FROM kept")
        with system("look"):
            assert late.connection.execute("SELECT id FROM kept").fetchall() == [(7,)]
    finally:
        late.connection.close()
        del connections[alias]
        del connections.settings[alias]


def test_a_connection_is_not_protected_in_the_middle_of_a_transaction(tmp_path: Any) -> None:
    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "late.db")}
    connections.settings.update(
        connections.configure_settings({"default": connections.settings["default"], "late file": engine})
    )
    try:
        with transaction.atomic(using="late file"), pytest.raises(ConfigurationError, match="transaction"):
            protect(connections["late file"])
        assert not is_protected("late file")
        protect("late file")
        assert is_protected("late file")
    finally:
        connections["late file"].close()
        del connections["late file"]
        del connections.settings["late file"]


def test_raw_sql_is_refused_as_soon_as_one_model_belongs_to_tenants(world: str) -> None:
    from django.apps import apps
    from tenantguard_django.orm.classify import nothing_to_guard

    everything = {m._meta.label: {"shared": "a test"} for m in apps.get_models() if not hasattr(m, "_tenantguard_mark")}
    assert not nothing_to_guard(None)
    with override_settings(TENANTGUARD={"MODELS": everything}):
        assert not nothing_to_guard(None)
        with pytest.raises(NotBound):
            connections[world].cursor().execute("SELECT 1")
