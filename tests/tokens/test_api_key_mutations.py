"""No key but the one that was minted is accepted, whatever is done to its text."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantguard.errors import (
    InvalidToken,
)
from tenantguard.tokens.api_keys import (
    ApiKeys,
    InMemoryApiKeyStore,
)
from tests.support.api_keys import BASE62, NOW, checksum, mint

STORE = InMemoryApiKeyStore()
KEYS = ApiKeys(STORE, clock=lambda: NOW)
GOOD = anyio.run(mint, KEYS).key
OTHER = anyio.run(mint, KEYS).key
character = st.sampled_from(BASE62 + "_-./ \n\x00é")


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """The good key with a few characters changed, put in, left out, repeated or exchanged with another key's."""
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, len(text)))
        text = draw(
            st.sampled_from(
                [
                    text[:at] + draw(character) + text[at + 1 :],
                    text[:at] + draw(character) + text[at:],
                    text[:at] + text[end:],
                    text[:at] + text[at:end] * 2 + text[end:],
                    text[:at] + OTHER[at:end] + text[end:],
                    text[:at] + text[at:end].swapcase() + text[end:],
                    text[:at] + text[at:end][::-1] + text[end:],
                ]
            )
        )
    return text


def refused(token: str) -> None:
    if token in (GOOD, OTHER):
        return
    with pytest.raises(InvalidToken):
        anyio.run(KEYS.verify, token)


@given(mutations())
def test_a_mutated_key_is_never_accepted(token: str) -> None:
    refused(token)


@given(mutations())
def test_a_mutated_key_with_a_right_checksum_is_never_accepted(token: str) -> None:
    body = token[:-6]
    refused(body + checksum(body))


@given(st.text() | st.text(BASE62, min_size=49, max_size=49).map(lambda rest: f"{GOOD[:21]}{rest}"))
def test_no_other_text_is_a_key(token: str) -> None:
    assert KEYS.accepts(token) is token.startswith("tgk_")
    refused(token)


def test_each_single_wrong_character_is_found_without_a_store() -> None:
    for at in range(len(GOOD)):
        for wrong in BASE62 + "_":
            token = GOOD[:at] + wrong + GOOD[at + 1 :]
            if token != GOOD:
                assert KEYS._format.id_of(token) is None
