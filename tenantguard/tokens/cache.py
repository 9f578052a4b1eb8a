"""Tokens that were verified before, so that each costs one signature verification and then a digest and a look-up.

The key is the token's SHA-256 digest: the token itself is not kept. Memory is bounded twice: in all, and per issuer, so
that whoever owns one issuer can't flush the tokens of the others. The oldest entry goes first; a look-up changes
nothing, so it takes no lock. An entry never outlives the token's ``exp``, nor the cache's own maximum age, after which
the token is verified anew against the issuer's present keys.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from time import time
from typing import final

import msgspec

from tenantguard.identity import Identity, TenantStatus
from tenantguard.tokens.claims import Verified

__all__ = ["CachedToken", "VerifiedTokenCache"]


class CachedToken(msgspec.Struct, gc=False):
    """One verified token.

    Args:
        until: seconds since the epoch when the entry ends.
        revision: the last state of the revocations that it was compared with.
        plain: what it stands for, where no more needs to be looked at: one active tenant, no sender constraint.
        verified: the identity with all its tenants.
        key: thumbprint of the key that verified it; empty for what is no signed token.
    """

    until: float
    revision: int
    plain: Identity | None
    verified: Verified
    key: str


def _plain(identity: Identity) -> Identity | None:
    tenant = identity.tenant
    if tenant is None or tenant.status is not TenantStatus.ACTIVE or identity.confirmation is not None:
        return None
    return identity


@final
class VerifiedTokenCache:
    """A bounded, thread-safe map from token to identity.

    Args:
        size: most entries; 0 keeps nothing.
        per_issuer: most entries of one issuer.
        max_age: most seconds that an entry is used.
    """

    __slots__ = ("_by_issuer", "_lock", "entries", "generation", "max_age", "per_issuer", "size")

    def __init__(self, size: int, *, per_issuer: int, max_age: float) -> None:
        self.size = size
        self.per_issuer = per_issuer
        self.max_age = max_age
        self.generation = 0
        self._lock = threading.Lock()
        self.entries: OrderedDict[bytes, CachedToken] = OrderedDict()
        self._by_issuer: dict[str | None, OrderedDict[bytes, None]] = {}

    @staticmethod
    def key_of(token: str) -> bytes:
        """Return the key of a token. A token that is no ASCII has none in the cache."""
        return sha256(token.encode("utf-8", "replace")).digest()

    def get(self, key: bytes) -> CachedToken | None:
        """Return the entry, or ``None`` if there is none or its time is over."""
        entry = self.entries.get(key)
        return entry if entry is not None and entry.until > time() else None

    def put(
        self, key: bytes, verified: Verified, *, until: float, signed_by: str, generation: int, revision: int = 0
    ) -> None:
        """Keep a verified token for a while, at most for `max_age`.

        Args:
            until: seconds since the epoch when it must be looked at anew, ``exp`` at the latest.
            signed_by: thumbprint of the key that verified it.
            revision: the state of the revocations that it was compared with.
            generation: the cache's `generation` before the token was looked at. If anything was dropped since,
                the token may be among what was meant, and is not kept.
        """
        now = time()
        if self.size <= 0 or until <= now:
            return
        entry = CachedToken(min(until, now + self.max_age), revision, _plain(verified.identity), verified, signed_by)
        issuer = verified.identity.issuer
        with self._lock:
            if generation != self.generation:
                return
            self._discard(key)
            own = self._by_issuer.get(issuer)
            if own is None:
                own = self._by_issuer[issuer] = OrderedDict()
            elif len(own) >= self.per_issuer:
                self._discard(next(iter(own)))
                own = self._by_issuer.setdefault(issuer, own)
            if len(self.entries) >= self.size:
                self._discard(next(iter(self.entries)))
                own = self._by_issuer.setdefault(issuer, own)
            self.entries[key] = entry
            own[key] = None

    def _discard(self, key: bytes) -> bool:
        """Remove one entry. The lock is held."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return False
        issuer = entry.verified.identity.issuer
        own = self._by_issuer[issuer]
        del own[key]
        if not own:
            del self._by_issuer[issuer]
        return True

    def drop(self, matches: Callable[[Verified], bool]) -> int:
        """Drop all entries that a predicate matches and return their number."""
        with self._lock:
            self.generation += 1
            entries = list(self.entries.items())
        return self._drop_if(entries, lambda entry: matches(entry.verified))

    def drop_issuer(self, issuer: str) -> int:
        """Drop all entries of an issuer and return their number."""
        return self._drop_if(self._of(issuer), lambda _: True)

    def drop_keys(self, issuer: str, thumbprints: frozenset[str]) -> int:
        """Drop the entries of an issuer that withdrawn keys had verified, and return their number."""
        return self._drop_if(self._of(issuer), lambda entry: entry.key in thumbprints)

    def drop_token(self, token: str) -> bool:
        """Drop one token; True if it was there."""
        with self._lock:
            self.generation += 1
            return self._discard(self.key_of(token))

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self.generation += 1
            self.entries.clear()
            self._by_issuer.clear()

    def _of(self, issuer: str) -> list[tuple[bytes, CachedToken]]:
        with self._lock:
            self.generation += 1
            return [(key, self.entries[key]) for key in self._by_issuer.get(issuer, ())]

    def _drop_if(self, entries: list[tuple[bytes, CachedToken]], matches: Callable[[CachedToken], bool]) -> int:
        # The predicate runs outside the lock, so that a long list holds up no request.
        dropped = 0
        for key, entry in entries:
            if matches(entry):
                with self._lock:
                    dropped += self._discard(key)
        return dropped

    def __len__(self) -> int:
        return len(self.entries)
