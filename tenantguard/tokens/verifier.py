"""The door: a presented token goes in, and one `Identity` comes out, or an error that says why not.

The steps are those of DESIGN: cache, form, issuer by exact name, header against what the issuer may use, key,
signature, claims, identity. Each is a function of another module; here they are put in order. A warm token never
awaits; a cold one awaits only while keys or an issuer must be fetched.
"""

import ssl
from collections.abc import Callable, Iterable
from hashlib import sha256
from time import time
from typing import NoReturn, final
from urllib.parse import urlsplit

import msgspec

from tenantguard.errors import ConfigurationError, InvalidToken, TenantRefused
from tenantguard.identity import Identity
from tenantguard.tokens.background import DaemonThreads
from tenantguard.tokens.cache import VerifiedTokenCache
from tenantguard.tokens.claims import ClaimsProfile, Verified, refuse_id_token
from tenantguard.tokens.directory import KnownIssuers
from tenantguard.tokens.fetch import Fetcher, is_private_host
from tenantguard.tokens.issuers import Issuer, IssuerDirectory, normalize_type
from tenantguard.tokens.jwks import KeySet, VerificationKey
from tenantguard.tokens.jwt import MAX_TOKEN_LENGTH, CompactToken, check_claims, decode_claims, parse_compact
from tenantguard.tokens.keysource import KeySource

__all__ = ["TokenVerifier"]


