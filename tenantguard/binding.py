"""What is bound to the current context: one variable, which holds one immutable `Binding`.

A reader never sees half of a change. asyncio and trio tasks, `anyio.to_thread` and Starlette's background tasks copy
the context and so inherit the binding; a bare `threading.Thread` does not, and therefore reaches no row.

A right beyond the bound tenant is a `Permit`: it belongs to one block and is closed for good when that block ends. A
task that was started inside and outlives it still holds the binding, and the binding then counts for nothing:
`current_binding` falls back to what was bound outside of the block.

contextvars-extras is used here and nowhere else. It is no longer developed, so it stays behind these functions, with
its version pinned.
"""

from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from contextvars import Token
from hashlib import sha256
from typing import Any, Final, Self, final

import msgspec
from contextvars_extras import ContextVarExt

from tenantguard.identity import Identity

__all__ = [
    "Binding",
    "Credential",
    "Permit",
    "bound_id",
    "current_binding",
    "enter_binding",
    "leave_binding",
    "raw_binding",
]


_UNREAD: Final = object()
_claims: Final = msgspec.json.Decoder(dict[str, Any])


def _scopes_in(token: str) -> frozenset[str] | None:
    """Return the scopes of a JWT that was verified when it came in; ``None`` for tokens that do not show any."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = _claims.decode(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):  # also of base64, of UTF-8 and of JSON
        return None
    said = claims.get("scope", claims.get("scp"))
    if isinstance(said, str):
        return frozenset(said.split())
    return frozenset(map(str, said)) if isinstance(said, list) else None


@final
class Credential:
    """The token that the caller presented, kept for token exchange alone. It never shows itself.

    Args:
        token: the token as presented.
        token_type: its RFC 8693 token type URI.
        inbound: the headers of the request that it came with, names in lower case. They are looked at where the app
            may have copied some of them to another host, and for nothing else.
        scopes: what the token itself allows. An identity with fewer that is bound with it is a narrowed one, and
            outbound calls carry no more than that. Left out, they are read from a JWT's ``scope`` or ``scp``; of other
            tokens nobody knows.
    """

    __slots__ = ("_digest", "_inbound", "_scopes", "_token", "_transaction", "length", "token_type")

    def __init__(
        self,
        token: str,
        token_type: str = "urn:ietf:params:oauth:token-type:access_token",
        *,
        inbound: Iterable[tuple[bytes, bytes]] = (),
        scopes: frozenset[str] | None = None,
    ) -> None:
        self._token = token
        self.length = len(token)
        self._inbound = inbound
        self._transaction: object = None
        self._digest: bytes | None = None
        self._scopes: Any = _UNREAD if scopes is None else scopes
        self.token_type = token_type

    @property
    def digest(self) -> bytes:
        """The token's SHA-256, by which a token that was made from it is found again."""
        if self._digest is None:
            self._digest = sha256(self._token.encode("utf-8", "surrogatepass")).digest()
        return self._digest

    @property
    def scopes(self) -> frozenset[str] | None:
        """What the token itself allows; ``None`` where that is not known."""
        if self._scopes is _UNREAD:
            self._scopes = _scopes_in(self._token)
        found: frozenset[str] | None = self._scopes
        return found

    def is_wider_than(self, identity: Identity) -> bool:
        """True if the token is known to allow more than the identity that is bound with it."""
        scopes = self.scopes
        return scopes is not None and scopes is not identity.scopes and not scopes <= identity.scopes

    @property
    def inbound(self) -> Iterable[tuple[bytes, bytes]]:
        """The headers of the request that the token came with. Whoever reads them must not log or forward them."""
        return self._inbound

    @property
    def transaction(self) -> object:
        """Stands for the one request or job that this credential is bound for; equal to nothing else."""
        if self._transaction is None:
            self._transaction = object()
        return self._transaction

    def reveal(self) -> str:
        """Return the token. Whoever calls this must not log, store or forward it."""
        return self._token

    def __repr__(self) -> str:
        return "Credential(...)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("A credential can't be pickled: it would leave the process.")


@final
class Permit:
    """A named, logged right beyond the bound tenant. Made by the blocks of `tenantguard.permits`, closed when they end.

    Args:
        reason: why, in words that an auditor understands.
    """

    __slots__ = ("_closed", "_reason")

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._closed = False

    @property
    def reason(self) -> str:
        """Why the block has the right."""
        return self._reason

    @property
    def closed(self) -> bool:
        """True once the block has ended: the permit grants nothing any more."""
        return self._closed

    def close(self) -> None:
        """End the right. There is no way back."""
        self._closed = True

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("A permit can't be pickled: its right ends with its block.")

    def __repr__(self) -> str:
        return f"Permit(reason={self.reason!r}, closed={self.closed})"


SYSTEM_MODE: Final = "system"


class Binding(msgspec.Struct, frozen=True, gc=False, eq=False):
    """The immutable whole that is bound: an identity with its credential, and the permits of the blocks around.

    Args:
        identity: whom the block runs as.
        credential: the token behind it.
        system: the permit to work across tenants; there is no current tenant then.
        raw: the permit to run SQL that the barrier can't vouch for.
        reads: ids of further tenants whose rows may be read.
        permits: all permits that this binding rests on; once one of them is closed, it counts for nothing.
        outer: what counts then.
        mode: how statements are compiled under it: ``None`` for one tenant and nothing else. Set by itself.
    """

    identity: Identity | None
    credential: Credential | None = None
    system: Permit | None = None
    raw: Permit | None = None
    reads: frozenset[str] = frozenset()
    permits: tuple[Permit, ...] = ()
    outer: "Binding | None" = None
    mode: object = None

    def __post_init__(self) -> None:
        identity = self.identity
        if self.system is not None:
            msgspec.structs.force_setattr(self, "mode", SYSTEM_MODE)
        elif self.permits or (identity is not None and identity.dimensions):
            narrowed = frozenset(name for name, _ in identity.dimensions) if identity is not None else frozenset()
            mode = (narrowed, bool(self.reads), self.raw is not None)
            msgspec.structs.force_setattr(self, "mode", mode)


_BINDING: Final[ContextVarExt[Binding | None]] = ContextVarExt("tenantguard.binding", default=None)

raw_binding: Final[Callable[[], Binding | None]] = _BINDING.get_raw
"""Return what is bound, with permits that may be closed: for hot paths that then look closer."""
enter_binding: Final[Callable[[Binding | None], Token[Binding | None]]] = _BINDING.set
"""Bind without a block: for the middleware alone, which leaves in a ``finally`` of the same coroutine."""
leave_binding: Final[Callable[[Token[Binding | None]], None]] = _BINDING.reset


def bound_id(binding: Binding | None, dimension: str) -> str | None:
    """Return the bound tenant's id, or what the identity is narrowed to in a dimension; ``None`` for none."""
    if binding is None or binding.system is not None or binding.identity is None or binding.identity.tenant is None:
        return None
    return binding.identity.tenant.id if dimension == "tenant" else binding.identity.narrowed_to(dimension)


def current_binding() -> Binding | None:
    """Return what is bound and counts, or ``None``. Where a permit is closed, it is what was bound outside of it."""
    binding = raw_binding()
    while binding is not None and binding.permits and any(permit.closed for permit in binding.permits):
        binding = binding.outer
    return binding
