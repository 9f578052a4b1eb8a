"""What was good and is so no longer: revoked tokens, sessions, grants, subjects, actors and tenants.

A revocation is a fact with a time. Of a token id, a session and a grant it says that all their tokens are void: these
ids are never used twice. Of a subject, an actor and a tenant it says that the tokens issued until then are void; who
logs in again afterwards gets new ones.

Requests of tokens that were seen before compare one number: `Revocations.revision`, which changes with each revocation
and then has each token looked at once more. Several workers share their revocations through a `RevocationFeed`. While
the feed is silent nobody can know what was revoked elsewhere, so requests are refused, unless the app chose otherwise.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from itertools import count
from time import time
from typing import Final, Literal, Protocol, final

import anyio.to_thread
import msgspec

from tenantguard.errors import ConfigurationError, InvalidToken, RevokedToken, StoreUnavailable
from tenantguard.identity import Identity
from tenantguard.tokens.background import wait_for

__all__ = ["Revocation", "RevocationFeed", "RevocationKind", "Revocations"]

logger = logging.getLogger("tenantguard.tokens")

FIRST_CONTACT_SECONDS: Final = 3.0
_SWEEP_EVERY: Final = 1024


class RevocationKind(StrEnum):
    """What a revocation is about."""

    TOKEN = "token"
    SESSION = "session"
    GRANT = "grant"
    SUBJECT = "subject"
    ACTOR = "actor"
    TENANT = "tenant"

    @property
    def is_final(self) -> bool:
        """True for ids that are never used again: the time of issue does not matter."""
        return self in (RevocationKind.TOKEN, RevocationKind.SESSION, RevocationKind.GRANT)


class Revocation(msgspec.Struct, frozen=True, gc=False):
    """One revocation.

    Args:
        kind: what is revoked.
        id: its id: ``jti``, ``sid``, grant id, ``sub``, the actor's ``sub``, or the tenant's id.
        issuer: whose id that is; ``None`` for the ids of every issuer.
        at: seconds since the epoch; tokens of a subject, actor or tenant that were issued until then are void.
    """

    kind: RevocationKind
    id: str
    issuer: str | None
    at: float


class RevocationFeed(Protocol):
    """What carries revocations between workers, for example ``tenantguard_redis.RedisRevocations``."""

    def publish(self, revocation: Revocation, /, *, until: float) -> None:
        """Send a revocation to all workers, and keep it for those that start later. May block.

        Args:
            revocation: what to send.
            until: seconds since the epoch until when it must be kept.

        Raises:
            StoreUnavailable: it may not have been sent.
        """
        ...

    def start(self, receive: Callable[[Revocation], None], connected: Callable[[bool], None], /) -> None:
        """Begin to listen, in a thread. Called once in each process, on the first request.

        Args:
            receive: to be called with each revocation, those kept from before as well; from any thread.
            connected: to be called with True once all that was kept has been received, and with False when contact
                is lost.
        """
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


_Key = tuple[RevocationKind, str | None, str]


@final
class Revocations:
    """The revocations that hold in this process, and the way to add to them. Thread-safe.

    Args:
        feed: shares them with other workers. Without one they hold in this process alone.
        keep_for: seconds for which a revocation is remembered, about 300 bytes each. A signed token that lives longer
            than that is refused, since its revocation would be forgotten before it ends.
        when_disconnected: what to do with requests while the feed has no contact: ``"refuse"`` (503), or
            ``"accept"``, which trusts what was known before and says so in the log.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = (
        "_connected",
        "_entries",
        "_feed",
        "_first_contact",
        "_lock",
        "_started_in",
        "_watch_ids",
        "_watchers",
        "keep_for",
        "revision",
        "when_disconnected",
    )

    def __init__(
        self,
        *,
        feed: RevocationFeed | None = None,
        keep_for: float = 31 * 24 * 3600.0,
        when_disconnected: Literal["refuse", "accept"] = "refuse",
    ) -> None:
        if isinstance(keep_for, bool) or not isinstance(keep_for, int | float) or not 60 <= keep_for <= 366 * 86400:
            raise ConfigurationError(
                "keep_for is not a number of seconds from 60 to a year.", mend="For example keep_for=86400."
            )
        if when_disconnected not in ("refuse", "accept"):
            raise ConfigurationError(
                'when_disconnected is neither "refuse" nor "accept".', mend='Leave it out for "refuse".'
            )
        self.keep_for = float(keep_for)
        self.when_disconnected = when_disconnected
        self.revision = 0
        self._feed = feed
        self._connected = feed is None
        self._started_in: int | None = None
        self._first_contact: Future[None] = Future()
        self._lock = threading.Lock()
        self._entries: dict[_Key, tuple[float, float]] = {}
        self._watchers: dict[int, Callable[[], None]] = {}
        self._watch_ids = count()

    # --- revoking ------------------------------------------------------------------------------------------

    def revoke(
        self,
        kind: RevocationKind,
        id: str,  # noqa: A002 - its name
        *,
        issuer: str | None = None,
        at: float | None = None,
    ) -> Revocation:
        """Revoke, here at once and in every other worker within a second. Blocks while a feed is written to.

        Args:
            kind: what to revoke.
            id: its id.
            issuer: whose id that is. Give it where you know it: without, the ids of every issuer are revoked.
            at: seconds since the epoch when it happened; now by default, and never later.

        Raises:
            StoreUnavailable: the feed could not be written to. It holds in this process all the same; try again.
            ValueError: the id is empty.
        """
        if not isinstance(id, str) or not id:
            raise ValueError('An id is needed, for example revoke(RevocationKind.SESSION, "session-id").')
        now = time()
        revocation = Revocation(RevocationKind(kind), id, issuer, now if at is None else min(at, now))
        self.receive(revocation)
        if self._feed is not None:
            self._feed.publish(revocation, until=revocation.at + self.keep_for)
        return revocation

    async def revoke_async(
        self,
        kind: RevocationKind,
        id: str,  # noqa: A002 - its name
        *,
        issuer: str | None = None,
        at: float | None = None,
    ) -> Revocation:
        """Do what `revoke` does without holding up the event loop."""
        return await anyio.to_thread.run_sync(lambda: self.revoke(kind, id, issuer=issuer, at=at))

    def receive(self, revocation: Revocation) -> None:
        """Take in a revocation that somebody else made."""
        now = time()
        until = revocation.at + self.keep_for
        if until <= now:
            return
        key = (revocation.kind, revocation.issuer, revocation.id)
        with self._lock:
            known = self._entries.get(key)
            if known is not None and known[0] >= revocation.at:
                return
            self._entries[key] = (revocation.at, until)
            if len(self._entries) % _SWEEP_EVERY == 0:
                self._entries = {key: entry for key, entry in self._entries.items() if entry[1] > now}
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            self.revision += 1
            watchers = list(self._watchers.values())
        for wake in watchers:
            wake()

    # --- asking --------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until what other workers revoked before is known.

        Raises:
            StoreUnavailable: the feed has no contact, and the app did not choose to accept that.
        """
        if self._connected:
            return
        if self._feed is not None and self._started_in != os.getpid():
            with self._lock:  # a server may fork workers after the app was made; threads do not survive that
                first, self._started_in = self._started_in != os.getpid(), os.getpid()
            if first:
                self._feed.start(self.receive, self._contact)
        if not self._first_contact.done():
            with contextlib.suppress(TimeoutError):
                await wait_for(self._first_contact, FIRST_CONTACT_SECONDS)
        self._refuse_unless_connected()

    def _contact(self, connected: bool) -> None:
        changed, self._connected = self._connected != connected, connected
        if connected:
            with self._lock:
                if not self._first_contact.done():
                    self._first_contact.set_result(None)
        if changed:
            if not connected:
                logger.error(
                    "The feed of revocations is silent: requests are %s.",
                    "refused" if self.when_disconnected == "refuse" else "accepted, although tokens may be revoked",
                )
            self._changed()

    def _refuse_unless_connected(self) -> None:
        if not self._connected and self.when_disconnected == "refuse":
            raise StoreUnavailable(
                "Revocations of other workers can't be known: their feed does not answer.",
                mend='Check the store, or choose Revocations(when_disconnected="accept").',
            )

    def check(self, identity: Identity) -> None:
        """Refuse an identity that was revoked.

        Raises:
            RevokedToken: it was.
            StoreUnavailable: see `ready`.
        """
        self._refuse_unless_connected()
        entries = self._entries
        if not entries:
            return
        for kind, issuer, id_ in _names_of(identity):
            for key in ((kind, issuer, id_), (kind, None, id_)):
                entry = entries.get(key)
                if entry is not None and (kind.is_final or (identity.issued_at or 0) <= entry[0]):
                    raise RevokedToken

    def check_lifetime(self, expires_at: float) -> None:
        """Refuse a signed token that lives longer than its revocation would be remembered.

        Raises:
            InvalidToken: it does.
        """
        if expires_at > time() + self.keep_for:
            raise InvalidToken(
                "The token lives longer than its revocation would be remembered.",
                reason="lifetime",
                mend="Have the issuer make tokens that live shorter, or raise Revocations(keep_for=...).",
            )

    def revoked(self, identity: Identity) -> bool:
        """True if the identity was revoked or that can't be known."""
        try:
            self.check(identity)
        except (RevokedToken, StoreUnavailable):
            return True
        return False

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after each change, from any thread, until the function that is returned is called."""
        with self._lock:
            number = next(self._watch_ids)
            self._watchers[number] = wake

        def stop() -> None:
            with self._lock:
                self._watchers.pop(number, None)

        return stop

    def close(self) -> None:
        """Stop listening to the feed."""
        if self._feed is not None and self._started_in == os.getpid():
            self._feed.close()

    def __len__(self) -> int:
        return len(self._entries)


def _names_of(identity: Identity) -> list[tuple[RevocationKind, str | None, str]]:
    """All names by which an identity can be revoked. Prior actors count: they had a hand in the token."""
    issuer = identity.issuer
    names: list[tuple[RevocationKind, str | None, str]] = [
        (RevocationKind.SUBJECT, identity.subject.issuer or issuer, identity.subject.id)
    ]
    names += [(RevocationKind.ACTOR, a.issuer or issuer, a.id) for a in (identity.actor, *identity.prior_actors)]
    if identity.token_id is not None:
        names.append((RevocationKind.TOKEN, issuer, identity.token_id))
    if identity.session_id is not None:
        names.append((RevocationKind.SESSION, issuer, identity.session_id))
    if identity.grant_id is not None:
        names.append((RevocationKind.GRANT, issuer, identity.grant_id))
    if identity.tenant is not None:
        names.append((RevocationKind.TENANT, issuer, identity.tenant.id))
    return names
