"""Row-level security from the models: PostgreSQL itself refuses what passes the barrier."""

import contextlib
import importlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connections, transaction
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import OperationWriter
from tenantguard_django.orm import move_rows, protect, read_across, write_across
from tenantguard_django.orm.connections import settings_of_aliases
from tenantguard_django.orm.rls import EnableRowLevelSecurity, Seal, guard_transactions, plan_of

from tenantguard import allow_raw, bind, read_tenants, system
from tenantguard.errors import ConfigurationError, StatementRefused, UnclassifiedTable
from tests.django.orm.conftest import postgres_settings
from tests.django.orm.models import Comment, Country, Document, Folder, Forgotten, Label, Template
from tests.django.orm.world import FIRST_OF_B, A, B, database, use_alias

D = Document.objects
classification = importlib.import_module("tenantguard_django.orm.classify")
APP = "rls_app"


@pytest.fixture(scope="module", params=["plain", "sealed", "sealed for one transaction", "autocommit off"])
def guarded(request: pytest.FixtureRequest, postgres_server: str) -> Iterator[str]:
    """A database with policies, and the alias under which the app's role uses it."""
    from tests.conftest import _database

    with _database(postgres_server) as url, database("rls_owner", postgres_settings(url)) as owner:
        seal = None
        if request.param.startswith("sealed"):
            bound: Any = "transaction" if request.param.endswith("transaction") else "backend"
            seal = Seal(secrets.token_bytes(32), bound_to=bound)
        role = f"rls_app_{secrets.token_hex(4)}"
        _enable(owner, role, seal)
        engine = {**postgres_settings(url), "USER": role, "AUTOCOMMIT": request.param != "autocommit off"}
        with _as_role(engine, seal):
            yield APP
        _drop(owner, role)


def _drop(owner: str, role: str) -> None:
    with system("drop the role"), connections[owner].cursor() as cursor:
        cursor.execute(f"DROP OWNED BY {role}")
        cursor.execute(f"DROP ROLE {role}")


def _enable(owner: str, role: str, seal: Seal | None) -> None:
    declared = {"ormtests.Forgotten": {"shared": "made for this test"}}
    operation = EnableRowLevelSecurity(role, sealed=seal is not None)
    state = ProjectState.from_apps(apps)
    with system("enable row-level security"):
        with connections[owner].cursor() as cursor:
            cursor.execute(f"CREATE ROLE {role} LOGIN")
        with _classified(declared):
            for _ in range(2):  # the second changes nothing
                with connections[owner].schema_editor() as editor:
                    operation.database_forwards("ormtests", editor, state, state)
        if seal is not None:
            with connections[owner].cursor() as cursor:
                cursor.execute(seal.key_statement())


@contextlib.contextmanager
def _classified(models: dict[str, Any]) -> Iterator[None]:
    classification.classify(models)
    try:
        yield
    finally:
        for label in models:
            del classification._declared[label.lower()]
        classification._forget()


@contextlib.contextmanager
def _as_role(engine: dict[str, Any], seal: Seal | None) -> Iterator[None]:
    connections.settings.update(
        connections.configure_settings({"default": connections.settings["default"], APP: engine})
    )
    protect(APP)
    guard_transactions(APP, seal=seal)
    try:
        with use_alias(APP):
            yield
    finally:
        connections[APP].close()
        del connections[APP]
        del connections.settings[APP]
        del settings_of_aliases[APP]


@pytest.fixture(autouse=True)
def rolled_back(guarded: str) -> Iterator[None]:
    yield
    if not connections[guarded].autocommit:
        connections[guarded].rollback()


def test_each_statement_is_scoped_by_the_database(guarded: str) -> None:
    for identity, first in ((A, 1), (B, FIRST_OF_B), (A, 1)):
        with bind(identity):
            with allow_raw("a filter that was forgotten"), connections[guarded].cursor() as cursor:
                cursor.execute("SELECT min(id), count(*) FROM ormtests_document")
                assert cursor.fetchone() == (first, 4)
                cursor.execute("SELECT count(*) FROM ormtests_comment")
                assert cursor.fetchone() == (6,)
            assert D.order_by("pk").first().pk == first
        if not connections[guarded].autocommit:
            connections[guarded].commit()


