"""Opaque tokens: the authorization server is asked what they are (RFC 7662).

The answer goes through the same claims profiles as a signed token's claims, so the app sees no difference. It is reused
for a bounded time, one question is in flight per token, and a token that is not active is remembered for a few seconds,
so that somebody who repeats it costs the server nothing. The server's word is taken only over an authenticated
connection and only for what it was asked.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from hashlib import sha256
from math import isfinite
from time import monotonic, time
from typing import Any, Final, final

import msgspec

from tenantguard.errors import ConfigurationError, ExpiredToken, InvalidToken, IssuerUnavailable
from tenantguard.identity import Identity
from tenantguard.tokens.background import DaemonThreads, wait_for
from tenantguard.tokens.claim_values import Claims
from tenantguard.tokens.claims import ClaimsMapping, ClaimsProfile, Verified
from tenantguard.tokens.endpoint import ClientAuthentication, EndpointDown, OAuthEndpoint
from tenantguard.tokens.jwt import LATEST_TIME, audience_of

__all__ = ["Introspection", "looks_opaque"]

INACTIVE_SECONDS: Final = 5.0
MAX_INACTIVE: Final = 4096
MAX_QUESTIONS: Final = 1024
"""Most questions that may be in flight or waiting; more are refused at once, so that a flood can't pile up."""
_ACCESS_TOKEN_TYPES: Final = frozenset(
    ("bearer", "dpop", "access_token", "at+jwt", "urn:ietf:params:oauth:token-type:access_token")
)
_ACCESS_TOKEN_USES: Final = frozenset(("access", "access_token"))
_DEFAULT_PROFILE: Final = ClaimsProfile()
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def looks_opaque(token: str) -> bool:
    """True unless the token has the three parts of a signed token."""
    return token.count(".") != 2


