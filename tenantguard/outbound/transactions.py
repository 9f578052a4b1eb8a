"""Transaction tokens: is the answer of a transaction token service what was asked for?

A transaction token tells every service of a trust domain which outside request it works for. It is made once, at the
edge, and then handed on as it is. Where a service wants less to go along, it has the token replaced: the replacement
has fewer scopes, and the same transaction, subject, trust domain and context.
Source: draft-ietf-oauth-transaction-tokens-10, sections 6 to 8.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from tenantguard.identity import Identity
from tenantguard.outbound.answers import (
    MAX_TOKEN,
    Answer,
    ClaimNames,
    Fault,
    Unusable,
    UsableToken,
    check_party,
    check_scope,
    read_json_answer,
    unverified_claims,
    unverified_header,
)
from tenantguard.outbound.token_requests import TXN_TOKEN, TokenRequest

__all__ = ["TXN_TOKEN_HEADER", "read_transaction_answer"]

TXN_TOKEN_HEADER: Final = "txn-token"
MAX_LIFETIME: Final = 900.0
"""Longest time in seconds that a transaction token is believed to be good for: they must be short-lived."""


def read_transaction_answer(status: int, body: bytes, request: TokenRequest, names: ClaimNames) -> UsableToken | Fault:
    """Return the transaction token of an answer, or why it can't be used.

    Args:
        status: HTTP status.
        body: the body.
        request: what was asked for.
        names: the claims to compare.
    """
    return read_json_answer(status, body, lambda answer: _check(answer, request, names))


def _check(answer: Answer, request: TokenRequest, names: ClaimNames) -> UsableToken:
    identity, destination = request.identity, request.destination
    assert identity is not None
    if answer.token_type.upper() != "N_A" or answer.issued_token_type != TXN_TOKEN:
        raise Unusable(
            "the token service issued a token of another type than a transaction token",
            "Ask a transaction token service: its answer has the token_type N_A.",
        )
    token = answer.access_token
    header, claims = unverified_header(token), unverified_claims(token)
    if len(token) > MAX_TOKEN or header is None or claims is None:
        raise Unusable("the token service issued a transaction token that is no JWT")
    if str(header.get("typ", "")).lower().removeprefix("application/") != "txntoken+jwt":
        raise Unusable("the token service issued a token whose typ is not txntoken+jwt")
    if token == request.reveal_subject_token():
        raise Unusable("the token service gave back the caller's own token instead of a narrower one")
    if claims.get("aud") not in (destination.audience, [destination.audience]):
        raise Unusable("the token service issued a transaction token for another trust domain")
    if not isinstance(claims.get("txn"), str) or not claims["txn"]:
        raise Unusable("the token service issued a transaction token without a txn")
    if not isinstance(claims.get("scope"), str) or not isinstance(claims.get("sub"), str):
        raise Unusable("the token service issued a transaction token without scope or sub")
    check_scope(claims["scope"], request.scopes | destination.extra_scopes, asked=True, identity=identity)
    _check_tenant(claims, identity, names)
    if request.subject_token_type == TXN_TOKEN:
        _check_replacement(claims, request)
    else:
        check_party({**claims, **_tenant_of(claims, names)}, identity, names)
    return UsableToken(token, _expiry(claims), time.time())


def _tenant_of(claims: Mapping[str, Any], names: ClaimNames) -> dict[str, Any]:
    """The tenant as a claim of the token itself, wherever it stands: in the context it can't change on the way."""
    context = claims.get("tctx")
    if names.tenant is not None and isinstance(context, dict) and names.tenant in context:
        return {names.tenant: context[names.tenant]}
    return {}


def _check_tenant(claims: Mapping[str, Any], identity: Identity, names: ClaimNames) -> None:
    tenant = identity.tenant.id if identity.tenant is not None else None
    if names.tenant is None:
        return
    said = [claims[names.tenant]] if names.tenant in claims else []
    said += _tenant_of(claims, names).values()
    if any(one != tenant for one in said):
        raise Unusable("the token service issued a token of another tenant")


def _check_replacement(claims: Mapping[str, Any], request: TokenRequest) -> None:
    """A replacement narrows; it changes nothing else, and adds who asked for it."""
    before = unverified_claims(request.reveal_subject_token() or "") or {}
    for name in ("txn", "sub", "aud", "tenant_id"):
        if claims.get(name) != before.get(name):
            raise Unusable(f"the token service changed the {name} of the transaction in its replacement")
    old, new = before.get("tctx") or {}, claims.get("tctx") or {}
    kept = isinstance(new, dict) and all(name in new and new[name] == value for name, value in old.items())
    if not kept:
        raise Unusable("the token service changed the context of the transaction in its replacement")
    if before.get("act") != claims.get("act"):
        raise Unusable("the token service changed the actors of the transaction in its replacement")
    if not f"{claims.get('req_wl', '')},".startswith(f"{before.get('req_wl', '')},"):
        raise Unusable("the token service left out a workload that had asked for the transaction token before")


def _expiry(claims: Mapping[str, Any]) -> float:
    now, expires_at = time.time(), claims.get("exp")
    if type(expires_at) not in (int, float):
        raise Unusable("the token service does not say how long its token is good")
    assert isinstance(expires_at, int | float)
    if expires_at <= now:
        raise Unusable("the token service issued a token that has expired")
    return min(expires_at, now + MAX_LIFETIME)
