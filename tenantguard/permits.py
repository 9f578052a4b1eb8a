"""The doors in the barrier. Each has a name, needs a reason in words, is logged, and closes for good with its block.

- `system`: work across tenants, with nothing scoped.
- `allow_raw`: run SQL that the barrier can't vouch for, while the tenant stays bound.
- `read_tenants`: read the rows of further tenants, and write those of one.

None can be entered by accident, and none can be carried out of its block: a task that outlives the block, a copied
context or a pickled object holds a closed permit, which grants nothing. Two narrower doors stand on a single statement
and lift the barrier for one table of it: `tenantguard.orm.lifts`.
"""

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Final, final

from tenantguard.binding import Binding, Permit, current_binding
from tenantguard.blocks import Block
from tenantguard.errors import BindingError
from tenantguard.identity import validate_tenant_id

__all__ = ["allow_raw", "read_tenants", "reason_in_words", "system"]

logger: Final = logging.getLogger("tenantguard.permits")


def reason_in_words(reason: object, what: str, example: str) -> str:
    """Return a reason without blanks around it.

    Raises:
        BindingError: it is no text, or empty.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise BindingError(f"{what} needs a reason in words.", mend=f"For example: {example}.")
    return reason.strip()


class _PermitBlock(Block):
    """A block with a permit, which is logged and closed."""

    __slots__ = ("_permit", "_reason")

    def __init__(self, reason: str, example: str) -> None:
        super().__init__()
        self._reason = reason_in_words(reason, f"{type(self).__name__}()", example)
        self._permit: Permit | None = None

    def _permitted(self, outer: Binding | None, permit: Permit) -> Binding:
        raise NotImplementedError  # pragma: no cover

    def _binding(self) -> Binding:
        outer = current_binding()
        permit = Permit(self._reason)
        binding = self._permitted(outer, permit)
        self._permit = permit
        self._log(logging.WARNING, "entered", outer)
        return binding

    def _log(self, level: int, what: str, binding: Binding | None) -> None:
        identity = binding.identity if binding is not None else None
        logger.log(
            level,
            "%s %s: %s",
            type(self).__name__,
            what,
            self._reason,
            extra={
                "tenantguard.permit": type(self).__name__,
                "tenantguard.reason": self._reason,
                "tenantguard.actor": identity.actor.id if identity else None,
                "tenantguard.tenant": identity.tenant.id if identity and identity.tenant else None,
            },
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            self._permit.close()
            self._permit = None
            self._log(logging.INFO, "left", current_binding())
        super().__exit__(kind, error, trace)


def _tenant_bound(outer: Binding | None, what: str) -> Binding:
    if outer is None or outer.system is not None or outer.identity is None or outer.identity.tenant is None:
        raise BindingError(
            f"{what} widens what a bound tenant may do, and no tenant is bound.",
            mend="Enter it inside `with bind(identity):` or in a request.",
        )
    return outer


@final
class system(_PermitBlock):  # noqa: N801 - reads as a statement: `with system("nightly invoice run"):`
    """Work across tenants for a block, for a reason that is logged.

    Inside, statements are not scoped, and there is no current tenant. `bind` inside scopes to one tenant again.
    The right ends with the block, also for tasks and threads that were started in it.

    Args:
        reason: why, in words that an auditor understands, for example ``"nightly invoice run"``.

    Raises:
        BindingError: the reason is empty; the block is entered twice or in a bare generator.
    """

    __slots__ = ()

    def __init__(self, reason: str) -> None:
        super().__init__(reason, 'with system("nightly invoice run"):')

    def _permitted(self, outer: Binding | None, permit: Permit) -> Binding:
        # The credential stays behind: work across tenants never calls out with one tenant's token.
        return Binding(outer.identity if outer is not None else None, system=permit, permits=(permit,))

    def _again(self) -> "system":
        return system(self._reason)


@final
class allow_raw(_PermitBlock):  # noqa: N801 - reads as a statement: `with allow_raw("ranking of the search"):`
    """Let SQL that the barrier can't vouch for run as the bound tenant, for a reason that is logged.

    Inside, ``text()``, driver SQL, unknown functions, constructs that render themselves and the driver's own connection
    are let through. What SQLAlchemy compiles from tables is scoped as ever; **textual parts are not: their author
    filters by tenant**, or PostgreSQL's row-level security does. DDL and unclassified tables stay refused. A statement
    with such parts gives columns, not entities, so that no row of another tenant can settle in a session.

    Args:
        reason: why, in words that an auditor understands.

    Raises:
        BindingError: the reason is empty; no tenant is bound; the block is entered twice or in a bare generator.
    """

    __slots__ = ()

    def __init__(self, reason: str) -> None:
        super().__init__(reason, 'with allow_raw("ranking of the search"):')

    def _permitted(self, outer: Binding | None, permit: Permit) -> Binding:
        bound = _tenant_bound(outer, "allow_raw()")
        return Binding(
            bound.identity,
            bound.credential,
            raw=permit,
            reads=bound.reads,
            permits=(*bound.permits, permit),
            outer=bound,
        )

    def _again(self) -> "allow_raw":
        return allow_raw(self._reason)


@final
class read_tenants(_PermitBlock):  # noqa: N801 - reads as a statement: `with read_tenants(["acme-eu"], reason="…"):`
    """Read the rows of further tenants beside those of the bound one, for a reason that is logged.

    Whether the identity may see them is the app's decision, made before. Writes stay with the bound tenant. A session
    that was used outside is not used inside, and the other way round: what was read for a set of tenants never answers
    for one.

    Args:
        tenants: ids of the further tenants, one at least.
        reason: why, in words that an auditor understands.

    Raises:
        BindingError: the reason or the set is empty; no tenant is bound; the block is entered twice or in a bare
        generator.
        InvalidTenantId: an id is not usable.
    """

    __slots__ = ("_tenants",)

    def __init__(self, tenants: Iterable[str], *, reason: str) -> None:
        super().__init__(reason, 'with read_tenants(["acme-eu", "acme-us"], reason="group report"):')
        if isinstance(tenants, str) or not isinstance(tenants, Iterable):
            raise BindingError("read_tenants() takes ids of tenants, several.", mend='For example ["acme-eu"].')
        self._tenants = frozenset(validate_tenant_id(tenant) for tenant in tenants)
        if not self._tenants:
            raise BindingError(
                "read_tenants() was given no tenant.", mend="Name those to read; nothing never means all of them."
            )

    def _permitted(self, outer: Binding | None, permit: Permit) -> Binding:
        bound = _tenant_bound(outer, "read_tenants()")
        if bound.identity is not None and bound.identity.dimensions:
            raise BindingError(
                "read_tenants() widens a right that is narrowed inside its tenant.",
                mend="Use an identity of the whole tenant.",
            )
        return Binding(
            bound.identity,
            bound.credential,
            raw=bound.raw,
            reads=bound.reads | self._tenants,
            permits=(*bound.permits, permit),
            outer=bound,
        )

    def _again(self) -> "read_tenants":
        return read_tenants(self._tenants, reason=self._reason)
