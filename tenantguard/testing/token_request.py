"""What arrives at a token endpoint, parsed and authenticated, and the errors that it answers with.

Parameters come form-encoded in the body, each at most once (RFC 6749, section 3.2). A client shows its secret in one
way only, by HTTP Basic or in the body (section 2.3.1). Errors are those of section 5.2 and of RFC 8693 section 2.2.2.
"""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request
from starlette.responses import JSONResponse

from tenantguard.testing.parties import DevClient

__all__ = ["NO_STORE", "OAuthError", "authenticate_client", "error_response", "read_parameters"]

MAX_BODY: Final = 64 * 1024
"""Largest request body in bytes."""

NO_STORE: Final = {"cache-control": "no-store", "pragma": "no-cache"}
"""Headers of every answer of the token endpoint (RFC 6749, section 5.1)."""


class OAuthError(Exception):
    """A refusal of the token endpoint.

    Args:
        code: the ``error`` value.
        description: for developers; never holds a token or a secret.
        challenge: True if the client tried HTTP authentication, which the answer must then ask for again.
    """

    def __init__(self, code: str, description: str, *, challenge: bool = False) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description
        self.challenge = challenge


def error_response(error: OAuthError) -> JSONResponse:
    """Return the answer for a refusal. Source: RFC 6749, section 5.2."""
    headers = dict(NO_STORE)
    if error.challenge:
        headers["www-authenticate"] = 'Basic realm="token", charset="UTF-8"'
    return JSONResponse(
        {"error": error.code, "error_description": error.description},
        status_code=401 if error.code == "invalid_client" else 400,
        headers=headers,
    )


async def read_parameters(request: Request) -> dict[str, str]:
    """Return the form parameters; empty ones count as left out.

    Raises:
        OAuthError: the body is no form, is too large, or repeats a parameter.

    Source: RFC 6749, section 3.2 and appendix B.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "The body must be application/x-www-form-urlencoded.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise OAuthError("invalid_request", "The body is too large.")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError:
        raise OAuthError("invalid_request", "The body is no form.") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name in parameters:
            raise OAuthError("invalid_request", "A parameter is repeated.")
        parameters[name] = value
    return {name: value for name, value in parameters.items() if value}


def authenticate_client(
    authorization: str | None, parameters: Mapping[str, str], clients: Mapping[str, DevClient]
) -> DevClient:
    """Return the client that the request authenticates as; a public client only names itself.

    Args:
        authorization: the ``Authorization`` header.
        parameters: the form parameters.
        clients: the registered clients by id.

    Raises:
        OAuthError: ``invalid_client``, or ``invalid_request`` where two methods are used at once.

    Source: RFC 6749, sections 2.3.1 and 3.2.1.
    """
    secret: str | None
    if authorization is not None:
        if "client_secret" in parameters:
            raise OAuthError("invalid_request", "The client authenticates in two ways at once.")
        client_id, secret = _basic_credentials(authorization)
        if parameters.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "The client names itself in two ways that differ.")
    else:
        client_id, secret = parameters.get("client_id", ""), parameters.get("client_secret")
    client = clients.get(client_id)
    expected = client.secret if client is not None else None
    if expected is None:
        good = client is not None and secret is None
        hmac.compare_digest(b"spend the same time on a client that does not exist", (secret or "").encode())
    else:
        good = hmac.compare_digest(expected.encode(), (secret or "").encode())
    if client is None or not good:
        raise OAuthError("invalid_client", "Client authentication failed.", challenge=authorization is not None)
    return client


def _basic_credentials(authorization: str) -> tuple[str, str]:
    """Both halves are form-encoded before they are joined (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        client_id, colon, secret = b64decode(encoded.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (binascii.Error, ValueError):
        raise OAuthError("invalid_client", "The Authorization header is not usable.", challenge=True) from None
