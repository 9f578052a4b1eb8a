"""Wall one, writing: what INSERT, UPDATE and DELETE may touch, decided while they compile.

UPDATE and DELETE get the predicate of every owned table that they name, as a SELECT does. INSERT gets the tenant
key stamped where it is missing. Where the author gives a tenant key, in VALUES, in SET or as a parameter, the
compiler notes under which parameter name the value will arrive, and the execution context compares each row's
value with the bound tenant before anything is sent. A key that comes from an SQL expression can't be compared,
so it is refused.
"""

from typing import Any, Final, final

from sqlalchemy import BindParameter, Column, Table, and_
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.util import tables_from_leftmost
from sqlalchemy.sql.visitors import Visitable

from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm.classify import Owned, Shared, classify
from tenantguard.orm.link_writes import LinkingMixin, names_column
from tenantguard.orm.links import links_of
from tenantguard.orm.scoping import tenant_value
from tenantguard.orm.side_effects import refuse_actions, refuse_replacing
from tenantguard.orm.vouching import refuse

__all__ = ["WritingMixin"]

_LEAVE_OUT: Final = "Leave the tenant key out: it is filled with the bound tenant."


@final
class _Compiled:
    """Stands in for a statement whose compile state is already made, so that it is not made twice."""

    __slots__ = ("_state",)

    def __init__(self, state: Any) -> None:
        self._state = state

    def _compile_state_factory(self, *_args: Any, **_kw: Any) -> Any:
        return self._state


def _expression_refused(table: str) -> ForeignTenantWrite:
    return ForeignTenantWrite(
        f"The tenant key of {table!r} is written from an SQL expression, whose value can't be checked.",
        mend=_LEAVE_OUT,
    )


def _default_fills(column: Column[Any]) -> bool:
    default = column.default
    return default is not None and bool(getattr(default, "is_callable", False) or getattr(default, "is_scalar", False))


def _table_name(column: Column[Any]) -> str:
    return str(getattr(column.table, "name", ""))


