"""What the barrier costs a query of Django's ORM: the same rows with a filter written by hand, and scoped.

Run it by itself, since Django is configured once in a process: ``python -m benchmarks.django_queries``. SQLite in
memory. Queries by hand run on a database without the barrier, with a query set that is as Django has it. What is
written by hand is as right as what is scoped: it sets the tenant, and looks up that what a foreign key points to is the
tenant's. The last shapes are "unsafe by hand": there it does neither, so they tell what the checks cost.
"""

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks.harness import compare

HAND, SCOPED = "filter by hand", "scoped"
ROWS = 50


def measure() -> dict[str, dict[str, float]]:
    """Return the fastest rounds of each shape, by name."""
    import django
    from django.conf import settings

    memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    settings.configure(
        DATABASES={"default": memory, "plain": dict(memory)},
        INSTALLED_APPS=[],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    from django.db import connections, models
    from tenantguard_django.models import TenantModel
    from tenantguard_django.orm import owned_through, protect

    from tenantguard import bind, service_identity, system

    class Author(TenantModel):
        name = models.CharField(max_length=100)

        class Meta:
            app_label = "bench"

    class Note(TenantModel):
        text = models.CharField(max_length=100)
        author = models.ForeignKey(Author, on_delete=models.CASCADE)

        class Meta:
            app_label = "bench"

    @owned_through("note")
    class Remark(models.Model):
        text = models.CharField(max_length=100)
        note = models.ForeignKey(Note, on_delete=models.CASCADE, related_name="remarks")

        class Meta:
            app_label = "bench"

    from django.apps import AppConfig, apps

    config = AppConfig("bench", sys.modules[__name__])
    config.models = apps.all_models["bench"]
    config.apps = apps
    apps.app_configs["bench"] = config
    apps.clear_cache()

    class PlainQuerySet(models.QuerySet[Any]):
        _result_cache = None

    protect("default")
    PlainQuerySet._iterator = models.QuerySet._iterator
    identity = service_identity("bench", tenant="tenant-7")
    for alias in ("default", "plain"):
        with system("set up the benchmark"):
            with connections[alias].schema_editor() as editor:
                for model in (Author, Note, Remark):
                    editor.create_model(model)
            for n in range(20):
                of = {"tenant_id": f"tenant-{n}"}
                author = Author.objects.using(alias).create(name=f"author {n}", **of)
                for m in range(ROWS):
                    note = Note.objects.using(alias).create(text=f"note {m}", author=author, **of)
                    Remark.objects.using(alias).create(text="remark", note=note)
        connections[alias].cursor  # noqa: B018
    with bind(identity):
        key = Note.objects.order_by("pk").first().pk
        remark = Remark.objects.order_by("pk").first().pk
        loaded = {alias: Author.objects.using(alias).get(pk=8) for alias in ("default", "plain")}

    def plain(model: Any) -> Any:
        return PlainQuerySet(model, using="plain")

    mine = {"tenant_id": "tenant-7"}

    def _looked_up() -> bool:
        return plain(Author).filter(**mine, pk=8).exists()

    def _note_looked_up() -> bool:
        return plain(Note).filter(**mine, pk=key).exists()

    shapes: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "by primary key": (
            lambda: plain(Note).filter(**mine).get(pk=key),
            lambda: Note.objects.get(pk=key),
        ),
        f"{ROWS} rows": (lambda: list(plain(Note).filter(**mine)), lambda: list(Note.objects.all())),
        f"{ROWS} rows of values": (
            lambda: list(plain(Note).filter(**mine).values_list("pk", "text")),
            lambda: list(Note.objects.values_list("pk", "text")),
        ),
        "count": (lambda: plain(Note).filter(**mine).count(), lambda: Note.objects.count()),
        "exists": (
            lambda: plain(Note).filter(**mine, text="note 3").exists(),
            lambda: Note.objects.filter(text="note 3").exists(),
        ),
        "a join": (
            lambda: list(plain(Note).filter(**mine, author__tenant_id="tenant-7").select_related("author")[:10]),
            lambda: list(Note.objects.select_related("author")[:10]),
        ),
        "a child by primary key": (
            lambda: plain(Remark).filter(note__tenant_id="tenant-7").get(pk=remark),
            lambda: Remark.objects.get(pk=remark),
        ),
        "children of a row": (
            lambda: list(plain(Remark).filter(note__tenant_id="tenant-7", note=key)),
            lambda: list(Remark.objects.filter(note=key)),
        ),
        "update": (
            lambda: plain(Note).filter(**mine, pk=key).update(text="x"),
            lambda: Note.objects.filter(pk=key).update(text="x"),
        ),
        "save() of a loaded row": (
            lambda: plain(Author).filter(**mine, pk=8).update(name="author 7", **mine),
            lambda: loaded["default"].save(),
        ),
        "get_or_create() of a row that is there": (
            lambda: plain(Author).get_or_create(**mine, name="author 7"),
            lambda: Author.objects.get_or_create(name="author 7"),
        ),
        "delete": (
            lambda: plain(Remark).filter(note__tenant_id="tenant-7", pk=0).delete(),
            lambda: Remark.objects.filter(pk=0).delete(),
        ),
        "unsafe by hand: save() of a loaded row": (lambda: loaded["plain"].save(), lambda: loaded["default"].save()),
        "unsafe by hand: update_or_create()": (
            lambda: plain(Author).update_or_create(**mine, name="author 7", defaults={"name": "author 7"}),
            lambda: Author.objects.update_or_create(name="author 7", defaults={"name": "author 7"}),
        ),
        "insert": (
            lambda: Author(name="new", **mine).save(using="plain", force_insert=True),
            lambda: Author(name="new").save(force_insert=True),
        ),
        "insert with a foreign key, looked up": (
            lambda: _looked_up() and Note(text="new", author_id=8, **mine).save(using="plain", force_insert=True),
            lambda: Note(text="new", author_id=8).save(force_insert=True),
        ),
        "insert of a child": (
            lambda: _note_looked_up() and Remark(text="new", note_id=key).save(using="plain", force_insert=True),
            lambda: Remark(text="new", note_id=key).save(force_insert=True),
        ),
        f"bulk_create() of {ROWS} rows": (
            lambda: plain(Author).bulk_create([Author(name="new", **mine) for _ in range(ROWS)]),
            lambda: Author.objects.bulk_create([Author(name="new") for _ in range(ROWS)]),
        ),
        f"bulk_create() of {ROWS} rows, looked up": (
            lambda: (
                _looked_up() and plain(Note).bulk_create([Note(text="new", author_id=8, **mine) for _ in range(ROWS)])
            ),
            lambda: Note.objects.bulk_create([Note(text="new", author_id=8) for _ in range(ROWS)]),
        ),
        "unsafe by hand: insert with a foreign key": (
            lambda: Note(text="new", author_id=8, **mine).save(using="plain", force_insert=True),
            lambda: Note(text="new", author_id=8).save(force_insert=True),
        ),
    }
    found = {}
    with bind(identity):
        for name, (by_hand, scoped) in shapes.items():
            found[name] = compare({HAND: by_hand, SCOPED: scoped}, rounds=40, seconds=0.01, pick=min)
    return found


def main() -> None:
    console = Console()
    from benchmarks.__main__ import table

    for shape, costs in measure().items():
        console.print(table(f"Django, SQLite in memory, fastest rounds: {shape}", costs))


if __name__ == "__main__":
    main()
