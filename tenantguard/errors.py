"""One tree of errors. Each says what was wrong and how to mend it, and knows its HTTP status.

Errors that the caller of a request may see carry an RFC 6750 code, from which the middleware builds the
``WWW-Authenticate`` challenge and the problem+json body (RFC 9457). Errors of the app's own making (a
statement that was refused, a missing declaration) are status 500: their text goes to the log, and the caller
only sees that the request failed. No message ever holds a token, a key or a row's values.
"""

from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "AuthenticationError",
    "AuthorizationError",
    "BarrierError",
    "BindingError",
    "ConfigurationError",
    "ContextError",
    "ExchangeError",
    "ExpiredToken",
    "ForeignTenantWrite",
    "InsufficientAuthentication",
    "InsufficientScope",
    "InvalidProof",
    "InvalidRequest",
    "InvalidTenantId",
    "InvalidToken",
    "IssuerUnavailable",
    "JobRefused",
    "MissingCredential",
    "NonceRequired",
    "NotBound",
    "OutboundError",
    "PlacementError",
    "RevokedToken",
    "StatementRefused",
    "StoreUnavailable",
    "SuspendedTenant",
    "TenantGuardError",
    "TenantMismatch",
    "TenantRefused",
    "TenantUnavailable",
    "Unavailable",
    "UnclassifiedTable",
    "UnknownTenant",
    "UnprotectedEngine",
]


class TenantGuardError(Exception):
    """The root of all errors of this package.

    Args:
        message: what was wrong, in one sentence or two.
        mend: how to put it right.
    """

    status: ClassVar[int] = 500
    """HTTP status of the refusal."""
    code: ClassVar[str | None] = None
    """RFC 6750 error code, where there is one."""
    title: ClassVar[str] = "Internal error"
    """Short, fixed text that is safe to show to the caller of the request."""

    def __init__(self, message: str, *, mend: str | None = None) -> None:
        super().__init__(f"{message} {mend}" if mend else message)
        self.message = message
        self.mend = mend

    @property
    def detail(self) -> str | None:
        """What the caller of the request may read; ``None`` for errors of the app's own making."""
        return self.message if self.status < 500 else None


class ConfigurationError(TenantGuardError):
    """A setting is missing or wrong. Raised at start, never on a request."""


class InvalidTenantId(TenantGuardError, ValueError):
    """A tenant id that can't be used. The text tells the fault, not the value."""

    status = 403
    title = "Invalid tenant"

    def __init__(self, fault: str) -> None:
        super().__init__(
            f"The tenant id is not usable: {fault}.",
            mend="Use 1 to 128 letters, digits and . _ : @ | ~ -, the first a letter or a digit.",
        )


# --- context ---------------------------------------------------------------------------------------------


class ContextError(TenantGuardError):
    """Something is wrong with what is bound to the current context."""


class NotBound(ContextError, LookupError):
    """Code needs an identity, a tenant or a credential, and none is bound."""


class BindingError(ContextError):
    """`bind` or `system` was entered or left in a way that could leak a binding."""


# --- the caller of a request -----------------------------------------------------------------------------


class AuthenticationError(TenantGuardError):
    """The request shows no acceptable credential (401)."""

    status = 401
    title = "Not authenticated"


class MissingCredential(AuthenticationError):
    """The request carries no credential. RFC 6750 section 3.1: the challenge has no error code then."""

    def __init__(self, message: str = "This resource needs an access token.") -> None:
        super().__init__(message, mend="Send it as 'Authorization: Bearer <token>'.")


class InvalidRequest(AuthenticationError):
    """The request carries a credential in a form that is not allowed, or more than one (400)."""

    status = 400
    code = "invalid_request"
    title = "Malformed request"


class InvalidToken(AuthenticationError):
    """The token is malformed, forged, expired, or meant for somebody else.

    Args:
        message: what was wrong.
        mend: how to put it right.
        reason: one word for logs and metrics, for example ``"signature"``, ``"audience"``.
    """

    code = "invalid_token"
    title = "Invalid token"

    def __init__(self, message: str, *, reason: str, mend: str | None = None) -> None:
        super().__init__(message, mend=mend)
        self.reason = reason


class ExpiredToken(InvalidToken):
    """The token was good and its time is over."""

    title = "Expired token"

    def __init__(self, message: str = "The token has expired.") -> None:
        super().__init__(message, reason="expired", mend="Ask the issuer for a new one.")


class RevokedToken(InvalidToken):
    """The token was good and has been revoked, or its session, subject, actor, grant or tenant has."""

    title = "Revoked token"

    def __init__(self, message: str = "The token has been revoked.") -> None:
        super().__init__(message, reason="revoked", mend="Log in again, or ask the issuer for a new one.")


class InvalidProof(InvalidToken):
    """The token is bound to a key, and the request does not prove that its sender holds that key (RFC 9449)."""

    code = "invalid_dpop_proof"
    title = "Invalid proof of possession"


class NonceRequired(InvalidProof):
    """The DPoP proof must hold the nonce that the challenge gives (RFC 9449, section 9).

    Args:
        nonce: the nonce to use.
    """

    code = "use_dpop_nonce"
    title = "Nonce required"

    def __init__(self, nonce: str) -> None:
        super().__init__(
            "The DPoP proof must hold the nonce of this answer.",
            reason="nonce",
            mend="Send the request again with a proof that holds the nonce of the DPoP-Nonce header.",
        )
        self.nonce = nonce