def test_a_transaction_is_scoped_by_the_database(guarded: str) -> None:
    with bind(A), transaction.atomic(using=guarded):
        assert D.count() == 4
        with allow_raw("a filter that was forgotten"), connections[guarded].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM ormtests_document")
            assert cursor.fetchone() == (4,)
        with contextlib.suppress(RuntimeError), transaction.atomic(using=guarded):
            raise RuntimeError
        assert D.count() == 4


def test_the_setting_that_a_savepoint_took_back_is_sent_again(guarded: str) -> None:
    with bind(A), transaction.atomic(using=guarded):
        with contextlib.suppress(RuntimeError), transaction.atomic(using=guarded):
            assert D.count() == 4  # the first statement, in the savepoint
            raise RuntimeError
        assert D.count() == 4


def test_writing_goes_on_as_without_it(guarded: str) -> None:
    with bind(A), transaction.atomic(using=guarded):
        document = D.create(title="new", folder=Folder.objects.first(), country=Country.objects.get())
        document.labels.set(Label.objects.all())
        comment = Comment.objects.create(text="new", document=document)
        comment.reactions.create(kind="new")
        document.title = "changed"
        document.save()
        assert D.filter(title="changed").update(pages=5) == 1
        D.bulk_create([Document(title="1"), Document(title="2")])
        document.delete()
        transaction.set_rollback(True, using=guarded)


def test_a_single_statement_is_a_transaction_of_its_own(guarded: str) -> None:
    with bind(A):
        made = Template.objects.create(name="kept")
        if not connections[guarded].autocommit:
            connections[guarded].commit()
        assert Template.objects.filter(pk=made.pk).delete()[0] == 1
        if not connections[guarded].autocommit:
            connections[guarded].commit()


def test_rows_are_read_in_portions(guarded: str) -> None:
    with bind(A):
        assert len(list(D.iterator(chunk_size=1))) == 4
        with transaction.atomic(using=guarded):
            assert len(list(Comment.objects.iterator(chunk_size=2))) == 6


def test_an_error_leaves_the_connection_in_use(guarded: str) -> None:
    with bind(A):
        with allow_raw("a mistake"), pytest.raises(DatabaseError), transaction.atomic(using=guarded):
            connections[guarded].cursor().execute("SELECT nonsense")
        if connections[guarded].autocommit:
            with allow_raw("a mistake"), pytest.raises(DatabaseError):
                connections[guarded].cursor().execute("SELECT nonsense")
        assert D.count() == 4


def test_rows_of_others_are_not_written_by_raw_sql(guarded: str) -> None:
    for text in (
        "INSERT INTO ormtests_template (org, name) VALUES ('b', 'x')",
        "INSERT INTO ormtests_template (org, name) VALUES (NULL, 'x')",
        f"INSERT INTO ormtests_comment (text, document_id) VALUES ('x', {FIRST_OF_B})",
        "UPDATE ormtests_document SET tenant_id = 'b'",
        "SELECT * FROM tenantguard.seal_keys",
        "TRUNCATE ormtests_document",
    ):
        with (
            bind(A),
            allow_raw("an attack"),
            pytest.raises((DatabaseError, StatementRefused)),
            transaction.atomic(using=guarded),
            connections[guarded].cursor() as cursor,
        ):
            cursor.execute(text)
    with (
        bind(A),
        allow_raw("an attack"),
        pytest.raises(DatabaseError),
        transaction.atomic(using=guarded),
        connections[guarded].cursor() as cursor,
    ):
        cursor.execute("UPDATE ormtests_document SET folder_id = %s", [FIRST_OF_B])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_a_system_context_gets_no_tenants_rows_from_the_apps_role(guarded: str) -> None:
    with system("look"), pytest.raises(DatabaseError), transaction.atomic(using=guarded):
        D.count()
    with bind(A), transaction.atomic(using=guarded):
        assert D.count() == 4
        with system("look"), pytest.raises(DatabaseError), transaction.atomic(using=guarded):
            D.count()
        assert D.count() == 4


