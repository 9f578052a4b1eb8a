"""Transaction tokens on the receiving side: whose are accepted, and how their claims become an identity.

Such a token says of one outside request for whom it is made, in which tenant, what it is about, and which services of
the trust domain asked for it. It is no proof of who calls; that is left to the network or to the Authorization header.
Source: draft-ietf-oauth-transaction-tokens-10, sections 5 and 8.
"""

from typing import Any, Final, final

import msgspec

from tenantguard.errors import InvalidToken
from tenantguard.identity import Actor, ActorType, Identity, Transaction
from tenantguard.tokens.claim_values import ClaimPath, Claims, claim_at, refuse_claim
from tenantguard.tokens.claims import ClaimsProfile, Verified
from tenantguard.tokens.issuers import Issuer

__all__ = ["TXN_TOKEN_TYPE", "TransactionClaims", "transaction_issuer"]

TXN_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:txn_token"
MAX_TOKEN_AGE: Final = 900.0
MAX_WORKLOADS: Final = 16


def transaction_issuer(
    url: str, *, trust_domain: str, tenant: str = "tenant_id", max_token_age: float = MAX_TOKEN_AGE, **options: Any
) -> Issuer:
    """Return the issuer of a trust domain's transaction tokens, for ``TenantGuard(transaction_issuers=[...])``.

    Args:
        url: the ``iss`` of the tokens, which they must have: the draft leaves it out only where keys are known before.
        trust_domain: the ``aud`` of the tokens.
        tenant: the member that holds the tenant's id, in the transaction's context (``tctx``) or beside it.
        max_token_age: seconds since ``iat`` after which a token is refused: they are meant to be short-lived.
        options: further arguments of `Issuer`.

    Raises:
        ConfigurationError: an argument is not usable.
    """
    return Issuer(
        url,
        audience=trust_domain,
        claims=TransactionClaims(tenant),
        token_types=("txntoken+jwt",),
        max_token_age=max_token_age,
        required_claims=("txn", "scope", "req_wl"),
        **options,
    )


@final
class TransactionClaims:
    """How a transaction token's claims become an identity. The workloads that asked for it are its latest actors.

    Args:
        tenant: the member with the tenant's id.
    """

    __slots__ = ("_paths", "_profile")

    def __init__(self, tenant: str = "tenant_id") -> None:
        self._paths: tuple[ClaimPath, ...] = (("tctx", tenant), tenant)
        self._profile = ClaimsProfile(tenant=self._paths, token_types=frozenset({"txntoken+jwt"}))

    def __call__(self, claims: Claims, /) -> Verified:
        """Return the identity.

        Raises:
            InvalidToken: a claim has the wrong form, or the tenant changed inside the token.
        """
        if not isinstance(claims.get("txn"), str) or not claims["txn"]:
            raise refuse_claim("The transaction token has no usable txn.")
        context = claims.get("tctx", {})
        if not isinstance(context, dict) or not isinstance(claims.get("rctx", {}), dict):
            raise refuse_claim("The context of the transaction token is no JSON object.")
        tenants = [claim_at(claims, path) for path in self._paths if claim_at(claims, path) is not None]
        if len(tenants) > 1 and tenants[0] != tenants[1]:
            raise InvalidToken("The transaction token names two tenants.", reason="tenant")
        verified = self._profile(claims)
        workloads = _workloads(claims.get("req_wl"))
        transaction = Transaction(claims["txn"], workloads, msgspec.json.encode(context).decode())
        identity = _with_workloads(verified.identity, workloads)
        return Verified(msgspec.structs.replace(identity, transaction=transaction), verified.tenants)


def _workloads(value: object) -> tuple[str, ...]:
    """Return who asked for the token and its replacements, in that order."""
    if not isinstance(value, str):
        raise refuse_claim("The transaction token's req_wl is no text.")
    workloads = tuple(value.split(","))
    if len(workloads) > MAX_WORKLOADS or not all(one and one.strip() == one for one in workloads):
        raise refuse_claim("The transaction token's req_wl is malformed or too long.")
    if len(set(workloads)) != len(workloads):
        raise InvalidToken("The transaction token's req_wl names a workload twice.", reason="chain")
    return workloads


def _with_workloads(identity: Identity, workloads: tuple[str, ...]) -> Identity:
    known = {party.id for party in identity.chain}
    acting = tuple(
        Actor(workload, ActorType.SERVICE, identity.issuer) for workload in reversed(workloads) if workload not in known
    )
    if not acting:
        return identity
    before = (identity.actor, *identity.prior_actors) if identity.is_delegated else ()
    return msgspec.structs.replace(identity, actor=acting[0], prior_actors=(*acting[1:], *before))