@final
class Introspection:
    """Asks an introspection endpoint for opaque tokens. A `CredentialVerifier`.

    Args:
        endpoint: the introspection endpoint's URL: https, or http on this machine.
        issuer: the authorization server's name, which the identities get; an ``iss`` of the answer must equal it.
        audience: whom the tokens must be for, as the answer's ``aud`` says. ``None`` accepts tokens for anybody: only
            for a server that answers ``active`` to this client for this app's tokens alone.
        client_id: this app's client id at the server.
        client_secret: its secret.
        client_authentication: how the secret is shown.
        claims: how the answer becomes an identity: a preset or a callable, as for `Issuer`.
        accepts: which tokens are asked about; by default all that have not the form of a signed token.
        max_age: seconds for which an answer is reused: so long may a revocation at the server go unnoticed.
        leeway: seconds by which clocks may differ.
        timeout: seconds for one question as a whole.
        allow_plain_http: True lets secret and tokens travel unencrypted to another machine.

    Raises:
        ConfigurationError: an argument is not usable.

    Source: RFC 7662; RFC 9700, section 2.
    """

    __slots__ = (
        "_accepts", "_asked", "_claims", "_endpoint", "_inactive", "_lock", "_threads", "audience", "issuer",
        "leeway", "max_age", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        endpoint: str,
        *,
        issuer: str,
        audience: str | None,
        client_id: str,
        client_secret: str,
        client_authentication: ClientAuthentication = "client_secret_basic",
        claims: ClaimsMapping = _DEFAULT_PROFILE,
        accepts: Callable[[str], bool] = looks_opaque,
        max_age: float = 30.0,
        leeway: float = 10.0,
        timeout: float = 5.0,
        allow_plain_http: bool = False,
    ) -> None:
        for name, text in (("issuer", issuer), ("audience", audience)):
            if (text is None and name == "issuer") or (text is not None and not (isinstance(text, str) and text)):
                raise ConfigurationError(
                    f"Introspection({name}=...) needs a name.", mend='For example "https://login.example.com".'
                )
        for name, number, most in (("max_age", max_age, 3600), ("leeway", leeway, 120), ("timeout", timeout, 60)):
            least = 0.05 if name == "timeout" else 0
            if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
                raise ConfigurationError(
                    f"The {name} of the introspection is not a number of seconds from {least} to {most}.",
                    mend=f"Leave {name} out.",
                )
        if not callable(claims) or not callable(accepts):
            raise ConfigurationError(
                "claims and accepts of the introspection must be callable.", mend="For example claims=keycloak()."
            )
        self._endpoint = OAuthEndpoint(
            endpoint,
            client_id=client_id,
            client_secret=client_secret,
            client_authentication=client_authentication,
            allow_plain_http=allow_plain_http,
        )
        self.issuer = issuer
        self.audience = audience
        self.max_age = float(max_age)
        self.leeway = float(leeway)
        self.timeout = float(timeout)
        self._claims = claims
        self._accepts = accepts
        self._threads = DaemonThreads()
        self._lock = threading.Lock()
        self._asked: dict[bytes, Future[dict[str, Any]]] = {}
        self._inactive: OrderedDict[bytes, float] = OrderedDict()

    def accepts(self, token: str) -> bool:
        """True if the endpoint is asked about tokens of this form."""
        return self._accepts(token)

    async def verify(self, token: str) -> Verified:
        """Return the identity that the token stands for.

        Raises:
            InvalidToken: it is not active, or is no access token for this app.
            IssuerUnavailable: the endpoint does not answer, or not as RFC 7662 says.
        """
        key = sha256(token.encode()).digest()
        with self._lock:
            if self._inactive.get(key, 0.0) > monotonic():
                raise _inactive()
            asked = self._asked.get(key)
            if asked is None:
                if len(self._asked) >= MAX_QUESTIONS:
                    raise self._unavailable("too many tokens are being asked about")
                asked = self._asked[key] = self._threads.submit(partial(self._ask, key, token))
        try:
            answer = await wait_for(asked, self.timeout + 1)
        except (EndpointDown, CancelledError) as fault:
            raise self._unavailable(str(fault) or "it is closed") from None
        except TimeoutError:
            raise self._unavailable("it did not answer in time") from None
        return self._identify(answer)

    def _ask(self, key: bytes, token: str) -> dict[str, Any]:
        """Ask, in a worker thread.

        Raises:
            EndpointDown: there is no answer that says whether the token is active.
            InvalidToken: it is not.
        """
        try:
            form = {"token": token, "token_type_hint": "access_token"}
            status, body = self._endpoint.post(form, monotonic() + self.timeout)
            if status != 200:
                raise EndpointDown(f"it answered with status {status}")
            try:
                answer = _decode(body)
            except (msgspec.DecodeError, ValueError, RecursionError):
                raise EndpointDown("its answer is no JSON object") from None
            active = answer.get("active")
            if active.__class__ is not bool:
                raise EndpointDown("its answer does not say whether the token is active")
            if not active:
                self._remember_inactive(key)
                raise _inactive()
            return answer
        finally:
            with self._lock:
                self._asked.pop(key, None)

    def _remember_inactive(self, key: bytes) -> None:
        with self._lock:
            self._inactive[key] = monotonic() + INACTIVE_SECONDS
            self._inactive.move_to_end(key)
            if len(self._inactive) > MAX_INACTIVE:
                self._inactive.popitem(last=False)

    def _identify(self, answer: dict[str, Any]) -> Verified:
        now = time()
        if answer.get("iss", self.issuer) != self.issuer:
            raise InvalidToken("The token is of another issuer.", reason="issuer")
        if self.audience is not None and self.audience not in audience_of(answer):
            raise InvalidToken(
                "The token is for another audience.", reason="audience", mend="Ask for a token for this app."
            )
        _refuse_other_tokens(answer)
        expires_at, not_before, issued_at = (_time(answer, name) for name in ("exp", "nbf", "iat"))
        if expires_at is not None and expires_at + self.leeway <= now:
            raise ExpiredToken
        if (not_before or 0) > now + self.leeway or (issued_at or 0) > now + self.leeway:
            raise InvalidToken("The token is not valid yet.", reason="not_yet_valid")
        subject = answer.get("sub", answer.get("client_id"))
        if not isinstance(subject, str) or not subject:
            raise InvalidToken("The introspection names neither sub nor client_id.", reason="claims")
        claims: Claims = {
            "iat": 0,
            "exp": LATEST_TIME,
            "aud": self.issuer,
            **answer,
            "iss": self.issuer,
            "sub": subject,
        }
        mapped = self._claims(claims)
        verified = mapped if isinstance(mapped, Verified) else _verified(mapped)
        identity = msgspec.structs.replace(
            verified.identity,
            issuer=self.issuer,
            issued_at=None if issued_at is None else int(issued_at),
            expires_at=None if expires_at is None else int(expires_at),
            audience=audience_of(answer) if "aud" in answer else (),
        )
        return msgspec.structs.replace(verified, identity=identity)

    def _unavailable(self, why: str) -> IssuerUnavailable:
        return IssuerUnavailable(
            f"The introspection endpoint of {self.issuer} gives no usable answer: {why}.",
            mend="Check that this host reaches it, and the client's id and secret.",
        )

    async def aclose(self) -> None:
        """Close the connections and give up what is being asked."""
        self._threads.close()
        self._endpoint.close()

    def __repr__(self) -> str:
        return f"Introspection({self.issuer!r}, audience={self.audience!r})"


def _inactive() -> InvalidToken:
    return InvalidToken("The token is not active.", reason="inactive", mend="Ask the issuer for a new one.")


def _verified(identity: Identity) -> Verified:
    return Verified(identity, () if identity.tenant is None else (identity.tenant.id,))


def _refuse_other_tokens(answer: dict[str, Any]) -> None:
    """Refuse refresh and ID tokens, which servers call active as well.

    RFC 7662, section 2.2 has ``token_type``; some servers say it in ``token_use`` or ``typ``.
    """
    for name, allowed in (
        ("token_type", _ACCESS_TOKEN_TYPES),
        ("typ", _ACCESS_TOKEN_TYPES),
        ("token_use", _ACCESS_TOKEN_USES),
    ):
        value = answer.get(name)
        if value is not None and not (isinstance(value, str) and value.lower() in allowed):
            raise InvalidToken("This is no access token.", reason="type", mend="Send the access token instead.")
    if str(answer.get("token_type", "")).lower() == "dpop" and answer.get("cnf") is None:
        raise InvalidToken("The token is bound to a key that its issuer does not name.", reason="claims")


def _time(answer: dict[str, Any], name: str) -> float | None:
    value = answer.get(name)
    if value is None:
        return None
    if value.__class__ not in (int, float) or not isfinite(value) or not 0 <= value <= LATEST_TIME:
        raise InvalidToken(f"The introspection's {name} is no time in seconds.", reason="claims")
    return float(value)
