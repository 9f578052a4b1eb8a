"""What is left of Django's ways to rows: each async method, signals, sessions, permissions, router, commands."""

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models import Count, QuerySet, signals
from django.shortcuts import aget_list_or_404, aget_object_or_404, get_object_or_404
from django.test import override_settings

from tenantguard import bind, current_tenant, system
from tests.django.orm.models import Comment, Country, Document, Folder, Label
from tests.django.orm.world import FIRST_OF_B, A, Attack, verdict

D = Document.objects
BS = FIRST_OF_B


def run(make: Callable[[], Any]) -> Attack:
    """Return an attack that awaits what a function makes, as Django's own wrappers do: in one thread."""

    async def work() -> Any:
        return await make()

    return lambda: async_to_sync(work)()


async def collected(rows: Any) -> list[Any]:
    return [row async for row in rows]


async def found_in_bulk(keys: list[int]) -> list[int]:
    return sorted(await D.ain_bulk(keys))


def loaded(primary_key: int) -> Any:
    return Document(pk=primary_key, title="x")


SCOPED: dict[str, tuple[Attack, Any]] = {
    "aget": (run(lambda: D.values_list("pk", flat=True).aget(pk=1)), 1),
    "afirst": (run(lambda: D.values_list("pk", flat=True).filter(pk__gte=BS).afirst()), None),
    "alast": (run(lambda: D.values_list("pk", flat=True).order_by("pk").alast()), 11),
    "aearliest": (run(lambda: D.values_list("pk", flat=True).aearliest("-pk")), 11),
    "alatest": (run(lambda: D.values_list("pk", flat=True).alatest("pk")), 11),
    "acount": (run(D.acount), 4),
    "aexists": (run(lambda: D.filter(pk__gte=BS).aexists()), False),
    "acontains": (run(lambda: D.all().acontains(loaded(BS))), False),
    "aaggregate": (run(lambda: D.aaggregate(n=Count("comments"))), {"n": 6}),
    "ain_bulk": (run(lambda: found_in_bulk([1, BS])), [1]),
    "aiterator": (run(lambda: collected(D.values_list("pk", flat=True).order_by("pk").aiterator(1))), [1, 2, 3, 11]),
    "async for": (run(lambda: collected(D.values_list("pk", flat=True).order_by("pk"))), [1, 2, 3, 11]),
    "acreate": (run(lambda: D.acreate(title="new")), None),
    "abulk_create": (run(lambda: D.abulk_create([Document(title="new")])), None),
    "abulk_update": (run(lambda: D.abulk_update([loaded(1), loaded(BS)], ["title"])), 1),
    "aupdate": (run(lambda: D.aupdate(title="changed")), 4),
    "aupdate of b's": (run(lambda: D.filter(pk=BS).aupdate(title="changed")), 0),
    "adelete of b's": (run(lambda: D.filter(pk=BS).adelete()), None),
    "adelete of b's child": (run(lambda: Comment(id=BS, document_id=BS).adelete()), None),
    "aget_or_create": (run(lambda: D.aget_or_create(slug="own-0", defaults={"title": "x"})), None),
    "aupdate_or_create": (run(lambda: D.aupdate_or_create(slug="own-0", defaults={"title": "x"})), None),
    "related aadd": (run(lambda: Document(pk=1, tenant_id="a").labels.aadd(1)), None),
    "related aset": (run(lambda: Document(pk=1, tenant_id="a").labels.aset([1])), None),
    "related aclear of b's": (run(lambda: Label(pk=BS).documents.aclear()), None),
    "related aremove of b's": (run(lambda: Document(pk=1, tenant_id="a").labels.aremove(BS)), None),
    "related of b's": (run(lambda: Document(pk=BS).comments.acount()), 0),
    "aget_list_or_404": (run(lambda: aget_list_or_404(D.values_list("pk", flat=True).order_by("pk"))), [1, 2, 3, 11]),
    "content type": (lambda: ContentType.objects.get_for_model(Document).get_object_for_this_type(pk=1).pk, 1),
    "permissions of a model": (
        lambda: Permission.objects.filter(content_type__app_label="ormtests", content_type__model="document").count(),
        4,
    ),
}

REFUSED: dict[str, Attack] = {
    "aget of b's": run(lambda: D.aget(pk=BS)),
    "arefresh_from_db of b's": run(lambda: loaded(BS).arefresh_from_db()),
    "asave of b's": run(lambda: loaded(BS).asave()),
    "asave of b's by force": run(lambda: loaded(BS).asave(force_update=True)),
    "acreate for b": run(lambda: D.acreate(title="x", tenant_id="b")),
    "abulk_create for b": run(lambda: D.abulk_create([Document(title="x", tenant_id="b")])),
    "abulk_create over b's": run(
        lambda: D.abulk_create([loaded(BS)], update_conflicts=True, unique_fields=["id"], update_fields=["title"])
    ),
    "aget_or_create of b's": run(lambda: D.aget_or_create(slug="theirs-0", defaults={"title": "x"})),
    "aupdate_or_create of b's": run(lambda: D.aupdate_or_create(pk=BS, defaults={"title": "x"})),
    "aupdate to b": run(lambda: D.aupdate(tenant_id="b")),
    "related acreate on b's": run(lambda: Document(pk=BS).comments.acreate(text="x")),
    "related aadd of b's": run(lambda: Document(pk=1, tenant_id="a").labels.aadd(BS)),
    "araw": run(lambda: collected(D.raw("SELECT * FROM ormtests_document"))),
    "aexplain with counts": run(lambda: D.all().aexplain(analyze=True)),
    "get_object_or_404 of b's": lambda: get_object_or_404(Document, pk=BS),
    "aget_object_or_404 of b's": run(lambda: aget_object_or_404(D.all(), pk=BS)),
    "content type of b's": lambda: ContentType.objects.get_for_model(Document).get_object_for_this_type(pk=BS),
}


