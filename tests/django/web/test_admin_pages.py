"""The further doors of the admin: rows edited in the list, actions, popups, raw keys, dates, facets, links to the site.

The admin class is a project's own, with everything switched on; nothing in it knows of tenants.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin import ShowFacets
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path
from tenantguard_django.admin.sites import TenantAdminSite

from tenantguard import system
from tests.django.login import settings_with
from tests.django.web.models import Comment, Document, Folder
from tests.django.web.rows import seed, wipe

site = TenantAdminSite()
"""An admin site of the project's own."""
LIST, FOLDERS = "/admin/web/document/", "/admin/web/folder/"


@admin.action(description="Shout")
def shout(model_admin: Any, request: Any, chosen: Any) -> None:
    for document in chosen:
        model_admin.log_change(request, document, "shouted")
    chosen.update(title="SHOUTED")


@admin.action(description="Export")
def export(model_admin: Any, request: Any, chosen: Any) -> HttpResponse:
    everything = Document.objects.values_list("title", flat=True)  # the author forgot what was chosen
    return HttpResponse("|".join([*everything, *(one.title for one in chosen)]))


class Comments(admin.StackedInline):
    model = Comment
    extra = 0


class Documents(admin.ModelAdmin):
    list_display = ("id", "title", "folder", "folder__name")
    list_editable = ("title", "folder")
    list_filter = (("folder", admin.RelatedOnlyFieldListFilter), "folder__name", "title")
    show_facets = ShowFacets.ALWAYS
    search_fields = ("title", "folder__name", "comment__text")
    raw_id_fields = ("folder",)
    actions = (shout, export)
    inlines = (Comments,)
    view_on_site = staticmethod(lambda document: f"/documents/{document.pk}")


class Folders(admin.ModelAdmin):
    view_on_site = True


Folder.get_absolute_url = lambda self: f"/folders/{self.pk}"  # type: ignore[attr-defined]
site.register(Document, Documents)
site.register(Folder, Folders)


class Urls:
    urlpatterns = (path("admin/", site.urls),)


@pytest.fixture
def rows(database: str) -> Iterator[dict[str, int]]:
    get_user_model().objects.create_superuser("sam", password="sam")
    sessions = {"PATHS": ["/admin/*"], "TENANTS": lambda user: ["acme"]}
    with override_settings(ROOT_URLCONF=Urls, TENANTGUARD=settings_with(SESSIONS=sessions)):
        yield seed()
    wipe()
    forget_users()


def forget_users() -> None:
    with system("the users of the tests, with what the admin logged of them"):
        get_user_model().objects.all().delete()


@pytest.fixture
def client(rows: dict[str, int]) -> Client:
    client = Client()
    assert client.login(username="sam", password="sam")
    return client


def everything() -> list[tuple[str, str, int | None]]:
    with system("what is there"):
        return sorted(Document.objects.values_list("tenant_id", "title", "folder_id"))


def test_a_list_with_facets_searches_and_raw_keys_shows_one_tenant(client: Client, rows: dict[str, int]) -> None:
    for query in (
        "",
        "?q=globex",
        f"?folder__id__exact={rows['globex-folder']}",
        "?folder__name__startswith=globex",
        "?o=-4",
    ):
        page = client.get(LIST + query)
        assert page.status_code == 200
        assert b"globex&#x27;s" not in page.content
    assert f"/admin/web/document/{rows['acme']}/" in client.get(LIST).content.decode()


