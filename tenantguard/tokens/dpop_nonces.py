"""Nonces for DPoP proofs that need no memory (RFC 9449, sections 8 and 9).

A nonce is the time at which it was made and a keyed digest of that time. Every worker that has the secret accepts the
nonces of the others, and nothing has to be stored or cleaned up. A nonce only shows that a proof is fresh, which a
client with a wrong clock, or proofs made in advance, can't; it is not bound to one client and may serve many proofs.
"""

import hmac
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from math import isfinite
from time import time
from typing import Any, Final, final

from tenantguard.errors import ConfigurationError

__all__ = ["DPoPNonces"]

MINIMUM_SECRET: Final = 32
"""Shortest secret in bytes: as long as the digest of the HMAC (RFC 2104, section 3)."""
LONGEST_LIFETIME: Final = 3600.0
CLOCK_DIFFERENCE: Final = 10.0
"""Seconds by which the clock of the worker that made a nonce may be ahead of this one's."""

_CONTEXT: Final = b"tenantguard DPoP nonce 1\0"
_TIME_BYTES: Final = 8
_DIGEST_BYTES: Final = 16
_LENGTH: Final = (_TIME_BYTES + _DIGEST_BYTES) * 4 // 3
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_TO_STANDARD: Final = bytes.maketrans(b"-_+/", b"+/**")  # what only the standard alphabet has becomes unreadable


@final
class DPoPNonces:
    """Makes and checks nonces. Thread-safe: it holds nothing that changes.

    Args:
        secret: at least 32 random bytes that all workers share, for example from ``secrets.token_bytes(32)``; or
            several, of which the first makes nonces and all check them. To rotate, put the new one second, then first,
            then take the old one away.
        lifetime: seconds for which a nonce is accepted, 1 to 3600.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: a secret is no bytes or too short, or the lifetime is out of its range.

    Source: RFC 9449, sections 8, 9 and 11.1.
    """

    __slots__ = ("_clock", "_secrets", "lifetime")

    def __init__(
        self, secret: bytes | Sequence[bytes], lifetime: float = 120.0, *, clock: Callable[[], float] = time
    ) -> None:
        given: object = secret
        secrets: tuple[Any, ...] = ()
        if isinstance(given, bytes):
            secrets = (given,)
        elif isinstance(given, Sequence):
            secrets = tuple(given)
        if not secrets or not all(isinstance(one, bytes) and len(one) >= MINIMUM_SECRET for one in secrets):
            raise ConfigurationError(
                f"DPoPNonces needs a secret of at least {MINIMUM_SECRET} bytes, or a list of such secrets.",
                mend="Make one with secrets.token_bytes(32), and give all workers the same.",
            )
        number = isinstance(lifetime, int | float) and not isinstance(lifetime, bool)
        if not number or not isfinite(lifetime) or not 1 <= lifetime <= LONGEST_LIFETIME:
            raise ConfigurationError(
                f"The lifetime of DPoP nonces is no number of seconds from 1 to {LONGEST_LIFETIME:g}.",
                mend="For example lifetime=120.",
            )
        self.lifetime: Final = float(lifetime)
        self._secrets: tuple[bytes, ...] = secrets
        self._clock = clock

    def issue(self) -> str:
        """Return a nonce made now, for the header ``DPoP-Nonce``."""
        made = int(self._clock() * 1000).to_bytes(_TIME_BYTES, "big")
        return b2a_base64(made + _digest(self._secrets[0], made), newline=False).translate(_TO_URL).decode()

    def check(self, nonce: str) -> bool:
        """True if the nonce was made with one of the secrets and its time is not over. Never raises."""
        return self._look_at(nonce) is not None

    def should_renew(self, nonce: str) -> bool:
        """True if the client should have a new nonce: this one is past half its lifetime, not good, or of a secret
        that is on its way out."""
        found = self._look_at(nonce)
        return found is None or found[0] * 2 > self.lifetime or found[1] != 0

    def _look_at(self, nonce: str) -> tuple[float, int] | None:
        """Return a good nonce's age in seconds and the place of its secret."""
        if len(nonce) != _LENGTH:
            return None
        try:
            raw = a2b_base64(nonce.encode().translate(_TO_STANDARD), strict_mode=True)
        except ValueError:
            return None
        made, digest = raw[:_TIME_BYTES], raw[_TIME_BYTES:]
        # All secrets are tried, so that the time tells nothing about which of them fits.
        fitting = [place for place, secret in enumerate(self._secrets) if _fits(secret, made, digest)]
        age = self._clock() - int.from_bytes(made, "big") / 1000
        if not fitting or not -CLOCK_DIFFERENCE <= age <= self.lifetime:
            return None
        return age, fitting[0]

    def __repr__(self) -> str:
        return f"DPoPNonces({len(self._secrets)} secrets, lifetime={self.lifetime:g})"


def _digest(secret: bytes, made: bytes) -> bytes:
    return hmac.digest(secret, _CONTEXT + made, "sha256")[:_DIGEST_BYTES]


def _fits(secret: bytes, made: bytes, digest: bytes) -> bool:
    return hmac.compare_digest(_digest(secret, made), digest)
