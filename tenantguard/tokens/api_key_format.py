"""What an API key looks like: ``tgk_<id>_<secret><checksum>``, all base62.

The prefix and the checksum let scanners of source code find lost keys without asking anybody, and let the door refuse
what can't be a key without asking the store. The id, 16 characters, names the record. The secret, 43 characters, is 256
random bits. The checksum is the CRC-32 of all that stands before it; it finds typing errors and proves nothing.
"""

import re
import secrets
from hashlib import sha256
from typing import Final, final
from zlib import crc32

from tenantguard.errors import ConfigurationError
from tenantguard.tokens.api_key_records import HASH_LENGTH, ID_LENGTH, KeyHash

__all__ = ["NO_KEY", "KeyFormat", "digest", "is_key_id"]

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43  # 62 ** 43 is more than 2 ** 256
_CHECKSUM_LENGTH: Final = 6  # 62 ** 6 is more than 2 ** 32
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{1,15}")
_ID: Final = re.compile(rf"[0-9A-Za-z]{{{ID_LENGTH}}}")

NO_KEY: Final = KeyHash(secrets.token_bytes(HASH_LENGTH))
"""A digest that no key has."""


@final
class KeyFormat:
    """The form of the keys with one prefix.

    Args:
        prefix: a lower-case letter, then 1 to 15 lower-case letters and digits.

    Raises:
        ConfigurationError: the prefix is not usable.
    """

    __slots__ = ("_pattern", "prefix", "start")

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                "The prefix of API keys is a lower-case letter and 1 to 15 lower-case letters and digits.",
                mend='For example prefix="acme".',
            )
        self.prefix = prefix
        self.start = f"{prefix}_"
        self._pattern = re.compile(
            f"({prefix}_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
            f"([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
        )

    def new(self) -> tuple[str, str]:
        """Return the id of a new key, and the key."""
        key_id = _random(ID_LENGTH)
        body = f"{self.start}{key_id}_{_random(_SECRET_LENGTH)}"
        return key_id, body + _checksum(body)

    def id_of(self, text: object) -> str | None:
        """Return the id that a key names, or ``None`` if it is no key by its form."""
        form = self._pattern.fullmatch(text) if isinstance(text, str) else None
        return form[2] if form is not None and form[3] == _checksum(form[1]) else None


def digest(key: str) -> KeyHash:
    """Return the SHA-256 digest of a key as a whole: prefix, id and secret, so that none can be exchanged."""
    return KeyHash(sha256(key.encode("ascii")).digest())


def is_key_id(text: object) -> bool:
    """True if the text can be the id of a key."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number = crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
