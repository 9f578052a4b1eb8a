"""The capsule of a job: a signed JWT that says who asked for the job, for whom, in which tenant, with which rights.

It has its own ``typ``, so that no other token passes for one; its audience is the queue and the task; and it holds a
digest of the task's arguments, so that it can't be moved to another message. The names are those of RFC 7519, RFC 8693
(``act``, ``scope``) and RFC 9493 (``sub_id``). ``origin`` tells of the token behind it, by which it is revoked. It
never holds that token.
"""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from time import time
from typing import Any, Final, NoReturn

import msgspec

from tenantguard.errors import InvalidTenantId, InvalidToken, JobRefused
from tenantguard.identity import Actor, ActorType, Identity, Tenant, Transaction
from tenantguard.jobs.keys import JobKeys
from tenantguard.tokens.claim_values import (
    actors_of,
    authorization_details_of,
    scopes_at,
    seconds_at,
    text_at,
    texts_at,
)
from tenantguard.tokens.jwt import decode_claims, parse_compact

__all__ = ["CAPSULE_TYPE", "Capsule", "arguments_hash", "open_capsule", "seal_capsule", "subject_assertion"]

CAPSULE_TYPE: Final = "tenantguard-job+jwt"
"""The ``typ`` of a capsule (RFC 7515, section 4.1.9)."""
LEEWAY: Final = 10.0


class Capsule(msgspec.Struct, frozen=True, gc=False):
    """What a capsule whose signature is good says.

    Args:
        id: its ``jti``.
        identity: as whom the job runs.
        audience: queue and task.
        expires_at: seconds since the epoch after which the job is not run any more.
        arguments: the digest of the task's arguments; ``None`` where they are not bound.
        issued_at: seconds since the epoch at which it was sealed.
        scheduled: True where nobody asked for the job, so that it runs as the service that it was declared with.
    """

    id: str
    identity: Identity
    audience: str
    expires_at: float
    arguments: str | None = None
    issued_at: float = 0.0
    scheduled: bool = False


def arguments_hash(encoded: bytes) -> str:
    """Return the digest of a task's arguments in one encoding.

    Args:
        encoded: the arguments, encoded the same way by producer and worker.
    """
    return _b64(hashlib.sha256(encoded).digest())


def seal_capsule(
    keys: JobKeys,
    identity: Identity,
    *,
    service: str,
    audience: str,
    max_age: float,
    arguments: str | None = None,
    scheduled: bool = False,
) -> str:
    """Return a signed capsule.

    Args:
        keys: sign it.
        identity: as whom the job runs.
        service: who signs, its ``iss``.
        audience: queue and task.
        max_age: seconds until it expires.
        arguments: the digest of the task's arguments.
        scheduled: whether it runs as the service that the task was declared with.
    """
    now = time()
    claims = _claims_of(identity) | {
        "iss": service,
        "aud": audience,
        "iat": int(now),
        "exp": int(now + max_age),
        "jti": secrets.token_urlsafe(16),
        "args_hash": arguments,
        "scheduled": True if scheduled else None,
        "origin": {
            "iss": identity.issuer,
            "jti": identity.token_id,
            "iat": int(now) if identity.issued_at is None else identity.issued_at,
        },
    }
    return keys.sign({name: value for name, value in claims.items() if value is not None}, CAPSULE_TYPE)


def subject_assertion(keys: JobKeys, identity: Identity, *, service: str, audience: str, expires_at: float) -> str:
    """Return what a running job shows a token service as ``subject_token``: the service's word for whom it acts.

    Args:
        keys: sign it; the token service knows them as those of the service.
        identity: as whom the job runs.
        service: the service's client id.
        audience: the token service.
        expires_at: seconds since the epoch.

    Source: RFC 8693, section 2.1; RFC 7523, section 3.
    """
    claims = _claims_of(identity) | {
        "iss": service,
        "aud": audience,
        "iat": int(time()),
        "exp": int(expires_at),
        "jti": secrets.token_urlsafe(16),
    }
    return keys.sign({name: value for name, value in claims.items() if value is not None}, "jwt")


