"""What an app trusts: one `Issuer` for each authorization server, checked when it is declared.

Every check of its tokens can be made stricter here; what weakens one must be spelled out (RFC 8725 wants algorithms,
issuer, audience and token type to be the app's choice, never the token's). Issuers that are only known at run time (one
per tenant, say) come from an `IssuerDirectory`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final, TypeAlias

from tenantguard.errors import ConfigurationError
from tenantguard.tokens.algorithms import ALGORITHMS, DEFAULT_ALGORITHMS
from tenantguard.tokens.claims import ClaimsMapping, ClaimsProfile
from tenantguard.tokens.fetch import url_fault
from tenantguard.tokens.jwks import KeySet, StaticKeys, secret_key_set
from tenantguard.tokens.jwt import ClaimRules

__all__ = ["MAX_LEEWAY", "Issuer", "IssuerDirectory", "normalize_type"]

MAX_LEEWAY: Final = 120.0
"""Most seconds by which the clocks of issuer and app may be taken to differ."""

_DEFAULT_PROFILE: Final = ClaimsProfile()


def normalize_type(typ: str) -> str:
    """Return a ``typ`` value for comparison: lower case, without ``application/`` (RFC 7515, section 4.1.9)."""
    return typ.lower().removeprefix("application/")


@dataclass(frozen=True, slots=True)
class Issuer:
    """One authorization server whose access tokens are accepted.

    Args:
        url: the issuer's name, exactly as its tokens write it in ``iss``. https, or http on loopback.
        audience: whom its tokens must be for; one of them is enough.
        algorithms: the ``alg`` values that may be used. HMAC (``HS256`` ...) only with ``secret``.
        claims: how its claims become an identity: a preset or a callable.
        jwks: where its keys are: ``None`` for discovery, a URL, the path of a JWKS file, or pinned keys
            (`StaticKeys` or ``{"keys": [...]}``).
        secret: the shared secret for HMAC; at least as long as the hash.
        token_types: accepted ``typ`` values of the header; ``""`` accepts a token without. ``None`` takes
            those of the claims profile: ``at+jwt`` unless the preset's provider documents others.
        leeway: seconds by which clocks may differ, 0 to 120.
        max_token_age: seconds since ``iat`` after which a token is refused, however late its ``exp``.
        required_claims: claims that must be there beyond iss, sub, aud, exp and iat.
        keys_fresh_for: seconds after which keys are fetched anew, in the background.
        keys_max_age: seconds for which keys are used while the issuer can't be reached.
        allow_private_addresses: True for an issuer in your own network.

    Raises:
        ConfigurationError: an argument is missing, wrong, or would weaken a check.
    """

    url: str
    audience: str | Iterable[str] = field(kw_only=True)
    algorithms: Iterable[str] = field(default=DEFAULT_ALGORITHMS, kw_only=True)
    claims: ClaimsMapping = field(default=_DEFAULT_PROFILE, kw_only=True)
    jwks: StaticKeys | Mapping[str, Any] | Path | str | None = field(default=None, kw_only=True)
    secret: bytes | None = field(default=None, kw_only=True, repr=False)
    token_types: Iterable[str] | None = field(default=None, kw_only=True)
    leeway: float = field(default=10.0, kw_only=True)
    max_token_age: float | None = field(default=None, kw_only=True)
    required_claims: Iterable[str] = field(default=(), kw_only=True)
    keys_fresh_for: float = field(default=300.0, kw_only=True)
    keys_max_age: float = field(default=4 * 3600.0, kw_only=True)
    allow_private_addresses: bool = field(default=False, kw_only=True)
    types: frozenset[str] = field(init=False, repr=False, compare=False)
    rules: ClaimRules = field(init=False, repr=False, compare=False)
    pinned: KeySet | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_url()
        audiences = _names("audience", self.audience, 'audience="https://api.example.com"')
        algorithms = _names("algorithms", self.algorithms, 'algorithms=["RS256"]')
        self._set("audience", tuple(sorted(audiences)))
        self._set("algorithms", algorithms)
        self._check_algorithms(algorithms)
        required = _names("required_claims", self.required_claims, 'required_claims=["jti"]', empty=True)
        self._set("required_claims", required)
        types = self.token_types
        if types is None:
            types = self.claims.token_types if isinstance(self.claims, ClaimsProfile) else ("at+jwt",)
        types = () if isinstance(types, str) else tuple(types)
        if not types or not all(isinstance(one, str) for one in types):
            raise ConfigurationError(
                f"The token_types of issuer {self.url} are no list of names.",
                mend='For example token_types=["at+jwt"].',
            )
        self._set("types", frozenset(map(normalize_type, types)))
        self._check_times()
        if not callable(self.claims):
            raise ConfigurationError(
                f"The claims of issuer {self.url} are no claims mapping.", mend="For example claims=auth0()."
            )
        self._set("pinned", self._pinned_keys())
        profile = self.claims
        self._set(
            "rules",
            ClaimRules(
                issuer=self.url,
                audiences=frozenset(audiences),
                audience_claims=profile.audience_claims if isinstance(profile, ClaimsProfile) else ("aud",),
                leeway=self.leeway,
                max_token_age=self.max_token_age,
                required=required,
            ),
        )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_url(self) -> None:
        fault = url_fault(self.url) if isinstance(self.url, str) else "it is no text"
        if fault is None and "?" in self.url:
            fault = "it has a query"
        if fault is not None:
            raise ConfigurationError(
                f"The issuer's URL is not usable: {fault}.",
                mend='Use the exact iss of its tokens, for example Issuer("https://acme.eu.auth0.com/", ...).',
            )

    def _check_algorithms(self, algorithms: tuple[str, ...]) -> None:
        unknown = sorted(set(algorithms) - set(ALGORITHMS))
        if unknown:
            raise ConfigurationError(
                f"Issuer {self.url} allows algorithms that are not supported: {', '.join(unknown)}.",
                mend=f"Supported are {', '.join(ALGORITHMS)}.",
            )
        symmetric = [name for name in algorithms if ALGORITHMS[name].key_type == "oct"]
        if symmetric and self.secret is None:
            raise ConfigurationError(
                f"Issuer {self.url} allows {', '.join(symmetric)} without a secret.",
                mend="Declare Issuer(secret=...), or better an asymmetric algorithm.",
            )
        if self.secret is not None and len(symmetric) != len(algorithms):
            raise ConfigurationError(
                f"Issuer {self.url} has a secret and also allows asymmetric algorithms.",
                mend='Declare algorithms=["HS256"], or leave the secret out.',
            )

    def _check_times(self) -> None:
        limits: tuple[tuple[str, float | None, float, float], ...] = (
            ("leeway", self.leeway, 0, MAX_LEEWAY),
            ("max_token_age", self.max_token_age, 1, float("inf")),
            ("keys_fresh_for", self.keys_fresh_for, 1, 24 * 3600),
            ("keys_max_age", self.keys_max_age, self.keys_fresh_for, 7 * 24 * 3600),
        )
        for name, value, least, most in limits:
            if value is None and name == "max_token_age":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not isfinite(value or 0) or not least <= (value or 0) <= most:
                raise ConfigurationError(
                    f"The {name} of issuer {self.url} is not a number of seconds from {least:g} to {most:g}.",
                    mend=f"For example {name}={min(max(least, 10), most):g}.",
                )

    def _pinned_keys(self) -> KeySet | None:
        jwks = self.jwks
        if self.secret is not None:
            if not isinstance(self.secret, bytes) or jwks is not None:
                raise ConfigurationError(
                    f"Issuer {self.url} has a secret that is no bytes, or a secret and jwks.",
                    mend="Give bytes, and one.",
                )
            return secret_key_set(self.secret, self.algorithms)
        if isinstance(jwks, str):
            fault = url_fault(jwks)
            if fault is not None:
                raise ConfigurationError(
                    f"The jwks of issuer {self.url} is no usable URL: {fault}.",
                    mend="Give an https URL, a pathlib.Path, StaticKeys, or nothing for discovery.",
                )
        if jwks is None or isinstance(jwks, str | Path):
            return None
        if not isinstance(jwks, StaticKeys):
            jwks = StaticKeys(jwks)
            self._set("jwks", jwks)
        fitting = [key for key in jwks.key_set.keys if not key.algorithms.isdisjoint(self.algorithms)]
        if not fitting:
            raise ConfigurationError(
                f"No pinned key of issuer {self.url} fits its algorithms.",
                mend="Add the key's algorithm to algorithms.",
            )
        return jwks.key_set

    def __repr__(self) -> str:
        return f"Issuer({self.url!r}, audience={self.audience!r})"


def _names(what: str, value: object, example: str, *, empty: bool = False) -> tuple[str, ...]:
    names: tuple[object, ...] = ()
    if isinstance(value, str):
        names = (value,)
    elif isinstance(value, Iterable):
        names = tuple(dict.fromkeys(value))
    if not all(isinstance(one, str) and one.strip() for one in names) or not (names or empty):
        raise ConfigurationError(f"Issuer({what}=...) needs one name or several.", mend=f"For example {example}.")
    return tuple(str(one) for one in names)


IssuerDirectory: TypeAlias = Callable[[str], Awaitable["Issuer | None"]]
"""Looks an issuer up by its exact ``iss``, for example in the app's table of tenants; ``None`` refuses the token."""
