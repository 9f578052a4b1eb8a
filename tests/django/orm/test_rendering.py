"""No text of the app's gets into a statement by way of Django's own classes: types, aliases, instances made over."""

from typing import Any

import pytest
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.search import SearchHeadline, SearchQuery, SearchRank, SearchVector
from django.db import connections, models
from django.db.models import F, FilteredRelation, Subquery, Sum, Value, Window
from django.db.models.expressions import Col, OrderBy, Ref, RowRange
from django.db.models.functions import Cast, Collate, Lower
from django.db.models.lookups import GreaterThan
from django.db.models.sql.datastructures import BaseTable, Join

from tenantguard import allow_raw, bind
from tenantguard.errors import StatementRefused
from tests.django.orm.models import Country, Document
from tests.django.orm.reads import OwnField
from tests.django.orm.world import A, Attack, use_alias, verdict

D = Document.objects
SECRET = "(SELECT min(title) FROM ormtests_document)"


class Spelled(models.TextField):
    def db_type(self, connection: Any) -> str:
        return f"text || {SECRET}"


class Stamp(models.DateTimeField):
    pass


class SaysItsField(Lower):
    @property
    def output_field(self) -> Any:
        return OwnField()


def _frame() -> Any:
    frame: Any = RowRange(start=None, end=0)
    frame.frame_type = f"ROWS UNBOUNDED PRECEDING), {SECRET}, sum(1) OVER (ROWS"
    return frame


def _made_over(name: str) -> Any:
    lookup: Any = GreaterThan(F("pages"), 1)
    setattr(lookup, name, lambda *_: (f"{SECRET} = {SECRET} OR 1", ()))
    return D.filter(lookup)


def _query_made_over(name: str) -> Any:
    class Compiler:
        col_count = 1

        def as_sql(self, *_: Any, **__: Any) -> Any:
            return SECRET[1:-1], ()

    found: Any = Subquery(D.values("title"))
    setattr(found.query, name, lambda *_, **__: (SECRET, ()) if name == "as_sql" else Compiler())
    return Country.objects.annotate(x=found).values_list("x")


def _alias(name: str) -> Any:
    found: Any = Country.objects.all()
    found.query.get_initial_alias()
    found.query.alias_map["ormtests_country"] = BaseTable("ormtests_country", name)
    return found


def _selected(column: Any) -> Any:
    found: Any = D.all()
    found.query.get_initial_alias()
    found.query.select, found.query.default_cols = (column,), False
    return [list(rows) for rows in found.query.get_compiler(found.db).execute_sql()]


def _ordered(column: Any) -> Any:
    found: Any = D.values_list("title")
    found.query.order_by = (column,)
    return found


def _named(column: str) -> Any:
    field: Any = models.TextField()
    field.set_attributes_from_name("title")
    field.model, field.column = Document, column
    return field


def _joined(name: str, value: Any) -> Any:
    found: Any = D.filter(folder__name__contains="").values_list("title")
    for clause in found.query.alias_map.values():
        if isinstance(clause, Join):
            setattr(clause, name, value)
    return found


class OwnTable(BaseTable):
    def as_sql(self, *_: Any) -> tuple[str, list[Any]]:
        return f"ormtests_country CROSS JOIN {SECRET} q", []


def _table_made_over() -> Any:
    found: Any = Country.objects.values_list("name")
    found.query.get_initial_alias()
    found.query.alias_map["ormtests_country"] = OwnTable("ormtests_country", "ormtests_country")
    return found


def _connected(connector: str) -> Any:
    found: Any = D.filter(pk=1, title="x").values_list("title")
    found.query.where.connector = connector
    return found


def _where_made_over() -> Any:
    found: Any = D.filter(pk=1).values_list("title")
    found.query.where.as_sql = lambda *_: ("1) OR (1=1", ())
    return found


def _aliased(alias: str) -> Any:
    found: Any = D.all()
    found.query.get_initial_alias()
    found.query.alias_map[alias], found.query.alias_refcount[alias] = BaseTable("ormtests_country", alias), 0
    found.query.select, found.query.default_cols = (Col(alias, Document._meta.get_field("title")),), False
    return [list(rows) for rows in found.query.get_compiler(found.db).execute_sql()]


QUOTED = f'"id" || {SECRET} || "title"'
UNQUOTED = f'id" || {SECRET} || "title'

