"""API keys of service accounts: how one becomes an `Identity`, and how keys are minted, rotated and revoked.

A record holds the SHA-256 digest of its key (`api_key_records.py` says why no slow hash is needed). A key that is
malformed is refused without asking the store; an unknown id and a wrong secret are one refusal, after the same work.

Who mints and revokes is for the app to decide, but never across tenants: while an identity is bound, only the keys of
its tenant are within reach. Unbound code (scripts, the command line) and a `system` block reach all.
"""

import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, final

import msgspec
from msgspec import UNSET, UnsetType

from tenantguard.binding import current_binding
from tenantguard.errors import (
    ConfigurationError,
    ExpiredToken,
    InvalidToken,
    RevokedToken,
    StoreUnavailable,
    TenantGuardError,
    TenantRefused,
)
from tenantguard.identity import Actor, ActorType, Identity, Tenant, validate_tenant_id
from tenantguard.tokens.api_key_format import NO_KEY, KeyFormat, digest, is_key_id
from tenantguard.tokens.api_key_records import (
    ApiKey,
    ApiKeyState,
    EndedApiKey,
    UnknownApiKey,
    usable_line,
    usable_scopes,
    usable_seconds,
)
from tenantguard.tokens.api_key_stores import ApiKeyStore, InMemoryApiKeyStore, SqlApiKeyStore
from tenantguard.tokens.api_key_usage import LastUses
from tenantguard.tokens.revocation import RevocationKind, Revocations

__all__ = [
    "ApiKey",
    "ApiKeyState",
    "ApiKeyStore",
    "ApiKeys",
    "EndedApiKey",
    "InMemoryApiKeyStore",
    "MintedKey",
    "SqlApiKeyStore",
    "UnknownApiKey",
]


