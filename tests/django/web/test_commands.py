"""``manage.py``: commands run as somebody, and the doctor says what holds."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.test import override_settings

from tenantguard import bind, current_identity, service_identity, system
from tenantguard.errors import NotBound, TenantGuardError
from tests.django.login import settings_with
from tests.django.web.models import Document
from tests.django.web.rows import seed, wipe


class CountDocuments(BaseCommand):
    """A command that was not written for tenants."""

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--title")
        parser.add_argument("--verbose-titles", action="store_true")

    def handle(self, **options: Any) -> None:
        found = Document.objects.order_by("id")
        if options["title"]:
            found = found.filter(title=options["title"])
        try:
            who = f"{current_identity().actor.id} ({current_identity().actor.type})"
        except NotBound:
            who = "system"
        self.stdout.write(json.dumps([who, sorted(document.title for document in found)]))


@pytest.fixture(autouse=True)
def rows(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    from django.core import management

    known = management.get_commands()
    monkeypatch.setattr(management, "get_commands", lambda: {**known, "count_documents": CountDocuments()})
    with override_settings(TENANTGUARD=settings_with(), ROOT_URLCONF="tests.django.web.api"):
        yield seed()
    wipe()


def run(*arguments: str) -> Any:
    out = io.StringIO()
    call_command("tenantguard_run_as", *arguments, stdout=out)
    return json.loads(out.getvalue())


def test_a_command_runs_as_a_service_of_one_tenant() -> None:
    assert run("--tenant", "acme", "count_documents") == ["count_documents (service)", ["acme's"]]
    named = run(
        "--tenant", "globex", "--service", "report", "count_documents", "--title", "globex's", "--verbose-titles"
    )
    assert named == ["report (service)", ["globex's"]]
    assert run("--tenant", "acme", "count_documents", "--title", "globex's") == ["count_documents (service)", []]


def test_a_command_runs_across_tenants_for_a_reason_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert run("--system", "count all", "count_documents") == ["system", ["acme's", "globex's"]]
    assert "system entered: count all" in caplog.text


def test_without_it_the_command_reaches_no_row() -> None:
    with pytest.raises(TenantGuardError):
        call_command("count_documents")


@pytest.mark.parametrize(
    "arguments",
    [
        ("count_documents",),
        ("--tenant", "acme", "--system", "x", "count_documents"),
        ("--tenant", "a b", "count_documents"),
        ("--tenant", "", "count_documents"),
        ("--system", " ", "count_documents"),
        ("--system", "x", "--scopes", "a", "count_documents"),
        ("--tenant", "acme", "no_such_command"),
    ],
)
def test_it_is_called_wrongly_without_saying_exactly_one(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)


def test_fixtures_are_dumped_of_one_tenant_and_loaded_into_one(database: str, tmp_path) -> None:
    dumped = tmp_path / "documents.json"
    where = f"--database={database}"
    call_command("tenantguard_run_as", "--tenant", "acme", "dumpdata", where, "web.document", "--output", str(dumped))
    records = json.loads(dumped.read_text())
    assert [record["fields"]["title"] for record in records] == ["acme's"]
    with pytest.raises(Exception, match=r"(?i)tenant"):
        call_command("tenantguard_run_as", "--tenant", "globex", "loaddata", where, str(dumped), stdout=io.StringIO())
    with system("what is there"):
        assert sorted(document.tenant_id for document in Document.objects.all()) == ["acme", "globex"]
    with bind(service_identity("x", tenant="acme")):
        assert Document.objects.get().title == "acme's"


def doctor(*arguments: str) -> tuple[int, str, str]:
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        call_command("tenantguard_doctor", *arguments, stdout=out, stderr=err, no_color=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_the_doctor_says_whose_rows_each_model_holds_and_what_each_url_demands() -> None:
    code, out, _ = doctor("--json")
    report = json.loads(out)
    models = {one["model"]: (one["class"], one["rows"]) for one in report["models"]}
    assert models["web.Document"] == ("owned", "those of the tenant in tenant_id")
    assert models["web.Comment"] == ("child", "through document, of web.Document")
    assert models["web.Language"][0] == models["auth.User"][0] == "shared"
    urls = {one["url"]: one["demands"] for one in report["urls"]}
    assert urls["/drf/whoami"] == "a token with documents:read"
    assert urls["/drf/outside"] == "a token with documents:read"
    assert urls["/public/open"] == "nothing: it is public"
    assert code == 1  # of the model that the tests leave unclassified on purpose
    assert [one["id"] for one in report["findings"]] == ["tenantguard.E101"]


def test_the_doctor_prints_tables_and_counts() -> None:
    code, out, err = doctor()
    assert code == 1
    assert "web.Document" in out
    assert "tenantguard.E101" in out
    assert "Errors: 1, warnings: 0." in err


def test_the_doctor_finds_wrong_settings() -> None:
    with override_settings(TENANTGUARD=settings_with(GUARD=None, PUBLICK=[])):
        code, out, _ = doctor("--json")
    assert code == 1
    assert {"tenantguard.E002", "tenantguard.E003"} <= {one["id"] for one in json.loads(out)["findings"]}