REFUSED: dict[str, Attack] = {
    "column's name with quotes": lambda: _selected(Col("ormtests_document", _named(QUOTED))),
    "column's name with quotes inside": lambda: _selected(Col("ormtests_document", _named(UNQUOTED))),
    "reference to a name with quotes": lambda: _selected(Ref(QUOTED, Value(1))),
    "order by a name with quotes": lambda: list(_ordered(OrderBy(Ref(QUOTED, Value(1))))),
    "join of another kind": lambda: list(_joined("join_type", f"CROSS JOIN {SECRET} q INNER JOIN")),
    "a table of a class of the app's": lambda: list(_table_made_over()),
    "join made over": lambda: list(_joined("as_sql", lambda *_: (f"CROSS JOIN {SECRET} q", ()))),
    "criteria connected by text": lambda: list(_connected(")) OR ((1=1 OR ")),
    "criteria connected by another class": lambda: list(_connected(type("Connector", (str,), {})("OR"))),
    "criteria made over": lambda: list(_where_made_over()),
    "alias of no table in FROM": lambda: _aliased(f"{SECRET} || ormtests_document"),
    "cast by length": lambda: list(
        D.annotate(x=Cast("pk", models.CharField(max_length=f"9)) || {SECRET} || CAST(1 AS varchar(9")))  # type: ignore[arg-type]
    ),
    "cast to a type of the app's": lambda: list(D.annotate(x=Cast("title", Spelled()))),
    "array of a type of the app's": lambda: list(D.annotate(x=Value(["x"], output_field=ArrayField(Spelled())))),
    "cast to an array of it": lambda: list(D.annotate(x=Cast("title", ArrayField(Spelled())))),
    "field that a property says": lambda: list(D.annotate(x=SaysItsField("title"))),
    "frame made over": lambda: list(D.annotate(x=Window(Sum("pages"), order_by="pk", frame=_frame()))),
    "lookup made over": lambda: list(_made_over("get_rhs_op")),
    "lookup's left side made over": lambda: list(_made_over("process_lhs")),
    "lookup's right side made over": lambda: list(_made_over("process_rhs")),
    "query made over": lambda: list(_query_made_over("as_sql")),
    "query with a compiler of its own": lambda: list(_query_made_over("get_compiler")),
    "alias with a further table": lambda: list(_alias("ormtests_country, ormtests_document")),
    "alias with a comment": lambda: list(_alias("x--")),
    "alias of the barrier's": lambda: list(
        Country.objects.annotate(tenantguard_1=FilteredRelation("documents")).filter(tenantguard_1__title__contains="")
    ),
    "collation": lambda: list(D.annotate(x=Collate("title", f'binary", {SECRET}'))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_text_of_the_apps_is_refused(world: str, name: str) -> None:
    assert verdict(world, REFUSED[name]).split(" ")[0] == "refused"


def test_types_of_djangos_pass(world: str) -> None:
    fields = [
        models.CharField(),
        models.CharField(max_length=9),
        models.DecimalField(max_digits=9, decimal_places=2),
        models.BigAutoField(),
        models.UUIDField(),
        models.JSONField(),
        models.DateTimeField(),
        Stamp(),
        models.TimeField(),
        models.DurationField(),
        models.BooleanField(),
        models.FloatField(),
        models.GenericIPAddressField(),
        models.PositiveSmallIntegerField(),
        models.BinaryField(),
    ]
    if connections[world].vendor == "postgresql":
        fields.append(ArrayField(ArrayField(models.CharField(max_length=9), size=2)))
    with bind(A):
        for field in fields:
            assert D.annotate(x=Cast(Value(None, output_field=models.TextField()), field)).values_list("x")[0] == (
                None,
            )


def test_ddl_is_refused_however_it_is_written(postgres_world: str) -> None:
    from psycopg import sql

    text = "CREATE TABLE made_here (x int)"
    composed = sql.SQL("CREATE TABLE {} (x int)").format(sql.Identifier("made_here"))
    with bind(A), allow_raw("a test"), connections[postgres_world].cursor() as cursor:
        for statement in (text, text.encode(), sql.SQL("{}").format(composed), composed):
            with pytest.raises(StatementRefused, match="DDL"):
                cursor.execute(statement)
        cursor.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE tenant_id = %s").format(sql.Identifier("ormtests_document")), ["a"]
        )
        assert cursor.fetchone() == (4,)


def test_a_function_that_makes_a_cursor_is_refused(sqlite_world: str) -> None:
    import sqlite3

    connection = connections[sqlite_world]
    connection.ensure_connection()
    with bind(A):
        with pytest.raises(StatementRefused):
            connection.connection.cursor(lambda driver: sqlite3.Cursor(driver))
        with pytest.raises(StatementRefused):
            connection.connection.cursor(sqlite3.Cursor).execute("SELECT title FROM ormtests_document")
        with allow_raw("a test"):
            cursor = connection.connection.cursor(lambda driver: sqlite3.Cursor(driver))
            assert cursor.execute("SELECT 1").fetchall() == [(1,)]


def test_full_text_search_passes(postgres_world: str) -> None:
    vector = SearchVector("title", weight="A", config="english") + SearchVector("slug")
    query = SearchQuery("document", config="english", search_type="websearch") & SearchQuery("documents")
    with use_alias(postgres_world), bind(A):
        found = D.annotate(
            rank=SearchRank(vector, query, normalization=1, cover_density=True),
            head=SearchHeadline("title", query, start_sel="<b>", stop_sel="</b>"),
        )
        assert {d.head for d in found.filter(rank__gt=0)} == {f"own <b>document</b> {n}" for n in range(3)}
        assert D.annotate(v=SearchVector("title")).filter(v=SearchQuery("CANARY")).count() == 0
        unknown: Any = SearchQuery("own")
        unknown.function = "query_to_xml"
        with pytest.raises(StatementRefused):
            D.annotate(v=SearchVector("title")).filter(v=unknown).count()
