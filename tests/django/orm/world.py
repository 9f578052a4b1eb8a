"""Databases that hold tenant a's rows and tenant b's canaries, and the verdict on what runs against them as a.

B's rows are canaries: every text of theirs holds ``B-CANARY``, and every number is 900,000 or more. An attack has
leaked if a canary, or a count that includes one, comes back or stands in the text of an error; or if afterwards a row
of B's is changed, moved or gone, a row of A's stands in B, or a key of A's points to B's.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connections, models, transaction
from django.db.models.query import QuerySet
from django.test.utils import override_settings
from tenantguard_django.orm import protect

from tenantguard import bind, service_identity, system
from tenantguard.errors import TenantGuardError
from tests.django.orm.models import (
    Badge,
    Board,
    Bookmark,
    Card,
    Clause,
    Comment,
    Country,
    Document,
    Folder,
    Label,
    Line,
    Nested,
    Note,
    Organisation,
    Plan,
    Project,
    Reaction,
    Report,
    Task,
    Template,
    Ticket,
)

CANARY = "B-CANARY"
FIRST_OF_B = 900_000
A_UUID, B_UUID = uuid.UUID(int=1), uuid.UUID(int=2)
A = service_identity("attacker", tenant="a")
B = service_identity("victim", tenant="b")
MADE = dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)

Attack = Callable[[], Any]
"""Runs as tenant a; what it returns is looked at."""

_alias = "default"


class Router:
    """Sends every statement without ``using()`` to the database of the test."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return _alias

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return _alias

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        return True


@contextmanager
def database(alias: str, engine: dict[str, Any]) -> Iterator[str]:
    """A protected database of its own under an alias, with tables and rows, to which the router sends everything."""
    global _alias
    connections.settings.update(
        connections.configure_settings({"default": connections.settings["default"], alias: engine})
    )
    protect(alias)
    try:
        with use_alias(alias):
            _fill(alias)
            yield alias
    finally:
        connections[alias].close()
        ContentType.objects.clear_cache()
        del connections[alias]
        del connections.settings[alias]


@contextmanager
def use_alias(alias: str) -> Iterator[None]:
    """Send everything without ``using()`` to a database, for a block."""
    global _alias
    before, _alias = _alias, alias
    try:
        with override_settings(DATABASE_ROUTERS=["tests.django.orm.world.Router"]):
            yield
    finally:
        _alias = before


def _fill(alias: str) -> None:
    with system("set up the tests"):
        for app in ("contenttypes", "auth"):  # what apps without migrations point to
            call_command("migrate", app, database=alias, verbosity=0)
        call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
        ContentType.objects.clear_cache()
        seed()


def seed() -> None:
    """Make the rows of both tenants, in a system context."""
    country = Country.objects.create(id=1, name="Utopia")
    about = ContentType.objects.get_for_model(Document)
    for tenant, first, mark, number, key in (("a", 1, "own", 1, A_UUID), ("b", FIRST_OF_B, CANARY, 900_001, B_UUID)):
        of = {"tenant_id": tenant}
        outer = Folder.objects.create(id=first, name=f"{mark} outer", **of)
        inner = Folder.objects.create(id=first + 1, name=f"{mark} inner", parent=outer, **of)
        labels = [Label.objects.create(id=first + n, name=f"{mark} label {n}", **of) for n in range(2)]
        for n in range(3):
            document = Document.objects.create(
                id=first + n,
                title=f"{mark} document {n}",
                pages=first + n,
                made=MADE,
                folder=inner if n else None,
                country=country,
                slug=f"{'own' if tenant == 'a' else 'theirs'}-{n}",
                **of,
            )
            document.labels.set(labels)
            for m in range(2):
                comment = Comment.objects.create(id=first + 2 * n + m, text=f"{mark} comment {n}{m}", document=document)
                Reaction.objects.create(id=first + 2 * n + m, kind=f"{mark} reaction", comment=comment)
            Note.objects.create(id=first + n, text=f"{mark} note", content_type=about, object_id=document.pk, **of)
        Report.objects.create(id=first + 10, title=f"{mark} report", pages=first + 10, summary=f"{mark} summary", **of)
        Template.objects.create(id=first, org=tenant, name=f"{mark} template")
        Bookmark.objects.create(id=first, folder=outer)
        Badge.objects.create(id=first, document=document, **of)
        Nested.objects.create(id=first, **of)
        Line.objects.create(number=first, text=f"{mark} line", **of)
        Ticket.objects.create(id=first, number=number, title=f"{mark} ticket")
        plan = Plan.objects.create(id=first, name=f"{mark} plan", **of)
        Clause.objects.create(id=first, text=f"{mark} clause", plan=plan)
        board = Board.objects.create(id=first, name=f"{mark} board", **of)
        for n, workspace in enumerate(("w1", "w2")):
            Card.objects.create(id=first + n, text=f"{mark} card {workspace}", workspace=workspace, board=board)
        Project.objects.create(id=uuid.UUID(int=first), organisation=key, title=f"{mark} project")
        organisation = Organisation.objects.create(id=tenant, title=f"{mark} organisation")
        for workspace in ("w1", "w2"):
            Task.objects.create(organisation=organisation, workspace=workspace, title=f"{mark} task {workspace}")
    Template.objects.create(id=500, org=models.Value(None), name="everybody's template")
    with connections[_alias].cursor() as cursor:  # new rows are none of b's
        for model in apps.get_app_config("ormtests").get_models(include_auto_created=True):
            table, key = model._meta.db_table, model._meta.pk
            if not isinstance(key, models.AutoField):
                continue
            if cursor.db.vendor == "postgresql":
                cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 2000000)")
            else:
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
                cursor.execute("INSERT INTO sqlite_sequence VALUES (%s, 2000000)", [table])


