"""What goes along with a call to a URL, whichever HTTP client makes it.

The clients of this package and of the integrations ask here, and hold no decision of their own. The answer depends on
two things alone: the origin of the URL, and who is bound at the moment of asking.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, final
from urllib.parse import unquote_to_bytes

import httpx2

from tenantguard.binding import Binding, current_binding
from tenantguard.errors import ConfigurationError, OutboundError
from tenantguard.outbound.destinations import Destination, Destinations
from tenantguard.outbound.exchange import TokenExchange
from tenantguard.outbound.mistakes import PLAIN_HEADERS, mistakes_in
from tenantguard.outbound.token_requests import ACCESS_TOKEN, TXN_TOKEN, TokenRequest, bound_caller, exchange_key
from tenantguard.outbound.transactions import TXN_TOKEN_HEADER

__all__ = ["HARMLESS_HEADERS", "Cargo", "Carrier", "headers_as_bytes", "refuse_body"]

logger = logging.getLogger("tenantguard.outbound")

HARMLESS_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-length",
        "host",
        "range",
        "user-agent",
    }
)
"""What a request that leaves its origin may keep. Everything else may hold a secret or an identity."""

_NEEDS_EXCHANGE: Final = frozenset({"exchange", "transaction", "client_credentials"})


class Cargo(NamedTuple):
    """What a call to a destination carries.

    Args:
        header: the header's name, ``authorization`` or ``txn-token``.
        value: its value, where it is at hand.
        wanted: the token that must still be had, where it is not.
    """

    header: str
    value: str | None = None
    wanted: TokenRequest | None = None

    def __repr__(self) -> str:
        return f"Cargo({self.header!r})"

    def with_token(self, token: str) -> str:
        """Return the header's value for a token."""
        return token if self.header == TXN_TOKEN_HEADER else f"Bearer {token}"


_NO_NAMES: Final[frozenset[str]] = frozenset()
_NOTHING: Final = Cargo("authorization")


