"""Where a request may say its tenant: patterns, what counts as saying, aliases, and agreement of several places."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantguard import TenantFromHeader, TenantFromHost, TenantFromPath
from tenantguard.errors import ConfigurationError, InvalidRequest, InvalidTenantId, TenantRefused, UnknownTenant
from tenantguard.tenancy import TenantResolver, tenant_said


def said(resolver: TenantResolver, path: str = "/", root: str = "", **headers: str | list[str]) -> str | None:
    pairs = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            pairs.append((name.replace("_", "-").encode(), value.encode()))
    return anyio.run(resolver.resolve, {"headers": pairs, "path": path, "root_path": root})


@pytest.mark.parametrize(
    ("host", "tenant"),
    [
        ("acme.example.com", "acme"),
        ("acme.example.com:8443", "acme"),
        ("ACME.Example.com", "acme"),
        ("acme.example.com.", "acme"),
        ("example.com", None),
        ("www.acme.example.com", None),
        ("acme.example.com.evil.net", None),
        ("acme.exampleXcom", None),
        ("-acme.example.com", None),
        ("acme.example.com:80:80", None),
        (".example.com", None),
        ("a/b.example.com", None),
    ],
)
def test_the_first_label_of_a_host_that_fits_names_the_tenant(host: str, tenant: str | None) -> None:
    assert said(TenantFromHost("{tenant}.example.com"), host=host) == tenant


def test_several_hosts_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        said(TenantFromHost("{tenant}.example.com"), host=["a.example.com", "b.example.com"])


@pytest.mark.parametrize(
    ("path", "root", "tenant"),
    [
        ("/t/acme/documents", "", "acme"),
        ("/t/acme", "", "acme"),
        ("/t/acme/", "", "acme"),
        ("/t/", "", None),
        ("/t//documents", "", None),
        ("/T/acme", "", None),
        ("/x/t/acme", "", None),
        ("/api/t/acme/x", "/api", "acme"),
        ("/apit/t/acme/x", "/api", None),
    ],
)
def test_the_segment_of_a_path_names_the_tenant(path: str, root: str, tenant: str | None) -> None:
    assert said(TenantFromPath("/t/{tenant}/*"), path, root) == tenant


def test_aliases_stand_for_ids_and_unknown_ones_are_refused() -> None:
    async def look_up(label: str) -> str | None:
        return {"acme": "org_1"}.get(label)

    for aliases in ({"acme": "org_1"}, look_up):
        resolver = TenantFromHost("{tenant}.example.com", aliases=aliases)
        assert said(resolver, host="acme.example.com") == "org_1"
        with pytest.raises(UnknownTenant) as refused:
            said(resolver, host="globex.example.com")
        assert "globex" not in str(refused.value)


def test_a_header_that_comes_twice_or_is_no_text_is_refused() -> None:
    resolver = TenantFromHeader("X-Org")
    assert said(resolver, x_org="acme") == "acme"
    with pytest.raises(InvalidRequest):
        said(resolver, x_org=["acme", "acme"])
    with pytest.raises(TenantRefused):
        anyio.run(resolver.resolve, {"headers": [(b"x-org", b"\xff")]})


def test_all_places_must_agree() -> None:
    places = (TenantFromHeader(), TenantFromHost("{tenant}.example.com"), TenantFromPath("/t/{tenant}/*"))
    scope = {"headers": [(b"x-tenant-id", b"acme"), (b"host", b"acme.example.com")], "path": "/t/acme/x"}
    assert anyio.run(tenant_said, places, scope) == "acme"
    with pytest.raises(TenantRefused, match="two tenants"):
        anyio.run(tenant_said, places, {**scope, "path": "/t/globex/x"})
    assert anyio.run(tenant_said, places, {"headers": [], "path": "/"}) is None


@pytest.mark.parametrize("value", ["", " ", "a b", "\uff41cme", "a" * 129, "acme\x00", "../acme"])
def test_what_is_said_must_be_a_usable_id(value: str) -> None:
    scope = {"headers": [(b"x-tenant-id", value.encode())], "path": "/"}
    with pytest.raises(InvalidTenantId):
        anyio.run(tenant_said, (TenantFromHeader(),), scope)


@given(st.text(max_size=40), st.text(max_size=40))
def test_hosts_and_paths_of_any_text_name_nobody_or_a_plain_label(host: str, path: str) -> None:
    scope = {"headers": [(b"host", host.encode("utf-8", "replace"))], "path": "/t/" + path}
    label = anyio.run(TenantFromHost("{tenant}.example.com").resolve, scope)
    assert label is None or (label.isascii() and host.lower().startswith(label + ".example.com"))
    segment = anyio.run(TenantFromPath("/t/{tenant}").resolve, scope)
    assert segment is None or (path.startswith(segment) and "/" not in segment)


@pytest.mark.parametrize(
    "pattern", ["", "example.com", "{tenant}", "{tenant}.", "x-{tenant}.example.com", "{tenant}.Example.com", None]
)
def test_a_host_pattern_must_have_the_one_form(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\{tenant\}\.example\.com"):
        TenantFromHost(pattern)


@pytest.mark.parametrize("pattern", ["", "/t", "t/{tenant}", "/t/{tenant}x", "/t/{tenant}/x", "/{x}/{tenant}", None])
def test_a_path_pattern_must_have_the_one_form(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"/t/\{tenant\}"):
        TenantFromPath(pattern)


@pytest.mark.parametrize("name", ["", "x y", "Authorization", "x:y", None])
def test_a_header_must_be_able_to_exist(name: str) -> None:
    with pytest.raises(ConfigurationError):
        TenantFromHeader(name)
