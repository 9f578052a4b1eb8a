"""The client of one token service: tokens for destinations, by exchange or for the service itself.

A token is kept until shortly before it expires, and refreshed ahead of time while it is used. For each caller and
destination one request is in flight, whoever waits for it: tasks of asyncio and trio, several event loops, threads. It
runs in a thread of its own with an empty context, so a waiter that is cancelled takes nothing from the others, and no
request can carry the identity of the task that happened to start it. Failures are not kept, but after several in a row
those whom they concern leave the token service in peace for a moment. There is no fall-back: without a good answer
nothing is sent. Source: RFC 8693; RFC 6749, section 4.4.
"""

import concurrent.futures
import contextvars
import logging
import os
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from time import monotonic, time
from typing import Any, Final, final

import msgspec

from tenantguard.binding import Credential
from tenantguard.errors import ConfigurationError, ExchangeError
from tenantguard.identity import Identity
from tenantguard.outbound.answers import ClaimNames, Fault, UsableToken, read_answer
from tenantguard.outbound.circuit import Blame, Circuits
from tenantguard.outbound.destinations import Destination
from tenantguard.outbound.token_cache import CachedToken, TokenCache
from tenantguard.outbound.token_requests import TOKEN_EXCHANGE, TXN_TOKEN, TokenRequest
from tenantguard.outbound.transactions import read_transaction_answer
from tenantguard.tokens.background import DaemonThreads, wait_for
from tenantguard.tokens.endpoint import ClientAuthentication, EndpointDown, OAuthEndpoint

__all__ = ["TOKEN_EXCHANGE", "TokenExchange"]

logger = logging.getLogger("tenantguard.outbound")

GRACE: Final = 0.5
"""Seconds beyond the deadline of a request that a waiter gives the thread to report it."""
REFRESH_RETRY: Final = 5.0
"""Seconds between two attempts to refresh a token that is still good."""
FORGET_AFTER: Final = 1.0
"""Seconds that a token must be old before a 401 of the destination makes it be forgotten."""

_Outcome = UsableToken | Fault