def open_capsule(keys: JobKeys, text: str, *, service: str, audience: str, arguments: str | None = None) -> Capsule:
    """Return what a capsule says, if it is genuine, in time, and of this very job.

    Args:
        keys: whose signatures are accepted.
        text: the capsule.
        service: who must have signed it.
        audience: the queue and the task that is about to run.
        arguments: the digest of the arguments that it is about to run with.

    Raises:
        JobRefused: it is not; ``reason`` tells why.
    """
    try:
        token = parse_compact(text)
        header = token.header
        if header.alg != "EdDSA" or header.typ != CAPSULE_TYPE or not isinstance(header.kid, str):
            _refuse("forged", "The capsule's header is not that of a capsule.")
        if not keys.verify(header.kid, token.signing_input, token.signature):
            _refuse("forged", "The capsule's signature is not of an accepted key.")
        claims = decode_claims(token)
        identity = _identity_of(claims)
        expires_at, issued_at = seconds_at(claims, "exp"), seconds_at(claims, "iat")
        capsule_id, bound = text_at(claims, "jti"), text_at(claims, "args_hash")
    except (InvalidToken, InvalidTenantId, TypeError, KeyError, ValueError, AttributeError):
        _refuse("forged", "The capsule is malformed.")
    if claims["iss"] != service:
        _refuse("forged", "The capsule was signed by another service.")
    if claims.get("aud") != audience:
        _refuse("audience", "The capsule is of another task or queue.")
    if expires_at is None or issued_at is None or capsule_id is None:
        _refuse("forged", "The capsule lacks its times or its id.")
    if expires_at <= time():
        _refuse("expired", "The capsule has expired before the job ran.")
    if issued_at > time() + LEEWAY:
        _refuse("forged", "The capsule is of the future.")
    if bound != arguments:
        _refuse("arguments", "The capsule is of a job with other arguments.")
    scheduled = claims.get("scheduled") is True
    return Capsule(capsule_id, identity, audience, expires_at, bound, issued_at, scheduled)


def _refuse(reason: str, message: str) -> NoReturn:
    raise JobRefused(message, reason=reason) from None


# --- identity to claims and back ----------------------------------------------------------------------------


def _party(actor: Actor) -> dict[str, Any]:
    members = {
        "sub": actor.id,
        "iss": actor.issuer,
        "actor_type": actor.type.value,
        "client_id": actor.client_id,
        "name": actor.name,
        "model": actor.model,
        "version": actor.version,
    }
    return {name: value for name, value in members.items() if value is not None}


def _claims_of(identity: Identity) -> dict[str, Any]:
    subject = _party(identity.subject)
    issuer = subject.pop("iss", None)
    act: dict[str, Any] | None = None
    if identity.is_delegated:
        for actor in reversed((identity.actor, *identity.prior_actors)):
            act = _party(actor) | ({} if act is None else {"act": act})
    transaction = identity.transaction
    return {
        **subject,
        "sub_id": None if issuer is None else {"format": "iss_sub", "iss": issuer, "sub": identity.subject.id},
        "act": act,
        "tenant_id": None if identity.tenant is None else identity.tenant.id,
        "scope": " ".join(sorted(identity.scopes)),
        "dimensions": dict(identity.dimensions) or None,
        "authorization_details": [one.value for one in identity.authorization_details] or None,
        "grant_id": identity.grant_id,
        "sid": identity.session_id,
        "task": identity.task,
        "auth_time": identity.auth_time,
        "acr": identity.acr,
        "amr": list(identity.amr) or None,
        "txn": None if transaction is None else transaction.id,
        "tctx": None if transaction is None else transaction.context,
        "req_wl": None if transaction is None else ",".join(transaction.requested_by),
    }


def _identity_of(claims: Mapping[str, Any]) -> Identity:
    origin, names = claims["origin"], claims.get("sub_id") or {}
    subject = Actor(
        claims["sub"],
        ActorType(claims["actor_type"]),
        names.get("iss"),
        text_at(claims, "client_id"),
        text_at(claims, "name"),
        text_at(claims, "model"),
        text_at(claims, "version"),
    )
    actors = actors_of(claims.get("act"), Actor(subject.id, subject.type), ActorType.SERVICE)
    tenant_id = text_at(claims, "tenant_id")
    txn = text_at(claims, "txn")
    transaction = None
    if txn is not None:
        asked = tuple((text_at(claims, "req_wl") or "").split(","))
        transaction = Transaction(txn, asked, msgspec.json.encode(claims.get("tctx") or {}).decode())
    return Identity(
        subject=subject,
        actor=actors[0] if actors else subject,
        tenant=None if tenant_id is None else Tenant(tenant_id),
        prior_actors=actors[1:],
        scopes=scopes_at(claims, "scope"),
        dimensions=tuple((claims.get("dimensions") or {}).items()),
        authorization_details=authorization_details_of(claims.get("authorization_details")),
        issuer=text_at(origin, "iss"),
        audience=(claims["aud"],),
        client_id=subject.client_id,
        token_id=text_at(origin, "jti"),
        session_id=text_at(claims, "sid"),
        grant_id=text_at(claims, "grant_id"),
        task=text_at(claims, "task"),
        issued_at=seconds_at(origin, "iat"),
        expires_at=seconds_at(claims, "exp"),
        auth_time=seconds_at(claims, "auth_time"),
        acr=text_at(claims, "acr"),
        amr=texts_at(claims, "amr"),
        transaction=transaction,
    )


def _b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
