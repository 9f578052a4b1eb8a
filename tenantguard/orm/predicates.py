"""The condition that a row is the bound tenant's, for one table or alias.

Built while a statement compiles, and therefore without a value: it compares key columns with parameters, which are read
when the statement runs. What it compares depends on the *mode* (`tenantguard.binding.Binding.mode`): which dimensions
the bound identity is narrowed in, and whether it reads a set of tenants. A cached statement belongs to one mode.

A row may be read that is for everybody, or of a further tenant that may be read; it may be written only if it is the
tenant's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, or_, select

from tenantguard.binding import bound_id, current_binding, raw_binding
from tenantguard.errors import StatementRefused
from tenantguard.orm.classify import NO_GLOBAL, Child, Key, Owned, classify_alone, real_table
from tenantguard.orm.key_types import equals_exactly, equals_value, is_among, is_one_of
from tenantguard.orm.marks import TENANT, Wide

__all__ = ["Predicates", "key_value", "read_values"]

NO_DIMENSIONS: Final[frozenset[str]] = frozenset()


def key_value(convert: Callable[[str], object], dimension: str = TENANT) -> object:
    """Return the bound value of a dimension as its key column takes it; ``None`` where there is none.

    It never raises, since it runs while parameters are collected, where an exception would be wrapped together
    with the statement's values. The execution context refuses ``None`` before anything is sent.
    """
    value = bound_id(current_binding(), dimension)
    if value is None or convert is str:
        return value
    try:
        return convert(value)
    except ValueError:
        return None


def read_values(convert: Callable[[str], object]) -> list[object]:
    """Return the ids of all tenants whose rows may be read, as their key column takes them. It never raises."""
    binding = current_binding()
    own = bound_id(binding, TENANT)
    if binding is None or own is None:
        return []
    try:
        return [convert(one) for one in sorted({own, *binding.reads})]
    except ValueError:
        return []


class TenantParameter(BindParameter[Any]):
    """A parameter whose value is the bound tenant's id, read when the statement runs: as a callable, and faster."""

    inherit_cache = True

    @property
    def value(self) -> Any:
        """The id, or ``None`` where no tenant is bound."""
        binding = raw_binding()
        if binding is None or binding.mode is not None or binding.identity is None:
            return bound_id(current_binding(), TENANT)
        tenant = binding.identity.tenant
        return None if tenant is None else tenant.id

    @value.setter
    def value(self, given: Any) -> None:
        """What is given does not count."""