@final
class TokenExchange:
    """Gets tokens for destinations from one token endpoint. Thread-safe; one object serves the whole process.

    Args:
        token_endpoint: its URL: https, or http on this machine.
        client_id: this service's client id.
        client_secret: its secret.
        client_authentication: ``"client_secret_basic"`` or ``"client_secret_post"``.
        actor_audience: the audience of an access token of this service itself, which is then shown as ``actor_token``
            (RFC 8693, section 2.1) with every exchange, so that the new token names this service as its actor on top of
            those before. ``None`` where the token service takes the authenticated client for the actor.
        request_details: called with the identity of a new transaction; what it returns becomes part of the
            transaction's immutable context (``request_details``). It must be encodable as JSON.
        timeout: seconds for one request as a whole.
        max_tokens: most tokens that are kept.
        tenant_claim: the claim with the tenant in the tokens of this service; ``None`` if they have none.
        subject_claim: the claim with the subject; ``None`` if it differs from token to token.
        ssl_context: for a token service behind a private certificate authority; certificates are always checked.
        allow_plain_http: True lets the secret and the tokens travel unencrypted to another machine.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = (
        "_actor",
        "_actor_lock",
        "_cache",
        "_circuits",
        "_endpoint",
        "_flights",
        "_lock",
        "_names",
        "_pid",
        "_request_details",
        "_threads",
        "_timeout",
    )

    def __init__(
        self,
        token_endpoint: str,
        *,
        client_id: str,
        client_secret: str,
        client_authentication: ClientAuthentication = "client_secret_basic",
        actor_audience: str | None = None,
        request_details: Callable[[Identity], Mapping[str, Any]] | None = None,
        timeout: float = 5.0,
        max_tokens: int = 10_000,
        tenant_claim: str | None = "tenant_id",
        subject_claim: str | None = "sub",
        ssl_context: ssl.SSLContext | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        if not 0 < timeout <= 60:
            raise ConfigurationError("The timeout of the token exchange is not usable.", mend="Use up to 60 seconds.")
        if max_tokens < 1:
            raise ConfigurationError("The token exchange keeps no token.", mend="Use max_tokens=1 or more.")
        self._actor: TokenRequest | None = None
        if actor_audience is not None:
            # Where the token goes is the token endpoint itself.
            own = Destination(
                token_endpoint, audience=actor_audience, mode="client_credentials", allow_plain_http=allow_plain_http
            )
            self._actor = TokenRequest.for_service(own)
        self._actor_lock = threading.Lock()
        self._request_details = request_details
        self._endpoint = OAuthEndpoint(
            token_endpoint,
            client_id=client_id,
            client_secret=client_secret,
            client_authentication=client_authentication,
            ssl_context=ssl_context,
            allow_plain_http=allow_plain_http,
        )
        self._names = ClaimNames(tenant=tenant_claim, subject=subject_claim)
        self._timeout = timeout
        self._cache = TokenCache(max_tokens)
        self._circuits = Circuits()
        self._threads = DaemonThreads()
        self._lock = threading.Lock()
        self._flights: dict[tuple[object, ...], Future[_Outcome]] = {}
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"TokenExchange({self._endpoint!r})"

    async def exchange(self, identity: Identity, credential: Credential, destination: Destination) -> str:
        """Return a token that carries ``identity`` to ``destination``.

        Args:
            identity: for whom.
            credential: the token behind it.
            destination: its audience and scopes are asked for.

        Raises:
            ExchangeError: the token service does not answer, refuses, or answers what was not asked for.

        Source: RFC 8693, section 2.
        """
        return await self.obtain(TokenRequest.on_behalf_of(identity, credential, destination))

    async def client_credentials(self, destination: Destination) -> str:
        """Return a token of the service itself for ``destination``.

        Raises:
            ExchangeError: as for `exchange`.

        Source: RFC 6749, section 4.4.
        """
        return await self.obtain(TokenRequest.for_service(destination))

    def warm(self, key: tuple[object, ...]) -> str | None:
        """Return the header's value with a token that is at hand and not due to be refreshed; ``None`` for all others.

        The short way of calls that are made again and again; `cached` does the rest.

        Args:
            key: of the token, as `exchange_key` makes it.
        """
        entry = self._cache.find(key)
        if entry is None:
            return None
        now = time()
        if now >= entry.refresh_at or now >= entry.use_until:
            return None
        entry.used = True
        return entry.bearer

    def cached(self, request: TokenRequest) -> str | None:
        """Return a token that is at hand, without waiting; ``None`` if there is none."""
        entry = self._cache.find(request.key)
        if entry is None:
            return None
        now = time()
        if now >= entry.use_until:
            return None
        if now >= entry.refresh_at:
            self._refresh(request, entry, now)
        entry.used = True
        return entry.value

    async def obtain(self, request: TokenRequest) -> str:
        """Return a token that answers ``request``, from the cache or the token service.

        Raises:
            ExchangeError: the token service does not answer, refuses, or answers what was not asked for.
        """
        token = self.cached(request)
        if token is not None:
            return token
        flight = self._join(request)
        try:
            return _value(await wait_for(flight, self._timeout + GRACE), request)
        except (TimeoutError, concurrent.futures.CancelledError) as fault:
            raise self._given_up(fault, request) from None

    def obtain_blocking(self, request: TokenRequest) -> str:
        """Do as `obtain`, for threads: it blocks, so never call it on an event loop.

        Raises:
            ExchangeError: as for `obtain`.
        """
        token = self.cached(request)
        if token is not None:
            return token
        flight = self._join(request)
        try:
            return _value(flight.result(self._timeout + GRACE), request)
        except (TimeoutError, concurrent.futures.CancelledError) as fault:
            raise self._given_up(fault, request) from None

    def forget(self, request: TokenRequest) -> None:
        """Drop the token that answers ``request``, because the destination refused it; the next call gets a new one."""
        entry = self._cache.find(request.key)
        if entry is not None and time() - entry.obtained_at > FORGET_AFTER:
            self._cache.drop(request.key, entry)

    async def aclose(self) -> None:
        """Forget all tokens and close the connections. Requests that wait are refused."""
        self.close()

    def close(self) -> None:
        """Do as `aclose`, for threads."""
        self._threads.close()
        self._cache.clear()
        self._endpoint.close()

    def _given_up(self, fault: Exception, request: TokenRequest) -> ExchangeError:
        if isinstance(fault, TimeoutError):
            return _error(Fault("the token service did not answer in time"), request)
        return _error(Fault("the token exchange is closed"), request)

    def _join(self, request: TokenRequest) -> Future[_Outcome]:
        """Return the one request in flight for this key, begun now if there is none.

        Raises:
            ExchangeError: the circuit is open.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._flights.clear()  # their threads did not survive the fork
                self._pid = os.getpid()
            flight = self._flights.get(request.key)
            if flight is not None:
                return flight
            entry = self._cache.find(request.key)
            if entry is not None and time() < entry.use_until:
                # It landed between the caller's look into the cache and this one.
                landed: Future[_Outcome] = Future()
                landed.set_result(UsableToken(entry.value, entry.use_until, entry.obtained_at))
                return landed
            pause = self._circuits.seconds_open(request.tenant, request.key, self._timeout)
            if pause:
                raise _error(
                    Fault(f"the token service failed several times in a row and is asked again in {pause:.1f} s"),
                    request,
                )
            return self._begin(request)

    def _begin(self, request: TokenRequest) -> Future[_Outcome]:
        """Start a request; the lock is held."""
        began_at = monotonic()
        # Threads of some Python builds inherit the context of their starter; an empty one holds nobody's identity.
        context = contextvars.Context()
        flight = self._threads.submit(lambda: context.run(self._fly, request, began_at))
        if not flight.cancelled():
            self._flights[request.key] = flight
        return flight

    def _refresh(self, request: TokenRequest, entry: CachedToken, now: float) -> None:
        """Start a request for a successor of ``entry``, which is used meanwhile; nobody waits for it."""
        with self._lock:
            if now < entry.refresh_at or request.key in self._flights:
                return
            entry.refresh_at = now + REFRESH_RETRY
            if not self._circuits.seconds_open(request.tenant, request.key, self._timeout):
                self._begin(request)

    def _fly(self, request: TokenRequest, began_at: float) -> _Outcome:
        outcome: _Outcome
        try:
            outcome = self._ask(request, began_at + self._timeout)
        except Exception:
            logger.exception("A request to the token service failed in an unforeseen way.")
            outcome = Fault("the request to the token service failed")
        if isinstance(outcome, UsableToken):
            # In the cache before the flight is gone, so that nobody starts a second one in between.
            self._cache.put(request.key, CachedToken(outcome, request))
        blame = outcome.blame if isinstance(outcome, Fault) else None
        self._circuits.ended(request.tenant, request.key, began_at, blame)
        with self._lock:
            self._flights.pop(request.key, None)
        return outcome

    def _ask(self, request: TokenRequest, deadline: float) -> _Outcome:
        actor: str | None = None
        details: dict[str, str] = {}
        identity = request.identity
        if identity is not None:
            if identity.expires_at is not None and identity.expires_at <= time():
                return Fault(
                    "the caller's own token has expired",
                    "Let work that outlives its request run as a job.",
                    blame=Blame.REQUEST,
                )
            proof = self._actor_token(deadline)
            if isinstance(proof, Fault):
                return proof
            actor = proof
            if request.is_transaction and request.subject_token_type != TXN_TOKEN and self._request_details is not None:
                details["request_details"] = msgspec.json.encode(self._request_details(identity)).decode()
        try:
            status, body = self._endpoint.post(request.form(actor, details), deadline)
        except EndpointDown as fault:
            blame = Blame.ANSWER if fault.answered else Blame.EVERYBODY if fault.unreachable else Blame.SERVICE
            return Fault(f"the token service can't be asked: {fault}", blame=blame)
        if request.is_transaction:
            return read_transaction_answer(status, body, request, self._names)
        return read_answer(status, body, request, self._names, actor_token=actor)

    def _actor_token(self, deadline: float) -> str | Fault | None:
        """Return this service's own token, had in the thread of the exchange that needs it."""
        own = self._actor
        if own is None:
            return None
        found = self._cache.find(own.key)
        if found is not None and time() < found.use_until:
            return found.value
        if not self._actor_lock.acquire(timeout=max(0.0, deadline - monotonic())):
            return Fault("the token service did not answer in time", blame=Blame.REQUEST)  # told by who asks
        try:
            found = self._cache.find(own.key)
            if found is not None and time() < found.use_until:
                return found.value
            outcome = self._ask(own, deadline)
            if isinstance(outcome, Fault):
                return outcome
            self._cache.put(own.key, CachedToken(outcome, own))
            return outcome.value
        finally:
            self._actor_lock.release()


def _value(outcome: _Outcome, request: TokenRequest) -> str:
    if isinstance(outcome, Fault):
        raise _error(outcome, request)
    return outcome.value


def _error(fault: Fault, request: TokenRequest) -> ExchangeError:
    """A new error for each waiter: one object raised in many tasks would mix their tracebacks."""
    return ExchangeError(f"No token for {request.destination}, nothing was sent: {fault.message}.", mend=fault.mend)
