"""What an UPDATE may set whose rows are not the bound tenant's, or are to become another's.

The rights are those of `tenantguard_django.orm.lifts`. Nothing is moved by the way, and nothing that is moved keeps
pointing to what stays behind.
"""

from typing import Any

from django.core.exceptions import ValidationError

from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.identity import validate_tenant_id
from tenantguard_django.orm.classify import Child, Kind, Owned, links_of
from tenantguard_django.orm.keys import Key
from tenantguard_django.orm.lifts import MOVE, WRITE, find_lift
from tenantguard_django.orm.links import is_plain_value

__all__ = ["check_move", "check_rights"]


def check_rights(compiler: Any, kind: Owned | Child) -> bool:
    """Refuse an UPDATE that asks for more than its rights, or return whether it moves rows to another tenant.

    Raises:
        ForeignTenantWrite: rows would drag across what they point to.
        StatementRefused: the rights do not fit each other, or the statement.
    """
    query, label = compiler.query, kind.model._meta.label
    write, move = (find_lift(query, right, kind.table) for right in (WRITE, MOVE))
    if write is None and move is None:
        return False
    compiler.connection.tenantguard.known.clear()
    if query.related_updates:
        raise StatementRefused(
            f"The update() of {label} sets columns of its parent's table as well.",
            mend="Write the parent's columns by an update() of the parent, with a right of its own.",
        )
    if move is None:
        return False
    named = {field.column for field, _, _ in query.values}
    if write is not None or not isinstance(kind, Owned) or kind.key.column not in named:
        raise StatementRefused(
            f"Rows of {label} can't be moved so.",
            mend="Set the tenant key, of a model that has one, by move_rows() alone: it moves the bound tenant's rows.",
        )
    for link in links_of(kind):
        if link.field.column not in named:
            raise ForeignTenantWrite(
                f"Moved rows of {label} would point back through the foreign key {link.field.name}.",
                mend="Set it to NULL in the same update().",
            )
    compiler.connection.tenantguard.lift(move)
    return True


def check_move(key: Key, kind: Kind, value: Any) -> None:
    """Refuse a new tenant that is none.

    Raises:
        ForeignTenantWrite: it is computed, empty, or stands for everybody.
    """
    if is_plain_value(value):
        value = value.value
    if hasattr(value, "prepare_database_save"):
        value = value.prepare_database_save(key.field)
    if hasattr(value, "resolve_expression"):
        raise ForeignTenantWrite(
            f"The new tenant of rows of {kind.model._meta.label} was about to be computed by an expression.",
            mend="Give the id of one tenant.",
        )
    everyone = kind.everyone if isinstance(kind, Owned) else None
    try:
        taken = None if value is None or isinstance(value, bool) else key.end.to_python(value)
    except ValidationError:
        taken = None
    if taken is None or taken == everyone or str(taken) == str(everyone):
        raise ForeignTenantWrite(
            f"Rows of {kind.model._meta.label} were about to be moved to everybody, or to nobody.",
            mend='Give the id of one tenant. Rows for everybody are written in a block of system("why").',
        )
    validate_tenant_id(str(taken))
