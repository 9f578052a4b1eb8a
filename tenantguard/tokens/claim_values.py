"""Single claims, read strictly: texts, times, scopes, delegation chains, sender constraints.

A claim that has another form than its specification gives it is an error, never a guess. Values that many tokens share
are held once.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from tenantguard.errors import InvalidTenantId, InvalidToken
from tenantguard.identity import Actor, ActorType, AuthorizationDetail, Confirmation, Tenant, validate_tenant_id

__all__ = [
    "MAX_ACTORS",
    "SHARED_LENGTH",
    "ClaimPath",
    "Claims",
    "actor_type_of",
    "actors_of",
    "authorization_details_of",
    "claim_at",
    "confirmation_of",
    "dimensions_at",
    "first_text_at",
    "refuse_claim",
    "scopes_at",
    "seconds_at",
    "shared_text",
    "shared_texts",
    "tenant_of",
    "text_at",
    "texts_at",
]

Claims: TypeAlias = Mapping[str, Any]

MAX_ACTORS: Final = 8
"""Longest chain of ``act`` members."""


ClaimPath: TypeAlias = str | tuple[str, ...]
"""A claim's name, or the names from the outer member to the inner one: ``("o", "id")``."""


def claim_at(claims: Claims, path: ClaimPath) -> Any:
    """Return the claim at a path, or ``None``. A name is never split: ``https://example.com/org`` is one name."""
    if isinstance(path, str):
        return claims.get(path)
    value: Any = claims
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def refuse_claim(message: str, *, mend: str | None = None) -> InvalidToken:
    """Return the error of a claim that is not what it must be."""
    return InvalidToken(message, reason="claims", mend=mend)


def text_at(claims: Claims, name: str) -> str | None:
    """The claim, which must be text; empty text counts as none."""
    value = claims.get(name)
    if value is None or value.__class__ is str:
        return value or None
    raise refuse_claim(f"The token's {name} is no text.")


def first_text_at(claims: Claims, paths: tuple[ClaimPath, ...]) -> str | None:
    """The first of the claims that is there; it must be text."""
    for path in paths:
        value = claims.get(path) if path.__class__ is str else claim_at(claims, path)
        if value is not None:
            if value.__class__ is not str:
                raise refuse_claim(f"The token's {path if isinstance(path, str) else '.'.join(path)} is no text.")
            return value or None
    return None


# Values that many tokens share are held once: with 100,000 cached tokens that is most of their memory.
SHARED_LENGTH: Final = 512


@lru_cache(maxsize=4096)
def _split(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=4096)
def _frozen(items: frozenset[str]) -> frozenset[str]:
    return items


@lru_cache(maxsize=4096)
def _shared_tenant(tenant_id: str) -> Tenant:
    return Tenant(id=tenant_id)


@lru_cache(maxsize=4096)
def _shared_texts(items: tuple[str, ...]) -> tuple[str, ...]:
    return items


@lru_cache(maxsize=4096)
def shared_text(text: str) -> str:
    """Return an equal text that is held once."""
    return text


def tenant_of(tenant_id: Any) -> Tenant:
    """Return the tenant of an id, held once for many tokens."""
    if isinstance(tenant_id, str):
        return _shared_tenant(tenant_id) if len(tenant_id) <= SHARED_LENGTH else Tenant(id=tenant_id)
    return Tenant(id=tenant_id)


