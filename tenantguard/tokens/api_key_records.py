"""API keys as they are kept: a record for each, which holds the SHA-256 digest of the key, never the key.

A slow password hash would add nothing: a key is 256 random bits, and nobody can search through that many, whatever one
guess costs. The digest still shows itself nowhere: a log with digests tells which keys are kept where.
"""

from enum import StrEnum
from typing import Final, final

import msgspec

from tenantguard.identity import ActorType, validate_tenant_id

__all__ = ["HASH_LENGTH", "ID_LENGTH", "ApiKey", "ApiKeyState", "KeyHash"]

ID_LENGTH: Final = 16
"""Characters of a key's id."""
HASH_LENGTH: Final = 32
"""Bytes of a key's digest."""


@final
class KeyHash(bytes):
    """The SHA-256 digest of a key. It shows itself in no repr, and so in no traceback and no log of statements."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "KeyHash(...)"

    __str__ = __repr__


class ApiKeyState(StrEnum):
    """Whether a key opens anything."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ApiKey(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What is kept of an API key. Times are in whole seconds since the epoch.

    Args:
        id: the 16 characters that name the key; no secret.
        secret_hash: SHA-256 of the key as a whole, 32 bytes.
        service: the service account that the key belongs to: the ``id`` of the actor.
        tenant: the id of the one tenant; ``None`` for a key that belongs to none.
        scopes: what it may do.
        actor_type: service or agent.
        name: what people call the key.
        created_at: when it was minted.
        expires_at: when it ends; ``None`` never.
        revoked_at: when it was revoked.
        last_used_at: when it was last used, to about a minute.
        replaces: the id of the key in whose place it was minted.

    Raises:
        TypeError: a part that decides access is of the wrong kind.
        InvalidTenantId: the tenant id is not usable.
    """

    id: str
    secret_hash: bytes
    service: str
    tenant: str | None
    scopes: frozenset[str] = frozenset()
    actor_type: ActorType = ActorType.SERVICE
    name: str | None = None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    replaces: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or len(self.id) != ID_LENGTH:
            raise TypeError(f"ApiKey.id must be a str of {ID_LENGTH} characters.")
        if not isinstance(self.secret_hash, bytes) or len(self.secret_hash) != HASH_LENGTH:
            raise TypeError(f"ApiKey.secret_hash must be {HASH_LENGTH} bytes.")
        if not isinstance(self.service, str) or not self.service:
            raise TypeError("ApiKey.service must be a non-empty str.")
        if self.tenant is not None:
            validate_tenant_id(self.tenant)
        if not isinstance(self.scopes, frozenset):
            raise TypeError("ApiKey.scopes must be a frozenset of str.")
        if not isinstance(self.actor_type, ActorType) or not self.actor_type.is_machine:
            raise TypeError("ApiKey.actor_type must be ActorType.SERVICE or ActorType.AGENT.")
        for name in ("created_at", "expires_at", "revoked_at", "last_used_at"):
            moment = getattr(self, name)
            if moment.__class__ is not int and (moment is not None or name == "created_at"):
                raise TypeError(f"ApiKey.{name} must be an int.")
        msgspec.structs.force_setattr(self, "secret_hash", KeyHash(self.secret_hash))

    def state_at(self, now: float) -> ApiKeyState:
        """Return whether the key is good at a time, in seconds since the epoch."""
        if self.revoked_at is not None:
            return ApiKeyState.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return ApiKeyState.EXPIRED
        return ApiKeyState.ACTIVE
