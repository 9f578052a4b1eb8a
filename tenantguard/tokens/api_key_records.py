"""API keys as they are kept: a record for each, which holds the SHA-256 digest of the key, never the key.

A slow password hash would add nothing: a key is 256 random bits, and nobody can search through that many, whatever one
guess costs. The digest still shows itself nowhere: a log with digests tells which keys are kept where.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, final

import msgspec

from tenantguard.errors import ConfigurationError, TenantGuardError
from tenantguard.identity import ActorType, validate_tenant_id

__all__ = [
    "HASH_LENGTH",
    "ID_LENGTH",
    "ApiKey",
    "ApiKeyState",
    "EndedApiKey",
    "KeyHash",
    "UnknownApiKey",
    "usable_line",
    "usable_scopes",
    "usable_seconds",
]

ID_LENGTH: Final = 16
"""Characters of a key's id."""
HASH_LENGTH: Final = 32
"""Bytes of a key's digest."""
_LONGEST_LIFETIME: Final = 100 * 366 * 86400
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


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


class UnknownApiKey(TenantGuardError, LookupError):
    """There is no such key, or none within reach of the bound identity."""

    status = 404
    title = "Unknown API key"

    def __init__(self) -> None:
        super().__init__(
            "There is no API key with this id.",
            mend=f"The id is the {ID_LENGTH} characters between the underscores of the key.",
        )


class EndedApiKey(TenantGuardError):
    """The key is revoked or expired, so nothing can take its place."""

    status = 409
    title = "Ended API key"

    def __init__(self, state: ApiKeyState) -> None:
        super().__init__(f"The API key is {state}, so it can't be rotated.", mend="Mint a new one.")


# --- what a key may be minted with -----------------------------------------------------------------------


def usable_seconds(value: float, name: str, *, least: int) -> int:
    """Return a duration in whole seconds, if it is one of ``least`` to a hundred years.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _LONGEST_LIFETIME:
        raise ConfigurationError(
            f"{name} is not a number of seconds from {least} to a hundred years.", mend=f"For example {name}=86400."
        )
    return int(value)


def usable_line(value: object, name: str) -> str:
    """Return a text that fits into one line of a list.

    Raises:
        ConfigurationError: it is empty, too long, or has characters that are not printable.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > 255 or not value.isprintable():
        raise ConfigurationError(
            f"The {name} of an API key is 1 to 255 printable characters.", mend=f'For example {name}="invoice-sync".'
        )
    return value


def usable_scopes(scopes: str | Iterable[str]) -> frozenset[str]:
    """Return scopes, which may be one text with spaces, as a set.

    Raises:
        ConfigurationError: one has characters that no scope has.

    Source: RFC 6749, section 3.3.
    """
    chosen = tuple(scopes.split() if isinstance(scopes, str) else scopes)
    for scope in chosen:
        if not isinstance(scope, str) or not _SCOPE.fullmatch(scope):
            raise ConfigurationError(
                "A scope is one or more printable ASCII characters without spaces, quotes and backslashes.",
                mend='For example scopes={"documents:read", "documents:write"}.',
            )
    return frozenset(chosen)