@final
class Carrier:
    """The destinations of an app, its token service, and what it does with mistakes.

    Args:
        destinations: who may receive something.
        exchange: the token service; needed for the modes that ask for tokens.
        strict: what happens where the app itself put the inbound request's token, cookie or proof, or the caller's
            name, on a request to somebody else. True refuses the request; False takes it off and logs a warning.

    Raises:
        ConfigurationError: a destination's mode needs a token service and there is none.
    """

    __slots__ = ("_exchange", "_strict", "destinations")

    def __init__(
        self,
        destinations: Destinations | Destination | Iterable[Destination],
        exchange: TokenExchange | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self.destinations = destinations if isinstance(destinations, Destinations) else Destinations(destinations)
        self._exchange = exchange
        self._strict = strict
        for one in self.destinations:
            if exchange is None and one.mode in _NEEDS_EXCHANGE:
                raise ConfigurationError(
                    f"The destination {one} needs a token service for its mode {one.mode}.",
                    mend="Give TokenExchange(token_endpoint, client_id=..., client_secret=...).",
                )

    def __repr__(self) -> str:
        return f"Carrier({self.destinations!r})"

    def warm(self, destination: Destination, binding: Binding | None) -> str | None:
        """Return the Authorization header of a call that exchanges a token, if one is at hand; ``None`` for all others.

        Args:
            destination: where the call goes.
            binding: what is bound.
        """
        if destination.mode != "exchange" or binding is None or binding.system is not None:
            return None
        identity, credential = binding.identity, binding.credential
        if identity is None or credential is None or self._exchange is None:
            return None
        return self._exchange.warm(exchange_key(identity, credential, destination))

    def cargo(self, destination: Destination) -> Cargo:
        """Return what a call to a destination carries for whoever is bound now.

        Raises:
            NotBound: it carries a caller, and none with a token is bound.
            OutboundError: the caller's token can't be carried as declared.
        """
        mode, exchange = destination.mode, self._exchange
        if mode == "exchange":
            wanted = TokenRequest.on_behalf_of(*bound_caller(destination), destination)
        elif mode == "client_credentials":
            wanted = TokenRequest.for_service(destination)
        elif mode == "transaction":
            return self._transaction(destination)
        else:
            return _NOTHING if mode == "none" else _forwarded(destination)
        assert exchange is not None
        token = exchange.cached(wanted)
        return Cargo("authorization", None if token is None else f"Bearer {token}", wanted)

    def _transaction(self, destination: Destination) -> Cargo:
        """Hand on the transaction's token as it came, have it narrowed, or begin a transaction.

        Source: draft-ietf-oauth-transaction-tokens, sections 8.2 and 9.13.1.
        """
        identity, credential = bound_caller(destination)
        if credential.token_type == TXN_TOKEN:
            if destination.audience not in identity.audience:
                raise OutboundError(
                    f"The caller's transaction token is not for the trust domain of {destination}.",
                    mend='Declare the destination with mode="exchange" to leave the trust domain.',
                )
            allowed = destination.scopes | destination.extra_scopes
            narrowed = credential.is_wider_than(identity)
            if identity.scopes <= allowed and not narrowed:
                return Cargo(TXN_TOKEN_HEADER, credential.reveal())
            if not destination.scopes <= identity.scopes and not narrowed:
                raise OutboundError(
                    f"The transaction does not hold all scopes that {destination} asks for, and can't be widened.",
                    mend="Ask for scopes that the transaction began with.",
                )
        wanted = TokenRequest.on_behalf_of(identity, credential, destination)
        assert self._exchange is not None
        return Cargo(TXN_TOKEN_HEADER, self._exchange.cached(wanted), wanted)

    async def obtain(self, cargo: Cargo) -> str:
        """Return the header's value, from the token service where it is not at hand.

        Raises:
            ExchangeError: no token can be had.
        """
        if cargo.value is not None:
            return cargo.value
        assert self._exchange is not None
        assert cargo.wanted is not None
        return cargo.with_token(await self._exchange.obtain(cargo.wanted))

    def obtain_blocking(self, cargo: Cargo) -> str:
        """Do as `obtain`, for threads."""
        if cargo.value is not None:
            return cargo.value
        assert self._exchange is not None
        assert cargo.wanted is not None
        return cargo.with_token(self._exchange.obtain_blocking(cargo.wanted))

    def refused(self, cargo: Cargo) -> None:
        """Forget a token that its destination answered with 401; the next call gets a new one."""
        if self._exchange is not None and cargo.wanted is not None:
            self._exchange.forget(cargo.wanted)

    def warm_refused(self, destination: Destination, binding: Binding | None) -> None:
        """Do as `refused` for a token that `warm` returned."""
        if binding is not None and binding.identity is not None and binding.credential is not None:
            wanted = TokenRequest.on_behalf_of(binding.identity, binding.credential, destination)
            self.refused(Cargo("authorization", wanted=wanted))

    async def headers(self, url: httpx2.URL | str) -> dict[str, str]:
        """Return the headers that a call to ``url`` must carry: one, or none where nobody is declared there.

        Raises:
            NotBound, OutboundError: as for `cargo`.
            ExchangeError: no token can be had. Nothing may be sent then.
        """
        cargo = self._cargo_for(url)
        return {} if cargo is None else {cargo.header: await self.obtain(cargo)}

    def headers_blocking(self, url: httpx2.URL | str) -> dict[str, str]:
        """Do as `headers`, for threads."""
        cargo = self._cargo_for(url)
        return {} if cargo is None else {cargo.header: self.obtain_blocking(cargo)}

    def _cargo_for(self, url: httpx2.URL | str) -> Cargo | None:
        destination = self.destinations.find(url)
        if destination is None or destination.mode == "none":
            return None
        return self.cargo(destination)

    # --- mistakes ------------------------------------------------------------------------------------------

    def mistakes(
        self, destination: Destination | None, target: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> frozenset[str]:
        """Return the names of headers, in lower case, that must be taken off a request.

        Args:
            destination: where the request goes; ``None`` for nobody declared.
            target: path and query of its URL, or the whole URL.
            headers: as the app made them, before anything was added.

        Raises:
            OutboundError: there are some and the app wants to be told, or the URL holds the caller's token.
        """
        binding = current_binding()
        if binding is None:
            return _NO_NAMES
        stranger = destination is None
        credential = binding.credential
        if credential is not None and credential.length <= len(target) and _holds(target, credential.reveal()):
            raise OutboundError(
                f"The URL of a request to {_where(destination)} holds the caller's own token.",
                mend="Declare a destination; never put a token into a URL.",
            )
        headers = [pair for pair in headers if pair[0] not in PLAIN_HEADERS]
        if not headers:
            return _NO_NAMES
        found = mistakes_in(headers, binding, stranger=stranger)
        if not found:
            return _NO_NAMES
        where = _where(destination)
        names = frozenset(name.decode("latin-1") for name in found)
        if not stranger:
            names -= {"authorization"}  # is replaced anyway
            if not names:
                return names
        if self._strict:
            raise OutboundError(
                f"A request to {where} holds what came in with the caller's request: {', '.join(sorted(names))}.",
                mend="Don't copy inbound headers; declare a destination, with "
                'mode="forward" if the token must go along.',
            )
        logger.warning("Taken off a request to %s, since it came in from the caller: %s.", where, ", ".join(names))
        return names


def _holds(target: bytes, token: str) -> bool:
    """True if a URL holds the token, as it is or escaped as opaque tokens with ``+``, ``/`` or ``=`` must be."""
    encoded = token.encode("utf-8", "surrogatepass")
    return encoded in target or (b"%" in target and encoded in unquote_to_bytes(target))


def _where(destination: Destination | None) -> str:
    return "a host that is no declared destination" if destination is None else str(destination)


def refuse_body(*, has_body: bool) -> None:
    """Refuse a request that was redirected away from its destination together with a body that was meant for it.

    Raises:
        OutboundError: it has one.
    """
    if has_body:
        raise OutboundError(
            "A destination redirected a request with a body to another origin, which is not followed.",
            mend="Declare the origin that it redirects to as a destination of its own.",
        )


def _forwarded(destination: Destination) -> Cargo:
    identity, credential = bound_caller(destination)
    if identity.confirmation is not None:
        raise OutboundError(
            f"The caller's token can't be forwarded to {destination}: it is bound to a key that only the caller holds.",
            mend='Use mode="exchange".',
        )
    if credential.is_wider_than(identity):
        raise OutboundError(
            f"The caller's token can't be forwarded to {destination}: it allows more than the narrowed identity holds.",
            mend='Use mode="exchange", or make the call outside of the block that narrows.',
        )
    if credential.token_type == TXN_TOKEN:
        return Cargo(TXN_TOKEN_HEADER, credential.reveal())
    if credential.token_type != ACCESS_TOKEN:
        # A job's assertion, by which the token service alone is told for whom this service acts.
        raise OutboundError(
            f"A job's assertion can't be forwarded to {destination}: it is for the token service alone.",
            mend='Use mode="exchange".',
        )
    return Cargo("authorization", f"Bearer {credential.reveal()}")


def headers_as_bytes(headers: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return a client's headers in the form that `Carrier.mistakes` compares."""
    return [
        (
            name.encode("latin-1", "replace"),
            value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass"),
        )
        for name, value in headers.items()
    ]