@pytest.mark.parametrize("name", SCOPED)
def test_what_django_awaits_gives_the_tenants_own_rows(world: str, name: str) -> None:
    attack, own = SCOPED[name]
    assert verdict(world, attack, own=own) == "scoped"


@pytest.mark.parametrize("name", REFUSED)
def test_what_django_awaits_is_refused_past_the_barrier(world: str, name: str) -> None:
    assert verdict(world, REFUSED[name]).startswith("refused")


def test_all_async_methods_of_query_sets_are_attacked() -> None:
    theirs = {
        name for name in dir(QuerySet) if name.startswith("a") and asyncio.iscoroutinefunction(getattr(QuerySet, name))
    }
    tried = {name.split()[0] for name in (*SCOPED, *REFUSED)}
    assert theirs <= tried


def test_receivers_of_signals_work_as_who_saves_and_reach_the_tenants_rows_alone(world: str) -> None:
    seen: list[Any] = []

    def receiver(sender: Any, **_: Any) -> None:
        seen.append((current_tenant().id, Document.objects.filter(pk__gte=BS, pk__lt=BS + 100).count()))

    def steal() -> None:
        def thief(sender: Any, instance: Any, **_: Any) -> None:
            instance.tenant_id = "b"

        signals.pre_save.connect(thief, sender=Label)
        try:
            Label.objects.create(name="fresh")
        finally:
            signals.pre_save.disconnect(thief, sender=Label)

    def work() -> None:
        label = Label.objects.create(name="fresh")
        Document.objects.get(pk=1).labels.add(label)
        label.delete()

    heard = (signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete)
    for signal in heard:
        signal.connect(receiver, sender=Label)
    signals.m2m_changed.connect(receiver, sender=Document.labels.through)
    try:
        assert verdict(world, work) == "scoped"
        assert verdict(world, steal).startswith("refused")
    finally:
        for signal in heard:
            signal.disconnect(receiver, sender=Label)
        signals.m2m_changed.disconnect(receiver, sender=Document.labels.through)
    assert set(seen) == {("a", 0)}
    assert len(seen) >= 6


def test_sessions_and_permissions_are_asked_with_and_without_a_tenant(world: str) -> None:
    user = User.objects.create_user("dora")
    try:
        user.user_permissions.add(Permission.objects.get(codename="add_document", content_type__app_label="ormtests"))
        for block in (bind(A), system("the same, for all")):
            with block:
                again = User.objects.get(username="dora")
                assert again.has_perm("ormtests.add_document")
                assert not again.has_perm("ormtests.delete_document")
                assert list(User.objects.with_perm("ormtests.add_document")) == [user]
        store = SessionStore()
        store["chosen"] = "a"
        store.save()
        with bind(A):
            assert SessionStore(store.session_key)["chosen"] == "a"
        SessionStore(store.session_key).flush()
        call_command("clearsessions")
    finally:
        user.delete()


class Replicas:
    """A router that reads from one alias and writes to another."""

    names = ("", "")

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.names[0]

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return self.names[1]

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


def test_a_router_to_a_replica_reads_and_writes_as_the_tenant(world: str) -> None:
    replica = f"{world}_replica"
    connections.settings[replica] = connections.settings[world]
    from tenantguard_django.orm import protect

    protect(replica)
    Replicas.names = (replica, world)
    try:
        with override_settings(DATABASE_ROUTERS=[f"{__name__}.Replicas"]), bind(A):
            assert D.all().db == replica
            assert [D.count(), Country.objects.aggregate(n=Count("documents"))["n"]] == [4, 3]
            assert D.using(replica).filter(pk=BS).first() is None
            assert Folder.objects.get(pk=2).documents.count() == 2
            made = D.create(title="through the router")
            assert (made._state.db, made.tenant_id) == (world, "a")
            assert D.get(pk=made.pk)._state.db == replica
            made.delete()
    finally:
        connections[replica].close()
        del connections[replica]
        del connections.settings[replica]


def test_commands_on_rows_are_scoped_and_refused_without_a_tenant(world: str) -> None:
    def dumped(*arguments: str) -> set[str]:
        out = io.StringIO()
        call_command("dumpdata", *arguments, database=world, stdout=out)
        return {record["fields"].get("tenant_id", "") for record in json.loads(out.getvalue())}

    for natural in ((), ("--natural-foreign",), ("--all",)):
        with bind(A):
            assert dumped("ormtests.document", "ormtests.note", *natural) == {"a"}
        with pytest.raises(CommandError, match=r"(?i)bound"):
            dumped("ormtests.document", *natural)
