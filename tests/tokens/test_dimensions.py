"""A token may narrow its right inside the tenant; nothing that looks like "none" ever means "all"."""

import dataclasses
from typing import Any

import pytest

from tenantguard import service_identity
from tenantguard.errors import InvalidTenantId, InvalidToken
from tenantguard.tokens import oidc

NOW = {"iss": "https://issuer.example", "sub": "u", "aud": "api", "iat": 1, "exp": 2, "tenant_id": "acme"}
PROFILE = dataclasses.replace(oidc(), dimensions={"workspace": "ws", "project": ("scope_of", "project")})


def test_claims_narrow_the_identity() -> None:
    identity = PROFILE({**NOW, "ws": "w1", "scope_of": {"project": "p1"}}).identity
    assert identity.dimensions == (("workspace", "w1"), ("project", "p1"))
    assert identity.narrowed_to("project") == "p1"
    assert identity.narrowed_to("team") is None


def test_a_token_without_the_claims_is_as_wide_as_its_tenant() -> None:
    assert PROFILE(NOW).identity.dimensions == ()
    assert PROFILE({**NOW, "ws": "w1"}).identity.dimensions == (("workspace", "w1"),)
    assert PROFILE({**NOW, "scope_of": {}}).identity.dimensions == ()


@pytest.mark.parametrize(
    "claims",
    [
        *({"ws": value} for value in (None, "", 0, False, [], ["w1"], ["w1", "w2"], {}, " ", "*", "w\n1", "x" * 129)),
        *({"scope_of": value} for value in (None, "", 0, [], "p1")),
        {"scope_of": {"project": None}},
        {"scope_of": {"project": ""}},
    ],
    ids=str,
)
def test_a_claim_that_names_not_exactly_one_value_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken, match="not one usable id"):
        PROFILE({**NOW, **claims})


@pytest.mark.parametrize("tenant", [None, 0, "", [], set(), False, (), {}, b"a", " ", "*"], ids=repr)
def test_no_empty_value_is_a_tenant(tenant: Any) -> None:
    with pytest.raises(InvalidTenantId):
        service_identity("x", tenant=tenant)
