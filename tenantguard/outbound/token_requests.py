"""One wish for a token, with everything that it depends on, read once from the context of the caller.

From here on nothing looks at the context again. The exchange may run in another thread, for several callers at once, or
ahead of time to refresh a token: whom it is for is in the request alone.
"""

from collections.abc import Mapping
from typing import Final, final

from tenantguard.binding import Credential, current_binding
from tenantguard.errors import NotBound, OutboundError
from tenantguard.identity import Identity
from tenantguard.outbound.destinations import Destination

__all__ = ["ACCESS_TOKEN", "TOKEN_EXCHANGE", "TXN_TOKEN", "TokenRequest", "bound_caller", "exchange_key"]

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
"""Grant type of RFC 8693, section 2.1."""
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
TXN_TOKEN: Final = "urn:ietf:params:oauth:token-type:txn_token"
"""Type of a transaction token (draft-ietf-oauth-transaction-tokens, section 7.1)."""

_HOW_TO_DECLARE_OWN_CALLS: Final = (
    'Make the call while a request with a token is served, or declare the destination with mode="client_credentials" '
    "if the service calls for itself."
)


def exchange_key(identity: Identity, credential: Credential, destination: Destination) -> tuple[object, ...]:
    """Return what identifies the token that was exchanged for a caller and a destination."""
    tenant = identity.tenant
    key = (
        credential.digest,
        tenant.id if tenant is not None else None,
        identity.subject.id,
        identity.actor.id,
        destination.key,
    )
    return (*key, _narrowed(identity, destination)) if credential.is_wider_than(identity) else key


def _narrowed(identity: Identity, destination: Destination) -> frozenset[str]:
    """Return what to ask for a caller that was narrowed since its token came in: no more than it holds now.

    For others the destination's scopes are asked for as declared: the token service knows what the caller may do there,
    which can be more than the token for this service says.
    """
    return destination.scopes & identity.scopes if destination.scopes else identity.scopes


@final
class TokenRequest:
    """A token that is wanted for a destination: for a caller by exchange, or for the service itself.

    Make one with `TokenRequest.on_behalf_of` or `TokenRequest.for_service`. It never shows its token.

    Attributes:
        key: identifies the token that answers it: destination and, for an exchange, the digest of the subject token
            with tenant, subject and actor; for a transaction, the transaction.
        destination: for which destination.
        identity: for whom; ``None`` for the service itself.
        scopes: the scopes to ask for; none leaves them to the token service.
    """

    __slots__ = ("_credential", "destination", "identity", "key", "scopes")

    def __init__(
        self,
        key: tuple[object, ...],
        destination: Destination,
        identity: Identity | None = None,
        credential: Credential | None = None,
        scopes: frozenset[str] | None = None,
    ) -> None:
        self.key = key
        self.scopes = destination.scopes if scopes is None else scopes
        self.destination = destination
        self.identity = identity
        self._credential = credential

    @classmethod
    def on_behalf_of(cls, identity: Identity, credential: Credential, destination: Destination) -> "TokenRequest":
        """Return the wish for a token that carries ``identity`` to ``destination`` (RFC 8693, section 2.1).

        Raises:
            OutboundError: the identity was narrowed and holds none of the destination's scopes.
        """
        scopes = None
        if credential.is_wider_than(identity):
            scopes = _narrowed(identity, destination)
            if not scopes:  # asking for none would leave them to the token service
                raise OutboundError(
                    f"The bound identity was narrowed, and holds none of the scopes that {destination} asks for.",
                    mend="Make the call outside of the block that narrows, or keep a scope of the destination there.",
                )
        key = exchange_key(identity, credential, destination)
        if destination.mode == "transaction":
            # A transaction is one request; the same caller's next one is another.
            key = (*key, credential.transaction)
        return cls(key, destination, identity, credential, scopes)

    @classmethod
    def for_service(cls, destination: Destination) -> "TokenRequest":
        """Return the wish for a token of the service itself (RFC 6749, section 4.4)."""
        return cls((destination.key,), destination)

    @classmethod
    def from_context(cls, destination: Destination) -> "TokenRequest":
        """Return the wish that fits the destination's mode, for whoever is bound now.

        Raises:
            NotBound: the destination wants a caller carried on, and none is bound or its token is not.
            OutboundError: the destination's mode needs no token of the token service, or see `on_behalf_of`.
        """
        if destination.mode == "client_credentials":
            return cls.for_service(destination)
        if destination.mode not in ("exchange", "transaction"):
            raise OutboundError(f"The mode {destination.mode} of {destination} asks for no token.")
        identity, credential = bound_caller(destination)
        return cls.on_behalf_of(identity, credential, destination)

    @property
    def tenant(self) -> tuple[str, str] | None:
        """For whom it counts if the token service fails: a tenant, or a caller without; ``None`` for the service."""
        identity = self.identity
        if identity is None:
            return None
        return ("subject", identity.subject.id) if identity.tenant is None else ("tenant", identity.tenant.id)

    @property
    def is_transaction(self) -> bool:
        """True where the answer must be a transaction token."""
        return self.destination.mode == "transaction"

    @property
    def subject_token_type(self) -> str | None:
        """The RFC 8693 type of the subject token."""
        return self._credential.token_type if self._credential is not None else None

    def reveal_subject_token(self) -> str | None:
        """Return the subject token, for the request to the token endpoint alone."""
        return self._credential.reveal() if self._credential is not None else None

    def form(self, actor_token: str | None = None, details: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the parameters of the request to the token endpoint.

        Args:
            actor_token: an access token of the service that acts.
            details: further parameters of a transaction.

        Source: RFC 8693, section 2.1; RFC 6749, section 4.4.2; draft-ietf-oauth-transaction-tokens, section 7.1.
        """
        subject_token, token_type = self.reveal_subject_token(), self.subject_token_type
        parameters = {"audience": self.destination.audience or ""}
        if self.scopes:
            parameters["scope"] = " ".join(sorted(self.scopes))
        if subject_token is None or token_type is None:
            return {"grant_type": "client_credentials", **parameters}
        parameters |= {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": subject_token,
            "subject_token_type": token_type,
            "requested_token_type": TXN_TOKEN if self.is_transaction else ACCESS_TOKEN,
        }
        if actor_token is not None:
            parameters |= {"actor_token": actor_token, "actor_token_type": ACCESS_TOKEN}
        return parameters | dict(details or {})

    def __repr__(self) -> str:
        return f"TokenRequest({self.destination})"


def bound_caller(destination: Destination) -> tuple[Identity, Credential]:
    """Return who is bound now, with the token behind it.

    Raises:
        NotBound: nobody is bound, or without a token, or a system context is, which never calls out for one tenant.
    """
    binding = current_binding()
    if binding is None or binding.identity is None or binding.credential is None or binding.system is not None:
        raise NotBound(
            f"A call to {destination} carries the caller's identity, and no caller with a token is bound.",
            mend=_HOW_TO_DECLARE_OWN_CALLS,
        )
    return binding.identity, binding.credential