def snapshot() -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables, past the barrier."""
    rows = {}
    with system("look at all rows"):
        for model in apps.get_app_config("ormtests").get_models(include_auto_created=True):
            if model._meta.proxy:
                continue
            fields = [field.attname for field in model._meta.local_concrete_fields]
            rows[model._meta.label] = sorted(model._base_manager.values_list(*fields), key=repr)
    return rows


def is_canary(value: Any, seen: int = 0) -> bool:
    """True if a value is of b's rows, or holds one that is."""
    if seen > 6:
        return False
    if isinstance(value, str):
        return CANARY in value or value == "b"
    if isinstance(value, bytes):
        return CANARY.encode() in value
    if isinstance(value, bool | float | None.__class__):
        return False
    if isinstance(value, int):
        return FIRST_OF_B <= value < 1_900_000
    if isinstance(value, uuid.UUID):
        return value == B_UUID or FIRST_OF_B <= value.int < 1_900_000
    if isinstance(value, models.Model):
        own = {name: part for name, part in vars(value).items() if name != "_state"}
        return is_canary({**own, **value._state.fields_cache}, seen + 1)
    if isinstance(value, QuerySet):
        return any(is_canary(part, seen + 1) for part in value)
    if isinstance(value, dict):
        return any(is_canary(part, seen + 1) for part in (*value.keys(), *value.values()))
    if isinstance(value, list | tuple | set | frozenset | Iterator):
        return any(is_canary(part, seen + 1) for part in value)
    return CANARY in repr(value)


def _of_b(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    return {name: [row for row in table if is_canary(row)] for name, table in rows.items()}


def verdict(alias: str, attack: Attack, *, own: Any = None) -> str:
    """Run an attack and return ``"scoped"``, ``"refused"``, ``"leaked: ..."`` or ``"broken: ..."``.

    Args:
        alias: the database.
        attack: what to run, as tenant a; its result is looked at.
        own: what the result is for a alone, where that matters.
    """
    outcome = "scoped"
    around = transaction.atomic(using=alias)
    around._from_testcase = True
    before = snapshot()
    connection = connections[alias]
    with around:
        sid = connection.savepoint()
        try:
            with bind(A):
                result = attack()
                if isinstance(result, QuerySet):
                    result = list(result)
                if is_canary(result):
                    outcome = f"leaked: {result!r}"
                elif own is not None and result != own:
                    outcome = f"{'leaked' if isinstance(own, int) else 'broken'}: {result!r} instead of {own!r}"
        except TenantGuardError as error:
            outcome = "refused" if not is_canary(str(error)) else f"leaked: {error}"
        except Exception as error:  # noqa: BLE001 - any error refuses; what it says is looked at
            outcome = "refused" if CANARY not in str(error) else f"leaked: {error}"
            outcome = f"{outcome} ({type(error).__name__}: {error})"
        connection.needs_rollback = False
        if outcome.startswith(("refused (", "leaked")):
            connection.savepoint_rollback(sid)
        after = snapshot()
        if _of_b(before) != _of_b(after):
            changed = {name: rows for name, rows in _of_b(after).items() if rows != _of_b(before)[name]}
            outcome = f"leaked: rows of b are now {changed!r}"
        transaction.set_rollback(True, using=alias)
    return outcome
