"""The development issuer as a transaction token service: new transactions, and replacements that only narrow.

Source: draft-ietf-oauth-transaction-tokens-10, sections 7 and 9.13.1.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from tenantguard.testing.grants import Granted, require_confidential
from tenantguard.testing.parties import DevClient, scope_set
from tenantguard.testing.token_request import OAuthError

__all__ = ["TXN_TOKEN_TYPE", "grant_transaction"]

TXN_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:txn_token"
_KEPT: Final[tuple[str, ...]] = ("txn", "sub", "aud", "tctx", "rctx", "act", "actor_type", "tenant_id")


def grant_transaction(
    client: DevClient,
    parameters: Mapping[str, str],
    *,
    trust_domain: str | None,
    verify: Callable[[str, str, str], dict[str, Any]],
    assertion: dict[str, Any] | None = None,
) -> Granted:
    """Return the claims of a transaction token.

    Args:
        client: the authenticated workload.
        parameters: the form parameters.
        trust_domain: the one that this issuer serves.
        verify: returns the claims of one of the issuer's own tokens of a ``typ``, or raises `OAuthError`.
        assertion: the claims of the subject token, where it is the client's own assertion and has been verified.

    Raises:
        OAuthError: the subject token is not good, or more is asked for than it holds.
    """
    require_confidential(client)
    if trust_domain is None or parameters.get("audience") != trust_domain or trust_domain not in client.audiences:
        raise OAuthError("invalid_target", "This issuer makes no transaction tokens for that trust domain.")
    if "subject_token" not in parameters or "subject_token_type" not in parameters:
        raise OAuthError("invalid_request", "A transaction needs subject_token and subject_token_type.")
    replaced = parameters["subject_token_type"] == TXN_TOKEN_TYPE
    subject = assertion
    if subject is None:
        subject = verify(parameters["subject_token"], "subject_token", "txntoken+jwt" if replaced else "at+jwt")
    wanted = scope_set(parameters.get("scope", ""))
    held = scope_set(str(subject.get("scope", "")))
    if not wanted or not wanted <= (held if client.scopes is None else held & client.scopes):
        raise OAuthError("invalid_scope", "A scope is not held by the subject or not allowed to the client.")
    tenant = subject.get("tenant_id", subject.get("tctx", {}).get("tenant_id"))
    if client.tenant is not None and client.tenant != tenant:
        raise OAuthError("invalid_request", "The subject_token is of another tenant than the client.")
    claims: dict[str, Any]
    if replaced:
        claims = {name: subject[name] for name in _KEPT if name in subject}
        claims["req_wl"] = f"{subject['req_wl']},{client.client_id}"
    else:
        if assertion is None and not scope_set(subject["aud"]) & client.accepts:
            raise OAuthError("invalid_request", "The subject_token is for another audience than the client's.")
        claims = {name: subject[name] for name in ("sub", "act", "actor_type") if name in subject}
        claims |= {"aud": trust_domain, "txn": secrets.token_urlsafe(16), "req_wl": client.client_id}
        claims["tctx"] = _object(parameters, "request_details") | {"tenant_id": subject.get("tenant_id")}
        claims["rctx"] = _object(parameters, "request_context")
    return Granted(claims, wanted, not_after=int(subject["exp"]), issued_token_type=TXN_TOKEN_TYPE)


def _object(parameters: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(parameters.get(name, "{}"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise OAuthError("invalid_request", f"The {name} is no JSON object.")
    return value
