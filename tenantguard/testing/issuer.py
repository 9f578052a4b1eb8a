"""A development issuer: real keys, a real token service, one ASGI app, nothing stored.

It stands in for an identity provider on a developer's machine and in tests: discovery, published keys with rotation,
access tokens in the form of RFC 9068, and token exchange as of RFC 8693. It knows passwords in plain text and offers
the ``password`` grant, so it refuses to speak for a URL that is not on this machine. Never use it in production.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final
from urllib.parse import urlsplit

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tenantguard.errors import ConfigurationError
from tenantguard.identity import ActorType, validate_tenant_id
from tenantguard.testing.assertions import is_assertion, verify_assertion
from tenantguard.testing.grants import (
    JWT_TYPE,
    TOKEN_EXCHANGE,
    Granted,
    grant_client_credentials,
    grant_exchange,
    grant_password,
)
from tenantguard.testing.keys import SigningAlgorithm, SigningKey
from tenantguard.testing.parties import DevClient, DevUser, scope_set
from tenantguard.testing.token_request import (
    NO_STORE,
    OAuthError,
    authenticate_client,
    error_response,
    read_parameters,
)
from tenantguard.testing.transactions import TXN_TOKEN_TYPE, grant_transaction

__all__ = ["MAX_LIFETIME", "DevIssuer"]

MAX_LIFETIME: Final = 300
"""Longest lifetime of a token of the token endpoint, in seconds."""
DEFAULT_AUDIENCE: Final = "https://api.example.com"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@final
class DevIssuer:
    """An OpenID provider and token service for development and tests.

    Serve `app` with any ASGI server under `url`::

        issuer = DevIssuer(
            "http://127.0.0.1:9000",
            users=[DevUser("alice", tenant="acme", scopes="documents:read", password="wonderland")],
            clients=[DevClient("web", audiences="documents")],
        )
        uvicorn.run(issuer.app, port=9000)

    Args:
        url: the issuer's URL, which is the ``iss`` of its tokens, character for character.
        users: who can log in with the development-only ``password`` grant.
        clients: which clients can get tokens, and which.
        audience: the audience of minted tokens unless said otherwise.
        algorithm: of the first key: ES256, RS256 or EdDSA.
        trust_domain: the trust domain whose transaction token service this is
            (draft-ietf-oauth-transaction-tokens); ``None`` makes no transaction tokens.
        lifetime: seconds that tokens of the token endpoint live, 1 to 300.
        clock: returns seconds since the epoch.
        allow_remote_url: True lets the URL name another machine, for example a container by its name in a private
            development network. Whoever can reach it can try passwords.

    Raises:
        ConfigurationError: the URL is not on this machine, or another argument is not usable.
    """

    def __init__(
        self,
        url: str,
        *,
        users: Iterable[DevUser] = (),
        clients: Iterable[DevClient] = (),
        audience: str = DEFAULT_AUDIENCE,
        algorithm: SigningAlgorithm = "ES256",
        trust_domain: str | None = None,
        lifetime: int = 120,
        clock: Callable[[], float] = time.time,
        allow_remote_url: bool = False,
    ) -> None:
        self.url: Final = url
        self.audience: Final = audience
        self.users: Final = {user.subject: user for user in users}
        self.clients: Final = {client.client_id: client for client in clients}
        self._path = _issuer_path(url, allow_remote_url=allow_remote_url)
        if not 1 <= lifetime <= MAX_LIFETIME:
            raise ConfigurationError(
                f"The development issuer's lifetime is {lifetime} seconds.", mend=f"Use 1 to {MAX_LIFETIME} seconds."
            )
        self.trust_domain: Final = trust_domain
        self._lifetime = lifetime
        self._clock = clock
        self._keys: tuple[SigningKey, ...] = (SigningKey.generate(algorithm),)
        self.app: Final = Starlette(routes=self._routes())

    def __repr__(self) -> str:
        return f"DevIssuer({self.url!r}, users={len(self.users)}, clients={len(self.clients)})"

    @property
    def token_endpoint(self) -> str:
        """The URL of the token endpoint."""
        return f"{self.url.rstrip('/')}/token"

    @property
    def jwks_uri(self) -> str:
        """The URL of the published keys."""
        return f"{self.url.rstrip('/')}/jwks"

    @property
    def key(self) -> SigningKey:
        """The key that signs now."""
        return self._keys[0]

    @property
    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The published keys as a JSON Web Key Set (RFC 7517, section 5)."""
        return {"keys": [key.public_jwk for key in self._keys]}

    def rotate(self, algorithm: SigningAlgorithm | None = None, *, retire: bool = False) -> SigningKey:
        """Sign with a new key from now on, and return it.

        Args:
            algorithm: of the new key; that of the current one unless said.
            retire: True withdraws all earlier keys at once, so that their tokens are good no longer; otherwise the
                one before stays published.
        """
        current = self._keys[0]
        fresh = SigningKey.generate(algorithm or current.algorithm)
        self._keys = (fresh,) if retire else (fresh, current)
        return fresh

    def mint(
        self,
        subject: str = "alice",
        *,
        tenant: str | None = "acme",
        audience: str | Iterable[str] | None = None,
        scopes: str | Iterable[str] = (),
        actor_type: str = "human",
        act: Mapping[str, Any] | None = None,
        client_id: str | None = None,
        expires_in: float = 120,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
    ) -> str:
        """Return a signed access token without asking anybody, for tests.

        Args:
            subject: ``sub``; need not be a registered user.
            tenant: ``tenant_id``; ``None`` leaves it out.
            audience: ``aud``; the issuer's default audience unless given.
            scopes: ``scope``, as a set or separated by spaces.
            actor_type: what the subject is: ``"human"``, ``"service"`` or ``"agent"``.
            act: who acts, outermost first (RFC 8693, section 4.1).
            client_id: the client; the subject itself for machines, ``"dev"`` for people, unless given.
            expires_in: seconds until ``exp``; negative for a token that has expired.
            claims: put over all others; ``...`` as a value leaves a claim out.
            headers: header parameters over the usual ones; ``...`` leaves one out.
            key: another key than the current one, for example one that was never published.

        Raises:
            ValueError: the actor type is unknown, or the tenant id is not usable.

        Source: RFC 9068, section 2.
        """
        kind = ActorType(actor_type)
        aud = self.audience if audience is None else audience
        payload: dict[str, Any] = {
            "sub": subject,
            "aud": aud if isinstance(aud, str) else list(aud),
            "client_id": client_id or (subject if kind.is_machine else "dev"),
            "actor_type": kind.value,
        }
        if tenant is not None:
            payload["tenant_id"] = validate_tenant_id(tenant)
        if act is not None:
            payload["act"] = dict(act)
        return self._sign(payload, scope_set(scopes), expires_in, claims=claims, headers=headers, key=key)

    def _sign(
        self,
        payload: Mapping[str, Any],
        scopes: frozenset[str],
        expires_in: float,
        *,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
    ) -> str:
        now = int(self._clock())
        complete: dict[str, Any] = {"iss": self.url, **payload, "iat": now, "exp": int(now + expires_in)}
        complete["jti"] = secrets.token_urlsafe(16)
        complete["scope"] = " ".join(sorted(scopes))
        complete.update(claims or {})
        kept = {name: value for name, value in complete.items() if value is not ...}
        return (key or self.key).sign(kept, {"typ": "at+jwt", **(headers or {})})

    def _routes(self) -> list[Route]:
        path = self._path
        return [
            Route(f"{path}/.well-known/openid-configuration", self._metadata),
            # RFC 8414 puts the well-known part before the issuer's own path, section 3.1.
            Route(f"/.well-known/oauth-authorization-server{path}", self._metadata),
            Route(f"{path}/jwks", self._jwks),
            Route(f"{path}/token", self._token, methods=["POST"]),
        ]

    async def _metadata(self, _: Request) -> JSONResponse:
        """Source: RFC 8414, section 2; OpenID Connect Discovery 1.0, section 3."""
        return JSONResponse(
            {
                "issuer": self.url,
                "token_endpoint": self.token_endpoint,
                "jwks_uri": self.jwks_uri,
                "response_types_supported": [],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self._keys} | {"RS256"}),
                "grant_types_supported": ["client_credentials", "password", TOKEN_EXCHANGE],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            }
        )

    async def _jwks(self, _: Request) -> JSONResponse:
        return JSONResponse(self.jwks, headers={"cache-control": "public, max-age=60"})

    async def _token(self, request: Request) -> JSONResponse:
        """Source: RFC 6749, sections 3.2 and 5; RFC 8693, section 2."""
        try:
            parameters = await read_parameters(request)
            client = authenticate_client(request.headers.get("authorization"), parameters, self.clients)
            granted = self._grant(client, parameters)
        except OAuthError as error:
            return error_response(error)
        lifetime = self._lifetime
        if granted.not_after is not None:
            lifetime = min(lifetime, granted.not_after - int(self._clock()))
        if lifetime <= 0:
            return error_response(OAuthError("invalid_request", "The subject_token has expired."))
        transaction = granted.issued_token_type == TXN_TOKEN_TYPE
        typ = {"typ": "txntoken+jwt"} if transaction else {}
        answer: dict[str, Any] = {
            "access_token": self._sign(granted.claims, granted.scopes, lifetime, headers=typ),
            "token_type": "N_A" if transaction else "Bearer",
            "expires_in": lifetime,
            "scope": " ".join(sorted(granted.scopes)),
        }
        if granted.issued_token_type is not None:
            answer["issued_token_type"] = granted.issued_token_type
        return JSONResponse(answer, headers=NO_STORE)

    def _grant(self, client: DevClient, parameters: Mapping[str, str]) -> Granted:
        match parameters.get("grant_type"):
            case "client_credentials":
                return grant_client_credentials(client, parameters)
            case "password":
                return grant_password(client, parameters, self.users)
            case grant if grant == TOKEN_EXCHANGE and parameters.get("requested_token_type") == TXN_TOKEN_TYPE:
                return grant_transaction(
                    client,
                    parameters,
                    trust_domain=self.trust_domain,
                    verify=self._verify,
                    assertion=self._assertion(client, parameters),
                )
            case grant if grant == TOKEN_EXCHANGE:
                return grant_exchange(
                    client,
                    parameters,
                    issuer=self.url,
                    verify=self._verify,
                    assertion=self._assertion(client, parameters),
                )
            case None:
                raise OAuthError("invalid_request", "The request needs a grant_type.")
            case _:
                raise OAuthError("unsupported_grant_type", "This issuer does not know the grant type.")

    def _assertion(self, client: DevClient, parameters: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the claims of the subject token, where it is the client's own assertion; ``None`` for all others."""
        token = parameters.get("subject_token", "")
        if parameters.get("subject_token_type") != JWT_TYPE or not is_assertion(client, token):
            return None
        return verify_assertion(client, token, audience=self.url, clock=self._clock)

    def _verify(self, token: str, what: str, typ: str = "at+jwt") -> dict[str, Any]:
        """Return the claims of one of this issuer's own access or transaction tokens."""
        try:
            header = jwt.get_unverified_header(token)
            key = next(key for key in self._keys if key.kid == header.get("kid"))
            if header.get("typ") != typ:
                raise jwt.InvalidTokenError
            claims: dict[str, Any] = jwt.decode(
                token,
                key.private_key.public_key(),
                algorithms=[key.algorithm],
                issuer=self.url,
                # The clock may be the caller's, so the times are compared below; the audience is the grant's to judge.
                options={"require": ["exp", "iat", "sub", "aud"], "verify_aud": False, "verify_exp": False},
            )
            if not isinstance(claims["exp"], int) or claims["exp"] <= self._clock():
                raise jwt.ExpiredSignatureError
        except (jwt.PyJWTError, StopIteration, RecursionError):
            raise OAuthError("invalid_request", f"The {what} is not a valid token of this issuer.") from None
        return claims


def _issuer_path(url: str, *, allow_remote_url: bool) -> str:
    """Return the path of the issuer's URL, without a slash at the end."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            "The development issuer's URL is not usable.", mend='For example DevIssuer("http://127.0.0.1:9000").'
        )
    if host not in _LOOPBACK and not allow_remote_url:
        raise ConfigurationError(
            "The development issuer knows passwords in plain text and speaks for this machine only.",
            mend="Use a loopback URL, or allow_remote_url=True in a private development network.",
        )
    return parts.path.rstrip("/")
