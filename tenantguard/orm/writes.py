"""Wall one, writing: what INSERT, UPDATE and DELETE may touch, decided while they compile.

UPDATE and DELETE get the predicate of every owned table that they name, as a SELECT does. INSERT gets the tenant
key stamped where it is missing. Where the author gives a tenant key, in VALUES, in SET or as a parameter, the
compiler notes under which parameter name the value will arrive, and the execution context compares each row's
value with the bound tenant before anything is sent. A key that comes from an SQL expression can't be compared,
so it is refused.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final, final

from sqlalchemy import BindParameter, Column, Table, and_
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.util import tables_from_leftmost

from tenantguard.binding import SYSTEM_MODE
from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm.classify import Key, Owned, Shared, belongs_to_tenants, classify_alone, table_of
from tenantguard.orm.lifts import MOVE, WRITE
from tenantguard.orm.link_writes import LinkingMixin
from tenantguard.orm.marks import TENANT
from tenantguard.orm.predicates import check_wide, key_value
from tenantguard.orm.side_effects import refuse_actions, refuse_replacing
from tenantguard.orm.vouching import names_column, refuse

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


def _expression_refused(key: Key) -> ForeignTenantWrite:
    return ForeignTenantWrite(
        f"The {key.dimension} key of {key.column.table.name!r} is written from an SQL expression, whose value can't be "
        "checked.",
        mend=_LEAVE_OUT if key.dimension == TENANT else "Give it as a value, or leave it out.",
    )


def _default_fills(column: Column[Any]) -> bool:
    default = column.default
    return default is not None and bool(getattr(default, "is_callable", False) or getattr(default, "is_scalar", False))


class WritingMixin(LinkingMixin):
    """Adds predicates and checks to INSERT, UPDATE and DELETE. Mixed in before a dialect's compiler."""

    checked_binds: list[tuple[BindParameter[Any] | str, Key]]
    """Parameters, as objects or by name, that must hold the bound value of a key in every row."""
    moved_binds: list[tuple[BindParameter[Any] | str, Owned]]
    """Parameters, as objects or by name, that must hold some tenant in every row."""

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
        if kind == "update":
            self.vouch_for_values(state, froms, "onupdate")
            # MySQL's UPDATE of several tables sets columns of the others as well.
            assigned = [key.table for key in (state._dict_parameters or {}) if isinstance(key, Column)]
            targets += [table for table in assigned if table in froms and table not in targets]
        for table in map(table_of, targets):
            if isinstance(table, Table):
                self._refuse_side_effects(table, kind, state._dict_parameters or {})
        if kind == "update":
            self._check_assignments(core, state, several=bool(state._extra_froms))
        self.note_failing([*core._where_criteria, *froms])
        with self.planned(froms, targets=targets) as plan:
            scoped = core._clone()
            scope = self.guard_where if plan.guard else self.scope_where
            scoped._where_criteria = scope(core._where_criteria, plan.where)
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
        """Let SET name a key only with the value that it already has, except where rows are moved."""
        values: dict[Any, Any] = dict(state._dict_parameters or {})
        for target in tables_from_leftmost(core.table):
            moving = self.lifts.holds(MOVE, target)
            if moving:
                self._check_move(target, values, several=several)
            for fixed in self.fixed_keys(self.classify(table_of(target))):
                if moving and fixed.dimension == TENANT:
                    continue
                self._check_fixed(fixed, values, several=several)
        for key in values:
            if isinstance(key, Column) and key.table not in tables_from_leftmost(core.table):
                # Only MySQL's UPDATE of several tables sets columns of the others.
                for fixed in self.fixed_keys(self.classify(table_of(key.table))):
                    if key.key == fixed.column.key:
                        raise _expression_refused(fixed)
        if isinstance(table_of(core.table), Table):
            self.note_set_links(core.table, values, self.column_keys or ())
            self.refuse_links_of_others(core.table, values)
        else:
            self.refuse_links_of_others(None, values)
        if values:
            state._dict_parameters = values

    def _check_fixed(self, fixed: Key, values: dict[Any, Any], *, several: bool) -> None:
        table = fixed.column.table
        named = fixed.column.key in (self.column_keys or ())
        for key, value in values.items():
            if names_column(key, fixed.column):
                named = True
                if several:
                    raise StatementRefused(
                        f"An UPDATE of several tables sets the {fixed.dimension} key of {table.name!r}.",
                        mend="Leave it out: it never changes.",
                    )
                values[key] = self._checked(value, fixed)
        if fixed.column.key in (self.column_keys or ()):
            self.checked_binds.append((fixed.column.key, fixed))
        if named and self.lifts.holds(WRITE, table):
            raise ForeignTenantWrite(
                f"The {fixed.dimension} key of {table.name!r} is set in rows of several tenants, which moves them.",
                mend="Leave it out. Rows of the bound tenant are moved by move_rows().",
            )
        if not named and (fixed.column.onupdate is not None or fixed.column.server_onupdate is not None):
            raise ForeignTenantWrite(
                f"The {fixed.dimension} key of {table.name!r} has an onupdate, which could move rows.",
                mend="Leave onupdate out: the key never changes.",
            )

    def _check_move(self, table: Any, values: dict[Any, Any], *, several: bool) -> None:
        """Let rows go to another tenant only without what they would drag across.

        Raises:
            ForeignTenantWrite: the new tenant is no value, or a foreign key would point back.
        """
        kind = self.classify(table_of(table))
        if not isinstance(kind, Owned) or several or not isinstance(table, Table):
            raise ForeignTenantWrite(
                f"Rows of {getattr(table, 'name', '')!r} can't be moved so.",
                mend="Move rows of one table that has a tenant key, without further tables in the UPDATE.",
            )
        for key, value in values.items():
            if names_column(key, kind.column) and (bind := self.as_parameter(value, kind.column)) is None:
                raise _expression_refused(kind.key)
            if names_column(key, kind.column) and bind is not None:
                values[key] = bind
                self.moved_binds.append((bind, kind))
        given: Iterable[str] = self.column_keys or ()
        if kind.column.key in given:
            self.moved_binds.append((kind.column.key, kind))
        for link in self.links_of(table):
            # Whether the value is NULL is looked at when the statement runs.
            named = any(names_column(key, one) for key in values for one in link.columns)
            if not named and not any(one.key in given for one in link.columns):
                names = ", ".join(column.name for column in link.columns)
                raise ForeignTenantWrite(
                    f"Moved rows of {table.name!r} would point back through the foreign key {names}.",
                    mend="Set it to NULL in the same statement, or have it contain the tenant keys of both tables.",
                )

    def _checked(self, value: Any, key: Key) -> BindParameter[Any]:
        """Return a given key as a parameter that the execution context will compare."""
        bind = self.as_parameter(value, key.column)
        if bind is None:
            raise _expression_refused(key)
        self.checked_binds.append((bind, key))
        return bind

    def visit_insert(self, insert_stmt: Any, visited_bindparam: Any = None, visiting_cte: Any = None, **kw: Any) -> str:
        render = super().visit_insert
        if self.unscoped:
            if self.mode == SYSTEM_MODE:
                self._refuse_rows_for_everybody_by_oversight(insert_stmt)
            return render(insert_stmt, visited_bindparam=visited_bindparam, visiting_cte=visiting_cte, **kw)
        state = insert_stmt._compile_state_factory(insert_stmt, self, **kw)
        core = state.statement
        self.vouch_for_parts(core.get_children(), [core.table])
        self.vouch_for_values(state, [core.table], "default")
        kind = self.classify(core.table)
        refuse_replacing(core.table, self.dialect.name)
        if self.lifts.holds(WRITE, core.table) or self.lifts.holds(MOVE, core.table):
            raise StatementRefused(
                "An INSERT can't write across tenants.", mend='Insert as the row\'s own tenant, or use system("why").'
            )
        if isinstance(kind, Owned):
            for dimension in self.predicates.narrowed - {key.dimension for key in kind.narrower}:
                if kind.through is None:
                    check_wide(kind, dimension, write=True)
        by_default = [
            key for key in self.fixed_keys(kind) if self._stamp(core, state, key, in_cte=visiting_cte is not None)
        ]
        self.note_insert_links(core, state)
        with self.planned([core.table], insert=True):
            text = render(_Compiled(state), visited_bindparam=visited_bindparam, visiting_cte=visiting_cte, **kw)
        self.name_prefetched(self.insert_prefetch)
        for key in by_default:  # where none would be filled, there is no such parameter, and the comparison fails
            self.checked_binds.append((self._within_exec_param_key_getter(key.column), key))
        return text

    def _refuse_rows_for_everybody_by_oversight(self, statement: Any) -> None:
        """In a system context nothing fills the tenant key, and where NULL marks rows for everybody, nothing would
        fail.

        Raises:
            ForeignTenantWrite: the key is not given.
        """
        if not isinstance(statement.table, Table) or not belongs_to_tenants(statement.table):
            return
        kind = classify_alone(statement.table)
        if not isinstance(kind, Owned) or kind.everyone is not None:
            return
        given = [*(statement._values or ()), *(statement._select_names or ()), *(self.column_keys or ())]
        given += [key for rows in statement._multi_values for row in rows for key in row]
        if not any(names_column(key, kind.column) for key in given):
            raise ForeignTenantWrite(
                f"A row of {statement.table.name!r} without a tenant would be for everybody.",
                mend="Give the tenant key; sqlalchemy.null() where the row is meant for everybody.",
            )

    def _stamp(self, core: Any, state: Any, key: Key, *, in_cte: bool) -> bool:
        """See to it that each row gets a key that is, or will be, compared with what is bound.

        Returns:
            True if the column's default fills it, which is then checked.
        """
        column = key.column
        if core.select is not None:
            if any(names_column(name, column) for name in core._select_names or ()):
                raise _expression_refused(key)
            if not (core.include_insert_from_select_defaults and _default_fills(column)) or in_cte:
                raise StatementRefused(
                    f"INSERT from SELECT can't fill the {key.dimension} key of {core.table.name!r}.",
                    mend="Give the column default=stamp_tenant and keep include_defaults=True.",
                )
            return True
        if state._has_multi_parameters:
            state._multi_parameters = [self._stamped(row, key) for row in state._multi_parameters]
            state._dict_parameters = state._multi_parameters[0]
            return False
        given = state._dict_parameters or {}
        if any(names_column(name, column) for name in given):
            state._dict_parameters = self._stamped(given, key)
            return False
        if column.key in (self.column_keys or ()) or (self.column_keys is None and state._no_parameters):
            self.checked_binds.append((column.key, key))
            return False
        if _default_fills(column) and not in_cte:
            return True
        state._dict_parameters = self._stamped(given, key)
        state._no_parameters = False
        return False

    def _stamped(self, row: dict[Any, Any], key: Key) -> dict[Any, Any]:
        stamped = {
            name: self._checked(value, key) if names_column(name, key.column) else value for name, value in row.items()
        }
        if not any(names_column(name, key.column) for name in stamped):
            bind: BindParameter[Any] = BindParameter(
                key.column.key,
                unique=True,
                type_=key.column.type,
                callable_=partial(key_value, key.convert, key.dimension),
            )
            self.checked_binds.append((bind, key))
            stamped[key.column.key] = bind
        return stamped

    def visit_on_conflict_do_update(self, on_conflict: Any, **kw: Any) -> str:
        """Upserts: a row of another tenant that is in the way stays as it is."""
        if not self.unscoped:
            statement: Any = self.stack[-1]["selectable"]
            table = statement.table
            kind = self.classify(table)
            values = dict(on_conflict.update_values_to_set)
            for key in values:
                # Other names would be rendered as they are, and the database could know a column by them.
                if not (key in table.c if isinstance(key, str) else table.c.contains_column(key)):
                    refuse("an ON CONFLICT clause that sets what is no column's key", mend="Use the keys of table.c.")
            self._refuse_side_effects(table, "update", values)
            scoped = on_conflict._clone()
            for fixed in self.fixed_keys(kind):
                for key, value in values.items():
                    if names_column(key, fixed.column) and not self._is_excluded(value, fixed):
                        raise _expression_refused(fixed)
            self.note_set_links(table, values, ())
            scoped.update_values_to_set = type(on_conflict.update_values_to_set)(values.items())
            on_conflict = scoped
            if not isinstance(kind, Shared):
                predicate = self.predicates.predicate(kind, table, write=True)
                scoped.update_whereclause = (
                    predicate
                    if on_conflict.update_whereclause is None
                    else and_(predicate, Grouping(on_conflict.update_whereclause))
                )
        text: str = super().visit_on_conflict_do_update(on_conflict, **kw)  # type: ignore[misc]
        return text

    @staticmethod
    def _is_excluded(value: Any, key: Key) -> bool:
        """True for ``excluded.<key>``: the value of the row to be inserted, which is checked itself."""
        return (
            isinstance(value, Column)
            and value.name == key.column.name
            and getattr(value.table, "name", "") == "excluded"
        )
