"""Whose word a signed token is: the issuer by exact name, its keys, the header against what it may use, the signature.

What the claims say is not looked at here. Access tokens (`verifier.py`) and security event tokens
(`security_events.py`) both begin with this, so there is one way to trust a signature.
"""

import ssl
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn, final
from urllib.parse import urlsplit

import msgspec

from tenantguard.errors import ConfigurationError, InvalidToken
from tenantguard.tokens.background import DaemonThreads
from tenantguard.tokens.directory import KnownIssuers
from tenantguard.tokens.fetch import Fetcher, is_private_host
from tenantguard.tokens.issuers import Issuer, IssuerDirectory, normalize_type
from tenantguard.tokens.jwks import KeySet, VerificationKey
from tenantguard.tokens.jwt import CompactToken, parse_compact
from tenantguard.tokens.keysource import KeySource

__all__ = ["SignatureVerifier", "SignedToken"]


class SignedToken(NamedTuple):
    """A token whose signature is good and whose claims are not looked at yet.

    Args:
        compact: the token's parts.
        issuer: who signed it.
        key: thumbprint of the key that did.
    """

    compact: CompactToken
    issuer: Issuer
    key: str


@final
class SignatureVerifier:
    """Verifies the signatures of declared issuers. Thread-safe; usable from any number of event loops.

    Args:
        issuers: the issuers that are trusted.
        directory: asked for issuers that are not declared.
        directory_size: most issuers of the directory that are remembered.
        allow_private_addresses: True lets keys be fetched from private and loopback addresses, for all issuers.
        fetch_timeout: seconds for one fetch as a whole.
        fetch_limit: largest key set or metadata document, in bytes.
        ssl_context: for issuers behind a private certificate authority.
        issuer_changed: called with the name of an issuer that the directory no longer knows, or knows otherwise.
        keys_removed: called with an issuer's name and the thumbprints of keys that it withdrew.

    Raises:
        ConfigurationError: one issuer is declared twice, or could never be fetched.
    """

    __slots__ = ("_fetcher", "_issuers", "_keys_removed", "_threads", "allow_private_addresses")

    def __init__(
        self,
        issuers: Iterable[Issuer],
        *,
        directory: IssuerDirectory | None = None,
        directory_size: int = 10_000,
        allow_private_addresses: bool = False,
        fetch_timeout: float = 5.0,
        fetch_limit: int = 512 * 1024,
        ssl_context: ssl.SSLContext | None = None,
        issuer_changed: Callable[[str], object] = lambda _: None,
        keys_removed: Callable[[str, frozenset[str]], object] = lambda _issuer, _keys: None,
    ) -> None:
        declared = tuple(issuers)
        self.allow_private_addresses = allow_private_addresses
        self._keys_removed = keys_removed
        self._threads = DaemonThreads()
        self._fetcher = Fetcher(timeout=fetch_timeout, limit=fetch_limit, ssl_context=ssl_context)
        self._issuers = KnownIssuers(
            declared, directory=directory, size=directory_size, source=self._make_source, forgotten=issuer_changed
        )
        for issuer in declared:
            self._check_reachable(issuer)

    def _make_source(self, issuer: Issuer) -> KeySource:
        return KeySource(
            issuer,
            fetcher=self._fetcher,
            threads=self._threads,
            allow_private=self.allow_private_addresses,
            removed=self._keys_removed,
        )

    def _check_reachable(self, issuer: Issuer) -> None:
        """Say at the start what would fail on the first request: a literal private address that is not allowed."""
        if issuer.pinned is not None or not isinstance(issuer.jwks, str | None):
            return
        if self.allow_private_addresses or issuer.allow_private_addresses:
            return
        host = urlsplit(issuer.jwks or issuer.url).hostname
        if host is not None and is_private_host(host):
            raise ConfigurationError(
                f"The keys of issuer {issuer.url} are at a private address, which is not allowed.",
                mend="Set Issuer(allow_private_addresses=True) if it lives in your own network, or pin its keys.",
            )

    @property
    def declared(self) -> tuple[Issuer, ...]:
        """The declared issuers."""
        return tuple(source.issuer for source in self._issuers.declared.values())

    async def verify(self, token: str) -> SignedToken:
        """Return the token's parts, if an issuer that is trusted signed it.

        Raises:
            InvalidToken: it is malformed or forged, of an issuer that is not trusted, or of a type or an algorithm
                that this issuer may not use.
            IssuerUnavailable: the issuer's keys can't be had now.

        Source: RFC 7515, section 5.2; RFC 8725, sections 3.1 and 3.11.
        """
        compact = parse_compact(token)
        source = self._issuers.declared.get(compact.issuer) or await self._issuers.find(compact.issuer)
        _check_header(compact, source.issuer)
        keys = source.current()
        if keys is None:
            keys = await source.load()
        key = _pick(keys, compact) or await self._find_key(compact, source, keys)
        if not key.verify(compact.header.alg, compact.signing_input, compact.signature):
            raise InvalidToken("The token's signature is wrong.", reason="signature")
        return SignedToken(compact, source.issuer, key.thumbprint)

    async def _find_key(self, token: CompactToken, source: KeySource, keys: KeySet) -> VerificationKey:
        """Look for a key that the issuer may have published since."""
        kid = token.header.kid
        if kid is not msgspec.UNSET and not keys.has_kid(kid):
            reloaded = await source.reload_for(kid)
            key = _pick(reloaded, token) if reloaded is not None else None
            if key is not None:
                return key
        raise InvalidToken("The token's key is not one of its issuer.", reason="key")

    def forget_issuer(self, url: str) -> None:
        """Ask the directory anew when the next token of this issuer comes."""
        self._issuers.forget(url)

    def close(self) -> None:
        """Stop fetching."""
        self._threads.close()

    def __len__(self) -> int:
        return len(self._issuers)


def _pick(keys: KeySet, token: CompactToken) -> VerificationKey | None:
    kid = token.header.kid
    return keys.find(None if kid is msgspec.UNSET else kid, token.header.alg)


def _check_header(token: CompactToken, issuer: Issuer) -> None:
    """Compare the header with what the issuer may use (RFC 8725, sections 3.1 and 3.11; RFC 9068, section 4)."""
    header = token.header
    if header.alg not in issuer.algorithms:
        raise InvalidToken("The token's algorithm is not allowed for its issuer.", reason="algorithm")
    kind = "" if header.typ is msgspec.UNSET else normalize_type(header.typ)
    if kind not in issuer.types:
        _wrong_type()


def _wrong_type() -> NoReturn:
    raise InvalidToken(
        "The token is no access token by its typ.",
        reason="type",
        mend="Send the access token (RFC 9068). If the issuer documents another typ, use its claims preset or "
        'Issuer(token_types=["at+jwt", "jwt"]).',
    )
