"""Each credential of the corpus, over HTTP to a real app: its verdict, never an error, and nothing told to anybody."""

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tenantguard import Issuer, TenantGuard, TenantGuardMiddleware, current_identity
from tenantguard.tokens import StaticKeys
from tests.corpus.credentials import Case, corpus
from tests.support.lab import AUDIENCE, ISSUER, Lab, SigningKey
from tests.support.server import serve

LAB = Lab()
CASES = list(corpus(LAB))
_made: dict[str, Any] = {"at": 0.0, "cases": {}}


def fresh(name: str) -> Case:
    """Return a case whose times are those of now, not of when the tests were collected."""
    if time.monotonic() - _made["at"] > 3:
        _made["cases"] = {case.name: case for case in corpus(LAB)}
        _made["at"] = time.monotonic()
    case: Case = _made["cases"][name]
    return case


async def whoami(request: Request) -> JSONResponse:
    identity = current_identity()
    assert identity.tenant is not None
    hidden = [name for name in ("x-user-id", "x-tenant_id") if name in request.headers]
    return JSONResponse({"subject": identity.subject.id, "tenant": identity.tenant.id, "forged": hidden})


@pytest.fixture(scope="module", params=["h11", "httptools"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    anything = [SigningKey(LAB.other_rsa.private, "RS256", "rsa-any").jwk]
    anything[0].pop("alg")
    keys = StaticKeys({"keys": [*LAB.jwks(LAB.rsa, LAB.ec, LAB.ec384, LAB.ec521, LAB.ed)["keys"], *anything]})
    algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    guard = TenantGuard(issuers=[Issuer(ISSUER, audience=AUDIENCE, algorithms=algorithms, jwks=keys)])
    app = Starlette(routes=[Route("/whoami", whoami)])
    app.add_middleware(TenantGuardMiddleware, guard=guard)
    with serve(app, http=request.param) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def send(address: tuple[str, int], lines: tuple[bytes, ...]) -> tuple[int, dict[str, str], bytes]:
    """Send header lines as they are, and return status, headers and body of the answer."""
    request = b"\r\n".join([b"GET /whoami HTTP/1.1", b"Host: api.example.com", *lines, b"Connection: close", b"", b""])
    with socket.create_connection(address, timeout=10) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # a server that has answered need not read the rest
            connection.sendall(request)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    if not received:
        return 400, {}, b""  # it hung up on a request that is too large; its answer was lost with the connection
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(status.split(" ")[1]), headers, body


def secrets_of(case: Case) -> set[str]:
    """Parts of the credential that nobody else may see: pieces of what follows the scheme."""
    text = b"\n".join(line for line in case.lines if line.lower().startswith(b"authorization")).decode("latin-1")
    pieces = {text[start : start + 24] for start in range(len("Authorization: Bearer "), min(len(text), 4000) - 24, 24)}
    return {piece for piece in pieces if len(set(piece)) > 4}


def test_the_corpus_is_large_and_holds_controls() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len([case for case in CASES if case.status != (200,)]) >= 150
    assert len([case for case in CASES if case.status == (200,)]) >= 20


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_verdict(address: tuple[str, int], name: str, caplog: pytest.LogCaptureFixture) -> None:
    case = fresh(name)
    caplog.set_level(logging.DEBUG)
    status, headers, body = send(address, case.lines)
    assert status in case.status
    answer: Any = body.decode()
    told = answer + caplog.text
    assert not [piece for piece in secrets_of(case) if piece in told]
    if status == 200:
        assert '"forged":[]' in answer
        assert '"tenant":"globex"' not in answer
        return
    if headers.get("content-type") != "application/problem+json":
        assert case.by_server
        return
    challenge = headers.get("www-authenticate", "")
    if status in (400, 401):
        assert challenge.startswith("Bearer")
        assert f'"error":"{case.error}"' in answer if case.error else "error=" not in challenge
        assert f'error="{case.error}"' in challenge or case.error is None


def test_no_case_was_accepted_because_of_one_before(address: tuple[str, int]) -> None:
    """All in one row again, now that every token was seen: what is remembered changes no verdict."""
    for name in [case.name for case in CASES]:
        case = fresh(name)
        assert send(address, case.lines)[0] in case.status, name
