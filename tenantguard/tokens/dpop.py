"""Proof of possession (DPoP, RFC 9449): a token that is bound to a key is good only from whoever holds that key.

With each request the client sends a small signed token, the proof, that names the request's method and URI, the
access token and the time. `DPoP.check` makes the checks of section 4.3 in an order by cost: form and claims, then the
signature, and only then the replay store, so that nobody can fill it with what nobody signed. `dpop_proofs.py` parses,
`dpop_targets.py` compares URIs, `dpop_nonces.py` has the server's nonces, `replays.py` remembers proofs.
"""

import hmac
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from math import isfinite
from time import time
from typing import Final, NoReturn, final

import msgspec

from tenantguard.errors import ConfigurationError, InvalidProof, NonceRequired
from tenantguard.identity import Identity
from tenantguard.tokens.algorithms import ALGORITHMS, DEFAULT_ALGORITHMS
from tenantguard.tokens.dpop_nonces import DPoPNonces
from tenantguard.tokens.dpop_proofs import Proof, ProofClaims, ProofKeys, parse_proof
from tenantguard.tokens.dpop_targets import normalize_origin, normalize_target, target_at
from tenantguard.tokens.replays import InMemoryReplays, ReplayStore

__all__ = ["DPoP", "Possession"]

LONGEST_AGE: Final = 600.0
LONGEST_LEEWAY: Final = 120.0
_CLOCK_MARGIN: Final = 1.0
"""Seconds for which a proof is remembered at least beyond its end, for servers whose clocks differ."""
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")


class Possession(msgspec.Struct, frozen=True, gc=False):
    """The sender of a request has proved that it holds the key of its token.

    Args:
        jkt: the key's thumbprint.
        next_nonce: the nonce that the answer should give out in ``DPoP-Nonce``; ``None`` if the client's will do.
    """

    jkt: str
    next_nonce: str | None = None