@final
class TokenVerifier:
    """Verifies signed access tokens of the declared issuers. Thread-safe; usable from any number of event loops.

    Args:
        issuers: the issuers that are trusted.
        directory: asked for issuers that are not declared; see `IssuerDirectory`.
        cache_size: most verified tokens that are remembered; about 1 kB each.
        cache_per_issuer: most of them of one issuer; by default all where one issuer is declared and there is
            no directory, else a quarter.
        cache_max_age: most seconds until a token is verified anew, against the issuer's present keys.
        directory_size: most issuers of the directory that are remembered.
        allow_private_addresses: True lets keys be fetched from private and loopback addresses, for all issuers;
            `Issuer(allow_private_addresses=True)` does so for one.
        fetch_timeout: seconds for one fetch as a whole.
        fetch_limit: largest key set or metadata document, in bytes.
        ssl_context: for issuers behind a private certificate authority.

    Raises:
        ConfigurationError: no issuer is declared and no directory given, one is declared twice, or one could
            never be fetched.
    """

    __slots__ = ("_cache", "_entries", "_fetcher", "_issuers", "_threads", "allow_private_addresses")

    def __init__(
        self,
        issuers: Iterable[Issuer] = (),
        *,
        directory: IssuerDirectory | None = None,
        cache_size: int = 50_000,
        cache_per_issuer: int | None = None,
        cache_max_age: float = 300.0,
        directory_size: int = 10_000,
        allow_private_addresses: bool = False,
        fetch_timeout: float = 5.0,
        fetch_limit: int = 512 * 1024,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        declared = tuple(issuers)
        if not declared and directory is None:
            raise ConfigurationError("No issuer is declared.", mend="Give issuers=[Issuer(...)] or a directory.")
        for name, number, least in (
            ("cache_size", cache_size, 0),
            ("cache_max_age", cache_max_age, 0),
            ("directory_size", directory_size, 1),
            ("fetch_timeout", fetch_timeout, 0.01),
            ("fetch_limit", fetch_limit, 1024),
        ):
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= least:
                raise ConfigurationError(f"{name} is not a number from {least} on.", mend=f"Leave {name} out.")
        self.allow_private_addresses = allow_private_addresses
        alone = len(declared) == 1 and directory is None
        share = cache_per_issuer if cache_per_issuer is not None else cache_size if alone else cache_size // 4
        self._cache = VerifiedTokenCache(cache_size, per_issuer=max(1, share), max_age=cache_max_age)
        self._entries = self._cache.entries
        self._threads = DaemonThreads()
        self._fetcher = Fetcher(timeout=fetch_timeout, limit=fetch_limit, ssl_context=ssl_context)
        self._issuers = KnownIssuers(
            declared,
            directory=directory,
            size=directory_size,
            source=self._make_source,
            forgotten=self._cache.drop_issuer,
        )
        for issuer in declared:
            self._check_reachable(issuer)

    def _make_source(self, issuer: Issuer) -> KeySource:
        return KeySource(
            issuer,
            fetcher=self._fetcher,
            threads=self._threads,
            allow_private=self.allow_private_addresses,
            removed=self._cache.drop_keys,
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

    # --- verification --------------------------------------------------------------------------------------

    def cached(self, token: str) -> Identity | None:
        """Return the identity of a token that was verified before and is still good; ``None`` otherwise.

        Never raises and never waits: the way for requests whose token has been seen.

        Args:
            token: the token as presented.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            entry = self._entries.get(sha256(token.encode()).digest())
        except UnicodeEncodeError:
            return None
        if entry is None or entry.until <= time():
            return None
        return entry.identity

    async def verify(self, token: str) -> Identity:
        """Return the identity that a token stands for.

        Args:
            token: the token as presented, without ``Bearer``.

        Raises:
            InvalidToken: it is malformed, forged, or meant for somebody else; `ExpiredToken` if its time is over.
            IssuerUnavailable: the issuer's keys can't be had now.
            TenantRefused: it names several tenants, and none was chosen; see `verify_all`.
            InvalidTenantId: its tenant's id is not usable.

        Source: RFC 7519, section 7.2; RFC 9068, section 4.
        """
        verified = await self.verify_all(token)
        if verified.identity.tenant is None and verified.undecided:
            raise TenantRefused(
                f"The token names {len(verified.tenants)} tenants and none was chosen.",
                mend="Name one of them, or ask the issuer for a token for one tenant.",
            )
        return verified.identity

    async def verify_all(self, token: str) -> Verified:
        """Return the identity with all tenants that the token names, so that one can be chosen.

        Raises:
            InvalidToken, IssuerUnavailable, InvalidTenantId: as for `verify`.
        """
        if not isinstance(token, str):
            raise InvalidToken("The token is no text.", reason="malformed")
        if len(token) <= MAX_TOKEN_LENGTH:
            cache_key = self._cache.key_of(token)
            entry = self._cache.get(cache_key)
            if entry is not None:
                return entry.verified
        else:
            cache_key = b""
        generation = self._cache.generation
        compact = parse_compact(token)
        source = self._issuers.declared.get(compact.issuer) or await self._issuers.find(compact.issuer)
        _check_header(compact, source.issuer)
        keys = source.current()
        if keys is None:
            keys = await source.load()
        key = _pick(keys, compact) or await self._find_key(compact, source, keys)
        if not key.verify(compact.header.alg, compact.signing_input, compact.signature):
            raise InvalidToken("The token's signature is wrong.", reason="signature")
        verified, expires_at = _identify(compact, source.issuer)
        self._cache.put(cache_key, verified, expires_at=expires_at, signed_by=key.thumbprint, generation=generation)
        return verified

    async def _find_key(self, token: CompactToken, source: KeySource, keys: KeySet) -> VerificationKey:
        """Look for a key that the issuer may have published since."""
        kid = token.header.kid
        if kid is not msgspec.UNSET and not keys.has_kid(kid):
            reloaded = await source.reload_for(kid)
            key = _pick(reloaded, token) if reloaded is not None else None
            if key is not None:
                return key
        raise InvalidToken("The token's key is not one of its issuer.", reason="key")

    # --- forgetting ----------------------------------------------------------------------------------------

    def forget_token(self, token: str) -> bool:
        """Drop one token from the cache; True if it was there."""
        return self._cache.drop_token(token)

    def forget(self, matches: Callable[[Verified], bool]) -> int:
        """Drop from the cache all tokens that a predicate matches, and return their number.

        Forgetting is not revoking: a token that is presented again is verified again.
        """
        return self._cache.drop(matches)

    def forget_issuer(self, url: str) -> int:
        """Drop an issuer's tokens from the cache, and its entry of the directory."""
        self._issuers.forget(url)
        return self._cache.drop_issuer(url)

    async def aclose(self) -> None:
        """Stop fetching and forget all tokens. The verifier can't be used afterwards for what needs the network."""
        self._threads.close()
        self._cache.clear()

    def __repr__(self) -> str:
        return f"TokenVerifier({len(self._issuers)} issuers, {len(self._cache)} cached tokens)"


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


def _identify(token: CompactToken, issuer: Issuer) -> tuple[Verified, float]:
    """Check the claims of a token whose signature is good, and return who it stands for and until when."""
    claims = decode_claims(token)
    expires_at = check_claims(claims, issuer.rules, time())
    mapping = issuer.claims
    if not isinstance(mapping, ClaimsProfile):
        refuse_id_token(claims)
    mapped = mapping(claims)
    verified = mapped if isinstance(mapped, Verified) else Verified(mapped, _tenants_of(mapped))
    identity = verified.identity
    if identity.issuer != issuer.url or identity.expires_at != int(expires_at):
        # A mapping of the app's own decides who it is, never whose word that is or how long it holds.
        identity = msgspec.structs.replace(identity, issuer=issuer.url, expires_at=int(expires_at))
        verified = msgspec.structs.replace(verified, identity=identity)
    return verified, expires_at


def _tenants_of(identity: Identity) -> tuple[str, ...]:
    return () if identity.tenant is None else (identity.tenant.id,)
