"""The door: a presented token goes in, and one `Identity` comes out, or an error that says why not.

The steps are: cache, form, signature (`signatures.py`), claims, identity, revocation; or, for what is no signed token,
the first of the app's further kinds of credential whose form it has. Each is a function of another module; here they
are put in order. A warm token never awaits; a cold one awaits only while keys or an issuer must be
fetched, or a store asked.
"""

import ssl
from collections.abc import Callable, Iterable
from hashlib import sha256
from time import time
from typing import final

import msgspec

from tenantguard.errors import ConfigurationError, ExpiredToken, InvalidToken, TenantRefused
from tenantguard.identity import Identity
from tenantguard.tokens.cache import VerifiedTokenCache
from tenantguard.tokens.chains import ChainRules
from tenantguard.tokens.claims import ClaimsProfile, Verified, refuse_id_token
from tenantguard.tokens.credentials import CredentialVerifier
from tenantguard.tokens.issuers import Issuer, IssuerDirectory
from tenantguard.tokens.jwt import MAX_TOKEN_LENGTH, CompactToken, check_claims, decode_claims
from tenantguard.tokens.revocation import Revocations
from tenantguard.tokens.signatures import SignatureVerifier

__all__ = ["TokenVerifier"]


@final
class TokenVerifier:
    """Verifies access tokens of the declared issuers, and further kinds of credential.

    Thread-safe; usable from any number of event loops.

    Args:
        issuers: the issuers that are trusted.
        credentials: further kinds of credential, for example `ApiKeys` and `Introspection`. The first whose form a
            token has decides; what no kind accepts is taken for a signed token.
        revocations: what was revoked; by default nothing can be.
        directory: asked for issuers that are not declared; see `IssuerDirectory`.
        chains: which delegation chains are accepted.
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
        ConfigurationError: no issuer is declared and no directory or further kind given, one is declared twice,
            or one could never be fetched.
    """

    __slots__ = ("_cache", "_chains", "_credentials", "_entries", "_signatures", "revocations")

    def __init__(
        self,
        issuers: Iterable[Issuer] = (),
        *,
        credentials: Iterable[CredentialVerifier] = (),
        revocations: Revocations | None = None,
        directory: IssuerDirectory | None = None,
        chains: ChainRules | None = None,
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
        self._credentials = _checked_kinds(credentials)
        self._chains = chains if chains is not None else ChainRules()
        if not declared and directory is None and not self._credentials:
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
        alone = len(declared) == 1 and directory is None and not self._credentials
        share = cache_per_issuer if cache_per_issuer is not None else cache_size if alone else cache_size // 4
        self._cache = VerifiedTokenCache(cache_size, per_issuer=max(1, share), max_age=cache_max_age)
        self._entries = self._cache.entries
        self.revocations = revocations if revocations is not None else Revocations()
        self._signatures = SignatureVerifier(
            declared,
            directory=directory,
            directory_size=directory_size,
            allow_private_addresses=allow_private_addresses,
            fetch_timeout=fetch_timeout,
            fetch_limit=fetch_limit,
            ssl_context=ssl_context,
            issuer_changed=self._cache.drop_issuer,
            keys_removed=self._cache.drop_keys,
        )

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The declared issuers."""
        return self._signatures.declared

    # --- verification --------------------------------------------------------------------------------------

    def cached(self, token: str) -> Identity | None:
        """Return the identity of a token that was verified before and needs nothing more; ``None`` otherwise.

        Never raises and never waits: the way for requests whose token has been seen. Tokens that are bound to a key,
        that name no tenant or several, or that were verified before the latest revocation take the long way.

        Args:
            token: the token as presented.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            entry = self._entries.get(sha256(token.encode()).digest())
        except UnicodeEncodeError:
            return None
        if entry is None or entry.until <= time() or entry.revision != self.revocations.revision:
            return None
        return entry.plain

    async def verify(self, token: str) -> Identity:
        """Return the identity that a token stands for. A sender constraint is not checked here.

        Args:
            token: the token as presented, without ``Bearer``.

        Raises:
            InvalidToken: it is malformed, forged, revoked, or meant for somebody else; `ExpiredToken` if its time is
                over.
            Unavailable: the issuer's keys, or a store, can't be had now.
            TenantRefused: it names several tenants, and none was chosen; see `verify_all`.
            InvalidTenantId: its tenant's id is not usable.

        Source: RFC 7519, section 7.2; RFC 9068, section 4.
        """
        verified = await self.verify_all(token)
        if verified.undecided:
            raise TenantRefused(
                f"The token names {len(verified.tenants)} tenants and none was chosen.",
                mend="Name one of them, or ask the issuer for a token for one tenant.",
            )
        return verified.identity

    async def verify_all(self, token: str) -> Verified:
        """Return the identity with all tenants that the token names, so that one can be chosen.

        Raises:
            InvalidToken, Unavailable, InvalidTenantId: as for `verify`.
        """
        if not isinstance(token, str):
            raise InvalidToken("The token is no text.", reason="malformed")
        revocations = self.revocations
        await revocations.ready()
        revision = revocations.revision
        cache_key = self._cache.key_of(token) if len(token) <= MAX_TOKEN_LENGTH else b""
        entry = self._cache.get(cache_key)
        if entry is not None:
            if entry.revision != revision:
                revocations.check(entry.verified.identity)
                entry.revision = revision
            return entry.verified
        generation = self._cache.generation
        for kind in self._credentials:
            if kind.accepts(token):
                verified, until, signed_by = await self._ask(kind, token)
                break
        else:
            compact, issuer, signed_by = await self._signatures.verify(token)
            verified, until = _identify(compact, issuer)
            revocations.check_lifetime(until)
        self._chains.check(verified.identity)
        revocations.check(verified.identity)
        self._cache.put(cache_key, verified, until=until, signed_by=signed_by, generation=generation, revision=revision)
        return verified

    async def _ask(self, kind: CredentialVerifier, token: str) -> tuple[Verified, float, str]:
        """Return what a kind of credential says of a token, and until when that may be reused."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken(f"The token is longer than {MAX_TOKEN_LENGTH} characters.", reason="size")
        now = time()
        answer = await kind.verify(token)
        verified = answer if isinstance(answer, Verified) else Verified(answer, _tenants_of(answer))
        expires_at = verified.identity.expires_at
        if expires_at is not None and expires_at <= now:
            raise ExpiredToken
        until = now + kind.max_age
        return verified, until if expires_at is None else min(until, expires_at), ""

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
        self._signatures.forget_issuer(url)
        return self._cache.drop_issuer(url)

    async def aclose(self) -> None:
        """Stop fetching, close the further kinds of credential, and forget all tokens.

        The verifier can't be used afterwards for what needs the network.
        """
        for kind in self._credentials:
            close = getattr(kind, "aclose", None)
            if close is not None:
                await close()
        self._signatures.close()
        self.revocations.close()
        self._cache.clear()

    def __repr__(self) -> str:
        return f"TokenVerifier({len(self._signatures)} issuers, {len(self._cache)} cached tokens)"


def _checked_kinds(credentials: Iterable[CredentialVerifier]) -> tuple[CredentialVerifier, ...]:
    kinds = tuple(credentials)
    for kind in kinds:
        if not (callable(getattr(kind, "accepts", None)) and callable(getattr(kind, "verify", None))):
            raise ConfigurationError(
                f"credentials has a {type(kind).__name__} in it, which can't verify credentials.",
                mend="See CredentialVerifier: accepts(token), verify(token) and max_age.",
            )
        age = getattr(kind, "max_age", None)
        if isinstance(age, bool) or not isinstance(age, int | float) or not 0 <= age <= 3600:
            raise ConfigurationError(
                f"The max_age of {type(kind).__name__} is not a number of seconds from 0 to 3600.",
                mend="For example max_age=30.0.",
            )
    return kinds


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
