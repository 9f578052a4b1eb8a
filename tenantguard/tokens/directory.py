"""Which issuer a token is of: declared issuers by exact name, and those of a directory that is asked at run time.

A declared issuer is one dict look-up, whether there are ten or ten thousand. A name that is not declared costs nothing
unless a directory was given; then each name is asked for once at a time, and the answer, also "none", is remembered for
a while in a bounded map, the least recently used going first.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from time import monotonic
from typing import Final, final

import anyio

from tenantguard.errors import ConfigurationError, InvalidToken, IssuerUnavailable
from tenantguard.tokens.background import wait_for
from tenantguard.tokens.fetch import url_fault
from tenantguard.tokens.issuers import Issuer, IssuerDirectory
from tenantguard.tokens.keysource import KeySource

__all__ = ["KnownIssuers"]

logger = logging.getLogger("tenantguard.tokens")

LOOKUP_SECONDS: Final = 5.0
FOUND_SECONDS: Final = 300.0
ABSENT_SECONDS: Final = 30.0


class _Answer:
    __slots__ = ("source", "until")

    def __init__(self, source: KeySource | None, until: float) -> None:
        self.source = source
        self.until = until


def _unknown() -> InvalidToken:
    return InvalidToken(
        "The token's issuer is not trusted here.", reason="issuer", mend="Declare it with TenantGuard(issuers=[...])."
    )


@final
class KnownIssuers:
    """The issuers of one verifier, each with its keys.

    Args:
        declared: issuers that are always trusted.
        directory: asked for the others; ``None`` refuses them.
        size: most issuers of the directory that are remembered, found or absent.
        source: makes the keys of an issuer.
        forgotten: called with the name of an issuer that the directory no longer knows, or knows otherwise.

    Raises:
        ConfigurationError: one issuer is declared twice.
    """

    __slots__ = ("_answers", "_asked", "_directory", "_forgotten", "_lock", "_make", "_size", "declared")

    def __init__(
        self,
        declared: Iterable[Issuer],
        *,
        directory: IssuerDirectory | None,
        size: int,
        source: Callable[[Issuer], KeySource],
        forgotten: Callable[[str], object],
    ) -> None:
        self.declared: dict[str, KeySource] = {}
        self._make = source
        for issuer in declared:
            if not isinstance(issuer, Issuer):
                raise ConfigurationError(
                    f"issuers holds a {type(issuer).__name__}, not an Issuer.",
                    mend='For example issuers=[Issuer("https://acme.eu.auth0.com/", audience="https://api")].',
                )
            if issuer.url in self.declared:
                raise ConfigurationError(
                    f"The issuer {issuer.url} is declared twice.", mend="Declare it once, with all audiences."
                )
            self.declared[issuer.url] = source(issuer)
        self._directory = directory
        self._size = size
        self._forgotten = forgotten
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._asked: dict[str, Future[KeySource | None]] = {}

    def __len__(self) -> int:
        return len(self.declared) + len(self._answers)

    async def find(self, name: str) -> KeySource:
        """Return the keys of the issuer with exactly this name.

        Raises:
            InvalidToken: it is not trusted.
            IssuerUnavailable: the directory failed.
        """
        source = self.declared.get(name)
        if source is not None:
            return source
        if self._directory is None or url_fault(name) is not None:
            raise _unknown()
        with self._lock:
            answer = self._answers.get(name)
            if answer is not None:
                self._answers.move_to_end(name)
        if answer is None or answer.until <= monotonic():
            source = await self._ask(name, answer.source if answer is not None else None)
        else:
            source = answer.source
        if source is None:
            raise _unknown()
        return source

    def forget(self, name: str) -> None:
        """Ask the directory anew when the next token of this issuer comes."""
        with self._lock:
            self._answers.pop(name, None)

    async def _ask(self, name: str, known: KeySource | None) -> KeySource | None:
        while True:
            with self._lock:
                asked = self._asked.get(name)
                if asked is None:
                    mine = self._asked[name] = Future()
                    break
            try:
                return await wait_for(asked, LOOKUP_SECONDS + 1)
            except CancelledError:
                continue  # the request that asked was given up; this one asks then
            except TimeoutError:
                raise self._failed("did not answer in time") from None
        try:
            source = await self._look_up(name, known)
        except BaseException as fault:
            with self._lock:
                self._asked.pop(name, None)
            if isinstance(fault, Exception):
                mine.set_exception(fault)
            else:
                mine.cancel()
                mine.set_running_or_notify_cancel()
            raise
        with self._lock:
            self._asked.pop(name, None)
            self._answers[name] = _Answer(source, monotonic() + (FOUND_SECONDS if source else ABSENT_SECONDS))
            self._answers.move_to_end(name)
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        mine.set_result(source)
        if known is not None and source is not known:
            self._forgotten(name)
        return source

    async def _look_up(self, name: str, known: KeySource | None) -> KeySource | None:
        assert self._directory is not None
        try:
            with anyio.fail_after(LOOKUP_SECONDS):
                issuer = await self._directory(name)
        except TimeoutError:
            raise self._failed("did not answer in time") from None
        except Exception as fault:
            logger.exception("The issuer directory failed.")
            raise self._failed(f"failed ({type(fault).__name__})") from None
        if issuer is None:
            return None
        if not isinstance(issuer, Issuer) or issuer.url != name:
            logger.error("The issuer directory answered with something else than the issuer it was asked for.")
            raise self._failed("answered with another issuer than it was asked for")
        if known is not None and known.issuer == issuer:
            return known
        return self._make(issuer)

    def _failed(self, how: str) -> IssuerUnavailable:
        return IssuerUnavailable(
            f"The issuer directory {how}.", mend="Return the Issuer whose url is the name asked for, or None."
        )
