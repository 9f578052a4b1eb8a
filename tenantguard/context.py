"""Who is bound now: `bind` sets the identity for a block, the functions below read it.

There is no bare setter: a block always puts the former state back. What is bound, and what inherits it, is told in
`tenantguard.binding`; the ways beyond the bound tenant are in `tenantguard.permits`.
"""

from typing import final

from tenantguard.binding import Binding, Credential, Permit, current_binding
from tenantguard.blocks import Block
from tenantguard.errors import BindingError, NotBound
from tenantguard.identity import Actor, Identity, Tenant

__all__ = [
    "bind",
    "current_actor",
    "current_credential",
    "current_identity",
    "current_system",
    "current_tenant",
]

_HOW_TO_BIND = "Enter `with bind(identity):` first, or let TenantGuardMiddleware do it for requests."


@final
class bind(Block):  # noqa: N801 - reads as a verb: `with bind(identity):`
    """Bind an identity, and with it its tenant, for a block.

    Works as ``with``, as ``async with`` and as a decorator. The former binding returns when the block ends,
    also through an exception. Inside a generator that is not a context manager it is refused, since the
    generator's caller would inherit the binding.

    Args:
        identity: whom the block runs as. Its tenant may be ``None``: then no owned row can be reached.
        credential: the token behind the identity, needed only for token exchange.

    Raises:
        BindingError: the argument is no `Identity`; the block is entered twice or in a bare generator.
    """

    __slots__ = ("_value",)

    def __init__(self, identity: Identity, credential: Credential | None = None) -> None:
        super().__init__()
        if not isinstance(identity, Identity):
            raise BindingError(
                f"bind() takes an Identity, not {type(identity).__name__}.",
                mend='For scripts: bind(service_identity("invoice-run", tenant="acme")).',
            )
        self._value = Binding(identity, credential)

    def _binding(self) -> Binding:
        return self._value

    def _again(self) -> "bind":
        identity = self._value.identity
        assert identity is not None
        return bind(identity, self._value.credential)


def current_identity() -> Identity:
    """Return the bound identity.

    Raises:
        NotBound: none is bound, or a system context without identity is.
    """
    binding = current_binding()
    if binding is None or binding.identity is None:
        raise NotBound("No identity is bound.", mend=_HOW_TO_BIND)
    return binding.identity


def current_tenant() -> Tenant:
    """Return the bound tenant.

    Raises:
        NotBound: no identity is bound, it has no tenant, or a system context is bound, which has none.
    """
    binding = current_binding()
    if binding is None or binding.identity is None:
        if binding is not None and binding.system is not None:
            raise NotBound("A system context has no tenant.", mend="Bind an identity inside it to work in one tenant.")
        raise NotBound("No tenant is bound.", mend=_HOW_TO_BIND)
    if binding.system is not None:
        raise NotBound("A system context has no tenant.", mend="Bind an identity inside it to work in one tenant.")
    tenant = binding.identity.tenant
    if tenant is None:
        raise NotBound("The bound identity belongs to no tenant.", mend="Use a token that names a tenant.")
    return tenant


def current_actor() -> Actor:
    """Return who acts now: the bound identity's actor.

    Raises:
        NotBound: no identity is bound.
    """
    return current_identity().actor


def current_credential() -> Credential:
    """Return the token behind the bound identity, for token exchange.

    Raises:
        NotBound: no identity is bound, or it was bound without its token.
    """
    binding = current_binding()
    if binding is None or binding.credential is None:
        raise NotBound(
            "No credential is bound.", mend="Only requests that came in with a token can be carried on by exchange."
        )
    return binding.credential


def current_system() -> Permit | None:
    """Return the system context that is open now, or ``None``."""
    binding = current_binding()
    return binding.system if binding is not None else None
