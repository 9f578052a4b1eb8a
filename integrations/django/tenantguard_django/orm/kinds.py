"""What a table can be to the barrier: owned by tenants, a child of such a table, or shared; and where it points to.

They are made from the models' declarations (`tenantguard_django.orm.classify`), once, and keep what was worked out for
them: predicates as text, foreign keys, the columns that are looked at before they are written.
"""

from typing import Any, Final, NamedTuple, TypeAlias, final

from tenantguard_django.orm.keys import Key
from tenantguard_django.orm.marks import WideMark
from tenantguard_django.orm.vouching import renders_by_itself

__all__ = ["NO_GLOBAL", "Child", "Kind", "Link", "Owned", "Shared"]

NO_GLOBAL: Final = object()
"""The key's value of rows for everybody, where there are none."""


def _unsound_field(model: Any) -> str | None:
    for field in model._meta.local_concrete_fields:
        if renders_by_itself(field):
            return f"{model._meta.label}.{field.name} ({type(field).__name__})"
    return None


class _Kind:
    """What all have."""

    __slots__ = ("links", "model", "table", "templates", "unsound", "watched")

    def __init__(self, model: Any) -> None:
        self.model = model
        self.table: str = model._meta.db_table
        self.templates: dict[object, Any] = {}
        """Predicates as text (`tenantguard_django.orm.predicates`)."""
        self.links: tuple[Link, ...] | None = None
        self.watched: dict[str, tuple[Key | None, tuple[Link, ...]]] | None = None
        self.unsound: str | None = _unsound_field(model)
        """A field that writes SQL of its own, and is not vouched for."""


@final
class Owned(_Kind):
    """An owned table: every row belongs to the tenant that its key names.

    Args:
        model: its model.
        key: the tenant key.
        narrower: the keys of dimensions inside the tenant.
        everyone: the key's value of rows for everybody; ``None`` is NULL, `NO_GLOBAL` means that there are none.
        wide: the dimensions that it is open in.
    """

    __slots__ = ("everyone", "key", "keys", "narrower", "wide")

    def __init__(
        self, model: Any, key: Key, narrower: tuple[Key, ...], everyone: object, wide: WideMark | None
    ) -> None:
        super().__init__(model)
        self.wide = wide
        self.key = key
        self.keys = (key,)
        """What is fixed for an identity that is not narrowed."""
        self.narrower = narrower
        self.everyone = everyone


@final
class Child(_Kind):
    """A table without a tenant key: each row belongs to the tenant of the row that its foreign key points to.

    Args:
        model: its model.
        field: the foreign key.
        parent: what it points to.
        narrower: its own keys of dimensions inside the tenant.
    """

    __slots__ = ("field", "narrower", "pairs", "parent")

    def __init__(self, model: Any, field: Any, parent: "Owned | Child", narrower: tuple[Key, ...]) -> None:
        super().__init__(model)
        self.field = field
        self.narrower = narrower
        self.pairs = tuple((own.column, theirs.column) for own, theirs in field.related_fields)
        self.parent = parent


@final
class Shared(_Kind):
    """A table whose rows belong to no tenant, by declaration.

    Args:
        model: its model.
        reason: why.
    """

    __slots__ = ("reason",)

    def __init__(self, model: Any, reason: str) -> None:
        super().__init__(model)
        self.reason = reason


Kind: TypeAlias = Owned | Child | Shared


class Link(NamedTuple):
    """A foreign key to a table that belongs to tenants.

    Args:
        field: the field.
        target: what it points to.
        column: the column that it points to.
        owns: True where it says whose the row is, so that what it points to must be the tenant's own to write.
    """

    field: Any
    target: Owned | Child
    column: str
    owns: bool
