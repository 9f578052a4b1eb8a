"""``request.user`` is the token's subject: nobody of the database, or a user that is found or made."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.template import RequestContext, Template
from django.test import RequestFactory, override_settings
from django.urls import path
from rest_framework.throttling import UserRateThrottle
from tenantguard_django.test import TenantClient, identity_of
from tenantguard_django.users import IdentityUser

from tenantguard import Identity, system
from tests.django.login import LOGIN, bearer, make_guard, settings_with
from tests.django.web.servers import serve_asgi, serve_wsgi

SERVERS = {"asgi": serve_asgi, "wsgi": serve_wsgi}


@pytest.fixture(autouse=True)
def no_users(database: str) -> Iterator[None]:
    forget_users()
    yield
    forget_users()


def forget_users() -> None:
    with system("the users of the tests"):
        get_user_model().objects.all().delete()


@pytest.fixture(params=SERVERS)
def ask(request: pytest.FixtureRequest) -> Any:
    """Return who the user is, by the sync and by the async way."""

    def run(users: dict[str, Any] | None, **token: Any) -> str:
        with (
            override_settings(TENANTGUARD=settings_with(GUARD=make_guard(), USERS=users)),
            SERVERS[request.param]() as url,
        ):
            one, other = (
                httpx2.get(url + path, headers=bearer(**token)).json()["user"] for path in ("/whoami", "/awhoami")
            )
        assert one == other
        return str(one)

    return run


def names() -> list[str]:
    return sorted(get_user_model().objects.values_list("username", flat=True))


def test_without_the_setting_the_subject_is_nobody_of_the_database(ask: Any) -> None:
    assert ask(None) == "alice"
    assert names() == []


def test_a_subject_is_found_among_the_users_and_not_made_unless_the_setting_says_so(ask: Any) -> None:
    assert ask({}) == ""
    get_user_model().objects.create_user("alice")
    assert ask({}) == "alice"
    assert ask({}, subject="bob") == ""
    assert names() == ["alice"]


def test_a_subject_is_made_a_user_who_can_not_log_in_by_password(ask: Any) -> None:
    assert ask({"CREATE": True}, subject="carol") == "carol"
    assert names() == ["carol"]
    made = get_user_model().objects.get(username="carol")
    assert (made.has_usable_password(), made.is_staff, made.is_active) == (False, False, True)


def test_staff_superusers_and_inactive_users_are_not_stood_for(ask: Any) -> None:
    users = get_user_model().objects
    users.create_superuser("root")
    users.create_user("staff", is_staff=True)
    users.create_user("gone", is_active=False)
    for name in ("root", "staff", "gone"):
        assert ask({"CREATE": True}, subject=name) == ""
    assert ask({"STAFF": True}, subject="staff") == "staff"
    assert ask({"STAFF": True}, subject="gone") == ""


def test_it_is_the_subject_of_an_agent_and_services_have_no_account(ask: Any) -> None:
    act = {"sub": "copilot", "actor_type": "agent"}
    assert ask({"CREATE": True}, act=act) == "alice"
    assert ask({"CREATE": True}, subject="sync", actor_type="service") == ""
    assert names() == ["alice"]


def test_the_project_may_name_users_itself(ask: Any) -> None:
    def username(identity: Identity) -> str | None:
        return None if identity.subject.id == "eve" else f"{identity.tenant.id}/{identity.subject.id}"  # type: ignore[union-attr]

    settings = {"CREATE": True, "USERNAME": username}
    assert ask(settings) == "acme/alice"
    assert ask(settings, tenant="globex") == "globex/alice"
    assert ask(settings, subject="eve") == ""


def test_names_that_can_be_no_users_make_none(ask: Any) -> None:
    assert ask({"CREATE": True}, subject="x" * 151) == ""
    assert names() == []


def test_an_identity_user_has_no_rights_and_can_not_be_saved() -> None:
    user = IdentityUser(identity_of("alice", tenant="acme", issuer=LOGIN.url))
    assert (user.is_authenticated, user.is_staff, user.pk) == (True, False, f"{LOGIN.url}|acme|alice")
    assert not user.has_perm("web.add_document")
    assert not user.has_perms(["web.add_document"])
    assert not user.has_module_perms("web")
    assert user == IdentityUser(identity_of("alice", tenant="acme", issuer=LOGIN.url))
    others = [identity_of("alice", tenant=tenant, issuer=LOGIN.url) for tenant in ("globex", "acme|x", None)]
    others.append(identity_of("x|alice", tenant="acme", issuer=LOGIN.url))  # as above, without a look at where it ends
    assert len({user, *map(IdentityUser, others)}) == len({IdentityUser(one).pk for one in others}) + 1 == 5
    assert user != IdentityUser(identity_of("alice", tenant="acme", issuer="https://other.example"))
    assert user.get_all_permissions() == user.get_group_permissions() == set()
    assert not user.groups.exists()
    assert not user.user_permissions.exists()
    with pytest.raises(NotImplementedError, match="USERS"):
        user.save()


def test_an_identity_user_is_asked_by_djangos_own_decorators_and_templates() -> None:
    @permission_required("web.add_document", raise_exception=True)
    def view(request: Any) -> HttpResponse:
        return HttpResponse("in")

    @permission_required("web.add_document", raise_exception=True)
    async def aview(request: Any) -> HttpResponse:
        return HttpResponse("in")

    def page(request: Any) -> HttpResponse:
        text = "{{ user }}: {{ perms.web.add_document }}, {{ perms.web }}, {{ user.get_full_name }}."
        return HttpResponse(Template(text).render(RequestContext(request)))

    class Urls:
        urlpatterns = (path("view", view), path("aview", aview), path("page", page))

    with override_settings(ROOT_URLCONF=Urls, TENANTGUARD=settings_with(GUARD=make_guard())):
        for serve in SERVERS.values():
            with serve() as url:
                assert [httpx2.get(url + one, headers=bearer()).status_code for one in ("/view", "/aview")] == [403] * 2
                assert httpx2.get(f"{url}/page", headers=bearer()).text == "alice: False, set(), alice."


def test_throttles_tell_identity_users_apart() -> None:
    throttle = UserRateThrottle.__new__(UserRateThrottle)
    keys = set()
    for subject, issuer in (("alice", LOGIN.url), ("bob", LOGIN.url), ("alice", "https://other.example")):
        request = RequestFactory().get("/")
        request.user = IdentityUser(identity_of(subject, tenant="acme", issuer=issuer))
        keys.add(throttle.get_cache_key(request, None))
    assert len(keys) == 3


def test_users_are_asked_for_only_when_somebody_asks(database: str) -> None:
    from django.db import connections
    from django.test.utils import CaptureQueriesContext

    with (
        override_settings(TENANTGUARD=settings_with(USERS={"CREATE": True})),
        CaptureQueriesContext(connections[database]) as asked,
    ):
        assert TenantClient(tenant="acme", issuer=LOGIN.url).get("/slow").status_code == 200
        assert len(asked) == 0
    assert names() == []
