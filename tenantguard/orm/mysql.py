"""What MySQL and MariaDB alone have: their upsert, and ways in which their SQL can hold more than it seems to.

ON DUPLICATE KEY UPDATE has no WHERE, and the row in the way may be another tenant's. So each assignment is made to keep
the old value unless the row is the tenant's: nothing of another's row changes, and its key is not told as the last
inserted id. Assignments run from left to right; the condition stays what it was, since the columns that it looks at
change in own rows alone, and to own values. MariaDB's RETURNING would show the row in the way, so it is refused there.
"""

from typing import Any

from sqlalchemy import BindParameter, Column, Table
from sqlalchemy.sql import coercions, roles
from sqlalchemy.sql.compiler import SQLCompiler

from tenantguard.errors import ForeignTenantWrite, StatementRefused
from tenantguard.orm.classify import Shared
from tenantguard.orm.link_writes import LinkingMixin
from tenantguard.orm.side_effects import refuse_actions
from tenantguard.orm.vouching import refuse

__all__ = ["MySQLMixin"]

_NAMES = ("mysql", "mariadb")


class MySQLMixin(LinkingMixin):
    """Scopes MySQL's upsert, and refuses what only MySQL would read otherwise. Mixed in before a dialect's compiler."""

    upsert: tuple[int, Any] | None = None
    """While an upsert's assignments are rendered: the depth of its statement, and what stands for the new row."""

    upserts: bool = False
    """True once an upsert's assignments have been guarded."""

    @property
    def _guards(self) -> bool:
        return not self.unscoped and self.dialect.name in _NAMES

    def visit_on_duplicate_key_update(self, on_duplicate: Any, **kw: Any) -> str:
        """Let each assignment keep the old value, unless the row in the way is the tenant's."""
        if self.unscoped:
            text: str = super().visit_on_duplicate_key_update(on_duplicate, **kw)  # type: ignore[misc]
            return text
        statement: Any = self.stack[-1]["selectable"]
        table: Table = statement.table
        kind = self.classify(table)
        if not isinstance(kind, Shared) and not self.dialect.is_mariadb:
            raise StatementRefused(
                "ON DUPLICATE KEY UPDATE could change a row of another tenant.",
                mend="Read the row first, then update or insert it.",
            )
        values: dict[str, Any] = {
            coercions.expect_as_key(roles.DMLColumnRole, key): value for key, value in on_duplicate.update.items()
        }
        if any(key not in table.c for key in values):
            refuse("an ON DUPLICATE KEY UPDATE that sets what is no column's key", mend="Use the keys of table.c.")
        refuse_actions(table, "update", lambda column: column.key in values)
        for fixed in self.fixed_keys(kind):
            given: Any = values.get(fixed.column.key)
            # The new row's own key is checked itself.
            own_key = isinstance(given, Column) and given.table is on_duplicate.inserted_alias
            if fixed.column.key in values and not (own_key and given.name == fixed.column.name):
                raise ForeignTenantWrite(
                    f"ON DUPLICATE KEY UPDATE sets the {fixed.dimension} key of {table.name!r}.",
                    mend="Leave it out: it never changes.",
                )
        self.note_set_links(table, values, ())
        order = [key for key in on_duplicate._parameter_ordering or () if key in values]
        order += [column.key for column in table.columns if column.key in values and column.key not in order]
        own, kept = "", None
        if not isinstance(kind, Shared):
            own = self.process(self.predicates.predicate(kind, table, write=True))
            kept = table.autoincrement_column
            if kept is not None and kept.key not in values:
                values[kept.key] = kept
                order.append(kept.key)
            self.upserts = True
        self.upsert = (len(self.stack), on_duplicate.inserted_alias)
        try:
            set_ = [self._assignment(table.c[key], values[key], own, counted=table.c[key] is kept) for key in order]
        finally:
            self.upsert = None
        return f"ON DUPLICATE KEY UPDATE {', '.join(set_)}"

    def _assignment(self, column: Column[Any], value: Any, own: str, *, counted: bool) -> str:
        if isinstance(value, BindParameter) and value.type._isnull:
            value = value._with_binary_element_type(column.type)
        text = self.process(value.self_group())
        if own:
            old = self.process(column)
            # Else the key of a row that is not updated would be told as that of one which was inserted.
            old = f"{old} + 0 * LAST_INSERT_ID(0)" if counted else old
            text = f"CASE WHEN {own} THEN {text} ELSE {old} END"
        return f"{self.preparer.quote(column.name)} = {text}"

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        if self.upsert is not None and self.upsert[0] == len(self.stack) and column.table is self.upsert[1]:
            return f"VALUES({self.preparer.quote(column.name)})"
        return super().visit_column(column, *args, **kw)

    def visit_insert(self, insert_stmt: Any, *args: Any, **kw: Any) -> str:
        text: str = super().visit_insert(insert_stmt, *args, **kw)
        # The drivers join many rows of parameters to one VALUES, and know an INSERT that they can do so with by its
        # first word; of this one they would leave the parameters of the assignments as they are.
        return f"/* row by row */ {text}" if self.upserts and not self.stack else text

    def returning_clause(self, stmt: Any, *args: Any, **kw: Any) -> str:
        upserts = getattr(getattr(stmt, "_post_values_clause", None), "__visit_name__", "") == "on_duplicate_key_update"
        if self._guards and upserts and not isinstance(self.classify(stmt.table), Shared):
            raise StatementRefused(
                "RETURNING after ON DUPLICATE KEY UPDATE would show a row of another tenant that is in the way.",
                mend="Read the row afterwards.",
            )
        return super().returning_clause(stmt, *args, **kw)

    def get_select_precolumns(self, select: Any, **kw: Any) -> str:
        if not self.unscoped and isinstance(select._distinct, str):
            refuse("a DISTINCT that is a text")
        return super().get_select_precolumns(select, **kw)

    def _vouch_operator(self, operator: Any) -> None:
        if self._guards and "#" in operator.opstring:
            refuse("an operator that begins a comment")
        super()._vouch_operator(operator)

    def render_literal_value(self, value: Any, type_: Any) -> str:
        if self._guards:
            plain: Any = SQLCompiler.render_literal_value(self, value, type_)
            if "\\" in plain and plain.startswith("'") and plain.endswith("'"):
                # Whether a backslash escapes is a setting of each connection; the dialect knows its first one alone.
                inner = plain[1:-1].replace("''", "'")
                if self.preparer._double_percents:
                    inner = inner.replace("%%", "%")
                return f"_utf8mb4 X'{inner.encode().hex()}'"
        text: str = super().render_literal_value(value, type_)
        return text