class WritingMixin(LinkingMixin):
    """Adds predicates and checks to INSERT, UPDATE and DELETE. Mixed in before a dialect's compiler."""

    checked_binds: list[tuple[BindParameter[Any] | str, Owned]]
    """Parameters, as objects or by name, that must hold the bound tenant in every row."""

    def visit_update(self, update_stmt: Any, visiting_cte: Any = None, **kw: Any) -> str:
        return self._scope_dml("update", update_stmt, visiting_cte, kw)

    def visit_delete(self, delete_stmt: Any, visiting_cte: Any = None, **kw: Any) -> str:
        return self._scope_dml("delete", delete_stmt, visiting_cte, kw)

    def _scope_dml(self, kind: str, statement: Any, visiting_cte: Any, kw: dict[str, Any]) -> str:
        render: Any = super().visit_update if kind == "update" else super().visit_delete
        if self.unscoped:
            return render(statement, visiting_cte=visiting_cte, **kw)
        state = statement._compile_state_factory(statement, self, **kw)
        core = state.statement
        targets = list(tables_from_leftmost(core.table))
        froms = [core.table, *(element for element in state._extra_froms if element not in targets)]
        self.vouch_for_parts(core.get_children(), froms)
        for table in targets:
            if isinstance(table, Table):
                self._refuse_side_effects(table, kind, state._dict_parameters or {})
        if kind == "update":
            self._check_assignments(core, state, several=bool(state._extra_froms))
        with self.planned(froms) as plan:
            scoped = core._clone()
            scoped._where_criteria = self.scope_where(core._where_criteria, plan.where)
            state.statement = scoped
            return render(_Compiled(state), visiting_cte=visiting_cte, **kw)

    def _refuse_side_effects(self, table: Table, kind: str, values: dict[Any, Any]) -> None:
        if kind == "update":
            refuse_replacing(table, self.dialect.name)
        refuse_actions(
            table,
            kind,
            lambda column: column.key in (self.column_keys or ()) or any(names_column(k, column) for k in values),
        )

    def _check_assignments(self, core: Any, state: Any, *, several: bool) -> None:
        """Let SET name a tenant key only with the value that it already has."""
        values: dict[Any, Any] = dict(state._dict_parameters or {})
        for table in tables_from_leftmost(core.table):
            owned = classify(table)
            if not isinstance(owned, Owned):
                continue
            for key, value in values.items():
                if names_column(key, owned.column):
                    if several:
                        raise StatementRefused(
                            f"An UPDATE of several tables sets the tenant key of {table!r}.",
                            mend="Leave it out: it never changes.",
                        )
                    values[key] = self._checked(value, owned)
            if owned.column.key in (self.column_keys or ()):
                self.checked_binds.append((owned.column.key, owned))
            elif owned.column.onupdate is not None and not any(names_column(key, owned.column) for key in values):
                raise ForeignTenantWrite(
                    f"The tenant key of {table!r} has an onupdate, which could move rows to another tenant.",
                    mend="Leave onupdate out: the key never changes.",
                )
        for key in values:
            if isinstance(key, Column) and key.table not in tables_from_leftmost(core.table):
                # Only MySQL's UPDATE of several tables sets columns of the others.
                owned = classify(key.table)
                if isinstance(owned, Owned) and key.key == owned.column.key:
                    raise _expression_refused(str(key.table))
        if isinstance(core.table, Table):
            self.note_set_links(core.table, values, self.column_keys or ())
            self.refuse_links_of_others(core.table, values)
        else:
            self.refuse_links_of_others(None, values)
        if values:
            state._dict_parameters = values

    def _checked(self, value: Any, owned: Owned) -> BindParameter[Any]:
        """Return a given tenant key as a parameter that the execution context will compare."""
        bind = self.as_parameter(value, owned.column)
        if bind is None:
            raise _expression_refused(owned.column.table.name)
        self.checked_binds.append((bind, owned))
        return bind

    def visit_insert(self, insert_stmt: Any, visited_bindparam: Any = None, visiting_cte: Any = None, **kw: Any) -> str:
        render = super().visit_insert
        if self.unscoped:
            return render(insert_stmt, visited_bindparam=visited_bindparam, visiting_cte=visiting_cte, **kw)
        state = insert_stmt._compile_state_factory(insert_stmt, self, **kw)
        core = state.statement
        self.vouch_for_parts(core.get_children(), [core.table])
        owned = classify(core.table)
        refuse_replacing(core.table, self.dialect.name)
        prefetched = isinstance(owned, Owned) and self._stamp(core, state, owned, in_cte=visiting_cte is not None)
        self.note_insert_links(core, state)
        with self.planned([core.table], insert=True):
            text = render(_Compiled(state), visited_bindparam=visited_bindparam, visiting_cte=visiting_cte, **kw)
        self.name_prefetched(self.insert_prefetch)
        if isinstance(owned, Owned) and prefetched:
            if owned.column not in self.insert_prefetch:
                raise StatementRefused(
                    f"The tenant key of {core.table.name!r} would not be filled by this INSERT.",
                    mend="Give the column default=stamp_tenant.",
                )
            self.checked_binds.append((self._within_exec_param_key_getter(owned.column), owned))
        return text

    def _stamp(self, core: Any, state: Any, owned: Owned, *, in_cte: bool) -> bool:
        """See to it that each row gets a tenant key that is, or will be, compared with the bound tenant.

        Returns:
            True if the column's default fills it, which is then checked.
        """
        column = owned.column
        if core.select is not None:
            if any(names_column(name, column) for name in core._select_names or ()):
                raise _expression_refused(core.table.name)
            if not (core.include_insert_from_select_defaults and _default_fills(column)) or in_cte:
                raise StatementRefused(
                    f"INSERT from SELECT can't fill the tenant key of {core.table.name!r}.",
                    mend="Give the column default=stamp_tenant and keep include_defaults=True.",
                )
            return True
        if state._has_multi_parameters:
            state._multi_parameters = [self._stamped(row, owned) for row in state._multi_parameters]
            state._dict_parameters = state._multi_parameters[0]
            return False
        given = state._dict_parameters or {}
        if any(names_column(key, column) for key in given):
            state._dict_parameters = self._stamped(given, owned)
            return False
        if column.key in (self.column_keys or ()) or (self.column_keys is None and state._no_parameters):
            self.checked_binds.append((column.key, owned))
            return False
        if _default_fills(column) and not in_cte:
            return True
        state._dict_parameters = self._stamped(given, owned)
        state._no_parameters = False
        return False

    def _stamped(self, row: dict[Any, Any], owned: Owned) -> dict[Any, Any]:
        stamped = {
            key: self._checked(value, owned) if names_column(key, owned.column) else value for key, value in row.items()
        }
        if not any(names_column(key, owned.column) for key in stamped):
            convert = owned.convert
            bind: BindParameter[Any] = BindParameter(
                owned.column.key, unique=True, type_=owned.column.type, callable_=lambda: tenant_value(convert)
            )
            self.checked_binds.append((bind, owned))
            stamped[owned.column.key] = bind
        return stamped

    def visit_on_conflict_do_update(self, on_conflict: Any, **kw: Any) -> str:
        """Upserts: a row of another tenant that is in the way stays as it is."""
        if not self.unscoped:
            statement: Any = self.stack[-1]["selectable"]
            table = statement.table
            owned = classify(table)
            values = dict(on_conflict.update_values_to_set)
            self.vouch_for_parts(
                on_conflict.update_whereclause,
                on_conflict.inferred_target_whereclause,
                [value for value in values.values() if isinstance(value, Visitable)],
            )
            for key in values:
                # Other names would be rendered as they are, and the database could know a column by them.
                if not (key in table.c if isinstance(key, str) else table.c.contains_column(key)):
                    refuse("an ON CONFLICT clause that sets what is no column's key", mend="Use the keys of table.c.")
            self._refuse_side_effects(table, "update", values)
            scoped = on_conflict._clone()
            if isinstance(owned, Owned):
                for key, value in values.items():
                    if names_column(key, owned.column) and not self._is_excluded(value, owned):
                        raise _expression_refused(table.name)
            self.note_set_links(table, values, ())
            scoped.update_values_to_set = type(on_conflict.update_values_to_set)(values.items())
            on_conflict = scoped
            if not isinstance(owned, Shared):
                predicate = self.predicate(owned, table)
                scoped.update_whereclause = (
                    predicate
                    if on_conflict.update_whereclause is None
                    else and_(Grouping(on_conflict.update_whereclause), predicate)
                )
        text: str = super().visit_on_conflict_do_update(on_conflict, **kw)  # type: ignore[misc]
        return text

    @staticmethod
    def _is_excluded(value: Any, owned: Owned) -> bool:
        """True for ``excluded.<tenant key>``: the value of the row to be inserted, which is checked itself."""
        return (
            isinstance(value, Column)
            and value.name == owned.column.name
            and getattr(value.table, "name", "") == "excluded"
        )

    def visit_on_duplicate_key_update(self, on_duplicate: Any, **kw: Any) -> str:
        """MySQL's upsert has no WHERE, so it could change a row of another tenant that is in the way."""
        statement: Any = self.stack[-1]["selectable"]
        if not self.unscoped and (not isinstance(classify(statement.table), Shared) or links_of(statement.table)):
            raise StatementRefused(
                "ON DUPLICATE KEY UPDATE could change a row of another tenant.",
                mend="Read the row first, then update or insert it.",
            )
        text: str = super().visit_on_duplicate_key_update(on_duplicate, **kw)  # type: ignore[misc]
        return text
