"""The condition that a row is the bound tenant's, for one table or alias, as SQL text with parameters.

The text depends on the table, on the database and on the *mode* of what is bound (`tenantguard.binding.Binding`), so it
is written once for these and kept with the table's class; an alias and the bound ids are filled in for each statement.
A row may be read that is for everybody, or of a further tenant that may be read; it may be written only if it is the
tenant's own.
"""

from typing import Any, Final, NamedTuple, final

from tenantguard.binding import Binding
from tenantguard.errors import NotBound, StatementRefused
from tenantguard_django.orm.classify import NO_GLOBAL, Child, Owned
from tenantguard_django.orm.keys import Key

__all__ = ["Scope", "predicate", "scope_of"]

_ALIAS: Final = "\0"


@final
class Scope:
    """What is bound, as predicates need it.

    Args:
        tenant: the tenant's id.
        dimensions: what the identity is narrowed to inside it.
        reads: ids of further tenants whose rows may be read.
        mode: see `tenantguard.binding.Binding`.
    """

    __slots__ = ("dimensions", "mode", "reads", "tenant")

    def __init__(self, tenant: str, dimensions: dict[str, str], reads: tuple[str, ...], mode: object) -> None:
        self.tenant = tenant
        self.dimensions = dimensions
        self.reads = reads
        self.mode = mode

    def alone(self) -> "Scope":
        """Return the same without further tenants: what may be pointed to, since a key that is written stays."""
        if not self.reads:
            return self
        narrowed = frozenset(self.dimensions)
        return Scope(self.tenant, self.dimensions, (), (narrowed, 0) if narrowed else None)

    def bound(self, key: Key) -> str:
        """Return the id that a key must have."""
        return self.tenant if key.dimension == "tenant" else self.dimensions[key.dimension]


_last: tuple[Binding | None, Scope | None] = (None, None)
"""The binding that was asked about last, where it is of one tenant and nothing else, and its scope."""


def scope_of(binding: Binding | None) -> Scope | None:
    """Return what is bound; ``None`` for a system context.

    Raises:
        NotBound: no tenant is.
    """
    global _last
    known, scope = _last
    if binding is known and scope is not None:
        return scope
    if binding is None:
        raise NotBound(
            "A statement on a tenant's table was about to run with no tenant bound.",
            mend='Enter `with bind(identity):` first, or `with system("why"):` for work across tenants.',
        )
    if binding.system is not None:
        return None
    identity = binding.identity
    if identity is None or identity.tenant is None:
        raise NotBound("The bound identity belongs to no tenant.", mend="Use a token that names a tenant.")
    mode = binding.mode
    if mode is None:
        scope = Scope(identity.tenant.id, {}, (), None)
        _last = (binding, scope)
        return scope
    reads = tuple(sorted(binding.reads - {identity.tenant.id}))
    narrowed = dict(identity.dimensions)
    return Scope(identity.tenant.id, narrowed, reads, (frozenset(narrowed), len(reads)))


class _Template(NamedTuple):
    text: str
    slots: tuple[Any, ...]


def predicate(
    kind: Owned | Child, alias: str, scope: Scope, connection: Any, *, write: bool
) -> tuple[str, list[object]]:
    """Return the predicate of a table that belongs to tenants, and its parameters.

    Args:
        kind: what the table is.
        alias: the name that it goes by in the statement, in quotes.
        scope: what is bound.
        connection: Django's.
        write: whether its rows are to be changed.

    Raises:
        StatementRefused: the identity is narrowed in a dimension of which the table says nothing.
    """
    which = (connection.vendor, scope.mode, write)
    template = kind.templates.get(which)
    if template is None:
        slots: list[Any] = []
        text = _written(kind, _ALIAS, scope, connection, write, 1, slots)
        template = kind.templates[which] = _Template(text, tuple(slots))
    values = [
        slot[0].parameter(scope.reads[slot[1]], connection)
        if slot.__class__ is tuple
        else slot.parameter(
            scope.tenant if slot.dimension == "tenant" else scope.dimensions[slot.dimension], connection
        )
        for slot in template.slots
    ]
    return template.text.replace(_ALIAS, alias), values


def _written(
    kind: Owned | Child, alias: str, scope: Scope, connection: Any, write: bool, depth: int, slots: list[Any]
) -> str:
    quote = connection.ops.quote_name
    if isinstance(kind, Child):
        parent = f"tenantguard_{depth}"
        joined = " AND ".join(f"{parent}.{quote(theirs)} = {alias}.{quote(own)}" for own, theirs in kind.pairs)
        condition = _written(kind.parent, parent, scope, connection, write, depth + 1, slots)
        # Every part is a quoted name or written here.
        table = f"{quote(kind.parent.table)} {parent}"
        exists = f"EXISTS (SELECT 1 FROM {table} WHERE {joined} AND {condition})"  # noqa: S608
        narrowed = []
        for own_key in kind.narrower:
            if own_key.dimension in scope.dimensions:
                text, times = own_key.compare(f"{alias}.{quote(own_key.column)}", connection.vendor)
                narrowed.append(text)
                slots.extend([own_key] * times)
        return f"({' AND '.join((exists, *narrowed))})" if narrowed else exists
    vendor = connection.vendor
    column = f"{alias}.{quote(kind.key.column)}"
    text, times = kind.key.compare(column, vendor)
    own = [text]
    slots.extend([kind.key] * times)
    if scope.reads and not write:
        for index in range(len(scope.reads)):
            text, times = kind.key.compare(column, vendor)
            own.append(text)
            slots.extend([(kind.key, index)] * times)
        own = [f"({' OR '.join(own)})"]
    for dimension in sorted(scope.dimensions):
        key = next((one for one in kind.narrower if one.dimension == dimension), None)
        if key is None:
            check_wide(kind, dimension, write=write)
            continue
        text, times = key.compare(f"{alias}.{quote(key.column)}", vendor)
        own.append(text)
        slots.extend([key] * times)
    condition = " AND ".join(own)
    if write or kind.everyone is NO_GLOBAL:
        return condition if len(own) == 1 else f"({condition})"
    if kind.everyone is None:
        return f"(({condition}) OR {column} IS NULL)"
    text, times = kind.key.compare(column, vendor)
    slots.extend([_Fixed(kind.key, kind.everyone)] * times)
    return f"(({condition}) OR {text})"


def check_wide(kind: Owned, dimension: str, *, write: bool) -> None:
    """Refuse a model without the key of a dimension that the identity is narrowed in, unless it is declared open.

    Raises:
        StatementRefused: it is not.
    """
    wide, label = kind.wide, kind.model._meta.label
    if wide is None or dimension not in wide.dimensions:
        raise StatementRefused(
            f"The bound identity is narrowed to one {dimension}, and the model {label} does not say which {dimension} "
            "its rows belong to.",
            mend=f'Name its field: owned(..., dimensions={{"{dimension}": "field"}}), or declare it open: '
            f'@wide("{dimension}", reason="…").',
        )
    if write and not wide.writable:
        raise StatementRefused(
            f"The model {label} is wider than the {dimension} that the bound identity is narrowed to, so it is only "
            "read.",
            mend=f'Use an identity of the whole tenant, or declare wide("{dimension}", reason="…", writable=True).',
        )


class _Fixed:
    """A parameter that is always the same: the value that marks rows for everybody."""

    __slots__ = ("_key", "_value", "dimension")

    def __init__(self, key: Key, value: object) -> None:
        self._key = key
        self._value = value
        self.dimension = "tenant"

    def parameter(self, _bound: str, connection: Any) -> object:
        return self._key.end.get_db_prep_value(self._value, connection=connection, prepared=False)
