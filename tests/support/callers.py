"""Identities as the middleware would bind them, with real tokens behind them."""

from typing import Any

import jwt

from tenantguard.binding import Credential
from tenantguard.identity import Actor, ActorType, Identity, Tenant
from tenantguard.testing import DevIssuer

__all__ = ["caller"]


def caller(
    issuer: DevIssuer, subject: str = "alice", tenant: str = "acme", **minted: Any
) -> tuple[Identity, Credential]:
    """Return a person's identity and the token that it came in with."""
    token = issuer.mint(subject, tenant=tenant, **minted)
    claims = jwt.decode(token, options={"verify_signature": False})
    person = Actor(subject, ActorType.HUMAN, issuer=issuer.url)
    actor = person
    if "act" in claims:
        actor = Actor(claims["act"]["sub"], ActorType(claims["act"].get("actor_type", "service")))
    identity = Identity(
        subject=person,
        actor=actor,
        tenant=Tenant(tenant),
        scopes=frozenset(claims["scope"].split()),
        issuer=issuer.url,
        expires_at=claims["exp"],
    )
    return identity, Credential(token)
