"""Sessions as credentials, and the admin that shows one tenant at a time."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client, override_settings

from tenantguard import ProtectedResource, StaticTenants, Tenant, TenantStatus, system
from tests.django.login import LOGIN, bearer, make_guard, settings_with
from tests.django.web.models import Comment, Document, Folder
from tests.django.web.rows import seed, wipe
from tests.django.web.servers import serve_asgi, serve_wsgi

MEMBERS: dict[str, list[str]] = {}
NEW = ("new_password1", "new_password2")


def tenants_of(user: Any) -> list[str]:
    return MEMBERS.get(user.get_username(), [])


def scopes_of(user: Any, tenant: str) -> list[str]:
    return ["documents:read"] if (user.get_username(), tenant) == ("both", "acme") else []


SESSIONS = {"PATHS": ["/admin/*", "/pages/*"], "TENANTS": tenants_of, "SCOPES": scopes_of}


@pytest.fixture(autouse=True)
def rows(database: str) -> Iterator[dict[str, int]]:
    MEMBERS.clear()
    MEMBERS.update({"root": ["acme", "globex"], "both": ["acme", "globex"], "one": ["acme"], "none": []})
    users = get_user_model().objects
    users.create_superuser("root", password="root")
    for name in ("both", "one", "none"):
        users.create_user(name, password=name, is_staff=True, is_superuser=name == "both")
    with override_settings(ROOT_URLCONF="tests.django.web.pages", TENANTGUARD=settings_with(SESSIONS=SESSIONS)):
        yield seed()
    wipe()
    forget_users()


def forget_users() -> None:
    with system("the users of the tests, with what the admin logged of them"):
        get_user_model().objects.all().delete()


def logged_in(name: str, tenant: str | None = None, **options: Any) -> Client:
    client = Client(**options)
    assert client.login(username=name, password=name)
    if tenant is not None:
        chosen = client.post("/admin/tenant/", {"tenant": tenant})
        assert chosen.status_code == 302
    return client


# --- sessions ------------------------------------------------------------------------------------------------


def test_who_may_work_in_one_tenant_works_in_it() -> None:
    assert logged_in("one").get("/pages/mine").json() == {"tenant": "acme", "titles": ["acme's"]}


def test_who_may_work_in_several_chooses_one_and_may_change_it() -> None:
    client = logged_in("both")
    assert client.get("/pages/who").json()["tenant"] is None
    for tenant in ("acme", "globex", "acme"):
        assert client.post("/admin/tenant/", {"tenant": tenant}).status_code == 302
        assert client.get("/pages/mine").json() == {"tenant": tenant, "titles": [f"{tenant}'s"]}


def test_a_tenant_that_is_not_the_users_is_no_choice() -> None:
    client = logged_in("one")
    assert client.post("/admin/tenant/", {"tenant": "globex"}).status_code == 403
    assert client.get("/pages/mine").json()["tenant"] == "acme"


def test_a_choice_ends_with_the_right_to_it() -> None:
    client = logged_in("both", "globex")
    assert client.get("/pages/who").json()["tenant"] == "globex"
    MEMBERS["both"] = ["acme", "initech"]
    assert client.get("/pages/who").json()["tenant"] is None
    MEMBERS["both"] = []
    assert client.get("/pages/who").json()["tenant"] is None


def test_who_is_not_logged_in_is_nobody_and_reaches_no_row() -> None:
    assert Client().get("/pages/who").json() == {"tenant": None, "user": ""}
    anonymous = Client(raise_request_exception=False)
    assert anonymous.get("/pages/mine").status_code == 500
    assert anonymous.get("/pages/scoped").status_code == 401


def test_scopes_of_sessions_are_the_projects_to_give() -> None:
    assert logged_in("both", "acme").get("/pages/scoped").json() == "read"
    refused = logged_in("both", "globex").get("/pages/scoped")
    assert (refused.status_code, refused["content-type"]) == (403, "application/problem+json")


def test_sessions_count_on_their_paths_alone() -> None:
    client = logged_in("one")
    assert client.get("/api/who").status_code == 401
    assert client.get("/pages/../api/who").status_code == 401


def test_a_token_goes_before_the_session_also_on_its_paths() -> None:
    client = logged_in("one")
    headers = bearer("eve", tenant="globex")
    assert client.get("/pages/who", headers=headers).json() == {"tenant": "globex", "user": "eve"}
    assert client.get("/pages/who", headers={"authorization": "Bearer nonsense"}).status_code == 401


def test_public_paths_stay_public_where_sessions_count_everywhere() -> None:
    resource = ProtectedResource("https://api.example.com")
    guard = make_guard(public=["/pages/who"], resource=resource)
    everywhere = {**SESSIONS, "PATHS": ["/*"]}
    with override_settings(TENANTGUARD=settings_with(GUARD=guard, SESSIONS=everywhere)):
        client = logged_in("one")
        assert client.get("/api/who").json() == {"tenant": "acme", "user": "one"}
        assert client.get("/pages/who").json()["tenant"] is None
        described = client.get("/.well-known/oauth-protected-resource").json()
        assert described["resource"] == "https://api.example.com"
        assert client.get("/api/who", headers=bearer(tenant="globex")).json()["tenant"] == "globex"


def test_forged_headers_are_taken_away_where_a_session_speaks_too() -> None:
    headers = {"x-tenant-id": "globex", "x-user-id": "root"}
    assert logged_in("one").get("/pages/said", headers=headers).json() == [None, None]


def test_a_views_exemption_from_the_csrf_check_does_not_hold_for_sessions() -> None:
    client = logged_in("one", enforce_csrf_checks=True)
    refused = client.post("/pages/hook")
    assert refused.status_code == 403
    assert "CSRF" in refused.content.decode()
    assert Client(enforce_csrf_checks=True).post("/pages/hook").json() == {"tenant": None}
    assert client.post("/pages/hook", headers=bearer(tenant="globex")).json() == {"tenant": "globex"}
    page = client.get("/admin/tenant/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    assert client.post("/pages/hook", headers={"x-csrftoken": token[1]}).json() == {"tenant": "acme"}


def test_sessions_are_read_on_an_event_loop_too() -> None:
    async def main() -> None:
        client = AsyncClient()
        await client.alogin(username="one", password="one")
        assert (await client.get("/pages/mine")).json() == {"tenant": "acme", "titles": ["acme's"]}
        assert (await client.post("/pages/hook")).json() == {"tenant": "acme"}
        strict = AsyncClient(enforce_csrf_checks=True)
        await strict.alogin(username="one", password="one")
        assert (await strict.post("/pages/hook")).status_code == 403

    asyncio.run(main())


def test_async_functions_may_say_which_tenants_there_are() -> None:
    async def ask(user: Any) -> list[str]:
        return MEMBERS[user.get_username()]

    setting = settings_with(SESSIONS={**SESSIONS, "TENANTS": ask})
    for serve in (serve_asgi, serve_wsgi):
        with override_settings(TENANTGUARD=setting), serve() as url:
            client = logged_in("one")
            cookie = {"cookie": f"sessionid={client.cookies['sessionid'].value}"}
            assert httpx2.get(f"{url}/pages/mine", headers=cookie).json()["tenant"] == "acme"


def test_async_functions_may_say_which_scopes_there_are() -> None:
    async def ask(user: Any, tenant: str) -> list[str]:
        return scopes_of(user, tenant)

    setting = settings_with(SESSIONS={**SESSIONS, "SCOPES": ask})
    for serve in (serve_asgi, serve_wsgi):
        with override_settings(TENANTGUARD=setting), serve() as url:
            for tenant, status in (("acme", 200), ("globex", 403)):
                client = logged_in("both", tenant)
                cookie = {"cookie": f"sessionid={client.cookies['sessionid'].value}"}
                assert httpx2.get(f"{url}/pages/scoped", headers=cookie).status_code == status


def test_suspended_unknown_and_revoked_tenants_are_no_choice() -> None:
    known = StaticTenants([Tenant("acme", status=TenantStatus.SUSPENDED)])
    with override_settings(TENANTGUARD=settings_with(GUARD=make_guard(directory=known), SESSIONS=SESSIONS)):
        assert logged_in("one").get("/pages/who").json()["tenant"] is None
    assert LOGIN


# --- the admin -----------------------------------------------------------------------------------------------


def test_staff_without_a_tenant_are_sent_to_choose_one() -> None:
    client = logged_in("both")
    sent = client.get("/admin/web/document/")
    assert sent.status_code == 302
    assert sent.url == "/admin/tenant/?next=%2Fadmin%2Fweb%2Fdocument%2F"
    page = client.get(sent.url).content.decode()
    assert re.findall(r'type="radio" name="tenant" value="(\w+)"', page) == ["acme", "globex"]
    chosen = client.post("/admin/tenant/", {"tenant": "acme", "next": "/admin/web/document/"})
    assert chosen.url == "/admin/web/document/"
    elsewhere = client.post("/admin/tenant/", {"tenant": "acme", "next": "https://evil.example.com/"})
    assert elsewhere.url == "/admin/"


def test_who_may_work_nowhere_sees_nothing() -> None:
    client = logged_in("none")
    assert client.get("/admin/").status_code == 302
    assert "no tenant that you may work in" in client.get("/admin/tenant/").content.decode()
    assert Client().get("/admin/").url.startswith("/admin/login/")
    assert Client().get("/admin/login/").status_code == 200


@pytest.mark.parametrize("name", ["both", "none"])
def test_who_has_no_tenant_yet_may_log_out_and_change_the_password(name: str) -> None:
    client = logged_in(name)
    page = client.get("/admin/tenant/").content.decode()
    assert 'action="/admin/logout/"' in page
    changed = client.post("/admin/password_change/", {"old_password": name, **dict.fromkeys(NEW, "a-fresh-Secret-9")})
    assert changed.url == "/admin/password_change/done/"
    assert client.get(changed.url).status_code == 200
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    assert strict.post("/admin/logout/").status_code == 403
    assert client.post("/admin/logout/").status_code == 200
    assert client.get("/admin/").url.startswith("/admin/login/")


def test_the_changelist_its_filters_and_its_search_show_one_tenant(rows: dict[str, int]) -> None:
    client = logged_in("both", "acme")
    page = client.get("/admin/web/document/").content.decode()
    assert "acme&#x27;s" in page
    assert "globex" not in page
    assert "0 documents" in client.get("/admin/web/document/", {"q": "globex"}).content.decode()
    filtered = client.get("/admin/web/document/", {"folder__id__exact": rows["globex-folder"]}).content.decode()
    assert "0 documents" in filtered
    assert "acme" in client.get("/admin/").content.decode()


def test_another_tenants_object_can_be_neither_seen_nor_changed_nor_deleted(rows: dict[str, int]) -> None:
    client = logged_in("both", "acme")
    for page in ("change", "delete", "history"):
        assert client.get(f"/admin/web/document/{rows['globex']}/{page}/").status_code == 302
    assert client.post(f"/admin/web/document/{rows['globex']}/delete/", {"post": "yes"}).status_code == 302
    client.post(
        "/admin/web/document/",
        {"action": "delete_selected", "_selected_action": [rows["globex"], rows["acme"]], "post": "yes"},
    )
    with system("what is left"):
        assert [document.title for document in Document.objects.all()] == ["globex's"]


def test_autocompletes_and_choices_are_of_one_tenant(rows: dict[str, int]) -> None:
    client = logged_in("both", "globex")
    query = {"app_label": "web", "model_name": "document", "field_name": "folder", "term": ""}
    found = client.get("/admin/autocomplete/", query).json()["results"]
    assert [one["text"] for one in found] == ["globex's"]


def test_an_object_with_inlines_is_added_in_the_tenant_and_a_foreign_choice_is_refused(rows: dict[str, int]) -> None:
    client = logged_in("both", "acme")
    form = {
        "title": "Plan",
        "folder": rows["acme-folder"],
        "comment_set-TOTAL_FORMS": 1,
        "comment_set-INITIAL_FORMS": 0,
        "comment_set-0-text": "good",
    }
    refused = client.post("/admin/web/document/add/", {**form, "folder": rows["globex-folder"]})
    assert refused.status_code == 200
    assert "Select a valid choice" in refused.content.decode()
    assert client.post("/admin/web/document/add/", form).status_code == 302
    with system("what was made"):
        made = Document.objects.get(title="Plan")
        assert (made.tenant_id, made.folder_id) == ("acme", rows["acme-folder"])
        assert Comment.objects.get().document_id == made.pk


def test_history_and_recent_actions_are_of_one_tenant(rows: dict[str, int]) -> None:
    client = logged_in("both", "acme")
    change = f"/admin/web/folder/{rows['acme-folder']}"
    assert client.post(f"{change}/change/", {"name": "Secret of acme"}).status_code == 302
    assert client.post("/admin/web/folder/add/", {"name": "Second of acme"}).status_code == 302
    assert "Changed Name" in client.get(f"{change}/history/").content.decode()
    assert "Secret of acme" in client.get("/admin/").content.decode()
    client.post("/admin/tenant/", {"tenant": "globex"})
    assert "of acme" not in client.get("/admin/").content.decode()


def test_an_objects_history_holds_no_entry_of_another_tenants_object_of_the_same_key(rows: dict[str, int]) -> None:
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.contenttypes.models import ContentType

    client = logged_in("both", "acme")
    user = get_user_model().objects.get(username="both")
    content_type = ContentType.objects.get_for_model(Folder)
    LogEntry.objects.create(
        user=user,
        content_type=content_type,
        object_id=str(rows["acme-folder"]),
        object_repr="x",
        action_flag=CHANGE,
        change_message="what globex wrote",
    )
    assert "what globex wrote" not in client.get(f"/admin/web/folder/{rows['acme-folder']}/history/").content.decode()


def test_deletions_are_logged_in_the_tenant(rows: dict[str, int]) -> None:
    client = logged_in("both", "acme")
    client.post(f"/admin/web/folder/{rows['acme-folder']}/delete/", {"post": "yes"})
    assert "acme&#x27;s" in client.get("/admin/").content.decode()
    client.post("/admin/tenant/", {"tenant": "globex"})
    assert "acme&#x27;s" not in client.get("/admin/").content.decode()


def test_a_form_that_was_opened_in_another_tenant_is_not_saved(rows: dict[str, int]) -> None:
    client = logged_in("both", "acme")
    page = client.get("/admin/web/folder/add/").content.decode()
    assert '<input type="hidden" name="_tenantguard_tenant" value="acme">' in page
    client.post("/admin/tenant/", {"tenant": "globex"})
    late = client.post("/admin/web/folder/add/", {"name": "Meant for acme", "_tenantguard_tenant": "acme"}, follow=True)
    assert "Nothing was saved" in late.content.decode()
    with system("what was made"):
        assert not Folder.objects.filter(name="Meant for acme").exists()


def test_shared_models_are_changed_by_superusers_alone() -> None:
    assert logged_in("root", "acme").get("/admin/web/language/add/").status_code == 200
    user = get_user_model().objects.get(username="one")
    from django.contrib.auth.models import Permission

    user.user_permissions.set(Permission.objects.filter(content_type__app_label="web"))
    client = logged_in("one")
    assert client.get("/admin/web/language/").status_code == 200
    assert client.get("/admin/web/language/add/").status_code == 403
    assert client.get("/admin/web/folder/add/").status_code == 200
    assert client.get("/admin/auth/user/").status_code == 403