def shared_texts(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return an equal tuple that is held once."""
    return _shared_texts(items) if sum(map(len, items)) <= SHARED_LENGTH else items


def dimensions_at(claims: Claims, paths: Mapping[str, ClaimPath]) -> tuple[tuple[str, str], ...]:
    """Return what the token is narrowed to inside its tenant, by dimension.

    Raises:
        InvalidToken: a claim is there and does not name exactly one value. Nothing that looks like "none" means "all".
    """
    narrowed = []
    for name, path in paths.items():
        if not _is_there(claims, path):
            continue
        try:
            narrowed.append((shared_text(name), shared_text(validate_tenant_id(claim_at(claims, path)))))
        except InvalidTenantId:
            raise refuse_claim(
                f"The claim that names the {name} is not one usable id.",
                mend="Have the issuer name one, or leave the claim out where the token is for the whole tenant.",
            ) from None
    return tuple(narrowed)


def _is_there(claims: Claims, path: ClaimPath) -> bool:
    at: Any = claims
    for name in (path,) if isinstance(path, str) else path:
        if not isinstance(at, Mapping):
            return True  # and is of a form that names nothing
        if name not in at:
            return False
        at = at[name]
    return True


def scopes_at(claims: Claims, *paths: ClaimPath) -> frozenset[str]:
    """Return the scopes of all claims that are there, as one shared set.

    Raises:
        InvalidToken: one is neither text nor a list of texts.
    """
    scopes: frozenset[str] = frozenset()
    for path in paths:
        value = claim_at(claims, path)
        if value is not None:
            found = _scopes_of(value, path if isinstance(path, str) else ".".join(path))
            scopes = scopes | found if scopes else found
    return scopes


def _scopes_of(value: Any, name: str) -> frozenset[str]:
    """Scopes as a space separated text (RFC 6749, section 3.3) or as a list of texts (Okta, Auth0, WorkOS)."""
    if isinstance(value, str):
        return _split(value) if len(value) <= SHARED_LENGTH else frozenset(value.split())
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        scopes = frozenset(value)
        if any(not one or one.split() != [one] for one in scopes):
            raise refuse_claim(f"The token's {name} has an entry that is empty or holds spaces.")
        return _frozen(scopes) if sum(map(len, scopes)) <= SHARED_LENGTH else scopes
    raise refuse_claim(f"The token's {name} is neither text nor a list of texts.")


def actor_type_of(claims: Claims) -> ActorType | None:
    """Return what the ``actor_type`` claim says, or ``None`` where there is none.

    Raises:
        InvalidToken: it is none of ``human``, ``service``, ``agent``.
    """
    value = claims.get("actor_type")
    if value is None:
        return None
    try:
        return ActorType(value)
    except ValueError:
        raise refuse_claim("The token's actor_type is none of human, service, agent.") from None


def seconds_at(claims: Claims, name: str) -> int | None:
    """Return the claim as whole seconds since the epoch, or ``None``."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise refuse_claim(f"The token's {name} is no time in seconds.")
    return int(value)


def texts_at(claims: Claims, name: str) -> tuple[str, ...]:
    """Return the claim, which must be a list of texts."""
    value = claims.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise refuse_claim(f"The token's {name} is no list of texts.")
    return shared_texts(tuple(value))


def actors_of(act: Any, about: Actor, untyped: ActorType) -> tuple[Actor, ...]:
    """The delegation chain of ``act`` members, the current actor first (RFC 8693, section 4.1).

    A party that is in the chain twice, or is the subject itself, is refused: such a chain tells no history.
    """
    actors: list[Actor] = []
    issuer = about.issuer
    while act is not None:
        if not isinstance(act, dict):
            raise refuse_claim("The token's act is no JSON object.")
        if len(actors) == MAX_ACTORS:
            raise refuse_claim(f"The token's act chain is longer than {MAX_ACTORS}.")
        subject = act.get("sub")
        if not isinstance(subject, str) or not subject:
            raise refuse_claim("An act of the token has no sub.")
        model = text_at(act, "model")
        actors.append(
            Actor(
                id=subject,
                type=actor_type_of(act) or (ActorType.AGENT if model is not None else untyped),
                issuer=text_at(act, "iss") or issuer,
                client_id=text_at(act, "client_id"),
                name=text_at(act, "name"),
                model=model,
                version=text_at(act, "version"),
            )
        )
        act = act.get("act")
    if len({(party.issuer, party.id) for party in (about, *actors)}) != len(actors) + 1:
        raise refuse_claim("The token's act chain names a party twice.")
    return tuple(actors)


def authorization_details_of(value: Any) -> tuple[AuthorizationDetail, ...]:
    """Return the elements of ``authorization_details`` (RFC 9396, section 2)."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise refuse_claim("The token's authorization_details is no list.")
    details = []
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("type"), str) or not one["type"]:
            raise refuse_claim("An entry of the token's authorization_details has no type.")
        details.append(AuthorizationDetail(type=one["type"], json=msgspec.json.encode(one).decode()))
    return tuple(details)


def confirmation_of(value: Any) -> Confirmation | None:
    """The key that the token is bound to. A kind that is not known is refused, since it could not be checked."""
    if value is None:
        return None
    if not isinstance(value, dict) or not value or not set(value) <= {"jkt", "x5t#S256"}:
        raise refuse_claim(
            "The token's cnf is of a kind that is not supported.", mend="Use jkt (DPoP) or x5t#S256 (mTLS)."
        )
    if not all(isinstance(one, str) and one for one in value.values()):
        raise refuse_claim("The token's cnf is malformed.")
    return Confirmation(jkt=value.get("jkt"), x5t_s256=value.get("x5t#S256"))
