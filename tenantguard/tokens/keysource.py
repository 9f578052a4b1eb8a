"""The keys of one issuer over time: fetched when first needed, renewed in the background, kept through an outage.

Fresh keys are used as they are. Stale keys are used while one refresh runs in the background, until they are too old:
then the issuer counts as unavailable. A token with an unknown key id causes a refresh that its request waits for, so a
rotation fails no request; how often that may happen is limited by a small budget and by remembering absent ids, so that
forged key ids cause no storm of fetches. One refresh is in flight per issuer, however many requests wait.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, final

from tenantguard.errors import IssuerUnavailable
from tenantguard.tokens.background import DaemonThreads, wait_for
from tenantguard.tokens.discovery import discover_jwks_uri
from tenantguard.tokens.fetch import Fetcher, FetchError
from tenantguard.tokens.issuers import Issuer
from tenantguard.tokens.jwks import KeySet, parse_key_set

__all__ = ["KeySource"]

logger = logging.getLogger("tenantguard.tokens")

UNKNOWN_KID_BURST: Final = 4
"""How many refreshes for unknown key ids may follow each other at once."""
UNKNOWN_KID_INTERVAL: Final = 15.0
"""Seconds until one more is allowed."""
ABSENT_KID_SECONDS: Final = 10.0
"""How long a key id that a fresh set lacked is taken as absent."""
MAX_ABSENT_KIDS: Final = 64
RETRY_FIRST: Final = 1.0
"""Seconds after a failed refresh until the next; doubles up to `RETRY_LAST`."""
RETRY_LAST: Final = 30.0
DISCOVERY_FRESH_FOR: Final = 24 * 3600.0


@final
class KeySource:
    """The keys of one issuer. Thread-safe; belongs to no event loop.

    Args:
        issuer: whose keys.
        fetcher: how documents are fetched.
        threads: where fetches run.
        allow_private: private addresses may be connected to.
        removed: called with the thumbprints of keys that the issuer withdrew, in the refreshing thread.
    """

    __slots__ = (
        "_absent", "_allow_private", "_budget", "_budget_at", "_discovered", "_discovered_at", "_failures",
        "_fetched_at", "_fetcher", "_inflight", "_inflight_since", "_keys", "_lock", "_removed", "_retry_at",
        "_round", "_threads", "issuer",
    )  # fmt: skip

    def __init__(
        self,
        issuer: Issuer,
        *,
        fetcher: Fetcher,
        threads: DaemonThreads,
        allow_private: bool,
        removed: Callable[[str, frozenset[str]], object],
    ) -> None:
        self.issuer = issuer
        self._fetcher = fetcher
        self._threads = threads
        self._allow_private = allow_private or issuer.allow_private_addresses
        self._removed = removed
        self._lock = threading.Lock()
        self._keys = issuer.pinned
        self._fetched_at = monotonic()
        self._inflight: Future[KeySet] | None = None
        self._inflight_since = 0.0
        self._round = 0
        self._failures = 0
        self._retry_at = 0.0
        self._absent: dict[str, float] = {}
        self._budget = float(UNKNOWN_KID_BURST)
        self._budget_at = self._fetched_at
        self._discovered: str | None = None
        self._discovered_at = 0.0

    def current(self) -> KeySet | None:
        """Return the keys if they may be used now; starts a refresh in the background if they are stale."""
        keys = self._keys
        if keys is None or self.issuer.pinned is not None:
            return keys
        age = monotonic() - self._fetched_at
        if age <= self.issuer.keys_fresh_for:
            return keys
        if age > self.issuer.keys_max_age:
            return None
        if monotonic() >= self._retry_at:
            self._refresh()
        return keys

    async def load(self) -> KeySet:
        """Return usable keys, waiting for a refresh if there are none.

        Raises:
            IssuerUnavailable: they can't be had now.
        """
        keys = self.current()
        if keys is not None:
            return keys
        with self._lock:
            waiting = self._inflight is None and monotonic() < self._retry_at
        if waiting:
            raise self._unavailable("its last answer failed, and the next try is later")
        return await self._wait(self._refresh())

    async def reload_for(self, kid: str) -> KeySet | None:
        """Return the keys of a refresh that began after now, for a token whose key id is unknown.

        ``None`` where no refresh is allowed: the keys are pinned, the id was absent a moment ago, or the budget
        is used up.

        Raises:
            IssuerUnavailable: the refresh failed.
        """
        if self.issuer.pinned is not None:
            return None
        arrived = monotonic()
        with self._lock:
            running = self._inflight
        if running is not None:
            # It may have read the set before the key was published; then one more is needed.
            keys = await self._wait(running)
            if keys.has_kid(kid):
                return keys
        with self._lock:
            if self._keys is not None and self._keys.has_kid(kid):
                return self._keys
            absent_until = self._absent.get(kid, 0.0)
            if absent_until > arrived or (arrived < self._retry_at and self._inflight is None):
                return None
            joined = self._inflight is not None and self._inflight_since >= arrived
            if not joined and not self._spend(arrived):
                return None
        keys = await self._wait(self._refresh())
        if not keys.has_kid(kid):
            with self._lock:
                if len(self._absent) >= MAX_ABSENT_KIDS:
                    self._absent.pop(next(iter(self._absent)))
                self._absent[kid] = monotonic() + ABSENT_KID_SECONDS
        return keys

    def _spend(self, now: float) -> bool:
        """Take one refresh out of the budget for unknown key ids. The lock is held."""
        earned = (now - self._budget_at) / UNKNOWN_KID_INTERVAL
        self._budget = min(float(UNKNOWN_KID_BURST), self._budget + earned)
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _unavailable(self, why: str) -> IssuerUnavailable:
        return IssuerUnavailable(
            f"The keys of issuer {self.issuer.url} can't be had: {why}.",
            mend="Check that this host reaches the issuer, or pin its keys with Issuer(jwks=...).",
        )

    async def _wait(self, refresh: "Future[KeySet]") -> KeySet:
        try:
            # Discovery may take two fetches, the keys one; name resolution is not bounded by the fetch itself.
            return await wait_for(refresh, self._fetcher.timeout * 3 + 1)
        except TimeoutError:
            raise self._unavailable("it does not answer") from None
        except (FetchError, CancelledError) as fault:
            raise self._unavailable(str(fault).rstrip(".") or "the verifier is closed") from None

    def _refresh(self) -> "Future[KeySet]":
        """Return the refresh that is in flight, or start one."""
        with self._lock:
            running = self._inflight
            now = monotonic()
            # A refresh that hangs in name resolution, or was lost in a fork, is given up after a minute.
            if running is not None and now - self._inflight_since < 60:
                return running
            self._inflight_since = now
            self._round += 1
            self._inflight = self._threads.submit(partial(self._run, self._round))
            return self._inflight

    def _run(self, round_: int) -> KeySet:
        """One refresh, in a thread. What it found is in place before those who wait for it go on."""
        try:
            keys = self._fetch()
        except Exception as fault:
            with self._lock:
                if self._round == round_:
                    self._inflight = None
                    self._failures += 1
                    self._retry_at = monotonic() + min(RETRY_LAST, RETRY_FIRST * 2 ** min(self._failures - 1, 10))
                    self._discovered = None
            logger.warning("Refreshing the keys of issuer %s failed: %s", self.issuer.url, fault)
            raise
        with self._lock:
            if self._round != round_:
                return keys  # it was given up for a later refresh, whose keys are newer
            self._inflight = None
            withdrawn = self._keys.thumbprints - keys.thumbprints if self._keys is not None else frozenset()
            self._keys = keys
            self._fetched_at = monotonic()
            self._failures = 0
            self._retry_at = 0.0
            self._absent.clear()
        if withdrawn:
            logger.info("Issuer %s withdrew %d keys.", self.issuer.url, len(withdrawn))
            self._removed(self.issuer.url, withdrawn)
        return keys

    def _fetch(self) -> KeySet:
        """Get and parse the key set. Blocking; runs in a thread."""
        where = self.issuer.jwks
        try:
            if isinstance(where, Path):
                document = _read(where, self._fetcher.limit)
            else:
                url = where if isinstance(where, str) else self._discover()
                document = self._fetcher.get(url, allow_private=self._allow_private)
            keys = parse_key_set(document, issuer=self.issuer.url)
        except ValueError as fault:
            raise FetchError(str(fault)) from None
        if not keys:
            logger.warning("Issuer %s publishes no usable key.", self.issuer.url)
        return keys

    def _discover(self) -> str:
        now = monotonic()
        if self._discovered is None or now - self._discovered_at > DISCOVERY_FRESH_FOR:
            self._discovered = discover_jwks_uri(self._fetcher, self.issuer.url, allow_private=self._allow_private)
            self._discovered_at = now
        return self._discovered


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            document = file.read(limit + 1)
    except OSError as fault:
        raise FetchError(f"The key file can't be read ({type(fault).__name__}).") from None
    if len(document) > limit:
        raise FetchError(f"The key file is larger than {limit} bytes.")
    return document
