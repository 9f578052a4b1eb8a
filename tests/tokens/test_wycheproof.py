"""Project Wycheproof's vectors for JSON Web Signatures and Keys, at the layer of form, key choice and signature.

The vectors sign short texts, not claims, so the claims checks do not run here. Each vector whose verdict differs from
ours is named below with its reason.
"""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantguard.errors import ConfigurationError, InvalidToken
from tenantguard.tokens.jwks import KeySet, parse_key_set, secret_key_set
from tenantguard.tokens.jwt import parse_header, split_compact

VECTORS = Path(__file__).parent.parent / "vectors" / "wycheproof"

STRICTER = {
    "emptyPayload": "a token without claims is refused before its signature is looked at",
    "Figure20": "the key is published for PS256, the token is signed with PS384: a key verifies its own algorithm alone",
    "Figure27": "the key is published for ES521, which no RFC registers; RFC 7518 calls the algorithm ES512",
    "InvalidCharacterInsertedInHeader": "a character outside base64url, which lenient decoders skip, is refused",
    "InvalidCharacterInsertedInPayload": "a character outside base64url, which lenient decoders skip, is refused",
    "jws_keyset": "symmetric keys come one by one from the declaration, never as a set that might be published",
}
"""Valid vectors that are refused on purpose, by the comment of the test or of its group."""


MISLABELLED = {"invalidBase64Padding", "invalidBase64PaddingInPayload"}
"""Vectors called invalid that are, character for character, the valid vector "ValidMac": their padding got lost."""


def load() -> list[Any]:
    found = []
    for name in ("json_web_signature_test", "json_web_key_test", "json_web_crypto_test"):
        for group in json.loads((VECTORS / f"{name}.json").read_text())["testGroups"]:
            for test in group["tests"]:
                if "jws" in test:
                    found.append(pytest.param(group, test, id=f"{name}-{test['tcId']}-{test['comment']}"))
    return found


def key_set(group: dict[str, Any]) -> KeySet:
    """The public keys as a published set; a single symmetric key as an issuer's declared secret."""
    shown = group.get("public") or group["private"]
    keys = shown.get("keys", [shown])
    if len(keys) == 1 and keys[0].get("alg") in ("HS256", "HS384", "HS512"):
        return secret_key_set(base64.urlsafe_b64decode(keys[0]["k"] + "=="), [keys[0]["alg"]])
    return parse_key_set(msgspec.json.encode({"keys": keys}), issuer="wycheproof")


def accepts(group: dict[str, Any], jws: Any) -> bool:
    try:
        keys = key_set(group)
        if not isinstance(jws, str):
            return False  # the JSON serialisation is no compact token
        header_json, _, signing_input, signature = split_compact(jws)
        header = parse_header(header_json)
    except (InvalidToken, ConfigurationError):
        return False
    kid = None if header.kid is msgspec.UNSET else header.kid
    key = keys.find(kid, header.alg)
    return key is not None and key.verify(header.alg, signing_input, signature)


@pytest.mark.parametrize(("group", "test"), load())
def test_wycheproof(group: dict[str, Any], test: dict[str, Any]) -> None:
    stricter = {group["comment"], test["comment"]} & STRICTER.keys()
    valid = (test["result"] == "valid" or test["comment"] in MISLABELLED) and not stricter
    assert accepts(group, test["jws"]) is valid, test["comment"]


def test_each_named_exception_is_a_valid_vector_of_these_files() -> None:
    valid = {name for case in load() for name in (case.values[0]["comment"], case.values[1]["comment"])
             if case.values[1]["result"] == "valid"}  # fmt: skip
    assert valid >= STRICTER.keys()
    texts = {case.values[1]["comment"]: case.values[1]["jws"] for case in load()}
    assert all(texts[comment] == texts["ValidMac"] for comment in MISLABELLED)