@final
class DPoP:
    """What proofs of possession must be, checked once at the start. Thread-safe.

    Args:
        algorithms: the ``alg`` values that a proof may have; asymmetric ones alone.
        max_age: seconds since its ``iat`` for which a proof is accepted, 1 to 600.
        leeway: seconds by which a client's clock may be ahead, 0 to 120.
        nonces: if given, each proof must hold one of these nonces.
        replays: remembers the proofs that were used. The default serves one process; with several workers, give a
            store that they share, or a proof is good once for each worker.
        origin: the public ``scheme://host[:port]`` of the app. Without it, a proof's URI is compared with the
            request's own, whose host is what the request's Host header says. Set it behind a proxy, and wherever that
            header is not checked: else a server that was sent a proof for itself can use it here under its own name.
        required: True to refuse tokens that are bound to no key.
        clock: seconds since the epoch.

    Raises:
        ConfigurationError: an argument is wrong or would weaken a check.

    Source: RFC 9449, sections 4.3, 7 and 11.1.
    """

    __slots__ = ("_clock", "_keys", "_origin", "algorithms", "leeway", "max_age", "nonces", "replays", "required")

    def __init__(
        self,
        *,
        algorithms: Iterable[str] = DEFAULT_ALGORITHMS,
        max_age: float = 60.0,
        leeway: float = 10.0,
        nonces: DPoPNonces | None = None,
        replays: ReplayStore | None = None,
        origin: str | None = None,
        required: bool = False,
        clock: Callable[[], float] = time,
    ) -> None:
        self.algorithms: Final = _checked_algorithms(algorithms)
        self.max_age: Final = _checked_seconds("max_age", max_age, 1, LONGEST_AGE)
        self.leeway: Final = _checked_seconds("leeway", leeway, 0, LONGEST_LEEWAY)
        if nonces is not None and not isinstance(nonces, DPoPNonces):
            raise ConfigurationError(
                "DPoP(nonces=...) is no DPoPNonces.", mend="For example nonces=DPoPNonces(secret)."
            )
        self.nonces: Final = nonces
        if replays is not None and not isinstance(replays, ReplayStore):
            raise ConfigurationError(
                "DPoP(replays=...) is no replay store.", mend="For example replays=InMemoryReplays()."
            )
        self.replays: Final[ReplayStore] = InMemoryReplays() if replays is None else replays
        self._origin = None if origin is None else _checked_origin(origin)
        if not isinstance(required, bool):
            raise ConfigurationError("DPoP(required=...) is neither True nor False.", mend="For example required=True.")
        self.required: Final = required
        self._clock = clock
        self._keys = ProofKeys(frozenset(self.algorithms))

    async def check(
        self,
        *,
        proofs: Sequence[bytes],
        token: str,
        identity: Identity,
        method: str,
        url: str,
        scheme: str = "DPoP",
    ) -> Possession | None:
        """Check that the sender of a request holds the key that its access token is bound to.

        ``None`` is returned in one case alone: a token that is bound to no key comes as a bearer token, without a
        proof, and ``required`` is off. Whatever else is not proved is refused: a bound token under the Bearer scheme
        (a downgrade: RFC 9449, section 7.2), and a proof or the DPoP scheme with a token that is bound to nothing.

        Args:
            proofs: the values of all DPoP headers.
            token: the access token, whose own checks have passed.
            identity: what the token stands for.
            method: the request's method.
            url: the request's whole URI.
            scheme: the authentication scheme under which the token came.

        Raises:
            InvalidProof: possession is not proved; its ``reason`` tells why.
            NonceRequired: the proof lacks a good nonce.
            StoreUnavailable: whether the proof was used before can't be known now.

        Source: RFC 9449, sections 4.3, 7.1 and 7.2.
        """
        confirmation = identity.confirmation
        bound_to = None if confirmation is None else confirmation.jkt
        is_dpop = scheme.lower() == "dpop"
        if not bound_to:
            if proofs or is_dpop or self.required:
                _refuse(
                    "The token is bound to no DPoP key.",
                    "unbound",
                    mend="Ask the issuer for a bound token: send a proof to its token endpoint (RFC 9449, section 5).",
                )
            return None
        if not is_dpop:
            _refuse(
                "The token is bound to a DPoP key and comes under another scheme.",
                "scheme",
                mend="Send it as 'Authorization: DPoP <token>' with a proof in the DPoP header.",
            )
        if len(proofs) != 1:
            _refuse(
                "The request does not have exactly one DPoP header.",
                "missing" if not proofs else "several",
                mend="Send one proof (RFC 9449, section 4.1).",
            )
        proof = parse_proof(proofs[0], self._keys)
        if not hmac.compare_digest(proof.key.thumbprint.encode(), bound_to.encode()):
            _refuse("The DPoP proof is of another key than the one that the token is bound to.", "binding")
        ttl = self._check_claims(proof.claims, token=token, method=method, url=url)
        next_nonce = self._check_nonce(proof.claims.nonce)
        if not proof.is_signed():
            _refuse("The DPoP proof's signature is wrong.", "signature")
        self._keys.put(proof)
        if await self.replays.add(_replay_key(proof), ttl) is not True:
            _refuse(
                "The DPoP proof was used before.", "replay", mend="Make a new proof with a new jti for each request."
            )
        return Possession(proof.key.thumbprint, next_nonce)

    def _check_claims(self, claims: ProofClaims, *, token: str, method: str, url: str) -> float:
        """Compare the claims with the request, and return for how many seconds the proof must be remembered."""
        if claims.htm != method:
            _refuse("The DPoP proof is for another method.", "htm")
        try:
            here = normalize_target(url) if self._origin is None else target_at(self._origin, url)
            same = normalize_target(claims.htu) == here
        except ValueError:
            same = False
        if not same:
            _refuse(
                "The DPoP proof is for another URI.",
                "htu",
                mend="Set htu to the request's URI without query and fragment; behind a proxy, set DPoP(origin=...).",
            )
        age = self._clock() - claims.iat
        if age > self.max_age:
            _refuse("The DPoP proof is too old.", "too_old", mend="Make a new proof for each request.")
        if age < -self.leeway:
            _refuse("The DPoP proof is from the future.", "not_yet_valid", mend="Set the client's clock by NTP.")
        if not token.isascii() or not hmac.compare_digest(claims.ath.encode(), _digest(token.encode())):
            _refuse("The DPoP proof is for another access token.", "ath", mend="Set ath to the digest of this token.")
        return self.max_age - age + max(self.leeway, _CLOCK_MARGIN)

    def _check_nonce(self, nonce: str | None) -> str | None:
        """Return the nonce that the answer should give out, if the proof's is good."""
        nonces = self.nonces
        if nonces is None:
            return None
        if nonce is None or not nonces.check(nonce):
            raise NonceRequired(nonces.issue())
        return nonces.issue() if nonces.should_renew(nonce) else None

    async def aclose(self) -> None:
        """Close the replay store, if it holds anything open."""
        close = getattr(self.replays, "aclose", None)
        if close is not None:
            await close()

    def __repr__(self) -> str:
        return f"DPoP(max_age={self.max_age:g}, leeway={self.leeway:g}, required={self.required})"


def _refuse(message: str, reason: str, *, mend: str | None = None) -> NoReturn:
    raise InvalidProof(message, reason=reason, mend=mend)


def _digest(data: bytes) -> bytes:
    return b2a_base64(sha256(data).digest(), newline=False).translate(_TO_URL).rstrip(b"=")


def _replay_key(proof: Proof) -> str:
    # The thumbprint has one length, so no two pairs come to one text. The URI is left out: a jti is for one proof,
    # wherever it is sent (RFC 9449, section 4.2).
    return _digest(f"{proof.key.thumbprint}{proof.claims.jti}".encode()).decode()


# --- settings --------------------------------------------------------------------------------------------


def _checked_algorithms(algorithms: Iterable[str]) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    if isinstance(algorithms, str):
        names = (algorithms,)
    elif isinstance(algorithms, Iterable):
        names = tuple(algorithms)
    usable = [
        name for name in names if isinstance(name, str) and name in ALGORITHMS and ALGORITHMS[name].key_type != "oct"
    ]
    if not names or len(usable) != len(names):
        raise ConfigurationError(
            "DPoP(algorithms=...) needs the names of asymmetric signature algorithms.",
            mend=f"Supported are {', '.join(DEFAULT_ALGORITHMS)}.",
        )
    return tuple(dict.fromkeys(names))


def _checked_seconds(name: str, value: float, least: float, most: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or not least <= value <= most:
        raise ConfigurationError(
            f"DPoP({name}=...) is no number of seconds from {least:g} to {most:g}.", mend=f"For example {name}=10."
        )
    return float(value)


def _checked_origin(origin: str) -> str:
    try:
        return normalize_origin(origin)
    except (ValueError, TypeError):
        raise ConfigurationError(
            "DPoP(origin=...) is no scheme://host[:port].", mend='For example origin="https://api.example.com".'
        ) from None
