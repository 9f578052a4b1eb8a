"""Sessions belong to one tenant: the first that uses them, or puts an object into them.

An identity map answers ``session.get()`` and lazy loads without a statement, so no predicate reaches it. When a
session first begins on a protected engine, its identity map is marked with the bound tenant; after that it answers
only while the same tenant is bound. ``session.close()`` and ``session.expunge_all()`` make a new map, and so end
the mark.
"""

from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.orm.identity import _WeakInstanceDict

from tenantguard.binding import Binding, current_binding, raw_binding
from tenantguard.errors import TenantMismatch

__all__ = ["check_session", "install_session_pins", "pin_of"]

_NOBODY: Final = object()
_SEVERAL: Final = object()
_ATTACHED: Final = "tenantguard attached"


def pin_of(binding: Binding | None) -> object:
    """Return what sessions and transactions are pinned to: a tenant's id, ``None`` for a system context.

    An identity that is narrowed inside its tenant, or that reads further tenants, has a pin of its own: what was read
    with one reach never answers for another. Where nothing is bound, the answer equals no pin.
    """
    if binding is None:
        return _NOBODY
    if binding.system is not None:
        return None
    identity = binding.identity
    if identity is None or identity.tenant is None:
        return _NOBODY
    if identity.dimensions or binding.reads:
        return (identity.tenant.id, frozenset(identity.dimensions), binding.reads)
    return identity.tenant.id


def _refuse() -> TenantMismatch:
    return TenantMismatch(
        "The session was first used by another tenant (or in a system context) than the one that is bound now.",
        mend="Use a session of its own for each tenant, or close() it before the next one.",
    )


class PinnedIdentityMap(_WeakInstanceDict):
    """An identity map that answers only while the tenant is bound that filled it."""

    pin: object = _NOBODY
    _seen: object = _NOBODY
    """The binding that was found to be right last, where it stays so as long as it is bound."""

    def check(self) -> None:
        """Raise unless the pinned tenant is bound.

        Raises:
            TenantMismatch: another one, or none, is bound.
        """
        binding = current_binding()
        if pin_of(binding) != self.pin:
            raise _refuse()
        if binding is not None and not binding.permits:
            self._seen = binding

    def __getitem__(self, key: Any) -> Any:
        self.check()
        return super().__getitem__(key)

    def __contains__(self, key: Any) -> bool:
        self.check()
        return super().__contains__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        # Called for every row that becomes an entity. Who asks for what is not there goes to the database, and is
        # looked at there.
        if key not in self._dict:
            return default
        if raw_binding() is not self._seen:
            self.check()
        return super().get(key, default)

    def items(self) -> Any:
        self.check()
        return super().items()

    def values(self) -> Any:
        self.check()
        return super().values()

    def keys(self) -> Any:
        self.check()
        return super().keys()


def check_session(session: Session) -> None:
    """Raise unless the tenant is bound that used a session first.

    Raises:
        TenantMismatch: another one, or none, is bound.
    """
    identity_map: Any = session.identity_map
    if isinstance(identity_map, PinnedIdentityMap):
        identity_map.check()
    elif identity_map.__dict__.get(_ATTACHED, pin := pin_of(current_binding())) != pin:
        raise _refuse()


def _before_attach(session: Session, _instance: object) -> None:
    """Remember for whom the first object was put into a session that has not begun yet."""
    identity_map: Any = session.identity_map
    if isinstance(identity_map, PinnedIdentityMap):
        identity_map.check()
        return
    pin = pin_of(current_binding())
    if pin is not _NOBODY and identity_map.__dict__.setdefault(_ATTACHED, pin) != pin:
        identity_map.__dict__[_ATTACHED] = _SEVERAL


def _after_begin(session: Session, _transaction: Any, connection: Any) -> None:
    if not hasattr(connection.dialect, "tenantguard_protected"):
        return
    identity_map = session.identity_map
    if isinstance(identity_map, PinnedIdentityMap):
        identity_map.check()
        return
    pin = pin_of(current_binding())
    if identity_map.__dict__.get(_ATTACHED, pin) != pin:
        raise _refuse()
    if pin is not _NOBODY:  # else the first statement is refused, and nothing fills the map
        identity_map.__class__ = PinnedIdentityMap
        identity_map.pin = pin  # type: ignore[attr-defined]


def install_session_pins() -> None:
    """Watch every session of the process, once. Sessions on unprotected engines are left alone."""
    if not event.contains(Session, "after_begin", _after_begin):
        event.listen(Session, "after_begin", _after_begin)
        event.listen(Session, "before_attach", _before_attach)