def test_shared_rows_are_read_by_everybody(guarded: str) -> None:
    assert Country.objects.count() == 1


def test_further_tenants_are_refused(guarded: str) -> None:
    with bind(A), read_tenants(["b"], reason="group report"), pytest.raises(StatementRefused):
        D.count()


def test_the_operation_is_written_into_a_migration() -> None:
    text, imports = OperationWriter(EnableRowLevelSecurity("app"), indentation=0).serialize()
    assert "EnableRowLevelSecurity" in text
    assert "role='app'" in text
    assert imports


def test_a_right_beyond_the_tenant_is_refused_where_the_database_holds_its_own_line(guarded: str) -> None:
    for attempt in (
        lambda: read_across(D, reason="total").count(),
        lambda: D.filter(pk__in=read_across(Folder.objects, reason="total").values("pk")).count(),
        lambda: write_across(D, reason="ticket 12").update(pages=1),
        lambda: move_rows(Label.objects, reason="ticket 13").update(tenant_id="c"),
    ):
        with bind(A), pytest.raises(StatementRefused, match="Row-level security"), transaction.atomic(using=guarded):
            attempt()


def test_an_unclassified_model_gets_no_policies_by_accident() -> None:
    with pytest.raises(UnclassifiedTable, match=Forgotten._meta.label):
        plan_of(role="app")


def test_only_a_protected_database_of_postgresql_is_guarded() -> None:
    with pytest.raises(ConfigurationError):
        guard_transactions("default")


def test_a_system_context_inside_a_tenants_transaction_is_left_again_also_after_a_savepoint(guarded: str) -> None:
    with bind(A), transaction.atomic(using=guarded):
        assert D.count() == 4
        for _ in range(2):
            with system("look"), contextlib.suppress(DatabaseError), transaction.atomic(using=guarded):
                D.count()
            with system("look"):
                assert Country.objects.count() == 1
            assert D.count() == 4


@pytest.mark.parametrize("in_a_block", [True, False], ids=["atomic", "autocommit"])
def test_the_next_tenant_meets_nothing_that_was_left_in_the_session(guarded: str, in_a_block: bool) -> None:
    """The same attack as on SQLAlchemy's pools (`tests.orm.rls.test_leftovers`), on a persistent connection."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with transaction.atomic(using=guarded) if in_a_block else contextlib.nullcontext():
            yield
        if not connections[guarded].autocommit:
            connections[guarded].commit()

    left = {
        "SET SESSION app.remains = 'by a'": "SELECT coalesce(current_setting('app.remains', true), '')",
        "SELECT pg_advisory_lock(7)": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        "PREPARE trap AS SELECT 1": "SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
        "LISTEN gossip": "SELECT count(*) FROM pg_listening_channels()",
    }
    with bind(B), block():
        assert D.count() == 4
    with bind(A), allow_raw("attack"), block(), connections[guarded].cursor() as cursor:
        zone = _asked(cursor, "SHOW timezone")
        for command in left:
            cursor.execute(command)
    with bind(B), allow_raw("look"), block(), connections[guarded].cursor() as cursor:
        assert [_asked(cursor, look) for look in left.values()] == ["", 0, 0, 0]
        assert _asked(cursor, "SHOW timezone") == zone, "what Django set when it connected is set again"
        assert D.count() == 4


def test_a_savepoint_of_nobodys_begins_in_a_clean_session(guarded: str) -> None:
    with bind(A), allow_raw("attack"), connections[guarded].cursor() as cursor:
        cursor.execute("SET SESSION app.remains = 'by a'")
    if not connections[guarded].autocommit:
        transaction.commit(using=guarded)
    with transaction.atomic(using=guarded), transaction.atomic(using=guarded), bind(B):
        assert D.count() == 4
        with allow_raw("look"), connections[guarded].cursor() as cursor:
            assert _asked(cursor, "SELECT coalesce(current_setting('app.remains', true), '')") == ""


def _asked(cursor: Any, query: str) -> Any:
    cursor.execute(query)
    return cursor.fetchone()[0]