@final
class Predicates:
    """Makes the predicates of one compilation, and remembers their parameters.

    Args:
        mode: see `tenantguard.binding.Binding`; ``None`` for one tenant and nothing else.
    """

    __slots__ = ("_binds", "_narrowed", "_reads", "binds")

    def __init__(self, mode: Any) -> None:
        self._narrowed: frozenset[str] = mode[0] if isinstance(mode, tuple) else NO_DIMENSIONS
        self._reads = bool(isinstance(mode, tuple) and mode[1])
        self._binds: dict[object, BindParameter[Any]] = {}
        self.binds: list[tuple[BindParameter[Any], Key, bool]] = []
        """The parameters, the key that each is compared with, and whether it holds the set of tenants to read."""

    @property
    def reads_others(self) -> bool:
        """True where rows of further tenants are read."""
        return self._reads

    def reads_more(self, table: object) -> bool:
        """True where more rows of a table are read than may be written."""
        return self._reads_more_than_it_writes(_owner(table))

    @property
    def narrowed(self) -> frozenset[str]:
        """The dimensions that the identity is narrowed in."""
        return self._narrowed

    def own_bind(self, key: Key) -> BindParameter[Any]:
        """Return the parameter that holds the bound value of a key: one per statement, key type and dimension."""
        type_ = key.column.type
        plain = key.convert is str and key.dimension == TENANT
        same = (key.convert, type_._static_cache_key, key.dimension)
        known = self._binds.get(same)
        if known is None:
            if plain:
                known = TenantParameter("tenantguard_tenant", None, unique=True, type_=type_)
            else:
                name = "tenantguard_tenant" if key.dimension == TENANT else "tenantguard_scope"
                read = partial(key_value, key.convert, key.dimension)
                known = BindParameter(name, unique=True, type_=type_, callable_=read)
            self._binds[same] = known
            self.binds.append((known, key, False))
        return known

    def _own(self, key: Key, column: ColumnElement[Any]) -> ColumnElement[bool]:
        return equals_exactly(column, self.own_bind(key))

    def _in_reads(self, key: Key, column: ColumnElement[Any]) -> ColumnElement[bool]:
        given: BindParameter[Any] = BindParameter(
            "tenantguard_tenants",
            unique=True,
            type_=key.column.type,
            callable_=partial(read_values, key.convert),
            expanding=True,
        )
        self.binds.append((given, key, True))
        return is_one_of(column, given)

    def predicate(self, kind: Owned | Child, element: FromClause, *, write: bool) -> ColumnElement[bool]:
        """Return the predicate of a table that belongs to tenants, in the words of the alias that it goes by.

        Args:
            kind: what the table is.
            element: the table or alias.
            write: whether its rows are to be changed.

        Raises:
            StatementRefused: the bound identity is narrowed in a dimension of which the table says nothing.
        """
        parts = self._narrowing(kind, element, write=write)
        if isinstance(kind, Child):
            return and_(self._through(kind, element, write=write), *parts)
        element = real_table(element)  # an annotated copy would make annotated columns, which are written alike
        column: ColumnElement[Any] = element.c[kind.key.column.key]
        own = self._in_reads(kind.key, column) if self._reads and not write else self._own(kind.key, column)
        if parts:
            own = and_(own, *parts)
        if write:
            return own
        if kind.everyone is NO_GLOBAL:
            return own
        return or_(own, column.is_(None) if kind.everyone is None else equals_value(column, kind.everyone))

    def _narrowing(self, kind: Owned | Child, element: FromClause, *, write: bool) -> list[ColumnElement[bool]]:
        parts: list[ColumnElement[bool]] = []
        through = False
        for dimension in sorted(self._narrowed):
            key = next((one for one in kind.narrower if one.dimension == dimension), None)
            if key is not None:
                parts.append(self._own(key, element.c[key.column.key]))
            elif isinstance(kind, Child):
                continue  # its parent is asked
            elif kind.through is not None:
                through = True
            else:
                check_wide(kind, dimension, write=write)
        if through and isinstance(kind, Owned) and kind.through is not None:
            parts.append(self._through(kind.through, element, write=write))
        return parts

    def _through(self, kind: Child, element: FromClause, *, write: bool) -> ColumnElement[bool]:
        # The inner SELECT is scoped as it compiles, as any other is. It is not correlated, so that it means the same in
        # every clause. To be written, the row must hang on a row that may be written, all the way up.
        parent = kind.parent.alias()
        keys = select(*(parent.c[column.key] for column in kind.targets))
        if write:
            above = _owner(kind.parent)
            if self._reads_more_than_it_writes(above):
                keys = keys.where(self.predicate(above, parent, write=True))
        return is_among([element.c[column.key] for column in kind.columns], keys)

    def _reads_more_than_it_writes(self, kind: Owned | Child) -> bool:
        while isinstance(kind, Child):
            kind = _owner(kind.parent)
        return self._reads or bool(self._narrowed) or kind.everyone is not NO_GLOBAL


def _owner(table: object) -> Owned | Child:
    kind = classify_alone(table)
    assert isinstance(kind, Owned | Child)
    return kind


def check_wide(kind: Owned, dimension: str, *, write: bool) -> None:
    """Refuse a table without the key of a dimension that the identity is narrowed in, unless it is declared open.

    Raises:
        StatementRefused: it is not.
    """
    wide: Wide | None = kind.wide
    name = kind.column.table.name
    if wide is None or dimension not in wide.dimensions:
        raise StatementRefused(
            f"The bound identity is narrowed to one {dimension}, and the table {name!r} does not say which {dimension} "
            "its rows belong to.",
            mend=f'Mark its column with info=scope_key("{dimension}"), or declare it open with '
            f'info=wide("{dimension}", reason="…").',
        )
    if write and not wide.writable:
        raise StatementRefused(
            f"The table {name!r} is wider than the {dimension} that the bound identity is narrowed to, so it is only "
            "read.",
            mend=f'Use an identity of the whole tenant, or declare wide("{dimension}", reason="…", writable=True).',
        )