@final
@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. The one time that it can be read.

    Args:
        key: the key: hand it to the service's secret store, and nowhere else.
        record: what is kept of it.
    """

    key: str = field(repr=False)
    record: ApiKey


@final
class ApiKeys:
    """The credential kind of API keys: verifies them, and manages those of a store. Thread-safe.

    Args:
        store: where they are kept.
        prefix: what each begins with: a lower-case letter, then 1 to 15 lower-case letters and digits.
        issuer: the ``issuer`` of the identities.
        max_age: most seconds for which a verified key is not looked up again: a revocation takes effect in this time.
        max_lifetime: seconds after which a key ends, whatever its record says; ``None`` sets no bound.
        revocations: those of the app, ``TenantGuard(revocations=...)``. A key that `revoke` revokes is then refused at
            once in all workers that share them, and connections that it opened are ended.
        clock: returns the seconds since the epoch.

    Raises:
        ConfigurationError: a setting is not usable.
    """

    __slots__ = ("_clock", "_format", "_max_age", "_max_lifetime", "_revocations", "_uses", "issuer", "store")

    def __init__(
        self,
        store: ApiKeyStore,
        *,
        prefix: str = "tgk",
        issuer: str = "urn:tenantguard:api-keys",
        max_age: float = 30.0,
        max_lifetime: int | None = None,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        missing = [
            name
            for name in ("get", "add", "list", "revoke", "shorten", "touch")
            if not callable(getattr(store, name, None))
        ]
        if missing:
            raise ConfigurationError(
                f"The store of API keys has no method {missing[0]}.",
                mend="See ApiKeyStore, or use SqlApiKeyStore.",
            )
        if not isinstance(issuer, str) or not issuer:
            raise ConfigurationError("The issuer of API keys is a non-empty text.", mend="Leave issuer out.")
        if isinstance(max_age, bool) or not isinstance(max_age, int | float) or not 0 <= max_age <= 3600:
            raise ConfigurationError("max_age is not a number of seconds from 0 to 3600.", mend="Leave max_age out.")
        self.store = store
        self._format = KeyFormat(prefix)
        self.issuer = issuer
        self._max_age = max_age
        self._max_lifetime = None if max_lifetime is None else usable_seconds(max_lifetime, "max_lifetime", least=1)
        self._revocations = revocations
        self._clock = clock
        self._uses = LastUses(store, every=max_age)

    # --- verification --------------------------------------------------------------------------------------

    @property
    def max_age(self) -> float:
        """Most seconds for which a verified key is not looked up again."""
        return self._max_age

    def accepts(self, token: str, /) -> bool:
        """True if the token begins as these keys do, which no signed token does."""
        return token.startswith(self._format.start)

    async def verify(self, token: str, /) -> Identity:
        """Return the identity of the service account that a key belongs to.

        Args:
            token: the key as presented.

        Raises:
            InvalidToken: it is malformed, or no key of the store; `ExpiredToken` and `RevokedToken` if it was one.
            StoreUnavailable: the store can't say now.
        """
        key_id = self._format.id_of(token)
        if key_id is None:
            raise InvalidToken("The API key is malformed.", reason="malformed", mend="Check that it was copied whole.")
        record = await self._look_up(key_id)
        good = hmac.compare_digest(digest(token), NO_KEY if record is None else record.secret_hash)
        # Some databases compare text without regard to case, so the id that was found is looked at as well.
        if record is None or not good or record.id != key_id:
            raise InvalidToken("The API key is not known.", reason="unknown", mend="Check that it was copied whole.")
        now = self._clock()
        record = self._bounded(record)
        state = record.state_at(now)
        if state is ApiKeyState.REVOKED:
            raise RevokedToken("The API key has been revoked.")
        if state is not ApiKeyState.ACTIVE:
            raise ExpiredToken("The API key has expired.")
        await self._uses.note(record, now)
        service = Actor(id=record.service, type=record.actor_type, issuer=self.issuer, name=record.name)
        return Identity(
            subject=service,
            actor=service,
            tenant=None if record.tenant is None else Tenant(id=record.tenant),
            scopes=record.scopes,
            issuer=self.issuer,
            token_id=record.id,
            issued_at=record.created_at,
            expires_at=record.expires_at,
        )

    async def _look_up(self, key_id: str) -> ApiKey | None:
        try:
            record = await self.store.get(key_id)
        except TenantGuardError:
            raise
        except Exception as fault:  # noqa: BLE001 - fails closed; its text may hold values
            raise StoreUnavailable(f"The API key store failed ({type(fault).__name__}).") from None
        if record is not None and not isinstance(record, ApiKey):
            raise StoreUnavailable(f"The API key store answered with a {type(record).__name__}, not an ApiKey.")
        return record

    def _bounded(self, record: ApiKey) -> ApiKey:
        """Apply `max_lifetime`, also to keys that were minted before it was set."""
        if self._max_lifetime is None:
            return record
        last = record.created_at + self._max_lifetime
        if record.expires_at is not None and record.expires_at <= last:
            return record
        return msgspec.structs.replace(record, expires_at=last)

    # --- management ----------------------------------------------------------------------------------------

    async def mint(
        self,
        *,
        service: str,
        tenant: str | None,
        scopes: str | Iterable[str] = (),
        expires_in: float | None = None,
        name: str | None = None,
        actor_type: ActorType = ActorType.SERVICE,
    ) -> MintedKey:
        """Make a key of a service account and keep its record.

        Args:
            service: the service account, for example ``"invoice-sync"``: the ``id`` of the actor.
            tenant: the id of the one tenant; ``None`` for a key that belongs to none and reaches no owned row.
            scopes: what it may do, as a set or separated by spaces (RFC 6749, section 3.3).
            expires_in: seconds until it ends; ``None``: after `max_lifetime`, if there is one, else never.
            name: what people call the key.
            actor_type: service or agent.

        Raises:
            ConfigurationError: an argument is not usable; the text says which.
            InvalidTenantId: the tenant id is not usable.
            TenantRefused: the bound identity is of another tenant.
            StoreUnavailable: the store can't keep it now.
        """
        if tenant is not None:
            validate_tenant_id(tenant)
        reach = _reach()
        if reach is not UNSET and reach != tenant:
            raise _foreign_tenant()
        if not isinstance(actor_type, ActorType) or not actor_type.is_machine:
            raise ConfigurationError(
                "API keys are for machines: actor_type is ActorType.SERVICE or ActorType.AGENT.",
                mend="Let humans log in at an identity provider.",
            )
        minted = self._made(
            expires_in,
            service=usable_line(service, "service"),
            tenant=tenant,
            scopes=usable_scopes(scopes),
            name=None if name is None else usable_line(name, "name"),
            actor_type=actor_type,
        )
        await self.store.add(minted.record)
        return minted

    def _made(self, expires_in: float | None, **account: Any) -> MintedKey:
        """Make a key. The text of it is in this frame alone, so that no traceback of a store that fails has it."""
        lifetime = self._lifetime(expires_in)
        now = int(self._clock())
        key_id, key = self._format.new()
        expires_at = None if lifetime is None else now + lifetime
        return MintedKey(
            key, ApiKey(id=key_id, secret_hash=digest(key), created_at=now, expires_at=expires_at, **account)
        )

    def _lifetime(self, expires_in: float | None) -> int | None:
        if expires_in is None:
            return self._max_lifetime
        lifetime = usable_seconds(expires_in, "expires_in", least=1)
        if self._max_lifetime is not None and lifetime > self._max_lifetime:
            raise ConfigurationError(
                f"A key may last {self._max_lifetime} seconds at most here.", mend="Choose a shorter expires_in."
            )
        return lifetime

    async def rotate(self, key_id: str, overlap: float = 3600, *, expires_in: float | None = None) -> MintedKey:
        """Make a key in the place of another, of the same account, which goes on for a while.

        Args:
            key_id: the id of the key to replace.
            overlap: seconds until the old key ends, unless it ends earlier; 0 ends it now.
            expires_in: seconds until the new key ends; ``None``: it lasts as long as the old one was made for.

        Raises:
            UnknownApiKey: there is no such key within reach.
            EndedApiKey: it is revoked or expired.
            ConfigurationError: an argument is not usable.
            StoreUnavailable: the store does not answer now. A key that nobody holds may be listed then; rotate again.
        """
        pause = usable_seconds(overlap, "overlap", least=0)
        old = self._bounded(await self._find(key_id))
        now = int(self._clock())
        state = old.state_at(now)
        if state is not ApiKeyState.ACTIVE:
            raise EndedApiKey(state)
        if expires_in is None and old.expires_at is not None:
            expires_in = old.expires_at - old.created_at
        minted = self._made(
            expires_in,
            service=old.service,
            tenant=old.tenant,
            scopes=old.scopes,
            name=old.name,
            actor_type=old.actor_type,
            replaces=old.id,
        )
        await self.store.add(minted.record)
        if not await self.store.shorten(old.id, now + pause):
            # It was revoked in between: whoever did that did not mean to leave a successor.
            await self.store.revoke(minted.record.id, now)
            raise EndedApiKey(ApiKeyState.REVOKED)
        return minted

    async def revoke(self, key_id: str) -> None:
        """Revoke a key for good. A key that is revoked stays so.

        It takes effect everywhere within `max_age`; with `revocations` at once, and on open connections too.

        Raises:
            UnknownApiKey: there is no such key within reach.
            StoreUnavailable: the store or the feed of revocations does not answer now; the key may be revoked or not.
                Try again.
        """
        record = await self._find(key_id)
        if not await self.store.revoke(record.id, int(self._clock())):
            raise UnknownApiKey
        if self._revocations is not None:
            await self._revocations.revoke_async(RevocationKind.TOKEN, record.id, issuer=self.issuer)

    async def list(
        self, *, tenant: str | UnsetType | None = UNSET, service: str | UnsetType = UNSET
    ) -> tuple[ApiKey, ...]:
        """Return the records of keys, the oldest first, ended ones too.

        Args:
            tenant: the id of a tenant; ``None``: keys of no tenant. Left out: all within reach.
            service: a service account; left out: all.

        Raises:
            InvalidTenantId: the tenant id is not usable.
            TenantRefused: the bound identity is of another tenant.
            StoreUnavailable: the store does not answer now.
        """
        if isinstance(tenant, str):
            validate_tenant_id(tenant)
        if service is not UNSET:
            usable_line(service, "service")
        reach = _reach()
        if reach is not UNSET:
            if tenant not in (UNSET, reach):
                raise _foreign_tenant()
            tenant = reach
        return await self.store.list(tenant=tenant, service=service)

    async def aclose(self) -> None:
        """Close the store, if it is one that can be closed. `TenantGuard.aclose` does this."""
        close = getattr(self.store, "aclose", None)
        if close is not None:
            await close()

    async def _find(self, key_id: str) -> ApiKey:
        record = await self._look_up(key_id) if is_key_id(key_id) else None
        if record is None or record.id != key_id or _reach() not in (UNSET, record.tenant):
            raise UnknownApiKey
        return record

    def __repr__(self) -> str:
        return f"ApiKeys({self.store!r}, prefix={self._format.prefix!r})"


def _reach() -> str | UnsetType | None:
    """The tenant whose keys are within reach; ``None`` for those of no tenant, ``UNSET`` for all."""
    binding = current_binding()
    if binding is None or binding.system is not None:
        return UNSET
    if binding.identity is None or binding.identity.tenant is None:
        return None
    return binding.identity.tenant.id


def _foreign_tenant() -> TenantRefused:
    return TenantRefused(
        "API keys of another tenant are out of reach.",
        mend='Name the bound tenant, or enter system("why") for work across tenants.',
    )
