"""The value of the setting that says whose transaction it is, plain or sealed.

A sealed value names its tenant, what it is for and the time at which it was made, under an HMAC-SHA256.
Whoever can run SQL as the app's role can set the setting, and can't make the HMAC: the key is in the app's memory, and
in a table that the role can't read. PostgreSQL has SHA-256 and no HMAC without an extension, so its table holds the
key's two padded forms (RFC 2104), from which HMAC is two hashes.
"""

import base64
import hashlib
import hmac
import time
from typing import Final, Literal, final, get_args

import msgspec

from tenantguard.errors import ConfigurationError
from tenantguard.identity import Identity
from tenantguard.orm.rls.expressions import literal
from tenantguard.orm.rls.functions import KEYS_TABLE, MAX_AGE

__all__ = ["BoundTo", "Seal", "plain_value"]

BoundTo = Literal["backend", "transaction", "time"]

_BLOCK: Final = 64
_SHORTEST: Final = 32


def plain_value(identity: Identity) -> str:
    """Return the setting without a seal: the tenant's id, and what the identity is narrowed to inside it."""
    assert identity.tenant is not None
    if not identity.dimensions:
        return identity.tenant.id
    scope = base64.b64encode(msgspec.json.encode(dict(identity.dimensions))).decode()
    return f"{identity.tenant.id} {scope}"


@final
class Seal:
    """Seals the setting. It never shows its key.

    Args:
        key: at least 32 random bytes, for example ``secrets.token_bytes(32)``.
        bound_to: what a seal is good for beside its time. ``"backend"``: every transaction of one backend of
            PostgreSQL, and it costs no round trip. ``"transaction"``: one transaction alone, for one more round trip
            at its begin; also behind a pooler that gives a transaction any backend, as PgBouncer's transaction mode
            does. ``"time"``: everything, for `max_age`; behind such a pooler, where the round trip is too dear.
        max_age: seconds that a seal may be older or younger than the transaction.

    Raises:
        ConfigurationError: the key is too short, or another argument is none of those above.
    """

    __slots__ = ("_key", "bound_to", "key_id", "max_age")

    def __init__(self, key: bytes, *, bound_to: BoundTo = "backend", max_age: int = MAX_AGE) -> None:
        if not isinstance(key, bytes) or len(key) < _SHORTEST:
            raise ConfigurationError(
                f"The key of a seal has at least {_SHORTEST} bytes.", mend="Make one with secrets.token_bytes(32)."
            )
        if isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 1:
            raise ConfigurationError("max_age is no number of seconds.", mend=f"For example max_age={MAX_AGE}.")
        if bound_to not in get_args(BoundTo):
            raise ConfigurationError(
                "bound_to is none of what a seal can be bound to.", mend=f"It is one of {', '.join(get_args(BoundTo))}."
            )
        self._key = hashlib.sha256(key).digest() if len(key) > _BLOCK else key
        self.bound_to = bound_to
        self.max_age = max_age
        self.key_id = hmac.digest(self._key, b"tenantguard seal key id", "sha256").hex()[:12]

    def __repr__(self) -> str:
        return "Seal(...)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A seal can't be pickled: its key would leave the process.")

    def value(self, body: str, bound: str) -> str:
        """Return the sealed setting.

        Args:
            body: what `plain_value` returns.
            bound: the process id of the backend as the driver knows it, or what PostgreSQL answers for this transaction
                to `tenantguard.orm.rls.functions.TRANSACTION`. It is left out where the seal is bound to its time.
        """
        head = f"{self.key_id}.{'0' if self.bound_to == 'time' else bound}.{int(time.time())}"
        mac = hmac.digest(self._key, f"{head} {body}".encode(), "sha256").hex()
        return f"{head}.{mac} {body}"

    def key_statement(self) -> str:
        """Return the SQL that puts the key into the database. It holds the key: print and log it nowhere."""
        padded = self._key.ljust(_BLOCK, b"\0")
        inside, outside = (bytes(byte ^ pad for byte in padded).hex() for pad in (0x36, 0x5C))
        halves = f"decode('{inside}', 'hex'), decode('{outside}', 'hex')"
        values = f"{literal(self.key_id)}, {halves}, {literal(self.bound_to)}, {self.max_age}"
        return (
            f"INSERT INTO {KEYS_TABLE} (id, inside, outside, bound_to, max_age) VALUES ({values}) "
            "ON CONFLICT (id) DO UPDATE SET bound_to = excluded.bound_to, max_age = excluded.max_age"
        )