class InsufficientAuthentication(AuthenticationError):
    """The token is good, and the human behind it must log in more strongly or more recently (RFC 9470, section 3).

    Args:
        acr_values: the authentication context classes that are enough, in the order of preference.
        max_age: most seconds since the log-in.
    """

    code = "insufficient_user_authentication"
    title = "Stronger authentication needed"

    def __init__(self, *, acr_values: Iterable[str] = (), max_age: int | None = None) -> None:
        self.acr_values = tuple(acr_values)
        self.max_age = max_age
        wanted = [f"one of the levels {' '.join(self.acr_values)}"] if self.acr_values else []
        wanted += [f"a log-in at most {max_age} seconds ago"] if max_age is not None else []
        super().__init__(
            f"This resource needs {' and '.join(wanted)}.",
            mend="Send the user to the authorization server with the acr_values and max_age of the challenge.",
        )


class Unavailable(TenantGuardError):
    """What a check needs does not answer now, so nobody is let in (503). Fails closed; the caller may try again."""

    status = 503
    title = "Temporarily unavailable"

    @property
    def detail(self) -> str | None:
        """A fixed sentence: the caller may try again."""
        return "The request can't be checked now. Try again later."


class TenantUnavailable(Unavailable):
    """The tenant is being set up or moved to another place, and can't be used meanwhile (503)."""

    title = "Tenant unavailable"

    @property
    def detail(self) -> str | None:
        """A fixed sentence: the caller may try again."""
        return "The tenant can't be used while it is being set up or moved. Try again later."


class IssuerUnavailable(Unavailable):
    """The issuer's keys can't be had now, so no token of it can be verified (503). Fails closed."""

    title = "Identity provider unavailable"

    @property
    def detail(self) -> str | None:
        """A fixed sentence: the caller may try again."""
        return "The token can't be verified now because its issuer does not answer. Try again later."


class StoreUnavailable(Unavailable):
    """A store that a check needs (API keys, DPoP replays, revocations, tenants) does not answer (503)."""


class AuthorizationError(TenantGuardError):
    """The identity is known and may not do this (403)."""

    status = 403
    title = "Not allowed"


class InsufficientScope(AuthorizationError):
    """The token lacks a scope that the route requires (RFC 6750, section 3.1).

    Args:
        required: all scopes that the route requires.
        missing: those that the token lacks.
    """

    code = "insufficient_scope"
    title = "Insufficient scope"

    def __init__(self, *, required: Iterable[str], missing: Iterable[str]) -> None:
        self.required = tuple(sorted(required))
        self.missing = tuple(sorted(missing))
        super().__init__(
            f"The token lacks the scope {' '.join(self.missing)}.",
            mend=f"Ask the issuer for a token with the scopes: {' '.join(self.required)}.",
        )


class TenantRefused(AuthorizationError):
    """The request names a tenant that the token does not allow, or the tenant may not be used now."""

    title = "Tenant refused"


class UnknownTenant(TenantRefused):
    """The tenant directory does not know the token's tenant."""

    title = "Unknown tenant"


class SuspendedTenant(TenantRefused):
    """The token's tenant is suspended."""

    title = "Suspended tenant"


# --- the barrier -----------------------------------------------------------------------------------------


class BarrierError(TenantGuardError):
    """A statement or a write that the barrier refuses. Status 500: the app's code is wrong, not its caller.

    `shape` tells which statement it was, by its kind and its tables, where that is known.
    """

    shape: str | None = None

    def within(self, shape: str) -> "BarrierError":
        """Return the same error with the statement's shape in its text."""
        if self.shape is None:
            self.shape = shape
            text = f"{self.message} (In {'an' if shape[:1] in 'AEIOU' else 'a'} {shape}.)"
            self.args = (f"{text} {self.mend}" if self.mend else text,)
        return self


class UnclassifiedTable(BarrierError):
    """A table that is neither owned by tenants nor declared shared."""


class StatementRefused(BarrierError):
    """A statement whose effect on tenants can't be vouched for: raw SQL, textual fragments, DDL, unknown shapes."""


class UnprotectedEngine(BarrierError):
    """A table owned by tenants is used through an engine that the barrier does not protect."""


class ForeignTenantWrite(BarrierError):
    """A write that would create, change or move a row of another tenant."""


class TenantMismatch(BarrierError):
    """A session, transaction or object that belongs to one tenant is used while another is bound."""


class PlacementError(TenantGuardError):
    """A tenant could not be set up, moved, exported, erased or removed. The text tells why, and what holds now."""


# --- outbound --------------------------------------------------------------------------------------------


class OutboundError(TenantGuardError):
    """An outbound call can't be made in the name of the bound identity."""

    status = 502
    title = "Upstream call failed"


class ExchangeError(OutboundError):
    """The token service refused or spoiled a token exchange (RFC 8693). Nothing is sent in its place."""


# --- jobs ------------------------------------------------------------------------------------------------


class JobRefused(TenantGuardError):
    """A job may not run: its capsule is forged, expired or used, or whom it was for has been revoked meanwhile.

    Args:
        message: what was wrong.
        reason: one word for dead letters and metrics, for example ``"replayed"``.
    """

    status = 403
    title = "Job refused"

    def __init__(self, message: str, *, reason: str = "refused") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["JobRefused"], tuple[str], dict[str, object]]:
        return type(self), (self.message,), {"reason": self.reason}
