"""Security events over HTTP: what is taken, what is refused and how, and whose tokens end."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantguard import Issuer, RevocationKind, Revocations, SecurityEventReceiver
from tenantguard.errors import ConfigurationError
from tenantguard.tokens import StaticKeys
from tests.support.server import serve

TRANSMITTER = "https://idp.example.com"
PARTNER = "https://events.example.com"
LOGIN = "https://login.example.com"
AUDIENCE = "https://api.example.com/events"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
ACCOUNT_DISABLED = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
HEADERS = {"content-type": "application/secevent+jwt", "accept": "application/json"}


@pytest.fixture(scope="module")
def revocations() -> Revocations:
    return Revocations()


@pytest.fixture(scope="module")
def url(lab: Any, revocations: Revocations) -> Iterator[str]:
    keys = StaticKeys(lab.jwks(lab.ed))
    transmitters = [
        Issuer(name, audience=AUDIENCE, jwks=keys, token_types=["secevent+jwt"]) for name in (TRANSMITTER, PARTNER)
    ]
    receiver = SecurityEventReceiver(
        transmitters, revocations=revocations, speaks_for={PARTNER: [LOGIN]}, authorization="Bearer agreed-on"
    )
    with serve(receiver) as served:
        yield served


@pytest.fixture(autouse=True)
def nothing_revoked(revocations: Revocations) -> None:
    revocations._entries.clear()


def event(sub_id: Any = None, *, name: str = SESSION_REVOKED, **changes: Any) -> dict[str, Any]:
    claims = {
        "iss": TRANSMITTER,
        "aud": AUDIENCE,
        "iat": int(time.time()),
        "jti": "event-1",
        "sub_id": sub_id or {"format": "iss_sub", "iss": TRANSMITTER, "sub": "alice"},
        "events": {name: {"event_timestamp": int(time.time())}},
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def post(url: str, token: str | bytes, **headers: str) -> httpx2.Response:
    agreed = {"authorization": "Bearer agreed-on"}
    return httpx2.post(
        url, content=token, headers={**HEADERS, **agreed, **{k.replace("_", "-"): v for k, v in headers.items()}}
    )


def push(url: str, lab: Any, claims: dict[str, Any], typ: str | None = "secevent+jwt") -> httpx2.Response:
    return post(url, lab.ed.token(claims, typ=typ))


def revoked(revocations: Revocations) -> set[tuple[str, str | None, str]]:
    return {(str(kind), issuer, name) for kind, issuer, name in revocations._entries}


@pytest.mark.parametrize(
    ("sub_id", "expected"),
    [
        ({"format": "iss_sub", "iss": TRANSMITTER, "sub": "alice"}, {("subject", TRANSMITTER, "alice")}),
        ({"format": "opaque", "id": "s-1"}, {("session", TRANSMITTER, "s-1"), ("subject", TRANSMITTER, "s-1")}),
        (
            {
                "format": "complex",
                "session": {"format": "opaque", "id": "s-2"},
                "user": {"format": "iss_sub", "iss": TRANSMITTER, "sub": "alice"},
                "tenant": {"format": "opaque", "id": "acme"},
            },
            {("session", TRANSMITTER, "s-2")},
        ),
        ({"format": "complex", "user": {"format": "opaque", "id": "bob"}}, {("subject", TRANSMITTER, "bob")}),
        ({"format": "complex", "tenant": {"format": "opaque", "id": "acme"}}, {("tenant", TRANSMITTER, "acme")}),
        (
            {
                "format": "aliases",
                "identifiers": [
                    {"format": "email", "email": "a@example.com"},
                    {"format": "iss_sub", "iss": TRANSMITTER, "sub": "alice"},
                ],
            },
            {("subject", TRANSMITTER, "alice")},
        ),
    ],
    ids=["iss_sub", "opaque", "session", "user", "tenant", "aliases"],
)
def test_a_session_revoked_event_revokes_what_its_subject_names(
    url: str, lab: Any, revocations: Revocations, sub_id: dict[str, Any], expected: set[tuple[str, str, str]]
) -> None:
    answer = push(url, lab, event(sub_id))
    assert (answer.status_code, answer.content) == (202, b"")
    assert revoked(revocations) == expected


def test_the_time_of_the_event_decides_in_seconds_or_milliseconds(url: str, lab: Any, revocations: Revocations) -> None:
    then = int(time.time()) - 100
    for at in (then, then * 1000):
        revocations._entries.clear()
        push(url, lab, event(events={SESSION_REVOKED: {"event_timestamp": at}}))
        assert revocations._entries[RevocationKind.SUBJECT, TRANSMITTER, "alice"][0] == then


def test_other_ways_to_write_it_are_understood(url: str, lab: Any, revocations: Revocations) -> None:
    older = {"subject": {"format": "iss_sub", "iss": TRANSMITTER, "sub": "carol"}}
    claims = event(events={SESSION_REVOKED: older})
    del claims["sub_id"]
    assert push(url, lab, claims).status_code == 202
    assert push(url, lab, event(name=ACCOUNT_DISABLED)).status_code == 202
    assert revoked(revocations) == {("subject", TRANSMITTER, "carol"), ("subject", TRANSMITTER, "alice")}


def test_events_that_ask_for_nothing_are_acknowledged(url: str, lab: Any, revocations: Revocations) -> None:
    claims = event({"format": "opaque", "id": "stream-1"}, events={VERIFICATION: {"state": "x"}})
    assert push(url, lab, claims).status_code == 202
    assert push(url, lab, event(events={"https://example.com/other": {}})).status_code == 202
    assert revoked(revocations) == set()


def test_a_transmitter_speaks_for_its_own_subjects_alone(url: str, lab: Any, revocations: Revocations) -> None:
    foreign = push(url, lab, event({"format": "iss_sub", "iss": LOGIN, "sub": "victim"}))
    assert (foreign.status_code, foreign.json()["err"]) == (400, "invalid_request")
    assert revoked(revocations) == set()
    declared = push(url, lab, event({"format": "iss_sub", "iss": LOGIN, "sub": "alice"}, iss=PARTNER))
    assert declared.status_code == 202
    assert push(url, lab, event({"format": "opaque", "id": "s"}, iss=PARTNER)).status_code == 202
    assert {issuer for _, issuer, _ in revoked(revocations)} == {LOGIN}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "https://elsewhere.example.com"}, "invalid_audience"),
        ({"aud": None}, "invalid_audience"),
        ({"iss": "https://stranger.example.com"}, "invalid_issuer"),
        ({"iat": None}, "invalid_request"),
        ({"iat": int(time.time()) + 3600}, "invalid_request"),
        ({"exp": int(time.time()) - 3600}, "invalid_request"),
        ({"jti": None}, "invalid_request"),
        ({"events": None}, "invalid_request"),
        ({"events": {}}, "invalid_request"),
        ({"events": {SESSION_REVOKED: 1}}, "invalid_request"),
        ({"sub_id": {"format": "email", "email": "alice@example.com"}}, "invalid_request"),
        ({"sub_id": {"format": "iss_sub", "iss": TRANSMITTER}}, "invalid_request"),
        ({"sub_id": {"format": "complex", "device": {"format": "opaque", "id": "d"}}}, "invalid_request"),
        ({"sub_id": {"format": "complex", "session": "s"}}, "invalid_request"),
        ({"sub_id": {"format": "aliases", "identifiers": []}}, "invalid_request"),
        ({"sub_id": "alice"}, "invalid_request"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_rfc_8935(
    url: str, lab: Any, revocations: Revocations, changes: dict[str, Any], code: str
) -> None:
    refused = push(url, lab, {k: v for k, v in {**event(), **changes}.items() if v is not None})
    assert (refused.status_code, refused.json()["err"]) == (400, code)
    assert refused.headers["content-language"] == "en"
    assert "alice" not in refused.text
    assert revoked(revocations) == set()


def test_an_event_that_is_half_usable_is_refused_whole(url: str, lab: Any, revocations: Revocations) -> None:
    claims = event(events={SESSION_REVOKED: {}, ACCOUNT_DISABLED: {"subject": {"format": "email", "email": "x"}}})
    del claims["sub_id"]
    assert push(url, lab, claims).status_code == 400
    assert revoked(revocations) == set()


@pytest.mark.parametrize("typ", ["at+jwt", "JWT", None, "secevent"])
def test_other_tokens_are_no_events(url: str, lab: Any, typ: str | None) -> None:
    assert push(url, lab, event(), typ).status_code == 400


def test_a_forged_event_revokes_nothing(url: str, lab: Any, revocations: Revocations) -> None:
    for key in (lab.new_key(), lab.rsa):
        key.kid = lab.ed.kid if key is not lab.rsa else key.kid
        refused = post(url, key.token(event(), typ="secevent+jwt"))
        assert (refused.status_code, refused.json()["err"]) == (400, "invalid_key")
    assert revoked(revocations) == set()


def test_the_delivery_must_be_as_agreed(url: str, lab: Any, revocations: Revocations) -> None:
    token = lab.ed.token(event(), typ="secevent+jwt")
    assert post(url, token, authorization="Bearer other").status_code == 401
    assert httpx2.post(url, content=token, headers=HEADERS).json()["err"] == "authentication_failed"
    assert post(url, token, content_type="application/json").status_code == 400
    assert httpx2.get(url).status_code == 405
    assert post(url, b"x" * 100_000).status_code == 400
    assert post(url, b"\xff\xfe").status_code == 400
    assert revoked(revocations) == set()
    assert post(url, token, content_type="application/secevent+jwt; charset=utf-8").status_code == 202


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=8)
        | st.sampled_from(["complex", "opaque", "iss_sub"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["format", "id", "iss", "sub", "user", "session", "identifiers"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_subject_is_taken_or_refused_and_never_an_error(url: str, lab: Any, sub_id: Any) -> None:
    assert push(url, lab, event() | {"sub_id": json.loads(json.dumps(sub_id))}).status_code in (202, 400)


def test_transmitters_are_declared_for_events_alone(lab: Any) -> None:
    wrong = Issuer(TRANSMITTER, audience=AUDIENCE, jwks=StaticKeys(lab.jwks(lab.ed)))
    for transmitters in ([], [wrong]):
        with pytest.raises(ConfigurationError, match="secevent"):
            SecurityEventReceiver(transmitters, revocations=Revocations())
    good = Issuer(TRANSMITTER, audience=AUDIENCE, jwks=StaticKeys(lab.jwks(lab.ed)), token_types=["secevent+jwt"])
    with pytest.raises(ConfigurationError, match="speaks_for"):
        SecurityEventReceiver([good], revocations=Revocations(), speaks_for={"https://other": [LOGIN]})
