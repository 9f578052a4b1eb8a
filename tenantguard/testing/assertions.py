"""A client's own word for whom it acts, as ``subject_token`` of a token exchange: what a job shows hours later.

The client signs it with a key that it registered (RFC 7523, section 3; RFC 7591, ``jwks``), so it can say any subject:
such a client is trusted like the issuer itself with whom it may act for. What it says is narrowed all the same.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt

from tenantguard.testing.parties import DevClient
from tenantguard.testing.token_request import OAuthError

__all__ = ["is_assertion", "verify_assertion"]

MAX_LIFETIME: Final = 31 * 24 * 3600


def is_assertion(client: DevClient, token: str) -> bool:
    """True if a subject token is of a client that registered keys, and is none of the issuer's own."""
    if client.jwks is None:
        return False
    try:
        return str(jwt.get_unverified_header(token).get("typ", "")).lower() == "jwt"
    except jwt.PyJWTError:
        return False


def verify_assertion(client: DevClient, token: str, *, audience: str, clock: Callable[[], float]) -> dict[str, Any]:
    """Return the claims of a client's assertion.

    Args:
        client: the authenticated client, which must have signed it.
        token: the assertion.
        audience: the issuer, which it must be for.
        clock: returns seconds since the epoch.

    Raises:
        OAuthError: it is not good.
    """
    keys: Mapping[str, Any] = client.jwks or {"keys": []}
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
        key = next(jwt.PyJWK(one) for one in keys["keys"] if one.get("kid") == key_id)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["EdDSA", "ES256"],
            issuer=client.client_id,
            audience=audience,
            options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"], "verify_exp": False},
        )
        if not isinstance(claims["exp"], int) or not clock() < claims["exp"] <= clock() + MAX_LIFETIME:
            raise jwt.ExpiredSignatureError
    except (jwt.PyJWTError, StopIteration, RecursionError):
        raise OAuthError("invalid_request", "The subject_token is not a valid assertion of the client.") from None
    return claims