@pytest.mark.parametrize("folder", ["own", "theirs"])
def test_rows_edited_in_the_list_are_the_tenants_own(client: Client, rows: dict[str, int], folder: str) -> None:
    form: dict[str, Any] = {
        "form-TOTAL_FORMS": 2,
        "form-INITIAL_FORMS": 2,
        "form-0-id": rows["acme"],
        "form-0-title": "edited",
        "form-0-folder": rows["acme-folder" if folder == "own" else "globex-folder"],
        "form-1-id": rows["globex"],
        "form-1-title": "edited",
        "form-1-folder": rows["acme-folder"],
        "_save": "Save",
    }
    client.post(LIST, form)
    assert ("globex", "globex's", None) in everything()
    client.post(LIST, {**form, "form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1})
    own = ("acme", "edited", rows["acme-folder"]) if folder == "own" else ("acme", "acme's", None)
    assert everything() == [own, ("globex", "globex's", None)]


def test_an_action_of_the_projects_own_reaches_the_tenants_rows_alone(client: Client, rows: dict[str, int]) -> None:
    chosen = {"_selected_action": [rows["acme"], rows["globex"]], "select_across": "1"}
    exported = client.post(LIST, {**chosen, "action": "export"})
    assert exported.content.decode() == "acme's|acme's"
    assert client.post(LIST, {**chosen, "action": "shout"}).status_code == 302
    assert everything() == [("acme", "SHOUTED", None), ("globex", "globex's", None)]
    with system("what was logged"):
        assert [entry.tenantguard.tenant_id for entry in LogEntry.objects.all()] == ["acme"]


def test_a_popup_adds_changes_and_deletes_the_tenants_rows_alone(client: Client, rows: dict[str, int]) -> None:
    added = client.post(f"{FOLDERS}add/?_popup=1", {"name": "new", "_popup": "1"})
    assert b"&quot;obj&quot;: &quot;new&quot;" in added.content
    with system("what was made"):
        assert Folder.objects.get(name="new").tenant_id == "acme"
    theirs = f"{FOLDERS}{rows['globex-folder']}"
    for page, form in (("change", {"name": "changed"}), ("delete", {"post": "yes"})):
        assert client.get(f"{theirs}/{page}/?_popup=1&_to_field=id").status_code == 302
        assert client.post(f"{theirs}/{page}/?_popup=1", {**form, "_popup": "1"}).status_code == 302
    with system("what is left"):
        assert Folder.objects.get(pk=rows["globex-folder"]).name == "globex's"


def test_a_raw_key_shows_and_takes_no_row_of_another_tenant(client: Client, rows: dict[str, int]) -> None:
    form = {"title": "mine", "comment_set-TOTAL_FORMS": 0, "comment_set-INITIAL_FORMS": 0}
    refused = client.post(f"{LIST}add/", {**form, "folder": rows["globex-folder"]})
    assert refused.status_code == 200
    assert "Select a valid choice" in refused.content.decode()
    assert "globex's" not in refused.content.decode().replace("&#x27;", "'")
    assert client.post(f"{LIST}add/", {**form, "folder": rows["acme-folder"]}).status_code == 302


def test_inlines_of_another_tenants_document_are_not_saved(client: Client, rows: dict[str, int]) -> None:
    with system("a comment of globex"):
        theirs = Comment.objects.create(document_id=rows["globex"], text="theirs")
    form = {
        "title": "acme's",
        "comment_set-TOTAL_FORMS": 1,
        "comment_set-INITIAL_FORMS": 1,
        "comment_set-0-id": theirs.pk,
        "comment_set-0-document": rows["acme"],
        "comment_set-0-text": "stolen",
    }
    client.post(f"{LIST}{rows['acme']}/change/", form)
    client.post(f"{LIST}{rows['acme']}/change/", {**form, "comment_set-0-DELETE": "on"})
    with system("what is left"):
        assert list(Comment.objects.values_list("document_id", "text")) == [(rows["globex"], "theirs")]


def test_the_link_to_the_site_leads_to_the_tenants_objects_alone(client: Client, rows: dict[str, int]) -> None:
    kind = ContentType.objects.get_for_model(Folder).pk
    own = client.get(f"/admin/r/{kind}/{rows['acme-folder']}/")
    assert re.fullmatch(rf"(http://[\w.]+)?/folders/{rows['acme-folder']}", own.url)
    assert client.get(f"/admin/r/{kind}/{rows['globex-folder']}/").status_code == 404


def test_what_a_deletion_would_take_along_is_of_the_tenant(client: Client, rows: dict[str, int]) -> None:
    with system("a document of globex in a folder of acme, as an old import left it"):
        Document.objects.filter(pk=rows["globex"]).update(folder=rows["acme-folder"])
    assert b"globex" not in client.get(f"{FOLDERS}{rows['acme-folder']}/delete/").content
    with pytest.raises(IntegrityError):  # the row of globex keeps the folder there
        client.post(f"{FOLDERS}{rows['acme-folder']}/delete/", {"post": "yes"})
    assert ("globex", "globex's", rows["acme-folder"]) in everything()
    with system("mend the row"):
        Document.objects.filter(pk=rows["globex"]).update(folder=None)
