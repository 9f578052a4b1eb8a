"""What is bound when: transactions, query sets that are kept, threads and tasks, doors, and nobody at all."""

import asyncio
import contextlib
import pickle
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.cache.backends.locmem import LocMemCache
from django.db import DatabaseError, connections, transaction
from django.db.models import Func, TextField, Value
from django.db.models.expressions import RawSQL
from django.forms import ModelForm, modelform_factory

from tenantguard import allow_raw, bind, read_tenants, service_identity, system
from tenantguard.errors import ForeignTenantWrite, NotBound, StatementRefused, TenantGuardError, TenantMismatch
from tenantguard.identity import Actor, ActorType, Identity
from tests.django.orm.models import Comment, Country, Document, Folder, Label, Organisation, Task, Template
from tests.django.orm.reads import AT_IMPORT, FORM
from tests.django.orm.world import FIRST_OF_B, A, B

D = Document.objects


def test_without_a_tenant_no_owned_row_is_reached(world: str) -> None:
    for ask in (D.count, D.first, lambda: D.create(title="x"), lambda: D.update(title="x"), lambda: D.all().delete()):
        with pytest.raises(NotBound):
            ask()
    with pytest.raises(NotBound):
        Country.objects.filter(documents__title="x").count()
    with pytest.raises(NotBound):
        connections[world].cursor().execute("SELECT 1")


def test_shared_rows_are_read_without_a_tenant(world: str) -> None:
    assert Country.objects.get().name == "Utopia"


def test_an_identity_without_a_tenant_reaches_no_owned_row(world: str) -> None:
    nobody = Actor("x", ActorType.SERVICE)
    with bind(Identity(subject=nobody, actor=nobody, tenant=None)), pytest.raises(NotBound):
        D.count()


def test_a_thread_inherits_nothing(world: str) -> None:
    found: list[object] = []

    def work() -> None:
        try:
            found.append(D.count())
        except NotBound as error:
            found.append(type(error))
        finally:
            connections[world].close()

    with bind(A):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [NotBound]


def test_async_methods_run_as_who_awaits_them(world: str) -> None:
    async def work(identity: Any) -> list[Any]:
        with bind(identity):
            return [
                await D.acount(),
                await anext(d.pk async for d in D.order_by("pk")),
                await anext(d.pk async for d in D.order_by("pk").aiterator()),
                await sync_to_async(D.count)(),
                (await D.order_by("pk").afirst()).pk,
                await D.filter(pk=FIRST_OF_B).aexists(),
            ]

    async def both() -> list[Any]:
        return await asyncio.gather(work(A), work(B))

    of_a, of_b = asyncio.run(both())
    assert of_a == [4, 1, 1, 4, 1, False]
    assert of_b == [4, FIRST_OF_B, FIRST_OF_B, 4, FIRST_OF_B, True]


def test_an_async_iteration_is_not_carried_on_as_another_tenant(world: str) -> None:
    async def work() -> None:
        with bind(A):
            rows = D.order_by("pk").aiterator(chunk_size=2)
            await anext(rows)
        with bind(B), pytest.raises(TenantMismatch):
            await anext(rows)

    asyncio.run(work())


def test_a_transaction_belongs_to_its_first_tenant(world: str) -> None:
    with transaction.atomic(using=world):
        with bind(A):
            D.count()
        with bind(B), pytest.raises(TenantMismatch):
            D.count()
        with bind(A), transaction.atomic(using=world):
            assert D.count() == 4
        with bind(B), transaction.atomic(using=world), pytest.raises(TenantMismatch):
            D.count()
    with transaction.atomic(using=world), bind(B):
        assert D.count() == 4


def test_a_reused_block_belongs_to_each_tenant_in_its_turn(world: str) -> None:
    block = transaction.atomic(using=world)
    for identity in (A, B):
        with bind(identity), block:
            assert D.count() == 4


def test_a_transaction_without_autocommit_belongs_to_its_first_tenant(world: str) -> None:
    transaction.set_autocommit(False, using=world)
    try:
        with bind(A):
            D.count()
        with bind(B), pytest.raises(TenantMismatch):
            D.count()
        transaction.commit(using=world)
        with bind(B):
            assert D.count() == 4
    finally:
        transaction.rollback(using=world)
        transaction.set_autocommit(True, using=world)


