"""A clock and a store that tests of API keys move and watch, and the form of a key, told independently."""

import string
from typing import Any
from zlib import crc32

from tenantguard.tokens.api_keys import ApiKey, ApiKeys, InMemoryApiKeyStore, MintedKey

__all__ = ["BASE62", "HASH", "NOW", "Clock", "Watched", "checksum", "key", "key_id", "mint", "parts"]

NOW = 1_800_000_000
HASH = bytes(range(200, 232))
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Watched:
    """A store that counts what it is asked, and fails where a test wants it to."""

    def __init__(self) -> None:
        self.inner = InMemoryApiKeyStore()
        self.asked: list[str] = []
        self.failing: dict[str, BaseException] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def watched(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            if name in self.failing:
                raise self.failing[name]
            return await method(*args, **kwargs)

        return watched


async def mint(keys: ApiKeys, **changes: Any) -> MintedKey:
    return await keys.mint(**{"service": "invoice-sync", "tenant": "acme", "scopes": "documents:read", **changes})


def checksum(body: str) -> str:
    number, digits = crc32(body.encode()), ""
    while len(digits) < 6:
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


def parts(key: str) -> tuple[str, str, str]:
    _, key_id, rest = key.split("_")
    return key_id, rest[:43], rest[43:]


def key_id(number: int) -> str:
    return f"{number:016}"


def key(number: int = 1, **changes: object) -> ApiKey:
    fields: dict[str, object] = {
        "id": key_id(number),
        "secret_hash": HASH,
        "service": "invoice-sync",
        "tenant": "acme",
        "scopes": frozenset({"documents:read", "documents:write"}),
        "name": "the nightly job ü",
        "created_at": 1_700_000_000 + number,
    }
    return ApiKey(**{**fields, **changes})
