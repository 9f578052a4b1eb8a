"""Opaque tokens: what the endpoint says, what it must not be believed, and what is asked again.

The endpoint here answers what each test sets; a certified provider's own endpoint is asked in ``tests/e2e``.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tenantguard import ActorType, Introspection, TokenVerifier
from tenantguard.errors import ConfigurationError, ExpiredToken, InvalidToken, IssuerUnavailable, RevokedToken
from tenantguard.identity import Identity, service_identity
from tenantguard.tokens import RevocationKind, Revocations
from tests.support.capture import ScriptedEndpoint
from tests.support.server import serve
from tests.support.waiting import Hanging

pytestmark = pytest.mark.anyio

ISSUER = "https://login.example.com"
AUDIENCE = "https://api.example.com"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[ScriptedEndpoint, str]]:
    scripted = ScriptedEndpoint()
    with serve(scripted) as url:
        yield scripted, f"{url}/introspect"


def active(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    answer = {
        "active": True,
        "iss": ISSUER,
        "sub": "alice",
        "aud": AUDIENCE,
        "client_id": "web",
        "scope": "documents:read",
        "tenant_id": "acme",
        "exp": now + 600,
        "iat": now,
        "jti": "token-1",
        "token_type": "Bearer",
    }
    return {name: value for name, value in (answer | changes).items() if value is not None}


@pytest.fixture
async def ask(endpoint: tuple[ScriptedEndpoint, str]) -> AsyncIterator[Callable[..., Introspection]]:
    scripted, url = endpoint
    scripted.forms.clear()
    scripted.answer = lambda _: active()
    made = []

    def make(**options: Any) -> Introspection:
        settings = {"issuer": ISSUER, "audience": AUDIENCE, "client_id": "api", "client_secret": "s3cret"}
        made.append(Introspection(url, **(settings | options)))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


async def test_an_active_token_becomes_the_same_identity_as_a_signed_one(ask: Callable[..., Introspection]) -> None:
    identity = await TokenVerifier(credentials=[ask()]).verify("opaque-1")
    assert identity.subject.id == "alice"
    assert identity.actor.type is ActorType.HUMAN
    assert identity.tenant is not None
    assert identity.tenant.id == "acme"
    assert identity.scopes == {"documents:read"}
    assert (identity.issuer, identity.token_id, identity.audience) == (ISSUER, "token-1", (AUDIENCE,))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_the_client_shows_who_it_is(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str], method: str
) -> None:
    await ask(client_authentication=method).verify("opaque-1")
    form = endpoint[0].forms[-1]
    assert (form["token"], form["token_type_hint"]) == ("opaque-1", "access_token")
    assert form.get("client_secret") == (None if method == "client_secret_basic" else "s3cret")


async def test_an_answer_is_reused_and_one_question_is_in_flight(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str]
) -> None:
    async def slow(_form: dict[str, str]) -> Response:
        await anyio.sleep(0.1)
        return JSONResponse(active())

    endpoint[0].answer = slow  # type: ignore[assignment]
    verifier = TokenVerifier(credentials=[ask()])
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(verifier.verify, "opaque-1")
    await verifier.verify("opaque-1")
    assert len(endpoint[0].forms) == 1
    assert verifier.cached("opaque-1") is not None
    uncached = TokenVerifier(credentials=[ask(max_age=0)])
    await uncached.verify("opaque-1")
    await uncached.verify("opaque-1")
    assert len(endpoint[0].forms) == 3


async def test_a_token_that_is_not_active_is_refused_and_not_asked_for_again_at_once(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str]
) -> None:
    endpoint[0].answer = lambda _: {"active": False}
    introspection = ask()
    for _ in range(3):
        with pytest.raises(InvalidToken, match="not active"):
            await introspection.verify("opaque-1")
    assert len(endpoint[0].forms) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example.com"},
        {"aud": "https://elsewhere.example.com"},
        {"aud": None},
        {"aud": []},
        {"aud": 7},
        {"exp": 1},
        {"exp": "later"},
        {"exp": True},
        {"nbf": 32503680000},
        {"iat": 32503680000},
        {"sub": None, "client_id": None},
        {"sub": 7},
        {"token_type": "refresh_token"},
        {"token_type": 7},
        {"typ": "Refresh"},
        {"typ": "ID"},
        {"token_use": "refresh_token"},
        {"token_type": "DPoP"},
        {"cnf": {"jwk": {}}},
        {"scope": 7},
        {"act": "agent"},
    ],
)
async def test_what_is_no_access_token_for_this_app_is_refused(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str], changes: dict[str, Any]
) -> None:
    endpoint[0].answer = lambda _: active(**changes)
    with pytest.raises(InvalidToken) as refused:
        await TokenVerifier(credentials=[ask()]).verify("opaque-token-1")
    assert "opaque-token-1" not in str(refused.value)
    assert isinstance(refused.value, ExpiredToken) == (repr(changes.get("exp")) == "1")


async def test_a_service_may_have_no_sub_and_a_token_no_times(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str]
) -> None:
    endpoint[0].answer = lambda _: active(sub=None, exp=None, iat=None)
    revocations = Revocations()
    verifier = TokenVerifier(credentials=[ask()], revocations=revocations)
    identity = await verifier.verify("opaque-1")
    assert (identity.subject.id, identity.actor.type) == ("web", ActorType.SERVICE)
    assert (identity.issued_at, identity.expires_at) == (None, None)
    revocations.revoke(RevocationKind.SUBJECT, "web", issuer=ISSUER)
    with pytest.raises(RevokedToken):  # nobody knows when it was issued
        await verifier.verify("opaque-1")


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("", 401),
        PlainTextResponse("", 302, headers={"location": "https://elsewhere.example.com"}),
        PlainTextResponse("", 500),
        PlainTextResponse("no json"),
        JSONResponse([True]),
        JSONResponse({}),
        JSONResponse({"active": "true"}),
        JSONResponse({"active": 1}),
        PlainTextResponse("[" * 100_000),
        PlainTextResponse(" " * 200_000),
    ],
    ids=range(10),
)
async def test_an_endpoint_that_does_not_answer_as_it_must_lets_nobody_in(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str], answer: Response
) -> None:
    endpoint[0].answer = lambda _: answer
    with pytest.raises(IssuerUnavailable) as refused:
        await ask().verify("opaque-token-1")
    assert "opaque-token-1" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


async def test_a_slow_endpoint_is_given_up(
    ask: Callable[..., Introspection], endpoint: tuple[ScriptedEndpoint, str]
) -> None:
    with Hanging() as endpoint[0].answer:
        began = time.monotonic()
        with pytest.raises(IssuerUnavailable):
            await ask(timeout=0.2).verify("opaque-1")
        assert time.monotonic() - began < 5


async def test_an_endpoint_that_is_down_lets_nobody_in() -> None:
    settings = {"issuer": ISSUER, "audience": AUDIENCE, "client_id": "api", "client_secret": "s3cret"}
    with pytest.raises(IssuerUnavailable):
        await Introspection("http://127.0.0.1:9/introspect", **settings).verify("opaque-1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": ""},
        {"audience": ""},
        {"client_id": ""},
        {"client_secret": ""},
        {"client_authentication": "none"},
        {"max_age": 4000},
        {"max_age": True},
        {"leeway": -1},
        {"timeout": 0},
        {"claims": None},
    ],
)
async def test_settings_are_checked_at_the_start(ask: Callable[..., Introspection], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ask(**options)
    with pytest.raises(ConfigurationError, match="https"):
        Introspection("http://login.example.com", issuer="a", audience="a", client_id="a", client_secret="a")


class Ticket:
    """A credential of an app's own, as small as it gets."""

    max_age = 10.0

    def accepts(self, token: str) -> bool:
        return token.startswith("ticket-")

    async def verify(self, token: str) -> Identity:
        if token != "ticket-good":
            raise InvalidToken("The ticket is not good.", reason="ticket")
        return service_identity("turnstile", tenant="acme", scopes={"gate:open"})


async def test_a_custom_credential_is_one_small_class(ask: Callable[..., Introspection]) -> None:
    verifier = TokenVerifier(credentials=[Ticket(), ask()])
    assert (await verifier.verify("ticket-good")).actor.id == "turnstile"
    assert verifier.cached("ticket-good") is not None
    assert (await verifier.verify("opaque-1")).actor.id == "alice"
    with pytest.raises(InvalidToken, match="ticket"):
        await verifier.verify("ticket-bad")
    with pytest.raises(InvalidToken):
        await verifier.verify("a.b.c")


@pytest.mark.parametrize("kind", [object(), "x", None])
async def test_what_can_not_verify_is_no_credential(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="CredentialVerifier"):
        TokenVerifier(credentials=[kind])