def test_the_next_tenant_uses_the_same_connection(world: str) -> None:
    for _ in range(3):
        for identity, first in ((A, 1), (B, FIRST_OF_B)):
            with bind(identity):
                assert D.order_by("pk").first().pk == first


def test_a_savepoint_keeps_the_tenant(world: str) -> None:
    with bind(A), transaction.atomic(using=world):
        with contextlib.suppress(RuntimeError), transaction.atomic(using=world):
            D.update(title="x")
            raise RuntimeError
        assert [d.title for d in D.order_by("pk")][:1] == ["own document 0"]


def test_a_hook_on_commit_runs_as_who_commits(world: str) -> None:
    found: list[int] = []
    with bind(A), transaction.atomic(using=world):
        D.count()
        transaction.on_commit(lambda: found.append(D.order_by("pk").first().pk), using=world)
    assert found == [1]


USES: dict[str, Any] = {
    "list": list,
    "len": len,
    "bool": bool,
    "index": lambda q: q[0],
    "slice": lambda q: q[:2],
    "count": lambda q: q.count(),
    "exists": lambda q: q.exists(),
    "contains": lambda q: q.contains(Document(pk=1)),
    "repr": repr,
    "iter": iter,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_rows_that_a_query_set_keeps_are_not_another_tenants(world: str, use: Any) -> None:
    with bind(A):
        kept = D.order_by("pk")
        assert len(kept) == 4
    for other in (bind(B), system("look")):
        with other, pytest.raises(TenantMismatch):
            use(kept)
    with pytest.raises(TenantMismatch):
        use(kept)
    with bind(A):
        use(kept)
    with bind(B):
        assert kept.all()[0].pk == FIRST_OF_B


def test_pickled_rows_are_not_another_tenants(world: str) -> None:
    with bind(A):
        pickled = pickle.dumps(D.all())
    again = pickle.loads(pickled)
    with bind(B), pytest.raises(TenantMismatch):
        list(again)
    with bind(A):
        assert len(again) == 4


def test_prefetched_rows_are_not_another_tenants(world: str) -> None:
    with bind(A):
        country = Country.objects.prefetch_related("documents").get()
        document = D.prefetch_related("comments").get(pk=1)
    with bind(B):
        with pytest.raises(TenantMismatch):
            list(country.documents.all())
        with pytest.raises(TenantMismatch):
            list(document.comments.all())


def test_rows_read_in_a_system_context_are_not_a_tenants(world: str) -> None:
    with system("look at all"):
        kept = D.all()
        assert len(kept) == 8
        joined = Country.objects.select_related().filter(documents__pages__gte=0)
        assert len(joined) == 6
    with bind(A):
        with pytest.raises(TenantMismatch):
            len(kept)
        with pytest.raises(TenantMismatch):
            len(joined)


def test_kept_rows_of_shared_models_are_everybodys(world: str) -> None:
    with bind(A):
        kept = Country.objects.all()
        assert len(kept) == 1
    with bind(B):
        assert len(kept) == 1


def test_an_iteration_is_not_carried_on_as_another_tenant(world: str) -> None:
    for rows in (D.order_by("pk").iterator(chunk_size=100), D.prefetch_related("comments").iterator(chunk_size=100)):
        with bind(A):
            next(rows)
        with bind(B), pytest.raises(TenantMismatch):
            next(rows)


def test_a_query_set_made_at_import_is_each_tenants_own(world: str) -> None:
    for identity, first in ((A, 1), (B, FIRST_OF_B)):
        with bind(identity):
            assert AT_IMPORT.all()[0].pk == first


def test_a_form_made_at_import_offers_each_tenant_its_own(world: str) -> None:
    for identity, first in ((A, 1), (B, FIRST_OF_B)):
        with bind(identity):
            form: ModelForm[Any] = FORM()
            assert sorted(key.value for key, _ in form.fields["folder"].choices if key) == [first, first + 1]
    with bind(A):
        assert FORM({"title": "x", "folder": FIRST_OF_B}).errors["folder"]
        assert FORM({"title": "x", "labels": [FIRST_OF_B]}).errors["labels"]


def test_unique_values_are_looked_for_in_the_tenant_alone(world: str) -> None:
    form = modelform_factory(Label, fields=["name"])
    with bind(B):
        taken = Label.objects.first().name
        assert not form({"name": taken}).is_valid()
    with bind(A):
        assert form({"name": taken}).is_valid()


def test_an_instance_of_one_tenant_is_not_saved_as_another(world: str) -> None:
    with bind(A):
        document, comment = D.get(pk=1), Comment.objects.get(pk=1)
        made = Document(title="made as a")
    with bind(B):
        for save in (document.save, made.save, comment.save, lambda: document.save(update_fields=["title"])):
            with pytest.raises((TenantGuardError, DatabaseError)):
                save()
        assert Document.objects.filter(title="made as a").count() == 0
        assert document.delete()[0] == 0
    with bind(A):
        assert D.filter(pk=1).exists()


def test_a_related_object_is_loaded_for_who_asks(world: str) -> None:
    with bind(A):
        document = D.get(pk=2)
    with bind(B), pytest.raises(Folder.DoesNotExist):
        _ = document.folder


def test_in_a_system_context_all_rows_are_reached(world: str) -> None:
    with system("count all"), transaction.atomic(using=world):
        assert D.count() == 8
        assert connections[world].cursor().execute("SELECT 1").fetchone()[0] == 1
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            D.create(title="whose?")
        assert D.create(title="b's", tenant_id="b").tenant_id == "b"
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            Template.objects.create(name="whose?")
        transaction.set_rollback(True, using=world)


def test_raw_sql_runs_where_it_is_allowed_with_a_reason(world: str) -> None:
    with bind(A), allow_raw("a test"):
        cursor = connections[world].cursor()
        cursor.execute("SELECT count(*) FROM ormtests_document WHERE tenant_id = %s", ["a"])
        assert cursor.fetchone()[0] == 4
        assert len(D.raw("SELECT * FROM ormtests_document WHERE tenant_id = 'a'")) == 4
        assert D.extra(where=["pages > 0"]).count() == 4  # scoped as ever
        assert D.annotate(x=RawSQL("1", ())).count() == 4
        assert D.annotate(x=Func(Value("X"), template="lower(%(expressions)s)", output_field=TextField())).count() == 4
        for text in ("DROP TABLE ormtests_document", "/* x */ CREATE TABLE y (z int)"):
            with pytest.raises(StatementRefused):
                cursor.execute(text)
    with bind(A), pytest.raises(StatementRefused):
        connections[world].cursor().execute("SELECT 1")


def test_further_tenants_are_read_and_not_written(world: str) -> None:
    with bind(A), transaction.atomic(using=world), read_tenants(["b"], reason="group report"):
        assert D.count() == 8
        assert Comment.objects.count() == 12
        assert D.update(title="x") == 4
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            Comment.objects.create(text="x", document_id=FIRST_OF_B)
        transaction.set_rollback(True, using=world)
    with bind(A):
        kept = D.all()
        len(kept)
        with read_tenants(["b"], reason="group report"), pytest.raises(TenantMismatch):
            len(kept)


def test_a_narrowed_identity_reaches_its_own_rows(world: str) -> None:
    narrow = service_identity("x", tenant="a", dimensions={"workspace": "w1"})
    with bind(narrow), transaction.atomic(using=world):
        assert [task.workspace for task in Task.objects.all()] == ["w1"]
        for attempt in (
            D.count,
            lambda: D.create(title="x"),
            lambda: D.bulk_create([Document(title="x"), Document(title="y")]),
            lambda: Comment.objects.create(text="x", document_id=1),
            lambda: D.update(title="x"),
            lambda: D.all()._raw_delete(world),
        ):
            with pytest.raises(StatementRefused, match="narrowed to one workspace"), transaction.atomic(using=world):
                attempt()
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            Task.objects.create(workspace="w2", title="x", organisation_id="a")
        with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
            Task.objects.update(workspace="w2")
        assert Task.objects.update(title="x") == 1
        transaction.set_rollback(True, using=world)
    with bind(A):
        assert Task.objects.count() == 2
        assert Organisation.objects.count() == 1


def test_a_wrapper_that_rewrites_statements_is_refused(world: str) -> None:
    def rewrite(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute("SELECT * FROM ormtests_document", params, many, context)

    def swap(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute(sql, ["b" for _ in params], many, context)

    def change(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        params[0] = "b"
        return execute(sql, params, many, context)

    def comment(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        return execute(f"{sql} /* route=documents */", params, many, context)

    with bind(A):
        for wrapper in (rewrite, swap, change):
            with connections[world].execute_wrapper(wrapper), pytest.raises((StatementRefused, TypeError)):
                list(D.all())
        with connections[world].execute_wrapper(comment):
            assert len(D.all()) == 4
        wrappers = connections[world].execute_wrappers[:]
        connections[world].execute_wrappers.clear()
        try:
            with pytest.raises(StatementRefused):
                list(D.all())
        finally:
            connections[world].execute_wrappers.extend(wrappers)


def test_a_driver_that_is_given_back_has_its_own_cursors_again(postgres_world: str) -> None:
    with bind(A):
        D.count()
        driver = connections[postgres_world].connection
        assert hasattr(driver.cursor_factory, "tenantguard_guard")
        connections[postgres_world].close()
    assert not hasattr(driver.cursor_factory, "tenantguard_guard")
    assert not hasattr(driver.server_cursor_factory, "tenantguard_guard")


def test_statements_are_logged_with_debug_cursors(world: str) -> None:
    connection = connections[world]
    connection.force_debug_cursor = True
    try:
        with bind(A):
            before = len(connection.queries_log)
            Comment.objects.create(text="x", document_id=1).delete()
            assert "INSERT" in connection.queries_log[before]["sql"]
    finally:
        connection.force_debug_cursor = False


def test_cached_values_belong_to_who_set_them() -> None:
    from tenantguard_django.cache import make_key

    cache = LocMemCache("tenantguard", {"KEY_FUNCTION": make_key})
    narrow = service_identity("x", tenant="a", dimensions={"workspace": "w1"})
    with bind(A):
        cache.set("answer", "a's")
        with read_tenants(["b"], reason="group report"):
            assert cache.get("answer") is None
    for other in (bind(B), bind(narrow), system("look")):
        with other:
            assert cache.get("answer") is None
    with bind(A):
        assert cache.get("answer") == "a's"
    with pytest.raises(NotBound):
        cache.get("answer")


def test_values_of_a_statement_are_the_apps_own(world: str) -> None:
    with bind(A):
        assert D.filter(title=Value("' OR 1=1 --")).count() == 0


def test_a_row_that_was_found_is_looked_up_again_once_rows_may_have_moved(world: str) -> None:
    def by_system() -> None:
        with system("a splits"):
            Folder.objects.filter(name="moved").update(tenant_id="b")

    def by_sql() -> None:
        with allow_raw("a splits"), connections[world].cursor() as cursor:
            cursor.execute("UPDATE ormtests_folder SET tenant_id = 'b' WHERE name = 'moved'")

    def by_the_driver() -> None:
        with allow_raw("a splits"):
            connections[world].connection.cursor().execute(
                "UPDATE ormtests_folder SET tenant_id = 'b' WHERE name = 'moved'"
            )

    for move in (by_system, by_sql, by_the_driver):
        with bind(A), transaction.atomic(using=world):
            folder = Folder.objects.create(name="moved")
            D.create(title="x", folder=folder)
            move()
            with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
                D.create(title="x", folder=folder)
            transaction.set_rollback(True, using=world)


def test_a_row_whose_key_was_removed_or_changed_is_looked_up_again(world: str) -> None:
    for remove in (lambda rows: rows._raw_delete(world), lambda rows: rows.update(id=77)):
        with bind(A), transaction.atomic(using=world):
            folder = Folder.objects.create(name="gone")
            D.create(title="x", folder=folder).delete()
            remove(Folder.objects.filter(pk=folder.pk))
            with pytest.raises(ForeignTenantWrite), transaction.atomic(using=world):
                D.create(title="x", folder_id=folder.pk)
            transaction.set_rollback(True, using=world)
