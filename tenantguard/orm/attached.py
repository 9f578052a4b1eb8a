"""Objects that another tenant loaded do not come into a session, and those that wait in it are shown to its own tenant.

An object that was loaded elsewhere, and kept, pickled or put into a cache, comes into a session by ``add()`` or by
``merge(load=False)`` without a statement, and is then found in its identity map. So its tenant key is compared with the
bound tenant. Children without a tenant key can't be told apart in this way; what they are written to is scoped still.
"""

from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import Mapper, Session

from tenantguard.binding import current_binding
from tenantguard.errors import ConfigurationError, TenantMismatch, UnclassifiedTable
from tenantguard.orm.classify import Owned, classify_alone
from tenantguard.orm.pins import check_session
from tenantguard.orm.predicates import read_values

__all__ = ["install_attachment_checks"]

_keys: Final[WeakKeyDictionary[Any, tuple[tuple[str, Owned], ...]]] = WeakKeyDictionary()


def _keys_of(mapper: Any) -> tuple[tuple[str, Owned], ...]:
    known = _keys.get(mapper)
    if known is None:
        known = _keys[mapper] = tuple(_found(mapper))
    return known


def _found(mapper: Any) -> Any:
    for table in mapper.tables:
        try:
            owned = classify_alone(table)
        except (UnclassifiedTable, ConfigurationError):
            continue
        if isinstance(owned, Owned) and owned.column in mapper._columntoproperty:
            yield mapper._columntoproperty[owned.column].key, owned


def _is_foreign(state: Any) -> bool:
    binding = current_binding()
    if state.key is None or binding is None or binding.system is not None:
        return False
    if binding.identity is None or binding.identity.tenant is None:
        return False
    values = state.dict
    return any(
        name in values and values[name] != owned.everyone and values[name] not in read_values(owned.convert)
        for name, owned in _keys_of(state.mapper)
    )


def _refuse() -> TenantMismatch:
    return TenantMismatch(
        "An object that another tenant loaded was put into a session.",
        mend="Load it again, as the tenant that is bound. Caches of objects need the tenant in their keys.",
    )


def _before_attach(_session: Session, instance: Any) -> None:
    if _is_foreign(instance._sa_instance_state):
        raise _refuse()


def _merged_without_loading(state: Any, _context: object) -> None:
    if _is_foreign(state):
        if state.session is not None:
            state.session._expunge_states([state])
        raise _refuse()


def _checked(original: Any) -> property:
    def objects(self: Session) -> Any:
        found = original.fget(self)
        if found:
            check_session(self)
        return found

    return property(objects, doc=original.__doc__)


def install_attachment_checks() -> None:
    """Watch every session of the process, once."""
    if not event.contains(Session, "before_attach", _before_attach):
        event.listen(Session, "before_attach", _before_attach)
        event.listen(Mapper, "_sa_event_merge_wo_load", _merged_without_loading, raw=True)
        for name in ("new", "dirty", "deleted"):
            setattr(Session, name, _checked(Session.__dict__[name]))
