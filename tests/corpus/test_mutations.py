"""Good tokens, mutated in any way, over HTTP: never accepted as somebody else's, never an error of the app."""

from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tenantguard import Issuer, TenantGuard, TenantGuardMiddleware
from tenantguard.tokens import StaticKeys
from tests.support.lab import AUDIENCE, ISSUER, Lab
from tests.support.server import serve

LAB = Lab()
KEYS = [LAB.rsa, LAB.ec, LAB.ed]
TOKENS = [key.token(LAB.claims()) for key in KEYS]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    issuer = Issuer(ISSUER, audience=AUDIENCE, algorithms=["RS256", "ES256", "EdDSA"], jwks=StaticKeys(LAB.jwks(*KEYS)))

    async def whoami(request: Request) -> PlainTextResponse:
        return PlainTextResponse("in")

    app = Starlette(routes=[Route("/", whoami)])
    app.add_middleware(TenantGuardMiddleware, guard=TenantGuard(issuers=[issuer]))
    with serve(app) as url, httpx2.Client(base_url=url) as http:
        for token in TOKENS:
            assert http.get("/", headers={"authorization": f"Bearer {token}"}).text == "in"
        yield http


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, str]:
    token = draw(st.sampled_from(TOKENS))
    changed = token
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        match draw(st.sampled_from(["replace", "insert", "delete", "swap", "repeat"])):
            case "replace":
                changed = changed[:at] + draw(st.sampled_from(ALPHABET)) + changed[at + 1 :]
            case "insert":
                changed = changed[:at] + draw(st.text(ALPHABET, max_size=5)) + changed[at:]
            case "delete":
                changed = changed[:at] + changed[at + draw(st.integers(1, 40)) :]
            case "swap":
                parts = changed.split(".")
                changed = ".".join(draw(st.permutations(parts)))
            case "repeat":
                changed = changed[:at] + changed[at - 10 : at] + changed[at:]
    return token, changed


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_a_mutated_token_is_refused(client: httpx2.Client, pair: tuple[str, str]) -> None:
    token, changed = pair
    answer = client.get("/", headers={"authorization": f"Bearer {changed}"})
    if changed == token:
        assert answer.status_code == 200
    else:
        assert answer.status_code in (400, 401)
        assert answer.headers["content-type"] == "application/problem+json"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
    st.sampled_from(["Bearer ", "bearer ", "", "DPoP "]),
)
def test_any_text_is_refused(client: httpx2.Client, text: str, scheme: str) -> None:
    answer = client.get("/", headers={"authorization": scheme + text})
    assert answer.status_code in (400, 401)
