"""Which parameters of a write hold foreign keys, found while it compiles.

Like a tenant key, a foreign key to a tenant's table arrives in VALUES, in SET, as a parameter, from a default, or from
a SELECT. Here each is found, and noted under the parameter in which its value will arrive; the execution context looks
the rows up before anything is sent (`tenantguard.orm.links`). What can't be found is refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import BindParameter, Column, FromClause, Table
from sqlalchemy.sql.elements import ClauseElement, Null
from sqlalchemy.sql.selectable import CTE

from tenantguard.errors import ForeignTenantWrite
from tenantguard.orm.classify import Key, Owned, Shared, real_table, table_of
from tenantguard.orm.lifts import MOVE, WRITE
from tenantguard.orm.links import Link, LinkCheck, computes_own_link, invents_value, links_of, selects_own_link
from tenantguard.orm.marks import TENANT
from tenantguard.orm.scoping import ScopingMixin
from tenantguard.orm.vouching import names_column, refuse

__all__ = ["LinkingMixin"]

Noted = BindParameter[Any] | str | Column[Any] | Key
"""A parameter, its name, the column whose default fills it, or a key that has the bound value."""

_ABSENT: Final = object()


def _unknown(link: Link, how: str) -> ForeignTenantWrite:
    names = ", ".join(column.name for column in link.columns)
    if not link.targets:
        return ForeignTenantWrite(
            f"The foreign key {link.columns[0].table.name!r}.{names} points to a table that its MetaData lacks, "
            "so whose row it will point to can't be checked.",
            mend="Declare the table that it points to in the same MetaData.",
        )
    return ForeignTenantWrite(
        f"The foreign key {link.columns[0].table.name!r}.{names} is written {how}, so whose row it will point to can't "
        "be checked.",
        mend=f"Read the key of {link.table.name!r} first and give it as a value, or have the foreign key contain the "
        "tenant keys of both tables.",
    )


class LinkingMixin(ScopingMixin):
    """Notes foreign keys. Mixed in before a dialect's compiler."""

    noted_links: list[tuple[Link, list[Noted], list[Noted]]]
    null_binds: list[BindParameter[Any] | str]
    """Parameters, as objects or by name, that must be NULL in every row."""
    relied_ctes: list[CTE]
    """CTEs through which foreign keys are computed."""

    def links_of(self, table: Table) -> tuple[Link, ...]:
        """Return the links of a table that are to be checked when they are written."""
        return links_of(table, self.predicates.narrowed)

    def _trusts_what_is_read(self, link: Link) -> bool:
        """True if a key that a scoped statement reads may be pointed to: it reads no more than may be pointed to."""
        return not (
            self.lifts or self.predicates.reads_others or (link.owns and self.predicates.reads_more(link.table))
        )

    def _computes_own(self, value: Any, link: Link) -> bool:
        if not self._trusts_what_is_read(link):
            return isinstance(value, Null)
        return computes_own_link(value, link, self.relied_ctes)

    def link_checks_of(self) -> list[LinkCheck] | None:
        """Return the checks by the names of their parameters; ``None`` if one has become a part of the text.

        Raises:
            StatementRefused: a CTE that a foreign key comes from is rendered as another one.
        """
        rendered = list(self.ctes or ())
        if any(all(cte is not one for one in rendered) for cte in self.relied_ctes):
            refuse("a foreign key that comes from a CTE which is continued elsewhere")
        checks = []
        for link, noted, own in self.noted_links:
            names, mine = self._names_of(noted), self._names_of(own)
            if names is None or mine is None:
                return None
            checks.append(LinkCheck(link, names, mine))
        return checks

    def _names_of(self, noted: list[Noted]) -> tuple[str | Key, ...] | None:
        known: dict[Any, str] = self.bind_names
        names = [item if isinstance(item, str | Key) else known.get(item) for item in noted]
        return None if None in names else tuple(name for name in names if name is not None)

    def as_parameter(self, value: Any, column: Column[Any]) -> BindParameter[Any] | None:
        """Return a given value as a parameter of the column's type; ``None`` for an SQL expression."""
        if isinstance(value, BindParameter):
            return value if value.type is column.type else value._with_binary_element_type(column.type)
        if isinstance(value, ClauseElement) or hasattr(value, "__clause_element__"):
            return None
        return BindParameter(column.key, value, unique=True, type_=column.type)

    def note_insert_links(self, core: Any, state: Any) -> None:
        """Note the links of an INSERT, before it is rendered."""
        table: Table = core.table
        links = self.links_of(table)
        if not links:
            return
        if core.select is not None:
            for link in links:
                self._check_select(core, link)
            return
        plain = core._post_values_clause is None
        if state._has_multi_parameters:
            rows = [dict(row) for row in state._multi_parameters]
            for row in rows:
                for link in links:
                    self._note_row(link, row, table, keys=(), plain=plain, defaults=False)
            state._multi_parameters = rows
            state._dict_parameters = rows[0]
            return
        values = dict(state._dict_parameters or {})
        keys: Iterable[str] = self.column_keys or ()
        if self.column_keys is None and state._no_parameters:
            keys = [column.key for column in table.columns]
        for link in links:
            self._note_row(link, values, table, keys=keys, plain=plain, defaults=True)
        if values:
            state._dict_parameters = values

    def _note_row(
        self, link: Link, row: dict[Any, Any], table: Table, *, keys: Iterable[str], plain: bool, defaults: bool
    ) -> None:
        noted: list[Noted] = []
        for column in link.columns:
            if invents_value(column, self.dialect):
                raise _unknown(link, "by a type that makes values of none")
            found = self._note_value(link, column, row, keys)
            if not link.targets and found is not _ABSENT:
                raise _unknown(link, "")
            if found is None:
                return  # an expression that gives the tenant's own keys
            if found is _ABSENT:
                default = column.default
                if default is not None and defaults and (default.is_callable or default.is_scalar):
                    noted.append(column)
                    continue
                if default is not None or column.server_default is not None:
                    raise _unknown(link, "by a default of the database")
                return  # NULL, which points to nothing
            noted.append(found)
        own: list[Noted] = []
        if plain and link.table is table:
            for target in link.targets:
                found = self._note_value(link, target, row, keys, checked=False)
                if found is None or found is _ABSENT:
                    own = []
                    break
                own.append(found)
        self.noted_links.append((link, noted, own))

    def _note_value(
        self, link: Link, column: Column[Any], row: dict[Any, Any], keys: Iterable[str], *, checked: bool = True
    ) -> Any:
        """Return where a column's value will arrive; ``None`` for an expression that needs no check."""
        for key, value in row.items():
            if names_column(key, column):
                bind = self.as_parameter(value, column)
                if bind is not None:
                    row[key] = bind
                    return bind
                if checked and not self._computes_own(value, link):
                    raise _unknown(link, "from an SQL expression")
                return None
        return column.key if column.key in keys else _ABSENT

    def _check_select(self, core: Any, link: Link) -> None:
        names = list(core._select_names or ())
        aligned = len(names) == len(core.select.selected_columns)
        for column in link.columns:
            at = next((index for index, name in enumerate(names) if names_column(name, column)), None)
            if at is None:
                if column.default is not None or column.server_default is not None:
                    raise _unknown(link, "by a default")
                continue
            trusted = aligned and self._trusts_what_is_read(link)
            if not trusted or not selects_own_link(core.select, at, link, self.relied_ctes):
                raise _unknown(link, "from a SELECT")

    def note_set_links(self, target: FromClause, values: dict[Any, Any], keys: Iterable[str]) -> None:
        """Note the links that SET writes, of an UPDATE or an upsert. ``values`` is changed in place."""
        across = self.lifts.holds(WRITE, target) or self.lifts.holds(MOVE, target)
        table: Table = table_of(target)
        for link in self.links_of(table):
            if any(invents_value(column, self.dialect) for column in link.columns):
                raise _unknown(link, "by a type that makes values of none")
            found = [self._note_value(link, column, values, keys) for column in link.columns]
            given = [one for one in found if one is not _ABSENT]
            if across:
                self._note_nulls(given)
                continue
            if given:
                found = [
                    self._fixed(table, c) if one is _ABSENT else one for one, c in zip(found, link.columns, strict=True)
                ]
                given = [one for one in found if one is not _ABSENT]
            if not given or (len(link.columns) == 1 and given[0] is None):
                for column in link.columns:
                    if column.onupdate is not None:
                        raise _unknown(link, "by its onupdate")
                continue
            if not link.targets or len(given) < len(link.columns) or any(one is None for one in given):
                raise _unknown(link, "in parts")
            self.noted_links.append((link, given, []))

    def _fixed(self, table: Table, column: Column[Any]) -> Any:
        """Return the key whose bound value a column has in every row that is changed."""
        kind = self.classify(table)
        keys = () if isinstance(kind, Shared) else (*((kind.key,) if isinstance(kind, Owned) else ()), *kind.narrower)
        for key in keys:
            if key.column is column and key.dimension in {TENANT, *self.predicates.narrowed}:
                return key
        return _ABSENT

    def _note_nulls(self, given: list[Any]) -> None:
        """Where rows of other tenants are written, a link may be set to NULL alone, which is looked at when it runs."""
        for one in given:
            if isinstance(one, BindParameter | str):  # else it is NULL already: no other expression is let through
                self.null_binds.append(one)

    def refuse_links_of_others(self, target: FromClause | None, values: Mapping[Any, Any]) -> None:
        """Refuse an UPDATE of several tables that sets a link of another than the given one."""
        for key in values:
            if not isinstance(key, Column) or real_table(key.table) is real_table(target):
                continue
            table = table_of(key.table)
            for link in self.links_of(table) if isinstance(table, Table) else ():
                if any(names_column(key, column) for column in link.columns):
                    raise _unknown(link, "by an UPDATE of several tables")

    def name_prefetched(self, prefetched: Iterable[Column[Any]]) -> None:
        """Replace the columns that a default fills by the names of their parameters, once these are known."""
        filled = [column for column in prefetched if isinstance(column, Column)]
        for link, noted, _ in self.noted_links:
            for index, item in enumerate(noted):
                if isinstance(item, Column):
                    if not any(item is column for column in filled):
                        raise _unknown(link, "by a default")
                    noted[index] = self._within_exec_param_key_getter(item)
